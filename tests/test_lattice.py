"""Products of matrices by ring-LWE: exact, as large as said, and nothing in what is sent or decrypted but masks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import log2
from typing import Any

import numpy as np
import pytest

from spuvm.runtime.engine.correlated import Family, Kind
from spuvm.runtime.errors import PeerMismatchError, SpuError
from spuvm.runtime.lattice import words
from spuvm.runtime.lattice.sampling import Random, residues
from spuvm.runtime.lattice.standard import FLOOD_BITS, STANDARD
from spuvm.runtime.lattice.words import DEGREE, Keeper, Other, packed, packed_bytes, parameters, unpacked
from spuvm.runtime.link.memory_link import memory_links
from spuvm.runtime.oblivious import matrices
from spuvm.runtime.oblivious.matrices import Layout, batches, bytes_of_cells, bytes_of_results, layout_of
from spuvm.runtime.oblivious.plan import offline
from spuvm.runtime.oblivious.products import Products
from spuvm.runtime.ring import native
from spuvm.runtime.ring import transform as tf

LARGEST = np.uint64(2**63)


def crossed(layout: Layout, x: Any, y: Any, change: Callable[[int, bytes], bytes] = lambda _, body: body) -> list[Any]:
    """What both parties get of x[rank], y[rank], or the error; what was sent after their keys. `change`: of bodies."""
    links = memory_links(("alice", "bob"), timeout=300)
    sent: list[list[bytes]] = [[], []]

    def at(rank: int) -> Any:
        def swap(body: bytes, size: int) -> bytes:
            got = np.empty(size, np.uint8)
            sent[rank].append(body)
            links[rank].exchange({1 - rank: [memoryview(change(rank, body))]}, {1 - rank: [got]})
            return got.tobytes()

        try:
            return Products(layout.width, swap).crossed(layout, x[rank], y[rank])
        except SpuError as error:
            links[rank].abort(error)
            return error

    with ThreadPoolExecutor(2) as pool:
        return [*pool.map(at, range(2)), [bodies[1:] for bodies in sent]]


def drawn(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(0, 2**64, shape, np.uint64)


def right(layout: Layout, x: Any, y: Any, found: Any) -> None:
    mask = np.uint64((1 << layout.width) - 1)
    np.testing.assert_array_equal((found[0] + found[1]) & mask, (x[0] @ y[1] + x[1] @ y[0]) & mask)


@pytest.mark.parametrize("width", [32, 64])
def test_parameters_hold(width: int) -> None:
    """128 bits of security, and room for the flood beyond the noise of as many terms as there may be."""
    p = parameters(width)
    assert p.q.modulus.bit_length() <= min(STANDARD[DEGREE])
    assert all(prime % (2 * DEGREE) == 1 for prime in p.q.primes)
    assert p.kept.primes == p.q.primes[: len(p.kept.primes)]
    assert words.noise(width) + FLOOD_BITS <= p.flood < log2(p.q.modulus) - 0.9
    rounding = 2.0**width * (1 + DEGREE) / 2  # of what is kept when a prime is left out, at most
    assert 2.0 ** (p.flood - 1) / p.q.modulus + rounding / p.kept.modulus < 0.3


def test_residues_are_packed_and_drawn_each_by_itself() -> None:
    basis = parameters(64).q
    found = residues(Random(bytes(16)), basis, 4, 999)
    assert (found < basis.p).all() and len(np.unique(found)) == found.size
    for count in (0, 1, 2, 3, 4, 999):
        body = packed(found[0, :count])
        assert len(body) == packed_bytes(count)
        np.testing.assert_array_equal(unpacked(body, count), found[0, :count])
    shares = found / basis.p
    between = np.asarray(np.corrcoef(shares))
    assert np.abs(between[np.triu_indices(4, 1)]).max() < 7 / np.sqrt(999)


SHAPES = [
    Layout(64, False, 3, 5, 4, rows=2, inner=2, columns=3),
    Layout(64, True, 1, 7, 1, rows=1, inner=3, columns=1),
    Layout(32, False, 5, 2, 3, rows=5, inner=2, columns=2),
    Layout(64, False, 2, DEGREE, 1, rows=1, inner=DEGREE, columns=1),
]


@pytest.mark.parametrize("layout", SHAPES, ids=str)
def test_products_are_exact_in_every_cut(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few ciphertexts at a time, so that blocks are divided and sums too; the largest words; bytes as said."""
    monkeypatch.setattr(matrices, "CELLS", 2)
    monkeypatch.setattr(matrices, "RESULTS", 3)
    x, y = (drawn(i, 2, 2, *shape) for i, shape in enumerate([(layout.m, layout.k), (layout.k, layout.n)]))
    x[0, 0], y[1, 0], x[1, 0, 0, 0], y[0, 0, 0, 0] = LARGEST, LARGEST, 2**64 - 1, 0
    *found, sent = crossed(layout, x, y)
    right(layout, x, y, found)
    said = []
    for blocks, pieces in batches(layout, 2):
        assert sum(b.cells for b in blocks) <= 2
        said += [bytes_of_cells(layout, blocks), *(bytes_of_results(layout, piece) for piece in pieces)]
    assert [list(map(len, bodies)) for bodies in sent] == [said, said]


