"""Stages of kernels run by NumPy, an equation at a time, in place of XLA: for programs that run once.

Whatever has no line in the table goes to JAX. The shares are bit for bit those of compiled stages
(test_conformance.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from spuvm.compiler.project.equations import bind_equation

Array = np.ndarray[Any, Any]
OTHERS: Counter[str] = Counter()  # how often JAX had to run an equation, by primitive


def _same(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda params, *xs: function(*xs)


def _shift(function: Callable[..., Any]) -> Callable[..., Any]:
    """Shifts by the width and more give zeros."""

    def shift(params: Any, x: Any, y: Any) -> Any:
        bits = 8 * x.dtype.itemsize
        if y.ndim == 0:
            return function(x, y) if y < bits else np.zeros_like(x)
        return np.where(y < bits, function(x, np.minimum(y, y.dtype.type(bits - 1))), np.zeros_like(x))

    return shift


def _shift_right(params: Any, x: Any, y: Any) -> Any:
    if x.dtype.kind == "i":
        raise NotImplementedError
    return LOGICAL(params, x, y)


LOGICAL = _shift(np.right_shift)


def _convert(params: Any, x: Any) -> Any:
    target = np.dtype(params["new_dtype"])
    if x.dtype.kind == "f" or target.kind == "f":
        raise NotImplementedError
    return x.astype(target)


def _broadcast(params: Any, x: Any) -> Any:
    shape = [1] * len(params["shape"])
    for d, n in zip(params["broadcast_dimensions"], np.shape(x)):
        shape[d] = n
    return np.broadcast_to(np.reshape(x, shape), params["shape"])


def _arithmetic(x: Any, y: Any) -> Any:
    signed = x.view(f"i{x.dtype.itemsize}")
    return (signed >> np.minimum(y, y.dtype.type(8 * x.dtype.itemsize - 1)).view(signed.dtype)).view(x.dtype)


def _squeeze(params: Any, x: Any) -> Any:
    return np.squeeze(x, params["dimensions"])


def _slice(params: Any, x: Any) -> Any:
    strides = params["strides"] or (1,) * x.ndim
    return x[tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]


def _reshape(params: Any, x: Any) -> Any:
    return np.reshape(x, params["new_sizes"])


def _bitcast(params: Any, x: Any) -> Any:
    old, new = x.dtype, np.dtype(params["new_dtype"])
    if old.itemsize != new.itemsize or new.kind not in "iu" or old.kind not in "iu":
        raise NotImplementedError
    return x.view(new)


def _reduce(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda params, x: function(x, axis=tuple(params["axes"]), dtype=x.dtype)


def _iota(params: Any) -> Any:
    shape, d = params["shape"], params["dimension"]
    along = np.arange(shape[d], dtype=params["dtype"]).reshape([-1 if i == d else 1 for i in range(len(shape))])
    return np.broadcast_to(along, shape)


def _dot(params: Any, x: Any, y: Any) -> Any:
    (xc, yc), (xb, yb) = params["dimension_numbers"]
    if x.dtype.kind == "f":
        raise NotImplementedError
    letters = "abcdefghijklmnopqrstuvwxyz"
    left, right = list(letters[: x.ndim]), list(letters[x.ndim : x.ndim + y.ndim])
    for i, j in [*zip(xc, yc), *zip(xb, yb)]:
        right[j] = left[i]
    kept = [left[d] for d in xb] + [c for d, c in enumerate(left) if d not in (*xc, *xb)]
    kept += [c for d, c in enumerate(right) if d not in (*yc, *yb)]
    dtype = params["preferred_element_type"] or x.dtype
    return np.einsum(f"{''.join(left)},{''.join(right)}->{''.join(kept)}", x.astype(dtype), y.astype(dtype))


def _select(params: Any, which: Any, *cases: Any) -> Any:
    if which.dtype != np.bool_ or len(cases) != 2:
        raise NotImplementedError
    return np.where(which, cases[1], cases[0])


def _pad(params: Any, x: Any, value: Any) -> Any:
    if any(low < 0 or high < 0 or inner for low, high, inner in params["padding_config"]):
        raise NotImplementedError
    return np.pad(x, [(low, high) for low, high, _ in params["padding_config"]], constant_values=value)


RULES: dict[str, Callable[..., Any]] = {
    "add": _same(np.add),
    "sub": _same(np.subtract),
    "mul": _same(np.multiply),
    "neg": _same(np.negative),
    "and": _same(np.bitwise_and),
    "or": _same(np.bitwise_or),
    "xor": _same(np.bitwise_xor),
    "not": _same(np.invert),
    "eq": _same(np.equal),
    "ne": _same(np.not_equal),
    "lt": _same(np.less),
    "le": _same(np.less_equal),
    "gt": _same(np.greater),
    "ge": _same(np.greater_equal),
    "max": _same(np.maximum),
    "min": _same(np.minimum),
    "copy": _same(np.array),
    "shift_left": _shift(np.left_shift),
    "shift_right_logical": _shift_right,
    "convert_element_type": _convert,
    "bitcast_convert_type": _bitcast,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "shift_right_arithmetic": lambda params, x, y: _arithmetic(x, y),
    "sign": lambda params, x: np.sign(x),
    "expand_dims": lambda params, x: np.expand_dims(x, params["dimensions"]),
    "transpose": lambda params, x: np.transpose(x, params["permutation"]),
    "rev": lambda params, x: np.flip(x, params["dimensions"]),
    "slice": _slice,
    "pad": _pad,
    "concatenate": lambda params, *xs: np.concatenate(xs, params["dimension"]),
    "reduce_sum": _reduce(np.sum),
    "cumsum": lambda params, x: _cumulated(x, params["axis"], params["reverse"]),
    "iota": _iota,
    "dot_general": _dot,
    "select_n": _select,
}


def _cumulated(x: Any, axis: int, reverse: bool) -> Any:
    turned = np.flip(x, axis) if reverse else x
    out = np.cumsum(turned, axis, dtype=x.dtype)
    return np.flip(out, axis) if reverse else out


def bind(eqn: Any, arguments: Sequence[Any]) -> Any:
    """An equation's results, as `bind_equation` gives them."""
    rule = RULES.get(eqn.primitive.name)
    if rule is not None:
        try:
            return np.asarray(rule(eqn.params, *map(np.asarray, arguments)))
        except NotImplementedError:
            pass
    OTHERS[eqn.primitive.name] += 1
    return bind_equation(eqn, arguments)


@contextmanager
def stages_by_numpy() -> Iterator[None]:
    """Programs prepared within run without XLA."""
    with (
        np.errstate(over="ignore"),
        patch("spuvm.compiler.project.project.stage_loader", lambda key, stage, *of_unit: lambda: stage.function),
        patch("spuvm.compiler.project.analysis.bind_equation", bind),
    ):
        yield
