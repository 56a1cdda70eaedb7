"""Polynomials of Z_p[X]/(X^n + 1) for several primes p: products by the negacyclic number-theoretic transform.

Residues are uint64 below primes below 2^50, arrays [rows, primes, n]. The transform is Longa and Naehrig's (CANS 2016,
algorithms 1 and 2): values at the odd powers of a root of order 2n, in bit-reversed order. Native kernels
(`native/number_transform.cc`) and NumPy give the same bits.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.ring import native

Words = NDArray[np.uint64]
MAX_PRIME_BITS = 50  # so that the quotient of a product is exact to one unit in a double
_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)  # decide primality below 2^64 (Sorenson and Webster, 2015)


@dataclass(frozen=True, eq=False)
class Basis:
    """Primes p = 1 mod 2n, and what their transforms need. Equal arguments give the same object: see `basis`."""

    primes: tuple[int, ...]
    n: int
    p: Words  # [primes, 1]
    roots: Words  # [primes, n]: powers of a root of order 2n, bit-reversed
    backward: Words  # of its inverse
    scale: Words  # [primes, 1]: 1/n

    @property
    def modulus(self) -> int:
        return prod(self.primes)


@cache
def basis(bits: int, count: int, n: int, skip: int = 0) -> Basis:
    """The `count` largest primes of so many bits that are 1 mod 2n, after the first `skip` of them."""
    if bits > MAX_PRIME_BITS or n & (n - 1) or n < 2:
        raise ValueError(f"primes of {bits} bits and n = {n}: at most {MAX_PRIME_BITS} bits, and n a power of two")
    found: list[int] = []
    candidate = (1 << bits) - 2 * n + 1
    while len(found) < skip + count:
        if candidate < 1 << (bits - 1):
            raise ValueError(f"there are not {skip + count} primes of {bits} bits that are 1 modulo {2 * n}")
        if _is_prime(candidate):
            found.append(candidate)
        candidate -= 2 * n
    primes = tuple(found[skip:])
    p = np.array(primes, np.uint64)[:, None]
    forth = np.stack([_powers(_root(q, n), q, n) for q in primes])
    back = np.stack([_powers(pow(_root(q, n), -1, q), q, n) for q in primes])
    scale = np.array([[pow(n, -1, q)] for q in primes], np.uint64)
    return Basis(primes, n, p, forth, back, scale)


def add(a: Words, b: Words, b_: Basis) -> Words:
    return plus(a, b, b_.p)


def subtract(a: Words, b: Words, b_: Basis) -> Words:
    return minus(a, b, b_.p)


def negate(a: Words, b_: Basis) -> Words:
    return subtract(np.zeros_like(a), a, b_)


def multiply(a: Words, b: Words, b_: Basis, onto: Words | None = None) -> Words:
    """a b [rows, primes, n] value by value; b [primes, n] stands for all rows. With `onto` added there, in place."""
    a = np.ascontiguousarray(a)
    one_row = b.ndim == 2
    lib = native.library()
    if lib is None or not hasattr(lib, "spuvm_mod_product"):
        out = times(a, np.broadcast_to(b, a.shape), b_.p)
        if onto is None:
            return out
        onto[...] = add(onto, out, b_)
        return onto
    b = np.ascontiguousarray(b)
    out = np.empty_like(a) if onto is None else onto
    lib.spuvm_mod_product(
        _at(out),
        _at(a),
        _at(b),
        _rows(a),
        _u64(len(b_.primes)),
        _u64(b_.n),
        _at(b_.p),
        int(one_row),
        int(onto is not None),
    )
    return out


def scale(a: Words, factor: int, b_: Basis) -> Words:
    """a times a whole number."""
    return multiply(a, constant(factor, b_), b_)


def constant(number: int, b_: Basis) -> Words:
    """A whole number at all values, [primes, n]."""
    residues_ = np.array([[number % p] for p in b_.primes], np.uint64)
    return np.ascontiguousarray(np.broadcast_to(residues_, (len(b_.primes), b_.n)))


def small_residues(x: NDArray[np.int64], b_: Basis) -> Words:
    """Whole numbers between -p and p for every prime, [..., n] -> [..., primes, n]."""
    words = x.view(np.uint64)[..., None, :]
    raised = words + b_.p
    np.minimum(words, raised, out=raised)
    return raised


def forward(a: Words, b_: Basis) -> Words:
    """Coefficients -> values, [rows, primes, n]; a new array."""
    return _transformed(a, b_, False)


def backward(a: Words, b_: Basis) -> Words:
    """Values -> coefficients."""
    return _transformed(a, b_, True)


def convert(a: Words, old: Basis, new: Basis) -> Words:
    """Residues [rows, old, n] of x -> those of its representative in (-P/2, P/2) modulo the new primes.

    Exact unless x is within P / 2^40 of P/2, where either of the two nearest is given.
    """
    a = np.ascontiguousarray(a)
    out = np.empty((*a.shape[:-2], len(new.primes), new.n), np.uint64)
    inverses, factors, whole = _conversion(old, new)
    lib = native.library()
    if lib is None or not hasattr(lib, "spuvm_mod_convert"):
        y = times(a, inverses[:, None], old.p)
        multiples = np.floor((y / old.p.astype(np.float64)).sum(-2, keepdims=True) + 0.5).astype(np.uint64)
        out[...] = negate(times(multiples, whole[:, None], new.p), new)
        for i in range(len(old.primes)):
            out[...] = add(out, times(y[..., i : i + 1, :] % new.p, factors[i][:, None], new.p), new)
        return out
    words, shares = np.empty(new.n, np.uint64), np.empty(new.n, np.float64)
    flat, target = a.reshape(-1, len(old.primes), old.n), out.reshape(-1, len(new.primes), new.n)
    for row, to in zip(flat, target):
        lib.spuvm_mod_convert(
            _at(to), _at(row), _u64(new.n), _u64(len(old.primes)), _at(old.p), _u64(len(new.primes)), _at(new.p),
            _at(inverses), _at(factors), _at(whole), _at(words), _at(shares),
        )  # fmt: skip
    return out


def residues(x: NDArray[np.int64], b_: Basis) -> Words:
    """Whole numbers [..., n] -> [..., primes, n]."""
    return np.mod(np.asarray(x, np.int64)[..., None, :], b_.p.astype(np.int64)).astype(np.uint64)


def from_digits(digits: Words, bits: int, b_: Basis) -> Words:
    """Whole numbers by digits of `bits` (at most 48) bits, lowest first, [digits, ..., n] -> [..., primes, n]."""
    radix = np.array([[(1 << bits) % p] for p in b_.primes], np.uint64)
    out: Words = digits[-1][..., None, :] % b_.p
    for digit in digits[-2::-1]:
        out = add(times(out, radix, b_.p), digit[..., None, :] % b_.p, b_)
    return out


def plus(a: Words, b: Words, p: Words) -> Words:
    """a + b modulo p, residues of any shapes."""
    s = a + b
    np.minimum(s, s - p, out=s)
    return s


def minus(a: Words, b: Words, p: Words) -> Words:
    """a - b modulo p."""
    d = a - b
    np.minimum(d, d + p, out=d)
    return d


def times(a: Words, b: Words, p: Words) -> Words:
    """a b mod p, as the native kernels compute it."""
    quotient = (a.astype(np.float64) * b.astype(np.float64) / p.astype(np.float64)).astype(np.uint64)
    rest = (a * b - quotient * p).view(np.int64)
    signed = p.view(np.int64)
    rest += np.where(rest < 0, signed, 0)
    rest -= np.where(rest >= signed, signed, 0)
    return rest.view(np.uint64)


def low_words(a: Words, b_: Basis) -> Words:
    """Residues [primes, count] of numbers in (-P/2, P/2), less P / 2^40 at the ends -> these modulo 2^64, [count]."""
    P = b_.modulus
    total, shares = np.zeros(a.shape[1], np.uint64), np.zeros(a.shape[1], np.float64)
    for row, p in zip(a, b_.primes):
        y = times(row, np.array([pow(P // p, -1, p)], np.uint64), np.array([p], np.uint64))
        total += y * np.uint64((P // p) % (1 << 64))
        shares += y / p
    return total - np.floor(shares + 0.5).astype(np.uint64) * np.uint64(P % (1 << 64))


def integers(a: Words, b_: Basis) -> list[int]:
    """Residues [primes, count] -> whole numbers in (-P/2, P/2)."""
    P = b_.modulus
    total = np.zeros(a.shape[1], object)
    for row, p in zip(a, b_.primes):
        part = P // p
        total += (row.astype(object) * pow(part, -1, p) % p) * part
    return [int(x) - P if x > P // 2 else int(x) for x in total % P]


# Inside ------------------------------------------------------------------------------------------------


def _transformed(a: Words, b_: Basis, back: bool) -> Words:
    out = np.array(a, np.uint64, order="C")
    lib = native.library()
    if lib is None or not hasattr(lib, "spuvm_transform"):
        return _back_by_numpy(out, b_) if back else _forth_by_numpy(out, b_)
    table = b_.backward if back else b_.roots
    lib.spuvm_transform(
        int(back), _at(out), _rows(out), _u64(len(b_.primes)), _u64(b_.n), _at(b_.p), _at(table), _at(b_.scale)
    )
    return out


def _forth_by_numpy(a: Words, b_: Basis) -> Words:
    groups, t = 1, b_.n // 2
    while t:
        pairs = a.reshape(*a.shape[:-1], groups, 2, t)
        u, v = (
            pairs[..., 0, :].copy(),
            times(pairs[..., 1, :], b_.roots[:, groups : 2 * groups, None], b_.p[:, :, None]),
        )
        pairs[..., 0, :], pairs[..., 1, :] = plus(u, v, b_.p[:, :, None]), minus(u, v, b_.p[:, :, None])
        groups, t = groups * 2, t // 2
    return a


def _back_by_numpy(a: Words, b_: Basis) -> Words:
    groups, t = b_.n // 2, 1
    p = b_.p[:, :, None]
    while groups:
        pairs = a.reshape(*a.shape[:-1], groups, 2, t)
        u, v = pairs[..., 0, :].copy(), pairs[..., 1, :].copy()
        pairs[..., 0, :] = plus(u, v, p)
        pairs[..., 1, :] = times(minus(u, v, p), b_.backward[:, groups : 2 * groups, None], p)
        groups, t = groups // 2, t * 2
    return times(a, b_.scale, b_.p)


@cache
def _conversion(old: Basis, new: Basis) -> tuple[Words, Words, Words]:
    P = old.modulus
    inverses = [pow(P // p, -1, p) for p in old.primes]
    factors = [[P // p % q for q in new.primes] for p in old.primes]
    return np.array(inverses, np.uint64), np.array(factors, np.uint64), np.array([P % q for q in new.primes], np.uint64)


def _is_prime(q: int) -> bool:
    if any(q % w == 0 for w in _WITNESSES):
        return q in _WITNESSES
    odd, twos = q - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(w, odd, twos, q) for w in _WITNESSES)


def _passes(witness: int, odd: int, twos: int, q: int) -> bool:
    """Whether q looks prime to a witness (Miller and Rabin)."""
    x = pow(witness, odd, q)
    if x in (1, q - 1):
        return True
    for _ in range(twos - 1):
        x = x * x % q
        if x == q - 1:
            return True
    return False


def _root(p: int, n: int) -> int:
    """The first power of a small number that has order 2n modulo p."""
    return next(r for x in range(2, 1 << 20) if pow(r := pow(x, (p - 1) // (2 * n), p), n, p) == p - 1)


def _powers(root: int, p: int, n: int) -> Words:
    """The powers root^0 ... root^(n-1), the exponents' bits reversed."""
    out = np.ones(1, np.uint64)
    prime = np.array([p], np.uint64)
    step = n // 2
    while len(out) < n:  # exponents of the second half have one bit more, which is the highest yet
        out = np.concatenate([out, times(out, np.array([pow(root, step, p)], np.uint64), prime)])
        step //= 2
    return out


def _rows(a: Words) -> ctypes.c_uint64:
    return _u64(prod(a.shape[:-2]))


def _u64(x: int) -> ctypes.c_uint64:
    return ctypes.c_uint64(x)


def _at(a: NDArray[np.generic]) -> ctypes.c_void_p:
    assert a.flags.c_contiguous
    return ctypes.c_void_p(a.ctypes.data)
