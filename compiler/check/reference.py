"""What an equation of a jaxpr gives in float64, with exact integers: the truth that `check/shadow.py` compares with.

Every float, whatever its width, is a float64. Sums and products of signed integers are computed in 64 bits, and
in floats beyond those, so that what does not fit their type is seen and not wrapped; unsigned integers and
operations on bits keep their own type, where wrapping around is what is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from spuvm.compiler.ir.dtypes import is_key

Array = Any  # numpy: float64, bool, an integer type; a jax array of random keys

# Their results on signed integers are compared with the exact ones.
EXACT = frozenset(
    {"add", "add_any", "sub", "mul", "neg", "square", "abs", "integer_pow", "dot_general", "conv_general_dilated"}
    | {"reduce_sum", "reduce_prod", "cumsum", "cumprod", "reduce_window_sum", "scatter-add"}
)
# Roundings to a narrower float are not those of fixed point.
IDENTITIES = frozenset({"reduce_precision", "copy", "spu_reveal", "spu_masked", "spu_bound"})
CALLED = ("jaxpr", "call_jaxpr")


def evaluate_jaxpr(closed: Any, args: Sequence[Array]) -> list[Array]:
    """The results of a closed jaxpr, equation by equation."""
    jaxpr, consts = (closed.jaxpr, closed.consts) if isinstance(closed, jex.ClosedJaxpr) else (closed, ())
    env: dict[Any, Array] = dict(zip(jaxpr.constvars, consts))
    env.update(zip(jaxpr.invars, args))

    def read(v: Any) -> Array:
        return v.val if isinstance(v, jex.Literal) else env[v]

    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, evaluate_equation(eqn, [read(v) for v in eqn.invars])))
    return [read(v) for v in jaxpr.outvars]


def evaluate_equation(eqn: Any, args: Sequence[Array]) -> list[Array]:
    """The results of one equation; NumPy arrays."""
    name = eqn.primitive.name
    if name in CONTROL:
        return CONTROL[name](eqn.params, args)
    if name in IDENTITIES:
        return [np.asarray(x, np.float64 if is_real(v.aval) else None) for x, v in zip(args, eqn.invars)]
    inner = next((eqn.params[k] for k in CALLED if k in eqn.params), None)
    if inner is not None and name not in ("reduce",):
        return evaluate_jaxpr(inner, args)
    whole = any(_is_signed(v.aval) for v in eqn.outvars)
    results = _bind(eqn, args, np.int64 if whole and name in EXACT else None)
    if whole and name in EXACT:
        return [_beyond(eqn, args, x) for x in results]
    return results


def _bind(eqn: Any, args: Sequence[Array], integer: Any) -> list[Array]:
    given = [as_type(x, v.aval, integer) for x, v in zip(args, eqn.invars)]
    params = {k: _widened(v, integer) for k, v in eqn.params.items()}
    bound = eqn.primitive.get_bind_params(params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        out = eqn.primitive.bind(*functions, *given, **params)
    return [x if is_key(x) else np.asarray(x) for x in (out if eqn.primitive.multiple_results else [out])]


def _beyond(eqn: Any, args: Sequence[Array], result: Array) -> Array:
    """A result in 64 bits, or as floats if those do not hold it."""
    (real,) = _bind(eqn, args, np.float64)
    return real if (np.abs(real) >= 2.0**63).any() else result


def as_type(x: Array, aval: Any, integer: Any = None) -> Array:
    """A value of an equation as float64, bool, or an integer: of its own type, wrapped, if `integer` is None."""
    if is_key(x):
        return x
    x = np.asarray(x)
    if is_real(aval):
        return x.astype(np.float64)
    if integer is not None and _is_signed(aval):
        return wrapped(x, integer)
    return wrapped(x, aval.dtype)


def wrapped(x: Array, dtype: Any) -> Array:
    """An array as another type; floats beyond the range of an integer type become its limits."""
    if x.dtype.kind == "f" and np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        inside = np.clip(np.nan_to_num(x, nan=0.0), float(limits.min), float(limits.max))
        return np.where(inside >= float(limits.max), limits.max, inside.astype(np.int64).astype(dtype)).astype(dtype)
    return x.astype(dtype)


def is_real(aval: Any) -> bool:
    return bool(jnp.issubdtype(aval.dtype, jnp.floating))


def _is_signed(aval: Any) -> bool:
    return bool(jnp.issubdtype(aval.dtype, jnp.signedinteger))


def _widened(x: Any, integer: Any) -> Any:
    """A parameter of a primitive for wide operands: float types become float64."""
    if isinstance(x, jex.Jaxpr):
        return _widened(jex.ClosedJaxpr(x, ()), integer).jaxpr
    if isinstance(x, jex.ClosedJaxpr):
        structs: Any = [jax.ShapeDtypeStruct(a.shape, _wide(a.dtype, integer)) for a in x.in_avals]
        with jax.enable_x64(True):
            return jax.make_jaxpr(jex.jaxpr_as_fun(x))(*structs)
    if isinstance(x, np.dtype) or (isinstance(x, type) and issubclass(x, np.generic)):
        return _wide(np.dtype(x), integer)
    return x


def _wide(dtype: Any, integer: Any) -> Any:
    if jnp.issubdtype(dtype, jnp.floating):
        return np.dtype(np.float64)
    return np.dtype(integer) if integer is not None and jnp.issubdtype(dtype, jnp.signedinteger) else dtype


# control ---------------------------------------------------------------------------------------------------


def _cond(params: Any, args: Sequence[Array]) -> list[Array]:
    branches = params["branches"]
    return evaluate_jaxpr(branches[min(max(int(args[0]), 0), len(branches) - 1)], args[1:])


def _scan(params: Any, args: Sequence[Array]) -> list[Array]:
    k, c, n = params["num_consts"], params["num_carry"], int(params["length"])
    constants, carry, stacked = args[:k], list(args[k : k + c]), args[k + c :]
    rows: list[list[Array]] = []
    for i in range(n)[::-1] if params["reverse"] else range(n):
        results = evaluate_jaxpr(params["jaxpr"], [*constants, *carry, *(np.asarray(x)[i] for x in stacked)])
        carry = results[:c]
        rows.append(results[c:])
    if not rows:
        return [*carry, *(np.zeros(a.shape, a.dtype) for a in params["jaxpr"].out_avals[c:])]
    return [*carry, *(np.stack(column) for column in zip(*(rows[::-1] if params["reverse"] else rows)))]


def _while(params: Any, args: Sequence[Array]) -> list[Array]:
    a, b = params["cond_nconsts"], params["body_nconsts"]
    carry = list(args[a + b :])
    while bool(evaluate_jaxpr(params["cond_jaxpr"], [*args[:a], *carry])[0]):
        carry = evaluate_jaxpr(params["body_jaxpr"], [*args[a : a + b], *carry])
    return carry


def _linear_solve(params: Any, args: Sequence[Array]) -> list[Array]:
    lengths = params["const_lengths"]
    first = lengths.matvec + lengths.vecmat
    right = args[sum(lengths) :]
    return evaluate_jaxpr(params["jaxprs"].solve, [*args[first : first + lengths.solve], *right])


CONTROL: dict[str, Callable[[Any, Sequence[Array]], list[Array]]] = {
    "cond": _cond,
    "scan": _scan,
    "while": _while,
    "custom_linear_solve": _linear_solve,
}


# bases -----------------------------------------------------------------------------------------------------


def aligned(name: str, real: Sequence[Array], got: Sequence[Array | None]) -> list[Array]:
    """Eigenvectors and singular vectors with the signs that were chosen: theirs are arbitrary."""
    out = list(real)
    axes = {"eigh": {0: -2}, "svd": {1: -2, 2: -1}}.get(name, {})
    for i, axis in axes.items():
        if i < len(out) and got[i] is not None:
            signs = np.sign((out[i] * got[i]).sum(axis, keepdims=True))
            out[i] = out[i] * np.where(signs == 0, 1.0, signs)
    return out
