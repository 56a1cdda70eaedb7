"""Strategies: what a local step adds to the gradient, and what the average delta does to the parameters.

FedAvg: McMahan and others, AISTATS 2017. FedProx: Li and others, MLSys 2020. SCAFFOLD: Karimireddy and others, ICML
2020 (with the mean gradient of the local steps as variate, which is its option II for plain SGD). FedAdam, FedYogi,
FedAdagrad: Reddi and others, ICLR 2021, algorithm 2. FedAvgM: Hsu, Qi, Brown, 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from spuvm.runtime.errors import ConfigError

Array = Any  # a NumPy vector
At = slice | np.ndarray  # positions of parameters, each once
Second = Callable[["Strategy", Array, Array], Array]


@dataclass(frozen=True)
class Strategy:
    """One row of the table.

    Attributes:
        proximal: mu of FedProx: a local gradient has mu (parameters - global parameters) added.
        control: SCAFFOLD's control variates: a second vector of the parameters' size is aggregated.
        second: which second moment divides, a key of `SECOND`; None: none.
        rate: of the server's step.
        beta1, beta2, tau: of its moments; beta1 = 0 is no momentum.
    """

    name: str
    proximal: float = 0.0
    control: bool = False
    second: str | None = None
    rate: float = 1.0
    beta1: float = 0.0
    beta2: float = 0.99
    tau: float = 1e-3

    def start(self, size: int, dtype: np.dtype) -> dict[str, Array]:
        """The server's state: public, the same at every party."""
        state = {}
        if self.beta1:
            state["first"] = np.zeros(size, dtype)
        if self.second:
            state["second"] = np.full(size, self.tau**2, dtype)
        if self.control:
            state["control"] = np.zeros(size, dtype)
        return state

    def step(self, state: dict[str, Array], at: At, delta: Array) -> Array:
        """What is added to the parameters at these positions. Element by element, each operation rounded as IEEE 754
        says: the same at every party."""
        of = delta.dtype.type
        if self.beta1:
            state["first"][at] = of(self.beta1) * state["first"][at] + of(1 - self.beta1) * delta
            step = state["first"][at]
        else:
            step = delta
        if self.second is None:
            return of(self.rate) * step
        state["second"][at] = SECOND[self.second](self, state["second"][at], delta * delta)
        return of(self.rate) * step / (np.sqrt(state["second"][at]) + of(self.tau))


def _adam(s: Strategy, v: Array, square: Array) -> Array:
    return v.dtype.type(s.beta2) * v + v.dtype.type(1 - s.beta2) * square


def _yogi(s: Strategy, v: Array, square: Array) -> Array:
    return v - v.dtype.type(1 - s.beta2) * square * np.sign(v - square)


def _adagrad(s: Strategy, v: Array, square: Array) -> Array:
    return v + square


SECOND: dict[str, Second] = {"adam": _adam, "yogi": _yogi, "adagrad": _adagrad}

STRATEGIES = {
    s.name: s
    for s in (
        Strategy("fedavg"),
        Strategy("fedprox", proximal=0.01),
        Strategy("scaffold", control=True),
        Strategy("fedavgm", beta1=0.9),
        Strategy("fedadam", second="adam", rate=0.01, beta1=0.9),
        Strategy("fedyogi", second="yogi", rate=0.01, beta1=0.9),
        Strategy("fedadagrad", second="adagrad", rate=0.01),
    )
}


def strategy(name: str | Strategy, **settings: Any) -> Strategy:
    """A strategy by its name, with other settings: `strategy("fedprox", proximal=0.1)`.

    Raises ConfigError for a name or a setting that there is not, or that makes no sense.
    """
    if not isinstance(name, Strategy):
        if name not in STRATEGIES:
            raise ConfigError(f"`strategy` must be one of {', '.join(STRATEGIES)}, got {name!r}.")
        name = STRATEGIES[name]
    known = {f.name for f in fields(Strategy)}
    if not settings.keys() <= known:
        raise ConfigError(f"a strategy has the settings {', '.join(sorted(known))}, got {sorted(settings)}.")
    made = replace(name, **settings)
    rates = (made.proximal, made.rate, made.tau)
    if not all(math.isfinite(x) and x >= 0 for x in rates) or made.rate == 0 or made.tau == 0:
        raise ConfigError(f"{made.name}: `proximal` must be 0 or more, `rate` and `tau` more than 0, got {rates}.")
    if not (0 <= made.beta1 < 1 and 0 <= made.beta2 < 1):
        raise ConfigError(f"{made.name}: `beta1` and `beta2` must be from 0 to below 1.")
    return made
