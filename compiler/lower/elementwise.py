"""Rules of elementwise arithmetic: sums, products, rounding, division, powers, non-linear functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from spuvm.compiler.ir import fixedpoint
from spuvm.compiler.ir.dtypes import kind_of
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower import powers
from spuvm.compiler.lower.context import Context, Known, Operand, Rule
from spuvm.runtime.errors import EncodingError, UnsupportedError


def both(ctx: Context, x: Operand, y: Operand) -> tuple[Value, Value]:
    """Two operands as values of the result's shape."""
    shape = ctx.outs[0].shape
    return ctx.value(x, shape), ctx.value(y, shape)


def finite(ctx: Context, x: Operand) -> Operand:
    """An operand of a choice or a sum, where a constant infinity is a mask: half of what fixed point holds."""
    if isinstance(x, Value) or not is_float(x):
        return x
    return fixedpoint.stand_in(x, ctx.b.frac, ctx.b.ring_bits)


def zeros(ctx: Context) -> Known:
    out = ctx.outs[0]
    return np.broadcast_to(np.zeros((), out.dtype), out.shape)


def full(ctx: Context, number: Any) -> Known:
    out = ctx.outs[0]
    return np.broadcast_to(np.asarray(number, out.dtype), out.shape)


def is_float(x: Any) -> bool:
    """Whether a value, or an array known at compile time, is a float in JAX."""
    return x.type.kind == "fxp" if isinstance(x, Value) else kind_of(x.dtype) not in "iub"


def is_number(x: Operand, number: float) -> bool:
    return not isinstance(x, Value) and fixedpoint.uniform(x) == number


# sums and products -----------------------------------------------------------------------------------


def add(ctx: Context, x: Operand, y: Operand) -> Operand:
    for a, b in ((x, y), (y, x)):
        if is_number(a, 0.0) and isinstance(b, Value):
            return ctx.broadcast(b, ctx.outs[0].shape)
    return _whole_if_both(ctx, ctx.b.add, *both(ctx, finite(ctx, x), finite(ctx, y)))


def sub(ctx: Context, x: Operand, y: Operand) -> Operand:
    if is_number(y, 0.0):
        return ctx.value(x, ctx.outs[0].shape)
    if is_number(x, 0.0):
        return ctx.b.neg(ctx.value(y, ctx.outs[0].shape))
    return _whole_if_both(ctx, ctx.b.sub, *both(ctx, finite(ctx, x), finite(ctx, y)))


def _whole_if_both(ctx: Context, op: Callable[[Value, Value], Value], x: Value, y: Value) -> Value:
    """The sum or difference; that of whole numbers stays known as one."""
    out = op(x, y)
    if x in ctx.integral and y in ctx.integral:
        ctx.integral[out] = op(ctx.integral[x], ctx.integral[y])
    return out


def neg(ctx: Context, x: Value) -> Value:
    return ctx.map(ctx.b.neg, x)


def mul(ctx: Context, x: Operand, y: Operand) -> Operand:
    if not isinstance(x, Value):
        x, y = y, x
    if not isinstance(y, Value):
        return _mul_known(ctx, x, y)
    x, y = both(ctx, x, y)
    return product(ctx, x, y)


def product(ctx: Context, x: Value, y: Value) -> Value:
    """x y; whole numbers need no truncation."""
    z = ctx.b.mul_raw(ctx.integral.get(x, x), ctx.integral.get(y, y))
    return rescaled(ctx, z)


def rescaled(ctx: Context, z: Value) -> Value:
    """A product with the program's number of fraction bits; integers as they are."""
    if z.type.kind != "fxp":
        return z
    return ctx.whole(z) if z.type.frac == 0 else ctx.b.with_frac(z, ctx.b.frac)


def _mul_known(ctx: Context, x: Value, c: Known) -> Operand:
    if is_number(c, 0.0):
        return zeros(ctx)
    x = ctx.broadcast(x, ctx.outs[0].shape)
    if not is_float(x):
        return x if is_number(c, 1) else ctx.b.mul(x, ctx.like(c, x))
    if x in ctx.integral:
        y = fixedpoint.factor(ctx.b, np.asarray(c).astype(np.float64))
        out = rescaled(ctx, ctx.b.mul_raw(ctx.integral[x], ctx.broadcast(y, x.shape)))
    else:
        out = fixedpoint.mul_constant(ctx.b, x, c)
    return _quotient_of(ctx, out, x, _whole_reciprocal(ctx, c))


_DIVISORS = 1 << 20


def _whole_reciprocal(ctx: Context, c: Known) -> int:
    """n if a constant is 1 / n for the floats of the program, n whole; else 0."""
    number, dtype = fixedpoint.uniform(c), ctx.outs[0].dtype
    if number is None or not 1 / _DIVISORS < number < 1 or dtype not in (np.float32, np.float64):
        return 0
    n = round(1 / number)
    return n if dtype.type(1 / n) == dtype.type(number) else 0


def _quotient_of(ctx: Context, out: Value, x: Value, n: int) -> Value:
    """`out`, remembered as x / n where the quotient is not exact in fixed point."""
    if 2 < n < _DIVISORS and n & (n - 1):
        ctx.quotients[out] = x, n
    return out


