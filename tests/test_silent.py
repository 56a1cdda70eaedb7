"""Silent transfers: trees, the code, rows that belong together, what is said of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from spuvm.runtime.errors import DeviationError, SpuError
from spuvm.runtime.link.memory_link import memory_links
from spuvm.runtime.oblivious import code, extension, silent, trees
from spuvm.runtime.oblivious.rows import TREE_KEYS, children
from spuvm.runtime.ring import native

pytest.importorskip("rbcl")

COUNT = 20_000


def words(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(0, 2**64, shape, np.uint64)


def both(function: Callable[[int, extension.Swap], Any], change: Any = lambda rank, body: body) -> tuple[Any, Any, Any]:
    """What a function gives or raises at two parties, and what each said."""
    links = memory_links(("alice", "bob"), timeout=300)
    said: list[list[bytes]] = [[], []]

    def run(rank: int) -> Any:
        def swap(body: bytes, size: int) -> bytes:
            got = np.empty(size, np.uint8)
            if body:
                said[rank].append(body)
            sends = {1 - rank: [memoryview(change(rank, body))]} if body else {}
            links[rank].exchange(sends, {1 - rank: [got]} if size else {})
            return got.tobytes()

        try:
            return function(rank, swap)
        except SpuError as error:
            links[rank].abort(error)
            return error

    with ThreadPoolExecutor(2) as pool:
        return (*pool.map(run, range(2)), said)


def made(counts: tuple[int, ...], choices: Any) -> Callable[[int, extension.Swap], Any]:
    """Delta and the sender's rows, or the receiver's."""

    def run(rank: int, swap: extension.Swap) -> Any:
        if rank == 0:
            sender = silent.Sender(swap)
            rows, said = zip(*sender.extend(counts))
            assert list(map(len, said)) == [silent.sums_bytes(n) for n in counts]
            swap(b"".join(said), 0)
            return sender.delta, rows
        receiver = silent.Receiver(swap)
        rows_of = receiver.extend([choices[:n] for n in counts])
        ends = np.cumsum([silent.sums_bytes(n) for n in counts])
        heard = swap(b"", int(ends[-1]))
        return [rows(heard[at - silent.sums_bytes(n) : at]) for rows, n, at in zip(rows_of, counts, ends, strict=True)]

    return run


# Parts ---------------------------------------------------------------------------------------------------------


def test_a_known_tree() -> None:
    """AES under the two fixed keys, by OpenSSL, and all leaves of two trees of depth 2."""
    leaves, sums = trees.grown(np.arange(4, dtype=np.uint64).reshape(2, 2), 2)
    assert leaves.shape == (2, 4, 2) and sums.shape == (2, 2, 2, 2)
    np.testing.assert_array_equal(sums[:, 1], leaves.reshape(2, 2, 2, 2)[:, 0] ^ leaves.reshape(2, 2, 2, 2)[:, 1])
    node = leaves[0, 3].tobytes()
    aes = [Cipher(algorithms.AES(key), modes.ECB()).encryptor().update for key in TREE_KEYS]
    by_hand = np.arange(2, dtype=np.uint64).tobytes()
    for side in (1, 1):
        by_hand = bytes(a ^ b for a, b in zip(aes[side](by_hand), by_hand, strict=True))
    assert by_hand == node
    assert (
        hashlib.sha256(leaves.tobytes()).hexdigest()
        == "8f7686b62d27b07460383c88a84ee6bf73268996464cadd17204829051e9ba09"
    )


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_all_leaves_but_one_are_known(depth: int) -> None:
    roots, paths = words(1, 40, 2), np.random.default_rng(2).integers(0, 2, (40, depth)).astype(np.uint8)
    leaves, sums = trees.grown(roots, depth)
    known = np.take_along_axis(sums, (1 - paths).astype(np.int64)[..., None, None], axis=2)[:, :, 0]
    found = trees.punctured(known, paths)
    ends = trees.ends(paths)
    assert (found[np.arange(40), ends] == 0).all()
    found[np.arange(40), ends] = leaves[np.arange(40), ends]
    np.testing.assert_array_equal(found, leaves)
    assert len(np.unique(leaves.reshape(-1, 2), axis=0)) == 40 << depth


def test_the_code_is_the_one_described() -> None:
    """Each output as a sum over its matrix, of unit vectors: rows of so many places, convolutions as they are said."""
    n, count = 256, 128
    taps = [code._taps(i, n) for i in (0, 1)]
    assert all((t >> code.TAPS == 1).all() for t in taps)
    matrix = np.eye(n, dtype=np.uint8)
    for tap in taps:
        for i in range(n):
            for j in range(code.TAPS + 1):
                if tap[i] >> j & 1:
                    matrix[(i + 1 + j) % n] ^= matrix[i]
    (places,) = code._places(count)
    rows = np.bitwise_xor.reduce(matrix[places & np.uint32(n - 1)], axis=1)
    for i in (0, 1, 30, 200, 231, 255):
        unit = np.zeros(n, np.uint8)
        unit[i] = 1
        np.testing.assert_array_equal(code.encoded(unit, count), rows[:, i])
    assert abs(rows.mean() - 0.5) < 7 * 0.5 / np.sqrt(rows.size)
    assert (
        hashlib.sha256(np.packbits(rows).tobytes()).hexdigest()
        == "7ca8ac29b4b5e2ffa58e15e6d137cf914f41dc8e685e61ec54f6daef1ee7fedf"
    )


def test_native_and_numpy_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    if native.library() is None:
        pytest.skip("without native kernels there is one way only")
    blocks, bits = words(3, 512, 2), np.random.default_rng(4).integers(0, 2, 512).astype(np.uint8)

    def everything() -> list[Any]:
        return [children(words(5, 37, 2)), code.encoded(blocks.copy(), 200), code.encoded(bits.copy(), 200)]

    fast = everything()
    monkeypatch.setattr(native, "library", lambda: None)
    for x, y in zip(fast, everything(), strict=True):
        np.testing.assert_array_equal(x, y)


def test_blocks_and_bits_are_encoded_alike() -> None:
    bits = np.random.default_rng(6).integers(0, 2, 4096).astype(np.uint8)
    delta = words(7, 2)
    found = code.encoded((np.uint64(0) - bits.astype(np.uint64))[:, None] & delta, 2048)
    np.testing.assert_array_equal(found, code.encoded(bits, 2048)[:, None] * delta)


# Rows -----------------------------------------------------------------------------------------------------------

CHOICES = np.random.default_rng(8).integers(0, 2, COUNT).astype(np.uint8)


def test_rows_of_both_belong_together() -> None:
    """Few rows by the extension, many silently, twice: exact, new each time, uniform, and as many bytes as said."""
    counts = (100, COUNT, COUNT - 3)
    assert [silent.depth_for(n) is None for n in counts] == [True, False, False]
    (delta, sent), mine, said = both(made(counts, CHOICES))
    for q, t, count in zip(sent, mine, counts, strict=True):
        assert q.shape == t.shape == (count, 16)
        np.testing.assert_array_equal(q, t ^ CHOICES[:count, None] * np.frombuffer(delta, np.uint8))
    for rows in (*sent[1:], *mine[1:]):
        assert len(np.unique(rows, axis=0)) == len(rows)
        bits = np.unpackbits(rows, axis=1)
        assert np.abs(bits.mean(0) - 0.5).max() < 7 * 0.5 / np.sqrt(len(rows))
    first = [len(bodies[0]) for bodies in said]  # of the base transfers
    assert [sum(map(len, bodies)) - n for bodies, n in zip(said, first, strict=True)] == [*silent.bytes_said(counts)]
    flips = np.unpackbits(np.frombuffer(said[1][1][-2 * COUNT // 8 :], np.uint8).reshape(2, -1), axis=1)
    for found in (*flips, flips[0] ^ flips[1]):
        assert abs(found.mean() - 0.5) < 7 * 0.5 / np.sqrt(COUNT)


def test_half_a_byte_a_row_where_there_are_many() -> None:
    assert sum(silent.bytes_said([1 << 19])) < 0.5 * (1 << 19)
    for n in (1, 100, 3000, 5000, 10_000, 1 << 18):
        assert sum(silent.bytes_said([n])) <= sum(extension.bytes_said(n))
    for n in (5000, 1 << 18, (1 << 18) + 1, 1 << 19):
        depth = silent.depth_for(n)
        assert depth is not None and 2 * n <= silent.TREES << depth < 4 * n


def test_a_receiver_that_cheats_is_found() -> None:
    """Other choices in half of the columns of what the trees are made with."""

    def changed(rank: int, body: bytes) -> bytes:
        columns = extension.padded(silent.TREES * (silent.depth_for(COUNT) or 0)) * 16
        if rank == 0 or len(body) < columns:
            return body
        found = np.frombuffer(body, np.uint8).copy()
        found[:columns].reshape(128, -1)[::2, 3] ^= 4
        return found.tobytes()

    sender, receiver, _ = both(made((COUNT,), CHOICES), changed)
    assert isinstance(sender, DeviationError) and isinstance(receiver, SpuError)
