"""What a statistician asks of a fit: coefficients with their standard errors, tests and intervals, all revealed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spuvm.ml.common import distributions


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of the features as they are, shown to all parties.

    Attributes:
        names: of the features.
        coef: float64 [d], or [classes, d].
        intercept: float64, or [classes].
    """

    names: tuple[str, ...]
    coef: np.ndarray
    intercept: np.ndarray

    def __str__(self) -> str:
        coef = np.atleast_2d(self.coef).T
        rows = [("intercept", np.atleast_1d(self.intercept)), *zip(self.names, coef)]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  " + "  ".join(f"{x:12.6g}" for x in numbers) for name, numbers in rows)


@dataclass(frozen=True)
class Summary:
    """A table of coefficients, the intercept first if there is one.

    Attributes:
        names: of its rows.
        coef, stderr: float64 [rows].
        rows, freedom: of the data; freedom is None where tests are of the normal distribution.
        log_likelihood, aic: None where the loss is no likelihood.
    """

    model: str
    names: tuple[str, ...]
    coef: np.ndarray
    stderr: np.ndarray
    rows: int
    freedom: int | None = None
    log_likelihood: float | None = None

    @property
    def statistic(self) -> np.ndarray:
        """z, or t where `freedom` is known."""
        out: np.ndarray = self.coef / np.maximum(self.stderr, 1e-300)
        return out

    @property
    def pvalues(self) -> np.ndarray:
        """Two-sided."""
        if self.freedom is None:
            return distributions.normal_two_sided(self.statistic)
        return distributions.t_two_sided(self.statistic, self.freedom)

    def conf_int(self, alpha: float = 0.05) -> np.ndarray:
        """Intervals of confidence 1 - alpha: float64 [rows, 2]."""
        level = 1 - alpha / 2
        normal = self.freedom is None
        width = (
            float(distributions.normal_quantile(level))
            if normal
            else distributions.t_quantile(level, self.freedom or 1)
        )
        return np.stack([self.coef - width * self.stderr, self.coef + width * self.stderr], axis=1)

    @property
    def aic(self) -> float | None:
        """Akaike's criterion."""
        return None if self.log_likelihood is None else 2 * len(self.coef) - 2 * self.log_likelihood

    def __str__(self) -> str:
        letter = "z" if self.freedom is None else "t"
        head = ["", "coef", "std err", letter, f"P>|{letter}|", "[0.025", "0.975]"]
        numbers = zip(self.coef, self.stderr, self.statistic, self.pvalues, *self.conf_int().T)
        body = [[name, *(_number(x, i) for i, x in enumerate(row))] for name, row in zip(self.names, numbers)]
        lines = [f"{self.model}: {self.rows:,} rows", *_aligned([head, *body])]
        if self.aic is not None:
            lines.append(f"log-likelihood {self.log_likelihood:.4f}, AIC {self.aic:.4f}")
        return "\n".join(lines)


def _number(x: float, column: int) -> str:
    return f"{x:.3f}" if column in (2, 3) else f"{x:.4f}" if 1e-3 < abs(x) < 1e5 else f"{x:.4g}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join([r[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(r[1:], widths[1:]))]).rstrip() for r in rows]