def test_native_and_numpy_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """A party of each kind."""
    layout = SHAPES[2]
    x, y = drawn(1, 2, 1, layout.m, layout.k), drawn(2, 2, 1, layout.k, layout.n)
    right(layout, x, y, crossed(layout, x, y)[:2])
    seed, row = bytes(range(16)), drawn(3, 1, DEGREE)
    p = parameters(32)
    keeper = Keeper(p, Random(bytes(16)))
    fast = keeper.encrypt(row, seed)
    monkeypatch.setattr(native, "library", lambda: None)
    again = Keeper(p, Random(bytes(16)))
    np.testing.assert_array_equal(again.encrypt(row, seed), fast)
    right(layout, x, y, crossed(layout, x, y)[:2])


def test_the_cheaper_way_is_chosen() -> None:
    """By predicted bytes, both ways; small products by transfers, words of no ring never, nothing for empty ones."""
    for shape, lattice in (
        ((1, 3, 4, 3), False),
        ((1, 16, 16, 16), True),
        ((1, 569, 30, 1), True),
    ):
        family = Family(Kind.DOT, 64, shape)
        layout = layout_of(family)
        assert (layout is not None) == lattice
        sent = sum(offline(family.draws(1))[1])
        if layout is not None:
            assert sent < matrices.bytes_by_transfers(family)
            assert abs(sent - 2 * shape[0] * layout.sent) <= 0.001 * sent
    assert layout_of(Family(Kind.MUL, 64)) is None and layout_of(Family(Kind.DOT, 64, (2, 0, 3, 4))) is None
    tall, flat = (layout_of(Family(Kind.DOT, 64, shape)) for shape in ((1, 5000, 30, 1), (1, 1, 30, 5000)))
    assert tall is not None and flat is not None
    assert tall._replace(turned=flat.turned) == flat and tall.turned != flat.turned  # whichever factor is less


def test_512_by_512_takes_less_than_a_hundredth_of_the_transfers() -> None:
    family = Family(Kind.DOT, 64, (1, 512, 512, 512))
    assert 100 * sum(offline(family.draws(1))[1]) < matrices.bytes_by_transfers(family)


def uniform(values: Any, bound: Any) -> None:
    """Histogram of sixteen parts, each within seven standard deviations."""
    share = np.asarray(values, np.float64).reshape(-1) / bound
    counts = np.histogram(share, 16, (0, 1))[0]
    assert abs(counts - share.size / 16).max() <= 7 * np.sqrt(share.size / 16)


def test_what_is_sent_is_uniform_and_new_each_time() -> None:
    """Of zeros: ciphertexts, and what comes back of them, modulo each prime; nothing of it twice."""
    layout = Layout(64, False, DEGREE, 1, 1, rows=DEGREE, inner=1, columns=1)
    zeros = np.zeros((2, 1, DEGREE, 1), np.uint64), np.zeros((2, 1, 1, 1), np.uint64)
    bodies = [body for sent in crossed(layout, *zeros)[2] for body in sent]
    primes = len(parameters(64).q.primes)
    first = [unpacked(bodies[i][16:], primes * DEGREE) for i in (0, 2)]
    back = [unpacked(bodies[i], 4 * DEGREE) for i in (1, 3)]
    for residues_ in (*first, *back):
        uniform(residues_, 2.0**50)
    both = np.concatenate([*first, *back])
    assert len(np.unique(both)) > both.size - 10


def opened(y: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Shares of the whole range of what the keeper of zeros finds under its key, and what the other keeps."""
    p = parameters(64)
    keeper = Keeper(p, Random())
    seed, b = keeper.public()
    other = Other(p, seed, b)
    mine = bytes(15) + b"\1"
    c0 = keeper.encrypt(np.zeros((1, DEGREE), np.uint64), mine)[0]
    value = np.stack([c0, next(words.halves(mine, 1, p))])
    factor = tf.forward(words.signed_residues(np.full((1, DEGREE), y, np.uint64), p), p.q)[0]
    total = tf.multiply(value, factor, p.q)
    seen: list[Any] = []
    real = words.switched

    def watched(c: Any, p: Any) -> Any:
        seen.append(c.copy())
        return real(c, p)

    monkeypatch.setattr(words, "switched", watched)
    c0, c1, masks = other.masked(total, np.arange(DEGREE), Random())
    np.testing.assert_array_equal(keeper.decrypt(c0, c1, np.arange(DEGREE)) + masks, np.zeros(DEGREE, np.uint64))
    product = tf.backward(tf.multiply(tf.forward(seen[1][None], p.q), keeper._s, p.q), p.q)[0]
    whole = tf.integers(tf.add(seen[0], product, p.q), p.q)
    return np.array([x / 2.0**p.flood for x in whole]) + 0.5, masks


@pytest.mark.parametrize("y", [0, 1, 2**63])
def test_the_keeper_finds_nothing_but_a_mask(y: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero times the largest sum: all that is found before and after the switch is uniform, whatever y is."""
    whole, masks = opened(y, monkeypatch)
    assert whole.min() > -1e-9 and whole.max() < 1 + 1e-9
    uniform(whole, 1.0)
    uniform(masks, 2.0**64)


def test_what_is_no_ciphertext_is_refused() -> None:
    layout = SHAPES[0]
    x, y = drawn(1, 2, 1, layout.m, layout.k), drawn(2, 2, 1, layout.k, layout.n)

    def spoiled(rank: int, body: bytes) -> bytes:
        return body[:16] + b"\xff" * (len(body) - 16) if rank == 1 and len(body) > 500_000 else body

    found = crossed(layout, x, y, spoiled)
    assert isinstance(found[0], PeerMismatchError)
    assert "no ciphertexts" in str(found[0])
    assert isinstance(found[1], SpuError)
