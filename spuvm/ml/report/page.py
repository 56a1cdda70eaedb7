"""A page about a model: what it is worth on some rows, what it looks at, what it cost, and what anybody learned.

One HTML file without scripts or anything from elsewhere. All that it shows is revealed to all parties, because asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spuvm import context as contexts
from spuvm.data.targets import replacing
from spuvm.ml.common.estimator import PAGES
from spuvm.ml.common.labels import is_text, labels_of, told
from spuvm.ml.common.table import Table
from spuvm.ml.report.curves import COLOURS, Line, curve_svg
from spuvm.ml.report.importance import Importance, label_of, permutation_importance
from spuvm.ml.statistics.curves import (
    calibration_curve,
    confusion_matrix,
    lift_curve,
    precision_recall_curve,
    roc_curve,
)
from spuvm.runtime.errors import ConfigError, InputError

INSTALL = "pages need a package that is missing: pip install jinja2"
DIAGONAL = "by chance"
BEST = "calibrated"


@dataclass
class Findings:
    """What a page shows of a model on some rows.

    Attributes:
        numbers: by name.
        curves: by title, named lines.
        confusion: counts of labels (rows) by predicted classes.
        importance: of the features.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    curves: dict[str, dict[str, Line]] = field(default_factory=dict)
    confusion: np.ndarray | None = None
    importance: Importance | None = None


def write_report(
    model: Any,
    path: str | Path,
    data: Any = None,
    y: Any = None,
    *,
    label: Any = None,
    beside: Mapping[str, Any] | None = None,
    importance: bool = True,
    title: str | None = None,
) -> Findings:
    """Write a page about a model that was trained; of a networked run each party writes its own, which are the same.

    Revealed to all parties: the score, and of two classes counts at thresholds, calibration and ones by rank (see
    `roc_curve` and others); with `importance` a score for each feature.

    Args:
        path: of the HTML file.
        data: rows with labels, held out ones; without them the page says what training cost and revealed.
        y, label: the labels, as of `score`.
        beside: probabilities of class 1 that other models gave the same rows, by a name for each: a column, or an
            object of a PYU or an SPU; a plaintext model's, say.
        importance: whether the page has the importance of features; see `permutation_importance`.

    Returns:
        What the page shows.

    Raises:
        ConfigError: for a model that has learned nothing; InputError: for rows that it cannot predict.
    """
    template = _template()
    found = Findings() if data is None else measured(model, data, label if y is None else y, beside or {}, importance)
    html = template.render(
        title=title or f"{type(model).__name__}",
        model=repr(model),
        facts=_facts(model, data),
        numbers=found.numbers,
        curves={name: curve_svg(lines, name) for name, lines in found.curves.items()},
        legend=_legend(found, beside or {}),
        confusion=None if found.confusion is None else found.confusion.tolist(),
        bars=_bars(found.importance),
        costs=_costs(model),
        reveals=model.reveals,
    )
    with replacing(Path(path), True) as temporary:
        temporary.write_text(html)
    return found


def measured(model: Any, data: Any, y: Any, beside: Mapping[str, Any], importance: bool) -> Findings:
    """What is asked of a model and rows with labels."""
    found = Findings()
    named = y if y is not None else label_of(model)
    if named is None:
        raise InputError("`label` is missing: a report needs the labels of its rows.")
    if not hasattr(model, "score"):
        raise ConfigError(f"a {type(model).__name__} has no score: leave `data` out.")
    score = float(model.score(data, y))
    classes = _classes(model)
    found.numbers["accuracy" if classes else "score"] = score
    if classes:
        rows, named = told(data, named, _positive(model) if is_text(data, named) else None)
        labels = rows[named] if isinstance(named, str) else _shared(model, named, rows, classes)
        features = rows.drop(named) if isinstance(named, str) else rows
        found.confusion = confusion_matrix(labels, model.predict(features), n_classes=classes)
        if classes == 2 and _has_probabilities(model):
            known = {type(model).__name__: model.predict_proba(features), **beside}
            found.curves = _curves(labels, known)
            first = next(iter(known))
            found.numbers["area under the ROC curve"] = _area(found.curves[ROC][first])
            for name in beside:
                found.numbers[f"area under the ROC curve: {name}"] = _area(found.curves[ROC][name])
    if importance:
        found.importance = permutation_importance(model, data, y, n_repeats=1)
    return found


