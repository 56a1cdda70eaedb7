"""Paillier's encryption (EUROCRYPT 1999), semi-honest, one number a ciphertext: for exchange with other systems.

c = (1 + m N) r^N modulo N^2 with the generator 1 + N; decryption modulo each prime factor's square. Ciphertexts are big
integers of 2 key_bits, big-endian when sent. Four orders of magnitude slower than `rlwe`. Needs gmpy2 (extra `he`).
"""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.he.scheme import Scheme
from spuvm.runtime.errors import ConfigError

ROUNDS = 40  # of a primality test
MIN_BITS, MAX_BITS = 2048, 8192


@dataclass(frozen=True)
class PublicKey:
    n: Any
    square: Any


@dataclass(frozen=True)
class SecretKey:
    """For each prime factor: itself, its square, its exponent, and what is left to multiply by."""

    p: Any
    q: Any


class Paillier(Scheme):
    """Plaintexts are Python integers modulo N, ciphertexts gmpy2's modulo N^2, in object arrays."""

    fresh, times_plain_noise, budget, moved, slots = 0.0, 0.0, inf, 0.0, 1

    def __init__(self, key_bits: int = 2048) -> None:
        if not isinstance(key_bits, int) or not MIN_BITS <= key_bits <= MAX_BITS or key_bits % 16:
            raise ConfigError(f"`key_bits` must be {MIN_BITS} to {MAX_BITS}, a multiple of 16, got {key_bits!r}.")
        try:
            self.gmp: Any = importlib.import_module("gmpy2")
        except ImportError:
            raise ConfigError("`scheme` 'paillier' needs gmpy2: install `spuvm[he]`, or use 'rlwe'.") from None
        self.bits, self.name, self.modulus = key_bits, f"paillier {key_bits}", 1 << (key_bits - 1)

    # Keys ----------------------------------------------------------------------------------------------

    def make_keys(self) -> tuple[PublicKey, SecretKey]:
        p = self._prime()
        q = self._prime()
        while abs(p - q) >> (self.bits // 2 - 100) == 0:
            q = self._prime()
        return self.keys_of(p, q)

    def keys_of(self, p: int, q: int) -> tuple[PublicKey, SecretKey]:
        p, q = self.gmp.mpz(p), self.gmp.mpz(q)
        return PublicKey(p * q, (p * q) ** 2), SecretKey(p, q)

    def _prime(self) -> Any:
        """Of half the key's bits, the two highest set, so that a product of two has all bits."""
        half = self.bits // 2
        while True:
            candidate = self.gmp.mpz(secrets.randbits(half) | (3 << (half - 2)) | 1)
            if self.gmp.is_prime(candidate, ROUNDS):
                return candidate

    def key_bytes(self, public: PublicKey) -> bytes:
        return int(public.n).to_bytes(self.bits // 8, "big")

    def key_from(self, body: bytes) -> PublicKey:
        n = self.gmp.mpz(int.from_bytes(body, "big"))
        if n.bit_length() != self.bits or not n % 2:
            raise ValueError("no modulus of this size")
        return PublicKey(n, n * n)

    def cell_bytes(self, public: PublicKey) -> int:
        return self.bits // 4

    def to_bytes(self, words: Any, public: PublicKey) -> bytes:
        return b"".join(int(c).to_bytes(self.bits // 4, "big") for c in words)

    def from_bytes(self, body: bytes, public: PublicKey) -> Any:
        size = self.bits // 4
        cells = [self.gmp.mpz(int.from_bytes(body[i : i + size], "big")) for i in range(0, len(body), size)]
        if not all(0 < c < public.square and c % public.n for c in cells):
            raise ValueError("no residues modulo N^2")
        return _array(cells)

    # Plaintexts --------------------------------------------------------------------------------------------

    def plain(self, numbers: NDArray[Any], public: PublicKey) -> Any:
        return _array(self.gmp.mpz(int(x)) % public.n for x in numbers)

    def uniform(self, count: int, public: PublicKey) -> Any:
        return _array(self.gmp.mpz(secrets.randbelow(int(public.n))) for _ in range(count))

    def select(self, plain: Any, places: NDArray[np.int64], public: PublicKey) -> Any:
        return _array(sum(plain[row]) % public.n for row in places)

    def scatter(self, plain: Any, places: NDArray[np.int64], size: int, onto: Any, public: PublicKey) -> Any:
        out = _array([self.gmp.mpz(0)] * size) if onto is None else onto.copy()
        out[places] = plain
        return out

    def negative(self, plain: Any, public: PublicKey) -> Any:
        return -plain % public.n

    def total(self, a: Any, b: Any, public: PublicKey) -> Any:
        return (a + b) % public.n

    def integers(self, plain: Any, bound: int, public: PublicKey) -> NDArray[Any]:
        whole = _array(int(self._signed(x, public)) for x in plain)
        out: NDArray[Any] = whole.astype(np.int64) if bound < 1 << 63 else whole
        return out

    def low_words(self, plain: Any, public: PublicKey) -> NDArray[np.uint64]:
        return np.array([int(self._signed(x, public)) % (1 << 64) for x in plain], np.uint64)

    def plain_bytes(self, plain: Any, public: PublicKey) -> bytes:
        return b"".join(int(x).to_bytes(self.bits // 8, "big") for x in plain)

    def plain_from(self, body: bytes, count: int, public: PublicKey) -> Any:
        size = self.bits // 8
        found = [self.gmp.mpz(int.from_bytes(body[i : i + size], "big")) for i in range(0, len(body), size)]
        if len(found) != count or not all(x < public.n for x in found):
            raise ValueError("no residues modulo N")
        return _array(found)

    # Ciphertexts --------------------------------------------------------------------------------------------

    def encrypt(self, plain: Any, public: PublicKey) -> Any:
        return _array(self.encrypted_with(x, 1 + secrets.randbelow(int(public.n) - 1), public) for x in plain)

    def encrypted_with(self, m: Any, r: int, public: PublicKey) -> Any:
        """The ciphertext of one number under the randomness r."""
        return (1 + m * public.n) * self.gmp.powmod(r, public.n, public.square) % public.square

    def decrypt(self, words: Any, secret: SecretKey, public: PublicKey) -> Any:
        parts = [self._modulo(words, prime, other) for prime, other in ((secret.p, secret.q), (secret.q, secret.p))]
        inverse = self.gmp.invert(secret.q, secret.p)
        return _array(b + secret.q * ((a - b) * inverse % secret.p) for a, b in zip(*parts))

    def _modulo(self, words: Any, p: Any, q: Any) -> list[Any]:
        """Plaintexts modulo a prime factor p: L(c^(p-1) mod p^2) / (-q) with L(u) = (u - 1) / p."""
        square, factor = p * p, self.gmp.invert(-q % p, p)
        return [(self.gmp.powmod_sec(c % square, p - 1, square) - 1) // p * factor % p for c in words]

    def add(self, a: Any, b: Any, public: PublicKey) -> Any:
        return a * b % public.square

    def negate(self, a: Any, public: PublicKey) -> Any:
        return _array(self.gmp.invert(c, public.square) for c in a)

    def add_plain(self, a: Any, plain: Any, public: PublicKey) -> Any:
        return a * (1 + plain * public.n) % public.square

    def times_plain(self, a: Any, plain: Any, public: PublicKey) -> Any:
        return _array(self.gmp.powmod(c, self._signed(x, public), public.square) for c, x in zip(a, plain))

    def products(self, a: Any, plain: Any, fold: bool, public: PublicKey) -> Any:
        made = self.times_plain(a, plain, public)
        return self.fold(made, public) if fold else made

    def joined(self, rows: list[Any], public: PublicKey) -> Any:
        return np.concatenate(rows) if rows else _array([])

    def summed(self, a: Any, groups: NDArray[np.int64], public: PublicKey) -> Any:
        return _array(self._product(a[row], public) for row in groups)

    def times_number(self, a: Any, factor: int, public: PublicKey) -> Any:
        return _array(self.gmp.powmod(c, factor, public.square) for c in a)

    def fold(self, a: Any, public: PublicKey) -> Any:
        return _array([self._product(a, public)])

    def hidden(self, a: Any, noise: float, public: PublicKey) -> Any:
        zeros = _array([self.gmp.mpz(0)] * len(a))
        return a * self.encrypt(zeros, public) % public.square

    def _product(self, cells: Iterable[Any], public: PublicKey) -> Any:
        out = self.gmp.mpz(1)
        for c in cells:
            out = out * c % public.square
        return out

    def _signed(self, x: Any, public: PublicKey) -> Any:
        return x - public.n if x > public.n // 2 else x


def _array(items: Iterable[Any]) -> Any:
    """An object array; NumPy would look into gmpy2's numbers."""
    found = list(items)
    out = np.empty(len(found), object)
    out[:] = found
    return out
