"""Random keys that are known when a program runs: a function of arrays of words, before it is lowered.

A key that is an argument, or that differs from one iteration of a loop to the next, becomes the words that it consists
of, which must be public: JAX's generator (lower/threefry.py) is then computed by all parties alike. So all know these
random numbers; what nobody may know, `spu.random` draws. A function whose keys are all constants stays as it is: its
random numbers are constants, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex
from jax.extend.random import threefry_prng_impl as threefry

from spuvm.compiler.front.trace import Traced
from spuvm.compiler.ir.dtypes import is_key, is_key_dtype
from spuvm.compiler.ir.module import Location
from spuvm.compiler.lower.evaluation import INLINED, bind, evaluate, struct_of
from spuvm.compiler.lower.folded import fold
from spuvm.compiler.lower.jaxprs import bodies, draws
from spuvm.runtime.errors import UnsupportedError

DRAWING = ("random_wrap", "random_seed", "random_bits", "random_split", "random_fold_in", "threefry2x32")
LOOPS = ("scan", "while")
KEEP = "return its words, `jax.random.key_data(key)`, and make a key of them with `jax.random.wrap_key_data`."

# Words of a float in [1, 2), which JAX makes of random bits: exponent, and bits of the fraction.
ONES = {32: (0x3F800000, 23), 64: (0x3FF0000000000000, 52)}
FRACTION = 23  # bits of it that are used


@dataclasses.dataclass(frozen=True, eq=False)
class Key:
    """Keys by their words, uint32[..., 2]."""

    words: Any


jax.tree_util.register_dataclass(Key, ["words"], [])


def without_keys(traced: Traced) -> Traced:
    """The same function of words; a function whose keys are constants as it is."""
    closed = traced.jaxpr
    if not _draws_by(closed.jaxpr, [True] * len(closed.in_avals)):
        return traced

    def of_words(*args: Any) -> list[Any]:
        given = [Key(x) if _is_key(a) else x for x, a in zip(args, closed.in_avals)]
        outs = _Evaluation().run(closed, given)
        for name, x in zip(traced.outputs, outs):
            if isinstance(x, Key):
                raise UnsupportedError(f"{traced.location}: result `{name}` is a random key: {KEEP}")
        return outs

    return dataclasses.replace(traced, jaxpr=jax.make_jaxpr(of_words)(*map(_words_struct, closed.in_avals)))


def _is_key(aval: Any) -> bool:
    return is_key_dtype(getattr(aval, "dtype", np.dtype(bool)))


def _words_struct(aval: Any) -> Any:
    return jax.ShapeDtypeStruct((*aval.shape, 2), np.dtype(np.uint32)) if _is_key(aval) else struct_of(aval)


def _draws_by(jaxpr: Any, changing: Sequence[bool]) -> bool:
    """Whether a jaxpr uses keys that depend on what is no constant: `changing` of its inputs."""
    depends = {v for v, c in zip(jaxpr.invars, changing) if c}
    if any(_is_key(v.aval) for v in depends):
        return True
    for eqn in jaxpr.eqns:
        flags = [not isinstance(v, jex.Literal) and v in depends for v in eqn.invars]
        name, inner = eqn.primitive.name, list(bodies(eqn.params))
        if name in DRAWING and any(flags):
            return True
        for body in inner:
            count = len(body.invars)
            own = [True] * count if name in LOOPS else flags[-count:] if count else []
            if name == "scan":
                own = [*flags[: eqn.params["num_consts"]], *own[eqn.params["num_consts"] :]]
            if len(own) == count and _draws_by(body, own):
                return True
        if any(flags) or name in LOOPS:
            depends.update(eqn.outvars)
    return False


# evaluation ---------------------------------------------------------------------------------------------------


class _Evaluation:
    """One function, or one body of it; keys that are constants stay so."""

    def __init__(self) -> None:
        self.ones: dict[int, Any] = {}  # words of floats in [1, 2)
        self.location: Any = "unknown"

    def run(self, closed: Any, args: Sequence[Any]) -> list[Any]:
        return evaluate(closed, args, self._equation)

    def _equation(self, eqn: Any, args: list[Any], line: Location | None) -> list[Any]:
        self.location = line or self.location
        name = eqn.primitive.name
        known = not any(isinstance(x, jax.core.Tracer | Key) for x in args)
        keyed = any(isinstance(x, Key) for x in args) or any(_mentions(b) for b in bodies(eqn.params))
        if name in CONTROL:
            return CONTROL[name](self, args, eqn.params) if keyed else bind(eqn, args, eqn.params)
        body = next((eqn.params[k] for k in INLINED if k in eqn.params), None)
        if body is not None:
            return self.run(body, args) if keyed or known else bind(eqn, args, eqn.params)
        if known and not draws(eqn.params) and not name.startswith("spu_") and not eqn.effects:
            return fold(eqn, args)
        if name in RULES and (keyed or name in DRAWING):
            return [RULES[name](*map(_keyed, args), **eqn.params)]
        if name == "bitcast_convert_type" and id(args[0]) in self.ones:
            return [_fraction(args[0], eqn.outvars[0].aval.dtype)]
        if any(isinstance(x, Key) for x in args):
            return self._moved(eqn, [*map(_keyed, args)])
        out = bind(eqn, args, eqn.params)
        if name == "or" and any(_is_one(x) for x in args):
            self.ones[id(out[0])] = out[0]
        return out

    def _moved(self, eqn: Any, args: list[Any]) -> list[Any]:
        """A rearrangement, of each word alike."""
        if any(_is_key(v.aval) is not True for v in eqn.outvars):
            raise UnsupportedError(
                f"{self.location}: `{eqn.primitive.name}`: not for a random key that is no constant of the function."
            )
        parts = [bind(eqn, [x.words[..., i] if isinstance(x, Key) else x for x in args], eqn.params) for i in (0, 1)]
        return [Key(jnp.stack(pair, -1)) for pair in zip(*parts)]


def _mentions(jaxpr: Any) -> bool:
    return any(e.primitive.name in DRAWING or any(map(_mentions, bodies(e.params))) for e in jaxpr.eqns)


def _keyed(x: Any) -> Any:
    """A constant key by its words."""
    if not is_key(x) or isinstance(x, jax.core.Tracer):
        return x
    with jax.ensure_compile_time_eval():
        return Key(np.asarray(jax.random.key_data(x)))


def _is_one(x: Any) -> bool:
    bits = 8 * x.dtype.itemsize if isinstance(x, np.ndarray) and x.dtype.kind == "u" else 0
    return bits in ONES and bool((x == ONES[bits][0]).all())


def _fraction(words: Any, dtype: Any) -> Any:
    """The float in [1, 2) that has these words, of which fixed point holds the leading bits of the fraction."""
    one, bits = ONES[8 * words.dtype.itemsize]
    leading = lax.shift_right_logical(words ^ words.dtype.type(one), words.dtype.type(bits - FRACTION))
    return leading.astype(np.int32).astype(dtype) * np.asarray(2.0**-FRACTION, dtype) + np.asarray(1, dtype)


# rules --------------------------------------------------------------------------------------------------------


def _each(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Of many keys each by itself."""
    for _ in range(count):
        function = jax.vmap(function)
    return function


