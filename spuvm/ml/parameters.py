"""The parameters of gradient boosting, named and meant as XGBoost's, and what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from spuvm.runtime.errors import ConfigError

MULTICLASS = ("mlogloss", "merror", "accuracy")
METRICS = {  # of each objective, the default first
    "binary:logistic": ("logloss", "error", "auc", "accuracy"),
    "reg:squarederror": ("rmse", "mae"),
    "reg:absoluteerror": ("mae", "rmse"),
    "reg:quantileerror": ("quantile", "mae", "rmse"),
    "reg:pseudohubererror": ("mae", "rmse"),
    "multi:softprob": MULTICLASS,
    "multi:softmax": MULTICLASS,
    "count:poisson": ("poisson-nloglik",),
    "reg:gamma": ("gamma-nloglik",),
    "reg:tweedie": ("tweedie-nloglik",),
    "rank:pairwise": ("ndcg",),
    "rank:ndcg": ("ndcg",),
    "binary:squared": ("error", "accuracy"),
    "multi:squared": ("merror", "accuracy"),
}
LOG_LINK = ("count:poisson", "reg:gamma", "reg:tweedie")  # the margin is the logarithm of the prediction
TWEEDIE = 1.5  # the power of the variance
# Leaves are quantiles of what is left of their rows.
QUANTILES = ("reg:absoluteerror", "reg:quantileerror")
RANKS = ("rank:pairwise", "rank:ndcg")
ONE_HOLDER = (*LOG_LINK, *QUANTILES, *RANKS, "reg:pseudohubererror")  # one party must hold all labels


@dataclass(frozen=True)
class Parameters:
    """Public: part of the program that all parties agree on.

    Attributes:
        objective: "binary:logistic", "reg:squarederror", "multi:softprob", "multi:softmax"; of a vertical frame
            also "count:poisson", "reg:gamma" and "reg:tweedie" (of variance power 1.5), "reg:pseudohubererror",
            "reg:absoluteerror" and "reg:quantileerror", whose leaves are quantiles of their rows, found by nine secret
            comparisons more for each row and tree; "rank:pairwise" and "rank:ndcg" of the rows of each `group` that
            `fit` is given, whose hessians are small: so should be `min_child_weight`. "binary:squared" and
            "multi:squared" fit the classes' shares, as decision trees do.
        num_class: number of classes of the multi-class objectives; labels are 0 to num_class - 1.
        n_estimators: rounds of boosting; each grows one tree, or one for each class.
        max_depth: of each tree, 1 to 10.
        grow_policy, max_leaves: "depthwise": all nodes of a level are split; "lossguide": the leaf that gains most is,
            until there are `max_leaves`, 2 to 64, of `max_depth` at most. Which leaf that is stays secret: a step for
            each leaf, one after the other, and products of each row with all leaves.
        learning_rate: by which leaf weights are multiplied.
        reg_lambda: L2 regularisation of leaf weights.
        reg_alpha: L1 regularisation of leaf weights; two comparisons more for each candidate and level.
        quantile_alpha: of "reg:quantileerror", the quantile that is predicted.
        huber_slope: of "reg:pseudohubererror", where squares turn into absolute values.
        gamma: the least gain of a split.
        min_child_weight: the least sum of hessians of a child.
        scale_pos_weight: of "binary:logistic", how much a row of class 1 counts; on average rows count 4 at most.
        base_score: the prediction before the first tree (a probability, a value); None: the mean label,
            which stays secret. Multi-class: 0.5, which means the same for every class.
        subsample: the share of rows that grow a tree, drawn by a public generator.
        sampling_method: "uniform", as `subsample` says; "goss", one-sided sampling by gradients as LightGBM has it: the
            share `top_rate` of rows with the largest gradients (times hessians) and of the others `other_rate` of all
            rows, which count (1 - top_rate) / other_rate times; all once in the first
            1 / learning_rate rounds. Which rows are large is secret, so it saves no work.
        colsample_bytree, colsample_bylevel: shares of the features that a tree, a level may split.
        max_bin: bins of a numeric feature, at most; their edges are its quantiles.
        random_state: seed of the public generator.
        eval_metric: a score, or several, of the evaluation sets after each round; see `METRICS`.
        early_stopping_rounds: stop when the last metric of the last evaluation set has not improved
            for so many rounds. The scores are revealed.
        reveal_splits_to_owner: each party that holds features learns which of its features and edges each
            node of each tree splits, and thus how many and in which nodes; nobody learns those of
            others, nor gradients, sums or leaf weights. Training and prediction are faster.
        monotone_constraints: by feature, 1 if predictions may only rise with it, -1 if only fall: a dictionary,
            kept as pairs. A comparison more for each level, and one for each candidate's bounds.
    """

    objective: str = "binary:logistic"
    num_class: int | None = None
    n_estimators: int = 100
    max_depth: int = 6
    grow_policy: str = "depthwise"
    max_leaves: int = 0
    learning_rate: float = 0.3
    reg_lambda: float = 1.0
    reg_alpha: float = 0.0
    quantile_alpha: float | None = None
    huber_slope: float = 1.0
    gamma: float = 0.0
    min_child_weight: float = 1.0
    scale_pos_weight: float = 1.0
    base_score: float | None = None
    subsample: float = 1.0
    sampling_method: str = "uniform"
    top_rate: float = 0.2
    other_rate: float = 0.1
    colsample_bytree: float = 1.0
    colsample_bylevel: float = 1.0
    max_bin: int = 256
    random_state: int = 0
    early_stopping_rounds: int | None = None
    eval_metric: str | tuple[str, ...] | None = None
    reveal_splits_to_owner: bool = False
    monotone_constraints: Any = None

    def __post_init__(self) -> None:
        for name, (kind, holds, want) in _CHECKS.items():
            value = getattr(self, name)
            if not _is(value, kind) or not holds(value):
                raise ConfigError(f"`{name}` must be {want}, got {value!r}.")
        if self.monotone_constraints is not None:
            object.__setattr__(self, "monotone_constraints", _pairs(self.monotone_constraints))
        if self.multiclass != (self.num_class is not None):
            need = "needs `num_class`" if self.multiclass else "takes no `num_class`"
            raise ConfigError(f"`objective` {self.objective!r} {need}, got {self.num_class}.")
        if (self.objective == "reg:quantileerror") != (self.quantile_alpha is not None):
            need = "takes no" if self.quantile_alpha is not None else "needs"
            raise ConfigError(f"`objective` {self.objective!r} {need} `quantile_alpha`, got {self.quantile_alpha}.")
        if self.quantile is not None and self.monotone_constraints:
            raise ConfigError(
                f"`monotone_constraints` do not hold for {self.objective!r}, whose leaves are quantiles: leave it out."
            )
        self._check_sampling()
        self._check_growth()
        logistic = self.objective == "binary:logistic"
        if self.scale_pos_weight != 1 and not logistic:
            raise ConfigError(f"`scale_pos_weight` is of 'binary:logistic', not of {self.objective!r}: leave it out.")
        if logistic and self.base_score is not None and not 0 < self.base_score < 1:
            raise ConfigError(
                f"`base_score` of {self.objective!r} is a probability between 0 and 1, got {self.base_score}."
            )

        wrong = [m for m in self.metrics if m not in METRICS[self.objective]]
        if wrong:
            raise ConfigError(
                f"`eval_metric` of {self.objective!r} is one of {', '.join(METRICS[self.objective])}, got {wrong[0]!r}."
            )

    def _check_growth(self) -> None:
        leafwise = self.grow_policy == "lossguide"
        if leafwise != (self.max_leaves > 0):
            need = "needs `max_leaves`" if leafwise else "takes no `max_leaves`"
            raise ConfigError(f"`grow_policy` {self.grow_policy!r} {need}, got {self.max_leaves}.")
        if leafwise and (self.monotone_constraints or self.reveal_splits_to_owner):
            raise ConfigError("`monotone_constraints` and `reveal_splits_to_owner` need `grow_policy` 'depthwise'.")

    def _check_sampling(self) -> None:
        if self.sampling_method == "goss" and self.subsample < 1:
            raise ConfigError("`sampling_method` 'goss' draws rows itself: leave `subsample` at 1.")
        if self.top_rate + self.other_rate > 1:
            raise ConfigError(
                f"`top_rate` and `other_rate` are shares of all rows, together at most 1, got {self.top_rate} and "
                f"{self.other_rate}."
            )

    @property
    def quantile(self) -> float | None:
        """Of the rows' residuals, which each leaf is; None if leaves are sums of gradients by sums of hessians."""
        return {"reg:absoluteerror": 0.5, "reg:quantileerror": self.quantile_alpha}.get(self.objective)

    @property
    def multiclass(self) -> bool:
        return self.objective.startswith("multi:")

    @property
    def outputs(self) -> int:
        """Trees grown in a round."""
        return self.num_class or 1

    @property
    def metrics(self) -> tuple[str, ...]:
        if self.eval_metric is None:
            return METRICS[self.objective][:1]
        return (self.eval_metric,) if isinstance(self.eval_metric, str) else tuple(self.eval_metric)


