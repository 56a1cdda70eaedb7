"""From margins to predictions: what the machine computes before anybody sees anything."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.marking import reveal
from spuvm.ml.metrics import (
    accuracy,
    auc,
    margin_log_loss,
    margin_multiclass_log_loss,
    multiclass_accuracy,
    rmse,
)
from spuvm.ml.objectives import MOST_MARGIN, checked
from spuvm.ml.parameters import LOG_LINK, TWEEDIE, Parameters

# Of margins [rows, K] -> [rows] or [rows, K].


def is_positive(margin: jax.Array) -> jax.Array:
    """Whether the probability is above one half, int32 [rows]."""
    return (margin[:, 0] > 0).astype(jnp.int32)


def best_class(margin: jax.Array) -> jax.Array:
    """The class with the largest margin, int32 [rows]."""
    return jnp.argmax(margin, axis=1).astype(jnp.int32)


def probabilities(margin: jax.Array) -> jax.Array:
    """Of the classes, [rows, K]."""
    return jax.nn.softmax(margin, axis=-1)


def differences(margin: jax.Array) -> jax.Array:
    """How far the margin of each class is above that of the first, [rows, classes]: as much as probabilities say."""
    if margin.shape[1] == 1:
        return jnp.concatenate([jnp.zeros_like(margin), margin], axis=1)
    return margin - margin[:, :1]


def probabilities_of(shown: np.ndarray) -> np.ndarray:
    """The softmax of `differences`, at the party that was shown them."""
    z = np.asarray(shown, np.float64)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p: np.ndarray = (e / e.sum(axis=1, keepdims=True)).astype(np.float32)
    return p


def both_probabilities(margin: jax.Array) -> jax.Array:
    """Of the classes 0 and 1, [rows, 2]."""
    p = jax.nn.sigmoid(margin)
    return jnp.concatenate([1 - p, p], axis=1)


def values(margin: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    """Predictions of a regression in the units of its labels, [rows]."""
    return (margin[:, 0] * down) * up.astype(margin.dtype)


def exponentials(margin: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    """Predictions whose logarithms the margins are, in the units of the labels, [rows]."""
    mean = jnp.exp(jnp.clip(margin[:, 0], -MOST_MARGIN, MOST_MARGIN))
    return (mean * down) * up.astype(margin.dtype)


MOST_GROWN = 17  # as a power of two: of small labels that are scored
FINE_BITS = 12
FINE = 2.0**FINE_BITS  # steps of a unit of labels, of predictions that a party is shown: labels may be small


@cache
def finely(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`values` or `exponentials` times `FINE`: by `down` while that stays at 1 or less, the rest by the whole `up`."""

    def shown(margin: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
        finer = down * FINE  # a power of two from 2^-5 to 2^12
        much = finer > 1
        rest = jnp.where(much, finer, 1.0).astype(jnp.int32).astype(margin.dtype)
        return function(margin, up.astype(margin.dtype) * rest, jnp.where(much, 1.0, finer))

    return shown


def from_steps(shown: np.ndarray) -> np.ndarray:
    """Predictions float32 [rows] at the party that was shown them in steps."""
    out: np.ndarray = (np.asarray(shown, np.float64) / FINE).astype(np.float32)
    return out


def more_than_half(margin: jax.Array) -> jax.Array:
    """Whether the share of class 1 is above one half, int32 [rows]."""
    return (margin[:, 0] > 0.5).astype(jnp.int32)


def both_shares(margin: jax.Array) -> jax.Array:
    """Of the classes 0 and 1, [rows, 2]."""
    return jnp.concatenate([1 - margin, margin], axis=1)


def shares(margin: jax.Array) -> jax.Array:
    """Of the classes: what is above 0, adding up to 1, [rows, K]."""
    some = jnp.maximum(margin, 2.0**-10)
    return some / jnp.sum(some, axis=1, keepdims=True)


VALUES = dict.fromkeys(LOG_LINK, exponentials)  # the others are `values`
IDENTITY = frozenset(  # margins are predictions but for their unit
    {"reg:squarederror", "reg:absoluteerror", "reg:quantileerror", "reg:pseudohubererror"}
)
SHARES = frozenset({"binary:squared", "multi:squared"})  # margins are probabilities
CLASS = {
    "binary:squared": more_than_half,
    "multi:squared": best_class,
    "binary:logistic": is_positive,
    "multi:softprob": best_class,
    "multi:softmax": best_class,
}
PROBABILITY = {
    "binary:logistic": both_probabilities,
    "multi:softprob": probabilities,
    "multi:softmax": probabilities,
    "binary:squared": both_shares,
    "multi:squared": shares,
}


def r2(labels: jax.Array, predictions: jax.Array, shrink: jax.Array) -> jax.Array:
    """The share of the labels' variance that predictions explain.

    Both f32 [rows] in any units; their squares fit after multiplication with the first two numbers of `shrink`.
    """

    def mean_square(x: jax.Array) -> jax.Array:
        return jnp.mean((x * shrink[0] * shrink[1]) ** 2)

    return 1 - mean_square(labels - predictions) / mean_square(labels - jnp.mean(labels))


def poisson_loss(z: jax.Array, y: jax.Array) -> jax.Array:
    """Less the logarithm of the likelihood, but for what depends on labels alone: of counts with mean e^z."""
    return jnp.exp(jnp.clip(z, -MOST_MARGIN, MOST_MARGIN)) - y * z


def gamma_loss(z: jax.Array, y: jax.Array) -> jax.Array:
    """Likewise of exponential numbers with mean e^z."""
    return y * jnp.exp(jnp.clip(-z, -MOST_MARGIN, MOST_MARGIN)) + z


def tweedie_loss(z: jax.Array, y: jax.Array) -> jax.Array:
    """Likewise of Tweedie's distribution with mean e^z."""
    a, b = jnp.exp((1 - TWEEDIE) * z), jnp.exp((2 - TWEEDIE) * z)
    return b / (2 - TWEEDIE) - y * a / (1 - TWEEDIE)


# Scores: of labels [rows] and margins [rows, K], labels of a regression in units of up * down.

Score = Callable[[jax.Array, jax.Array], jax.Array]
SCORES: dict[str, dict[str, Score]] = {
    "binary:logistic": {
        "logloss": lambda y, m: margin_log_loss(y, m[:, 0]),
        "error": lambda y, m: 1 - accuracy(y, m[:, 0] + 0.5),
        "auc": lambda y, m: auc(y, m[:, 0]),
        "accuracy": lambda y, m: accuracy(y, m[:, 0] + 0.5),
    },
    "multi:softprob": {
        "mlogloss": margin_multiclass_log_loss,
        "merror": lambda y, m: 1 - multiclass_accuracy(y, m),
        "accuracy": multiclass_accuracy,
    },
    "reg:squarederror": {
        "rmse": lambda y, m: rmse(y, m[:, 0]),
        "mae": lambda y, m: jnp.mean(jnp.abs(y - m[:, 0])),
    },
}
SCORES["multi:softmax"] = SCORES["multi:softprob"]
SCORES["multi:squared"] = {k: SCORES["multi:softprob"][k] for k in ("merror", "accuracy")}
SCORES["binary:squared"] = {
    "error": lambda y, m: 1 - accuracy(y, m[:, 0]),
    "accuracy": lambda y, m: accuracy(y, m[:, 0]),
}
for _name, _loss in (("poisson", poisson_loss), ("gamma", gamma_loss), ("tweedie", tweedie_loss)):
    _objective = "count:poisson" if _name == "poisson" else f"reg:{_name}"
    SCORES[_objective] = {f"{_name}-nloglik": lambda y, m, loss=_loss: jnp.mean(loss(m[:, 0], y))}  # type: ignore[misc]
for _objective in ("reg:absoluteerror", "reg:quantileerror", "reg:pseudohubererror"):
    SCORES[_objective] = dict(SCORES["reg:squarederror"])
IN_LABEL_UNITS = frozenset({"rmse", "mae", "quantile"})
LARGER_IS_BETTER = frozenset({"auc", "accuracy", "ndcg"})


def pinball(y: jax.Array, m: jax.Array, share: float) -> jax.Array:
    """The mean loss of predicted quantiles: errors below count `share`, those above 1 - share."""
    off = y - m[:, 0]
    return jnp.mean(share * off + jnp.maximum(-off, 0.0))


def scored(objective: str, metric: str, quantile: float | None) -> Score:
    """The metric's function."""
    if metric == "quantile":
        assert quantile is not None
        return lambda y, m: pinball(y, m, quantile)
    return SCORES[objective][metric]


@cache
def score_of(objective: str) -> Callable[..., jax.Array]:
    """A function of labels [rows], `shrink` [3], margins [rows, K], up and down that reveals accuracy or R^2.

    Labels of a regression are in units of margins times up * down, and times the last number of `shrink`.
    """

    def score(labels: jax.Array, shrink: jax.Array, margin: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
        if "accuracy" in SCORES[objective]:
            shown = SCORES[objective]["accuracy"](labels, margin)
        else:
            shown = r2(labels, VALUES.get(objective, values)(margin, up, down * shrink[2]), shrink)
        out: jax.Array = reveal(jnp.asarray(shown))
        return out

    return score


def labels_to_score(labels: np.ndarray, parameters: Parameters, where: str) -> dict[str, np.ndarray]:
    """What `score_of` takes, at the labels' holder: of a regression they are brought near 1."""
    y = checked(labels, parameters, where)
    bits = int(np.ceil(np.log2(np.abs(y - y.mean()).max() + 1e-30)))
    grown = 2.0 ** min(max(-bits, 0), MOST_GROWN)
    shrink = np.array([2.0 ** -min(max(bits, 0), 15), 2.0 ** -max(bits - 15, 0), grown], np.float32)
    return {"labels": (y * grown).astype(np.float32), "shrink": shrink}
