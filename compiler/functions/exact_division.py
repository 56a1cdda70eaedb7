"""Division by public numbers: correctly rounded quotients, exact integer quotient and remainder.

An estimate of x / d is wrong by at most one or so; the remainder, exact in the ring, says by how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from spuvm.compiler.functions.polynomial import below, inject, raw_constant, reread, times_integer
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Op, Value, join
from spuvm.runtime.errors import UnsupportedError
from spuvm.runtime.ring.elements import WIDE, signed


@dataclass(frozen=True)
class Precision:
    """How many bits go where in a ring of k: x = x2 2^(2 limb) + x1 2^limb + x0.

    `frac` are the fraction bits of the multipliers 2^(limb i) / d; 3 limbs times those stay below 2^(k - 2). The
    estimate's error is below 2^(1 - slack) units, so that `slack` is above it, and quotients by numerators of d up
    to 2^(slack - 2) are far enough apart for one comparison. |d| < 2^(k - 5), so that remainders stay below 2^(k - 2).
    `step`: bits a step of the long division by a public value that is known when it runs.
    """

    limb: int
    frac: int
    slack: int
    step: int


PRECISION = {32: Precision(11, 17, 4, 10), 64: Precision(21, 38, 14, 20), 128: Precision(42, 80, 36, 42)}


@dataclass(frozen=True)
class Divisor:
    """d = sign * numerator / 2^scale. All of them values of x's shape; of d = 0 (and infinity) sign is 0."""

    sign: Value
    numerator: Value
    scaled: Value  # 2^scale in the ring
    half: Value  # numerator / 2, rounded up
    whole: tuple[Value, ...]  # floor(2^(limb i) / |d|), i = 0, 1, 2
    rest: tuple[Value, ...]  # the fraction bits that follow
    small: bool  # the numerator is known to be so small that one comparison does


def div_public(b: Builder, x: Value, divisor: Any) -> Value:
    """x / d, correctly rounded (ties up), for a public d: real numbers, or a public fixed-point Value.

    Estimate: three limbs of x times the whole and fraction parts of 2^(21 i) / d, all local, one
    truncation. Remainder: x 2^scale - estimate * numerator, d = numerator / 2^scale exactly (real numbers
    are taken as the exact binary fractions that they are). Comparing it with half of the numerator gives
    the nearest quotient.
    Domain: |x| and |x / d| raw below 2^(k-2), |d| and numerators of |d| below 2^(k-5); in a ring of 32 bits d is
    taken as a float32. d = 0 gives 0.
    Cost: 13 rounds; 3 truncations, one comparison (two if the numerator of d is above 2^12, or unknown),
    one bit injection each: 204 (245) bytes. A power of two: 12 rounds, one truncation and one
    comparison, 131 bytes; 1 / d a power of two: local.
    """
    if isinstance(divisor, Value):
        d = _runtime_divisor(b, divisor, b.frac - x.type.frac + divisor.type.frac)
    else:
        real = np.asarray(divisor, np.float64) * 2.0 ** (x.type.frac - b.frac)
        if b.ring_bits == 32:  # whose numerators would not fit
            real = real.astype(np.float32).astype(np.float64)
        if (shift := _uniform_shift(real, b.ring_bits)) is not None:
            return _by_power_of_two(b, x, shift)
        d = _constant_divisor(b, real, x.shape)
    quotient, remainder = _estimate(b, x, d)
    return reread(b, _nearest(b, quotient, remainder, d), b.frac)


def int_div(b: Builder, x: Value, y: Value) -> Value:
    """The integer quotient, rounded toward zero as JAX does: exact. By a secret y: functions/secret_division.py.

    As in `div_public`, but the remainder, less one if the quotient is negative, is compared with 0 and y.
    Domain: all x, |y| < 2^(k-5). x / 0 gives 0 (two known values: what integer_division gives, -1).
    Cost: 17 rounds; 3 truncations, 3 comparisons, 3 bit injections: 320 bytes. Integers as wide as the ring: 55
    rounds, 1350 bytes.
    """
    if join(x.type.visibility, y.type.visibility) != "secret":
        return _known_int_div(b, x, y)
    if not y.type.is_public:
        raise UnsupportedError("by a secret number: see functions/secret_division.py.")
    if x.type.bits < b.ring_bits:
        return _int_div(b, x, y)
    return _signed_large_int_div(b, x, y) if x.type.signed else _large_int_div(b, x, y)


