"""A party that deviates: each of its messages changed in turn, and what the others make of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import permutations
from typing import Any
from unittest import mock

import numpy as np
from machine import key, program, shared_inputs

import spuvm as spu
from spuvm.compiler.expand.choreography import Choreography
from spuvm.runtime.errors import DeviationError, LinkError, SpuError
from spuvm.runtime.link.memory_link import memory_links
from spuvm.runtime.machine.checks import OPENING_BYTES, TAG_BYTES, Checks, commitment
from spuvm.runtime.machine.executor import Executor, Streams
from spuvm.runtime.protocols.algebra import Algebra


def flipped(data: bytes, before: bytes, rng: Any) -> bytes:
    out = bytearray(data)
    out[int(rng.integers(len(out)))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def replaced(data: bytes, before: bytes, rng: Any) -> bytes:
    return rng.bytes(len(data))  # type: ignore[no-any-return]


def repeated(data: bytes, before: bytes, rng: Any) -> bytes:
    return (before * (len(data) // max(len(before), 1) + 1))[: len(data)] if before else flipped(data, before, rng)


def reordered(data: bytes, before: bytes, rng: Any) -> bytes:
    return data[::-1]


def zeroed(data: bytes, before: bytes, rng: Any) -> bytes:
    return bytes(len(data))


MANIPULATIONS: tuple[Callable[[bytes, bytes, Any], bytes], ...] = (flipped, replaced, repeated, reordered, zeroed)


class Cheat:
    """The outgoing messages of one party, of which number `at` is changed on its way."""

    def __init__(self, link: Any, at: int, manipulate: Callable[[bytes, bytes, Any], bytes], seed: int) -> None:
        self.at, self.manipulate, self.rng = at, manipulate, np.random.default_rng(seed + 1)
        self.count, self.changed = 0, False
        self.before: dict[int, bytes] = {}
        self.transfer = link._transfer
        link._transfer = self

    def __call__(self, sends: dict[int, list[memoryview]], receives: Any) -> None:
        out = {}
        for peer in sorted(sends):
            data = b"".join(bytes(v) for v in sends[peer])
            if self.count == self.at:
                new = self.manipulate(data, self.before.get(peer, b""), self.rng)
                self.changed = new != data
                self.before[peer], data = data, new
            else:
                self.before[peer] = data
            self.count += 1
            if data:
                out[peer] = [memoryview(data)]
        self.transfer(out, receives)


def _shameless(checks: Checks, parties: int) -> None:
    """The comparison of a party that finds nothing wrong: it would be the first to see what it did, and tell."""
    link, peers, opening = _said(checks, parties)
    for said in (commitment(link.rank, opening), opening):
        link.exchange({p: [said] for p in peers}, {p: [np.empty_like(said)] for p in peers})


def last_word(checks: Checks, parties: int) -> None:
    """The comparison of a party that waits for what the others say, and says what makes the sum zero."""
    link, peers, opening = _said(checks, parties)
    mine = commitment(link.rank, opening)
    link.exchange({p: [mine] for p in peers}, {p: [np.empty_like(mine)] for p in peers})
    heard = {p: np.empty_like(opening) for p in peers}
    link.exchange({}, {p: [x] for p, x in heard.items()})
    opening[:TAG_BYTES] = np.bitwise_xor.reduce([*heard.values()])[:TAG_BYTES]
    link.exchange({p: [opening] for p in peers}, {})


def _said(checks: Checks, parties: int) -> tuple[Any, list[int], Any]:
    assert checks._link is not None
    peers = [p for p in range(parties) if p != checks._link.rank]
    random = np.zeros(OPENING_BYTES - TAG_BYTES, np.uint8)
    return checks._link, peers, np.concatenate([checks.told(peers), random])


def dropped(data: bytes, before: bytes, rng: Any) -> bytes:
    return b""


class Deviations:
    """A program on float32 arrays, run by all parties, of which one may change one of its messages."""

    def __init__(self, function: Any, arguments: Sequence[Any], protocol: str, algebra: Algebra, parties: int) -> None:
        self.n, self.keys = parties, key
        self.made: Choreography = spu.jit(function, protocol=protocol).compile(*arguments).choreography
        raws = [np.rint(v * 2.0**18).astype(np.int64).view(np.uint64) for v in arguments]
        self.inputs = shared_inputs(self.made, raws, algebra=algebra)

    @cached_property
    def programs(self) -> list[Any]:
        return [program(self.made, rank) for rank in range(self.n)]

    @cached_property
    def right(self) -> list[Any]:
        """What each party has after a run in which nobody deviates."""
        results, _ = self.run(None, 0)
        assert not any(isinstance(r, SpuError) for r in results), results
        made: list[Any] = results
        return made

    def run(
        self,
        cheater: int | None,
        at: int,
        manipulate: Any = flipped,
        timeout: float = 20,
        compare: Callable[[Checks, int], None] = _shameless,
    ) -> tuple[Any, Any]:
        """What each party got or raised, and what the cheater did, which compares tags by `compare`."""
        slots = [s for port in self.made.inputs for s in port.slots]
        links = memory_links(tuple("abcd"[: self.n]), timeout=timeout)
        cheat = None if cheater is None else Cheat(links[cheater], at, manipulate, at)

        def party(rank: int) -> Any:
            mine = [x if rank in s.holders else None for s, x in zip(slots, self.inputs, strict=True)]
            executor = Executor(Streams(self.keys, rank), links[rank])
            if rank == cheater:
                executor.checks.compare = partial(compare, executor.checks)  # type: ignore[method-assign]
            try:
                return executor.run(self.programs[rank], mine)
            except SpuError as e:
                links[rank].abort(f"{type(e).__name__}: {e}")
                return e

        with ThreadPoolExecutor(self.n) as pool:
            return list(pool.map(party, range(self.n))), cheat

    def hidden(self, cheater: int, at: int, manipulate: Any = flipped) -> bool:
        """Whether of all that is compared in this run, some two honest parties differ in tags of their own key.

        Then what the cheater is told is random to it, whatever others computed from its lie.
        """
        found: dict[int, list[Any]] = {}
        taken = Checks.taken

        def observed(checks: Checks) -> Any:
            assert checks._link is not None
            found.setdefault(checks._link.rank, []).append(taken(checks))
            return found[checks._link.rank][-1]

        with mock.patch.object(Checks, "taken", observed):
            self.run(cheater, at, manipulate)
        honest = [p for p in range(self.n) if p != cheater]
        return any(
            (theirs[p][1] != mine[q][0]).any()
            for p, q in permutations(honest, 2)
            for mine, theirs in zip(found.get(p, []), found.get(q, []))
            if p in theirs and q in mine
        )

    @cached_property
    def messages(self) -> list[tuple[int, int]]:
        """Who sends them, and their number there."""
        counts = [self.run(cheater, -1)[1].count for cheater in range(self.n)]
        return [(cheater, at) for cheater, count in enumerate(counts) for at in range(count)]

    def unseen(
        self,
        cheater: int,
        at: int,
        manipulate: Any,
        padded: bool = False,
        compare: Callable[[Checks, int], None] = _shameless,
    ) -> bool:
        """Run with one message changed; whether nothing was changed by it. Nobody honest is shown a wrong result.

        With `padded`, it may have been one of the bits that fill up the last byte of a message: then all is right.
        """
        right = self.right
        results, cheat = self.run(cheater, at, manipulate, 0.5 if manipulate is dropped else 20, compare)
        honest = [r for rank, r in enumerate(results) if rank != cheater]
        if padded and not any(isinstance(r, SpuError) for r in results):
            cheat.changed = False
        if cheat.changed:
            noticed = LinkError if manipulate is dropped else DeviationError
            assert any(isinstance(r, noticed) for r in results), f"message {at} of party {cheater}: nobody noticed"
            assert any(isinstance(r, SpuError) for r in honest)
        for rank, result in enumerate(results):
            if rank != cheater and not isinstance(result, SpuError):
                for got, want in zip(result, right[rank], strict=True):
                    np.testing.assert_array_equal(got, want)
        return not cheat.changed
