"""What is minimised: the label holder's preparation in NumPy, and secret gradients in JAX.

Labels never leave their holder but as shares. The holder also gives, as shares, what depends on
them: the margin before the first tree and, for regression, the scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.ml.parameters import Parameters
from spuvm.runtime.errors import InputError

Pair = tuple[jax.Array, jax.Array]
MAX_WEIGHT = 4.0  # on average: scores have two bits for it


@dataclass(frozen=True)
class Objective:
    """How one objective is trained.

    Attributes:
        check: label errors, at the holder: what is wrong, or None.
        target: labels [rows] -> float64 [rows, K] that `gradients` takes, at the holder.
        base: target [rows, K], weights [rows] -> margins [K] before the first tree.
        gradients: margins, targets [rows, K] -> first and second derivatives of the loss.
        score_bits: G^2 / (H + lambda) of a node stays below the number of rows times 2^score_bits.
    """

    check: Callable[[np.ndarray, Parameters], str | None]
    target: Callable[[np.ndarray, Parameters], np.ndarray]
    base: Callable[[np.ndarray, np.ndarray, Parameters], np.ndarray]
    gradients: Callable[[jax.Array, jax.Array], Pair]
    score_bits: int


# At the label holder ------------------------------------------------------------------------------------


def prepare(labels: np.ndarray, weights: np.ndarray | None, parameters: Parameters, where: str) -> dict[str, Any]:
    """What the label holder brings into training.

    Args:
        labels: float64 [rows]; NaN where missing.
        weights: float64 [rows], 0 or more, or None.

    Returns:
        target: float32 [rows, K] in units of 2^exponent; base: float32 [K], likewise; gamma: float32 [] in
        units of its square; exponent: int32 [], 0 except for regression; weight: float32 [rows, 1], if given.

    Raises:
        InputError: for labels or weights that the objective cannot use.
    """
    objective = OBJECTIVES[parameters.objective]
    y = checked(labels, parameters, where)
    w = np.ones(len(y)) if weights is None else _weights(weights)
    target = objective.target(y, parameters)
    base = objective.base(target, w, parameters)
    exponent = 0
    if parameters.objective == "reg:squarederror":
        spread = float(np.abs(target - base).max())
        if spread == 0:
            raise InputError(f"{where} is the same in all rows: there is nothing to learn.")
        exponent = int(np.clip(np.ceil(np.log2(spread)), -60, 60))
    unit = 2.0**exponent
    out: dict[str, Any] = {
        "target": (target / unit).astype(np.float32),
        "base": (base / unit).astype(np.float32),
        "gamma": np.float32(parameters.gamma / unit**2),
        "exponent": np.int32(exponent),
    }
    if weights is not None:
        out["weight"] = w[:, None].astype(np.float32)
    return out


def checked(labels: np.ndarray, parameters: Parameters, where: str) -> np.ndarray:
    """The labels, if the objective can use them."""
    y = np.asarray(labels, np.float64)
    if np.isnan(y).any():
        raise InputError(f"{where}: {int(np.isnan(y).sum())} of {y.size} labels are missing: leave these rows out.")
    wrong = OBJECTIVES[parameters.objective].check(y, parameters)
    if wrong:
        raise InputError(f"{where}: {wrong}")
    return y


def _weights(weights: np.ndarray) -> np.ndarray:
    w = np.asarray(weights, np.float64)
    if np.isnan(w).any() or (w < 0).any() or not w.sum() > 0:
        raise InputError("sample weights must be 0 or more, none missing, and not all 0.")
    if w.mean() > MAX_WEIGHT:
        raise InputError(f"sample weights must be at most {MAX_WEIGHT:g} on average: divide them by their mean.")
    return w


def _binary(y: np.ndarray, parameters: Parameters) -> str | None:
    if not np.isin(y, (0.0, 1.0)).all():
        return "labels of 'binary:logistic' are 0 and 1, or False and True: convert them."
    return None if len(np.unique(y)) == 2 else "all labels are of one class: there is nothing to learn."


def _classes(y: np.ndarray, parameters: Parameters) -> str | None:
    k = parameters.outputs
    if not ((y == np.rint(y)) & (y >= 0) & (y < k)).all():
        return f"labels must be whole numbers from 0 to {k - 1}, as `num_class` is {k}."
    return None


def _no_check(y: np.ndarray, parameters: Parameters) -> str | None:
    return None


def _column(y: np.ndarray, parameters: Parameters) -> np.ndarray:
    return y[:, None]


def _one_hot(y: np.ndarray, parameters: Parameters) -> np.ndarray:
    hot: np.ndarray = (y[:, None] == np.arange(parameters.outputs)).astype(np.float64)
    return hot


def _mean(target: np.ndarray, w: np.ndarray, parameters: Parameters) -> np.ndarray:
    given = parameters.base_score
    return np.average(target, axis=0, weights=w) if given is None else np.array([given], np.float64)


def _log_odds(target: np.ndarray, w: np.ndarray, parameters: Parameters) -> np.ndarray:
    p = _mean(target, w, parameters)
    odds: np.ndarray = np.log(p / (1 - p))
    return odds


def _log_shares(target: np.ndarray, w: np.ndarray, parameters: Parameters) -> np.ndarray:
    if parameters.base_score is not None:
        return np.full(parameters.outputs, parameters.base_score, np.float64)
    logs: np.ndarray = np.log(np.maximum(np.average(target, axis=0, weights=w), 1e-6))
    centred: np.ndarray = logs - logs.mean()
    return centred


# On the machine -----------------------------------------------------------------------------------------


def _logistic(margin: jax.Array, target: jax.Array) -> Pair:
    p = jax.nn.sigmoid(margin)
    return p - target, p * (1 - p)


def _squared(margin: jax.Array, target: jax.Array) -> Pair:
    return margin - target, jnp.ones(margin.shape, margin.dtype)


def _softmax(margin: jax.Array, target: jax.Array) -> Pair:
    p = jax.nn.softmax(margin, axis=-1)
    return p - target, 2 * p * (1 - p)


OBJECTIVES = {
    "binary:logistic": Objective(_binary, _column, _log_odds, _logistic, 8),
    "reg:squarederror": Objective(_no_check, _column, _mean, _squared, 2),
    "multi:softprob": Objective(_classes, _one_hot, _log_shares, _softmax, 8),
    "multi:softmax": Objective(_classes, _one_hot, _log_shares, _softmax, 8),
}