def square(ctx: Context, x: Value) -> Value:
    return product(ctx, x, x)


def sign(ctx: Context, x: Value) -> Value:
    zero = ctx.like(0, x)
    if x.type.kind == "int" and not x.type.signed:
        return ctx.b.convert(ctx.b.not_(ctx.b.equal(x, zero)), x.type.element)
    element = "fxp0" if is_float(x) else x.type.element
    above = ctx.b.convert(ctx.b.less(zero, x), element)
    below = ctx.b.convert(ctx.b.less(x, zero), element)
    out = ctx.b.sub(above, below)
    return ctx.whole(out) if is_float(x) else out


def absolute(ctx: Context, x: Value) -> Value:
    if x.type.kind == "int" and not x.type.signed:
        return x
    return ctx.b.select(ctx.b.less(x, ctx.like(0, x)), ctx.b.neg(x), x)


# rounding to whole numbers ---------------------------------------------------------------------------


def floor(ctx: Context, x: Value) -> Value:
    """Exact: an arithmetic shift of the raw integer."""
    whole = ctx.b.op("shift_right_arithmetic", ctx.b.word(x), bits=x.type.frac)
    return ctx.whole(ctx.b.bitcast(whole, "fxp0"))


def ceil(ctx: Context, x: Value) -> Value:
    return neg(ctx, floor(ctx, ctx.b.neg(x)))


def round_(ctx: Context, x: Value, *, rounding_method: Any) -> Value:
    """floor(x + d) with d = 1/2, less one unit where a tie must go down.

    Half to even: ties go down where floor(x) is even. Away from zero: where x is negative.
    """
    b = ctx.b
    if int(rounding_method) == 1 and x in ctx.quotients:
        return _rounded_quotient(ctx, *ctx.quotients[x])
    if int(rounding_method) == 1:
        down = b.not_(b.op("bit_parity", x, mask=1 << x.type.frac))
    else:
        down = b.less(x, ctx.like(0, x))
    half = b.broadcast(b.const(1 << (x.type.frac - 1), x.type.element), x.shape)
    unit = b.bitcast(b.convert(down, "fxp0"), x.type.element)
    return floor(ctx, b.sub(b.add(x, half), unit))


def _rounded_quotient(ctx: Context, x: Value, n: int) -> Value:
    """x / n to the nearest whole number, half to even: q within one of it, and r = x - n q decides, which is exact.

    One more where r > n / 2, one less where r < -n / 2; with `or equal` where q is odd.
    """
    b, frac = ctx.b, x.type.frac
    half = b.broadcast(b.const(n << (frac - 1), x.type.element), x.shape)
    quotient = b.function("div_by", x, by=float(n))
    q = floor(ctx, b.add(quotient, b.broadcast(b.const(1 << (frac - 1), x.type.element), x.shape)))
    whole = ctx.integral[q]
    r = b.sub(x, b.with_frac(b.mul_raw(whole, b.broadcast(b.const(n, "fxp0"), x.shape)), frac))
    odd = b.bitcast(b.convert(b.op("bit_parity", q, mask=1 << frac), "fxp0"), x.type.element)
    limit = b.sub(half, odd)
    more, less = b.less(limit, r), b.less(r, b.neg(limit))
    return ctx.whole(b.sub(b.add(whole, b.convert(more, "fxp0")), b.convert(less, "fxp0")))


# division and powers ---------------------------------------------------------------------------------


def elementary(name: str) -> Rule:
    return lambda ctx, x: ctx.b.function(name, x)


def log(ctx: Context, x: Value) -> Value:
    out = ctx.b.function("log", x)
    ctx.logarithms[out] = x
    return out


def div(ctx: Context, x: Operand, y: Operand) -> Operand:
    if not is_float(ctx.outs[0]):
        return _integer_quotient(ctx, x, y)
    if is_number(x, 0.0):
        return zeros(ctx)
    if not isinstance(y, Value):
        return _div_known(ctx, ctx.value(x), np.asarray(y).astype(np.float64))
    if is_number(x, 1.0) and not y.type.is_public:
        return ctx.b.function("reciprocal", ctx.broadcast(y, ctx.outs[0].shape))
    return ctx.b.function("div", *both(ctx, x, y))


def _integer_quotient(ctx: Context, x: Operand, y: Operand) -> Operand:
    """Toward zero; by zero, all ones."""
    by_zero = np.zeros((), bool) if isinstance(y, Value) else np.asarray(y) == 0
    p, q = both(ctx, x, y if isinstance(y, Value) else np.where(by_zero, np.ones_like(y), y))
    out = ctx.b.op("quotient", p, q, to=p.type.element)
    if not by_zero.any():
        return out
    mask = ctx.b.const(np.broadcast_to(by_zero, out.shape).astype(np.uint64), "bool")
    return ctx.b.select(mask, ctx.like(-1 if p.type.signed else 2**p.type.bits - 1, out), out)


