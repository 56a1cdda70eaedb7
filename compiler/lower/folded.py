"""Equations of known operands, computed on the host while lowering.

What NumPy computes with the same bits as XLA (exact operations, and those that IEEE 754 rounds in one way) it
computes: XLA takes 50 ms to compile each, however small. All else is computed by the primitive's own implementation:
functions, sums of floats, conversions of floats that the integers do not hold, subnormal numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from spuvm.compiler.ir.dtypes import is_key

Array = np.ndarray[Any, Any]
Rule = Callable[..., Array | None]  # of the operands and the primitive's parameters; None: left to XLA

PLAIN = "?bBhHiIlLqQfd"  # bool, integers of 8 to 64 bits, float32 and float64


def fold(eqn: Any, args: Sequence[Any]) -> list[Any]:
    """The results of an equation of known operands, as NumPy arrays; random keys stay as they are."""
    rule = RULES.get(eqn.primitive.name)
    if rule is not None and all(_plain(x) for x in args):
        with np.errstate(all="ignore"):
            out = rule(*map(np.asarray, args), **eqn.params)
        if out is not None:
            aval = eqn.outvars[0].aval
            others = any(x.dtype != v.aval.dtype for x, v in zip(args, eqn.invars))  # what says which are numbers
            assert out.shape == aval.shape and (others or out.dtype == aval.dtype), eqn.primitive.name
            return [out]
    if eqn.primitive.name == "broadcast_in_dim":  # of keys, or of other types
        return [broadcast_in_dim(args[0], **eqn.params)]
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # JAX before 0.10: a pair
    with jax.ensure_compile_time_eval(), jax.default_device(jax.devices("cpu")[0]):
        found = eqn.primitive.bind(*functions, *args, **params)
    return [constant_of(x) for x in (found if eqn.primitive.multiple_results else [found])]


def constant_of(x: Any) -> Any:
    """A constant as a NumPy array; random keys stay as they are."""
    return x if is_key(x) else np.asarray(x)


def _plain(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic) and x.dtype.char in PLAIN


def _subnormal(x: Array) -> bool:
    """Whether XLA may take an element for zero."""
    return x.dtype.kind == "f" and bool(((np.abs(x) < np.finfo(x.dtype).tiny) & (x != 0)).any())


def _exact(function: Callable[..., Any]) -> Rule:
    """Element by element; a float's result is the exact one, rounded once."""

    def rule(*args: Array, **_: Any) -> Array | None:
        out = np.asarray(function(*args))
        return None if any(map(_subnormal, (*args, out))) else out

    return rule


def _of_floats(rule: Rule) -> Rule:
    return lambda *args, **params: rule(*args, **params) if args[0].dtype.kind == "f" else None


def _not_of_floats(function: Callable[..., Any]) -> Rule:
    return lambda *args, **_: None if args[0].dtype.kind == "f" else np.asarray(function(*args))


def _reduced(function: np.ufunc) -> Rule:
    """Of integers and bools: there is no order in which floats would be added."""

    def rule(x: Array, *, axes: Sequence[int], **_: Any) -> Array | None:
        if x.dtype.kind == "f" or not x.size:
            return None
        return np.asarray(function.reduce(x, axis=tuple(axes), dtype=x.dtype))

    return rule


def broadcast_in_dim(x: Any, *, shape: Sequence[int], broadcast_dimensions: Sequence[int], **_: Any) -> Any:
    """A view: no memory for zeros((1000000, 30))."""
    if is_key(x):
        return jax.lax.broadcast_in_dim(x, shape, broadcast_dimensions)
    spread = [1] * len(shape)
    for d, n in zip(broadcast_dimensions, x.shape):
        spread[d] = n
    return np.broadcast_to(x.reshape(spread), shape)


def _converted(x: Array, *, new_dtype: Any, **_: Any) -> Array | None:
    if np.dtype(new_dtype).char not in PLAIN:
        return None
    if x.dtype.kind == "f" and np.dtype(new_dtype).kind in "iu":
        limits = np.iinfo(new_dtype)
        if not ((x > float(limits.min) - 1) & (x < float(limits.max))).all():
            return None
    out = x.astype(new_dtype)
    return None if _subnormal(x) or _subnormal(out) else out


def _iota(*, dtype: Any, shape: Sequence[int], dimension: int, **_: Any) -> Array | None:
    if np.dtype(dtype).char not in PLAIN:
        return None
    along = [n if d == dimension else 1 for d, n in enumerate(shape)]
    return np.broadcast_to(np.arange(shape[dimension]).astype(dtype).reshape(along), shape)


def _selected(which: Array, *cases: Array, **_: Any) -> Array | None:
    return np.where(which, cases[1], cases[0]) if which.dtype == bool and len(cases) == 2 else None


def _reshaped(x: Array, *, new_sizes: Sequence[int], dimensions: Any = None, **_: Any) -> Array | None:
    return x.reshape(new_sizes) if dimensions is None else None


def _sliced(
    x: Array, *, start_indices: Sequence[int], limit_indices: Sequence[int], strides: Sequence[int] | None, **_: Any
) -> Array:
    steps = strides or (1,) * x.ndim
    return x[tuple(slice(*bounds) for bounds in zip(start_indices, limit_indices, steps))]


def _raised(x: Array, *, y: int, **_: Any) -> Array | None:
    return SQUARE(x) if y == 2 else None


SQUARE = _exact(lambda x: x * x)
RULES: dict[str, Rule] = {
    **{name: _exact(f) for name, f in {"neg": np.negative, "add": np.add, "sub": np.subtract}.items()},
    **{name: _exact(f) for name, f in {"mul": np.multiply, "abs": np.abs, "is_finite": np.isfinite}.items()},
    **{name: _exact(f) for name, f in {"eq": np.equal, "ne": np.not_equal, "lt": np.less}.items()},
    **{name: _exact(f) for name, f in {"le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}.items()},
    **{name: _of_floats(_exact(f)) for name, f in {"div": np.divide, "sqrt": np.sqrt}.items()},
    **{name: _of_floats(_exact(f)) for name, f in {"floor": np.floor, "ceil": np.ceil}.items()},
    **{name: _not_of_floats(f) for name, f in {"max": np.maximum, "min": np.minimum}.items()},
    **{name: _not_of_floats(f) for name, f in {"and": np.bitwise_and, "or": np.bitwise_or}.items()},
    **{name: _not_of_floats(f) for name, f in {"xor": np.bitwise_xor, "not": np.invert}.items()},
    **{name: _reduced(f) for name, f in {"reduce_and": np.bitwise_and, "reduce_or": np.bitwise_or}.items()},
    **{name: _reduced(f) for name, f in {"reduce_max": np.maximum, "reduce_min": np.minimum}.items()},
    "reduce_sum": _reduced(np.add),
    "square": SQUARE,
    "integer_pow": _raised,
    "convert_element_type": _converted,
    "iota": _iota,
    "select_n": _selected,
    "broadcast_in_dim": broadcast_in_dim,
    "reshape": _reshaped,
    "slice": _sliced,
    "squeeze": lambda x, *, dimensions, **_: np.squeeze(x, tuple(dimensions)),
    "transpose": lambda x, *, permutation, **_: x.transpose(permutation),
    "rev": lambda x, *, dimensions, **_: np.flip(x, tuple(dimensions)),
    "concatenate": lambda *xs, dimension, **_: np.concatenate(xs, dimension),
    "copy": lambda x, **_: x,
    "copy_p": lambda x, **_: x,
}
