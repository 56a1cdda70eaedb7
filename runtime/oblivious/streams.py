"""Correlated streams as a run draws from them: filled by transfers and ring-LWE with the other party, or simulated.

Semi-honest parties, but for the transfers' check. What is made before a piece of program is kept until the next piece.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.engine.correlated import BLOCK, OPERANDS, Family, Holders, Kind, families, family_of, words
from spuvm.runtime.engine.random import Stream
from spuvm.runtime.link.link import Link
from spuvm.runtime.oblivious import correlations
from spuvm.runtime.oblivious.matrices import Layout, layout_of
from spuvm.runtime.oblivious.plan import Chunk, groups, offline
from spuvm.runtime.oblivious.products import Products
from spuvm.runtime.oblivious.silent import Receiver, Sender
from spuvm.runtime.oblivious.store import Store
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


class Own(Filled):
    """A party's own words: of a keystream, or what was stored with what was made of them."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream


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


class Within(NamedTuple):
    """What was made within runs, not ahead of them: rounds, and bytes that parties 0 and 1 sent."""

    rounds: int
    sent: tuple[int, ...]


class Made:
    """A party's correlated streams of a networked run: what is stored is taken, the rest is made."""

    def __init__(self, link: Link, find: Find) -> None:
        self.link, self.find, self.party = link, find, link.rank
        self.store: Store | None = None
        self.within = Within(0, (0, 0))
        self._transfers: Transfers | None = None
        self._products: dict[int, Products] = {}  # by the width of words

    def prepare(self, draws: Mapping[Holders, int], start: Mapping[Holders, int]) -> None:
        """What a piece of program draws; `start`: where each stream stands. Both parties come here alike."""
        wanted = {family: words(family, positions) for family, positions in families(draws).items()}
        self._begin(draws, start)
        stored = {} if self.store is None else self.store.take(wanted)
        there = {family: self._restored(family, found) for family, found in stored.items()}
        missing = {family: n - there.get(family, 0) for family, n in wanted.items()}
        rounds, sent = offline(_draws(missing))
        self.within = Within(self.within.rounds + rounds, tuple(a + b for a, b in zip(self.within.sent, sent)))
        self._make(missing, there)

    def ahead(self, family: Family, units: int, start: Mapping[Holders, int]) -> None:
        """Make a chunk and store it."""
        assert self.store is not None
        self._begin(family.draws(units), start)
        self._make({family: units}, {})
        self.store.put(family, [self._stream(family, c).made for c in range(family.components)])

    def swap(self, body: bytes, size: int) -> bytes:
        """Say something to the other party, and hear it, of known sizes."""
        got = np.empty(size, np.uint8)
        peer = 1 - self.party
        self.link.exchange({peer: [memoryview(body)]} if body else {}, {peer: [got]} if size else {})
        return got.tobytes()

    def _make(self, units: Mapping[Family, int], after: Mapping[Family, int]) -> None:
        """So many units of each family, behind those that are there."""
        for family, n in sorted(units.items()):
            if n and (layout := layout_of(family)) is not None:
                self._multiply(family, layout, n, after.get(family, 0))
        wanted = groups(_draws(units))
        if not wanted:
            return
        operands = {f: self._operands(f, n, after.get(f, 0)) for f, n in units.items()}
        for group in wanted:

            def given(number: int, group: Sequence[Sequence[Chunk]] = group) -> list[Any]:
                pieces = [(chunk, _part(chunk, operands[chunk.family])) for chunk in group[number]]
                return [x for chunk, own in pieces for x in correlations.inputs(chunk, own, self.party)]

            jobs = [[job for chunk in batch for job in chunk.jobs] for batch in group]
            for batch, shares in zip(group, self._ready().run(jobs, given)):
                for chunk in batch:
                    own, n = _part(chunk, operands[chunk.family]), len(chunk.jobs)
                    self._keep(chunk, correlations.results(chunk, own, shares[:n]), after.get(chunk.family, 0))
                    shares = shares[n:]

    def _multiply(self, family: Family, layout: Layout, units: int, after: int) -> None:
        """So many products of matrices by ring-LWE: a_i b_i, and a share of the cross terms."""
        if family.width not in self._products:
            with self.link.uncounted():
                self._products[family.width] = Products(family.width, self.swap)
        g, m, k, n = family.parameters
        a, b = self._operands(family, units, after)
        a, b = a.reshape(-1, m, k), b.reshape(-1, k, n)
        x, y = (b.transpose(0, 2, 1), a.transpose(0, 2, 1)) if layout.turned else (a, b)
        crossed = self._products[family.width].crossed(layout, x, y)
        own = correlations.products(a, b)
        whole = (own + (crossed.transpose(0, 2, 1) if layout.turned else crossed)).reshape(units, -1)
        size = family.unit_bytes(2) * 8 // family.width
        made = self._words(family, 2, after)[: units * size].reshape(units, size)
        made[:, : g * m * n] = whole.astype(family.dtype)

    def _ready(self) -> Transfers:
        if self._transfers is None:
            with self.link.uncounted():
                self._transfers = Transfers(Sender(self.swap) if self.party == 0 else Receiver(self.swap))
        return self._transfers

    def _stream(self, family: Family, component: int) -> Filled:
        stream: Filled = self.find(family.holders(self.party, component))
        return stream

    def _begin(self, draws: Mapping[Holders, int], start: Mapping[Holders, int]) -> None:
        for family in families(draws):
            for component in range(family.components):
                name, stream = family.holders(self.party, component), self._stream(family, component)
                stream.first, stream.made = start[name], np.zeros(draws[name] * BLOCK, np.uint8)
                if isinstance(stream, Own):
                    stream.stream.fill(stream.made, stream.first)

    def _restored(self, family: Family, components: Sequence[NDArray[np.uint8]]) -> int:
        """How many units were stored; they are in their places now."""
        for component, found in enumerate(components):
            self._stream(family, component).made[: found.nbytes] = found
        return components[0].nbytes // family.unit_bytes(0)

    def _words(self, family: Family, component: int, after: int) -> NDArray[Any]:
        """A component as words, behind so many units."""
        made = self._stream(family, component).made
        return made[after * family.unit_bytes(component) :].view(family.dtype)

    def _operands(self, family: Family, units: int, after: int) -> list[Any]:
        """Each operand's words [units, words of a unit]."""
        out = []
        for component in range(OPERANDS[family.kind]):
            whole = self._words(family, component, after)
            size = family.unit_bytes(component) * 8 // family.width
            whole = whole[: units * size].astype(np.uint64)
            if family.kind is Kind.DOT:
                whole = whole.reshape(-1, size)[:, : family.units[component]] if size else whole.reshape(0, 0)
            out.append(whole)
        return out

    def _keep(self, chunk: Any, found: Sequence[NDArray[np.uint64]], after: int) -> None:
        family = chunk.family
        for i, value in enumerate(found):
            component = OPERANDS[family.kind] + i
            made = self._words(family, component, after)
            if family.kind is Kind.DOT:
                at = chunk.start * family.unit_bytes(component) * 8 // family.width
                made[at : at + len(value)] += value.astype(family.dtype)
            else:
                made[chunk.start : chunk.start + chunk.size] = value.astype(family.dtype)


def _draws(units: Mapping[Family, int]) -> dict[Holders, int]:
    return {holders: n for family, count in units.items() for holders, n in family.draws(count).items()}


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
    """The stream of that name: a party's own words; in a simulation all but what party 1 lacks are keystreams."""
    family, party, component = family_of(holders)
    own = component < OPERANDS[family.kind]
    if simulated:
        return Stream(key(holders)) if own or party == 0 else Simulated(family, component, find)
    return Own(Stream(key(holders))) if own else Filled()
