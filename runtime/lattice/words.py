"""Ring-LWE of whole words, semi-honest: plaintexts modulo 2^32 or 2^64, times the other party's, and back under a mask.

Brakerski, Gentry and Vaikuntanathan (ITCS 2012) with plaintexts in coefficients, c_0 + c_1 s = m + t e for t = 2^width,
as in Cheetah (Huang, Lu, Hong and Ding, USENIX Security 2022): the keeper of s encrypts under it, with c_1 of a seed;
the other one multiplies by polynomials of its own, encrypts anew (so that c_1 shows nothing), adds one uniform number
to each coefficient wanted, which is its mask modulo t and floods the noise, leaves all other coefficients of c_0 out,
and switches to a smaller modulus. What the keeper decrypts is what was wanted less a mask, and nothing else of it: each
coefficient is within FLOOD_BITS of uniform. Secrets are uniform in {-1, 0, 1}, errors centred binomial.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import log2, prod, sqrt

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.lattice import sampling
from spuvm.runtime.lattice.sampling import DIGIT, Random
from spuvm.runtime.lattice.standard import ERROR_BITS, FLOOD_BITS, STANDARD
from spuvm.runtime.ring import transform as tf
from spuvm.runtime.ring.transform import Basis, Words

DEGREE = 8192
PRIME_BITS = 50
CHOICES = {64: (4, 2), 32: (3, 1)}  # bits of a word -> primes of the modulus, and of what is sent back
TERMS = 1 << 13  # products of words that a coefficient may be the sum of
SEED = 16

Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Parameters:
    """Polynomials of Z_q[X]/(X^DEGREE + 1); `kept` are the first primes of `q`."""

    width: int
    q: Basis
    kept: Basis

    @property
    def flood(self) -> int:
        """Bits of the number that is added to what is sent back."""
        return int(log2(self.q.modulus) + 0.01) - 1

    @property
    def dropped(self) -> tuple[int, ...]:
        return self.q.primes[len(self.kept.primes) :]


@cache
def parameters(width: int) -> Parameters:
    """For words of `width` bits, 32 or 64."""
    primes, kept = CHOICES[width]
    found = Parameters(width, tf.basis(PRIME_BITS, primes, DEGREE), tf.basis(PRIME_BITS, kept, DEGREE))
    assert found.q.modulus.bit_length() <= min(STANDARD[DEGREE])
    assert noise(width) + FLOOD_BITS <= found.flood
    return found


def noise(width: int) -> float:
    """log2 of the standard deviation of t times TERMS errors times uniform words of the other party's."""
    return width + log2(sqrt(ERROR_BITS / 2)) + width - log2(12) / 2 + log2(TERMS) / 2


