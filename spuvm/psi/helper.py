"""Helper mode: a party that owns none of the tables finds which keys are equal, from tags that say nothing else.

Security: semi-honest; the helper colludes with no owner. It learns how many rows each owner has, which of their tags
are equal, and how often one occurs: the pattern of matches, but no key and no row. Owners learn each other's sizes,
and what the output shows. Who computes tags can test guesses: a helper that colluded with one owner could find out
every key of a domain small enough to try (birthdays, telephone numbers, running numbers).

    1. The owners have a key in common that the helper does not know (`tags.py`).
    2. Each sorts its rows by tag, a random order to anybody without the key, and sends the helper the tags.
    3. The helper finds equal ones. What it found it tells (a bit a row), or it applies it to shares (`selection.py`).

S. Kamara, P. Mohassel, M. Raykova, S. Sadeghian: Scaling private set intersection to billion-element sets, FC 2014.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from spuvm.objects import SPUObject
from spuvm.psi.places import Held, Move
from spuvm.psi.plan import Plan
from spuvm.psi.selection import Asked, Roles, select
from spuvm.psi.sharing import secrets_of, unpacked, words_dtype
from spuvm.psi.tables import Table, Words
from spuvm.psi.tags import order, tags


@dataclass(eq=False)
class Helper:
    """One join in helper mode: tags are sent once, whatever is asked of them."""

    plan: Plan
    _orders: dict[str, Held] = field(default_factory=dict)
    _tags: dict[str, Held] = field(default_factory=dict)

    @property
    def helper(self) -> str:
        assert self.plan.helper is not None
        return self.plan.helper

    def send_tags(self) -> None:
        """Steps 1 and 2."""
        places, owners = self.plan.places, self.plan.owners
        key = places.key(owners, "tags")
        moves = []
        for party in owners:
            found = places.run(party, _sorted_tags, self.plan.tables[party], key)
            self._orders[party] = places.run(party, lambda x: x[0], found)
            mine = places.run(party, lambda x: x[1], found)
            moves.append(Move(mine, party, self.helper, (self.plan.rows(party), 2), np.uint64))
        self._tags = dict(zip(owners, places.move(*moves)))

    def order(self, party: str) -> Held:
        """At the party: its rows in the order of the output."""
        if not self._tags:
            self.send_tags()
        return self._orders[party]

    def pointers(self, base: str, other: str) -> Held:
        """At the helper, int64[rows of base]: the row of `other` with the same key, or -1; both in tag order."""
        self.order(base)
        return self.plan.places.run(self.helper, find, self._tags[base], self._tags[other])

    def matched(self, base: str, other: str) -> SPUObject:
        """bool[rows of base]: whether `other` has its key. Secret."""
        pointers = self.pointers(base, other)
        bits = self.plan.places.run(self.helper, lambda p: (p >= 0).astype(np.uint8)[None], pointers)
        return secrets_of(self.plan.vm, {self.helper: bits}, (1, self.plan.rows(base)), True)[0]

    def probe(
        self, base: str, other: str, words: Held, numbers: int, bits: int
    ) -> tuple[list[SPUObject], list[SPUObject]]:
        """The columns of `other` beside the rows of `base`: zeros where there is no match."""
        repeated = not self.plan.said[base]["unique"]
        pointers = self.pointers(base, other)
        return self.selected(other, base, words, numbers, bits, pointers, self.plan.rows(base), repeated, True)

    def pairs(self, first: str, second: str, bound: int) -> tuple[Held, Held, bool]:
        """At the helper, int64[bound] each: the rows of every pair with equal keys, in tag order, and -1 behind them;
        and, told to all, whether they are no more than the bound."""
        self.order(first)
        places = self.plan.places
        found = places.run(self.helper, pairs, self._tags[first], self._tags[second], bound)
        fits = bool(places.tell(self.helper, places.run(self.helper, lambda f: bool(f[2]), found), bool))
        return places.run(self.helper, lambda f: f[0], found), places.run(self.helper, lambda f: f[1], found), fits

    def selected(
        self,
        sender: str,
        receiver: str,
        words: Held,
        numbers: int,
        bits: int,
        pointers: Held,
        rows: int,
        repeated: bool,
        together: bool,
    ) -> tuple[list[SPUObject], list[SPUObject]]:
        """The sender's columns, in the rows that the helper's pointers say; see `selection.Asked`."""
        plan, places = self.plan, self.plan.places
        order = self.order(sender)
        roles = Roles(self.helper, sender, receiver)
        out: list[list[SPUObject]] = []
        for count, is_bits in ((numbers, False), (bits, True)):
            columns = -(-count // 8) if is_bits else count
            if not columns:
                out.append([])
                continue
            matrix = places.run(sender, _rows, words, order, is_bits)
            asked = Asked(columns, plan.rows(sender), rows, repeated, together)
            dtype = np.uint8 if is_bits else words_dtype(plan.vm)
            shares = select(places, matrix, pointers, asked, roles, dtype)
            if is_bits:
                shares = {p: places.run(p, lambda x: np.stack(unpacked(x, bits)), s) for p, s in shares.items()}
            out.append(secrets_of(plan.vm, shares, (count, rows), is_bits))
        return out[0], out[1]


def _sorted_tags(table: Table, key: bytes) -> tuple[np.ndarray, np.ndarray]:
    found = tags(table.keys, key)
    by = order(found)
    return by, found[by]


def _rows(words: Words, order: np.ndarray, bits: bool) -> np.ndarray:
    return np.ascontiguousarray((words.bits if bits else words.numbers)[:, order])


def find(wanted: np.ndarray, among: np.ndarray) -> np.ndarray:
    """int64[n]: where each of n sorted tags is among others, sorted too; else -1. The first of equal ones."""
    at = np.searchsorted(among[:, 0], wanted[:, 0])
    last = len(among) - 1
    while True:
        here = among[np.minimum(at, last)]
        near = (at <= last) & (here[:, 0] == wanted[:, 0])
        behind = near & (here[:, 1] < wanted[:, 1])
        if not behind.any():
            return np.where(near & (here[:, 1] == wanted[:, 1]), at, -1)
        at = at + behind


def pairs(first: np.ndarray, second: np.ndarray, bound: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Of two lists of sorted tags, the positions of all pairs of equal ones: int64[bound], -1 behind them. Whether all
    are there."""
    begin = find(first, second)
    starts = np.flatnonzero(np.concatenate([[True], (second[1:] != second[:-1]).any(1)])[: len(second)])
    size = np.zeros(len(second) + 1, np.int64)  # of the run that begins at a position; none begins at the last
    size[starts] = np.diff(np.append(starts, len(second)))
    counts = size[begin]
    fits = int(counts.sum()) <= bound
    mine = np.repeat(np.arange(len(first)), counts)[:bound]
    places = np.arange(len(mine)) - np.repeat(np.cumsum(counts) - counts, counts)[:bound]
    out = np.full((2, bound), -1, np.int64)
    out[:, : len(mine)] = mine, begin[mine] + places
    return out[0], out[1], fits
