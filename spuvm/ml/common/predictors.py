"""Estimators with labels: the verbs of classifiers and regressions, the same for all of them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.data import Frame
from spuvm.ml import predictions
from spuvm.ml.common import joined, units
from spuvm.ml.common.estimator import Estimator, Fitted
from spuvm.ml.common.labels import Labels, features_of, is_text, labels_of, told, weights_of
from spuvm.ml.common.rules import Rule, optional, whole
from spuvm.ml.common.table import Table, table_of
from spuvm.ml.machine import Inside, Machine
from spuvm.psi.shared import SharedTable
from spuvm.runtime.errors import ConfigError, InputError


@dataclass(frozen=True, eq=False)
class Given:
    """What `fit` was given, once it is known to fit together."""

    table: Table
    labels: Labels
    weight: Any = None
    data: Any = None


@dataclass(eq=False, kw_only=True, repr=False)
class Predictor(Estimator):
    """An estimator that learns from labels."""

    labels: ClassVar[str] = "classes"  # see `common.labels.KINDS`
    weights_of_mean_one: ClassVar[bool] = False
    least_rows: ClassVar[int] = 2

    def fit(
        self,
        data: Any,
        y: Any = None,
        *,
        label: Any = None,
        sample_weight: Any = None,
        positive: str | None = None,
        **more: Any,
    ) -> Self:
        """Train.

        Args:
            data: rows of features: a frame, arrays, objects of PYUs or of an SPU; see `common.table`; or a joined
                table that nobody sees (`spuvm.psi`), of which rows with all cells count.
            y: labels: the name of the frame's column, or an array [rows]; see `common.labels`.
            label: the same.
            sample_weight: a column of weights, or an array [rows].
            positive: of labels that are two texts, the one that is 1.

        Raises:
            InputError: for data, labels or weights that cannot be used, before anything is trained.
        """
        data, y = told(data, label if y is None else y, positive)
        machine, named = self._machine(data, y, sample_weight), y if isinstance(y, str) else None
        if isinstance(data, SharedTable):
            data, y, sample_weight = joined.learned(machine, data, y, sample_weight)
        self.fitted = self._learn(machine, self._given(machine, data, y, sample_weight), **more)
        self.fitted.facts["label"] = named
        self.fitted.facts["positive"] = positive
        return self

    def _given(self, machine: Machine, data: Any, y: Any, weight: Any) -> Given:
        table = self._features(machine, data, y, weight)
        n_classes = getattr(self, "n_classes", None)
        labels = labels_of(machine, data, y, self.labels, table.rows, n_classes, predicted=True)
        return Given(table, labels, weights_of(machine, data, weight, table.rows, self.weights_of_mean_one), data)

    def _features(self, machine: Machine, data: Any, y: Any, weight: Any) -> Table:
        if isinstance(data, Frame) and y is None:
            raise InputError("`label` is missing: name the frame's column that is to be predicted.")
        table = table_of(machine, features_of(data, y, weight), missing=self._takes_missing())
        if table.rows < self.least_rows:
            raise InputError(f"there are {table.rows} rows: {type(self).__name__} needs {self.least_rows} or more.")
        return table

    def _takes_missing(self) -> bool:
        return False

    @abstractmethod
    def _learn(self, machine: Machine, given: Given) -> Fitted:
        """Train on what was given."""

    def _given_to(self, result: Any, to: str | None) -> Any:
        return result if to is None else self._fitted().machine.to(result, to, "prediction")

    def _scaled(self, result: Any, to: str | None, function: Any = None) -> Any:
        """Results times `scale`, and what a function makes of them: by the party that is shown them, or secretly."""
        scale, machine = getattr(self, "scale", 1.0), self._fitted().machine
        if to is None or isinstance(machine, Inside):
            return result if scale == 1.0 else machine.run(times(scale), result, what="prediction")
        return spu.PYU(to)(lambda x: (np.asarray(x, np.float64) * scale).astype(np.float32))(self._given_to(result, to))

    def _scored(self, data: Any, y: Any, label: Any) -> tuple[Table, Any, Any]:
        """Features, the data, and what names its labels."""
        y = label if y is None else y
        y = self._fitted().facts.get("label") if y is None else y
        if y is None:
            raise InputError("`y` is missing: a score needs labels.")
        data, y = told(data, y, self._fitted().facts.get("positive") if is_text(data, y) else None)
        return self._table(features_of(data, y)), data, y


@dataclass(eq=False, kw_only=True, repr=False)
class Classifier(Predictor):
    """Predicts classes 0 to k - 1 by margins: of two classes one for the second, else one for each.

    Args:
        n_classes: their number, where no single holder of labels can say it; 2 then if not given.
    """

    n_classes: int | None = None
    probabilities: ClassVar[bool] = True
    scale: ClassVar[float] = 1.0  # margins are times 1 / scale

    @abstractmethod
    def _margins(self, table: Table) -> Any:
        """Secret margins [rows, 1], or [rows, classes]."""

    @property
    def classes_(self) -> np.ndarray:
        """The classes, as they are predicted."""
        return np.arange(self._fitted().facts["classes"])

    def decision_function(self, data: Any, to: str | None = None) -> Any:
        """Margins: float32 [rows] of two classes, above 0 for the second; else [rows, classes]."""
        margins, machine = self._margins(self._table(data)), self._fitted().machine
        if margins.shape[1] == 1:
            margins = machine.run(_only, margins, what="prediction")
        return self._scaled(margins, to)

    def predict(self, data: Any, to: str | None = None) -> Any:
        """Classes int32 [rows].

        Args:
            data: rows with the columns of training.
            to: the party that alone sees the result.

        Returns:
            An object at that party; without `to`, a secret object on the machine.

        Raises:
            InputError: for columns, types or categories that are not those of training.
        """
        margins = self._margins(self._table(data))
        function = predictions.is_positive if margins.shape[1] == 1 else predictions.best_class
        return self._given_to(self._fitted().machine.run(function, margins, what="prediction"), to)

    def predict_proba(self, data: Any, to: str | None = None) -> Any:
        """The probability of each class, float32 [rows, classes]; otherwise as `predict`.

        The party is shown the differences of the classes' margins, which say what the probabilities say.
        """
        if not self.probabilities:
            raise ConfigError(f"{type(self).__name__} predicts no probabilities: use `decision_function`.")
        margins, machine = self._margins(self._table(data)), self._fitted().machine
        if to is not None and not isinstance(machine, Inside):
            shown = machine.run(predictions.differences, margins, what="prediction")
            return spu.PYU(to)(predictions.probabilities_of)(self._scaled(shown, to))
        function = predictions.both_probabilities if margins.shape[1] == 1 else predictions.probabilities
        return machine.run(function, self._scaled(margins, None), what="prediction")

    def predict_log_proba(self, data: Any) -> Any:
        """Logarithms of `predict_proba`, secret."""
        margins = self._scaled(self._margins(self._table(data)), None)
        return self._fitted().machine.run(_log_probabilities, margins, what="prediction")

    def score(self, data: Any, y: Any = None, *, label: Any = None) -> Any:
        """The share of rows whose class is right; revealed to all parties."""
        table, data, y = self._scored(data, y, label)
        machine, classes = self._fitted().machine, self._fitted().facts["classes"]
        truth = labels_of(machine, data, y, "classes", table.rows, classes)
        return _number(machine.run(_accuracy, self._margins(table), truth.values, what="score"))


@dataclass(eq=False, kw_only=True, repr=False)
class Regressor(Predictor):
    """Predicts numbers: in the units of its labels, by `_values`."""

    labels: ClassVar[str] = "numbers"
    scale: ClassVar[float] = 1.0  # values are times 1 / scale

    @abstractmethod
    def _values(self, table: Table) -> Any:
        """Secret predictions [rows] in units: y is (value + mean) 2^power."""

    def predict(self, data: Any, to: str | None = None) -> Any:
        """Numbers float32 [rows]; otherwise as of classifiers."""
        learned = self._fitted()
        values, unit = self._values(self._table(data)), learned.arrays["unit"]
        if to is not None and self.scale == 1.0 and not isinstance(learned.machine, Inside):
            shown = learned.machine.run(_finely, values, unit, what="prediction")
            return spu.PYU(to)(predictions.from_steps)(self._given_to(shown, to))
        full = learned.machine.run(_in_full(1 / self.scale), values, unit, what="prediction")
        return self._scaled(full, to)

    def score(self, data: Any, y: Any = None, *, label: Any = None) -> Any:
        """R^2, the share of the labels' variance that is explained; revealed to all parties."""
        table, data, y = self._scored(data, y, label)
        learned = self._fitted()
        truth = labels_of(learned.machine, data, y, self.labels, table.rows)
        values = self._scaled(self._values(table), None)
        operands = values, truth.values, truth.unit, learned.arrays["unit"]
        return _number(learned.machine.run(_r2, *operands, what="score"))


