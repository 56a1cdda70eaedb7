"""Ring-LWE, semi-honest: BGV's encryption without products of ciphertexts, many numbers a ciphertext.

Brakerski, Gentry and Vaikuntanathan (ITCS 2012): with c = (b u + t e_0 + m, a u + t e_1) for the public key
(b, a) = (-(a s) + t e, a), c_0 + c_1 s = m + t (...) modulo q, whose remainder modulo t is m. t is a product of primes
that are 1 modulo 2n, so m has n slots (Smart and Vercauteren, 2014), and products go slot by slot. Ciphertexts are kept
as values of the number-theoretic transform, uint64 [cells, 2, primes, n]; u and s are uniform in {-1, 0, 1}, errors
centred binomial. What is decrypted by the keeper of the key is first encrypted anew and flooded with noise.
"""

from __future__ import annotations

from math import ceil, log2, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.he.parameters import Parameters
from spuvm.he.scheme import Scheme
from spuvm.runtime.lattice import sampling
from spuvm.runtime.lattice.sampling import DIGIT, Random
from spuvm.runtime.lattice.standard import ERROR_BITS, FLOOD_BITS
from spuvm.runtime.ring import transform as tf
from spuvm.runtime.ring.transform import Basis, Words

TAIL = 9.5  # standard deviations: beyond them with probability below 2^-64


