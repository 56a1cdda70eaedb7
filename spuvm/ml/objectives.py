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

from spuvm.ml import ranking
from spuvm.ml.parameters import LOG_LINK, QUANTILES, RANKS, TWEEDIE, Parameters
from spuvm.runtime.errors import DataError

Pair = tuple[jax.Array, jax.Array]
MAX_WEIGHT = 4.0  # on average: scores have two bits for it
LEAST_SHARE = 1e-5  # of a class, where its logarithm is taken
SMALLEST_GAIN = 1e-6  # XGBoost's: a gain below is none
THRESHOLDS = (2.0**-17, 2.0**30)  # a unit of fixed point; more than any score
MOST_MEANS = 64.0  # of a label, where margins are logarithms
MOST_MARGIN = 4.0  # of a logarithm, from that of the mean label
VARIANCES = {"count:poisson": 1.0, "reg:tweedie": TWEEDIE, "reg:gamma": 2.0}  # the power of the mean
LEAST_LAMBDA, TINY, MOST_HESSIANS = 2.0**-10, 2.0**-16, 2.0**24  # so that none is divided by 0
STEP = 0.7  # XGBoost's `max_delta_step` for counts: of a leaf, and of what hessians are steadied by
STEADY = float(np.exp(STEP))
MOST_UNITS = 3.0  # of a label from the base score, where its unit is known from elsewhere
MOST_SLOPES = 64.0  # of a label from the base score, of pseudo-Huber losses
SMALLEST_UNIT, LARGEST_UNIT = 2.0**-17, 2.0**30
LARGEST_LABEL = 2.0**32  # a prediction of 2^33 has no room for its steps (`predictions.FINE`)


@dataclass(frozen=True)
class Objective:
    """How one objective is trained.

    Attributes:
        check: label errors, at the holder: what is wrong, or None.
        target: labels [rows] -> float64 [rows, K] that `gradients` takes, at the holder.
        base: target [rows, K], weights [rows] -> margins [K] before the first tree.
        gradients: margins, targets [rows, K], and perhaps a number of the objective's -> first and second derivatives
            of the loss.
        score_bits: G^2 / (H + lambda) of a node stays below the number of rows times 2^score_bits.
    """

    check: Callable[[np.ndarray, Parameters], str | None]
    target: Callable[[np.ndarray, Parameters], np.ndarray]
    base: Callable[[np.ndarray, np.ndarray, Parameters], np.ndarray]
    gradients: Callable[[jax.Array, jax.Array, Any], Pair]
    score_bits: int


# At the label holder ------------------------------------------------------------------------------------


def prepare(
    labels: np.ndarray, weights: np.ndarray | None, parameters: Parameters, where: str, scores: int, known: Any = None
) -> dict[str, Any]:
    """What the label holder brings into training.

    Labels of a regression are divided by a power of two that brings their distance to the base score below 1.

    Args:
        labels: float64 [rows]; NaN where missing.
        weights: float64 [rows], 0 or more, or None.
        where: for messages.
        scores: gains are computed times 2^scores.
        known: of a regression, `base` in units and the `unit`, if they do not follow from these labels; of a ranking,
            the groups.

    Returns:
        target: float32 [rows, K]; base: float32 [K], before the first tree; threshold: float32 [], of a gain;
        up: int32 [], down: float32 []: labels were divided by up * down; weight: float32 [rows, 1], if given;
        alpha: float32 [], of an L1 penalty; penalties: float32 [2], of losses that the unit scales, lambda and the
        least hessians of a child; extra: float32 [], of a pseudo-Huber loss the unit by its slope.

    Raises:
        DataError: for labels or weights that the objective cannot use.
    """
    y = checked(labels, parameters, where)
    if float(np.abs(y).max()) > LARGEST_LABEL:
        raise DataError(f"{where}: labels are beyond {LARGEST_LABEL:g}: divide them.")
    if parameters.objective in RANKS:
        both = ranking.pairs(y, known, parameters.objective == "rank:ndcg", where)
        none = np.zeros(1)
        return _given(both["target"], none, 1.0, 1.0, None, parameters, scores) | {"extra": both["size"]}
    weights = by_class(y, weights, parameters)
    w = np.ones(len(y)) if weights is None else weights_of(weights)
    target = OBJECTIVES[parameters.objective].target(y, parameters)
    base = OBJECTIVES[parameters.objective].base(target, w, parameters)
    unit = 1.0
    weight = w if weights is not None else None
    if known is not None:
        unit = float(known["unit"])
        target = np.clip(target, *known["range"]) if "range" in known else target
        base = np.asarray(known["base"], np.float64)
        if float(np.abs(target / unit - base).max()) > MOST_UNITS and parameters.objective not in LOG_LINK:
            raise DataError(
                f"{where}: labels are much farther from the base score than in training: train a new model."
            )
        gains = gains_unit(parameters.objective, unit)
        return _sloped(_given(target / unit, base, unit, gains, weight, parameters, scores), unit, parameters, where)
    if parameters.objective in ("reg:squarederror", "reg:pseudohubererror", *QUANTILES):
        unit = _unit(target - base, where)
    elif parameters.objective in LOG_LINK:
        unit = float(2.0 ** np.ceil(np.log2(np.exp(base[0]))))
        target, base, unit = target / unit, base - np.log(unit), 1.0 * unit
        largest = float(target.max())
        if largest > MOST_MEANS:
            raise DataError(f"{where}: a label is more than {MOST_MEANS:g} times the mean: cap it.")
        return _given(target, base, unit, gains_unit(parameters.objective, unit), weight, parameters, scores)
    gains = gains_unit(parameters.objective, unit)
    return _sloped(_given(target / unit, base / unit, unit, gains, weight, parameters, scores), unit, parameters, where)


