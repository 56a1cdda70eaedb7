"""What proofs compute over extensions of rings: natively and by NumPy the same words, and right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spuvm.runtime.ring import extension, native
from spuvm.runtime.ring.extension import BITS, BITS_LOW, DEGREE, LOW, Extension, Field, Galois

OVER = [Galois(np.uint32), Galois(np.uint64), Field()]


def words(rng: Any, dtype: Any, *shape: int) -> Any:
    nbytes = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    return np.frombuffer(rng.bytes(nbytes), dtype).reshape(shape).copy()


@pytest.mark.parametrize("over", OVER, ids=["32", "64", "bits"])
@pytest.mark.parametrize(("rows", "n"), [(1, 1), (2, 5), (8, 33), (32, 70)])
def test_native_and_numpy_are_the_same(over: Extension, rows: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(rows)
    x, y = ([words(rng, over.dtype, rows, n) for _ in range(2)] for _ in range(2))
    a = [words(rng, over.dtype, n, *over.inner) for _ in range(2)]
    table = words(rng, over.dtype, rows + 1, rows, *over.element)
    weights, left, right = (over.weights(words(rng, np.uint64, k)) for k in (n, rows, rows))

    def made() -> list[Any]:
        folded = over.folded(x[0], left)
        turned = folded if isinstance(over, Field) else over.folded(np.ascontiguousarray(x[0].T).T, left)
        parts = [over.crossed((x[0], x[1]), (y[0], y[1]), weights, (a[0], a[1])), over.weighed(x[0], weights)]
        more = [over.masked(folded, weights, a[0]), over.product(folded, a[1]), over.combined(table, left, right)]
        return [*parts, folded, turned, *more]

    fast = made()
    if native.library() is not None:
        assert extension._library() is not None
    monkeypatch.setattr(extension, "_library", lambda: None)
    monkeypatch.setattr(extension, "_bits", lambda: None)
    with np.errstate(over="ignore"):
        for p, q in zip(fast, made(), strict=True):
            assert (p.shape, p.dtype) == (q.shape, q.dtype)
            np.testing.assert_array_equal(p, q)


def _proved(over: Extension, error: tuple[int, int] | None, of_table: Any = None) -> tuple[bool, bool]:
    """Whether the two checks of a proof hold, of 4 rows of 9 products, in the clear: sharings with one component."""
    rng = np.random.default_rng(4)
    x, y = (words(rng, over.dtype, 4, 9) for _ in range(2))
    z, nothing = (x & y if isinstance(over, Field) else x * y), np.zeros_like(x)
    if error is not None:
        z[error[0], 3] = over.add(z[error[0], 3], over.dtype.type(1 << error[1]))
    a = words(rng, over.dtype, 9, *over.inner)
    weights, left, right = (over.weights(words(rng, np.uint64, k)) for k in (9, 4, 4))
    table = over.crossed((x, nothing), (y, nothing), weights, (a, np.zeros_like(a)))
    if of_table == "what the error asks for":  # who deviates knows the weights by then
        table[range(4), range(4)] = over.weighed(z, weights)
    elif of_table:
        table[of_table] = over.add(table[of_table], over.dtype.type(1 << (8 * over.dtype.itemsize - 1)))
    diagonal = table[range(4), range(4)]
    u = over.masked(over.folded(x, left), weights, a)
    rest = over.subtract(over.product(u, over.folded(y, right)), over.combined(table, left, right))
    return bool((diagonal == over.weighed(z, weights)).all()), not np.any(rest)


@pytest.mark.parametrize("over", OVER, ids=["32", "64", "bits"])
def test_what_a_proof_asks_for(over: Extension) -> None:
    """Right products pass; one wrong in its highest or its lowest bit does not, nor a wrong term of rows or masks."""
    top = 8 * over.dtype.itemsize - 1
    assert _proved(over, None) == (True, True)
    for bit in (0, top):
        assert _proved(over, (2, bit)) == (False, True)
        assert _proved(over, (2, bit), of_table="what the error asks for") == (True, False)
    for wrong in ((1, 2), (4, 0)):
        assert _proved(over, None, of_table=wrong) == (True, False)


def _squared(a: int, polynomial: int, degree: int) -> int:
    a = int(f"{a:b}", 4)
    while a.bit_length() > degree:
        a ^= polynomial << (a.bit_length() - 1 - degree)
    return a


def _common(a: int, b: int) -> int:
    while b:
        while a.bit_length() >= b.bit_length():
            a ^= b << (a.bit_length() - b.bit_length())
        a, b = b, a
    return a


@pytest.mark.parametrize(
    ("degree", "low", "primes"), [(DEGREE, sum(1 << i for i in LOW), (2, 3)), (BITS, BITS_LOW, (2,))]
)
def test_the_polynomials_are_irreducible(degree: int, low: int, primes: tuple[int, ...]) -> None:
    """Modulo 2 (Rabin): it divides X^(2^d) - X, and shares nothing with X^(2^(d/p)) - X for the primes p of d."""
    polynomial, powers = (1 << degree) | low, [2]
    for _ in range(degree):
        powers.append(_squared(powers[-1], polynomial, degree))
    assert powers[degree] == 2
    assert all(_common(polynomial, powers[degree // p] ^ 2) == 1 for p in primes)


def test_products_of_elements() -> None:
    """X^46 X^3 = X^49 = -(X + X^3 + X^4 + X^6), of words; X^63 X = X^4 + X^3 + X + 1, of bits; both bilinear."""
    galois = Galois(np.uint64)
    x, y = np.zeros((2, 1, DEGREE), np.uint64)
    x[0, 46], y[0, 3] = 1, 1
    want = np.zeros(DEGREE, np.uint64)
    want[[1, 3, 4, 6]] = 2**64 - 1
    np.testing.assert_array_equal(galois.product(x, y), want)
    one, top = np.zeros((2, 1, BITS), np.uint64)
    one[0, 0], top[0, 0] = 2, 1 << 63
    assert Field().product(one, top) == BITS_LOW
    for over in OVER:
        rng = np.random.default_rng(0)
        a, b, c = (words(rng, over.dtype, 5, *over.inner) for _ in range(3))
        both = over.add(over.product(a, c), over.product(b, c))
        np.testing.assert_array_equal(over.product(over.add(a, b), c), both)
