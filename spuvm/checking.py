"""`spu.check`: a program beside its truth, on the user's own data, in the clear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from spuvm.calls import Jitted
from spuvm.compiler.check.findings import Deviation, Finding, Tolerance
from spuvm.compiler.check.shadow import Pair, Recorder, Shadow
from spuvm.compiler.front.trace import Traced, static_positions, trace
from spuvm.compiler.ir.in_the_clear import Ring
from spuvm.compiler.ir.module import Module, Type, Visibility
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes.choose import choose_functions
from spuvm.compiler.passes.pipeline import run_passes
from spuvm.compiler.passes.ranges import Ranges, scales_of_inputs
from spuvm.compiler.passes.scales import choose_scales
from spuvm.missing import apart, positions
from spuvm.objects import Marked, SPUObject, encoded, parts
from spuvm.runtime.config import Config
from spuvm.runtime.errors import InputError
from spuvm.vm import make_config, simulator

IN_THE_CLEAR = "computed in the clear, in this process: for test data, or data that you own"
ABSOLUTE_UNITS = 64


@dataclass(frozen=True)
class Report:
    """What `check` found. Printing it gives a table.

    `findings` made a result wrong, in the order in which they happened. `notes` parted too, but what became of
    them reached no result: a `where` dropped them, or they are small beside what they were added to. `largest`
    is the deviation nearest to the tolerance where nothing parted; `results` the largest error of each result. `lines`
    has, by source line and operation, the largest error relative to the largest number; `before` the same of a
    calibrated function as it was before.
    """

    name: str
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    largest: Deviation | None
    results: dict[str, float]
    wrong: tuple[str, ...]
    tolerance: Tolerance
    lines: dict[tuple[str, str], float] = field(default_factory=dict)
    before: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every result is within the tolerance."""
        return not self.findings and not self.wrong

    def __str__(self) -> str:
        lines = [self._head()]
        if self.findings:
            lines += ["", *_table(self.findings, self.tolerance)]
        if self.notes:
            lines += ["", "Parted, but without effect on a result:", *_table(self.notes, self.tolerance)]
        if self.before:
            lines += ["", *_calibrated(self.before, self.lines)]
        return "\n".join([*lines, "", f"({IN_THE_CLEAR})"])

    __repr__ = __str__

    def _head(self) -> str:
        if not self.ok:
            first = f"first at {self.findings[0].location}" if self.findings else "nowhere by itself"
            return f"{self.name}: {', '.join(self.wrong) or 'a result'} parts from float64, {first}."
        if self.largest is None or not self.largest.error:
            return f"{self.name}: all fine: no deviation from float64."
        d = self.largest
        units = d.error / self.tolerance.unit
        return (
            f"{self.name}: all fine: largest deviation {d.error:.2g} ({units:,.1f} units) of {d.expected:.6g}, "
            f"at {d.location} (`{d.operation}`)."
        )


def check(
    f: Callable[..., Any],
    *args: Any,
    protocol: str = "aby3",
    ring: int = 64,
    fxp_fraction_bits: int | None = None,
    truncation: str = "probabilistic",
    static_argnums: int | Sequence[int] = (),
    rtol: float = 1e-3,
    atol: float | None = None,
    seed: int = 0,
) -> Report:
    """Run `f(*args)` in fixed point and in float64 beside each other, and say where they part, and why.

    Everything is computed in the clear in this process, operation by operation: use it on test data, or on data that
    is yours. Fixed point rounds and overflows here as it would among the parties; integers are beside exact ones.
    What is found is of three kinds. Range: a number or a product left what the ring holds. Domain: the logarithm of a
    negative number, a division by zero. Precision: a number became so small, or two so near to each other, that too
    few digits were left.

    Args:
        f: a JAX function, or what `spu.jit` made of one: then its configuration is used.
        args: arrays and numbers; `spu.public` and `spu.private` say who knows them, as for `spu.jit`.
        protocol, ring, fxp_fraction_bits, truncation, static_argnums: as for `spu.jit`.
        rtol, atol: a number has parted if its error is above atol + rtol |expected|; `atol` is 64 units
            (2.4e-4 with 18 fraction bits) if not given. Integers and bools must be equal.
        seed: of the roundings.

    Returns:
        A Report: `.ok`, `.findings` with source line, operation, reason, expected, got, error and advice.

    Raises:
        CompileError: as `spu.jit`, for what cannot be compiled.
        EncodingError: for an argument that fixed point cannot hold.
    """
    ranges = f.ranges if isinstance(f, Jitted) else None
    if isinstance(f, Jitted):
        config, static, fn = f.vm.config, f.static_argnums, f.fn
    else:
        config = make_config(protocol, ring, fxp_fraction_bits, None, None, truncation)
        static, fn = static_argnums, f
    fixed = static_positions(static, len(args)) if static != () else frozenset()
    leaves = jax.tree.leaves([a for i, a in enumerate(args) if i not in fixed])
    if any(isinstance(x, SPUObject) for x in leaves):
        raise InputError("`check` computes in the clear: give it arrays, not shared values.")
    vm = simulator(config)
    owners = [vm.visibility(x, "secret") for x in leaves]
    values = [x.value if isinstance(x, Marked) else x for x in apart(leaves)]
    plain = jax.tree.map(lambda x: x.value if isinstance(x, Marked) else x, args)
    traced = trace(fn, plain, static)
    missing = positions(leaves)
    report = check_traced(traced, values, owners, config, rtol, atol, seed, missing, ranges)
    if ranges is None:
        return report
    return replace(report, before=check_traced(traced, values, owners, config, rtol, atol, seed, missing).lines)


