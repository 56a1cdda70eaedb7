"""Scales by source line: fraction bits, limits and headroom of what a function computes, before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spuvm.compiler.front.trace import Traced
from spuvm.compiler.ir.module import Op, Visibility
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes.limits import Limits
from spuvm.compiler.passes.pipeline import regions
from spuvm.compiler.passes.ranges import Ranges
from spuvm.compiler.passes.scales import choose_scales
from spuvm.compiler.passes.truncation import merge_truncations
from spuvm.compiler.passes.verdicts import CANNOT_TELL, SAFE, Verdict, key_of, verdicts
from spuvm.runtime.config import Config


@dataclass(frozen=True)
class Row:
    """The values of one kind of operation at one line: |x| < 2^limit, proved or else promised.

    `headroom`: bits that the ring has beyond the limit, at these fraction bits. `verdict`: whether bounds prove that
    nothing overflows: "safe", "cannot tell", or "refused" where what is stated allows too much. `settled_by`: what
    would help.
    """

    location: str
    operation: str
    fraction_bits: int
    limit: float
    proved: bool
    headroom: float
    verdict: str = SAFE
    settled_by: str = ""


HOW = "A bound: `spu.secret(x, bound=8)` of an argument, or `spu.bound(x, 8)` within the function."


def _aligned(table: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table)]
    each = ([c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))] for row in table)
    return ["  ".join(cells).rstrip() for cells in each]


@dataclass(frozen=True)
class Scales:
    """What `f.scales(*args)` gives. Printing it gives a table."""

    name: str
    ring_bits: int
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        table = [("line", "operation", "fraction bits", "below", "", "headroom", "verdict", "settled by")]
        for r in self.rows:
            below = "0" if r.limit < -200 else f"2^{r.limit:.0f}"
            known = "proved" if r.proved else "promised"
            end = f"{r.headroom:.0f} bits", r.verdict, r.settled_by
            table.append((r.location, r.operation, str(r.fraction_bits), below, known, *end))
        lines = _aligned(table, left=(0, 1, 6, 7))
        if any(r.verdict == CANNOT_TELL for r in self.rows):
            lines += ["", HOW]
        return "\n".join([f"{self.name}: scales in a ring of {self.ring_bits} bits", *lines])

    __repr__ = __str__


def scales_of(
    traced: Traced,
    visibilities: Sequence[Visibility],
    config: Config,
    finer: Sequence[int] = (),
    bounds: Sequence[float | None] = (),
    missing: Sequence[int] = (),
    ranges: Ranges | None = None,
) -> Scales:
    """Of each line, operation and scale the largest limit and the least headroom."""
    module = lower(traced, visibilities, config, missing=missing)
    module.finer, module.keeps_scales = tuple(finer), True
    module.bounds = (*bounds, *[None] * (len(missing) if bounds else 0))
    if ranges is not None:
        ranges.apply(module)
    limits = Limits(config.fxp_fraction_bits, config.ring_bits)
    ops = [op for op in module.body.walk() if _counts(op)]
    choose_scales(module, limits)
    wide = {op: _most(op, limits) for op in ops}
    for region in regions(module.body):
        merge_truncations(region, config.fxp_fraction_bits, config.ring_bits, every=True)
    unsafe = verdicts(module)
    rows: dict[tuple[object, ...], Row] = {}
    for op in ops:
        row = _row(op, limits, wide[op], unsafe.get(key_of(op), Verdict(SAFE)))
        key = (*key_of(op), row.fraction_bits, wide[op])
        rows[key] = _joined(rows[key], row) if key in rows else row
    shown = {key[:2] for key in rows}
    for place, verdict in unsafe.items():  # what is not truncated, as products with whole numbers
        if place not in shown:
            frac = config.fxp_fraction_bits
            rows[place] = Row(*place, frac, limits.top - frac, False, 0.0, verdict.word, verdict.settled_by)
    return Scales(traced.name, config.ring_bits, tuple(rows.values()))


def _most(op: Op, limits: Limits) -> float:
    """log2 of what the ring holds of a result; of a product, before it is truncated."""
    return limits.top - (op.inputs[0] if op.name == "trunc" else op.output).type.frac


def _row(op: Op, limits: Limits, most: float, verdict: Verdict) -> Row:
    limit, frac = limits.of[op.output], op.output.type.frac
    below = min(limit.whole, most)
    known = limit.known and limit.whole <= most
    return Row(*key_of(op), frac, below, known, limits.top - frac - below, verdict.word, verdict.settled_by)


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
        x.verdict,
        x.settled_by,
    )
