"""What a shadow run finds: where the program parts from the truth, by how much, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spuvm.compiler.ir.fixedpoint import limit_bits
from spuvm.compiler.ir.in_the_clear import ring_of
from spuvm.compiler.ir.module import Location, Op, Type
from spuvm.compiler.lower.context import Lowered


@dataclass(frozen=True)
class Tolerance:
    """An element has parted if |got - expected| > absolute + relative |expected|; integers and bools if they differ.

    `unit` is 2^-f, `limit` the magnitude from which on fixed point does not hold a number.
    """

    relative: float
    absolute: float
    frac: int
    ring_bits: int = 64

    @property
    def unit(self) -> float:
        return 2.0**-self.frac

    @property
    def limit(self) -> float:
        return 2.0 ** (limit_bits(self.ring_bits) - self.frac)

    @property
    def product(self) -> float:
        """The limit of a product before its truncation."""
        return self.limit * self.unit

    def allowed(self, real: Any) -> Any:
        if np.asarray(real).dtype.kind != "f":
            return np.full(np.shape(real), 0.5)
        return self.absolute + self.relative * np.abs(np.where(np.isfinite(real), real, 0.0)) + 1e-300

    def errors(self, got: Any, real: Any) -> Any:
        """|got - expected|, infinite where the truth is."""
        if np.asarray(real).dtype.kind != "f":
            away = np.abs(got.astype(np.float64) - real.astype(np.float64))
            return np.where(got == real, 0.0, np.maximum(away, 1.0))
        with np.errstate(invalid="ignore"):
            error = np.abs(got - real)
        return np.where(np.isfinite(real), error, np.inf)

    def parted(self, errors: Any, real: Any) -> Any:
        return errors > self.allowed(real)

    def weak(self, errors: Any, real: Any) -> Any:
        """Where the relative error alone is too large: harmless, until a later operation magnifies it."""
        if np.asarray(real).dtype.kind != "f":
            return errors > 0
        return errors > self.relative * np.abs(np.where(np.isfinite(real), real, 0.0))


@dataclass(frozen=True)
class Deviation:
    """The largest deviation within the tolerance; `share` is its share of what is allowed."""

    error: float
    expected: float
    share: float
    location: Location
    operation: str


@dataclass
class Finding:
    """The first place where elements part.

    `why` is range, precision or domain; `expected`, `got`, `error` are those of the worst element, at `index`.
    `elements` of `size` have parted (or lost their precision, if not `parted`). `iteration`: of the loops around
    it, the first time; `times` in how many. `reaches`: whether a result is wrong by it.
    """

    location: Location
    operation: str
    why: str
    expected: Any
    got: Any
    error: float
    index: tuple[int, ...]
    elements: int
    size: int
    parted: bool
    reason: str
    advice: str
    iteration: tuple[int, ...] = ()
    times: int = 1
    reaches: bool = False

    def join(self, other: Finding) -> None:
        """Another occurrence, in a later iteration."""
        self.times += 1
        self.parted |= other.parted
        if other.error > self.error:
            self.expected, self.got, self.error, self.index = other.expected, other.got, other.error, other.index
            self.elements, self.size = other.elements, other.size


ADVICE = {
    "log": "keep the operand above zero, as in jnp.log(jnp.maximum(x, 1e-4))",
    "log1p": "keep the operand above -1",
    "sqrt": "keep the operand at zero or above, as in jnp.sqrt(jnp.maximum(x, 0))",
    "rsqrt": "keep the operand above zero, as in jnp.maximum(x, 1e-4)",
    "div": "keep the divisor away from zero, as in x / jnp.where(y == 0, 1, y)",
    "rem": "keep the divisor away from zero",
    "gather": "keep the index in bounds, or give a `fill_value`: 0 stands for NaN, which fixed point does not have",
    "pow": "keep the base above zero; a whole exponent as a Python number takes any base",
}
SCALE = "scale the operands down first (means in place of sums), or use fewer fraction bits"


def describe(
    record: Lowered,
    got: Any,
    real: Any,
    local: Any,
    errors: Any,
    new: Any,
    parted: Any,
    operands: Sequence[Any],
    type_: Type,
    ops: Sequence[tuple[Op, Sequence[Any]]],
    tolerance: Tolerance,
) -> Finding:
    """Why an equation parts. `local` is its truth on the operands as they are, `new` where it is the first."""
    here = new & parted if (new & parted).any() else new
    # the worst in relation to its size: that is what later operations see
    size = np.abs(np.where(np.isfinite(real), real, 0)).astype(np.float64)
    at = np.unravel_index(int(np.where(here, errors / (size + tolerance.unit * 1e-6), -1.0).argmax()), got.shape)
    name = record.eqn.primitive.name
    why, reason, advice = _why(
        name, got[at], real[at], local[at], float(errors[at]), operands, at, type_, ops, tolerance
    )
    return Finding(
        record.location, name, why, real[at], got[at], float(errors[at]), tuple(map(int, at)), int(here.sum()),
        got.size, bool(here.any() and parted[at]), reason, advice,
    )  # fmt: skip


def _why(
    name: str,
    got: Any,
    real: Any,
    local: Any,
    error: float,
    operands: Sequence[Any],
    at: Any,
    type_: Type,
    ops: Sequence[tuple[Op, Sequence[Any]]],
    tolerance: Tolerance,
) -> tuple[str, str, str]:
    if type_.kind == "fxp" and not np.isfinite([real, local]).all():
        return "domain", _operands(name, operands, at), ADVICE.get(name, "keep the operand inside of the domain")
    if type_.kind == "int" and not _fits(real, type_) and not _fits(local, type_):
        return "range", f"{type_.element} does not hold it", "use a wider integer type (x64 has int64), or floats"
    if type_.kind == "fxp" and abs(local) >= tolerance.limit:
        return "range", f"fixed point holds magnitudes below {tolerance.limit:.3g}", SCALE
    if not _near(got, local, tolerance):
        outside = outside_of_ring(ops, tolerance)
        if outside:
            return "range", outside, SCALE
    return "precision", *_imprecise(name, got, real, local, error, operands, at, type_, tolerance)


def _near(got: Any, local: Any, tolerance: Tolerance) -> bool:
    local = np.asarray(local)
    return not bool(tolerance.parted(tolerance.errors(np.asarray(got), local), local))


def _fits(x: Any, type_: Type) -> bool:
    low: int = -(2 ** (type_.bits - 1)) if type_.signed else 0
    number = int(x)
    return low <= number < low + (1 << type_.bits)


def _imprecise(
    name: str, got: Any, real: Any, local: Any, error: float, operands: Sequence[Any], at: Any, type_: Type,
    tolerance: Tolerance,
) -> tuple[str, str]:  # fmt: skip
    more = f"scale so that numbers are larger than the unit, {tolerance.unit:.3g}, or use more fraction bits"
    if type_.kind != "fxp":
        return "its operands differ from the truth by more than they are apart", "compare with a margin; " + more
    own = abs(got - local)
    if own >= error / 2:
        units = abs(real) / tolerance.unit
        if units < 1 / max(tolerance.relative, 1e-12):
            return f"the result is {units:.2g} units, too few for its digits", more
        return "the operation's own error", "see the stated error of the operation"
    if name in ("add", "sub", "reduce_sum", "dot_general", "add_any"):
        return "a small difference of large numbers", "subtract before scaling up, or use more fraction bits"
    return "the error of an operand is magnified", more


def _operands(name: str, operands: Sequence[Any], at: Any) -> str:
    """The operands of one element, where shapes tell which."""
    if name == "gather":
        return "an index is out of bounds"
    shown = []
    for x in operands if name != "cond" else ():
        x = np.asarray(x)
        if x.ndim == 0:
            shown.append(f"{x[()]:.6g}")
        elif x.ndim == len(at) and all(i < n for i, n in zip(at, x.shape)):
            shown.append(f"{x[at]:.6g}")
    return f"of {' and '.join(shown)}" if shown else "outside of the domain"


# the ring --------------------------------------------------------------------------------------------------


def outside_of_ring(ops: Sequence[tuple[Op, Sequence[Any]]], tolerance: Tolerance) -> str | None:
    """The first operation whose result, or truncated operand, leaves what the ring holds, in words."""
    for op, raws in ops:
        size = _magnitude(op, [_float(x) for x in raws])
        top = tolerance.ring_bits - 1
        if op.name == "trunc":
            top -= 1
        if size >= 2.0**top:
            frac = op.inputs[0].type.frac if op.name == "trunc" else op.outputs[0].type.frac
            if frac != 2 * tolerance.frac:
                return "an intermediate value leaves the ring"
            bound = tolerance.product
            return f"a product reaches {size / 2.0**frac:.3g}; before its truncation the ring holds {bound:.3g}"
    return None


def _float(raw: Any) -> Any:
    return np.asarray(ring_of(raw).signed(raw)).astype(np.float64)


def _magnitude(op: Op, xs: Sequence[Any]) -> float:
    """The largest |result| without wrapping around; of a truncation, the largest |operand|."""
    if op.name == "trunc":
        return float(np.abs(xs[0]).max(initial=0.0))
    if op.name in ("add", "sub", "mul"):
        x, y = xs
        exact = {"add": x + y, "sub": x - y, "mul": x * y}[op.name]
        return float(np.abs(exact).max(initial=0.0))
    if op.name == "sum":
        return float(np.abs(xs[0].sum(tuple(op.attrs["axes"]))).max(initial=0.0))
    if op.name == "cumsum":
        return float(np.abs(xs[0].cumsum(op.attrs["axis"])).max(initial=0.0))
    if op.name == "dot":
        return _dot(op, xs)
    if op.name == "shift_left":
        return math.ldexp(float(np.abs(xs[0]).max(initial=0.0)), op.attrs["bits"])
    return 0.0


def _dot(op: Op, xs: Sequence[Any]) -> float:
    (xc, yc), (xb, yb) = op.attrs["dims"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    left = list(letters[: xs[0].ndim])
    right = list(letters[xs[0].ndim : xs[0].ndim + xs[1].ndim])
    for i, j in [*zip(xc, yc), *zip(xb, yb)]:
        right[j] = left[i]
    kept = [left[d] for d in xb] + [c for d, c in enumerate(left) if d not in (*xc, *xb)]
    kept += [c for d, c in enumerate(right) if d not in (*yc, *yb)]
    exact = np.einsum(f"{''.join(left)},{''.join(right)}->{''.join(kept)}", *xs)
    return float(np.abs(exact).max(initial=0.0))