def check_traced(
    traced: Traced,
    values: Sequence[Any],
    owners: Sequence[Visibility],
    config: Config,
    rtol: float = 1e-3,
    atol: float | None = None,
    seed: int = 0,
    missing: Sequence[int] = (),
    ranges: Ranges | None = None,
) -> Report:
    """`check` of a traced function, on its flat arguments."""
    unit = 2.0**-config.fxp_fraction_bits
    absolute = ABSOLUTE_UNITS * unit if atol is None else atol
    tolerance = Tolerance(rtol, absolute, config.fxp_fraction_bits, config.ring_bits)
    recorder = Recorder()
    module = _fitted(lower(traced, owners, config, recorder, missing=missing), ranges)
    recorder.move(choose_scales(module))
    recorder.move(choose_functions(module))
    shadow, ring = Shadow(recorder.regions, tolerance, seed), Ring(config.ring_bits)
    with np.errstate(all="ignore"):
        inputs = []
        for name, x, param in zip(module.inputs, values, module.body.params):
            raw = ring.make(encoded(x, param.type, name, config.ring_bits))
            inputs.append(shadow.given(name, traced.location, raw, _truth(x, param.type), param.type))
        outputs = shadow.run(module.body, inputs)
        errors = _errors(shadow, module, outputs)
        if not any(wrong for _, wrong in errors.values()):
            final = run_passes(_fitted(lower(traced, owners, config, missing=missing), ranges))
            errors = _improved(shadow, final, inputs, outputs)
    return _report(traced.name, shadow, errors, tolerance)


def _fitted(module: Module, ranges: Ranges | None) -> Module:
    """With the scales of a calibrated function."""
    if ranges is not None:
        ranges.apply(module)
        frac, ring_bits = module.config["fxp_fraction_bits"], module.config["ring_bits"]
        module.finer, module.bounds = scales_of_inputs(ranges, len(module.body.params), frac, ring_bits)
    return module


def _truth(x: Any, type_: Type) -> Any:
    """An argument as the user gave it."""
    dtype = {"fxp": np.float64, "bool": np.bool_}.get(type_.kind, np.int64 if type_.signed else np.uint64)
    return parts(np.asarray(x)).astype(dtype)


Errors = dict[str, tuple[float, bool]]  # a result's largest error, and whether it has parted


def _errors(shadow: Shadow, module: Module, outputs: Sequence[Pair]) -> Errors:
    return {n: shadow.result(x, v.type) for n, x, v in zip(module.outputs, outputs, module.body.results)}


def _improved(shadow: Shadow, module: Module, inputs: Sequence[Pair], outputs: Sequence[Pair]) -> Errors:
    """The program after the passes, which may truncate a sum where it had truncated the terms."""
    watch = Shadow({}, shadow.tolerance, shadow.seed, watch=True)
    raws = watch.run(module.body, [Pair(x.raw, x.real) for x in inputs])
    errors = _errors(shadow, module, [Pair(y.raw, x.real) for x, y in zip(outputs, raws)])
    if any(wrong for _, wrong in errors.values()):
        shadow.findings += [f for f in watch.findings if f.reaches]
        if shadow.findings:  # else nothing parted by itself: many small errors did it
            shadow.reached.add(len(shadow.findings))
    return errors


def _report(name: str, shadow: Shadow, errors: Errors, tolerance: Tolerance) -> Report:
    """Where values parted by themselves, lost precision elsewhere is not the reason."""
    for number in shadow.reached:
        shadow.findings[number - 1].reaches = True
    reaching = [f for f in shadow.findings if f.reaches]
    first = [f for f in reaching if f.parted or f.why != "precision"] or reaching
    notes = [f for f in shadow.findings if not f.reaches and (f.parted or f.why != "precision")]
    wrong = tuple(n for n, (_, parted) in errors.items() if parted)
    results = {n: e for n, (e, _) in errors.items()}
    lines = {key: error / size for key, (error, size) in shadow.lines.items() if size}
    return Report(name, tuple(first), tuple(notes), shadow.largest, results, wrong, tolerance, lines)


# printing --------------------------------------------------------------------------------------------------


def _table(findings: Sequence[Finding], tolerance: Tolerance) -> list[str]:
    head = ["line", "operation", "why", "expected", "got", "error", "units", "elements"]
    rows = [head, *(_row(f, tolerance) for f in findings)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = []
    for i, row in enumerate(rows):
        cells = [c.ljust(w) if j < 3 else c.rjust(w) for j, (c, w) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
        if i:
            lines += [f"    {findings[i - 1].reason}", f"    advice: {findings[i - 1].advice}"]
    return lines


def _row(f: Finding, tolerance: Tolerance) -> list[str]:
    real = isinstance(f.expected, float | np.floating)
    units = f.error / tolerance.unit if real else f.error
    iteration = f" (iteration {', '.join(map(str, f.iteration))})" if f.iteration else ""
    return [
        f"{f.location}{iteration}", f.operation, f.why, _number(f.expected), _number(f.got), f"{f.error:.3g}",
        f"{units:,.1f}" if units < 1e9 else f"{units:.3g}", f"{f.elements:,} of {f.size:,}",
    ]  # fmt: skip


def _calibrated(before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]) -> list[str]:
    rows = [("line", "operation", "relative error before", "calibrated")]
    rows += [(*key, f"{e:.1e}", f"{after[key]:.1e}") for key, e in before.items() if key in after]
    widths = [max(map(len, column)) for column in zip(*rows)]
    each = ([c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))] for row in rows)
    return ["  ".join(cells).rstrip() for cells in each]


def _number(x: Any) -> str:
    return f"{x:.6g}" if isinstance(x, float | np.floating) else str(x)
