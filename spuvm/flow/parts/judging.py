"""Components that use and judge models: predict, evaluate, importance, coefficients, points of a score card."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Annotated, Any, Literal

import numpy as np

from spuvm import ml
from spuvm.data import Frame
from spuvm.flow.components import component
from spuvm.flow.kinds import Findings, Model, Number, Predictions, Report, Rows
from spuvm.flow.parameters import Party
from spuvm.ml import metrics as judges
from spuvm.ml.common.rules import whole
from spuvm.ml.machine import Machine, default_device
from spuvm.ml.statistics.columns import groups
from spuvm.runtime.errors import InputError

VERBS = {
    "class or value": "predict",
    "probability": "predict_proba",
    "margin": "decision_function",
    "points": "score_points",
    "log hazard": "predict_log_partial_hazard",
}
MARGIN = "predict_margin"  # as `Sgb` calls it
OF_CLASSES = ("auc", "accuracy", "error", "logloss")
CURVES = 2  # classes that curves are of


@component
def predict(
    model: Model,
    data: Rows,
    *,
    to: Annotated[Party, "the party that alone sees them; '' leaves them secret"] = "",
    output: Annotated[
        Literal["class or value", "probability", "margin", "points", "log hazard"], "what is predicted"
    ] = ("class or value"),
    label: Annotated[str, "a column that is left out"] = "",
) -> Predictions:
    """Predictions of a model, secret or shown to one party."""
    verb = VERBS[output]
    if verb == "decision_function" and hasattr(model, MARGIN):
        verb = MARGIN
    if not hasattr(model, verb):
        can = [name for name, v in VERBS.items() if hasattr(model, v) or (name == "margin" and hasattr(model, MARGIN))]
        raise InputError(f"a {type(model).__name__} gives no {output}: it gives {', '.join(can) or 'nothing'}.")
    rows = without(data, label)
    return getattr(model, verb)(rows, to or None) if verb != "score_points" else model.score_points(rows, _shown(to))


def _shown(to: str) -> str:
    if not to:
        raise InputError("points are shown to a party: name it, `to`.")
    return to


def without(data: Any, label: str) -> Any:
    """The rows without a column, if they have it."""
    names = data.columns if isinstance(data, Frame) else data.names
    return data.drop(label) if label and label in names else data


@component
def evaluate(
    model: Model,
    data: Rows,
    *,
    label: Annotated[str, "the column of labels"],
    metrics: Annotated[tuple[str, ...], "auc, accuracy, error, logloss; rmse, mae of numbers; none: by the model"] = (),
    curves: Annotated[bool, "whether ROC, precision and recall, lift and calibration are shown, too"] = False,
    points: Annotated[int, whole(3, 1000), "thresholds of the curves"] = 21,
) -> Findings:
    """What a model is worth on rows with labels: each number is revealed, and nothing else."""
    rows, labels = without(data, label), data[label]
    classes = hasattr(model, "predict_proba")
    chosen = metrics or (("auc", "accuracy") if classes else ("rmse",))
    device, known = default_device(), _Scores(model, rows, classes)
    numbers = {}
    for name in chosen:
        if name in (*OF_CLASSES, *SEVERAL) and not classes:
            raise InputError(f"`metrics`: a {type(model).__name__} gives no probabilities, which {name} is of.")
        numbers[name] = judges.evaluate(device, name, labels, known.of(name))
    report = Report(numbers)
    return with_curves(report, labels, known.of("logloss"), points) if curves else report


class _Scores:
    """What metrics are given: margins where these do, as equal rows have equal ones, probabilities for others."""

    def __init__(self, model: Any, rows: Any, classes: bool) -> None:
        self.model, self.rows, self.classes = model, rows, classes
        self.verb = next((v for v in (MARGIN, "decision_function") if hasattr(model, v)), None)

    def of(self, metric: str) -> Any:
        """The scores that a metric takes."""
        if not self.classes:
            return self.values
        if metric in SEVERAL:
            return self.probabilities
        if metric in BY_MARGIN and self.margins is not None:
            return self.margins
        return default_device()(_last)(self.probabilities) if self.probabilities.ndim == CURVES else self.probabilities

    @cached_property
    def values(self) -> Any:
        """Numbers that are predicted."""
        return self.model.predict(self.rows)

    @cached_property
    def probabilities(self) -> Any:
        """Of each class."""
        return self.model.predict_proba(self.rows)

    @cached_property
    def margins(self) -> Any:
        """Of two classes, moved so that 1/2 is between them; None if the model has others, or none."""
        found = getattr(self.model, self.verb)(self.rows) if self.verb else None
        if found is None or (found.ndim == CURVES and found.shape[1] > 1):
            return None
        return default_device()(_half)(found)


SEVERAL = ("macc", "merror", "mlogloss")
BY_MARGIN = ("auc", "accuracy", "error")


def _half(margin: Any) -> Any:
    return margin.reshape(margin.shape[0]) + 0.5


def _last(p: Any) -> Any:
    return p[:, -1]


def with_curves(report: Report, labels: Any, scores: Any, points: int) -> Report:
    """The curves of probabilities of two classes."""
    roc = ml.roc_curve(labels, scores, points=points)
    pr = ml.precision_recall_curve(labels, scores, points=points)
    lift = ml.lift_curve(labels, scores)
    calibration = ml.calibration_curve(labels, scores)
    some = np.asarray(calibration.rows) > 0
    share = np.arange(1, len(lift.gain) + 1) / len(lift.gain)
    found = {
        "ROC (true by false positive rate)": (roc.fpr[::-1], roc.tpr[::-1]),
        "precision by recall": (pr.recall[::-1], pr.precision[::-1]),
        "gain by share of rows": (np.r_[0, share], np.r_[0, lift.gain]),
        "calibration (share of ones by probability)": (calibration.prob_pred[some], calibration.prob_true[some]),
    }
    curves = {k: (tuple(map(float, x)), tuple(map(float, y))) for k, (x, y) in found.items()}
    return Report(report.numbers, report.tables, curves)


@component
def score(
    model: Model, data: Rows, *, label: Annotated[str, "the column of labels; the one of training if ''"] = ""
) -> Number:
    """Accuracy, or of numbers R^2; revealed."""
    return float(model.score(data, label) if label else model.score(data))


@component
def secret_score(
    model: Model,
    data: Rows,
    *,
    label: Annotated[str, "the column of labels"],
    metric: Annotated[Literal["auc", "accuracy", "error"], "of two classes"] = "auc",
) -> Predictions:
    """What a model is worth on rows with labels, as a secret: for searches that show the best score alone."""
    device, known = default_device(), _Scores(model, without(data, label), True)
    labels, _ = groups(Machine(device), data[label], 2)
    return device(_scored(metric))(labels, known.of(metric))


@cache
def _scored(metric: str) -> Any:
    return lambda y, s: judges.METRICS[metric](y, s)


@component
def number(report: Findings, *, of: Annotated[str, "the name of a number of the report"]) -> Number:
    """One number of a report."""
    if of not in report.numbers:
        raise InputError(f"the report has no number `{of}`: it has {', '.join(report.numbers) or 'none'}.")
    return float(report.numbers[of])


@component
def score_card_table(model: Model) -> Findings:
    """The points of each bin of each column of a score card, revealed to all parties."""
    if not isinstance(model, ml.ScoreCard):
        raise InputError(f"`model` is a {type(model).__name__}: give a `score_card`.")
    found = model.table()
    rows = [(name, i, float(p)) for name, points in found.items() for i, p in enumerate(points)]
    return Report({}, {"points": (("column", "bin", "points"), tuple(rows))})


@component
def woe_table(model: Model) -> Findings:
    """Weights of evidence and information values, revealed to all parties."""
    weights, values = model.table(), model.iv()
    rows = [(name, i, float(w)) for name, row in weights.items() for i, w in enumerate(row)]
    iv = tuple((n, float(v)) for n, v in sorted(values.items(), key=lambda item: -item[1]))
    tables = {"information values": (("column", "iv"), iv), "weights": (("column", "bin", "woe"), tuple(rows))}
    return Report({}, tables)


@component
def importance(
    model: Model, *, kind: Annotated[Literal["weight", "gain", "total_gain"], "what is counted"] = "weight"
) -> Findings:
    """How often `sgb` splits each feature, or what that gains; revealed to all parties."""
    if not hasattr(model, "feature_importance"):
        raise InputError(f"`model` is a {type(model).__name__}: importance is of `sgb`.")
    found = model.feature_importance(kind)
    rows = sorted(found.items(), key=lambda item: -item[1])
    return Report({}, {f"importance ({kind})": (("feature", kind), tuple((n, float(v)) for n, v in rows))})


@component
def coefficients(model: Model) -> Findings:
    """The coefficients of a linear model, revealed to all parties."""
    if not hasattr(model, "reveal") or isinstance(model, ml.Sgb):
        raise InputError(f"`model` is a {type(model).__name__}: coefficients are of linear models.")
    found = model.reveal()
    names = ["intercept", *found.names]
    several = np.atleast_2d(found.coef)
    rows = [(n, *map(float, v)) for n, v in zip(names, np.c_[np.atleast_1d(found.intercept), several].T)]
    heads = ("column", *(["coefficient"] if len(several) == 1 else [f"class {i}" for i in range(len(several))]))
    return Report({}, {"coefficients": (heads, tuple(rows))})


@component
def summary(model: Model) -> Findings:
    """Coefficients with standard errors and p-values, revealed to all parties."""
    found = model.summary()
    rows = zip(found.names, found.coef, found.stderr, found.statistic, found.pvalues)
    heads = ("column", "coefficient", "standard error", "statistic", "p")
    return Report({}, {"summary": (heads, tuple((n, *map(float, v)) for n, *v in rows))})
