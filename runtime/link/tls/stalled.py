"""Who awaits whom, as the parties say while nothing moves: so that who stopped first is named, not who waits for it.

A party that has waited for a quarter of its limit says for whom, to all, and again each quarter. What it has heard
of others goes with it, as frames of theirs may wait behind messages that nobody takes. When its limit is over, it
follows what was said lately from whom it awaits to whom they await: those at the end, who say nothing, are the cause.
Where all wait for each other it is not known.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

SAYS = 1 / 4  # of the limit, between two times that a party says so
FRESH = 0.6  # of the limit: what was said longer ago may be over


@dataclass(frozen=True)
class _Said:
    awaited: tuple[int, ...]
    at: float  # by this party's clock


class Waits:
    """What is known of it at the party `rank` of `parties`; times are in seconds, of one clock."""

    def __init__(self, rank: int, parties: Sequence[str]) -> None:
        self._rank = rank
        self._parties = tuple(parties)
        self._said: dict[int, _Said] = {}
        self._moved: dict[int, float] = {}

    def frame(self, awaited: Collection[int], now: float) -> bytes:
        """What this party says: by rank, whom it awaits, and how long ago that was said."""
        self._said[self._rank] = _Said(tuple(sorted(awaited)), now)
        body = {rank: [said.awaited, round(now - said.at, 3)] for rank, said in self._said.items()}
        return json.dumps(body).encode()

    def hear(self, body: bytes, now: float) -> bool:
        """Take in what a peer says; False if it is malformed."""
        try:
            items = json.loads(body).items()
            said = {int(rank): _Said(tuple(map(int, who)), now - float(age)) for rank, (who, age) in items}
        except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
            return False
        ranks = range(len(self._parties))
        if not all(r in ranks and all(w in ranks for w in s.awaited) and s.at <= now for r, s in said.items()):
            return False
        for rank, new in said.items():
            known = self._said[rank].at if rank in self._said else self._moved.get(rank, 0.0)
            if rank != self._rank and known < new.at:
                self._said[rank] = new
        return True

    def moved(self, peer: int, now: float) -> None:
        """Something else came from the peer: it is not where it was when it said so."""
        self._moved[peer] = now
        self._said.pop(peer, None)

    def causes(self, awaited: Collection[int], since: float) -> tuple[list[int], list[tuple[int, int]]]:
        """The ranks from whom nothing is known but silence, and who awaits whom on the way there; no rank if all wait.

        `since`: what was said before is no longer believed.
        """
        seen, causes, steps = {self._rank}, [], []
        work = [r for r in awaited if r not in seen]
        while work:
            rank = work.pop(0)
            if rank in seen:
                continue
            seen.add(rank)
            said = self._said.get(rank)
            if said is None or said.at < since or not said.awaited:
                causes.append(rank)
                continue
            steps += [(rank, other) for other in said.awaited]
            work += said.awaited
        return sorted(causes), steps

    def text(self, awaited: Collection[int], what: str, limit: float, now: float) -> str:
        """The sentence for the error when `awaited` have not come for `limit` seconds."""
        me, names = self._parties[self._rank], self._parties
        causes, steps = self.causes(awaited, now - FRESH * limit)
        chain = ", ".join(f"{names[a]} awaits {names[b]}" for a, b in steps)
        if not causes:
            return (
                f"Nothing moved for {limit:g} s while {me} awaited {what} from {_and(names, awaited)}, and it is not "
                f"known who failed first: all say that they wait ({chain})."
            )
        direct = set(causes) <= set(awaited)
        if direct and not steps:
            return f"Nothing came from {_and(names, causes)} for {limit:g} s while {me} awaited {what}."
        return (
            f"Nothing came from {_and(names, causes)} for {limit:g} s: {me} awaited {what} from "
            f"{_and(names, awaited)}, and {chain}."
        )


def _and(names: Sequence[str], ranks: Collection[int]) -> str:
    return " and ".join(names[r] for r in sorted(ranks))
