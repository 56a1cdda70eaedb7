"""Rounds and bytes of a choreography, exactly, without running it.

Bytes are those of the messages' contents as the link counts them. A round is an exchange in
which at least one byte moves; a party's rounds are those in which it sends or receives. A loop
costs its body times its trips; of a `while` whose trips depend on run-time values, one trip is
counted, and of a sort the comparisons that one example of a shuffle needs; the report says so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from spuvm.compiler.expand.choreography import Block, Check, Choreography, Cond, Loop, Rank, While
from spuvm.compiler.project.project import draws_of, message_of, shapes_of_products
from spuvm.compiler.project.schedule import Piece, pieces, reference_plan
from spuvm.compiler.seconds import Seconds
from spuvm.runtime.engine.correlated import Family, Holders, families, is_correlated, words
from spuvm.runtime.machine.checks import COMMITMENT_BYTES, OPENING_BYTES
from spuvm.runtime.machine.claims import Claim, steps
from spuvm.runtime.oblivious.plan import offline as offline_cost
from spuvm.runtime.protocols.ranking import batches

OFFLINE = "oblivious transfer"  # the operation under which preprocessing is listed


@dataclass
class Row:
    """One operation of the IR at one source line; `rounds` as if it ran alone."""

    op: str
    location: str
    calls: int = 0
    rounds: int = 0
    bytes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass
class Cost:
    """`rounds` of the whole program (independent operations share theirs), and per party.

    `drawn`: units of what two parties make by oblivious transfer. That is the `offline` part, which moves out of the
    run where it was made ahead; the rest is `online`.
    """

    parties: tuple[str, ...]
    rounds: int
    party_rounds: np.ndarray
    bytes_sent: np.ndarray
    rows: list[Row]
    exact: bool = True
    timed: Callable[[str], Seconds] | None = field(default=None, repr=False, compare=False)
    drawn: dict[Family, int] = field(default_factory=dict, repr=False, compare=False)

    def seconds(self, link: str) -> Seconds:
        """What one run takes over links like '25ms,100Mbit' (delay one way, width); computing is measured here.

        Raises InputError for what is no link, and for a program whose rounds depend on its data.
        """
        assert self.timed is not None
        return self.timed(link)

    @property
    def offline(self) -> tuple[int, np.ndarray]:
        """Rounds and bytes by party of what is made by oblivious transfer, within the run if not ahead of it."""
        made = [row for row in self.rows if row.op == OFFLINE]
        return sum(r.rounds for r in made), sum((r.bytes for r in made), np.zeros_like(self.bytes_sent))

    @property
    def online(self) -> tuple[int, np.ndarray]:
        """Rounds and bytes by party of all else."""
        rounds, sent = self.offline
        return self.rounds - rounds, self.bytes_sent - sent

    def after(self, rounds: int, sent: Sequence[int]) -> Cost:
        """Of a run within which so many rounds and bytes of the first parties were still offline."""
        online, left = self.online
        made = np.zeros_like(left)
        made[: len(sent)] = sent
        busy = self.party_rounds.copy()
        busy[: len(sent)] += rounds - self.offline[0]
        return replace(self, rounds=online + rounds, party_rounds=busy, bytes_sent=left + made)

    def by_op(self) -> list[Row]:
        return _merged(self.rows, lambda r: (r.op, ""))

    def by_line(self) -> list[Row]:
        return _merged(self.rows, lambda r: ("", r.location))

    def as_dict(self) -> dict[str, object]:
        """For JSON."""

        def rows(rows: list[Row]) -> list[dict[str, object]]:
            return [
                {
                    "op": r.op,
                    "line": r.location,
                    "calls": r.calls,
                    "rounds": r.rounds,
                    "bytes": r.bytes.tolist(),
                }
                for r in rows
            ]

        return {
            "parties": list(self.parties),
            "rounds": self.rounds,
            "party_rounds": self.party_rounds.tolist(),
            "bytes_sent": self.bytes_sent.tolist(),
            "exact": self.exact,
            "by_op": rows(self.by_op()),
            "by_line": rows(self.by_line()),
        }

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.rounds} rounds"
                + ("" if self.exact else " (one trip counted of each run-time loop, one example of each sort)"),
                *self._parts(),
                *_table("party", ["rounds", "bytes sent"], self._party_lines()),
                "",
                *_table("operation", ["calls", "rounds alone", *self.parties], _lines(self.by_op(), "op")),
                "",
                *_table("line", ["calls", "rounds alone", *self.parties], _lines(self.by_line(), "location")),
            ]
        )

    __repr__ = __str__

    def _parts(self) -> list[str]:
        """How much of it can be made ahead."""
        rounds, sent = self.offline
        if not rounds:
            return []
        online, left = self.online
        return [
            f"offline {rounds} rounds, {sent.sum():,} bytes, within the run or ahead of it; online {online} rounds, "
            f"{left.sum():,} bytes"
        ]

    def _party_lines(self) -> list[list[str]]:
        return [[p, f"{r:,}", f"{b:,}"] for p, r, b in zip(self.parties, self.party_rounds, self.bytes_sent)]


def _lines(rows: Iterable[Row], key: str) -> list[list[str]]:
    ordered = sorted(rows, key=lambda r: -int(r.bytes.sum()))
    return [
        [getattr(r, key), f"{r.calls:,}", f"{r.rounds:,}", *(f"{b:,}" for b in r.bytes)]
        for r in ordered
        if r.bytes.sum()
    ]


def _table(first: str, rest: list[str], lines: list[list[str]]) -> list[str]:
    cells = [[first, *rest], *lines]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))) for line in cells
    ]


def _merged(rows: Iterable[Row], key: Callable[[Row], tuple[str, str]]) -> list[Row]:
    out: dict[tuple[str, str], Row] = {}
    for row in rows:
        op, location = key(row)
        into = out.setdefault((op, location), Row(op, location, bytes=np.zeros_like(row.bytes)))
        into.calls += row.calls
        into.rounds += row.rounds
        into.bytes = into.bytes + row.bytes
    return list(out.values())


def cost(choreography: Choreography, parties: tuple[str, ...]) -> Cost:
    """The cost of one run."""
    counter = _Counter(len(parties))
    counter.block(choreography.block, 1)
    return Cost(
        parties,
        counter.rounds,
        counter.party_rounds,
        counter.sent,
        list(counter.rows.values()),
        counter.exact,
        drawn=dict(counter.drawn),
    )


class _Counter:
    def __init__(self, n: int) -> None:
        self.n = n
        self.rounds = 0
        self.party_rounds = np.zeros(n, np.int64)
        self.sent = np.zeros(n, np.int64)
        self.rows: dict[tuple[str, str], Row] = {}
        self.exact = True
        self.drawn: Counter[Family] = Counter()
        self.claims: list[Claim] = []  # products since the last check, all of them in the same block

    def block(self, block: Block, times: int) -> None:
        for part in pieces(block):
            match part:
                case Piece():
                    self.piece(part, times)
                case Loop():
                    before, self.claims = self.claims, []
                    self.block(part.body, times * part.trips)
                    self.claims = before + self.claims * part.trips  # none are left if the body ends with a check
                case Cond():
                    self.exact = False
                    self.block(part.branches[0], times)
                case While():
                    self.exact = False
                    self.block(part.condition, times)
                    self.block(part.body, times)
                case Check():
                    self.check(part, times)
                case Rank():
                    self.exact = False
                    for pairs in batches(part.rows, part.length, part.wanted):
                        self.block(part.batch(pairs), times)

    def check(self, step: Check, times: int) -> None:
        key = (step.op, str(step.location))
        row = self.rows.setdefault(key, Row(*key, bytes=np.zeros(self.n, np.int64)))
        sent = np.zeros(self.n, np.int64)
        rounds = 0
        for what, nbytes in (*steps(self.claims), ("compare", 0)):
            sent[: step.parties] += {
                "words": nbytes,
                "coin": (step.parties - 1) * nbytes,
                "compare": (step.parties - 1) * (COMMITMENT_BYTES + OPENING_BYTES),
            }[what]
            rounds += 2 if what == "compare" else 1
        self.claims = []
        row.calls += times
        row.rounds += rounds * times
        row.bytes += times * sent
        self.sent += times * sent
        self.rounds += rounds * times
        self.party_rounds[: step.parties] += rounds * times

    def offline(self, piece: Piece, times: int) -> None:
        """What two parties make by oblivious transfer before a piece."""
        draws: dict[Holders, int] = defaultdict(int)
        for placed in piece.calls:
            if not placed.call.spec.communicates:
                continue  # only what parties exchange takes correlated randomness
            for holders, n in draws_of(placed.call).items():
                if is_correlated(holders):
                    draws[holders] += n
        for family, positions in families(draws).items():
            self.drawn[family] += times * words(family, positions)
        rounds, by_party = offline_cost(draws)
        if rounds:
            row = self.rows.setdefault((OFFLINE, ""), Row(OFFLINE, "", bytes=np.zeros(self.n, np.int64)))
            sent = np.zeros(self.n, np.int64)
            sent[:2] = by_party
            row.calls += times
            row.rounds += times * rounds
            row.bytes += times * sent
            self.sent += times * sent
            self.rounds += times * rounds
            self.party_rounds[:2] += times * rounds

    def piece(self, piece: Piece, times: int) -> None:
        active: dict[int, set[int]] = defaultdict(set)
        self.offline(piece, times)
        for placed in piece.calls:
            call = placed.call
            if not call.spec.communicates:
                continue
            plan = reference_plan(call)
            for m, shapes in zip(plan.multiplied, shapes_of_products(call, plan)):
                self.claims.append(Claim(m.how, shapes, 8 * np.dtype(m.dtype).itemsize))
            sent = np.zeros(self.n, np.int64)
            for number, message in enumerate(plan.sent):
                size = message_of(call, number, 0).nbytes
                sent[message.src] += size
                if size:
                    active[placed.round + message.stage] |= {message.src, message.dst}
            key = (call.op, str(call.location))
            row = self.rows.setdefault(key, Row(*key, bytes=np.zeros(self.n, np.int64)))
            row.calls += times
            row.rounds += times * plan.rounds
            row.bytes += times * sent
            self.sent += times * sent
        self.rounds += times * len(active)
        for members in active.values():
            self.party_rounds[list(members)] += times
