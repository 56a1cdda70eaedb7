"""Rules of comparisons, choice, types and bits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from spuvm.compiler.ir import fixedpoint
from spuvm.compiler.ir.bounds import of_type, of_value
from spuvm.compiler.ir.dtypes import width_of
from spuvm.compiler.ir.fixedpoint import limit_bits
from spuvm.compiler.ir.module import Value
from spuvm.compiler.ir.ops import parse_element
from spuvm.compiler.lower import bits as bit_rules
from spuvm.compiler.lower.context import Context, Known, Operand, Rule
from spuvm.compiler.lower.elementwise import both, finite, full, is_float, without_parameters, zeros
from spuvm.runtime.errors import EncodingError

# comparisons -----------------------------------------------------------------------------------------


def beyond(ctx: Context, c: Operand) -> int:
    """1 (-1) if a constant is a number above (below) all that fixed point holds; else 0."""
    if isinstance(c, Value) or not is_float(c) or np.size(c) == 0:
        return 0
    top = fixedpoint.limit(ctx.b.frac, ctx.b.ring_bits)
    real = np.asarray(c).astype(np.float64)
    return int((real >= top).all()) - int((real <= -top).all())


def _comparable(ctx: Context, x: Operand) -> Value:
    """An operand of a comparison: constants beyond the limit count as the limit."""
    shape = ctx.outs[0].shape
    if isinstance(x, Value) or not is_float(x):
        return ctx.value(x, shape)
    if np.isnan(np.asarray(x).astype(np.float64)).any():
        raise EncodingError("a comparison with NaN.")
    raw = fixedpoint.clipped(x, ctx.b.frac, ctx.b.ring_bits)
    return ctx.broadcast(fixedpoint.constant(ctx.b, raw, f"fxp{ctx.b.frac}"), shape)


def is_infinite(ctx: Context, x: Operand, side: int) -> Operand:
    """Whether x is infinite, above (side = 1) or below (-1): what stands for it is, and what is near that by a sum."""
    if not (isinstance(x, Value) and x in ctx.infinite) or ctx.special:
        return full(ctx, False)
    least = ctx.like(side * fixedpoint.limit(ctx.b.frac, ctx.b.ring_bits) / 4, x)
    return ctx.broadcast(ctx.b.less(least, x) if side > 0 else ctx.b.less(x, least), ctx.outs[0].shape)


def is_finite(ctx: Context, x: Operand) -> Operand:
    above, below = is_infinite(ctx, x, 1), is_infinite(ctx, x, -1)
    if not isinstance(above, Value) or not isinstance(below, Value):
        return full(ctx, True)
    return ctx.b.not_(ctx.b.logical("or", above, below))


def less(ctx: Context, x: Operand, y: Operand) -> Operand:
    """x < y, folded where a side is infinite or both are the same value."""
    side = beyond(ctx, y) - beyond(ctx, x)
    if isinstance(x, Value) and side > 0:
        return negated(ctx, is_infinite(ctx, x, 1))
    if isinstance(y, Value) and side > 0:
        return negated(ctx, is_infinite(ctx, y, -1))
    if x is y or side:
        return full(ctx, side > 0)
    x, y = _comparable(ctx, x), _comparable(ctx, y)
    if x.type.kind == "bool":
        return ctx.b.logical("and", ctx.b.not_(x), y)
    return ctx.b.less(x, y)


def equal(ctx: Context, x: Operand, y: Operand) -> Operand:
    for one, other in ((x, y), (y, x)):
        if side := beyond(ctx, other):
            return is_infinite(ctx, one, side)
    if x is y:
        return full(ctx, True)
    x, y = _comparable(ctx, x), _comparable(ctx, y)
    if x.type.kind == "bool":
        return ctx.b.not_(ctx.b.logical("xor", x, y))
    return ctx.b.equal(x, y)


def negated(ctx: Context, x: Operand) -> Operand:
    return ctx.b.not_(x) if isinstance(x, Value) else ~x


def maximum(ctx: Context, x: Operand, y: Operand) -> Operand:
    return _extreme(ctx, x, y, largest=True)


def minimum(ctx: Context, x: Operand, y: Operand) -> Operand:
    return _extreme(ctx, x, y, largest=False)


def _extreme(ctx: Context, x: Operand, y: Operand, *, largest: bool) -> Operand:
    shape = ctx.outs[0].shape
    for c, other in ((x, y), (y, x)):
        side = beyond(ctx, c)
        if side and isinstance(other, Value):
            return full(ctx, c) if (side > 0) is largest else ctx.broadcast(other, shape)
    if isinstance(x, Value):  # a constant goes first: then the gradient of relu asks for the same comparison
        x, y = y, x
    return larger(ctx, *both(ctx, x, y)) if largest else smaller(ctx, *both(ctx, x, y))


def larger(ctx: Context, x: Value, y: Value) -> Value:
    if x.type.kind == "bool":
        return ctx.b.logical("or", x, y)
    return ctx.b.select(ctx.b.less(x, y), y, x)


def smaller(ctx: Context, x: Value, y: Value) -> Value:
    if x.type.kind == "bool":
        return ctx.b.logical("and", x, y)
    return ctx.b.select(ctx.b.less(y, x), y, x)


def clamp(ctx: Context, low: Operand, x: Operand, high: Operand) -> Operand:
    """For low <= high. Both comparisons are with x, so they share their rounds."""
    shape = ctx.outs[0].shape
    out: Operand = ctx.value(x, shape)
    for bound, below in ((low, True), (high, False)):
        side = beyond(ctx, bound)
        if side == (-1 if below else 1):
            continue
        c = less(ctx, x, bound) if below else less(ctx, bound, x)
        out = choose(ctx, c, bound, out)
    return out


# choice ----------------------------------------------------------------------------------------------


def choose(ctx: Context, c: Operand, x: Operand, y: Operand) -> Operand:
    """x where c, else y; constants that are never chosen need not be representable."""
    shape = ctx.outs[0].shape
    if x is y:
        return x
    if not isinstance(c, Value):
        return _choose_known(ctx, np.broadcast_to(c, shape), x, y)
    return ctx.b.select(ctx.value(c, shape), *both(ctx, _case(ctx, x), _case(ctx, y)))


def _case(ctx: Context, x: Operand) -> Operand:
    """What is chosen: a constant infinity is a mask, and beyond the domain of JAX's special functions 0 stands for NaN.

    Elsewhere NaN is refused: it marks what is missing, and nobody can ask a secret value for it later.
    """
    if not isinstance(x, Value) and is_float(x) and np.isnan(x).any() and ctx.special:
        x = np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf)
    return finite(ctx, x)


def _choose_known(ctx: Context, c: Known, x: Operand, y: Operand) -> Operand:
    shape = ctx.outs[0].shape
    if c.all() or not c.any():
        one = x if c.all() else y
        return ctx.broadcast(one, shape) if isinstance(one, Value) else np.broadcast_to(one, shape)
    if not isinstance(x, Value) and not isinstance(y, Value):
        return full(ctx, np.where(c, x, y))
    x, y = (v if isinstance(v, Value) else np.where(m, v, np.zeros_like(v)) for v, m in ((x, c), (y, ~c)))
    return ctx.b.select(ctx.value(c), *both(ctx, _case(ctx, x), _case(ctx, y)))


def select_n(ctx: Context, which: Operand, *cases: Operand) -> Operand:
    kind = which.type.kind if isinstance(which, Value) else np.asarray(which).dtype.kind
    if kind in ("bool", "b"):
        return choose(ctx, which, cases[1], cases[0])
    if not isinstance(which, Value):
        out = cases[0]
        for i, case in enumerate(cases[1:], 1):
            out = choose(ctx, np.asarray(which) == i, case, out)
        return out
    return pick(ctx, which, [ctx.value(_case(ctx, c), ctx.outs[0].shape) for c in cases])


def pick(ctx: Context, index: Value, cases: list[Value]) -> Value:
    """cases[index] in the rounds of one comparison and one product, however many cases.

    With b_i = (index <= i), which is monotone, cases[index] = last + sum of b_i (case_i - case_{i+1}).
    """
    b = ctx.b
    if index in ctx.truth and len(cases) == 2:
        c = b.broadcast(ctx.truth[index], cases[0].shape)
        return b.select(c, cases[1], cases[0])
    out = cases[-1]
    for i, (case, after) in reversed(list(enumerate(pairwise(cases)))):
        c = b.broadcast(b.less(index, ctx.like(i + 1, index)), case.shape)
        if case.type.kind == "bool":
            out = b.select(c, case, out)
        else:
            factor = b.convert(c, "fxp0" if is_float(case) else case.type.element)
            out = b.add(out, b.mul_raw(b.sub(case, after), factor))
    return out


# types and bits --------------------------------------------------------------------------------------


def convert(ctx: Context, x: Value, *, new_dtype: Any, **_: Any) -> Value:
    element = ctx.element(new_dtype)
    if element == x.type.element:
        return x
    if element == "bool":
        return ctx.truth[x] if x in ctx.truth else ctx.b.not_(ctx.b.equal(x, ctx.like(0, x)))
    if element.startswith("fxp"):
        return ctx.whole(ctx.b.convert(x, "fxp0"))
    if is_float(x):
        return _saturated(ctx, x, element)
    out = ctx.b.convert(x, element)
    if x.type.kind == "bool":
        ctx.truth[out] = x
    return out


def _saturated(ctx: Context, x: Value, element: str) -> Value:
    """A float as an integer: rounded toward zero; what does not fit becomes the nearest number that it has, as in XLA.

    A comparison for each end that a number may be beyond.
    """
    b, type_ = ctx.b, parse_element(element)
    low, high = of_type(type_, b.ring_bits)
    if not type_.signed:
        low, high = 0, (1 << type_.bits) - 1
    if x in ctx.integral:  # a whole number needs no rounding
        whole = ctx.integral[x]
        least, largest = of_value(whole, b.region, b.ring_bits)
    else:
        largest = 1 << limit_bits(b.ring_bits) - x.type.frac
        least = -largest
        if low <= least and largest <= high:
            return b.convert(x, element)
        whole = b.bitcast(b.convert(x, f"int{b.ring_bits}"), "fxp0")
    out = whole
    for end, below in ((low, True), (high, False)):
        if least >= low if below else largest <= high:
            continue
        limit = ctx.broadcast(b.const(end, "fxp0"), x.shape)
        beyond_it = b.less(whole, limit) if below else b.less(limit, whole)
        out = b.add(out, b.mul_raw(b.convert(beyond_it, "fxp0"), b.sub(limit, whole)))
    return b.bitcast(out, element)


def bit_not(ctx: Context, x: Value) -> Value:
    """Of an integer: -x - 1, or 2^bits - 1 - x if unsigned; local where a circuit is not."""
    if x.type.kind == "bool":
        return ctx.b.not_(x)
    top = -1 if x.type.signed or x.type.bits >= ctx.b.ring_bits else 2**x.type.bits - 1
    return ctx.b.sub(ctx.like(np.array(top, "int64" if top < 2**63 else "uint64"), x), x)


def bitwise(name: str) -> Rule:
    def rule(ctx: Context, x: Operand, y: Operand) -> Operand:
        for c, other in ((x, y), (y, x)):
            if isinstance(other, Value) and not isinstance(c, Value):
                out = _bitwise_known(ctx, name, other, c)
                if out is not None:
                    return out
        return ctx.b.logical(name, *both(ctx, x, y))

    return rule


def _bitwise_known(ctx: Context, name: str, x: Value, c: Known) -> Operand | None:
    """The result where a bool meets a constant that decides it or changes nothing."""
    if np.asarray(c).dtype != np.bool_ or not fixedpoint.is_uniform(c):
        return None
    number = bool(np.asarray(c).flat[0])
    if name != "xor" and number is (name == "or"):
        return full(ctx, number)
    x = ctx.broadcast(x, ctx.outs[0].shape)
    return ctx.b.not_(x) if name == "xor" and number else x


def shift(name: str) -> Rule:
    def rule(ctx: Context, x: Operand, amount: Operand) -> Operand:
        if isinstance(amount, Value):
            return bit_rules.shifted(ctx, name, *both(ctx, x, amount))
        bits = width_of(ctx.outs[0].dtype)
        amounts = np.asarray(amount)
        unsigned = amounts.astype(f"uint{8 * amounts.dtype.itemsize}")  # as XLA: negative amounts are large ones
        amounts = np.minimum(unsigned, unsigned.dtype.type(bits)).astype(np.int64)
        value = ctx.value(x, ctx.outs[0].shape)
        if name != "shift_right_arithmetic" or value.type.signed:
            return _shift_known(ctx, name, value, amounts, bits)
        signed = ctx.b.convert(value, f"int{bits}")  # the upper bit fills in, also of an unsigned integer
        return ctx.b.convert(ctx.value(_shift_known(ctx, name, signed, amounts, bits)), value.type.element)

    return rule


def _shift_known(ctx: Context, name: str, x: Value, amounts: Known, width: int) -> Operand:
    """Shift by constants: each distinct amount once, put together by 0/1 factors (local)."""
    parts = []
    for n in np.unique(amounts).tolist():
        mask = np.broadcast_to(amounts == n, x.shape)
        part = _shift_all(ctx, name, x, n, width)
        if part is not None:
            parts.append(part if mask.all() else ctx.b.mul(part, ctx.like(mask.astype(np.int64), x)))
    if not parts:
        return zeros(ctx)
    out = parts[0]
    for part in parts[1:]:
        out = ctx.b.add(out, part)
    return out


def _shift_all(ctx: Context, name: str, x: Value, n: int, width: int) -> Value | None:
    """One amount for all elements; None stands for zero. JAX: amounts of `width` and above shift all out."""
    if n >= width and name != "shift_right_arithmetic":
        return None
    n = min(n, width - 1)
    return ctx.b.op(name, x, bits=n) if n else x


PLAIN: dict[str, Rule] = {
    "max": maximum,
    "min": minimum,
    "clamp": clamp,
    "lt": less,
    "gt": lambda ctx, x, y: less(ctx, y, x),
    "ge": lambda ctx, x, y: negated(ctx, less(ctx, x, y)),
    "le": lambda ctx, x, y: negated(ctx, less(ctx, y, x)),
    "eq": equal,
    "ne": lambda ctx, x, y: negated(ctx, equal(ctx, x, y)),
    "lt_to": less,
    "le_to": lambda ctx, x, y: negated(ctx, less(ctx, y, x)),
    "eq_to": equal,
    "is_finite": is_finite,
    "select_n": select_n,
    "and": bitwise("and"),
    "or": bitwise("or"),
    "xor": bitwise("xor"),
    "not": bit_not,
    "shift_left": shift("shift_left"),
    "shift_right_logical": shift("shift_right_logical"),
    "shift_right_arithmetic": shift("shift_right_arithmetic"),
}

RULES: dict[str, Rule] = {
    **{name: without_parameters(rule) for name, rule in PLAIN.items()},
    "convert_element_type": convert,
}