def _pairs(given: Any) -> tuple[tuple[str, int], ...]:
    """Names and signs, hashable."""
    try:
        pairs = dict(given)
    except (TypeError, ValueError):
        pairs = {None: 0}
    if any(not isinstance(k, str) or isinstance(v, bool) or v not in (-1, 0, 1) for k, v in pairs.items()):
        raise ConfigError(
            f"`monotone_constraints` must be 1, 0 or -1 by the feature's name, {{'age': 1}}, got {given!r}."
        )
    return tuple((str(k), int(v)) for k, v in pairs.items())


NAMES = tuple(f.name for f in fields(Parameters))

_Check = tuple[type | tuple[type, ...], Callable[[Any], bool], str]
_SHARE: _Check = ((float, int), lambda x: 0 < x <= 1, "a number above 0 and at most 1")
_CHECKS: dict[str, _Check] = {
    "objective": (str, lambda x: x in METRICS, f"one of {', '.join(METRICS)}"),
    "num_class": ((int, type(None)), lambda x: x is None or 2 <= x <= 1000, "a number of classes, 2 or more"),
    "n_estimators": (int, lambda x: x >= 1, "1 or more"),
    "max_depth": (int, lambda x: 1 <= x <= 10, "1 to 10"),
    "grow_policy": (str, lambda x: x in ("depthwise", "lossguide"), "'depthwise' or 'lossguide'"),
    "max_leaves": (int, lambda x: x == 0 or 2 <= x <= 64, "0, or 2 to 64"),
    "learning_rate": ((float, int), lambda x: 0 < x <= 1, "above 0 and at most 1"),
    "reg_lambda": ((float, int), lambda x: 0 <= x <= 1e6, "0 to a million"),
    "reg_alpha": ((float, int), lambda x: 0 <= x <= 1e6, "0 to a million"),
    "quantile_alpha": (
        (float, type(None)),
        lambda x: x is None or 0.01 <= x <= 0.99,
        "one number from 0.01 to 0.99 (a model for each quantile), or None",
    ),
    "huber_slope": ((float, int), lambda x: 1e-6 <= x <= 1e9, "a millionth to a billion"),
    "sampling_method": (str, lambda x: x in ("uniform", "goss"), "'uniform' or 'goss'"),
    "top_rate": ((float, int), lambda x: 0 < x < 1, "above 0 and below 1"),
    "other_rate": ((float, int), lambda x: 0.01 <= x < 1, "0.01 or more and below 1"),
    "gamma": ((float, int), lambda x: 0 <= x <= 1e6, "0 to a million"),
    "min_child_weight": ((float, int), lambda x: 0 <= x <= 1e9, "0 to a billion"),
    "scale_pos_weight": ((float, int), lambda x: 1e-6 <= x <= 1e6, "a millionth to a million"),
    "base_score": ((float, int, type(None)), lambda x: x is None or math.isfinite(x), "a finite number, or None"),
    "subsample": _SHARE,
    "colsample_bytree": _SHARE,
    "colsample_bylevel": _SHARE,
    "max_bin": (int, lambda x: 2 <= x <= 65536, "2 or more"),
    "random_state": (int, lambda x: 0 <= x < 2**32, "0 to 2^32 - 1"),
    "early_stopping_rounds": ((int, type(None)), lambda x: x is None or x >= 1, "1 or more, or None"),
    "eval_metric": ((str, tuple, list, type(None)), lambda x: x is None or len(x) > 0, "a name, or several"),
    "reveal_splits_to_owner": (bool, lambda x: True, "True or False"),
}


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Instances of a kind; True and False are no numbers."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)
