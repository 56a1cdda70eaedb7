"""What proofs compute on whole arrays: natively and by NumPy the same words, and right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spuvm.runtime.ring import native, triples
from spuvm.runtime.ring.triples import BITS, SPARE, SUMS

RNG = np.random.default_rng(3)
KINDS = [(SUMS, np.uint32), (SUMS, np.uint64), (BITS, np.uint64)]


def words(n: int, dtype: Any = np.uint64) -> Any:
    return RNG.integers(0, 2 ** (8 * np.dtype(dtype).itemsize), n, dtype)


@pytest.mark.parametrize(("ring", "dtype"), KINDS)
@pytest.mark.parametrize("n", [0, 1, 1000])
def test_native_and_numpy_are_the_same(ring: Any, dtype: Any, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, z = ((words(n, dtype), words(n, dtype)) for _ in range(3))
    triple = tuple(words(n + 1, dtype) for _ in range(3))
    random = words(n + SPARE)

    def made() -> list[Any]:
        order = triples.order_of(random)
        out = np.empty(n, dtype)
        triples.masked(ring, x[0], triple[0], order, out)
        parts = [triples.left(ring, z[0], y, triple, order, both) for both in (False, True)]
        return [order, triples.summand(ring, x, y, z), out, *parts]

    fast = made()
    if native.library() is not None:
        assert triples._library() is not None
    monkeypatch.setattr(triples, "_library", lambda: None)
    with np.errstate(over="ignore"):
        for a, b in zip(fast, made(), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("ring", "dtype"), KINDS)
def test_three_parties_are_left_with_zero(ring: Any, dtype: Any) -> None:
    """Of right products and right triples; and with a wrong word with that."""
    n = 64

    def total(v: Any) -> Any:
        return ring.add(ring.add(v[0], v[1]), v[2])

    with np.errstate(over="ignore"):
        x, y, a, b = (words(3 * n, dtype).reshape(3, n) for _ in range(4))
        z, c = (words(3 * n, dtype).reshape(3, n) for _ in range(2))
        for product, p, q in ((z, x, y), (c, a, b)):
            product[0] = ring.subtract(ring.multiply(total(p), total(q)), ring.add(product[1], product[2]))
        z[2, 5] = ring.add(z[2, 5], dtype(4))
        order = triples.order_of(words(n + SPARE))
        masked = np.empty((2, 3, n), dtype)
        for out, p, q in zip(masked, (x, y), (a, b)):
            for i in range(3):
                triples.masked(ring, p[i], q[i], order, out[i])
        d, e = (total(m) for m in masked)
        left = [triples.left(ring, z[i], (d, e), (a[i], b[i], c[i]), order, i == 0) for i in range(3)]
        rest = total(left)
    assert rest[5] == 4
    assert np.count_nonzero(rest) == 1


def test_orders_are_uniform() -> None:
    """All 24 of four places: 24,000 of them, seven standard deviations from what is expected."""
    counts = np.zeros(24, int)
    number = {p: i for i, p in enumerate(sorted({tuple(RNG.permutation(4).tolist()) for _ in range(1000)}))}
    assert len(number) == 24
    for row in words(24_000 * (4 + SPARE)).reshape(24_000, -1):
        counts[number[tuple(triples.order_of(row).tolist())]] += 1
    assert abs(counts - 1000).max() < 7 * np.sqrt(1000)


def test_a_biased_word_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of zero are refused wherever the number of places does not divide 2^64, for a spare one if there is one."""
    random = np.zeros(6 + SPARE, np.uint64)
    random[6] = 2**63
    order = triples.order_of(random).tolist()
    assert sorted(order) == list(range(6))
    assert order != triples.order_of(np.zeros(6 + SPARE, np.uint64)).tolist()
    monkeypatch.setattr(triples, "_library", lambda: None)
    assert triples.order_of(random).tolist() == order
