"""Primitives that move elements, and those on whole arrays: reductions, products, gathers, running sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jax import lax

from spuvm.compiler.assemble.builder import Builder
from spuvm.compiler.assemble.elementwise import Params, Rule, converted
from spuvm.compiler.assemble.values import (
    Constant,
    Placed,
    Shape,
    Unsupported,
    Value,
    broadcast,
    reversed_along,
    size,
    sliced,
    strides_of,
    transposed,
    word,
)
from spuvm.runtime.engine.interpreter import operations
from spuvm.runtime.ring.native import MATMUL_TARGET, WIDE_TARGET

LARGEST_RANK = 11


def reshape(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    return [b.reshape(x[0], tuple(outs[0].shape))]


def in_order(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    if params["dimensions"] is not None:
        raise Unsupported("`reshape` in another order")
    return reshape(b, x, outs, params)


def moved(view: Any) -> Rule:
    """A rule for what only picks elements: `view(placed, out, params)`."""

    def rule(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
        (value,), (out,) = x, outs
        word(value.dtype)
        if isinstance(value, Constant):
            return [Constant(value.value, tuple(out.shape))]
        if b.scales:
            raise Unsupported("elements that move within a block")
        return [view(b.placed(value), out, params)]

    return rule


def broadcast_in_dim(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    value, shape, axes = x[0], tuple(outs[0].shape), params["broadcast_dimensions"]
    if isinstance(value, Constant):
        return [Constant(value.value, shape)]
    if size(shape) == size(value.shape) or (b.scales and value.shape == ()):
        return [b.reshape(value, shape)]
    if b.scales:
        raise Unsupported("broadcasts within a block")
    return [broadcast(b.placed(value), shape, axes)]


def transpose(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    value, order = x[0], params["permutation"]
    kept = [a for a in order if value.shape[a] != 1]
    if kept == sorted(kept):
        return [b.reshape(value, tuple(outs[0].shape))]
    return moved(lambda v, out, p: transposed(v, p["permutation"]))(b, x, outs, params)


def _slice(value: Placed, out: Any, params: Params) -> Placed:
    steps = params["strides"] or (1,) * len(value.shape)
    return sliced(value, params["start_indices"], params["limit_indices"], steps)


def concatenate(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    (out,), axis = outs, params["dimension"]
    if len(x) == 1:
        return [x[0]]
    whole = _new(b, out)
    start = 0
    for part in x:
        end = start + part.shape[axis]
        starts, limits = [0] * len(out.shape), list(out.shape)
        starts[axis], limits[axis] = start, end
        _write(b, part, sliced(whole, starts, limits, (1,) * len(out.shape)))
        start = end
    return [whole]


def _new(b: Builder, out: Any) -> Placed:
    if b.scales:
        raise Unsupported("calls on whole blocks")
    if len(out.shape) > LARGEST_RANK:
        raise Unsupported(f"arrays of more than {LARGEST_RANK} dimensions")
    word(np.dtype(out.dtype))
    return b.temporary(tuple(out.shape), np.dtype(out.dtype))


def _write(b: Builder, value: Value, to: Placed) -> None:
    """Put the value's elements where `to` has its own."""
    if size(value.shape) == 0:
        return
    if to.contiguous:
        b.keep(b.copied(value), to)
    else:
        b.call("copy", [b.placed(value), to], [value.dtype.itemsize], [to])