def _signed_large_int_div(b: Builder, x: Value, y: Value) -> Value:
    """The quotient of the magnitudes, which are below 2^64, and the sign."""
    zero, one = (b.integer(i, x.type) for i in (0, 1))
    negative = b.convert(b.less(x, zero), x.type.element)
    sign = b.sub(one, b.add(negative, negative))
    data, unsigned = constant_of(b, y), f"uint{x.type.bits}"
    if data is None:
        negative_y = b.less(y, zero)
        magnitude, other = b.select(negative_y, b.neg(y), y), b.select(negative_y, b.neg(one), one)
    else:
        numbers = signed(data)
        magnitude, other = (
            _spread(b, b.const(np.asarray(n), y.type.element), y.shape) for n in (abs(numbers), np.sign(numbers))
        )
    quotient = _large_int_div(b, b.bitcast(b.mul_raw(x, sign), unsigned), b.bitcast(magnitude, unsigned))
    return b.mul_raw(b.bitcast(quotient, x.type.element), b.mul_raw(sign, other))


def _large_int_div(b: Builder, x: Value, y: Value) -> Value:
    """x = 4 h + l: the quotient of h four times, and how often y is in what remains of it, with l."""
    h = b.op("shift_right_logical", x, bits=2)
    quotient = _int_div(b, h, y)
    rest = b.sub(h, b.mul_raw(quotient, y))
    four = b.integer(4, y.type)
    small = b.bitcast(y, f"int{y.type.bits}")
    rest = b.bitcast(b.sub(x, b.mul_raw(four, b.sub(h, rest))), small.type.element)  # 4 (h - q y) + l
    multiples = [small, b.add(small, small), b.add(b.add(small, small), small)]
    steps = [b.convert(b.not_(b.less(rest, m)), y.type.element) for m in multiples]
    steps = [b.mul_raw(s, b.convert(b.not_(b.equal(y, b.integer(0, y.type))), y.type.element)) for s in steps]
    out = b.mul_raw(four, quotient)
    for step in steps:
        out = b.add(out, step)
    return out


def _int_div(b: Builder, x: Value, y: Value) -> Value:
    d = _divisor_of(b, y)
    quotient, remainder = _estimate(b, x, d)
    signed = b.mul_raw(reread(b, x, 0), d.sign)
    negative = b.convert(b.less(signed, raw_constant(b, 0, 0, x.shape)), "fxp0")
    remainder = b.sub(remainder, negative)
    floor = _add_steps(b, quotient, remainder, [raw_constant(b, 0, 0, x.shape), d.numerator], -1)
    return b.bitcast(b.add(floor, negative), x.type.element)


def int_rem(b: Builder, x: Value, y: Value) -> Value:
    """x - y * int_div(x, y): the sign of x, exact. x rem 0 gives x. Cost: that of int_div."""
    return b.sub(x, b.mul_raw(int_div(b, x, y), y))


def raw_rem(b: Builder, x: Value, y: Value) -> Value:
    """int_rem of the raw elements of fixed point, which are below 2^62. Cost: that of narrow integers."""
    p, q = (b.word(v) for v in (x, y))
    if join(x.type.visibility, y.type.visibility) == "secret" and y.type.is_public:
        return b.bitcast(b.sub(p, b.mul_raw(_int_div(b, p, q), q)), x.type.element)
    return b.bitcast(int_rem(b, p, q), x.type.element)


# the quotient --------------------------------------------------------------------------------------------


def _estimate(b: Builder, x: Value, d: Divisor) -> tuple[Value, Value]:
    """(q, r), both fxp0, with x 2^scale / sign = q numerator + r and r / numerator in about [-1/2, 3/2]."""
    x = b.mul_raw(reread(b, x, 0), d.sign)
    p = PRECISION[b.ring_bits]
    wide = reread(b, x, b.ring_bits - 1)
    top, upper = (reread(b, b.trunc(wide, bits), 0) for bits in (2 * p.limb, p.limb))
    limbs = [
        b.sub(x, times_integer(b, upper, 1 << p.limb)),
        b.sub(upper, times_integer(b, top, 1 << p.limb)),
        top,
    ]
    whole, fraction = (_dot(b, limbs, parts) for parts in (d.whole, d.rest))
    bias = raw_constant(b, (1 << (p.frac - p.slack)) - (1 << (p.frac - 1)), p.frac, x.shape)
    quotient = b.add(whole, b.trunc(b.add(reread(b, fraction, p.frac), bias), p.frac))
    remainder = b.sub(b.mul_raw(x, d.scaled), b.mul_raw(quotient, d.numerator))
    return quotient, remainder


def _dot(b: Builder, xs: list[Value], ys: tuple[Value, ...]) -> Value:
    total = b.mul_raw(xs[0], ys[0])
    for x, y in zip(xs[1:], ys[1:]):
        total = b.add(total, b.mul_raw(x, y))
    return total


def _nearest(b: Builder, quotient: Value, remainder: Value, d: Divisor) -> Value:
    """The nearest integer to quotient + remainder / numerator, ties up."""
    upper = d.half
    if d.small:
        return _add_steps(b, quotient, remainder, [upper], 0)
    return _add_steps(b, quotient, remainder, [b.sub(upper, d.numerator), upper], -1)