class Keeper:
    """Holds s, encrypts, and decrypts what came back."""

    def __init__(self, p: Parameters, random: Random) -> None:
        self.p, self.random = p, random
        secret = sampling.ternary(random, 1, DEGREE)
        self._s, self._kept = (tf.forward(tf.small_residues(secret, b), b)[0] for b in (p.q, p.kept))

    def public(self) -> tuple[bytes, Words]:
        """The seed of a, and b = t e - a s as values: what the other one encrypts with."""
        seed = self.random.words(SEED // 8).tobytes()
        return seed, self.encrypt(np.zeros((1, DEGREE), np.uint64), seed)[0]

    def encrypt(self, words: NDArray[np.uint64], seed: bytes) -> Words:
        """Coefficients [rows, DEGREE] -> c_0 as values [rows, primes, DEGREE]; c_1 is `halves` of the seed."""
        p, q, out = self.p, self.p.q, np.empty((len(words), len(self.p.q.primes), DEGREE), np.uint64)
        for row, to, c1 in zip(words, out, halves(seed, len(words), p)):
            e = times_t(tf.small_residues(sampling.errors(self.random, 1, DEGREE), q), p)
            m = tf.forward(tf.add(e, signed_residues(row, p)[None], q), q)
            to[...] = tf.subtract(m, tf.multiply(c1[None], self._s, q), q)[0]
        return out

    def decrypt(self, c0: Words, c1: Words, places: Places) -> NDArray[np.uint64]:
        """Coefficients [kept, count] and [kept, DEGREE] of what `Other.masked` made -> words [count]."""
        kept = self.p.kept
        product = tf.backward(tf.multiply(tf.forward(c1[None], kept), self._kept, kept), kept)[0]
        low = tf.low_words(tf.add(c0, product[:, places], kept), kept)
        return low * np.uint64(prod(self.p.dropped) % (1 << 64))


class Other:
    """Multiplies what the keeper encrypted. `public`: the keeper's; safe in several threads, each with its `random`."""

    def __init__(self, p: Parameters, seed: bytes, b: Words) -> None:
        self.p, self._public = p, np.stack([b, next(halves(seed, 1, p))])

    def masked(self, values: Words, places: Places, random: Random) -> tuple[Words, Words, NDArray[np.uint64]]:
        """A sum of products [2, primes, DEGREE] -> c_0 [kept, count] at `places`, c_1 [kept, DEGREE], and the masks.

        `values` is used up. Coefficients; the masks [count] are taken from what was wanted, modulo 2^width.
        """
        p, q = self.p, self.p.q
        u = tf.forward(tf.small_residues(sampling.ternary(random, 1, DEGREE), q), q)[0]
        coefficients = tf.backward(tf.multiply(self._public, u, q, onto=values), q)
        e = times_t(tf.small_residues(sampling.errors(random, DEGREE), q)[None], p)[0]
        number, low = _flood(random, len(places), p)
        c0 = tf.add(np.ascontiguousarray(coefficients[0][:, places]), number, q)
        return switched(c0, p), switched(tf.add(coefficients[1], e, q), p), low


def halves(seed: bytes, rows: int, p: Parameters) -> Iterator[Words]:
    """c_1 of so many ciphertexts under a seed, as values [primes, DEGREE], one after another."""
    random = Random(seed)
    return (sampling.uniform(random, p.q) for _ in range(rows))


def signed_residues(words: NDArray[np.uint64], p: Parameters) -> Words:
    """Words modulo 2^width as numbers around 0, [..., n] -> [..., primes, n]."""
    return tf.residues(words.astype(f"u{p.width // 8}").view(f"i{p.width // 8}").astype(np.int64), p.q)


def times_t(x: Words, p: Parameters) -> Words:
    return tf.multiply(x, _t(p), p.q)


@cache
def _t(p: Parameters) -> Words:
    return tf.constant(1 << p.width, p.q)


def switched(c: Words, p: Parameters) -> Words:
    """Coefficients [primes, count] -> those of c / (the primes dropped) [kept, count], modulo t times their inverse.

    For each prime r: (c - d) / r with d = c modulo r and d = 0 modulo t, |d| <= t r / 2.
    """
    for last in range(len(p.q.primes) - 1, len(p.kept.primes) - 1, -1):
        r = p.q.primes[last]
        d = tf.times(c[last:], _column([pow(1 << p.width, -1, r)]), p.q.p[last : last + 1]).view(np.int64)
        d = np.where(d > r // 2, d - r, d)
        rest = p.q.p[:last]
        small = np.where(d < 0, d + rest.view(np.int64), d).view(np.uint64)
        t = _column([(1 << p.width) % x for x in p.q.primes[:last]])
        left = tf.minus(c[:last], tf.times(small, t, rest), rest)
        c = tf.times(left, _column([pow(r, -1, x) for x in p.q.primes[:last]]), rest)
    return c


def _column(numbers: list[int]) -> Words:
    return np.array(numbers, np.uint64)[:, None]


def _flood(random: Random, count: int, p: Parameters) -> tuple[Words, NDArray[np.uint64]]:
    """Uniform in [-2^(flood-1), 2^(flood-1)): residues [primes, count], and what is to be added for it modulo 2^64."""
    digits = sampling.digits(random, p.flood, count)
    centre = _column([(1 << (p.flood - 1)) % x for x in p.q.primes])
    low = digits[0] + (digits[1] << np.uint64(DIGIT)) - np.uint64((1 << (p.flood - 1)) % (1 << 64))
    return tf.minus(tf.from_digits(digits, DIGIT, p.q), centre, p.q.p), np.uint64(0) - low


def packed_bytes(count: int) -> int:
    """Of so many residues: six bytes each, and the two bits above, four together."""
    return 6 * count + -(-count // 4)


def packed(words: Words) -> bytes:
    flat = np.ascontiguousarray(words).reshape(-1)
    top = np.zeros(-(-len(flat) // 4) * 4, np.uint8)
    top[: len(flat)] = flat >> np.uint64(48)
    four = top.reshape(-1, 4) << np.array([0, 2, 4, 6], np.uint8)
    return bytes(flat.view(np.uint8).reshape(-1, 8)[:, :6].tobytes() + np.bitwise_or.reduce(four, axis=1).tobytes())


def unpacked(body: bytes, count: int) -> Words:
    """What `packed` made of so many residues."""
    raw, out = np.frombuffer(body, np.uint8), np.zeros((count, 8), np.uint8)
    out[:, :6] = raw[: 6 * count].reshape(count, 6)
    out[:, 6] = ((raw[6 * count :, None] >> np.array([0, 2, 4, 6], np.uint8)) & np.uint8(3)).reshape(-1)[:count]
    return out.view(np.uint64).reshape(count)
