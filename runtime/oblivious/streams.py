"""Correlated streams as a run draws from them: filled by transfers with the other party, or simulated.

Semi-honest parties, but for the transfers' check. What is made before a piece of program is kept until the next piece.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.engine.correlated import BLOCK, OPERANDS, RESULTS, Family, Holders, Kind, families, family_of
from spuvm.runtime.engine.random import Stream
from spuvm.runtime.link.link import Link
from spuvm.runtime.oblivious import correlations
from spuvm.runtime.oblivious.extension import Receiver, Sender
from spuvm.runtime.oblivious.plan import batches
from spuvm.runtime.oblivious.transfers import Transfers

Find = Callable[[Holders], Any]  # the stream of that name


class Filled:
    """A stream whose positions were made before they are drawn."""

    by_openssl = True  # the engine is given its words

    def __init__(self) -> None:
        self.first = 0
        self.made = np.empty(0, np.uint8)

    def fill(self, out: NDArray[np.uint8], first_block: int) -> None:
        at = (first_block - self.first) * BLOCK
        assert at >= 0 and at + out.nbytes <= self.made.nbytes, "drawn before it was made"
        out[...] = self.made[at : at + out.nbytes]


class Simulated:
    """The last party's component in a simulation: what is missing to what belongs to all operands."""

    by_openssl = True

    def __init__(self, family: Family, component: int, find: Find) -> None:
        self.family, self.component, self.find = family, component, find

    def fill(self, out: NDArray[np.uint8], first_block: int) -> None:
        family, which = self.family, self.component
        if family.kind is Kind.DOT:
            return self._matrices(out, first_block)
        count = -(-out.nbytes // BLOCK) * BLOCK * 8 // family.width
        operands = [[self._read(p, c, first_block, count) for c in range(OPERANDS[family.kind])] for p in (0, 1)]
        self._put(out, correlations.combined(family, operands), self._read(0, which, first_block, count))

    def _matrices(self, out: NDArray[np.uint8], first_block: int) -> None:
        """Units one after another, each in whole cache lines; the first one begins at `first_block`."""
        family, size = self.family, self.family.unit_blocks(self.component)
        for unit in range(-(-out.nbytes // (size * BLOCK)) if size else 0):
            number = first_block // size + unit
            operands = [
                [self._read(p, c, number * family.unit_blocks(c), family.units[c]) for c in range(2)] for p in (0, 1)
            ]
            piece = out[unit * size * BLOCK : (unit + 1) * size * BLOCK]
            rest = self._read(0, self.component, number * size, family.units[self.component])
            self._put(piece, correlations.combined(family, operands), rest)

    def _put(self, out: NDArray[np.uint8], known: Sequence[Any], other: Any) -> None:
        value = known[self.component - OPERANDS[self.family.kind]]
        mine = value ^ other if self.family.kind is Kind.AND else value - other
        raw = mine.astype(self.family.dtype).view(np.uint8)
        out[: len(raw)] = raw[: out.nbytes]

    def _read(self, party: int, component: int, first: int, count: int) -> NDArray[np.uint64]:
        return read(self.find(self.family.holders(party, component)), self.family, first, count)


class Made:
    """A party's correlated streams of a networked run."""

    def __init__(self, link: Link, find: Find) -> None:
        self.link, self.find, self.party = link, find, link.rank
        self._transfers: Transfers | None = None

    def prepare(self, draws: Mapping[Holders, int], start: Mapping[Holders, int]) -> None:
        """Make what a piece of program draws; `start`: where each stream stands. Both parties come here alike."""
        wanted = batches(draws)
        if not wanted:
            return
        self._begin(draws, start)
        operands = {f: self._operands(f, draws, start) for f in families(draws)}
        transfers = self._ready()
        for batch in wanted:
            pieces = [(chunk, _part(chunk, operands[chunk.family])) for chunk in batch]
            given = [x for chunk, own in pieces for x in correlations.inputs(chunk, own, self.party)]
            shares = transfers.run([job for chunk in batch for job in chunk.jobs], given)
            for chunk, own in pieces:
                n = len(chunk.jobs)
                self._keep(chunk, correlations.results(chunk, own, shares[:n]))
                shares = shares[n:]

    def _ready(self) -> Transfers:
        if self._transfers is None:
            with self.link.uncounted():
                self._transfers = Transfers(Sender(self._swap) if self.party == 0 else Receiver(self._swap))
        return self._transfers

    def _swap(self, body: bytes, size: int) -> bytes:
        got = np.empty(size, np.uint8)
        peer = 1 - self.party
        self.link.exchange({peer: [memoryview(body)]} if body else {}, {peer: [got]} if size else {})
        return got.tobytes()

    def _begin(self, draws: Mapping[Holders, int], start: Mapping[Holders, int]) -> None:
        for family in families(draws):
            for component in range(OPERANDS[family.kind], OPERANDS[family.kind] + RESULTS[family.kind]):
                name = family.holders(self.party, component)
                stream: Filled = self.find(name)
                stream.first, stream.made = start[name], np.zeros(draws[name] * BLOCK, np.uint8)

    def _operands(self, family: Family, draws: Mapping[Holders, int], start: Mapping[Holders, int]) -> list[Any]:
        """Each operand's words [units, words of a unit]."""
        out = []
        for component in range(OPERANDS[family.kind]):
            name = family.holders(self.party, component)
            count = draws[name] * BLOCK * 8 // family.width
            whole = read(self.find(name), family, start[name], count)
            if family.kind is Kind.DOT:
                size = family.unit_blocks(component) * BLOCK * 8 // family.width
                out.append(whole.reshape(-1, size)[:, : family.units[component]] if size else whole.reshape(0, 0))
            else:
                out.append(whole)
        return out

    def _keep(self, chunk: Any, found: Sequence[NDArray[np.uint64]]) -> None:
        family = chunk.family
        for i, value in enumerate(found):
            component = OPERANDS[family.kind] + i
            made = self.find(family.holders(self.party, component)).made.view(family.dtype)
            if family.kind is Kind.DOT:
                at = chunk.start * family.unit_blocks(component) * BLOCK * 8 // family.width
                made[at : at + len(value)] += value.astype(family.dtype)
            else:
                made[chunk.start : chunk.start + chunk.size] = value.astype(family.dtype)


def _part(chunk: Any, operands: Sequence[Any]) -> list[Any]:
    if chunk.family.kind is Kind.DOT:
        return [x[chunk.start] for x in operands]
    return [x[chunk.start : chunk.start + chunk.size] for x in operands]


def read(stream: Any, family: Family, first: int, count: int) -> NDArray[np.uint64]:
    """Words of a stream from a position on, as uint64."""
    raw = np.empty(count * family.width // 8, np.uint8)
    stream.fill(raw, first)
    return raw.view(family.dtype).astype(np.uint64)


def stream_of(holders: Holders, key: Callable[[Holders], bytes], find: Find, simulated: bool) -> Any:
    """The stream of that name: operands, and party 0's components in a simulation, are keystreams."""
    family, party, component = family_of(holders)
    if component < OPERANDS[family.kind] or (simulated and party == 0):
        return Stream(key(holders))
    return Simulated(family, component, find) if simulated else Filled()