def _sloped(out: dict[str, Any], unit: float, parameters: Parameters, where: str) -> dict[str, Any]:
    if parameters.objective == "reg:pseudohubererror":
        out["extra"] = np.float32(_slopes(unit, parameters, where))
    return out


def _slopes(unit: float, parameters: Parameters, where: str) -> float:
    """How many slopes of the loss a unit is."""
    if unit > MOST_SLOPES * parameters.huber_slope:
        raise DataError(
            f"{where}: labels are more than {MOST_SLOPES:g} times `huber_slope` from the base score: give a larger "
            "`huber_slope`, or use 'reg:absoluteerror'."
        )
    return max(unit / parameters.huber_slope, SMALLEST_UNIT)


def gains_unit(objective: str, unit: float) -> float:
    """The root of what losses were divided by, of labels divided by `unit`."""
    if objective in QUANTILES:  # whose gradients are signs
        return 1.0
    if objective in LOG_LINK:
        return float(np.sqrt(unit ** (2 - VARIANCES[objective])))
    return unit


def _given(
    target: np.ndarray,
    base: np.ndarray,
    unit: float,
    gains: float,
    weight: np.ndarray | None,
    parameters: Parameters,
    scores: int,
) -> dict[str, Any]:
    """What `prepare` returns: targets were divided by `unit`, and losses by the square of `gains`."""
    out: dict[str, Any] = {
        "target": target.astype(np.float32),
        "base": base.astype(np.float32),
        "threshold": threshold_of(parameters, gains, scores),
        "up": np.int32(max(unit, 1.0)),
        "down": np.float32(min(unit, 1.0)),
    }
    if weight is not None:
        out["weight"] = weight[:, None].astype(np.float32)
    if parameters.reg_alpha:
        out["alpha"] = penalty_of(parameters, gains**2 if parameters.objective in LOG_LINK else gains)
    if VARIANCES.get(parameters.objective, 2.0) < 2:
        held = parameters.reg_lambda / gains**2, parameters.min_child_weight / gains**2
        out["penalties"] = np.clip(held, (LEAST_LAMBDA, TINY), MOST_HESSIANS).astype(np.float32)
    return out


def penalty_of(parameters: Parameters, unit: float | np.ndarray) -> Any:
    """The L1 penalty of gradients of labels divided by `unit`: float32."""
    return np.clip(parameters.reg_alpha / np.asarray(unit, np.float64), 0.0, THRESHOLDS[1]).astype(np.float32)


def threshold_of(parameters: Parameters, unit: float | np.ndarray, scores: int) -> Any:
    """The least gain of a split, times 2^scores, of labels divided by `unit`: float32."""
    threshold = max(parameters.gamma, SMALLEST_GAIN) / unit**2 * 2.0**scores
    return np.clip(threshold, *THRESHOLDS).astype(np.float32)