def pad(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    (value, filler), (out,), config = x, outs, params["padding_config"]
    whole = _new(b, out)
    if size(out.shape) == 0:
        return [whole]
    background = b.reshape(filler, ())
    spread = (
        Constant(background.value, whole.shape)
        if isinstance(background, Constant)
        else broadcast(b.placed(background), whole.shape, ())
    )
    b.keep(b.copied(spread), whole)
    starts, limits, steps, first, last = [], [], [], [], []
    for d, n, (low, _, interior) in zip(value.shape, out.shape, config):
        step = interior + 1
        begin = max(0, -(low // step)) if low < 0 else 0  # the first element that is not cut off
        end = min(d, max(begin, -(-(n - low) // step)))
        starts.append(begin)
        limits.append(end)
        steps.append(step)
        first.append(low + begin * step)
        last.append(low + begin * step + max(0, (end - begin - 1) * step) + 1)
    if all(end > begin for begin, end in zip(starts, limits)):
        inner = sliced(b.placed(value), starts, limits, (1,) * len(starts))
        target = sliced(whole, first, last, steps)
        b.call("copy", [inner, target], [value.dtype.itemsize], [whole])
    return [whole]


def iota(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    (out,), axis = outs, params["dimension"]
    word(np.dtype(out.dtype))
    if b.scales:
        raise Unsupported("numbered elements of a block")
    return [broadcast(b.constant(np.arange(out.shape[axis], dtype=out.dtype)), tuple(out.shape), (axis,))]


# whole arrays ----------------------------------------------------------------------------------------

REDUCTIONS = {
    "reduce_sum": ("add", "add", 0),
    "reduce_max": ("max", "smax", "min"),
    "reduce_min": ("min", "smin", "max"),
    "reduce_and": ("and", "and", "ones"),
    "reduce_or": ("or", "or", 0),
    "reduce_xor": ("xor", "xor", 0),
    "reduce_prod": ("mul", "mul", 1),
}
SCANS = {"cumsum": "reduce_sum", "cumprod": "reduce_prod", "cummax": "reduce_max", "cummin": "reduce_min"}


def _identity(name: str, dtype: np.dtype[Any]) -> np.generic:
    which: Any = REDUCTIONS[name][2]
    if which in ("min", "max"):
        limits = (False, True) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        which = limits[which == "max"]
    if which == "ones":
        which = True if dtype.kind == "b" else -1
    identity: np.generic = dtype.type(which) if which != -1 else ~dtype.type(0)
    return identity


def _folding(name: str, dtype: np.dtype[Any]) -> int:
    """The number of the operation that folds two elements into one."""
    with_sign = dtype.kind == "i"
    return operations()[f"{REDUCTIONS[name][with_sign]}.{word(dtype)}"]


def reduction(name: str) -> Rule:
    def rule(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
        (value,), (out,), axes = x, outs, params["axes"]
        dtype = value.dtype
        word(dtype)
        if dtype.kind == "b" and name in ("reduce_sum", "reduce_prod"):
            raise Unsupported("sums of bools")
        kept = [a for a in range(len(value.shape)) if a not in axes]
        depth = math.prod(value.shape[a] for a in axes)
        if depth == 0:
            return [Constant(_identity(name, dtype), tuple(out.shape))]
        if depth == 1:
            return [b.reshape(value, tuple(out.shape))]
        to = _new(b, out)
        source = transposed(b.placed(value), [*kept, *axes])
        b.call("reduce", [source, to], [_folding(name, dtype), dtype.itemsize, len(kept)], [to])
        return [to]

    return rule


def running(name: str) -> Rule:
    def rule(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
        (value,), (out,), axis = x, outs, params["axis"]
        word(value.dtype)
        if size(value.shape) == 0:
            return [value]
        to = _new(b, out)
        shape = (size(value.shape[:axis]), value.shape[axis], size(value.shape[axis + 1 :]))
        source, target = (
            replace(v, shape=shape, strides=strides_of(shape, v.dtype)) for v in (b.contiguous(value), to)
        )
        number = _folding(SCANS[name], value.dtype)
        b.call("scan", [source, target], [number, value.dtype.itemsize, int(params["reverse"])], [to])
        return [to]

    return rule


def dot_general(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    (left, right), (out,) = x, outs
    dtype = np.dtype(out.dtype)
    (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
    if dtype.kind == "b" or dtype.kind == "f":
        raise Unsupported(f"products of {dtype}")
    left, right = converted(b, left, dtype), converted(b, right, dtype)
    if size(out.shape) == 0:
        return [_new(b, out)]
    to = _new(b, out)
    operands = []
    for v, batch, summed in ((left, left_batch, left_sum), (right, right_batch, right_sum)):
        free = [a for a in range(len(v.shape)) if a not in batch and a not in summed]
        operands.append(_three(b, v, batch, free, summed))
    shape = (operands[0].shape[0], operands[0].shape[1], operands[1].shape[1])
    target = replace(to, shape=shape, strides=strides_of(shape, dtype))
    b.call("dot", [*operands, target], [dtype.itemsize.bit_length() - 1], [to])
    return [to]


def _three(b: Builder, value: Value, *groups: Sequence[int]) -> Placed:
    """The value with its axes in three groups; elements move only if one stride a group cannot say where they are."""
    placed = b.placed(value)
    shape = tuple(math.prod(placed.shape[a] for a in group) for group in groups)
    strides = []
    for group in groups:
        step: int | None = None
        for a in reversed([a for a in group if placed.shape[a] != 1]):
            if step is None:
                step, wanted = placed.strides[a], placed.strides[a] * placed.shape[a]
            elif placed.strides[a] == wanted:
                wanted *= placed.shape[a]
            else:
                order = [a for g in groups for a in g]
                moved_ = b.contiguous(transposed(placed, order))
                return replace(moved_, shape=shape, strides=strides_of(shape, placed.dtype))
        strides.append(placed.dtype.itemsize if step is None else step)
    return replace(placed, shape=shape, strides=tuple(strides))


TYPES = {("uint64", "uint64"): 0, ("uint8", "uint64"): 1, ("uint64", "uint8"): 2, ("uint32", "uint32"): 3}


def ffi_call(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    """The ring's matrix products."""
    target = params["target_name"]
    if target not in (MATMUL_TARGET, WIDE_TARGET):
        raise Unsupported(f"calls of {target}")
    attributes = dict(params["attributes"])
    flags = [bool(_attribute(attributes[f"{side}_transposed"])) for side in "xy"]
    shape = tuple(outs[0].shape)
    depth = x[0].shape[-2 if flags[0] else -1]
    dims = [math.prod(shape[:-2]), *shape[-2:], depth, *map(int, flags)]
    to = [_new(b, out) for out in outs]
    operands = [b.contiguous(v) for v in x]
    if target == WIDE_TARGET:
        b.call("matmul_wide", [*operands, *to], [0, *dims], to)
    else:
        b.call("matmul", [*operands, *to], [TYPES[x[0].dtype.name, x[1].dtype.name], *dims], to)
    return list(to)


def _attribute(value: Any) -> Any:
    return getattr(value, "value", value)


def gather(b: Builder, x: Sequence[Value], outs: Sequence[Any], params: Params) -> list[Value]:
    """Windows of `slice_sizes`, where the indices say; those that do not fit move inwards, or are filled."""
    (operand, indices), (out,) = x, outs
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    word(operand.dtype)
    if indices.dtype.kind not in "iu":
        raise Unsupported("indices that are no integers")
    if size(out.shape) == 0:
        return [_new(b, out)]
    if size(operand.shape) == 0:
        raise Unsupported("gathers from nothing")
    to, source, where = _new(b, out), b.placed(operand), b.placed(indices)
    hidden = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    shown = [a for a in range(len(operand.shape)) if a not in hidden]
    batch_axes = [a for a in range(len(out.shape)) if a not in numbers.offset_dims]
    window = replace(source, shape=tuple(sizes[a] for a in shown), strides=tuple(source.strides[a] for a in shown))
    batch: Shape = where.shape[:-1]
    following = [0] * len(batch)  # bytes from one row of the batch to the next, within the operand
    for a, i in zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims):
        following[i] = source.strides[a]
    rows = replace(to, shape=batch, strides=tuple(to.strides[a] for a in batch_axes))
    cells = replace(to, shape=window.shape, strides=tuple(to.strides[a] for a in numbers.offset_dims))
    places = Placed(source.array, 0, batch, tuple(following), source.dtype)
    fills = params["mode"] == lax.GatherScatterMode.FILL_OR_DROP
    parameters = [operand.dtype.itemsize, indices.dtype.itemsize, int(indices.dtype.kind == "i"), int(fills)]
    parameters.append(_filler(params["fill_value"], operand.dtype) if fills else 0)
    for a in numbers.start_index_map:
        parameters += [source.strides[a], operand.shape[a] - sizes[a]]
    b.call("gather", [window, where, rows, cells, places], parameters, [to])
    return [to]


def _filler(value: Any, dtype: np.dtype[Any]) -> int:
    """What stands for a missing element, as JAX has it: the largest unsigned number, the least with a sign."""
    if value is None:
        value = True if dtype.kind == "b" else np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max
    raw = np.asarray(value, dtype).tobytes()
    return int.from_bytes(raw.ljust(8, b"\0"), "little", signed=True)


RULES: dict[str, Rule] = {
    "reshape": in_order,
    "squeeze": reshape,
    "expand_dims": reshape,
    "broadcast_in_dim": broadcast_in_dim,
    "transpose": transpose,
    "slice": moved(_slice),
    "rev": moved(lambda v, out, p: reversed_along(v, p["dimensions"])),
    "concatenate": concatenate,
    "pad": pad,
    "iota": iota,
    **{name: reduction(name) for name in REDUCTIONS},
    **{name: running(name) for name in SCANS},
    "dot_general": dot_general,
    "ffi_call": ffi_call,
    "gather": gather,
}
