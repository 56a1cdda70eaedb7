"""Scales of sums, choices, products and truncations: what each takes, and with how many bits it is made."""

from __future__ import annotations

import math

import numpy as np

from spuvm.compiler.ir.module import Op, Value
from spuvm.compiler.ir.ops import LOCAL, index_operands
from spuvm.compiler.passes.limits import count
from spuvm.compiler.passes.scaler import MOST, Scaler, is_raw
from spuvm.compiler.passes.truncation import BLOCK
from spuvm.compiler.passes.wishes import NO_WISH

SMALL = -4.0  # log2 of a constant that leaves (c x) y too few digits of a small x


def align(s: Scaler, op: Op) -> None:
    """All operands with the same extra bits: as many as the finest has, where limits allow."""
    if op.name == "add" and any(s.operands_of(v, "sqrt") for v in op.inputs):
        op.inputs = [_seen(s, v) for v in op.inputs]
    at = index_operands(op.name, len(op.inputs)) if op.name in LOCAL else ()
    numbers = [v for i, v in enumerate(op.inputs) if v.type.kind == "fxp" and i not in at]
    if not numbers:
        return s.keep_default(op)
    given = [s.of(v) for v in numbers if v not in s.constants]
    out = op.outputs[0]
    if out.type.kind == "fxp":
        roomy = s.room(out)
        if s.is_multiplied(out) and not s.is_scaled_down(out):
            roomy = min(roomy, s.factor_room(out))
        if not given:  # constants alone
            given.append(min(s.wish(out), 2 * MOST[s.ring_bits]))
    else:
        roomy = 2 * MOST[s.ring_bits]
    extra = min([max(given, default=0), roomy, *(max(s.room(v), s.of(v)) for v in numbers)])
    inputs = [s.at(v, extra, op) if v in numbers else v for v in op.inputs]
    s.keep(op, inputs, extra)


def _seen(s: Scaler, x: Value) -> Value:
    """0 for a constant that is less at the default scale: beside a root that was lost it makes a quotient large."""
    const = s.constants.get(x)
    if const is None or const[0].exact is None or not np.any(const[0].exact):
        return x
    if s.limits.of[x].whole >= -s.frac - 1:
        return x
    return s.number(0, f"fxp{s.frac}", x.shape)


def multiply(s: Scaler, op: Op) -> None:
    """What was scaled down on both sides was so that the product fits: it keeps the usual limit."""
    inputs = [s.at(v, min(s.of(v), s.factor_room(v)), op) for v in op.inputs]
    if op.output.type.kind != "fxp" or op.output.type.frac == 0:
        inputs = [s.at(v, 0, op) for v in op.inputs]
    both_scaled = all(not s.limits.of[v].known and s.spare(v) > 0 for v in inputs)
    if both_scaled or (op.name == "mul" and sum(map(s.of, inputs)) > s.room(op.output)):
        inputs = [s.at(v, 0, op) for v in op.inputs]
    if s.limits.stated:
        inputs = _that_fit(s, op, inputs)
    s.keep(op, inputs, sum(map(s.of, inputs)))


def _that_fit(s: Scaler, op: Op, inputs: list[Value]) -> list[Value]:
    """Known factors with fewer fraction bits, if their product needs them: fewer of the one that has more digits."""
    limits = [s.limits.of.get(v) for v in inputs]
    if not all(limit is not None and limit.known for limit in limits) or any(s.lowered(v) != s.frac for v in inputs):
        return inputs
    (x, y), whole = inputs, s.limits.of[op.output].whole + _added_later(s)
    over = math.ceil(x.type.frac + y.type.frac + whole - s.limits.top + 1 - 1e-9)
    if over <= 0:
        return inputs
    digits = [v.type.frac + s.limits.of[v].whole for v in inputs]
    of_x = min(max((over + digits[0] - digits[1]) / 2, 0), over)
    fewer = [2 * math.ceil(n / 2) for n in (of_x, over - of_x)]
    return [s.at(v, max(s.of(v) - n, -s.frac), op) for v, n in zip(inputs, fewer)]


def _added_later(s: Scaler) -> float:
    """log2 of how many such products may be added before they are truncated (see `truncation`), at most."""
    counts = [max(count(op.inputs[0], op.attrs["axes"]), 1) for op in s.region.ops if op.name == "sum"]
    sums_of_two = sum(op.name in ("add", "sub") for op in s.region.ops)
    return math.log2(min(max(counts, default=1), BLOCK)) + math.log2(min(1 + sums_of_two, BLOCK))


def total(s: Scaler, op: Op) -> None:
    """Of a sum, which may be too large for the bits of its terms: before it is made, or as a factor after it."""
    (x,), out = op.inputs, op.output
    if out.type.kind != "fxp" or (not s.of(x) and s.room(out) >= 0):
        return s.keep(op, op.inputs, s.of(x))
    fits = _fits(s, op)
    if s.of(x) > fits:
        op.inputs = [x] = [s.at(x, fits - fits % 2, op)]
    most = s.factor_room(out) if s.is_multiplied(out) else s.of(x)
    if s.of(x) <= most:
        return s.keep(op, op.inputs, s.of(x))
    wide = s.emit(op.name, op.inputs, op, **op.attrs)
    s.extra[wide.output], s.limits.of[wide.output] = s.of(x), s.limits.of[out]
    s.dropped(wide.output, out, min(most, s.wish(out)), op)


