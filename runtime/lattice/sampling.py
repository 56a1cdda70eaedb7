"""What ring-LWE draws: uniform residues, secrets in {-1, 0, 1}, centred binomial errors, of an AES-128 keystream."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.engine.random import Stream, new_key
from spuvm.runtime.lattice.standard import ERROR_BITS
from spuvm.runtime.ring.transform import Basis, Words

DIGIT = 48  # bits of the digits of large random numbers


class Random:
    """Random words under a key (None: one from the operating system), each used once (AES-128-CTR)."""

    def __init__(self, key: bytes | None = None) -> None:
        self._stream = Stream(new_key() if key is None else key)
        self._used = 0

    def words(self, *shape: int) -> NDArray[np.uint64]:
        raw = np.empty(int(np.prod(shape, dtype=np.int64)) * 8, np.uint8)
        self._stream.fill(raw, self._used)
        self._used += -(-raw.nbytes // 16)
        return raw.view(np.uint64).reshape(shape)

    def below_power(self, bits: int, count: int) -> NDArray[Any]:
        """Python integers [count], uniform below 2^bits."""
        width = -(-bits // 64)
        words = self.words(width, count)
        out = np.zeros(count, object)
        for word in words:
            out = (out << 64) | word.astype(object)
        return out & ((1 << bits) - 1)


def uniform(random: Random, basis: Basis, *shape: int) -> Words:
    """Uniform residues [*shape, primes, n]: those of each prime by themselves, by rejection."""
    return residues(random, basis, *shape, len(basis.primes), basis.n)


def residues(random: Random, basis: Basis, *shape: int) -> Words:
    """The same of a shape whose last but one axis is the primes."""
    shift = np.array([[64 - p.bit_length()] for p in basis.primes], np.uint64)
    out = random.words(*shape) >> shift
    p, shift = np.broadcast_to(basis.p, shape), np.broadcast_to(shift, shape)
    while (late := out >= p).any():
        out[late] = random.words(int(late.sum())) >> shift[late]
    return out


def digits(random: Random, bits: int, count: int) -> Words:
    """Numbers uniform below 2^bits, [digits of DIGIT bits, count], lowest first, as `transform.from_digits` takes."""
    out: Words = random.words(-(-bits // DIGIT), count) >> np.uint64(64 - DIGIT)
    out[-1] >>= np.uint64(-bits % DIGIT)
    return out


def ternary(random: Random, *shape: int) -> NDArray[np.int64]:
    """Uniform in {-1, 0, 1}, but for 2^-62."""
    return np.asarray((random.words(*shape) % np.uint64(3)).astype(np.int64) - 1)


def errors(random: Random, *shape: int) -> NDArray[np.int64]:
    """Centred binomial: differences of two sums of ERROR_BITS bits."""
    words = random.words(*shape)
    mask = np.uint64((1 << ERROR_BITS) - 1)
    up, down = np.bitwise_count(words & mask), np.bitwise_count((words >> np.uint64(ERROR_BITS)) & mask)
    return np.asarray(up.astype(np.int64) - down.astype(np.int64))
