"""What a function spends: the mechanisms in its jaxpr, loops included, and what they add up to.

Composition: the sum of epsilons for Laplace alone, and Renyi privacy (Mironov, CSF 2017) by `dp-accounting` where it
gives less or where Gaussian noise is among them. What is (epsilon, 0)-private counts as the worst that there is, a bit
that is told wrongly with probability 1 / (1 + e^epsilon): discrete noise of a count is no better, as continuous noise
is. Concentrated privacy to (epsilon, delta): Canonne, Kamath, Steinke, NeurIPS 2020, corollary 13.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from spuvm.compiler.lower.jaxprs import bodies
from spuvm.compiler.lower.noise import GROUPS
from spuvm.runtime.errors import InputError

LAPLACE, GAUSSIAN = "laplace", "gaussian"
LARGEST = 1e100  # of a ratio
DELTA = "delta"  # of what is shown with this probability and else is private: `ratio` is the probability
ORDERS = (*(1 + x / 10 for x in range(1, 100)), *range(11, 64), 128, 256, 512, 1024)
SAMPLED_ORDERS = (*(2 + x / 8 for x in range(72)), *range(11, 64), 128, 256)  # below 2 their series may not converge


@dataclass(frozen=True)
class Spent:
    """One mechanism, `times` times: `ratio` is the noise's scale (or sigma) by the sensitivity.

    `sampling`: each time it saw every row with this probability only, independently, and nobody knows which.
    """

    mechanism: str
    ratio: float
    times: int = 1
    sampling: float = 1.0

    def __post_init__(self) -> None:
        """InputError for what is no cost: a ledger that held it would give privacy back, or never refuse again."""
        if self.mechanism not in (LAPLACE, GAUSSIAN, DELTA):
            raise InputError(f"a use is of {LAPLACE!r}, {GAUSSIAN!r} or {DELTA!r}, got {self.mechanism!r}.")
        most = 1.0 if self.mechanism == DELTA else LARGEST
        if not (is_number(self.ratio) and 1 / LARGEST <= float(self.ratio) <= most):
            raise InputError(
                f"noise by the sensitivity must be a number from {1 / LARGEST:g} to {most:g}, got {self.ratio!r} for "
                f"{self.mechanism}: what is smaller or larger is no mechanism."
            )
        if isinstance(self.times, bool) or not isinstance(self.times, int) or self.times < 1:
            raise InputError(f"a mechanism is used a whole number of times, 1 or more, got {self.times!r}.")
        if not (is_number(self.sampling) and 0 < self.sampling <= 1):
            raise InputError(f"a row is in a sample with a probability above 0 and at most 1, got {self.sampling!r}.")

    @property
    def epsilon(self) -> float:
        """Of Laplace noise, all times together; of Gaussian noise infinite, as it needs a delta."""
        if self.mechanism == DELTA:
            return 0.0
        return self.times / self.ratio if self.mechanism == LAPLACE else math.inf


def is_number(x: object) -> bool:
    """Whether it is a finite real number, and no bool."""
    return isinstance(x, int | float | np.integer | np.floating) and not isinstance(x, bool) and math.isfinite(x)


def spending(function: Callable[..., Any], *args: Any) -> list[Spent]:
    """The mechanisms of a function of arguments like these.

    Raises InputError where noise is drawn in a loop whose number of iterations is not known.
    """
    return _found(jax.make_jaxpr(function)(*args).jaxpr, 1)


def _found(jaxpr: Any, times: int) -> list[Spent]:
    out: list[Spent] = []
    for eqn in jaxpr.eqns:
        name, params = eqn.primitive.name, eqn.params
        if name == "spu_laplace":
            out.append(Spent(LAPLACE, 1 / params["epsilon"], times))
            if params.get("delta"):
                out.append(Spent(DELTA, params["delta"], times))
        elif name == "spu_gaussian":
            out.append(Spent(GAUSSIAN, params["sigma"] / params["sensitivity"], times))
        inside = [spent for inner in bodies(params) for spent in _found(inner, 1)]
        if name == "while" and inside:
            raise InputError("noise is drawn in a loop of unknown length: use `lax.scan` or a fixed number of steps.")
        length = int(params["length"]) if name == "scan" else 1
        out += [Spent(s.mechanism, s.ratio, s.times * times * length) for s in inside if length]
    return out


def group_contributions(function: Callable[..., Any], *args: Any) -> list[float]:
    """What each `groups` in a function takes as the most that one unit contributes."""
    return _contributions(jax.make_jaxpr(function)(*args).jaxpr)


def _contributions(jaxpr: Any) -> list[float]:
    own = [e.params["sensitivity"] for e in jaxpr.eqns if e.params.get("word") == GROUPS]
    return own + [x for e in jaxpr.eqns for inner in bodies(e.params) for x in _contributions(inner)]


def total(spent: Sequence[Spent], delta: float) -> float:
    """The epsilon of all together, at this delta."""
    given = math.fsum(s.ratio * s.times for s in spent if s.mechanism == DELTA)
    spent = [s for s in spent if s.mechanism != DELTA]
    if given > delta:
        return math.inf
    plain = math.fsum(s.epsilon for s in spent)  # uses that are too small to move a float sum move this one
    if delta - given <= 0 or not spent:
        return plain
    return min(plain, _renyi(spent, delta - given))


def _renyi(spent: Sequence[Spent], delta: float) -> float:
    try:
        import dp_accounting as dp
    except ImportError:
        raise InputError("accounting with a delta needs dp-accounting: `pip install 'spuvm[dp]'`.") from None
    orders = SAMPLED_ORDERS if any(s.sampling < 1 for s in spent) else ORDERS
    divergence = np.zeros(len(orders))
    for (mechanism, ratio, sampling), times in _together(spent).items():
        one = _pure(1 / ratio, orders) if mechanism == LAPLACE else _gaussian(ratio, sampling, orders)
        divergence += times * one
    return float(dp.rdp.compute_epsilon(orders, divergence, delta)[0])


@functools.lru_cache(maxsize=256)
def _gaussian(ratio: float, sampling: float, orders: tuple[float, ...]) -> np.ndarray:
    """The Renyi divergences [orders] of Gaussian noise, of what each row is in with a probability."""
    import dp_accounting as dp

    accountant = dp.rdp.RdpAccountant(orders, dp.NeighboringRelation.ADD_OR_REMOVE_ONE)
    event = dp.GaussianDpEvent(ratio)
    accountant.compose(event if sampling == 1 else dp.PoissonSampledDpEvent(sampling, event))
    return np.asarray(accountant._rdp)  # which has no public name


def _pure(epsilon: float, orders: tuple[float, ...]) -> np.ndarray:
    """The largest Renyi divergence [orders] of an (epsilon, 0)-private mechanism: that of randomised response (Kairouz,
    Oh, Viswanath, ICML 2015, theorem 2: any other is it, with something done to what it says)."""
    order = np.asarray(orders, np.float64)
    least = np.logaddexp(order * epsilon, (1 - order) * epsilon) - np.logaddexp(0.0, epsilon)
    return np.asarray(least / (order - 1))


def _together(spent: Sequence[Spent]) -> dict[tuple[str, float, float], int]:
    """How often each mechanism of each ratio and sampling ran."""
    out: dict[tuple[str, float, float], int] = {}
    for s in spent:
        key = s.mechanism, s.ratio, s.sampling if s.mechanism == GAUSSIAN else 1.0
        out[key] = out.get(key, 0) + s.times
    return out


def epsilon_of(rho: float, delta: float) -> float:
    """The least epsilon that rho-concentrated privacy gives at this delta."""

    def at(order: float) -> float:
        return order * rho + (math.log(1 / (order * delta)) + (order - 1) * math.log1p(-1 / order)) / (order - 1)

    best = 1 + math.sqrt(max(math.log(1 / delta), 1e-9) / rho)
    orders = [1 + (best - 1) * 2.0 ** (k / 16) for k in range(-64, 65)]
    return max(0.0, min(map(at, orders)))


def rho_of(epsilon: float, delta: float) -> float:
    """The largest rho whose epsilon at this delta is at most `epsilon`."""
    low, high = 0.0, 1.0
    while epsilon_of(high, delta) < epsilon:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon_of(middle, delta) <= epsilon else (low, middle)
    if low == 0:
        raise InputError(f"epsilon {epsilon:g} with delta {delta:g} is too little for any noise.")
    return low
