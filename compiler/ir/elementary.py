"""Elementary functions as operations: what each means. How it is computed is chosen late, see passes/choose.py.

Operands are fixed point of one shape, with any fraction bits; the attribute `to` is the type of the result. Where a
function has no value (log of a negative number, x / 0) it is that of the limit that its docstring in `functions`
states, or 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
Meaning = Callable[..., Any]  # (operands, **attributes), float64


def _each(function: Callable[[float], float]) -> Meaning:
    meaning: Meaning = np.vectorize(function, otypes=[np.float64])
    return meaning


def _quotient(x: Any, y: Any) -> Any:
    return np.where(y == 0, 0.0, x / np.where(y == 0, 1.0, y))


def _root(x: Any) -> Any:
    return np.sqrt(np.maximum(x, 0.0))


def _integer_pow(x: Any, *, n: int) -> Any:
    return x**n if n >= 0 else _quotient(1.0, x**-n)


def _digamma(x: float) -> float:
    """By the recurrence, then Stirling's series."""
    below = 0.0
    while x < 16.0:
        below, x = below - 1.0 / x, x + 1.0
    w = 1.0 / (x * x)
    return below + math.log(x) - 0.5 / x - w * (1 / 12 - w * (1 / 120 - w * (1 / 252 - w / 240)))


def _erfcx(z: float) -> float:
    """e^(z^2) erfc(z), z >= 0: the continued fraction where the product would lose its digits."""
    if z < 2.0:
        return math.exp(z * z) * math.erfc(z)
    t = 0.0
    for k in range(80, 0, -1):
        t = k / 2 / (z + t)
    return 1.0 / (math.sqrt(math.pi) * (z + t))


def _erf_inv(x: float) -> float:
    """By Newton's method."""
    y = 0.0
    for _ in range(60):
        y += (x - math.erf(y)) * math.sqrt(math.pi) / 2 * math.exp(min(y * y, 50.0))
    return y


def _erf_inv_ratio(w: float) -> float:
    x = math.sqrt(-math.expm1(-max(w, 1e-12)))
    return _erf_inv(x) / x if w < 12.6 else _erf_inv_ratio(12.5)


ELEMENTARY: dict[str, Meaning] = {
    "exp": np.exp,
    "power_of": lambda x, *, base, whole=False: np.power(base, x),  # `whole`: that x is a whole number
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log_over": lambda x, *, base: np.log(x) / base,  # `base`: the logarithm of the base
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "erf": _each(math.erf),
    "sqrt": _root,
    "rsqrt": lambda x: _quotient(1.0, _root(x)),
    "sin": np.sin,
    "cos": np.cos,
    "div": _quotient,
    "div_by": lambda x, *, by: _quotient(x, np.asarray(by)),  # `by`: real numbers, broadcast to the shape of x
    "reciprocal": lambda x: _quotient(1.0, x),
    "integer_pow": _integer_pow,
    "pow": lambda x, y: np.where(x > 0, np.power(np.maximum(x, 0.0), y), 0.0),
    "cbrt": np.cbrt,
    "arc": lambda y, x: np.arctan2(y, x),  # 0 <= y <= x
    "erf_inv_ratio": _each(_erf_inv_ratio),  # erf_inv(x) / x of w = -ln(1 - x^2)
    "erfc_tail": _each(lambda y: math.log(_erfcx(2 * (max(y, 1.0) - 1)) * max(y, 1.0))),
    "lgamma_near": _each(lambda u: math.lgamma(u + 2.5)),  # |u| <= 1/2
    "digamma_near": _each(lambda u: _digamma(u + 2.5)),
}

# Of integers, or of fixed point on its grid: exact, rounded toward zero; x / 0 is all ones, x rem 0 is x.
EXACT = frozenset({"quotient", "remainder"})


def rounded(real: Any, frac: int, ring_bits: int) -> Any:
    """Python's integers nearest to real 2^frac, what leaves the ring as its largest number; NaN as 0."""
    top = 2.0 ** (ring_bits - 2)
    scaled = np.nan_to_num(np.asarray(real, np.float64) * 2.0**frac, nan=0.0, posinf=top, neginf=-top)
    return np.vectorize(int, otypes=[object])(np.rint(np.clip(scaled, -top, top)))
