"""The code of silent transfers: expand-convolute (Raghuraman, Rindal and Tanguy, CRYPTO 2023), rate 1/2.

Of a vector of N blocks, sparse but for what is known of it, the sums of 21 places each of it, convolved twice with 24
random taps and a fixed one around the end. The code is public and one for all; taps and places are keystreams of
fixed keys. 21 and 24 are its authors' conservative choice, whose relative distance they take for 0.2; the second
convolution guards against places that all lie at the end. A distance of 0.147 suffices here: TREES regular errors
have bias (1 - 2 d)^TREES, 2^-128 then, in any linear test.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.engine.random import Stream
from spuvm.runtime.ring import native

WEIGHT = 21
TAPS = 24
PIECE = 1 << 13  # rows of which the places are held at once

Bits = NDArray[np.uint8]
Taps = NDArray[np.uint32]


def encoded(x: Any, count: int) -> Any:
    """uint64 [N, 2] or bits uint8 [N] -> [count, 2] or [count]; N a power of two, at least 2 count. `x` is used up."""
    for number in (0, 1):
        _convolved(x, _taps(number, len(x)))
    out = np.empty((count, *x.shape[1:]), x.dtype)
    first = 0
    for places in _places(count):
        _summed(out[first : first + len(places)], x, places)
        first += len(places)
    return out


def _stream(name: str) -> Stream:
    return Stream(hashlib.sha256(f"spuvm expand-convolute {name}".encode()).digest()[:16])


def _words(stream: Stream, count: int, block: int = 0) -> Taps:
    raw = np.empty(4 * count, np.uint8)
    stream.fill(raw, block)
    return raw.view(np.uint32)


def _taps(number: int, n: int) -> Taps:
    """Bit j of word i: whether block i is added to block i + 1 + j; bit TAPS always."""
    taps = _words(_stream(f"taps {number}"), n)
    taps &= np.uint32((1 << TAPS) - 1)
    taps |= np.uint32(1 << TAPS)
    return taps


def _places(count: int) -> Iterator[Taps]:
    """[rows, WEIGHT] of pieces, numbers modulo 2^32."""
    stream = _stream("places")
    for first in range(0, count, PIECE):
        rows = min(PIECE, count - first)
        yield _words(stream, rows * WEIGHT, first * WEIGHT // 4).reshape(rows, WEIGHT)


def _convolved(x: Any, taps: Taps) -> None:
    assert x.flags.c_contiguous
    lib = _library()
    if lib is not None:
        run = lib.spuvm_code_convolved if x.ndim == 2 else lib.spuvm_code_convolved_bits
        return run(_at(x), _at(taps), ctypes.c_uint64(len(x)))  # type: ignore[no-any-return]
    return _convolved_by_python(x, taps)


def _convolved_by_python(x: Any, taps: Taps) -> None:
    """What is still to be added to the next blocks is one number, block i of it at bit i size."""
    size = 8 * x.itemsize * (x.shape[1] if x.ndim == 2 else 1)
    low = (1 << size) - 1
    spread = [sum(1 << size * j for j in range(8) if byte >> j & 1) for byte in range(256)]
    blocks = [int.from_bytes(row.tobytes(), "little") for row in x]
    window, top = 0, 1 << size * TAPS
    for i, tap in enumerate(taps.tolist()):
        blocks[i] = own = blocks[i] ^ (window & low)
        pattern = spread[tap & 255] | spread[tap >> 8 & 255] << 8 * size | spread[tap >> 16 & 255] << 16 * size | top
        window = (window >> size) ^ own * pattern
    for j in range(TAPS + 1):
        blocks[j] ^= window >> size * j & low
    x[...] = np.frombuffer(b"".join(b.to_bytes(size // 8, "little") for b in blocks), x.dtype).reshape(x.shape)


def _summed(out: Any, x: Any, places: Taps) -> None:
    lib = _library()
    if lib is None:
        out[...] = np.bitwise_xor.reduce(x[places & np.uint32(len(x) - 1)], axis=1)
        return
    run = lib.spuvm_code_summed if x.ndim == 2 else lib.spuvm_code_summed_bits
    rows, weight = (ctypes.c_uint64(n) for n in places.shape)
    run(_at(out), _at(x), _at(places), rows, weight, ctypes.c_uint32(len(x) - 1))


def _library() -> Any:
    lib = native.library()
    return lib if lib is not None and hasattr(lib, "spuvm_code_convolved") else None


def _at(a: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(a.ctypes.data)
