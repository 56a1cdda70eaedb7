"""Where numbers leave the ring: a program run in the clear on what one process knows, looking at magnitudes.

The program is as scales leave it: functions are operations still, products the user's own. What comes of inputs that
are not known here is not known, and neither is what comes of a number that has left the ring: first causes alone
are found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spuvm.compiler.front.trace import Traced
from spuvm.compiler.ir import in_the_clear as plain
from spuvm.compiler.ir.elementary import ELEMENTARY
from spuvm.compiler.ir.module import Module, Op, Region, Value, Visibility
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes.held import is_own
from spuvm.compiler.passes.pipeline import scales
from spuvm.compiler.passes.verdicts import key_of
from spuvm.runtime.config import Config

Raw = plain.Raw
Known = Raw | None
WORK = 200_000_000  # multiplications and the like, after which nothing more is looked at


@dataclass(frozen=True)
class Overflow:
    """At a source line an operation gives a number of 2^reaches; the ring holds what is below 2^holds there."""

    line: str
    operation: str
    reaches: int
    holds: int


def scaled(
    traced: Traced,
    visibilities: Sequence[Visibility],
    config: Config,
    finer: Sequence[int],
    bounds: Sequence[float | None],
    masked: Sequence[int],
    missing: Sequence[int],
) -> Module:
    """The program of a traced function with its scales chosen, before it is chosen how functions are computed."""
    module = lower(traced, visibilities, config, masked=masked, missing=missing)
    module.finer, module.keeps_scales = (*finer, *[0] * len(missing)), True
    module.bounds = (*bounds, *[None] * (len(missing) if bounds else 0))
    scales(module)
    return module


def overflows(module: Module, inputs: Sequence[Known]) -> list[Overflow]:
    """What leaves the ring on these raw inputs, None for those that are not known; one for each line and operation."""
    ring = plain.Ring(module.config["ring_bits"])
    watching = _Watching(ring, np.random.default_rng(0), module.config["fxp_fraction_bits"])
    with np.errstate(all="ignore"):
        watching.run(module.body, [None if x is None else ring.make(x) for x in inputs])
    return list(watching.found.values())


@dataclass(frozen=True)
class _Watching(plain.Machine):
    """`left`: how much work there is to spend."""

    frac: int
    found: dict[tuple[str, str], Overflow] = field(default_factory=dict)
    left: list[int] = field(default_factory=lambda: [WORK])

    def run(self, region: Region, inputs: Sequence[Known]) -> list[Any]:
        values: dict[Value, Known] = dict(zip(region.params, inputs))
        for op in region.ops:
            xs = [values[v] for v in op.inputs]
            self.left[0] -= _work(op)
            results = [None] * len(op.outputs) if self.left[0] < 0 or not _is_known(op, xs) else self.apply(op, xs)
            values.update(zip(op.outputs, results))
        return [values[v] for v in region.results]

    def apply(self, op: Op, xs: Sequence[Any]) -> list[Any]:
        if op.name == "loop":
            return self._loop(op, xs)
        if op.name in ELEMENTARY and self.ring.bits < 128:
            return [self._function(op, xs)]
        number = op.outputs[0].type.kind == "fxp" and len(op.outputs) == 1 and not is_own(op, self.ring.bits, self.frac)
        if number and op.name in SIZES:
            exact = SIZES[op.name](op, [np.asarray(self.ring.signed(x)).astype(np.float64) for x in xs])
            if self._leaves(op, float(np.abs(exact).max(initial=0.0))):
                return [None]
            if op.name == "dot" and self.ring.bits < 128:  # within the digits of float64, by a fast product
                return [self.ring.make(np.rint(exact).astype(np.int64))]
        return super().apply(op, list(xs))

    def _loop(self, op: Op, xs: Sequence[Known]) -> list[Known]:
        n, c, k = op.attrs["trips"], op.attrs["carries"], op.attrs["constants"]
        carry, stacked, rows = xs[k : k + c], xs[k + c :], []
        for i in range(n)[::-1] if op.attrs.get("reverse") else range(n):
            if self.left[0] < 0:
                return [None] * len(op.outputs)
            given = [None if x is None else x[i, ...] for x in stacked]
            results = self.run(op.regions[0], [*xs[:k], *carry, *given])
            carry = results[:c]
            rows.append(results[c:])
        columns = list(zip(*(rows[::-1] if op.attrs.get("reverse") else rows))) or [(None,)] * (len(op.outputs) - c)
        return [*carry, *(None if any(y is None for y in column) else np.stack(column) for column in columns)]

    def _function(self, op: Op, xs: Sequence[Raw]) -> Known:
        reals = (np.asarray(self.ring.signed(x)) / 2.0**v.type.frac for x, v in zip(xs, op.inputs))
        real = ELEMENTARY[op.name](*reals, **{k: v for k, v in op.attrs.items() if k != "to"})
        if op.name == "integer_pow" and op.attrs["n"] > 1:  # its last product has the fraction bits of two
            frac = 2 * min(v.type.frac for v in (*op.inputs, op.output))
            if self._leaves(op, float(np.abs(real).max(initial=0.0)) * 2.0**frac, frac - op.output.type.frac):
                return None
        top = 2.0 ** (self.ring.bits - 2) - 1024 if self.ring.bits == 64 else 2.0 ** (self.ring.bits - 2) - 1
        raw = np.rint(np.clip(np.nan_to_num(real) * 2.0**op.output.type.frac, -top, top))
        return self.ring.make(np.asarray(raw).astype(np.int64))

    def _leaves(self, op: Op, size: float, more: int = 0) -> bool:
        """Truncations and comparisons take what is below 2^(k-2); what is above 2^(k-1) has wrapped around.

        `more`: fraction bits beside those of its type.
        """
        top, frac = self.ring.bits - (2 if op.name == "trunc" else 1), op.inputs[0].type.frac
        if size < 2.0**top:
            return False
        if op.name != "trunc":
            frac = op.output.type.frac + more
        key = key_of(op)
        reaches = math.floor(math.log2(size)) - frac
        before = self.found.get(key)
        if before is None or before.reaches < reaches:
            self.found[key] = Overflow(*key, reaches, top - frac)
        return True


def _is_known(op: Op, xs: Sequence[Known]) -> bool:
    """Loops and branches take what is not known as it is; which branch has to be known."""
    if op.name in ("loop", "cond"):
        return op.name == "loop" or xs[0] is not None
    return all(x is not None for x in xs)


def _work(op: Op) -> int:
    if op.name == "dot":
        (contracted, _), _ = op.attrs["dims"]
        terms: int = math.prod(op.inputs[0].shape[d] for d in contracted)
        return op.output.type.size * terms // 8
    return sum(v.type.size for v in op.outputs)


SIZES = {
    "add": lambda op, xs: xs[0] + xs[1],
    "sub": lambda op, xs: xs[0] - xs[1],
    "mul": lambda op, xs: xs[0] * xs[1],
    "dot": lambda op, xs: plain.RULES["dot"](plain.Ring(64), op, xs),
    "sum": lambda op, xs: xs[0].sum(tuple(op.attrs["axes"])),
    "cumsum": lambda op, xs: plain.RULES["cumsum"](plain.Ring(64), op, xs),
    "shift_left": lambda op, xs: np.ldexp(xs[0], op.attrs["bits"]),
    "trunc": lambda op, xs: xs[0],
}
