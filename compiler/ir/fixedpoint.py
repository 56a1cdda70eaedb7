"""Fixed-point constants: encoding, and products that need fewer bits than two variables would.

A real x is stored as round(x 2^f). A constant that meets a variable in a product may carry its
own number of fraction bits f_c: the truncation after the product drops just those.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value
from spuvm.runtime.errors import EncodingError
from spuvm.runtime.ring.encodings import scaled

WHOLE_LIMIT = 2.0**20  # integer constants below this multiply without truncation
MAX_CONSTANT_FRAC = {32: 16, 64: 40, 128: 80}
MASK = 1e29


def limit_bits(ring_bits: int) -> int:
    """|raw| < 2^this: what truncation and comparison allow."""
    return ring_bits - 2


def limit(frac: int, ring_bits: int = 64) -> float:
    """Numbers of this magnitude and above are not representable."""
    return 2.0 ** (limit_bits(ring_bits) - frac)


def encode(real: Any, frac: int, ring_bits: int = 64) -> NDArray[Any]:
    """Ring elements round(x 2^frac); refuses NaN, infinities and numbers beyond `limit`."""
    x = np.asarray(real).astype(np.float64)
    if np.isnan(x).any():
        raise EncodingError(
            "a constant is NaN, which fixed point cannot hold: mark what is missing or undefined by a bool."
        )
    if (np.abs(x) >= limit(frac, ring_bits)).any():
        worst = x.flat[np.abs(x).argmax()]
        raise EncodingError(
            f"the constant {worst:g} is beyond fixed point with {frac} fraction bits "
            f"(|x| < 2^{limit_bits(ring_bits) - frac}): use a finite number, such as {math.copysign(1e6, worst):g}."
        )
    return scaled(x, frac, ring_bits)


def clipped(real: Any, frac: int, ring_bits: int = 64) -> NDArray[Any]:
    """Ring elements round(x 2^frac) for comparisons only: what is beyond the limit becomes the limit."""
    top = limit(frac, ring_bits)
    return scaled(np.clip(np.asarray(real).astype(np.float64), -top, top), frac, ring_bits)


def stand_in(real: Any, frac: int, ring_bits: int = 64) -> Any:
    """Infinities, and what is written for them (from 1e29 on), become half the limit; all else stays.

    Such constants are masks, of attention for instance: they stand where a value is not to count.
    """
    x = np.asarray(real)
    wide = (x[(0,) * x.ndim] if is_uniform(x) else x).astype(np.float64)
    masks = np.abs(wide) >= MASK
    if not masks.any():
        return real
    return np.broadcast_to(np.where(masks, np.copysign(limit(frac, ring_bits) / 2, wide), wide), x.shape)


def constant(b: Builder, raw: Any, element: str, exact: Any = None) -> Value:
    """A constant from raw integers; one that repeats a single number is a broadcast scalar.

    `exact` are the real numbers that were rounded: a finer constant may be made of them.
    """
    data = np.asarray(raw)
    repeated = data.size > 1 and is_uniform(data) and (exact is None or is_uniform(exact))
    if repeated:
        data = data[(0,) * data.ndim]
        exact = None if exact is None else np.asarray(exact)[(0,) * np.ndim(exact)]
    out = b.const(np.ascontiguousarray(data).reshape(data.shape), element)
    b.region.ops[-1].exact = exact
    return b.broadcast(out, np.shape(raw)) if repeated else out


def is_uniform(x: Any) -> bool:
    """Whether all elements (at least one) are the same number."""
    x = np.asarray(x)
    if x.size <= 1 or not any(x.strides):
        return bool(x.size)
    return bool((x == x[(0,) * x.ndim]).all())


def uniform(x: Any) -> float | None:
    """The number that a constant repeats, if it does."""
    x = np.asarray(x)
    return float(x[(0,) * x.ndim]) if is_uniform(x) else None


def is_whole(c: NDArray[np.float64]) -> bool:
    """Whether a constant multiplies as an integer, without truncation."""
    return bool((np.abs(c) < WHOLE_LIMIT).all() and (c == np.rint(c)).all())


LARGE = 2.0**14


def constant_frac(c: NDArray[np.float64], frac: int, ring_bits: int = 64) -> int:
    """Fraction bits that leave 18 to 20 significant bits of the largest |c| < 1, and `frac` + 14 of the smallest beyond
    2^14, so that products with it have room; else `frac`.

    Even steps only, so that programs have few distinct truncations.
    """
    largest = float(np.abs(c).max(initial=0.0))
    if LARGE <= largest < 2.0 ** (ring_bits - 2 - frac):
        beyond = math.floor(math.log2(max(float(np.abs(c[c != 0]).min()) / LARGE, 1.0)))
        return max(frac - 2 * math.ceil(beyond / 2), 0)
    if not 0.0 < largest < 1.0:
        return frac
    zeros = math.floor(-math.log2(largest))
    return min(frac + 2 * math.ceil(zeros / 2), max(MAX_CONSTANT_FRAC[ring_bits], frac))


def factor(b: Builder, c: NDArray[np.float64]) -> Value:
    """A constant to multiply with: `fxp0` if whole, else with as many fraction bits as it deserves."""
    frac = 0 if is_whole(c) else constant_frac(c, b.frac, b.ring_bits)
    return constant(b, encode(c, frac, b.ring_bits), f"fxp{frac}", c)


def mul_constant(b: Builder, x: Value, real: Any) -> Value:
    """x c for known c, with the fraction bits of x: exact for whole c, else within one unit."""
    c = np.asarray(real).astype(np.float64)
    number = uniform(c)
    if number in (1.0, -1.0):
        return x if number == 1.0 else b.neg(x)
    shift = _halvings(number)
    if shift:
        z = b.trunc(b.bitcast(x, f"fxp{x.type.frac + shift}"), shift)
        return z if number is not None and number > 0 else b.neg(z)
    y = b.broadcast(factor(b, c), x.shape)
    return b.trunc(b.mul_raw(x, y), y.type.frac)


def _halvings(number: float | None) -> int:
    """k if |number| = 2^-k with 0 < k <= 20, else 0."""
    if number is None or not 2.0**-20 <= abs(number) < 1.0:
        return 0
    mantissa, exponent = math.frexp(abs(number))
    return 1 - exponent if mantissa == 0.5 else 0
