"""Many oblivious transfers from 128: Ishai, Kilian, Nissim and Petrank (CRYPTO 2003), with a check of the receiver.

Columns t_i come from the base transfers' keys; the receiver sends u_i = t_i + t'_i + choices, the sender gets q_i =
t_i + delta_i choices, and rows of both belong together: q_j = t_j + choice_j delta. The check is the one of Roy's
SoftSpokenOT (CRYPTO 2022) for k = 1, equal to the revised KOS (eprint 2015/546): with factors that the sender draws
after it has u, both sum their columns, read as words of GF(2^128) and a last word of random choices, and the sender
compares q_i = t_i + delta_i choices for the sums. A receiver whose columns differ in their choices is found with
probability 1 - 2^-128 but for guesses of delta's bits, of which each wrong one is found.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import numpy as np

from spuvm.runtime.engine.random import Stream
from spuvm.runtime.errors import DeviationError
from spuvm.runtime.oblivious import base
from spuvm.runtime.oblivious.rows import COLUMNS, Bytes, rows_of, sums

SEED = 16
BLOCK = COLUMNS // 8  # bytes of a column for 128 transfers

Swap = Callable[[bytes, int], bytes]  # says a body (b"" for nothing), hears one of a known size (0 for nothing)


def padded(count: int) -> int:
    """Transfers that are made for so many: in blocks of 128, and one for the check."""
    return (-(-count // COLUMNS) + 1) * COLUMNS


def bytes_said(count: int) -> tuple[int, int]:
    """By the sender and the receiver, in three rounds."""
    return SEED, padded(count) * BLOCK + BLOCK + COLUMNS * BLOCK


class Sender:
    """Knows delta; q_j = t_j + choice_j delta."""

    def __init__(self, swap: Swap) -> None:
        self.swap = swap
        self.delta = secrets.token_bytes(COLUMNS // 8)
        self._bits = np.unpackbits(np.frombuffer(self.delta, np.uint8), bitorder="little")
        self._streams = [Stream(k) for k in base.received([int(b) for b in self._bits], swap)]
        self._used = 0

    def extend(self, count: int, more: int = 0) -> tuple[Bytes, bytes]:
        """uint8[count, 16], and the receiver's choices are consistent. DeviationError if they are not.

        With so many bytes `more` that the receiver says.
        """
        blocks = padded(count) // COLUMNS
        heard = self.swap(b"", COLUMNS * blocks * BLOCK + more)
        u = np.frombuffer(heard, np.uint8, COLUMNS * blocks * BLOCK).reshape(COLUMNS, -1)
        q = _columns(self._streams, blocks, self._used)
        self._used += blocks
        q ^= u * self._bits[:, None]
        seed = secrets.token_bytes(SEED)
        self.swap(seed, 0)
        said = np.frombuffer(self.swap(b"", BLOCK + COLUMNS * BLOCK), np.uint8).reshape(-1, BLOCK)
        if not np.array_equal(_checked(q, seed), said[1:] ^ said[:1] * self._bits[:, None]):
            raise DeviationError(
                "the peer's choices in the oblivious transfers are not the same everywhere: it deviates. Nothing was "
                "made."
            )
        return rows_of(q)[:count], heard[len(heard) - more :]


class Receiver:
    """Knows its choices and t_j."""

    def __init__(self, swap: Swap) -> None:
        self.swap = swap
        self._streams = [[Stream(k) for k in column] for column in zip(*base.sent(swap))]
        self._used = 0

    def extend(self, choices: Bytes, more: bytes = b"") -> Bytes:
        """Bits uint8[count] of 0 and 1 -> uint8[count, 16]; says `more` with its columns."""
        count = len(choices)
        blocks = padded(count) // COLUMNS
        filler = np.unpackbits(np.frombuffer(secrets.token_bytes((blocks * COLUMNS - count + 7) // 8), np.uint8))
        whole = np.packbits(np.concatenate([choices, filler[: blocks * COLUMNS - count]]), bitorder="little")
        t = _columns(self._streams[0], blocks, self._used)
        other = _columns(self._streams[1], blocks, self._used)
        self._used += blocks
        self.swap((t ^ other ^ whole).tobytes() + more, 0)
        seed = self.swap(b"", SEED)
        self.swap(np.concatenate([_checked(whole[None], seed), _checked(t, seed)]).tobytes(), 0)
        return rows_of(t)[:count]


def _columns(streams: list[Stream], blocks: int, first: int) -> Bytes:
    out = np.empty((len(streams), blocks * BLOCK), np.uint8)
    for row, stream in zip(out, streams):
        stream.fill(row, first)
    return out


def _checked(columns: Bytes, seed: bytes) -> Bytes:
    """The sum of each column's words times random factors, and its last word, which hides it."""
    words = columns.reshape(len(columns), -1, BLOCK)
    factors = np.empty((words.shape[1] - 1, BLOCK), np.uint8)
    Stream(seed).fill(factors.reshape(-1), 0)
    return sums(factors, words[:, :-1]) ^ words[:, -1]
