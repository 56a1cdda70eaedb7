"""Element-wise primitives as operations of the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from spuvm.compiler.assemble.builder import Builder
from spuvm.compiler.assemble.values import Constant, Local, Unsupported, Value, reshaped, size, word

Params = Mapping[str, Any]
Rule = Callable[[Builder, Sequence[Value], Sequence[Any], Params], list[Value]]

# By primitive, the operation for words without a sign, and with one.
OPERATIONS = {
    "add": ("add", "add"),
    "sub": ("sub", "sub"),
    "mul": ("mul", "mul"),
    "and": ("and", "and"),
    "or": ("or", "or"),
    "xor": ("xor", "xor"),
    "neg": ("neg", "neg"),
    "not": ("not", "not"),
    "max": ("max", "smax"),
    "min": ("min", "smin"),
    "div": ("div", "sdiv"),
    "rem": ("rem", "srem"),
    "eq": ("eq", "eq"),
    "ne": ("ne", "ne"),
    "lt": ("lt", "slt"),
    "le": ("le", "sle"),
    "gt": ("gt", "sgt"),
    "ge": ("ge", "sge"),
    "shift_left": ("shl", "shl"),
    "shift_right_logical": ("shr", "shr"),
    "shift_right_arithmetic": ("sar", "sar"),
    "abs": ("copy", "sabs"),
    "sign": ("usign", "ssign"),
    "population_count": ("popcount", "popcount"),
    "clz": ("clz", "clz"),
}
# Of bools as 0 and 1.
ON_BOOLS = {"add": "or", "mul": "and", "max": "or", "min": "and", "sub": "xor"}


def operation(name: str) -> Rule:
    def rule(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
        (out,) = outs
        dtype = x[0].dtype
        word(dtype)
        if dtype.kind == "b" and name == "not":
            return [b.emit("xor", dtype, out.shape, [x[0], Constant(np.bool_(True), out.shape)])]
        made = ON_BOOLS.get(name) if dtype.kind == "b" else None
        if made is None:
            made = OPERATIONS[name][dtype.kind == "i"]
        return [b.emit(made, out.dtype, out.shape, x)]

    return rule


def convert(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    (value,), dtype = x, np.dtype(params["new_dtype"])
    return [converted(b, value, dtype)]


def converted(b: Builder, value: Value, dtype: np.dtype[Any]) -> Value:
    word(dtype)
    word(value.dtype)
    if isinstance(value, Constant):
        return Constant(value.value.astype(dtype), value.shape)
    if dtype == value.dtype:
        return value
    if dtype.kind == "b":
        return b.emit("bool", dtype, value.shape, [value])
    if dtype.itemsize == value.dtype.itemsize:
        return _retyped(value, dtype)
    sign = "s" if value.dtype.kind == "i" else ""
    return b.emit(f"{sign}to_{word(dtype)}", dtype, value.shape, [value])


def _retyped(value: Value, dtype: np.dtype[Any]) -> Value:
    if isinstance(value, Constant):
        return Constant(value.value.view(dtype), value.shape)
    return type(value)(**{**vars(value), "dtype": dtype})


def bitcast(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    """Between words of one width; or of several narrow ones in the last dimension, the lowest first."""
    (value,), (out,) = x, outs
    word(value.dtype)
    word(out.dtype)
    if value.dtype.kind == "b" or out.dtype.kind == "b":
        raise Unsupported("bitcasts of bools")
    if value.dtype.itemsize == out.dtype.itemsize:
        return [_retyped(value, out.dtype)]
    if not b.scales:
        value = b.contiguous(value)
    elif not isinstance(value, Local):
        value = b.copied(value)
    made = reshaped(_retyped_flat(value, out.dtype), tuple(out.shape))
    assert made is not None
    return [made]


def _retyped_flat(value: Value, dtype: np.dtype[Any]) -> Value:
    """All elements in one dimension, read as words of another width."""
    count = size(value.shape) * value.dtype.itemsize // dtype.itemsize
    flat = reshaped(value, (size(value.shape),))
    assert flat is not None and not isinstance(flat, Constant)
    fields = {**vars(flat), "dtype": dtype, "shape": (count,)}
    if not isinstance(flat, Local):
        fields["strides"] = (dtype.itemsize,)
    return type(flat)(**fields)


def select(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    which, *cases = x
    (out,) = outs
    if which.dtype != bool or len(cases) != 2:
        raise Unsupported("select_n among other than two by a bool")
    return [b.emit("select", out.dtype, out.shape, [*cases, which])]


def clamp(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    low, value, high = x
    (out,) = outs
    sign = "s" if value.dtype.kind == "i" else ""
    raised = b.emit(f"{sign}max", out.dtype, out.shape, [value, low])
    return [b.emit(f"{sign}min", out.dtype, out.shape, [raised, high])]


def integer_pow(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    (out,), power = outs, params["y"]
    if power < 1:
        raise Unsupported("integer_pow to less than 1")
    result, base = None, x[0]
    while True:
        if power & 1:
            result = base if result is None else b.emit("mul", out.dtype, out.shape, [result, base])
        power >>= 1
        if not power:
            assert result is not None
            return [result]
        base = b.emit("mul", out.dtype, out.shape, [base, base])


RULES: dict[str, Rule] = {
    **{name: operation(name) for name in OPERATIONS},
    "convert_element_type": convert,
    "bitcast_convert_type": bitcast,
    "select_n": select,
    "clamp": clamp,
    "integer_pow": integer_pow,
    "copy": lambda b, x, outs, params: list(x),
    "copy_p": lambda b, x, outs, params: list(x),
    "stop_gradient": lambda b, x, outs, params: list(x),
    "optimization_barrier": lambda b, x, outs, params: list(x),
}