def _div_known(ctx: Context, x: Value, c: Known) -> Operand:
    if (c == 0).any():
        raise EncodingError("division by a constant that is zero.")
    if np.isinf(c).all():
        return zeros(ctx)
    number = fixedpoint.uniform(c)
    if x in ctx.logarithms and number is not None:
        return ctx.broadcast(ctx.b.function("log_over", ctx.logarithms[x], base=number), ctx.outs[0].shape)
    x = ctx.broadcast(x, ctx.outs[0].shape)
    if x in ctx.integral and _whole_reciprocal(ctx, c):
        return _mul_known(ctx, x, np.asarray(float(_whole_reciprocal(ctx, c))))
    if number is not None and np.frexp(abs(number))[0] == 0.5:
        return fixedpoint.mul_constant(ctx.b, x, 1.0 / number)
    out = ctx.b.function("div_by", x, by=c if number is None else number)
    return _quotient_of(ctx, out, x, int(number) if number is not None and number == np.rint(number) > 0 else 0)


def rem(ctx: Context, x: Operand, y: Operand) -> Operand:
    """The sign of x, as in C. Floats: the remainder of the raw integers, exact on the fixed-point grid."""
    p, q = both(ctx, x, y)
    return ctx.b.op("remainder", p, q, to=p.type.element)


def integer_pow(ctx: Context, x: Value, *, y: int) -> Operand:
    if y in (0, 1):
        return x if y else full(ctx, 1)
    if is_float(x) and y != 2:
        return ctx.b.function("integer_pow", x, n=y)
    if y < 0:
        raise UnsupportedError("a negative power of an integer: convert it to float first.")
    return _power(ctx, x, y)


def _power(ctx: Context, x: Value, n: int) -> Value:
    """x^n for n >= 1 by squaring."""
    if n == 1:
        return x
    half = _power(ctx, x, n // 2)
    out = product(ctx, half, half)
    return product(ctx, out, x) if n % 2 else out


def power(ctx: Context, x: Operand, y: Operand) -> Operand:
    number = None if isinstance(y, Value) else fixedpoint.uniform(y)
    if number is not None and isinstance(x, Value):
        x = ctx.broadcast(x, ctx.outs[0].shape)
        if number.is_integer():
            return integer_pow(ctx, x, y=int(number))
        if abs(number) == 0.5:
            return ctx.b.function("sqrt" if number > 0 else "rsqrt", x)
    if not isinstance(y, Value) and is_whole(y) and isinstance(x, Value):
        return powers.by_whole_numbers(ctx, x, np.asarray(y).astype(np.int64))
    if not is_float(ctx.outs[0]):
        raise UnsupportedError("a power of integers needs an exponent known at compile time: convert to float.")
    if not isinstance(x, Value) and (np.asarray(x) > 0).all():  # x^y = exp(y ln x)
        base = fixedpoint.uniform(x)
        whole = isinstance(y, Value) and y.type.kind == "int"
        if isinstance(y, Value) and whole:
            y = ctx.b.convert(y, f"fxp{ctx.b.frac}")
        if base is not None and base != 1 and isinstance(y, Value):
            counts = {"whole": True} if whole and base < 1 else {}
            return ctx.b.function("power_of", ctx.broadcast(y, ctx.outs[0].shape), base=base, **counts)
        exponent = mul(ctx, y, np.log(np.asarray(x).astype(np.float64)))
        return ctx.b.function("exp", exponent) if isinstance(exponent, Value) else full(ctx, 1)
    if not isinstance(y, Value) and (np.asarray(y).astype(np.float64) % 1 != 0).all():  # of positive numbers only
        return ctx.b.function("pow", *both(ctx, x, y))
    return powers.signed_power(ctx, *both(ctx, x, y))


def is_whole(y: Any) -> bool:
    """Whether a known exponent is a whole number of moderate size throughout."""
    real = np.asarray(y).astype(np.float64)
    return bool((np.abs(real) <= powers.LARGEST).all() and (real == np.rint(real)).all())


def erfc(ctx: Context, x: Value) -> Operand:
    return ctx.b.sub(ctx.like(1.0, x), ctx.b.function("erf", x))


ELEMENTARY = ("exp", "expm1", "log1p", "logistic", "tanh", "erf", "sqrt", "rsqrt", "sin", "cos")

# Rules that need no parameters: the result's type, which `Context.outs` has, says it all.
PLAIN: dict[str, Rule] = {
    "add": add,
    "add_any": add,
    "sub": sub,
    "neg": neg,
    "mul": mul,
    "square": square,
    "div": div,
    "rem": rem,
    "sign": sign,
    "abs": absolute,
    "floor": floor,
    "ceil": ceil,
    "pow": power,
    "log": log,
    "exp2": lambda ctx, x: ctx.b.function("power_of", x, base=2.0),
    "erfc": erfc,
    **{name: elementary(name) for name in ELEMENTARY},
}


def without_parameters(rule: Rule) -> Rule:
    return lambda ctx, *operands, **_: rule(ctx, *operands)


RULES: dict[str, Rule] = {
    **{name: without_parameters(rule) for name, rule in PLAIN.items()},
    "round": round_,
    "integer_pow": integer_pow,
}
