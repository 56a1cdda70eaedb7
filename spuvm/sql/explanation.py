"""What a query would do: its plan, what it costs, what anybody learns, and whether the owners allow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spuvm.sql.drawing import svg
from spuvm.sql.planning import Plan
from spuvm.sql.verdicts import Refusal

KNOWN = (
    "to all parties: the query, the tables' names, columns, types, numbers of rows and announced statistics; orders of "
    "rows that were shuffled before, which tell nothing"
)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Of a query; prints as text.

    Attributes:
        refusals: what speaks against it, by owner; tripwires aside, which only their owners can read.
        reveals: what is shown to whom.
        joins: of each join by owners' keys, what it takes, and what sorting would.
        cost: rounds and bytes, see `spuvm.compiler.cost`; None if it was not asked for.
        memory: bytes that it takes here, about; of a simulation, of all parties.
    """

    plan: Plan
    to: str
    refusals: tuple[Refusal, ...]
    reveals: tuple[str, ...]
    cost: Any
    joins: tuple[str, ...] = ()
    memory: int = 0

    @property
    def allowed(self) -> bool:
        return not self.refusals

    def seconds(self, latency: float = 0.0002, bits_per_second: float = 1e9) -> float | None:
        """What the network alone takes: rounds, and the bytes of the party that sends most."""
        if self.cost is None:
            return None
        return float(self.cost.rounds * latency + 8 * max(self.cost.bytes_sent) / bits_per_second)

    def picture(self) -> str:
        """The plan as SVG, with what is revealed."""
        return svg(self.plan.root, self.reveals)

    def __str__(self) -> str:
        verdict = "allowed" if self.allowed else "NOT ALLOWED"
        lines = [self.plan.text, "", f"for {self.to}: {verdict}", *(f"  {r}" for r in self.refusals)]
        lines += ["reveals", *(f"  {r}" for r in (*self.reveals, KNOWN))]
        if self.joins:
            lines += ["joins", *(f"  {j}" for j in self.joins)]
        lines.append(f"memory here: about {self.memory / 1e6:,.0f} MB")
        if self.cost is not None:
            sent = ", ".join(f"{p} {b / 1e6:,.1f}" for p, b in zip(self.cost.parties, self.cost.bytes_sent))
            lines.append(f"{self.cost.rounds:,} rounds; MB sent: {sent}")
            lan, wan = self.seconds(), self.seconds(0.02, 1e8)
            lines.append(f"network alone: {lan:.1f} s at 1 Gbit/s and 0.2 ms, {wan:.1f} s at 100 Mbit/s and 20 ms")
        return "\n".join(lines)
