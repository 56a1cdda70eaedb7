"""Cross-validation and searches over parameters, in scikit-learn's shape: scores are revealed, nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Self

import numpy as np

from spuvm.data import Frame
from spuvm.ml.common.estimator import clone
from spuvm.ml.composition.splits import KFold, take
from spuvm.runtime.errors import ConfigError, InputError

Grid = Mapping[str, Sequence[Any]]


def cross_validate(
    estimator: Any, data: Any, y: Any = None, *, label: Any = None, cv: Any = None, groups: Any = None
) -> dict[str, Any]:
    """Fit on all rows but a part, score on the part, for each part.

    Args:
        data, y, label: as of `fit`.
        cv: a number of parts, or what splits (`KFold(...)`); 5 shuffled parts if not given.
        groups: of `GroupKFold`.

    Returns:
        test_score: float64 [parts], revealed to all parties; estimator: the fitted ones.
    """
    y = label if y is None else y
    if isinstance(data, Frame) and y is None:
        raise InputError("`label` is missing: name the frame's column that is to be predicted.")
    scores, fitted = [], []
    for train, test in splitter(cv).split(data, y, groups):
        model = clone(estimator).fit(take(data, train), take(y, train))
        held_out = take(data, test)
        scores.append(model.score(held_out) if isinstance(y, str) else model.score(held_out, take(y, test)))
        fitted.append(model)
    return {"test_score": np.array(scores), "estimator": fitted}


def cross_val_score(estimator: Any, data: Any, y: Any = None, **more: Any) -> np.ndarray:
    """The scores of `cross_validate`."""
    out: np.ndarray = cross_validate(estimator, data, y, **more)["test_score"]
    return out


def splitter(cv: Any) -> Any:
    """What splits."""
    if cv is None or (isinstance(cv, int) and not isinstance(cv, bool)):
        return KFold(5 if cv is None else cv, shuffle=True)
    if not hasattr(cv, "split"):
        raise ConfigError(f"`cv` must be a number of parts, or have `split`, got {cv!r}.")
    return cv


@dataclass(frozen=True)
class ParameterGrid:
    """All combinations of lists of values, by parameter."""

    grid: Grid

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for values in product(*self.grid.values()):
            yield dict(zip(self.grid, values))

    def __len__(self) -> int:
        return int(np.prod([len(v) for v in self.grid.values()]))


@dataclass(eq=False)
class GridSearchCV:
    """The best of all combinations of parameters by its mean score, and the estimator that has it, fitted on all rows.

    Args:
        estimator: with nothing learned.
        param_grid: lists of values by parameter; of a pipeline's step as step__parameter.
        cv: as of `cross_validate`.
        refit: whether the best is fitted on all rows.
    """

    estimator: Any
    param_grid: Grid
    cv: Any = None
    refit: bool = True
    best_params_: dict[str, Any] = field(default_factory=dict, init=False)
    best_score_: float = field(default=float("nan"), init=False)
    best_index_: int = field(default=0, init=False)
    cv_results_: dict[str, Any] = field(default_factory=dict, init=False)
    best_estimator_: Any = field(default=None, init=False)

    def candidates(self) -> list[dict[str, Any]]:
        """The parameters that are tried."""
        return list(ParameterGrid(self.param_grid))

    def fit(self, data: Any, y: Any = None, *, label: Any = None) -> Self:
        """Try all; the mean scores are revealed."""
        y = label if y is None else y
        tried = self.candidates()
        if not tried:
            raise ConfigError("`param_grid` has no values: give a list for each parameter.")
        models = [clone(self.estimator).set_params(**p) for p in tried]  # all parameters are checked first
        scores = np.array([cross_val_score(m, data, y, cv=self.cv) for m in models])
        means = scores.mean(axis=1)
        self.best_index_ = int(np.argmax(means))
        self.best_params_, self.best_score_ = tried[self.best_index_], float(means[self.best_index_])
        rank = np.argsort(np.argsort(-means, kind="stable"), kind="stable") + 1
        self.cv_results_ = {
            "params": tried,
            "mean_test_score": means,
            "std_test_score": scores.std(axis=1),
            "rank_test_score": rank,
        }
        if self.refit:
            self.best_estimator_ = clone(self.estimator).set_params(**self.best_params_).fit(data, y)
        return self

    def _best(self) -> Any:
        if self.best_estimator_ is None:
            raise InputError("there is no best estimator: call `fit`, with `refit=True`.")
        return self.best_estimator_

    def predict(self, data: Any, to: str | None = None) -> Any:
        """The best estimator's `predict`."""
        return self._best().predict(data, to)

    def predict_proba(self, data: Any, to: str | None = None) -> Any:
        """The best estimator's `predict_proba`."""
        return self._best().predict_proba(data, to)

    def score(self, data: Any, y: Any = None) -> Any:
        """The best estimator's `score`."""
        return self._best().score(data, y)

    def save(self, folders: Any) -> None:
        """Write the best estimator."""
        self._best().save(folders)


@dataclass(eq=False)
class RandomizedSearchCV(GridSearchCV):
    """As `GridSearchCV`, of `n_iter` combinations that are drawn by `random_state`."""

    n_iter: int = 10
    random_state: int = 0

    def candidates(self) -> list[dict[str, Any]]:
        """Combinations drawn without putting back."""
        every = list(ParameterGrid(self.param_grid))
        order = np.random.RandomState(self.random_state).permutation(len(every))[: self.n_iter]
        return [every[i] for i in order]