CLASSES_RULE: Rule = optional(whole(2, 1000))


def to_unit(values: jax.Array, own: Any, unit: Any) -> jax.Array:
    """Labels in their own unit -> in that of training."""
    out: jax.Array = units.times_power(values + own["mean"], own["power"] - unit["power"]) - unit["mean"]
    return out


def _number(x: Any) -> Any:
    return x if isinstance(x, jax.core.Tracer) else float(spu.reveal(x))


def _only(margins: jax.Array) -> jax.Array:
    return margins[:, 0]


def _log_probabilities(margins: jax.Array) -> jax.Array:
    if margins.shape[1] == 1:
        margins = jnp.concatenate([jnp.zeros_like(margins), margins], axis=1)
    return margins - jax.nn.logsumexp(margins, axis=1, keepdims=True)


def _accuracy(margins: jax.Array, labels: jax.Array) -> jax.Array:
    found = predictions.is_positive(margins) if margins.shape[1] == 1 else predictions.best_class(margins)
    out: jax.Array = spu.reveal(jnp.mean(found == labels.astype(jnp.int32)))
    return out


@cache
def _in_full(steps: float) -> Any:
    """Values times `steps` in units -> in full, times `steps`."""
    return lambda values, unit: units.times_power(values + unit["mean"] * steps, unit["power"])


def _finely(values: jax.Array, unit: Any) -> jax.Array:
    """Values in units -> in full, times `predictions.FINE`."""
    return units.times_power(values + unit["mean"], unit["power"], predictions.FINE_BITS)


@cache
def times(scale: float) -> Any:
    """A product with a public number, as one function for the machine."""
    return lambda x: x * scale


def _r2(values: jax.Array, labels: jax.Array, own: Any, unit: Any) -> jax.Array:
    truth = to_unit(labels, own, unit)
    spread = jnp.mean((truth - jnp.mean(truth)) ** 2)
    out: jax.Array = spu.reveal(1 - jnp.mean((truth - values) ** 2) / spread)
    return out
