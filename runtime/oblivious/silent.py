"""Correlated rows of few bytes: silent transfers, semi-honest, from the extension's rows where that takes less.

Boyle, Couteau, Gilboa, Ishai, Kohl, Rindal and Scholl (CCS 2019): 1. The sender grows TREES trees; the receiver, for a
leaf of its choice in each, learns all other leaves, by the extension's transfers of the levels' sums (`trees.py`), and
from delta + all leaves that leaf + delta. So leaves of both differ by e delta, e one random unit vector a tree.
2. Both encode their leaves, the receiver e, too (`code.py`): rows that differ by random bits times delta, if regular
LPN is hard for the dual code. 3. The receiver says with its first message where these bits are not its choices; the
sender corrects.

The receiver can deviate in nothing but its choices, beside the extension's check; a sender that says wrong sums may
learn whether a leaf is where it guessed, which the product's security against parties that follow allows for.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from spuvm.runtime.oblivious import extension, trees
from spuvm.runtime.oblivious.code import encoded
from spuvm.runtime.oblivious.rows import Bytes, Words, hashed

TREES = 256
BLOCK = 16
HASHES = 1 << 62  # the numbers of the levels' sums begin here; the transfers' count up from 0
NOTHING = bytes(BLOCK)


def depth_for(count: int) -> int | None:
    """Levels of each tree for so many rows, or None if the extension alone says less."""
    levels = max(1, (2 * count - 1).bit_length() - (TREES - 1).bit_length())
    return levels if sum(_bytes(count, levels)) < sum(extension.bytes_said(count)) else None


def bytes_said(counts: Sequence[int]) -> tuple[int, int]:
    """By the sender and the receiver for batches of so many rows each, made together, in four rounds."""
    by_sender, by_receiver = extension.bytes_said(sum(map(_base, counts)))
    return by_sender + sum(map(sums_bytes, counts)), by_receiver + sum(map(_flips_bytes, counts))


def sums_bytes(count: int) -> int:
    """What the sender says of a batch in the fourth."""
    levels = depth_for(count)
    return 0 if levels is None else _sums(levels)


def _sums(levels: int) -> int:
    """Two sums a level of each tree, and one of its leaves."""
    return TREES * (2 * levels + 1) * BLOCK


def _bytes(count: int, levels: int) -> tuple[int, int]:
    by_sender, by_receiver = extension.bytes_said(TREES * levels)
    return by_sender + _sums(levels), by_receiver + -(-count // 8)


def _base(count: int) -> int:
    """The extension's rows for so many."""
    levels = depth_for(count)
    return count if levels is None else TREES * levels


def _flips_bytes(count: int) -> int:
    return 0 if depth_for(count) is None else -(-count // 8)


class Sender:
    """Knows delta; q_j = t_j + choice_j delta."""

    def __init__(self, swap: extension.Swap) -> None:
        self.swap = swap
        self.base = extension.Sender(swap)
        self.delta = self.base.delta
        self._hashes = HASHES

    def extend(self, counts: Sequence[int]) -> Iterator[tuple[Bytes, bytes]]:
        """Of each batch uint8[count, 16], and `sums_bytes(count)` to be said of it. Raises what the extension does."""
        rows, flips = self.base.extend(sum(map(_base, counts)), sum(map(_flips_bytes, counts)))
        at = byte = 0
        for count in counts:
            own, said = rows[at : at + _base(count)], flips[byte : byte + _flips_bytes(count)]
            at, byte = at + len(own), byte + len(said)
            levels = depth_for(count)
            yield (own, b"") if levels is None else self._silently(own, said, count, levels)

    def _silently(self, rows: Bytes, flips: bytes, count: int, levels: int) -> tuple[Bytes, bytes]:
        roots = np.frombuffer(secrets.token_bytes(TREES * BLOCK), np.uint64).reshape(TREES, 2)
        leaves, sums = trees.grown(roots, levels)
        delta = np.frombuffer(self.delta, np.uint64)
        masks = np.stack([hashed(rows, offset, 2, self._hashes) for offset in (NOTHING, self.delta)], axis=1)
        self._hashes += 2 * len(rows)
        said = (masks.reshape(TREES, levels, 2, 2) ^ sums).tobytes() + (trees.total(leaves) ^ delta).tobytes()
        q = encoded(leaves.reshape(-1, 2), count)
        flipped = np.unpackbits(np.frombuffer(flips, np.uint8), count=count, bitorder="little").astype(np.uint64)
        q ^= (np.uint64(0) - flipped)[:, None] & delta
        return q.view(np.uint8), said


class Receiver:
    """Knows its choices and t_j."""

    def __init__(self, swap: extension.Swap) -> None:
        self.swap = swap
        self.base = extension.Receiver(swap)
        self._hashes = HASHES

    def extend(self, choices: Sequence[Bytes]) -> list[Callable[[bytes], Bytes]]:
        """Of each batch bits uint8[count] -> what makes uint8[count, 16] of what the sender says of it."""
        drawn = [_drawn(bits) for bits in choices]
        rows = self.base.extend(np.concatenate([bits for bits, _, _ in drawn]), b"".join(f for _, f, _ in drawn))
        out: list[Callable[[bytes], Bytes]] = []
        at = 0
        for bits, (base, _, paths) in zip(choices, drawn):
            own = rows[at : at + len(base)]
            at += len(base)
            out.append(partial(self._rows, own, paths, len(bits)))
        return out

    def _rows(self, rows: Bytes, paths: Bytes | None, count: int, said: bytes) -> Bytes:
        if paths is None:
            return rows
        masks = hashed(rows, NOTHING, 2, self._hashes)
        self._hashes += 2 * len(rows)
        return _received(paths, masks, said, count)


def _drawn(choices: Bytes) -> tuple[Bytes, bytes, Bytes | None]:
    """The choices of the extension, what is said of a batch's own, and paths to a leaf of each tree."""
    levels = depth_for(len(choices))
    if levels is None:
        return choices, b"", None
    paths = np.unpackbits(np.frombuffer(secrets.token_bytes(TREES * levels // 8), np.uint8)).reshape(TREES, levels)
    noise = np.zeros((TREES, 1 << levels), np.uint8)
    noise[np.arange(TREES), trees.ends(paths)] = 1
    flips = np.packbits(encoded(noise.reshape(-1), len(choices)) ^ choices, bitorder="little").tobytes()
    return 1 - paths.reshape(-1), flips, paths


def _received(paths: Bytes, masks: Words, said: bytes, count: int) -> Bytes:
    """Rows of what the sender says of the levels and of each tree's leaves."""
    levels, every = paths.shape[1], np.arange(TREES)
    words = np.frombuffer(said, np.uint64)
    sums, whole = (v.reshape(TREES, -1, 2) for v in (words[: TREES * levels * 4], words[TREES * levels * 4 :]))
    off = (1 - paths).astype(np.int64)
    pairs = sums.reshape(TREES, levels, 2, 2)
    known = np.take_along_axis(pairs, off[..., None, None], axis=2)[:, :, 0] ^ masks.reshape(TREES, levels, 2)
    leaves = trees.punctured(known, paths)
    leaves[every, trees.ends(paths)] = whole[:, 0] ^ trees.total(leaves)
    return np.asarray(encoded(leaves.reshape(-1, 2), count).view(np.uint8))