def _fits(s: Scaler, op: Op) -> int:
    """Extra bits of terms whose sum fits the ring. Products that are truncated after they are added, BLOCK at most
    (see `truncation`), are promised to fit together.
    """
    (x,) = op.inputs
    if s.limits.stated and s.limits.of[x].known:
        return s.room(op.output)
    if op.name == "sum" and s.uses[x] == 1 and s.operands_of(x, "trunc") and count(x, op.attrs["axes"]) <= BLOCK:
        return s.room(x)
    return s.room(op.output)


def truncate(s: Scaler, op: Op) -> None:
    (x,), out = op.inputs, op.output
    if _in_halves(s, x, out, op) or _product_in_halves(s, x, out, op):
        return
    small = _scaled_product(s, x, out)
    s.dropped(x if small is None else small, out, s.wish(out), op)


def _scaled_product(s: Scaler, x: Value, out: Value) -> Value | None:
    """c (x y) below a root, |c| < 1, as (c x) y untruncated: c x has room for the bits that x y has lost."""
    if s.wanted.of.get(out, NO_WISH).below <= 0:
        return None
    factors = s.operands_of(x, "mul")
    for product, c in (factors, factors[::-1]) if factors else ():
        inner = s.operands_of(next(iter(s.operands_of(product, "trunc")), None), "mul")
        known = c in s.constants or s.limits.of[c].known
        if inner and known and -MOST[s.ring_bits] < s.limits.of[c].whole < 0:
            return _small_first(s, c, *inner)
    return None


def _in_halves(s: Scaler, x: Value, out: Value, op: Op) -> bool:
    """c y below a root, |c| <= 1, of a y with more bits than a factor may have, as c h + c (y - h), h what a factor
    may have of y: all of its bits count, and no limit is lower.
    """
    factors = s.operands_of(x, "mul")
    for y, c in (factors, factors[::-1]) if factors else ():
        more, wide = s.of(y), s.wish(out)
        if c not in s.constants or s.limits.of[c].whole > 0 or min(more, wide) < s.limits.numerators:
            continue
        if more <= s.factor_room(y):
            continue
        high = s.at(y, 0, op)
        low = s.new("sub", [y, s.at(high, more, op)])
        _added(s, [high, c], [low, c], wide, out, op)
        return True
    return False


def _product_in_halves(s: Scaler, x: Value, out: Value, op: Op) -> bool:
    """c (x y) of a small constant c as c h + c (x y - h), h the product as it is truncated: all of it counts."""
    wide = s.wish(out)
    factors = s.operands_of(x, "mul")
    for product, c in (factors, factors[::-1]) if factors and s.wanted.of.get(out, NO_WISH).below > 0 else ():
        whole = next(iter(s.operands_of(product, "trunc")), None)
        if c not in s.constants or not -MOST[s.ring_bits] < s.limits.of[c].whole < SMALL or wide < s.limits.numerators:
            continue
        if whole is None or not s.operands_of(whole, "mul"):
            continue
        high = s.at(product, 0, op)
        low = s.new("sub", [whole, s.at(high, whole.type.frac - high.type.frac, op)])
        few = s.at(c, max(min(s.of(c), s.limits.top - whole.type.frac - s.lowered(c)), 0), op)
        _added(s, [high, c], [low, few], wide, out, op)
        return True
    return False


def _added(s: Scaler, high: list[Value], low: list[Value], wide: int, out: Value, op: Op) -> None:
    """The sum of two products, with `wide` bits more."""
    less = s.new("mul", low)
    less = s.new("trunc", [less], bits=less.type.frac - s.frac - wide)
    more = s.new("mul", high)
    s.extra[more] = more.type.frac - s.frac
    s.emit("add", [s.at(more, wide, op), less], op, [out])
    s.extra[out] = wide


def _small_first(s: Scaler, c: Value, x: Value, y: Value) -> Value:
    x, y = (s.at(v, 0, None) for v in (x, y))
    scaled = s.new("mul", [x, c])
    more = scaled.type.frac - x.type.frac
    room = max(0, min(s.spare(scaled), MOST[s.ring_bits], more))
    less = s.new("trunc", [scaled], bits=more - room) if more > room else scaled
    s.extra[less] = room
    return s.new("mul", [less, y])


def rearrange(s: Scaler, op: Op) -> None:
    if op.output.type.kind != "fxp" or op.inputs[0].type.kind != "fxp":
        return s.keep_default(op)
    s.keep(op, op.inputs, s.of(op.inputs[0]))


def reread(s: Scaler, op: Op) -> None:
    """A bitcast between numbers of fraction bits moves the point."""
    source, target = op.inputs[0], op.output
    if source.type.kind != "fxp" or is_raw(op, s.frac, s.of(source)):
        return s.keep_default(op)
    extra = s.of(source)
    if extra:
        op.attrs = {"to": f"fxp{target.type.frac + extra}"}
    s.keep(op, op.inputs, extra)
