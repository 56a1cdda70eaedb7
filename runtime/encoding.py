"""Between the user's arrays and ring elements, and between ring elements and components.

Fixed point: x is round(x 2^f) mod 2^64, two's complement. The ring holds magnitudes below
2^(62 - f) so that every truncation is exact to one unit; more, NaN and infinity are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spuvm.runtime.errors import EncodingError
from spuvm.runtime.random import Stream
from spuvm.runtime.values import empty

RANGE_BITS = 62


def encode(x: Any, frac: int, name: str = "value") -> np.ndarray:
    """Ring elements of an array: bool -> uint8 0 or 1, integers and (with `frac` bits) floats -> uint64.

    Raises EncodingError for NaN, infinity, and magnitudes of 2^(62 - frac) and above.
    """
    array = np.asarray(x)
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype.kind == "u":
        return array.astype(np.uint64)
    if array.dtype.kind == "i" or array.dtype.name in ("int4", "int2"):
        return array.astype(np.int64).view(np.uint64)
    real = array.astype(np.float64)
    limit = 2.0 ** (RANGE_BITS - frac)
    bad = ~(np.abs(real) < limit)
    if bad.any():
        count = int(bad.sum())
        nan = "NaN or infinite" if not np.isfinite(real).all() else f"{limit:.6g} or more in magnitude"
        raise EncodingError(
            f"`{name}` has {count} of {real.size} elements that are {nan}: with {frac} fraction bits the "
            f"ring holds magnitudes below {limit:.6g}. Clean or rescale the data, or use fewer fraction bits."
        )
    out = np.rint(real * 2.0**frac).astype(np.int64)
    return out.view(np.uint64)


def decode(raw: np.ndarray, kind: str, frac: int, dtype: Any) -> Any:
    """The user's array of `dtype` from ring elements (kind `bool`, `int` or `fxp`)."""
    dtype = np.dtype(dtype)
    if kind == "bool":
        out = raw.astype(np.bool_)
    elif kind == "int":
        out = raw.view(np.int64).astype(dtype) if dtype.kind != "u" else raw.astype(dtype)
    else:
        out = (raw.view(np.int64) / 2.0**frac).astype(dtype)
    return out.astype(dtype)[()]


def split(raw: np.ndarray, kind: str, count: int, stream: Stream, first_block: int) -> tuple[list[np.ndarray], int]:
    """`raw` as `count` random components, and the number of 16-byte keystream blocks used."""
    parts = []
    rest, used = raw, 0
    for _ in range(count - 1):
        part = empty(raw.shape, raw.dtype)
        view = part.reshape(-1).view(np.uint8)
        stream.fill(view, first_block + used)
        used += -(-view.size // 16)
        if raw.dtype == np.uint8:
            part &= np.uint8(1)
        rest = rest - part if kind == "a" else rest ^ part
        parts.append(part)
    return [np.asarray(rest), *parts], used


def combine(components: Sequence[Any], kind: str) -> np.ndarray:
    """The ring elements of a sharing whose components are all there."""
    out: np.ndarray = np.asarray(components[0])
    for c in components[1:]:
        out = out ^ np.asarray(c) if kind == "b" else out + np.asarray(c)
    return out
