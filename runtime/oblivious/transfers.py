"""Products of a word that one party has and a bit that the other has, shared between them: correlated transfers.

Gilboa (CRYPTO 1999), Asharov, Lindell, Schneider and Zohner (CCS 2013): of rows q_j = t_j + choice_j delta the sender
takes h_0 = H(q_j) and h_1 = H(q_j + delta), keeps -h_0, and sends d = h_0 - h_1 + x; the receiver has
H(t_j) + choice_j d = h_0 + choice_j x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.oblivious.plan import Job
from spuvm.runtime.oblivious.rows import COLUMNS, Bytes, hashed
from spuvm.runtime.oblivious.silent import Receiver, Sender, sums_bytes

Values = NDArray[np.uint64]
NOTHING = bytes(COLUMNS // 8)


class Transfers:
    """One party's side; both give the same jobs, the sender words [rows, length], the receiver bits [rows]."""

    def __init__(self, side: Sender | Receiver) -> None:
        self.side = side
        self._hashes = 0

    def run(
        self, group: Sequence[Sequence[Job]], inputs: Callable[[int], Sequence[NDArray[Any]]]
    ) -> Iterator[list[Values]]:
        """Batches that are made together, one after another: this party's shares [rows, length] of each job's products.

        Modulo 2^width; `inputs`: of a batch by its number. Messages are sent at the first, all of them.
        """
        side = self.side
        counts = [sum(job.rows for job in jobs) for jobs in group]
        if isinstance(side, Sender):
            yield from self._send(side, group, counts, inputs)
            return
        given = [inputs(number) for number in range(len(group))]
        making = side.extend([np.concatenate([np.asarray(bits, np.uint8) for bits in own]) for own in given])
        sizes = [sums_bytes(count) + sum(job.said for job in jobs) for count, jobs in zip(counts, group)]
        said, at = memoryview(side.swap(b"", sum(sizes))), 0
        for jobs, own, rows_with, size, count in zip(group, given, making, sizes, counts):
            first = sums_bytes(count)
            yield self._receive(jobs, own, rows_with(bytes(said[at : at + first])), said[at + first : at + size])
            at += size

    def _receive(self, jobs: Sequence[Job], inputs: Sequence[NDArray[Any]], rows: Bytes, said: Any) -> list[Values]:
        out, at, byte = [], 0, 0
        for job, bits in zip(jobs, inputs):
            share = self._hashed(rows[at : at + job.rows], NOTHING, job)
            d = _unpacked(said[byte : byte + job.said], job)
            out.append((share + np.where(np.asarray(bits, bool)[:, None], d, np.uint64(0))) & _mask(job))
            at, byte = at + job.rows, byte + job.said
            self._hashes += job.rows * job.length
        return out

    def _send(
        self, side: Sender, group: Sequence[Sequence[Job]], counts: Sequence[int], inputs: Any
    ) -> list[list[Values]]:
        out, said = [], []
        for number, (jobs, (rows, first_said)) in enumerate(zip(group, side.extend(counts))):
            said.append(first_said)
            shares, at = [], 0
            for job, x in zip(jobs, inputs(number)):
                mine = rows[at : at + job.rows]
                first, second = (self._hashed(mine, offset, job) for offset in (NOTHING, side.delta))
                said.append(_packed((first - second + x) & _mask(job), job))
                shares.append((np.uint64(0) - first) & _mask(job))
                at += job.rows
                self._hashes += job.rows * job.length
            out.append(shares)
        side.swap(b"".join(said), 0)
        return out

    def _hashed(self, rows: Any, offset: bytes, job: Job) -> Values:
        return hashed(rows, offset, job.length, self._hashes)


def _mask(job: Job) -> np.uint64:
    return np.uint64((1 << job.width) - 1)


def _packed(x: Values, job: Job) -> bytes:
    if job.width == 1:
        return np.packbits(x.astype(np.uint8).reshape(-1), bitorder="little").tobytes()
    size = -(-job.width // 8)
    return np.ascontiguousarray(x).view(np.uint8).reshape(-1, 8)[:, :size].tobytes()


def _unpacked(body: Any, job: Job) -> Values:
    count = job.rows * job.length
    raw = np.frombuffer(body, np.uint8)
    if job.width == 1:
        return np.unpackbits(raw, count=count, bitorder="little").astype(np.uint64).reshape(job.rows, job.length)
    whole = np.zeros((count, 8), np.uint8)
    whole[:, : -(-job.width // 8)] = raw.reshape(count, -1)
    return whole.view(np.uint64).reshape(job.rows, job.length)
