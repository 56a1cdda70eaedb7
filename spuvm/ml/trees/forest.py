"""Decision trees, random forests and extra trees: trees that are grown apart, and averaged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from spuvm.devices import PYU, SPU, fetch
from spuvm.ml.common import rules
from spuvm.ml.common.estimator import VERSION, Estimator
from spuvm.ml.common.labels import count_classes, told
from spuvm.ml.common.rules import Rule
from spuvm.ml.frames import as_frame
from spuvm.ml.machine import Machine, Reveal, default_device
from spuvm.ml.progress import Progress
from spuvm.ml.sgb import Sgb
from spuvm.ml.training import train
from spuvm.ml.trees.drawing import ForestSampling
from spuvm.runtime.errors import InputError, NotFittedError

RIDGE = 2.0**-10  # of leaves, so that none is divided by 0

CHECKS: dict[str, Rule] = {
    "max_depth": rules.whole(1, 10),
    "min_samples_leaf": rules.COUNT,
    "max_bin": rules.whole(2, 65536),
    "random_state": rules.SEED,
    "max_features": rules.Rule(
        lambda x: x in (None, "sqrt", "log2") or (isinstance(x, int | float) and 0 < x <= 10_000),
        "'sqrt', 'log2', a share, a number, or None for all",
    ),
}


@dataclass(eq=False, kw_only=True, repr=False)
class TreeEstimator(Estimator):
    """Trees on histograms: of squared errors, which for two classes is Gini's impurity; of several classes a tree each.

    Splits, leaves and predictions stay secret. A tree has all nodes to its depth, so `max_depth` must be given.

    Args:
        max_depth: of each tree, 1 to 10.
        min_samples_leaf: rows of a leaf, at least.
        max_features: of a level of a tree: a number, a share, "sqrt", "log2"; None: all.
        max_bin: bins of a numeric feature, at most.
        random_state: of the public generator that draws rows and features.
    """

    max_depth: int = 6
    min_samples_leaf: int = 1
    max_features: Any = None
    max_bin: int = 64
    random_state: int = 0
    n_classes: int | None = None
    inner: Sgb | None = field(default=None, init=False)

    trees: ClassVar[str] = ""  # the parameter that says how many
    classifies: ClassVar[bool] = True
    one_split: ClassVar[bool] = False
    checks: ClassVar[Mapping[str, Rule]] = CHECKS

    def fit(
        self, data: Any, y: Any = None, *, label: Any = None, sample_weight: Any = None, positive: str | None = None
    ) -> Self:
        """Grow the trees.

        Args:
            data: a frame, or arrays; see `frames.as_frame`.
            y, label: the name of the frame's column of labels, or an array; classes are 0 to k - 1.
            sample_weight: a column of weights, or an array, where the labels are.
            positive: of labels that are two texts, the one that is 1.

        Raises:
            InputError: for a frame, label or weights that cannot be used, before anything is computed.
        """
        data, y = told(data, label if y is None else y, positive)
        if y is None:
            raise InputError("`label` is missing: name the frame's column that is to be predicted.")
        device = self.device or default_device()
        frame, name, weight = as_frame(data, y, sample_weight)
        self.inner = self._grow(frame, name, weight, device)
        self.inner.positive = positive
        return self

    def _grow(self, frame: Any, name: str, weight: str | None, device: SPU) -> Sgb:
        inner = self._inner(frame, name, device)
        features = len(frame.columns) - 1 - (weight is not None)
        draw = partial(
            ForestSampling,
            bootstrap=bool(getattr(self, "bootstrap", False)),
            features=self._features(features),
            one_split=self.one_split,
        )
        sets: dict[str, Any] = {}
        given = Machine(device), inner.parameters, frame, name, weight, sets, Progress(False)
        inner.model, _ = train(*given, draw, boost=False)
        return inner

    def _inner(self, frame: Any, label: str, device: SPU) -> Sgb:
        count = getattr(self, self.trees) if self.trees else 1
        if not self.classifies:
            more: dict[str, Any] = {"objective": "reg:squarederror"}
        else:
            classes = self._classes(frame, label)
            more = (
                {"objective": "binary:squared"}
                if classes == 2
                else {"objective": "multi:squared", "num_class": classes}
            )
        return Sgb(
            device=device,
            n_estimators=count,
            learning_rate=1 / count,
            max_depth=self.max_depth,
            min_child_weight=float(self.min_samples_leaf),
            max_bin=self.max_bin,
            reg_lambda=RIDGE,
            gamma=0.0,
            random_state=self.random_state,
            **more,
        )

    def _classes(self, frame: Any, label: str) -> int:
        column = frame.schema[label]
        if self.n_classes is not None:
            return self.n_classes
        if column.type == "bool":
            return 2
        if column.categories is not None:
            return len(column.categories)
        series = frame[label]
        if len(series.parties) > 1:
            return 2
        holder = PYU(series.parties[0])
        return int(fetch(holder(partial(count_classes, where=column.where))(series.at(holder.party))))

    def _features(self, count: int) -> int:
        wanted = self.max_features
        if wanted is None:
            return count
        if wanted == "sqrt":
            return max(1, int(math.sqrt(count)))
        if wanted == "log2":
            return max(1, int(math.log2(count)))
        return max(1, min(count, int(wanted * count) if isinstance(wanted, float) else int(wanted)))

    # Prediction

    def _grown(self) -> Sgb:
        if self.inner is None or self.inner.model is None:
            raise NotFittedError(f"{type(self).__name__} has learned nothing yet: call `fit`, or `spuvm.ml.load`.")
        return self.inner

    def _feature_names(self) -> Sequence[str]:
        return self._grown().model_features()

    def _fitted(self) -> Any:
        return self._grown()._fitted()

    def predict(self, data: Any, to: str | None = None) -> Any:
        """Classes int32 [rows], or numbers float32 [rows]; secret, or shown to the party `to`."""
        return self._grown().predict(data, to)

    def score(self, data: Any, y: Any = None, *, label: Any = None) -> float:
        """Accuracy, or R^2; revealed to all parties."""
        return self._grown().score(data, label if y is None else y)

    def feature_importances(self) -> dict[str, float]:
        """By feature, its share of the gains of all splits, revealed to all parties."""
        gains = self._grown().feature_importance("total_gain")
        total = sum(gains.values()) or 1.0
        return {name: gain / total for name, gain in gains.items()}

    @property
    def reveals(self) -> tuple[Reveal, ...]:
        """What training and predictions have shown, to whom."""
        return () if self.inner is None else self.inner.reveals

    def explain(self) -> str:
        """What training and predictions cost, and what they revealed, to whom."""
        return self._grown().explain().replace(repr(self.inner), repr(self))

    # Parts on disk

    def to_tree(self) -> dict[str, Any]:
        """What `spuvm.save_shares` takes."""
        kind, parameters = f"spuvm.ml.{type(self).__name__}", json.dumps(self._written_parameters())
        return {"kind": kind, "version": VERSION, "parameters": parameters, "inner": self._grown().to_tree()}

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any], device: SPU) -> TreeEstimator:
        """The inverse of `to_tree`."""
        out = cls(**cls._read_parameters(json.loads(tree["parameters"])))
        out.inner = Sgb.of_tree(tree["inner"], device)
        return out


class ClassifierTrees(TreeEstimator):
    """Trees that know probabilities."""

    def predict_proba(self, data: Any, to: str | None = None) -> Any:
        """The share of each class in the leaves of a row, averaged over trees: float32 [rows, classes]."""
        return self._grown().predict_proba(data, to)

    @property
    def classes_(self) -> np.ndarray:
        """The classes, as they are predicted."""
        return np.arange(max(2, self._grown().parameters.outputs))


@dataclass(eq=False, kw_only=True, repr=False)
class DecisionTreeClassifier(ClassifierTrees):
    """One tree for classes."""


@dataclass(eq=False, kw_only=True, repr=False)
class DecisionTreeRegressor(TreeEstimator):
    """One tree for numbers."""

    classifies: ClassVar[bool] = False


FOREST_CHECKS = {**CHECKS, "n_estimators": rules.whole(1, 10_000), "bootstrap": rules.FLAG}


@dataclass(eq=False, kw_only=True, repr=False)
class RandomForestClassifier(ClassifierTrees):
    """Trees of rows that are drawn with replacement, and of some features for each level.

    Args:
        n_estimators: how many trees.
        bootstrap: whether rows are drawn.
    """

    n_estimators: int = field(default=20, kw_only=False)
    max_features: Any = "sqrt"
    bootstrap: bool = True
    trees: ClassVar[str] = "n_estimators"
    checks: ClassVar[Mapping[str, Rule]] = FOREST_CHECKS


@dataclass(eq=False, kw_only=True, repr=False)
class RandomForestRegressor(TreeEstimator):
    """As `RandomForestClassifier`, for numbers."""

    n_estimators: int = field(default=20, kw_only=False)
    max_features: Any = None
    bootstrap: bool = True
    trees: ClassVar[str] = "n_estimators"
    classifies: ClassVar[bool] = False
    checks: ClassVar[Mapping[str, Rule]] = FOREST_CHECKS


@dataclass(eq=False, kw_only=True, repr=False)
class ExtraTreesClassifier(RandomForestClassifier):
    """Trees that may split a feature at drawn places only, of each level as many as it has nodes."""

    bootstrap: bool = False
    one_split: ClassVar[bool] = True


@dataclass(eq=False, kw_only=True, repr=False)
class ExtraTreesRegressor(RandomForestRegressor):
    """As `ExtraTreesClassifier`, for numbers."""

    bootstrap: bool = False
    one_split: ClassVar[bool] = True