def _add_steps(b: Builder, quotient: Value, remainder: Value, thresholds: list[Value], base: int) -> Value:
    """quotient + base + the number of thresholds that the remainder reaches."""
    count = inject(b, below(b, remainder, thresholds)).sum(b)
    base += len(thresholds)
    return b.sub(b.add(quotient, raw_constant(b, base, 0, quotient.shape)), count)


def _uniform_shift(real: np.ndarray[Any, Any], ring_bits: int) -> int | None:
    """s if every element is 2^s."""
    if real.size == 0 or (real != real.flat[0]).any():
        return None
    mantissa, exponent = np.frexp(real.flat[0])
    return int(exponent) - 1 if mantissa == 0.5 and exponent <= ring_bits - 5 else None


def _by_power_of_two(b: Builder, x: Value, shift: int) -> Value:
    """x / 2^shift, correctly rounded: a truncation of x - d/2 is the nearest quotient or the one below it."""
    if shift <= 0:
        return reread(b, times_integer(b, reread(b, x, 0), 1 << -shift), b.frac)
    top = b.ring_bits - 1
    half = raw_constant(b, 1 << (shift - 1), top, x.shape)
    quotient = reread(b, b.trunc(b.sub(reread(b, x, top), half), shift), 0)
    remainder = b.sub(reread(b, x, 0), times_integer(b, quotient, 1 << shift))
    return reread(b, _add_steps(b, quotient, remainder, [reread(b, half, 0)], 0), b.frac)


# divisors ------------------------------------------------------------------------------------------------


def _constant_divisor(b: Builder, numbers: np.ndarray[Any, Any], shape: tuple[int, ...]) -> Divisor:
    """From real numbers or integers; each distinct one is worked out once, in Python's integers."""
    once = numbers[tuple(slice(None) if step else slice(1) for step in numbers.strides)]  # undo a broadcast
    numbers = np.asarray(once, numbers.dtype)
    if numbers.size == 0:
        numbers = np.ones((), numbers.dtype)
    distinct, where = np.unique(numbers, return_inverse=True)
    columns = list(zip(*(_constants_of(d, b.ring_bits) for d in distinct.tolist())))
    uniform = len(distinct) == 1

    def value(column: Any) -> Value:
        raw = np.array(list(column), object)
        data = raw[0] if uniform else raw[where.reshape(numbers.shape)]
        return _spread(b, b.const(np.asarray(data), "fxp0"), shape)

    sign, numerator, scaled, half, *parts = (value(c) for c in columns)
    small = max(columns[1]) <= 1 << (PRECISION[b.ring_bits].slack - 2)
    return Divisor(sign, numerator, scaled, half, tuple(parts[:3]), tuple(parts[3:]), small)


def _spread(b: Builder, x: Value, shape: tuple[int, ...]) -> Value:
    """NumPy's broadcasting, axes of length 1 included."""
    if x.shape == shape:
        return x
    dims = [d for d, size in enumerate(shape[len(shape) - len(x.shape) :]) if x.shape[d] == size]
    inner = b.reshape(x, [x.shape[d] for d in dims])
    return b.op("broadcast", inner, shape=shape, dims=tuple(d + len(shape) - len(x.shape) for d in dims))