class Rlwe(Scheme):
    """Plaintexts are residues modulo t's primes, uint64 [primes of t, count]."""

    def __init__(self, parameters: Parameters) -> None:
        self.q, self.t, self.slots = parameters.q, parameters.t, parameters.degree
        self.name, self._cell_bytes = parameters.name, parameters.ciphertext_bytes
        self.modulus = self.t.modulus
        self._t_bits = log2(self.modulus)
        self._whole_t = tf.constant(self.modulus, self.q)
        n, variance = self.slots, ERROR_BITS / 2
        error = ERROR_BITS + TAIL * sqrt(2 * n * variance * 2 / 3)  # of e_0 + e u + e_1 s
        self.fresh = self._t_bits + log2(error + 1)
        self.times_plain_noise = log2(n) + self._t_bits - 1
        self.moved = FLOOD_BITS + 1
        self.budget = log2(self.q.modulus) - 2 - self.moved
        self.random = Random()

    # Keys ----------------------------------------------------------------------------------------------

    def make_keys(self) -> tuple[Words, Words]:
        s = self._values(sampling.ternary(self.random, 1, self.slots), self.q)[0]
        a = sampling.uniform(self.random, self.q)
        b = tf.subtract(self._noise(1)[0], tf.multiply(a[None], s, self.q)[0], self.q)
        return np.stack([b, a]), s

    def key_bytes(self, public: Words) -> bytes:
        return public.tobytes()

    def key_from(self, body: bytes) -> Words:
        key: Words = self.from_bytes(body, None)[0]
        return key

    def cell_bytes(self, public: Any) -> int:
        return self._cell_bytes

    def to_bytes(self, words: Words, public: Any) -> bytes:
        return words.tobytes()

    def from_bytes(self, body: bytes, public: Any) -> Words:
        words = np.frombuffer(body, np.uint64).reshape(-1, 2, len(self.q.primes), self.slots)
        if not len(words) or (words >= self.q.p).any():
            raise ValueError("no residues modulo q")
        return words

    # Plaintexts --------------------------------------------------------------------------------------------

    def plain(self, numbers: NDArray[Any], public: Any) -> Words:
        if numbers.dtype == object:
            return np.stack([(numbers % p).astype(np.uint64) for p in self.t.primes])
        return tf.residues(numbers, self.t)

    def uniform(self, count: int, public: Any) -> Words:
        return sampling.residues(self.random, self.t, len(self.t.primes), count)

    def select(self, plain: Words, places: NDArray[np.int64], public: Any) -> Words:
        out = plain[:, places[:, 0]] if places.shape[1] else np.zeros((len(plain), len(places)), np.uint64)
        return plain[:, places].sum(-1) % self.t.p if places.shape[1] > 1 else out

    def scatter(self, plain: Words, places: NDArray[np.int64], size: int, onto: Any, public: Any) -> Words:
        out = np.zeros((len(self.t.primes), size), np.uint64) if onto is None else onto.copy()
        out[:, places] = plain
        return out

    def negative(self, plain: Words, public: Any) -> Words:
        return tf.negate(plain, self.t)

    def total(self, a: Words, b: Words, public: Any) -> Words:
        return tf.add(a, b, self.t)

    def integers(self, plain: Words, bound: int, public: Any) -> NDArray[Any]:
        if bound < 1 << 63:
            return self.low_words(plain, public).view(np.int64)
        return np.array([*tf.integers(plain, self.t), None], object)[:-1]

    def low_words(self, plain: Words, public: Any) -> NDArray[np.uint64]:
        return tf.low_words(plain, self.t)

    def plain_bytes(self, plain: Words, public: Any) -> bytes:
        return plain.tobytes()

    def plain_from(self, body: bytes, count: int, public: Any) -> Words:
        words = np.frombuffer(body, np.uint64).reshape(len(self.t.primes), count)
        if (words >= self.t.p).any():
            raise ValueError("no residues modulo t")
        return words

    # Ciphertexts --------------------------------------------------------------------------------------------

    def encrypt(self, plain: Words, public: Words) -> Words:
        out = np.empty((self._count(plain), 2, len(self.q.primes), self.slots), np.uint64)
        for i, m in enumerate(self._lifted(plain)):
            u = self._values(sampling.ternary(self.random, 1, self.slots), self.q)[0]
            out[i] = self._noise(2)
            tf.multiply(public, u, self.q, onto=out[i])
            out[i, 0] = tf.add(out[i, 0], m, self.q)
        return out

    def decrypt(self, words: Words, secret: Words, public: Any) -> Words:
        out = np.empty((len(self.t.primes), len(words) * self.slots), np.uint64)
        for i, (c0, c1) in enumerate(words):
            masked = tf.add(c0, tf.multiply(c1[None], secret, self.q)[0], self.q)
            m = tf.convert(tf.backward(masked[None], self.q), self.q, self.t)
            out[:, i * self.slots : (i + 1) * self.slots] = tf.forward(m, self.t)[0]
        return out

    def add(self, a: Words, b: Words, public: Any) -> Words:
        return tf.add(a, b, self.q)

    def negate(self, a: Words, public: Any) -> Words:
        return tf.negate(a, self.q)

    def add_plain(self, a: Words, plain: Words, public: Any) -> Words:
        out = a.copy()
        for i, m in enumerate(self._lifted(plain)):
            out[i, 0] = tf.add(out[i, 0], m, self.q)
        return out

    def times_plain(self, a: Words, plain: Words, public: Any) -> Words:
        out = np.empty_like(a)
        for i, m in enumerate(self._lifted(plain)):
            out[i] = tf.multiply(a[i], m, self.q)
        return out

    def joined(self, rows: list[Words], public: Any) -> Words:
        return np.concatenate(rows)

    def summed(self, a: Words, groups: NDArray[np.int64], public: Any) -> Words:
        return a[groups[:, 0]]

    def products(self, a: Words, plain: Words, fold: bool, public: Any) -> Words:
        if not fold:
            return self.times_plain(a, plain, public)
        out = np.zeros((1, *a.shape[1:]), np.uint64)
        for i, m in enumerate(self._lifted(plain)):
            tf.multiply(a[i], m, self.q, onto=out[0])
        return out

    def times_number(self, a: Words, factor: int, public: Any) -> Words:
        return tf.scale(a, factor, self.q)

    def fold(self, a: Words, public: Any) -> Words:
        out = a[:1].copy()
        for cell in a[1:]:
            out[0] = tf.add(out[0], cell, self.q)
        return out

    def hidden(self, a: Words, noise: float, public: Words) -> Words:
        bits = max(ceil(noise + FLOOD_BITS - self._t_bits) + 1, 1)
        zero = np.zeros((len(self.t.primes), self.slots), np.uint64)
        centre = [[(1 << (bits - 1)) % p] for p in self.q.primes]
        out = np.empty_like(a)
        for i, cell in enumerate(a):
            digits = sampling.digits(self.random, bits, self.slots)
            flood = tf.subtract(tf.from_digits(digits, DIGIT, self.q), np.array(centre, np.uint64), self.q)
            fresh = tf.add(cell, self.encrypt(zero, public)[0], self.q)
            fresh[0] = tf.add(fresh[0], self._times_t(tf.forward(flood[None], self.q))[0], self.q)
            out[i] = fresh
        return out

    # Inside ---------------------------------------------------------------------------------------------------

    def _count(self, plain: Words) -> int:
        return -(-int(plain.shape[1]) // self.slots)

    def _lifted(self, plain: Words) -> Any:
        """Each cell's plaintext as values modulo q [primes, n]; its coefficients are at most t/2."""
        n = self.slots
        for i in range(self._count(plain)):
            cell = np.zeros((1, len(self.t.primes), n), np.uint64)
            piece = plain[:, i * n : (i + 1) * n]
            cell[0, :, : piece.shape[1]] = piece
            yield tf.forward(tf.convert(tf.backward(cell, self.t), self.t, self.q), self.q)[0]

    def _noise(self, rows: int) -> Words:
        """t times centred binomial errors, as values."""
        return self._times_t(self._values(sampling.errors(self.random, rows, self.slots), self.q))

    def _times_t(self, values: Words) -> Words:
        return tf.multiply(values, self._whole_t, self.q)

    def _values(self, small: NDArray[np.int64], basis: Basis) -> Words:
        """Polynomials with coefficients small against the primes, as values."""
        return tf.forward(tf.small_residues(small, basis), basis)
