"""Between the user's arrays and ring elements.

Fixed point: x is round(x 2^f) mod 2^k, two's complement. The ring holds magnitudes below
2^(k - 2 - f) so that every truncation is exact to one unit; more, NaN and infinity are refused.
Ring elements are uint32, uint64 or (128 bits) `word.WIDE`, bools uint8.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spuvm.runtime.errors import EncodingError
from spuvm.runtime.ring.elements import WIDE, Word, joined, limbs, signed, words


def range_bits(ring_bits: int) -> int:
    """Fixed-point numbers stay below 2^this in magnitude as ring elements."""
    return ring_bits - 2


def encode(x: Any, frac: int, name: str = "value", ring_bits: int = 64) -> np.ndarray:
    """Ring elements of an array: bool -> uint8 0 or 1, integers and (with `frac` bits) floats -> the ring's dtype.

    Elements of a ring of 128 bits are taken as they are.

    Raises EncodingError for NaN, infinity, and magnitudes of 2^(ring_bits - 2 - frac) and above.
    """
    array = np.asarray(x)
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype == WIDE or array.dtype.kind == "u":
        return words(array, ring_bits)
    if array.dtype.kind == "i" or array.dtype.name in ("int4", "int2"):
        return words(array.astype(np.int64), ring_bits)
    real = array.astype(np.float64)
    limit = 2.0 ** (range_bits(ring_bits) - frac)
    bad = ~(np.abs(real) < limit)
    if bad.any():
        count = int(bad.sum())
        nan = "NaN or infinite" if not np.isfinite(real).all() else f"{limit:.6g} or more in magnitude"
        raise EncodingError(
            f"`{name}` has {count} of {real.size} elements that are {nan}: with {frac} fraction bits the "
            f"ring holds magnitudes below {limit:.6g}. Clean or rescale the data, or use fewer fraction bits; NaN that "
            "marks what is missing comes in with `missing=True` (`spu.secret`, `x.to(spu)`)."
        )
    return scaled(real, frac, ring_bits)


def scaled(real: Any, frac: int, ring_bits: int) -> np.ndarray:
    """Ring elements round(real 2^frac) of float64 numbers that fit, ties to even. Exact: no further rounding."""
    whole = np.rint(np.asarray(real, np.float64) * 2.0**frac)
    if ring_bits < 128:
        return words(whole.astype(np.int64), ring_bits)
    magnitude = np.abs(whole)
    high = np.floor(magnitude * 2.0**-64)
    word = Word((magnitude - high * 2.0**64).astype(np.uint64), high.astype(np.uint64))
    with np.errstate(over="ignore"):
        minus = -word
    return joined([np.where(whole < 0, a, b) for a, b in zip(_slots(minus), _slots(word))])


def decode(raw: np.ndarray, kind: str, frac: int, dtype: Any) -> Any:
    """The user's array of `dtype` from ring elements (kind `bool`, `int` or `fxp`)."""
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        parts = decode(raw, kind, frac, np.float64)
        return (parts[..., 0] + 1j * parts[..., 1]).astype(dtype)[()]
    if kind == "bool":
        out = raw.astype(np.bool_)
    elif kind == "int":
        low = limbs(raw)[0]
        out = signed(low).astype(dtype) if dtype.kind != "u" else low.astype(dtype)
    else:
        out = np.asarray(_real(raw) / 2.0**frac).astype(dtype)
    return out.astype(dtype)[()]


def _real(raw: np.ndarray) -> np.ndarray:
    """Signed ring elements as float64."""
    if raw.dtype != WIDE:
        return signed(raw).astype(np.float64)
    low, high = limbs(raw)
    negative = signed(high) < 0
    with np.errstate(over="ignore"):
        minus = -Word(low, high)
    low, high = np.where(negative, minus.low, low), np.where(negative, minus.high, high)
    magnitude = high * 2.0**64 + low.astype(np.float64)
    return np.where(negative, -magnitude, magnitude)


def _slots(x: Any) -> list[np.ndarray]:
    return [np.asarray(v) for v in ((x.low, x.high) if isinstance(x, Word) else (x,))]
