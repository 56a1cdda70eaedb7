"""Noise that no party knows, for differential privacy: discrete Laplace and discrete Gaussian, of units of fixed point.

Drawn inside the machine from secret random bits, which cost nothing, compared with public probabilities of 64 bits:
a Bernoulli variable is right to 2^-64, and there are no floats. Security: that of the protocol; no coalition that it
admits knows anything of the noise. What a program spends is written into its jaxpr (`spuvm.dp.spending`).

Discrete Laplace: P(n) = (1-q)/(1+q) q^|n| is the difference of two geometric variables, and the binary digits of a
geometric variable are independent: digit i is 1 with probability q^(2^i) / (1 + q^(2^i)). (Ghosh, Roughgarden,
Sundararajan, STOC 2009; digits: Dwork, Kenthapadi, McSherry, Mironov, Naor, EUROCRYPT 2006.)
Discrete Gaussian: P(n) ~ exp(-n^2 / 2 s^2) (Canonne, Kamath, Steinke, NeurIPS 2020), by inversion: |n| is how many of
the public numbers P(|n| >= k) are above one uniform number of 64 bits. These are compared as eight digits of base 256,
of which each number takes what it needs; and as they fall, binary digit i of how many there are is the sum modulo 2 of
each 2^i-th, which costs nothing. A wide one is the sum of a fine one and of a
coarse one times a whole number, whose distribution is that of one (Peikert, CRYPTO 2010, theorem 3.1): it is off by a
factor of 1 + 4 exp(-2 pi^2 s^2) at most, s = 1 / sqrt(1 / fine^2 + 1 / coarse^2) in steps of the coarse one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.jax_rules import apply
from spuvm.compiler.lower.randomness import bits_p
from spuvm.runtime.errors import InputError

DIGITS = 64  # of a probability
SLACK = 2  # units that truncations may add to a sensitivity
TAIL = 9.5  # standard deviations, beyond which P < 2^-64
CONTEXT_DIGITS = 60
BASE_BITS = 8  # of a digit that many numbers are compared by
WIDE = 64.0  # units of sigma, beyond which noise is drawn in two parts
FINE = 5.0  # sigma of the fine part, in steps of the coarse one: the factor is 1 + 2^-600

laplace_p: Any = Primitive("spu_laplace")  # x; {sensitivity, epsilon, word: whose the sensitivity is, delta}
gaussian_p: Any = Primitive("spu_gaussian")  # x; {sensitivity, sigma, grid}
NAMES = ("spu_laplace", "spu_gaussian")
STATED, PROVED = "stated", "proved"
FIRST, GROUPS = "of each element, of which the first place is used", "of groups, by what a unit contributes"
ARGMAX, BINS = "of each element, of which the largest one's place is used", "proved, of bins"


def _alone(*_: Any, **__: Any) -> Any:
    raise InputError(
        "noise within `jax.vmap`: one row changes all of its elements, and one element's sensitivity is stated. Add "
        "the noise outside, to the whole array, with the sensitivity of the whole."
    )


def _constant(*_: Any, **__: Any) -> Any:
    raise InputError("noise within what JAX differentiates has no gradient: add it to the gradient instead, outside.")


for _primitive in (laplace_p, gaussian_p):
    ad.primitive_jvps[_primitive] = _constant
    batching.primitive_batchers[_primitive] = _alone
    _primitive.def_impl(lambda x, **_: x)
    _primitive.def_abstract_eval(lambda x, **_: x)
    mlir.register_lowering(_primitive, lambda ctx, x, **_: [x])


def laplace_digits(scale: float) -> list[int]:
    """Probabilities, in units of 2^-64, of the binary digits of a geometric variable with q = e^(-1/scale)."""
    with localcontext() as context:
        context.prec = CONTEXT_DIGITS
        out: list[int] = []
        rate = 1 / Decimal(scale)
        while True:
            power = (-rate * (1 << len(out))).exp()
            number = int((power / (1 + power)).scaleb(0) * (1 << DIGITS))
            if number == 0:
                return out or [0]
            out.append(number)


def gaussian_tails(sigma: float) -> list[int]:
    """P(|n| >= k) for k = 1, 2, ..., in units of 2^-64, of a discrete Gaussian of this sigma."""
    with localcontext() as context:
        context.prec = CONTEXT_DIGITS
        double = 2 * Decimal(sigma) ** 2
        weights = [(-Decimal(n * n) / double).exp() for n in range(math.ceil(TAIL * sigma) + 2)]
        total, above, out = weights[0] + 2 * sum(weights[1:], Decimal(0)), Decimal(0), []
        for weight in reversed(weights[1:]):
            above += 2 * weight
            out.append(int(above / total * (1 << DIGITS)))
    return out[::-1]


def gaussian_parts(sigma: float) -> list[tuple[int, float]]:
    """Steps and sigmas, in steps, of independent discrete Gaussians whose sum is one of this sigma."""
    if sigma <= WIDE:
        return [(1, sigma)]
    step = round(math.sqrt(sigma / FINE))
    fine = FINE * step
    return [(1, fine), (step, math.sqrt(sigma**2 - fine**2) / step)]


def _below(bits: Any, numbers: Sequence[int]) -> Any:
    """Whether uniform words, bits [..., n, 64] from the highest on, are below n public numbers: 6 rounds of ands."""
    wanted = np.array([[bool(number >> i & 1) for i in reversed(range(DIGITS))] for number in numbers])
    return _highest(wanted & ~bits, ~(wanted ^ bits))


def _highest(less: Any, equal: Any) -> Any:
    """Whether a number [..., digits] is less: it is where the highest digit that is not equal is."""
    while less.shape[-1] > 1:
        high, low = (slice(0, None, 2), slice(1, None, 2))
        less = less[..., high] ^ (equal[..., high] & less[..., low])
        equal = equal[..., high] & equal[..., low]
    return less[..., 0]


def _below_each(bits: Any, numbers: Sequence[int]) -> Any:
    """Whether one uniform word, bits [..., 64], is below each of n falling public numbers: [..., n]; 6 rounds.

    Of each digit of base 256 it is found once which one it is (3 rounds); what a number asks of it is then local.
    """
    digits = DIGITS // BASE_BITS
    own = bits.reshape(*bits.shape[:-1], digits, BASE_BITS)
    which = jnp.stack([~own, own], axis=-1)
    while which.shape[-2] > 1:
        high, low = which[..., 0::2, :, None], which[..., 1::2, None, :]
        which = (high & low).reshape(*high.shape[:-2], high.shape[-2] * low.shape[-1])
    which = which[..., 0, :]  # [..., digits, 256]
    below = _before(which)
    shifts = [DIGITS - BASE_BITS * (d + 1) for d in range(digits)]
    wanted = np.array([[number >> shift & (1 << BASE_BITS) - 1 for shift in shifts] for number in numbers])
    at = wanted + (np.arange(digits) << BASE_BITS)  # [n, digits]
    less, equal = (x.reshape(*x.shape[:-2], digits << BASE_BITS)[..., at] for x in (below, which))
    return _highest(less, equal)


def _before(x: Any) -> Any:
    """Sums modulo 2 of the last axis up to each place, without it: of rows of 16, and of what is before a row."""
    if x.shape[-1] <= 16:
        total = jnp.concatenate([jnp.zeros_like(x[..., :1]), x[..., :-1]], axis=-1)
        for reach in (1, 2, 4, 8):
            total = total ^ jnp.concatenate([jnp.zeros_like(x[..., :reach]), total[..., :-reach]], axis=-1)
        return total
    rows = x.reshape(*x.shape[:-1], x.shape[-1] // 16, 16)
    return (_before(rows) ^ _before(_odd(rows))[..., None]).reshape(x.shape)


def _count_digits(falling: Any) -> Any:
    """Binary digits [..., digits], the lowest first, of how many of [..., n] are true, of which the first ones are."""
    n = falling.shape[-1]
    steps = [1 << i for i in range(n.bit_length())]
    return jnp.stack([_odd(falling[..., step - 1 :: step]) for step in steps], axis=-1)


def _odd(x: Any) -> Any:
    return lax.reduce_xor(x, (x.ndim - 1,))


def _uniform(shape: Sequence[int], note: str) -> Any:
    return bits_p.bind(shape=(*shape, DIGITS), dtype=np.dtype(bool), note=note)


def laplace(
    ctx: Context, x: Operand, *, sensitivity: float, epsilon: float, word: str = STATED, delta: float = 0.0
) -> Operand:
    if sensitivity <= 0:
        raise InputError("a sensitivity was left open in a function that was traced before: state it there.")
    x = ctx.value(x)
    unit = 2.0**-x.type.frac if x.type.kind == "fxp" else 1.0
    slack = SLACK if x.type.kind == "fxp" else 0
    limit = 2.0 ** (ctx.b.ring_bits - 4) if x.type.kind == "fxp" else 2.0 ** (x.type.bits - 2)
    scale = (sensitivity / unit + slack + 1) / epsilon  # at most
    digits = laplace_digits((math.ceil(sensitivity / unit) + slack) / epsilon) if scale < limit else []
    if not digits or 2.0 ** len(digits) >= limit:
        raise InputError(f"noise of scale {scale * unit:g} does not fit the values' type: scale them down.")

    def noisy(x: Any) -> Any:
        note = f"laplace, sensitivity {sensitivity:g} {word}, epsilon {epsilon:g}" + (
            f", delta {delta:g}" if delta else ""
        )
        drawn = _below(_uniform((2, *x.shape, len(digits)), note), digits).astype(x.dtype)
        weights = np.asarray([2.0**i * unit for i in range(len(digits))]).astype(x.dtype)
        one, other = (drawn * weights).sum(-1, dtype=x.dtype)
        return x + (one - other)

    return apply(ctx, noisy, x)[0]


def gaussian(ctx: Context, x: Operand, *, sensitivity: float, sigma: float, grid: float) -> Operand:
    """`sigma` is the standard deviation; x is rounded to multiples of `grid`, a power of two, first."""
    x = ctx.value(x)
    if x.type.kind != "fxp" or grid < 2.0**-x.type.frac:
        raise InputError(f"noise of sigma {sigma:g} is too small for the values' fraction bits, or they are integers.")
    parts = [(step, gaussian_tails(part)) for step, part in gaussian_parts(sigma / grid)]

    def noise() -> Any:
        note = f"gaussian, sensitivity {sensitivity:g} stated, sigma {sigma:g}"
        total = jnp.zeros(x.shape, jnp.float32)
        for step, tails in parts:
            unit = np.float32(step * grid)
            size = _count_digits(_below_each(_uniform(x.shape, note), tails)).astype(jnp.float32)
            size = (size * (unit * 2.0 ** np.arange(size.shape[-1], dtype=np.float32))).sum(-1)
            sign = bits_p.bind(shape=tuple(x.shape), dtype=np.dtype(bool))
            total = total + jnp.where(sign, size, -size)
        return total

    return ctx.b.add(_on_grid(ctx, x, grid), ctx.value(apply(ctx, noise)[0]))


def _on_grid(ctx: Context, x: Value, grid: float) -> Value:
    """x rounded to multiples of `grid`, on its raw integer: dividing and multiplying floats by a power of two would say
    that what comes out is as much smaller than other numbers, and products would have room for that alone."""
    b = ctx.b
    bits = x.type.frac + round(math.log2(grid))
    if bits == 0:
        return x
    half = b.broadcast(b.const(1 << (bits - 1), x.type.element), x.shape)
    down = b.op("shift_right_arithmetic", b.word(b.add(x, half)), bits=bits)
    return b.bitcast(b.op("shift_left", down, bits=bits), x.type.element)


RULES: dict[str, Rule] = {"spu_laplace": laplace, "spu_gaussian": gaussian}
