"""The errors that non-linear functions state, in one table: docstrings, tests and docs/precision.md agree with it.

|got - f(x)| <= (relative + relative_units 2^-f) |f(x)| + absolute + units 2^-f
                + (quadratic + quadratic_units 2^-f) (1 + |f(x)|)^2,

for every x of the domain whose result the ring holds, with x as fixed point has it. From 8 to 22 fraction bits in a
ring of 64. In a ring of 32 bits whatever is not in units is 2^-7; in one of 128, where polynomials follow the
fraction bits, 2^-f, and 2^-40 above 40 of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Stated:
    """`per_exponent` adds to `relative`, times |y|, in x^y; `relative_units`, times a unit.

    `outside` says what happens beyond the domain.
    """

    domain: str
    relative: float = 0.0
    absolute: float = 0.0
    units: float = 1.0
    quadratic: float = 0.0
    quadratic_units: float = 0.0
    per_exponent: float = 0.0
    relative_units: float = 0.0
    outside: str = ""

    def allowed(self, want: Any, unit: float, exponent: Any = 0.0) -> Any:
        """The largest error where `want` is the truth."""
        size = np.abs(want)
        relative = self.relative + self.per_exponent * np.abs(exponent) + self.relative_units * unit
        quadratic = (self.quadratic + self.quadratic_units * unit) * (1 + size) ** 2
        return relative * size + self.absolute + self.units * unit + quadratic

    def in_ring(self, bits: int, frac: int) -> Stated:
        """The same with `frac` fraction bits in a ring of `bits`."""
        if bits == 64:
            return self
        other = 2.0**-7 if bits == 32 else max(2.0**-frac, 2.0**-40)
        terms = ("relative", "absolute", "quadratic", "per_exponent")
        changed: dict[str, Any] = {name: other for name in terms if getattr(self, name)}
        domain, outside = (text.replace("62", str(bits - 2)) for text in (self.domain, self.outside))
        return replace(self, domain=domain, outside=outside, **changed)

    def __str__(self) -> str:
        relative = f"{self.relative:g}" + (f" + {self.per_exponent:g} \\|y\\|" if self.per_exponent else "")
        relative += f" + {self.relative_units:g} units" if self.relative_units else ""
        parts = [f"relative {relative}"] if self.relative else []
        parts += [f"{self.absolute:g}"] if self.absolute else []
        if self.quadratic:
            parts += [f"({self.quadratic:g} + {self.quadratic_units:g} units) (1 + \\|f(x)\\|)²"]
        parts += [f"{self.units:g} unit{'s' if self.units != 1 else ''}"] if self.units else []
        return " + ".join(parts)


SATURATES = "0 below, the largest number (2^(62 - f), to 30 bits) above"
STATED: dict[str, Stated] = {
    "exp": Stated("-(f + 1) ln 2 to (62 - f) ln 2", relative=4e-6, outside=SATURATES),
    "exp2": Stated("-(f + 1) to 62 - f", relative=4e-6, outside=SATURATES),
    "expm1": Stated("x < (62 - f) ln 2", relative=4e-6, absolute=4e-6, outside="the largest number above"),
    "log": Stated("x > 0", absolute=2e-6, outside="-(f + 1) ln 2"),
    "log1p": Stated("x > -1", absolute=2e-6, outside="-(f + 1) ln 2"),
    "sqrt": Stated("x >= 0", relative=8e-6, units=2, outside="0"),
    "rsqrt": Stated("x > 0", relative=4e-6, units=2, outside="0"),
    "reciprocal": Stated("x != 0", relative=5e-6, units=2, outside="0"),
    "div": Stated("y != 0, a quotient that fits", relative=5e-6, units=2, outside="0 for y = 0"),
    "pow": Stated("x > 0, a power that fits", relative=4e-6, per_exponent=1.5e-6, outside="0 for x <= 0"),
    "logistic": Stated("all", absolute=6e-6),
    "tanh": Stated("all", absolute=4e-6),
    "erf": Stated("all", absolute=4e-6),
    "erfc": Stated("all", absolute=4e-6),
    "log_ndtr": Stated("x² < 2^(62 - 2 f)", absolute=5e-6, units=6),
    "erfcx": Stated("a result that fits", relative=1e-5, relative_units=2, units=4, outside="the largest number"),
    "sin": Stated("all", absolute=2e-6),
    "cos": Stated("all", absolute=2e-6),
    "tan": Stated("|cos x| > 16 units", quadratic=2e-6, quadratic_units=2, units=0),
    "sinh": Stated("|x| < (62 - f) ln 2", relative=4e-6, absolute=4e-6, units=2, outside="saturates as exp"),
    "cosh": Stated("|x| < (62 - f) ln 2", relative=4e-6, absolute=4e-6, units=2, outside="saturates as exp"),
    "asinh": Stated("all", absolute=8e-6, units=3),
    "acosh": Stated("x >= 1", absolute=8e-6, units=5),
    "atanh": Stated("|x| < 1", absolute=2e-6, units=2),
    "atan": Stated("all", absolute=7e-6, units=2),
    "atan2": Stated("all", absolute=7e-6, units=2, outside="0 for (0, 0)"),
    "asin": Stated("|x| <= 1", absolute=1.2e-5, units=6),
    "acos": Stated("|x| <= 1", absolute=1.2e-5, units=6),
    "cbrt": Stated("all", relative=6e-6),
    "lgamma": Stated("x > 0, x ln x < 2^(62 - 2 f)", relative=4e-6, relative_units=2, absolute=1e-5, units=3),
    "digamma": Stated("x > 0", relative=1e-5, absolute=1e-5, units=3),
    "erf_inv": Stated("|x| < 1 - 1.9e-6", absolute=1.2e-5, units=3, outside="3.36 and -3.36"),
}