def _number_of(key: Key) -> int:
    return np.ndim(key.words) - 1


def _wrap(words: Any, *, impl: Any, **_: Any) -> Key:
    if impl.tag != threefry.tag:
        raise UnsupportedError(f"a key of the generator {impl.name}: only Threefry's may be arguments.")
    return Key(words)


def _seed(seeds: Any, *, impl: Any, **_: Any) -> Key:
    return _wrap(_each(threefry.seed, np.ndim(seeds))(seeds), impl=impl)


def _bits(key: Key, *, bit_width: int, shape: Any, **_: Any) -> Any:
    return _each(lambda words: threefry.random_bits(words, bit_width, tuple(shape)), _number_of(key))(key.words)


def _split(key: Key, *, shape: Any, **_: Any) -> Key:
    return Key(_each(lambda words: threefry.split(words, tuple(shape)), _number_of(key))(key.words))


def _fold_in(key: Key, data: Any, **_: Any) -> Key:
    return Key(_each(threefry.fold_in, _number_of(key))(key.words, jnp.asarray(data).astype(np.uint32)))


RULES: dict[str, Callable[..., Any]] = {
    "random_wrap": _wrap,
    "random_seed": _seed,
    "random_bits": _bits,
    "random_split": _split,
    "random_fold_in": _fold_in,
    "random_unwrap": lambda key, **_: key.words,
}


# control --------------------------------------------------------------------------------------------------------


def _cond(self: _Evaluation, args: list[Any], params: dict[str, Any]) -> list[Any]:
    index, *operands = args
    branches = params["branches"]
    if not isinstance(index, jax.core.Tracer):
        return self.run(branches[min(max(int(index), 0), len(branches) - 1)], operands)
    run = [lambda *xs, b=b: [*map(_keyed, _Evaluation().run(b, xs))] for b in branches]
    return list(lax.switch(index, run, *map(_keyed, operands)))


def _scan(self: _Evaluation, args: list[Any], params: dict[str, Any]) -> list[Any]:
    k, c = params["num_consts"], params["num_carry"]

    def body(carry: Any, row: Any) -> Any:
        out = [*map(_keyed, _Evaluation().run(params["jaxpr"], [*args[:k], *carry, *row]))]
        return out[:c], out[c:]

    init, rows = [*map(_keyed, args[k : k + c])], [*map(_keyed, args[k + c :])]
    carry, stacked = lax.scan(body, init, rows, int(params["length"]), bool(params["reverse"]))
    return [*carry, *stacked]


def _while(self: _Evaluation, args: list[Any], params: dict[str, Any]) -> list[Any]:
    a, b = params["cond_nconsts"], params["body_nconsts"]
    first, second, init = args[:a], args[a : a + b], args[a + b :]
    return list(
        lax.while_loop(
            lambda carry: _Evaluation().run(params["cond_jaxpr"], [*first, *carry])[0],
            lambda carry: [*map(_keyed, _Evaluation().run(params["body_jaxpr"], [*second, *carry]))],
            [*map(_keyed, init)],
        )
    )


CONTROL = {"cond": _cond, "scan": _scan, "while": _while}
