"""One truncation per sum of products: truncations move down through linear operations.

trunc(x) + trunc(y) -> trunc(x + y), and so for differences, sums and rearrangements, where nothing
else uses the truncated values. The result is nearer to the exact one (one error of a unit, not
two).

What is truncated must stay below 2^(k-2): a sum of products obeys the limit of a product, |x| < 2^(k-2-2f).
So only products of the program's own format move (2 f fraction bits to f): approximations have
formats of their own that just fit. A sum adds up at most `BLOCK` products, longer ones are
truncated block by block. A truncation of a truncation is one of both.
"""

from __future__ import annotations

import math

from spuvm.compiler.ir.module import Op, Region, Value, uses
from spuvm.compiler.ir.ops import infer

BLOCK = 64
REARRANGED = frozenset({"reshape", "transpose", "rev", "slice"})
THROUGH = frozenset({"add", "sub", "neg", "concatenate"}) | REARRANGED


def merge_truncations(region: Region, frac: int, ring_bits: int = 64, *, every: bool = False) -> None:
    """`alone` holds the truncations with a single user, by their results: they may move below it.

    `every`: products of two secrets move whatever their formats; there are no approximations yet.
    """
    count = {v: len(users) for v, users in uses(region).items()}
    alone: dict[Value, Op] = {}
    products: dict[Value, int] = {}  # and sums of so many of them
    of_secrets: set[Value] = set()
    shifts: dict[Value, Op] = {}
    out: list[Op] = []
    for op in region.ops:
        made = _chained(op, shifts, count, ring_bits) or _moved(op, alone, products)
        for new in made:
            moved = new.name in THROUGH | {"sum"} and products.keys() >= set(new.inputs)
            if new.name in ("mul", "dot") or moved:
                products[new.output] = _terms(new, products)
                private = not any(v.type.is_public for v in new.inputs)
                if of_secrets.issuperset(new.inputs) if moved else private:
                    of_secrets.add(new.output)
        last = made[-1]
        if last.name in ("trunc", "bitcast"):
            shifts[last.output] = last
        mine = last.name == "trunc" and last.inputs[0] in products
        usual = mine and last.attrs["bits"] == last.output.type.frac == frac
        mine = usual or (mine and every and last.inputs[0] in of_secrets)
        if mine and count.get(last.output) == 1:
            alone[last.output] = last
        out += made
    region.ops = out


def _chained(op: Op, shifts: dict[Value, Op], count: dict[Value, int], ring_bits: int) -> list[Op]:
    """trunc(bitcast(trunc(x))), a product times 2^-k, as one truncation; else nothing."""
    retyped = shifts.get(op.inputs[0]) if op.name == "trunc" else None
    first = shifts.get(retyped.inputs[0]) if retyped is not None and retyped.name == "bitcast" else None
    if retyped is None or first is None or first.name != "trunc":
        return []
    bits = first.attrs["bits"] + op.attrs["bits"]
    frac = op.output.type.frac + bits
    if count[retyped.output] > 1 or count[first.output] > 1 or frac >= ring_bits:
        return []
    wide = _like(op, "bitcast", first.inputs, to=f"fxp{frac}")
    return [wide, _like(op, "trunc", [wide.output], op.outputs, bits=bits)]


def _terms(op: Op, products: dict[Value, int]) -> int:
    if op.name != "sum":
        return max((products.get(v, 1) for v in op.inputs), default=1) if op.name in THROUGH else 1
    rows: int = math.prod(op.inputs[0].shape[a] for a in op.attrs["axes"])
    return products.get(op.inputs[0], 1) * rows


def _moved(op: Op, alone: dict[Value, Op], products: dict[Value, int]) -> list[Op]:
    """`op` on the untruncated operands, then one truncation; or `op` as it is."""
    truncs = [alone[v] for v in op.inputs if v in alone]
    if not truncs or len(truncs) < len(op.inputs) or len({t.attrs["bits"] for t in truncs}) > 1:
        return [op]
    if op.name == "sum":
        return _moved_sum(op, truncs[0], products.get(truncs[0].inputs[0], 1))
    if op.name not in THROUGH:
        return [op]
    below = _like(op, op.name, [t.inputs[0] for t in truncs], **op.attrs)
    return [below, _like(op, "trunc", [below.output], op.outputs, bits=truncs[0].attrs["bits"])]


def _like(op: Op, name: str, inputs: list[Value], outputs: list[Value] | None = None, **attrs: object) -> Op:
    new = Op(name, inputs, [], dict(attrs), location=op.location)
    new.outputs = [Value(t) for t in infer(new)] if outputs is None else outputs
    return new


def _moved_sum(op: Op, trunc: Op, each: int) -> list[Op]:
    """`each` term is a sum of so many products."""
    (x,) = trunc.inputs
    axes, bits = sorted(op.attrs["axes"]), trunc.attrs["bits"]
    terms = math.prod(x.shape[a] for a in axes)
    if terms * each <= BLOCK:
        below = _like(op, "sum", [x], axes=tuple(axes))
        return [below, _like(op, "trunc", [below.output], op.outputs, bits=bits)]
    axis = max(axes, key=lambda a: x.shape[a])
    if x.shape[axis] < BLOCK or each > 1:
        return [op]
    return _blocks(op, x, axis, axes, bits)


def _blocks(op: Op, x: Value, axis: int, axes: list[int], bits: int) -> list[Op]:
    """Sum blocks of BLOCK along `axis`, truncate, sum the rest; what is left over likewise."""
    n = x.shape[axis]
    whole = n // BLOCK * BLOCK
    parts: list[Op] = []
    sums: list[Value] = []
    for start, stop in ((0, whole), (whole, n)):
        if start == stop:
            continue
        piece = x
        if (start, stop) != (0, n):
            parts.append(_slice(op, x, axis, start, stop))
            piece = parts[-1].output
        blocks = max((stop - start) // BLOCK, 1)
        shape = (*x.shape[:axis], blocks, (stop - start) // blocks, *x.shape[axis + 1 :])
        split = _like(op, "reshape", [piece], shape=shape)
        inner = _like(op, "sum", [split.output], axes=(axis + 1,))
        less = _like(op, "trunc", [inner.output], bits=bits)
        parts += [split, inner, less, _like(op, "sum", [less.output], axes=tuple(axes))]
        sums.append(parts[-1].output)
    if len(sums) == 2:
        return [*parts, _like(op, "add", sums, op.outputs)]
    parts[-1].outputs = op.outputs
    return parts


def _slice(op: Op, x: Value, axis: int, start: int, stop: int) -> Op:
    low, high = [0] * len(x.shape), list(x.shape)
    low[axis], high[axis] = start, stop
    return _like(op, "slice", [x], start=tuple(low), limit=tuple(high), stride=(1,) * len(x.shape))
