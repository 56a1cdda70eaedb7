"""Numbers as a scheme's whole numbers and back: integers as they are, floats with fraction bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.errors import EncodingError, InputError

FLOAT_BITS = 28  # floats are below 2^28 unless a script says otherwise
MAX_BITS = 62  # of a number with its fraction bits, if it is not an integer's type that says so


def form(dtype: np.dtype[Any], frac: int, bits: int | None, name: str) -> tuple[int, int]:
    """Fraction bits, and the bound that numbers of this type have, or are said to have. InputError for other types."""
    if dtype.kind not in "biuf":
        raise InputError(f"`{name}` is {dtype}: an HEU takes bools, integers and floats.")
    frac = frac if dtype.kind == "f" else 0
    usual = FLOAT_BITS if dtype.kind == "f" else 1 if dtype.kind == "b" else 8 * dtype.itemsize - (dtype.kind == "i")
    if bits is None:
        bits = min(usual, 63)
    elif not isinstance(bits, int) or not 0 <= bits <= MAX_BITS - frac:
        raise InputError(f"`bits` must be 0 to {MAX_BITS - frac}, got {bits!r}.")
    return frac, 1 << (bits + frac)


def encoded(x: NDArray[Any], frac: int, bound: int, name: str) -> NDArray[np.int64]:
    """int64 of the same shape. EncodingError for what is not finite, or beyond the bound."""
    if x.dtype.kind == "f":
        wide = x.astype(np.float64)
        inside = np.abs(wide) <= bound / 2.0**frac  # false for what is no number
        scaled = np.rint(np.where(inside, wide, 0) * 2.0**frac)
    else:
        low, high = max(-bound, -(1 << 63)), min(bound, (1 << 63) - 1)
        inside = (x >= low) & (x <= high) if x.dtype.kind == "i" else x <= np.uint64(high)
        scaled = x
    if not np.all(inside):
        raise EncodingError(
            f"`{name}` has numbers that are not finite, or beyond 2^{bound.bit_length() - 1 - frac}: say how large "
            "they are with `.to(heu, bits=...)`, or scale them."
        )
    return scaled.astype(np.int64)


def decoded(x: NDArray[Any], frac: int, dtype: np.dtype[Any], ring: int) -> Any:
    """Whole numbers (modulo 2^ring if that is not 0) as what they mean."""
    x = np.asarray(x)
    if ring:
        x = x.astype(np.dtype(f"u{ring // 8}")).view(np.dtype(f"i{ring // 8}"))
    if dtype.kind == "f":
        real = np.asarray(x / (1 << frac), np.float64)
        return real.astype(dtype)[()]
    if x.dtype == object and x.size and not -(1 << 63) <= x.min() <= x.max() < 1 << 63:
        raise EncodingError("a result is beyond 64 bits: use floats, or smaller numbers.")
    return x.astype(np.int64)[()]