def _constants_of(d: float | int, k: int) -> list[int]:
    """sign, numerator, 2^scale, ceil(numerator / 2), three whole parts, three fraction parts."""
    p = PRECISION[k]
    if d == 0 or abs(d) >= 2.0 ** (k - 1):  # quotients of numbers below 2^(k-2) by the latter round to 0
        return [0, 1, 0, 1] + [0] * 6
    fraction = Fraction(abs(d))
    n, m = fraction.numerator, fraction.denominator
    if n >= 1 << (k - 5):
        raise UnsupportedError(f"division by {d:g}: the divisor must be below 2^{k - 5}.")
    multipliers = [(m << (p.limb * i + p.frac)) // n for i in range(3)]
    sign = 1 if d > 0 else -1
    whole, parts = [w >> p.frac for w in multipliers], [w % (1 << p.frac) for w in multipliers]
    return [sign, n, m, (n + 1) // 2, *whole, *parts]


def _divisor_of(b: Builder, y: Value) -> Divisor:
    """A public integer: a constant of the program, or known when it runs."""
    data = constant_of(b, y)
    if data is None:
        return _runtime_divisor(b, y, 0)
    numbers = signed(data) if y.type.signed or data.dtype == WIDE else data
    return _constant_divisor(b, numbers.reshape(()) if data.size == 1 else numbers, y.shape)


def constant_of(b: Builder, y: Value) -> np.ndarray[Any, Any] | None:
    """The raw elements of a constant of the program, read as another type or repeated; of other values None."""
    makers = {value: op for op in b.region.ops for value in op.outputs}
    source = makers.get(y)
    while source is not None and (source.name == "bitcast" or _repeats(source)):
        source = makers.get(source.inputs[0])
    return source.attrs["data"] if source is not None and source.name == "const" else None


def _repeats(op: Op) -> bool:
    return op.name == "broadcast" and op.inputs[0].type.size == 1


def _runtime_divisor(b: Builder, y: Value, exponent: int) -> Divisor:
    """d = y 2^-exponent, a public value: long division, 20 bits (of a ring of 64) of 2^exponent / |y| a step.

    Below 2^43 the digits are exact. Above, a digit is estimated from the leading bits of y, and the signed
    remainder that it leaves makes the next ones come out right.
    """
    if exponent < 0:
        raise UnsupportedError("division by a public number of fewer fraction bits than the quotient loses.")
    word, step = f"int{b.ring_bits}", PRECISION[b.ring_bits].step
    y = b.word(y)
    one, zero = (b.integer(i, y.type) for i in (1, 0))
    negative, is_zero = (b.convert(c, word) for c in (b.less(y, zero), b.equal(y, zero)))
    sign = b.sub(one, b.add(negative, negative))
    n = b.add(b.mul(y, sign), is_zero)
    big = b.not_(b.less(n, b.integer(np.array(1 << (b.ring_bits - 1 - step), object), y.type)))
    divisor = b.select(big, b.op("shift_right_arithmetic", n, bits=step), n)
    digits, rest = [], b.integer(np.array(1 << exponent, object), y.type)
    digits.append(b.op("integer_division", rest, n))
    rest = b.sub(rest, b.mul(digits[0], n))
    for _ in range(4):
        longer = b.op("shift_left", rest, bits=step)
        digits.append(b.op("integer_division", b.select(big, rest, longer), divisor))
        rest = b.sub(longer, b.mul(digits[-1], n))
    whole, parts = _multipliers(b, digits)
    half = b.op("shift_right_arithmetic", b.add(n, one), bits=1)
    sign = b.sub(sign, is_zero)  # the sign of zero came out as 1
    values = [sign, n, b.integer(np.array(1 << exponent, object), y.type), half, *whole, *parts]
    sign, n, scaled, half, *multipliers = (reread(b, v, 0) for v in values)
    return Divisor(sign, n, scaled, half, tuple(multipliers[:3]), tuple(multipliers[3:]), False)


def _multipliers(b: Builder, digits: list[Value]) -> tuple[list[Value], list[Value]]:
    """Whole and fraction parts of r 2^(limb i), i = 0, 1, 2, from r in base 2^step (first digit whole)."""
    p = PRECISION[b.ring_bits]
    two = 2 * p.step

    def left(x: Value, bits: int) -> Value:
        return b.op("shift_left", x, bits=bits)

    def right(x: Value, bits: int) -> Value:
        return b.op("shift_right_arithmetic", x, bits=bits)

    def low(x: Value, bits: int) -> Value:
        return b.sub(x, left(right(x, bits), bits))

    first, second = (b.add(left(digits[i], p.step), digits[i + 1]) for i in (1, 3))  # `two` fraction bits each
    below, last = two - p.limb, 2 * two - 2 * p.limb  # bits of the first, of the second, below the next limb's point
    whole = [
        digits[0],
        b.add(left(digits[0], p.limb), right(first, below)),
        b.add(b.add(left(digits[0], 2 * p.limb), left(first, 2 * p.limb - two)), right(second, last)),
    ]
    parts = [
        right(first, two - p.frac),
        b.add(left(low(first, below), p.frac - below), right(second, two + below - p.frac)),
        right(low(second, last), last - p.frac),
    ]
    return whole, parts


def _known_int_div(b: Builder, x: Value, y: Value) -> Value:
    """Neither operand is secret: floor division of the magnitudes, and the sign."""
    if not x.type.signed:
        return b.op("integer_division", x, y)
    (p, p_sign), (q, q_sign) = (_magnitude(b, b.word(v)) for v in (x, y))
    unsigned = p.type.element.replace("int", "uint")  # 2^(k-1) is a magnitude
    quotient = b.op("integer_division", b.bitcast(p, unsigned), b.bitcast(q, unsigned))
    return b.bitcast(b.mul(b.bitcast(quotient, p.type.element), b.mul(p_sign, q_sign)), x.type.element)


def _magnitude(b: Builder, x: Value) -> tuple[Value, Value]:
    negative = b.convert(b.less(x, b.integer(0, x.type)), x.type.element)
    sign = b.sub(b.integer(1, x.type), b.add(negative, negative))
    return b.mul(x, sign), sign
