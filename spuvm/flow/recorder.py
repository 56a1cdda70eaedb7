"""What a node cost and showed: the programs that it ran, and what parties handed out beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from spuvm.compiler.compile import Program
from spuvm.compiler.ir.module import Region
from spuvm.watching import WATCHER

ALL = "all parties"


@dataclass
class Spent:
    """Rounds, bytes sent by party, and reveals: (what, to whom, how many numbers) with how often.

    Of loops that stop early, one trip is counted, and `exact` is false.
    """

    rounds: int = 0
    sent: dict[str, int] = field(default_factory=dict)
    reveals: dict[tuple[str, str, int], int] = field(default_factory=dict)
    programs: int = 0
    exact: bool = True

    def ran(self, program: Program) -> None:
        """A program is about to run."""
        cost = program.cost
        self.programs += 1
        self.rounds += cost.rounds
        self.exact = self.exact and cost.exact
        for party, sent in zip(cost.parties, cost.bytes_sent):
            self.sent[party] = self.sent.get(party, 0) + int(sent)
        for to, size in _reveals(program.module.body):
            who = ALL if isinstance(to, str) else program.config.members[to]
            name = program.module.name
            self.note("revealed values" if name == "reveal" else f"values of `{name}`", who, size)

    def shown(self, what: str, to: str) -> None:
        """A party hands something out in the clear."""
        self.note(what, to, 0)

    def note(self, what: str, to: str, size: int) -> None:
        """Remember a reveal."""
        key = (what, to, size)
        self.reveals[key] = self.reveals.get(key, 0) + 1

    @property
    def bytes(self) -> int:
        """That all parties sent."""
        return sum(self.sent.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        reveals = [[*key, times] for key, times in self.reveals.items()]
        return {"rounds": self.rounds, "sent": self.sent, "reveals": reveals, "exact": self.exact}

    @classmethod
    def of_dict(cls, x: Mapping[str, Any]) -> Spent:
        """The inverse of `as_dict`."""
        reveals = {(str(w), str(to), int(n)): int(times) for w, to, n, times in x["reveals"]}
        return cls(x["rounds"], dict(x["sent"]), reveals, 0, x["exact"])


def _reveals(region: Region) -> Iterator[tuple[Any, int]]:
    for op in region.ops:
        if op.name == "reveal":
            size = 1
            for n in op.output.shape:
                size *= n
            yield op.attrs["to"], size
        for inner in op.regions:
            yield from _reveals(inner)


@contextmanager
def recording() -> Iterator[Spent]:
    """Record what the body runs and shows, in this thread."""
    spent = Spent()
    token = WATCHER.set(spent)
    try:
        yield spent
    finally:
        WATCHER.reset(token)