def _unit(distance: np.ndarray, where: str) -> float:
    """The power of two at or above all distances."""
    spread = float(np.abs(distance).max())
    if spread == 0:
        raise DataError(f"{where}: all labels are the same: there is nothing to learn.")
    if spread > LARGEST_UNIT:
        raise DataError(f"{where}: labels are more than {LARGEST_UNIT:g} from the base score: divide them.")
    return float(max(2.0 ** np.ceil(np.log2(spread)), SMALLEST_UNIT))


def checked(labels: np.ndarray, parameters: Parameters, where: str, all_rows: bool = True) -> np.ndarray:
    """The labels, if the objective can use them. `all_rows`: no other party has more of them."""
    y = np.asarray(labels, np.float64)
    if np.isnan(y).any():
        raise DataError(f"{where}: {int(np.isnan(y).sum())} of {y.size} labels are missing: leave these rows out.")
    wrong = OBJECTIVES[parameters.objective].check(y, parameters)
    if wrong:
        raise DataError(f"{where}: {wrong}")
    if all_rows and parameters.objective.startswith("binary:") and len(np.unique(y)) < 2:
        raise DataError(f"{where}: all labels are of one class: there is nothing to learn.")
    return y


def by_class(y: np.ndarray, weights: np.ndarray | None, parameters: Parameters) -> np.ndarray | None:
    """Weights in which rows of class 1 count `scale_pos_weight` times."""
    if parameters.scale_pos_weight == 1:
        return weights
    scale = np.where(y == 1, parameters.scale_pos_weight, 1.0)
    return scale if weights is None else np.asarray(weights, np.float64) * scale


def weights_of(weights: np.ndarray) -> np.ndarray:
    """Sample weights, if they can be used."""
    w = np.asarray(weights, np.float64)
    if np.isnan(w).any() or (w < 0).any() or not w.sum() > 0:
        raise DataError("sample weights must be 0 or more, none missing, and not all 0.")
    if w.mean() > MAX_WEIGHT:
        raise DataError(f"sample weights must be at most {MAX_WEIGHT:g} on average: divide them by their mean.")
    return w


def _binary(y: np.ndarray, parameters: Parameters) -> str | None:
    if not np.isin(y, (0.0, 1.0)).all():
        return f"labels of {parameters.objective!r} are 0 and 1, or False and True: convert them."
    return None


def _classes(y: np.ndarray, parameters: Parameters) -> str | None:
    k = parameters.outputs
    if not ((y == np.rint(y)) & (y >= 0) & (y < k)).all():
        return f"labels must be whole numbers from 0 to {k - 1}, as `num_class` is {k}."
    return None


def _no_check(y: np.ndarray, parameters: Parameters) -> str | None:
    return None


def _not_negative(y: np.ndarray, parameters: Parameters) -> str | None:
    positive = parameters.objective == "reg:gamma"
    if (y <= 0).any() if positive else (y < 0).any() or not (y > 0).any():
        return f"labels of {parameters.objective!r} are {'above 0' if positive else '0 or more, and not all 0'}."
    return None


def _column(y: np.ndarray, parameters: Parameters) -> np.ndarray:
    return y[:, None]


def _one_hot(y: np.ndarray, parameters: Parameters) -> np.ndarray:
    hot: np.ndarray = (y[:, None] == np.arange(parameters.outputs)).astype(np.float64)
    return hot


def _mean(target: np.ndarray, w: np.ndarray, parameters: Parameters) -> np.ndarray:
    given = parameters.base_score
    return np.average(target, axis=0, weights=w) if given is None else np.array([given], np.float64)


def _quantile(target: np.ndarray, w: np.ndarray, parameters: Parameters) -> np.ndarray:
    """The least label at or below which the wanted share of the weights lies."""
    share = parameters.quantile
    if parameters.base_score is not None or share is None:
        return _mean(target, w, parameters)
    order = np.argsort(target[:, 0])
    up_to = np.cumsum(w[order])
    found: np.ndarray = target[order[np.searchsorted(up_to, share * up_to[-1])]]
    return found


def _log_odds(target: np.ndarray, w: np.ndarray, parameters: Parameters) -> np.ndarray:
    p = _mean(target, w, parameters)
    odds: np.ndarray = np.log(p / (1 - p))
    return odds


def _log_mean(target: np.ndarray, w: np.ndarray, parameters: Parameters) -> np.ndarray:
    if parameters.base_score is not None and parameters.base_score <= 0:
        raise DataError(f"`base_score` of {parameters.objective!r} must be above 0, got {parameters.base_score}.")
    logs: np.ndarray = np.log(_mean(target, w, parameters))
    return logs


