"""A program's IR and its float64 truth, run side by side on the same data, equation by equation.

Lowering tells which operations came from which equation (`Lowered`). Here the operations run on raw ring elements
as the plain evaluator does (truncations round at random, what leaves the ring becomes noise), and the equation in
float64 on what its operands should have been. Loops and branches run once for both, an iteration at a time.

Every element remembers which finding made it wrong, so that a result names its first cause, and what a
`where` drops later is not held against the program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.compiler.check.findings import SCALE, Deviation, Finding, Tolerance, describe, outside_of_ring
from spuvm.compiler.check.reference import aligned, evaluate_equation
from spuvm.compiler.ir import in_the_clear as plain
from spuvm.compiler.ir.module import Location, Op, Region, Type, Value
from spuvm.compiler.lower import randomness
from spuvm.compiler.lower.context import Lowered
from spuvm.compiler.lower.control import INLINED, own_rule
from spuvm.compiler.passes.choose import Moved

Raw = plain.Raw
Blame = NDArray[np.int32]  # 0, or the number of a finding


@dataclass(frozen=True)
class Pair:
    """A value in one run: its raw ring elements, what it should be, and who is to blame for the difference."""

    raw: Raw
    real: Any
    blame: Blame | None = None


@dataclass
class Recorder:
    """Collects what lowering says, by region. An equation whose rule is one algorithm keeps no inner ones."""

    regions: dict[Region, list[Lowered]] = field(default_factory=dict)

    def move(self, moved: Moved) -> None:
        """Follow a pass that kept every value of the equations and moved their operations."""
        for region, at in moved.items():  # a loop's body may have been lowered more than once
            records = self.regions.get(region, [])
            self.regions[region] = [replace(r, start=at[r.start], end=at[r.end]) for r in records]

    def __call__(self, made: Lowered) -> None:
        records = self.regions.setdefault(made.region, [])
        while not _is_transparent(made) and records and records[-1].start >= made.start:
            records.pop()
        records.append(made)


def _is_transparent(made: Lowered) -> bool:
    """Whether the equations within were lowered one by one."""
    name, params = made.eqn.primitive.name, made.eqn.params
    if name not in INLINED:
        return name in ("scan", "while", "cond")
    inner = params[INLINED[name]]
    return own_rule(params, getattr(inner, "jaxpr", inner)) is None


Env = dict[Value, Pair]


class Shadow:
    """One run. `findings` is filled on the way; number n of a blame is findings[n - 1].

    With `watch`, without equations: products that leave the ring are findings wherever they are.
    """

    def __init__(
        self, regions: Mapping[Region, list[Lowered]], tolerance: Tolerance, seed: int, watch: bool = False
    ) -> None:
        self.findings: list[Finding] = []
        self.reached: set[int] = set()
        self.largest: Deviation | None = None
        self.lines: dict[tuple[str, str], tuple[float, float]] = {}  # the largest error, and the largest number
        self._regions = regions
        self.tolerance = tolerance
        self.seed = seed
        self._watch = watch
        self._machine = plain.Machine(plain.Ring(tolerance.ring_bits), np.random.default_rng(seed))
        self._path: list[int] = []
        self._numbers: dict[Any, int] = {}

    def run(self, region: Region, inputs: Sequence[Pair]) -> list[Pair]:
        env: Env = dict(zip(region.params, inputs))
        at = 0
        for record in self._regions.get(region, []):
            if _is_transparent(record):
                self._glue(region.ops[at : record.end], env)
                self._branches(record, env)
            else:
                self._glue(region.ops[at : record.start], env)
                self._opaque(region.ops[record.start : record.end], env)
                self._observe(record, env)
            at = record.end
        self._glue(region.ops[at:], env)
        return [env[v] for v in region.results]

    def _opaque(self, ops: Sequence[Op], env: Env) -> None:
        """The operations of an equation: their results have no truth of their own."""
        for op in ops:
            results = self._machine.apply(op, [env[v].raw for v in op.inputs])
            ring = self._machine.ring
            env.update((v, Pair(plain.canonical(ring, raw, v.type), None)) for v, raw in zip(op.outputs, results))

    # what is between equations ----------------------------------------------------------------------------

    def _glue(self, ops: Sequence[Op], env: Env) -> None:
        for op in ops:
            xs = [env[v] for v in op.inputs]
            results = getattr(self, f"_{op.name}")(op, xs) if op.name in plain.CONTROL else [self._plain(op, xs)]
            env.update(zip(op.outputs, results))
            if self._watch and op.name == "trunc" and op.inputs[0].type.frac == 2 * self.tolerance.frac:
                self._truncated(op, xs[0].raw)

    def _truncated(self, op: Op, raw: Raw) -> None:
        outside = outside_of_ring([(op, [raw])], self.tolerance)
        if outside:
            size = float(np.abs(decoded(raw, op.inputs[0].type)).max())
            reason = "a sum of products, truncated together: " + outside
            found = Finding(
                op.location, "sum", "range", size, np.nan, np.inf, (), 1, 1, True, reason, SCALE, reaches=True
            )  # fmt: skip
            self._number(found)

    def _plain(self, op: Op, xs: list[Pair]) -> Pair:
        """Loops and branches rearrange and select; what else they do (to public values) is taken as right."""
        (raw,) = self._machine.apply(op, [x.raw for x in xs])
        if op.name in ("share", "reveal"):
            return Pair(raw, xs[0].real, xs[0].blame)
        if op.name in ("reshape", "transpose", "broadcast", "slice", "select"):
            blame: Blame | None = None
            if any(x.blame is not None for x in xs):
                rule: Any = plain.RULES[op.name]
                blame = rule(self._machine.ring, op, [_numbers(x) for x in xs])
            return Pair(raw, plain.RULES[op.name](self._machine.ring, op, [x.real for x in xs]), blame)
        return Pair(raw, decoded(raw, op.output.type), _shared([x.blame for x in xs], raw.shape))

    def _cond(self, op: Op, xs: list[Pair]) -> list[Pair]:
        self._decides(xs[0])
        branch = min(max(int(self._machine.ring.signed(xs[0].raw)), 0), len(op.regions) - 1)
        return self.run(op.regions[branch], xs[1:])

    def _loop(self, op: Op, xs: list[Pair]) -> list[Pair]:
        n, c, k = op.attrs["trips"], op.attrs["carries"], op.attrs["constants"]
        constants, carry, stacked = xs[:k], xs[k : k + c], xs[k + c :]
        order = range(n)[::-1] if op.attrs.get("reverse") else range(n)
        rows: list[list[Pair]] = []
        for i in order:
            with self._iteration(i):
                results = self.run(op.regions[0], [*constants, *carry, *(_row(x, i) for x in stacked)])
            carry = results[:c]
            rows.append(results[c:])
        columns = zip(*(rows[::-1] if op.attrs.get("reverse") else rows))
        return [*carry, *map(_stacked, columns)]

    def _while(self, op: Op, xs: list[Pair]) -> list[Pair]:
        condition, body = op.regions
        a, b = op.attrs["condition_constants"], op.attrs["body_constants"]
        carry, i = xs[a + b :], 0
        while True:
            with self._iteration(i):
                (more,) = self.run(condition, [*xs[:a], *carry])
                self._decides(more)
                if not more.raw:
                    return carry
                carry = self.run(body, [*xs[a : a + b], *carry])
            i += 1

    @contextmanager
    def _iteration(self, i: int) -> Iterator[None]:
        self._path.append(i)
        yield
        self._path.pop()

    def _decides(self, x: Pair) -> None:
        """A wrong predicate counts even if what it leads to happens to be right."""
        if x.blame is not None:
            self.reached.update(np.unique(x.blame[x.blame > 0]).tolist())

    # equations --------------------------------------------------------------------------------------------

    def _branches(self, record: Lowered, env: Env) -> None:
        """A branch on a secret runs all cases: its truth is that of the right one."""
        if record.eqn.primitive.name == "cond":
            index = record.args[0]
            if isinstance(index, Value) and not index.type.is_public:
                self._observe(record, env)

    def _observe(self, record: Lowered, env: Env) -> None:
        if record.eqn.primitive.name in randomness.NAMES:  # whatever was drawn
            (out,) = record.outs
            env[out] = Pair(env[out].raw, decoded(env[out].raw, out.type))
            return
        real = evaluate_equation(record.eqn, [_real(x, env) for x in record.args])
        real = aligned(record.eqn.primitive.name, real, [_got(x, env) for x in record.outs])
        for i, (out, truth) in enumerate(zip(record.outs, real)):
            if isinstance(out, Value):
                known = [x for x in [*record.args, out] if isinstance(x, Value)]
                blames = [env[x].blame for x in known]
                raw = env[out].raw
                env[out] = Pair(raw, truth, self._blame(record, i, raw, truth, blames, env))
                if record.eqn.primitive.name == "spu_reveal":
                    self.result(env[out], out.type)

    def _blame(
        self, record: Lowered, i: int, raw: Raw, real: Any, blames: Sequence[Blame | None], env: Env
    ) -> Blame | None:
        type_ = record.outs[i].type
        got = decoded(raw, type_)
        errors = self.tolerance.errors(got, real)
        weak, parted = self.tolerance.weak(errors, real), self.tolerance.parted(errors, real)
        self._note(errors, real, ~parted, record.location, record.eqn.primitive.name)
        if type_.kind == "fxp":
            self._measure(errors, real, str(record.location), record.eqn.primitive.name)
        if not weak.any():
            return None
        inherited = _shared(blames, raw.shape)
        blame: Blame = np.zeros(raw.shape, np.int32) if inherited is None else inherited
        light = [0, *(n for n, f in enumerate(self.findings, 1) if not f.parted)]
        open_ = weak & np.isin(blame, light)  # nothing before it that would do by itself
        if open_.any():
            operands = [_got(x, env) for x in record.args]
            results = evaluate_equation(record.eqn, operands)
            local = aligned(record.eqn.primitive.name, results, [_got(x, env) for x in record.outs])[i]
            own = self.tolerance.parted(self.tolerance.errors(got, local), local)
            new = open_ & ((blame == 0) | (parted & own))
            if new.any():
                ops = record.region.ops[record.start : record.end]
                wide = [(op, [env[v].raw for v in op.inputs]) for op in ops]
                found = describe(record, got, real, local, errors, new, parted, operands, type_, wide, self.tolerance)
                blame = np.where(new, self._number(found), blame)
        return np.where(weak, blame, 0).astype(np.int32)

    def given(self, name: str, location: Location, raw: Raw, real: Any, type_: Type) -> Pair:
        """An input, which may lose precision when it is encoded."""
        errors = self.tolerance.errors(decoded(raw, type_), real)
        weak, parted = self.tolerance.weak(errors, real), self.tolerance.parted(errors, real)
        if not weak.any():
            return Pair(raw, real)
        worst = np.unravel_index(int(np.where(weak, errors, -1).argmax()), raw.shape)
        found = Finding(
            location, f"input {name}", "precision", real[worst], decoded(raw, type_)[worst], float(errors[worst]),
            tuple(map(int, worst)), int(weak.sum()), raw.size, bool(parted.any()),
            "the number is a few units of fixed point",
            f"scale the input, or use more fraction bits: a unit is {self.tolerance.unit:.3g}",
        )  # fmt: skip
        return Pair(raw, real, np.where(weak, self._number(found), 0).astype(np.int32))

    def result(self, x: Pair, type_: Type) -> tuple[float, bool]:
        """A result, or what is revealed: its largest error, and whether it has parted. Then its blame has arrived."""
        errors = self.tolerance.errors(decoded(x.raw, type_), x.real)
        wrong = self.tolerance.parted(errors, x.real)
        if x.blame is not None:
            self.reached.update(np.unique(x.blame[wrong & (x.blame > 0)]).tolist())
        return float(errors.max(initial=0.0)), bool(wrong.any())

    def _number(self, found: Finding) -> int:
        """Findings of a line, an operation and a reason are one; the worst is kept, and the first iteration."""
        key = (found.location, found.operation, found.why)
        number = self._numbers.setdefault(key, len(self.findings) + 1)
        found.iteration = tuple(self._path)
        if number > len(self.findings):
            self.findings.append(found)
        else:
            self.findings[number - 1].join(found)
        return number

    def _note(self, errors: Any, real: Any, fine: Any, location: Location, operation: str) -> None:
        if not fine.any():
            return
        share = np.where(fine, errors / self.tolerance.allowed(real), -1.0)
        at = np.unravel_index(int(share.argmax()), share.shape)
        if self.largest is None or share[at] > self.largest.share:
            self.largest = Deviation(float(errors[at]), float(real[at]), float(share[at]), location, operation)

    def _measure(self, errors: Any, real: Any, location: str, operation: str) -> None:
        error, size = self.lines.get((location, operation), (0.0, 0.0))
        sizes = np.abs(np.where(np.isfinite(real), real, 0.0))
        fine = np.where(np.isfinite(real), errors, 0.0)
        largest = max(error, float(np.max(fine, initial=0.0))), max(size, float(sizes.max(initial=0.0)))
        self.lines[location, operation] = largest


# values ----------------------------------------------------------------------------------------------------


def decoded(raw: Raw, type_: Type) -> Any:
    """A raw value as float64, bool, int64 or uint64."""
    ring = plain.ring_of(raw)
    if type_.kind == "fxp":
        return np.asarray(ring.signed(raw)).astype(np.float64) / 2.0**type_.frac
    if type_.kind == "bool":
        return np.asarray(raw != 0, bool)
    whole = plain.canonical(ring, raw, type_)
    return np.asarray(ring.signed(whole)).astype(np.int64) if type_.signed else whole.astype(np.uint64)


def _real(x: Any, env: Env) -> Any:
    return env[x].real if isinstance(x, Value) else x


def _got(x: Any, env: Env) -> Any:
    return decoded(env[x].raw, x.type) if isinstance(x, Value) else x


def _numbers(x: Pair) -> Blame:
    """The blame of each element; of a predicate its truth."""
    if x.blame is None and x.real.dtype == bool:
        return np.asarray(x.raw, np.int32)
    return np.zeros(x.raw.shape, np.int32) if x.blame is None else x.blame


def _shared(blames: Sequence[Blame | None], shape: tuple[int, ...]) -> Blame | None:
    """The blame of operands for a result: element by element if shapes allow, else one for all."""
    out: Blame | None = None
    for blame in blames:
        if blame is None or not blame.any():
            continue
        try:
            mine = np.broadcast_to(blame, shape)
        except ValueError:
            mine = np.full(shape, blame.max(), np.int32)
        out = mine if out is None else np.where(out == 0, mine, out)
    return out


def _row(x: Pair, i: int) -> Pair:
    return Pair(x.raw[i, ...], x.real[i, ...], None if x.blame is None else x.blame[i, ...])


def _stacked(rows: Sequence[Pair]) -> Pair:
    blame = None
    if any(r.blame is not None for r in rows):
        blame = np.stack([_numbers(r) if r.blame is not None else np.zeros(r.raw.shape, np.int32) for r in rows])
    return Pair(np.stack([r.raw for r in rows]), np.stack([r.real for r in rows]), blame)
