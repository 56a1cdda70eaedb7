"""Scales by source line: fraction bits, limits and headroom of what a function computes, before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spuvm.compiler.front.trace import Traced
from spuvm.compiler.ir.module import Op, Visibility
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes.limits import Limits
from spuvm.compiler.passes.scales import choose_scales
from spuvm.runtime.config import Config


@dataclass(frozen=True)
class Row:
    """The values of one kind of operation at one line: |x| < 2^limit, proved or else promised.

    `headroom`: bits that the ring has beyond the limit, at these fraction bits.
    """

    location: str
    operation: str
    fraction_bits: int
    limit: float
    proved: bool
    headroom: float


@dataclass(frozen=True)
class Scales:
    """What `f.scales(*args)` gives. Printing it gives a table."""

    name: str
    ring_bits: int
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        table = [("line", "operation", "fraction bits", "below", "", "headroom")]
        for r in self.rows:
            below = "0" if r.limit < -200 else f"2^{r.limit:.0f}"
            known = "proved" if r.proved else "promised"
            table.append((r.location, r.operation, str(r.fraction_bits), below, known, f"{r.headroom:.0f} bits"))
        widths = [max(len(row[i]) for row in table) for i in range(6)]
        lines = ["  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip()
                 for row in table]  # fmt: skip
        return "\n".join([f"{self.name}: scales in a ring of {self.ring_bits} bits", *lines])

    __repr__ = __str__


def scales_of(
    traced: Traced,
    visibilities: Sequence[Visibility],
    config: Config,
    finer: Sequence[int] = (),
    bounds: Sequence[float | None] = (),
) -> Scales:
    """Of each line and operation the finest scale, the largest limit and the least headroom."""
    module = lower(traced, visibilities, config)
    module.finer, module.bounds, module.keeps_scales = tuple(finer), tuple(bounds), True
    limits = Limits(config.fxp_fraction_bits, config.ring_bits)
    ops = [op for op in module.body.walk() if _counts(op)]
    choose_scales(module, limits)
    rows: dict[tuple[str, str], Row] = {}
    for op in ops:
        limit, frac = limits.of[op.output], op.output.type.frac
        headroom = limits.top - frac - limit.whole
        key = str(op.location), NAMES.get(op.name, op.name)
        row = Row(*key, frac, limit.whole, limit.known, headroom)
        rows[key] = _joined(rows[key], row) if key in rows else row
    return Scales(traced.name, config.ring_bits, tuple(rows.values()))


NAMES = {"trunc": "product"}


def _counts(op: Op) -> bool:
    """Whether a line of the user's computes numbers by the operation; products count once they are truncated."""
    return op.name not in ("const", "broadcast", "mul", "dot", "bitcast", "shift_left") and (
        len(op.outputs) == 1 and op.output.type.kind == "fxp"
    )


def _joined(x: Row, y: Row) -> Row:
    return Row(
        x.location,
        x.operation,
        max(x.fraction_bits, y.fraction_bits),
        max(x.limit, y.limit),
        x.proved and y.proved,
        min(x.headroom, y.headroom),
    )