def _positive(model: Any) -> str | None:
    """Of labels that are two texts, the one that was 1 in training."""
    known = getattr(model._fitted(), "facts", {}).get("positive")
    found = getattr(getattr(model, "pipeline", None) or model, "positive", known)
    return None if found is None else str(found)


ROC, PRECISION = "true by false positive rate", "precision by recall"
GAIN, CALIBRATION = "share of ones by share of rows, likeliest first", "share of ones by probability"


def _curves(labels: Any, scores: Mapping[str, Any]) -> dict[str, dict[str, Line]]:
    out: dict[str, dict[str, Line]] = {title: {} for title in (ROC, PRECISION, GAIN, CALIBRATION)}
    for name, given in scores.items():
        roc, pr = roc_curve(labels, given), precision_recall_curve(labels, given)
        lift, calibration = lift_curve(labels, given), calibration_curve(labels, given)
        some = np.asarray(calibration.rows) > 0
        out[ROC][name] = _line(np.r_[0, roc.fpr[::-1]], np.r_[0, roc.tpr[::-1]])
        out[PRECISION][name] = _line(pr.recall[::-1], pr.precision[::-1])
        out[GAIN][name] = _line(np.linspace(0, 1, len(lift.gain) + 1), np.r_[0, lift.gain])
        out[CALIBRATION][name] = _line(calibration.prob_pred[some], calibration.prob_true[some])
    for title, name in ((ROC, DIAGONAL), (GAIN, DIAGONAL), (CALIBRATION, BEST)):
        out[title][name] = ((0.0, 1.0), (0.0, 1.0))
    return out


def _line(x: np.ndarray, y: np.ndarray) -> Line:
    return tuple(map(float, x)), tuple(map(float, y))


def _area(line: Line) -> float:
    return float(np.trapezoid(line[1], line[0]))


def _classes(model: Any) -> int:
    """How many classes the model tells apart; 0 of a regression."""
    last = model[-1] if hasattr(model, "named_steps") else model
    try:
        return len(last.classes_)
    except AttributeError:
        pass
    objective = getattr(getattr(last, "parameters", None), "objective", "")
    if objective.startswith("binary:") or type(last).__name__ == "ScoreCard":
        return 2
    return int(last.parameters.num_class) if objective.startswith("multi:") else 0


def _has_probabilities(model: Any) -> bool:
    last = model[-1] if hasattr(model, "named_steps") else model
    return hasattr(last, "predict_proba") and bool(getattr(last, "probabilities", True))


def _shared(model: Any, y: Any, rows: Any, classes: int) -> Any:
    """Labels that have no name, as a secret column."""
    machine = model._fitted().machine
    count = rows.rows if isinstance(rows, Table) else int(np.shape(y)[0])
    return labels_of(machine, None, y, "classes", count, classes).values


# What the page has -------------------------------------------------------------------------------------------


def _facts(model: Any, data: Any) -> dict[str, str]:
    context = contexts.current()
    out = {"parties": ", ".join(context.parties) if context else "", "protocol": ""}
    machine = model._fitted().machine
    config = machine.spu.vm.config
    out["protocol"] = f"{config.protocol}, {config.ring_bits} bits"
    rows = getattr(data, "rows", None)
    return out | ({"rows of the report": f"{rows:,}"} if rows else {})


def _costs(model: Any) -> list[tuple[str, int, float]]:
    steps = [s for _, s in model.steps] if hasattr(model, "named_steps") else [model]
    return [
        (f"{type(s).__name__}: {w}" if len(steps) > 1 else w, r, mb) for s in steps for w, r, mb in _machine(s).costs
    ]


def _machine(step: Any) -> Any:
    return step._fitted().machine


def _bars(importance: Importance | None) -> list[tuple[str, float, float]]:
    """Features, largest first: name, importance, and its share of the largest, for the width of a bar."""
    if importance is None:
        return []
    pairs = sorted(zip(importance.names, importance.importances_mean), key=lambda p: -p[1])
    most = max(max((abs(v) for _, v in pairs), default=0.0), 1e-12)
    return [(name, float(v), float(100 * abs(v) / most)) for name, v in pairs]


def _legend(found: Findings, beside: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    names = list(next(iter(found.curves.values()), {}))
    return [(name, COLOURS[i % len(COLOURS)]) for i, name in enumerate(names)] if beside else []


PAGES["report"] = write_report


def _template() -> Any:
    try:
        import jinja2
    except ImportError:
        raise InputError(f"{INSTALL}.") from None
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "pages")
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template("model.html")