def _shares(target: np.ndarray, w: np.ndarray, parameters: Parameters) -> np.ndarray:
    return np.average(target, axis=0, weights=w)


def _log_shares(target: np.ndarray, w: np.ndarray, parameters: Parameters) -> np.ndarray:
    if parameters.base_score is not None:
        return np.full(parameters.outputs, parameters.base_score, np.float64)
    logs: np.ndarray = np.log(np.maximum(np.average(target, axis=0, weights=w), LEAST_SHARE))
    centred: np.ndarray = logs - logs.mean()
    return centred


# On the machine -----------------------------------------------------------------------------------------


def _logistic(margin: jax.Array, target: jax.Array, _: Any) -> Pair:
    p = jax.nn.sigmoid(margin)
    return p - target, p * (1 - p)


def _squared(margin: jax.Array, target: jax.Array, _: Any) -> Pair:
    return margin - target, jnp.ones(margin.shape, margin.dtype)


def _absolute(margin: jax.Array, target: jax.Array, _: Any) -> Pair:
    return jnp.where(margin >= target, 1.0, -1.0), jnp.ones(margin.shape, margin.dtype)


def _pinball(margin: jax.Array, target: jax.Array, share: float) -> Pair:
    return jnp.where(margin >= target, 1.0, 0.0) - share, jnp.ones(margin.shape, margin.dtype)


def _pseudo_huber(margin: jax.Array, target: jax.Array, slopes: jax.Array) -> Pair:
    distance = margin - target
    bend = jax.lax.rsqrt(1 + jnp.square(distance * slopes))
    return distance * bend, bend * bend * bend


def _softmax(margin: jax.Array, target: jax.Array, _: Any) -> Pair:
    p = jax.nn.softmax(margin, axis=-1)
    return p - target, 2 * p * (1 - p)


def _exponential(margin: jax.Array) -> jax.Array:
    return jnp.exp(jnp.clip(margin, -MOST_MARGIN, MOST_MARGIN))


def _poisson(margin: jax.Array, target: jax.Array, _: Any) -> Pair:
    mean = _exponential(margin)
    return mean - target, mean * STEADY


def _gamma(margin: jax.Array, target: jax.Array, _: Any) -> Pair:
    ratio = target * _exponential(-margin)
    return 1 - ratio, ratio


def _tweedie(margin: jax.Array, target: jax.Array, _: Any) -> Pair:
    a, b = _exponential((1 - TWEEDIE) * margin), _exponential((2 - TWEEDIE) * margin)
    return b - target * a, (2 - TWEEDIE) * b - (1 - TWEEDIE) * target * a


def _rank(y: np.ndarray, parameters: Parameters) -> str | None:
    return ranking.check(y)


def _pairwise(margin: jax.Array, target: jax.Array, extra: Any) -> Pair:
    size, groups = extra
    return ranking.gradients(margin, target, size, groups, False)


def _ndcg(margin: jax.Array, target: jax.Array, extra: Any) -> Pair:
    size, groups = extra
    return ranking.gradients(margin, target, size, groups, True)


OBJECTIVES = {
    "rank:pairwise": Objective(_rank, _column, _mean, _pairwise, 9),
    "rank:ndcg": Objective(_rank, _column, _mean, _ndcg, 9),
    "binary:logistic": Objective(_binary, _column, _log_odds, _logistic, 8),
    "reg:squarederror": Objective(_no_check, _column, _mean, _squared, 2),
    "reg:absoluteerror": Objective(_no_check, _column, _quantile, _absolute, 1),
    "reg:quantileerror": Objective(_no_check, _column, _quantile, _pinball, 1),
    "reg:pseudohubererror": Objective(_no_check, _column, _mean, _pseudo_huber, 9),
    "multi:softprob": Objective(_classes, _one_hot, _log_shares, _softmax, 8),
    "multi:softmax": Objective(_classes, _one_hot, _log_shares, _softmax, 8),
    "count:poisson": Objective(_not_negative, _column, _log_mean, _poisson, 11),
    "reg:gamma": Objective(_not_negative, _column, _log_mean, _gamma, 10),
    "reg:tweedie": Objective(_not_negative, _column, _log_mean, _tweedie, 11),
    "binary:squared": Objective(_binary, _column, _shares, _squared, 2),
    "multi:squared": Objective(_classes, _one_hot, _shares, _squared, 2),
}
