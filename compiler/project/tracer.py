"""Traces kernels as `jax.make_jaxpr` does, faster.

JAX sends each operator between two words through `jnp`, a `jit` of its own and a look at the stack. Here operators
between equal words, and with constants of their type, are written down at once. All else goes JAX's way, until it hands
over its primitives. For that it takes JAX's own classes: see `recorder` for versions in which they are others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jax import lax
from jax._src import core as jax_core

from spuvm.compiler.project.record import Record, Recorded, Value
from spuvm.compiler.project.stage_function import Known

core: Any = jax_core
WORDS, BITS = "iu", "iub"  # kinds of dtypes


def record(function: Callable[..., Sequence[Any]], avals: Sequence[Any]) -> Record:
    """The equations of a function that gives a flat tuple."""
    recorder = Recorder()
    arguments = [recorder.traced(jax.core.ShapedArray(a.shape, a.dtype)) for a in avals]
    with core.set_current_trace(recorder):
        results = function(*arguments)
    return Record(
        [v for v in map(recorder.atom, arguments) if isinstance(v, Value)],
        recorder.equations,
        [recorder.atom(x) for x in results],
    )


class Traced(core.Tracer):  # type: ignore[misc]
    """A word, or another value, of a kernel; operators as `jnp` has them."""

    __slots__ = ("atom",)

    def __init__(self, trace: Recorder, atom: Value | Known, aval: Any) -> None:
        super().__init__(trace, aval)
        self.atom = atom

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        new, old = np.dtype(dtype), self.aval.dtype
        if args or kwargs or new.kind not in WORDS or old.kind not in BITS or self.aval.weak_type:
            return core.Tracer.astype(self, dtype, *args, **kwargs)
        if new == old:
            return self
        params = {"new_dtype": new, "weak_type": False, "sharding": None}
        return self._trace.add(lax.convert_element_type_p, params, (self.atom,), _aval(self.aval.shape, new))


class Recorder(core.Trace):  # type: ignore[misc]
    """Writes primitives down."""

    def __init__(self) -> None:
        super().__init__()
        self.equations: list[Recorded] = []

    def traced(self, aval: Any) -> Traced:
        return Traced(self, Value(aval), aval)

    def add(self, primitive: Any, params: dict[str, Any], ins: Sequence[Value | Known], aval: Any) -> Traced:
        """An equation with one result."""
        out = Value(aval)
        self.equations.append(Recorded(primitive, params, ins, (out,)))
        return Traced(self, out, aval)

    def atom(self, x: Any) -> Value | Known:
        if type(x) is not Traced:
            if isinstance(x, core.Tracer):
                raise NotImplementedError("a tracer of another function")
            return Known(x)
        if x._trace is not self:
            raise NotImplementedError("a value of another kernel")
        return x.atom

    def stage_value(self, x: Any) -> Traced:
        return x if isinstance(x, Traced) else Traced(self, Known(x), core.typeof(x))

    def process_primitive(self, primitive: Any, tracers: Sequence[Any], params: dict[str, Any], /) -> Any:
        if any(type(c) is Traced for p in params.values() for c in getattr(p, "consts", ())):
            raise NotImplementedError(f"`{primitive}` of a function that reads values around it")
        avals = _types(primitive, tuple(map(core.typeof, tracers)), params)
        if (short := _FORWARDED.get(primitive)) and (same := short(tracers[0], params, avals)) is not None:
            return same
        outs = [Value(a) for a in avals]
        self.equations.append(Recorded(primitive, params, [self.atom(x) for x in tracers], outs))
        results = [Traced(self, v, v.aval) for v in outs]
        return results if primitive.multiple_results else results[0]


def _types(primitive: Any, avals: tuple[Any, ...], params: dict[str, Any]) -> Sequence[Any]:
    try:
        return _known_types(primitive, avals, tuple(params.items()))
    except TypeError:  # a parameter without a hash; or the kernel's fault, which is then met again
        return _new_types(primitive, avals, params)


@lru_cache(maxsize=1 << 14)
def _known_types(primitive: Any, avals: tuple[Any, ...], params: tuple[tuple[str, Any], ...]) -> Sequence[Any]:
    return _new_types(primitive, avals, dict(params))


def _new_types(primitive: Any, avals: tuple[Any, ...], params: dict[str, Any]) -> Sequence[Any]:
    found, effects = primitive.abstract_eval(*avals, **params)
    if effects:
        raise NotImplementedError(f"effects of `{primitive}`")
    return tuple(found) if primitive.multiple_results else (found,)


def _converted(x: Any, params: dict[str, Any], avals: Sequence[Any]) -> Any:
    """JAX converts constants at once, and to the same type not at all."""
    if not isinstance(x, core.Tracer):
        return np.asarray(x).astype(params["new_dtype"]) if np.ndim(x) == 0 else None
    return x if x.aval is avals[0] else None


def _broadcast(x: Any, params: dict[str, Any], avals: Sequence[Any]) -> Any:
    return x if isinstance(x, core.Tracer) and x.aval is avals[0] else None


_FORWARDED: dict[Any, Callable[..., Any]] = {
    lax.convert_element_type_p: _converted,
    lax.broadcast_in_dim_p: _broadcast,
}


# Operators ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 10)
def _aval(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    return jax.core.ShapedArray(shape, dtype)


def _operand(x: Traced, y: Any, kinds: str) -> Value | Known | None:
    """y, if an operator of it and x is one of words of one type and shape, or of a word and a constant."""
    aval = x.aval
    if aval.dtype.kind not in kinds or aval.weak_type:
        return None
    if type(y) is Traced:
        return y.atom if y.aval is aval and y._trace is x._trace else None
    if isinstance(y, np.generic):
        return Known(y) if y.dtype == aval.dtype else None
    if type(y) is int and aval.dtype.kind in WORDS:
        limits = np.iinfo(aval.dtype)
        return Known(aval.dtype.type(y)) if limits.min <= y <= limits.max else None
    return None


def _binary(name: str, primitive: Callable[[Traced], Any], kinds: str, swapped: bool, is_bool: bool) -> Any:
    by_jax = getattr(core.Tracer, name)

    def operator(x: Traced, y: Any) -> Any:
        other = _operand(x, y, kinds)
        if other is None:
            return by_jax(x, y)
        ins = (other, x.atom) if swapped else (x.atom, other)
        aval = _aval(x.aval.shape, np.dtype(bool)) if is_bool else x.aval
        return x._trace.add(primitive(x), {}, ins, aval)

    return operator


def _unary(name: str, primitive: Any, kinds: str) -> Any:
    by_jax = getattr(core.Tracer, name)

    def operator(x: Traced) -> Any:
        if x.aval.dtype.kind not in kinds or x.aval.weak_type:
            return by_jax(x)
        return x._trace.add(primitive, {}, (x.atom,), x.aval)

    return operator


def _fixed(primitive: Any, _: Traced) -> Any:
    return primitive


def _right(x: Traced) -> Any:
    return lax.shift_right_logical_p if x.aval.dtype.kind == "u" else lax.shift_right_arithmetic_p


BINARY: dict[str, tuple[Any, str]] = {
    "add": (lax.add_p, WORDS),
    "sub": (lax.sub_p, WORDS),
    "mul": (lax.mul_p, WORDS),
    "and": (lax.and_p, BITS),
    "or": (lax.or_p, BITS),
    "xor": (lax.xor_p, BITS),
    "lshift": (lax.shift_left_p, WORDS),
    "rshift": (None, WORDS),
}
COMPARISONS = {"eq": lax.eq_p, "ne": lax.ne_p, "lt": lax.lt_p, "le": lax.le_p, "gt": lax.gt_p, "ge": lax.ge_p}
UNARY = {"neg": (lax.neg_p, WORDS), "invert": (lax.not_p, BITS)}
for _name, (_primitive, _kinds) in BINARY.items():
    _of = partial(_fixed, _primitive) if _primitive else _right
    setattr(Traced, f"__{_name}__", _binary(f"__{_name}__", _of, _kinds, False, False))
    setattr(Traced, f"__r{_name}__", _binary(f"__r{_name}__", _of, _kinds, True, False))
for _name, _primitive in COMPARISONS.items():
    setattr(Traced, f"__{_name}__", _binary(f"__{_name}__", partial(_fixed, _primitive), WORDS, False, True))
for _name, (_primitive, _kinds) in UNARY.items():
    setattr(Traced, f"__{_name}__", _unary(f"__{_name}__", _primitive, _kinds))
