"""A party that deviates by a plan: it changes messages that belong together, knowing all that it sent before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import deviations
import numpy as np
from deviations import Cheat, Deviations

from spuvm.runtime.errors import SpuError

Sent = tuple[int, bytes]  # to whom, and what
Strategy = Callable[["Liar", int, int, bytes], bytes]


@dataclass
class Liar:
    """What a strategy knows: the numbers of the messages that it chose, and all until now, as they should be."""

    chosen: tuple[int, ...]
    delta: int
    history: list[Sent] = field(default_factory=list)
    rounds: list[list[int]] = field(default_factory=list)  # the messages of each round, by number

    def added(self, data: bytes, sign: int) -> bytes:
        """The first word, or what there is of one, with the delta added; short ones by exclusive or."""
        if len(data) < 8:
            return bytes([data[0] ^ 1 + self.delta % 254, *data[1:]]) if data else data
        word = (int.from_bytes(data[:8], "little") + sign * self.delta) % 2**64
        return word.to_bytes(8, "little") + data[8:]


def cancelling(liar: Liar, number: int, peer: int, data: bytes) -> bytes:
    """+d in one message, -d in another: sums of both are right."""
    return liar.added(data, 1 - 2 * liar.chosen.index(number)) if number in liar.chosen else data


def alike(liar: Liar, number: int, peer: int, data: bytes) -> bytes:
    """The same d in both: differences and exclusive ors of both are right."""
    return liar.added(data, 1) if number in liar.chosen else data


def replayed(liar: Liar, number: int, peer: int, data: bytes) -> bytes:
    """An older message again, in the place of a later one of its length."""
    first, later = liar.chosen
    old = liar.history[first][1] if number == later else data
    return old if len(old) == len(data) else data


def swapped(liar: Liar, number: int, peer: int, data: bytes) -> bytes:
    """Two receivers are told what the other should be, tags and openings of tags among them."""
    if number not in liar.chosen:
        return data
    others = [m for m in liar.rounds[-1] if m != number and len(liar.history[m][1]) == len(data)]
    return liar.history[others[0]][1] if others else data


STRATEGIES: dict[str, Strategy] = {s.__name__: s for s in (cancelling, alike, replayed, swapped)}


class Planned(Cheat):
    """All messages of one party go through a strategy."""

    def __init__(self, link: Any, at: int, manipulate: Any, seed: int, *, strategy: Strategy, liar: Liar) -> None:
        super().__init__(link, at, manipulate, seed)
        self.strategy, self.liar = strategy, liar

    def __call__(self, sends: dict[int, list[memoryview]], receives: Any) -> None:
        right = {peer: b"".join(bytes(v) for v in sends[peer]) for peer in sorted(sends)}
        first = len(self.liar.history)
        self.liar.rounds.append(list(range(first, first + len(right))))
        self.liar.history += right.items()
        out = {}
        for number, (peer, data) in enumerate(right.items(), first):
            told = self.strategy(self.liar, number, peer, data)
            self.changed |= told != data
            if told:
                out[peer] = [memoryview(told)]
        self.transfer(out, receives)


def outcome(run: Deviations, cheater: int, strategy: str, chosen: tuple[int, ...], delta: int) -> str:
    """One run: "stopped", "nothing" if nothing was changed or all is right, else "wrong"."""
    made = partial(Planned, strategy=STRATEGIES[strategy], liar=Liar(chosen, delta))
    right = run.right
    with mock.patch.object(deviations, "Cheat", made):
        results, cheat = run.run(cheater, 0)
    honest = [(rank, r) for rank, r in enumerate(results) if rank != cheater]
    for rank, result in honest:
        if not isinstance(result, SpuError):
            for got, want in zip(result, right[rank], strict=True):
                if not np.array_equal(got, want):
                    return "wrong"
    if not any(isinstance(r, SpuError) for _, r in honest):
        return "nothing" if not cheat.changed else "unseen"
    return "stopped"
