"""A lower bound of a mechanism's epsilon, from what it puts out for two neighbours: it catches too little noise.

An event "the output is at most t" (or at least) is chosen on one half of the runs, and its probabilities are bounded on
the other, by Chernoff's bound, at a stated confidence. If the bound is above what is claimed, the claim is wrong; if it
is not, nothing is proved. (Ding and others, CCS 2018; Jagielski and others, NeurIPS 2020.)
"""

from __future__ import annotations

import math

import numpy as np

from spuvm.runtime.errors import InputError

EVENTS = 64
CONFIDENCE = 0.999


def epsilon_at_least(one: np.ndarray, other: np.ndarray, delta: float = 0.0, confidence: float = CONFIDENCE) -> float:
    """The epsilon that the mechanism has at least, but for one time in 1 / (1 - confidence).

    Args:
        one, other: outputs [runs] for two neighbouring inputs.
        delta: that is granted.

    Raises InputError for fewer than 100 runs.
    """
    if min(len(one), len(other)) < 100 or np.ndim(one) != 1 or np.ndim(other) != 1:
        raise InputError("an audit needs 100 outputs or more of each input, arrays of one axis.")
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in ((one, other), (other, one))]
    best = 0.0
    for a, b in pairs:
        for sign in (1.0, -1.0):
            best = max(best, _of_tails(sign * a, sign * b, delta, (1 - confidence) / 8))
    return best


def _of_tails(a: np.ndarray, b: np.ndarray, delta: float, risk: float) -> float:
    """Of "at least t", likelier in `a`: t from the even runs, the bound from the odd ones."""
    ts = np.unique(np.quantile(np.concatenate([a[::2], b[::2]]), np.linspace(0.01, 0.99, EVENTS), method="nearest"))
    guesses = [_bound(np.mean(a[::2] >= t), np.mean(b[::2] >= t), len(a[::2]), len(b[::2]), delta, risk) for t in ts]
    t = ts[int(np.argmax(guesses))]
    return _bound(np.mean(a[1::2] >= t), np.mean(b[1::2] >= t), len(a[1::2]), len(b[1::2]), delta, risk)


def _bound(p: float, q: float, runs_p: int, runs_q: int, delta: float, risk: float) -> float:
    low = _limit(float(p), math.log(1 / risk) / runs_p, upper=False) - delta
    high = _limit(float(q), math.log(1 / risk) / runs_q, upper=True)
    return math.log(low / high) if low > high else 0.0


def _limit(p: float, distance: float, upper: bool) -> float:
    """The probability farthest from p at this Kullback-Leibler distance, above or below."""
    near, far = (p, 1.0) if upper else (p, 0.0)
    for _ in range(60):
        middle = (near + far) / 2
        near, far = (middle, far) if _divergence(p, middle) < distance else (near, middle)
    return far


def _divergence(p: float, q: float) -> float:
    """Of two Bernoulli variables."""

    def part(a: float, b: float) -> float:
        return 0.0 if a == 0 else math.inf if b <= 0 else a * math.log(a / b)

    return part(p, q) + part(1 - p, 1 - q)
