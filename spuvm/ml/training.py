"""Training: what each party brings, and the rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spuvm.data import Column, Frame
from spuvm.data.schema import nearest
from spuvm.ml import continuing, ranking
from spuvm.ml import private_boosting as private
from spuvm.ml.boosting import AnyTree, Sampling, one_round, rules_for
from spuvm.ml.evaluation import EvaluationSet, stopping
from spuvm.ml.joined import Joined, counting_of
from spuvm.ml.layout import Layout
from spuvm.ml.linear.private import Private
from spuvm.ml.machine import Machine
from spuvm.ml.model import Model
from spuvm.ml.objectives import THRESHOLDS
from spuvm.ml.parameters import RANKS, Parameters
from spuvm.ml.partitions import SIDES
from spuvm.ml.progress import Progress
from spuvm.ml.ranking import Groups
from spuvm.ml.tree import Rules
from spuvm.runtime.errors import ConfigError, InputError

Drawing = Callable[[Parameters, Layout, int], Sampling]


@dataclass
class History:
    """Scores after each round: by evaluation set, by metric. Rounds count from 0."""

    scores: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    best_round: int | None = None
    best_score: float | None = None


def train(
    machine: Machine,
    p: Parameters,
    data: Any,
    label: str,
    weight: str | None,
    sets: Mapping[str, Frame],
    progress: Progress,
    draw: Drawing = Sampling,
    boost: bool = True,
    start: Model | None = None,
    dp: Private | None = None,
    group: str | Sequence[int] | None = None,
) -> tuple[Model, History]:
    """Grow the trees. Everything that can be wrong with the input is found before the first of them.

    Args:
        draw: which rows and features each tree may use.
        boost: whether each tree sees what those before it leave; else all see the labels.
        start: a model whose trees come first, and whose bins are used.
        dp: how training is private.
        group: of a ranking, the column of groups, or their sizes.
    """
    if start is not None:
        p = replace(p, max_bin=start.parameters.max_bin)
    elif isinstance(data, Frame | Joined) and dp is None:  # bins need rows
        p = replace(p, max_bin=max(2, min(p.max_bin, data.rows)))
    features, layout = check(p, data, label, weight, sets, group)
    if isinstance(data, Joined):
        data = counting_of(machine, data, label)
        features = replace(features, counting=data.counting)
    side, noise, known, ranges = SIDES[data.kind], None, None, None
    if start is not None:
        continuing.check(start, p, data, data.schema[label])
        features, known = start.conformed(features), continuing.known_unit(start, machine)
    if dp is not None:
        noise, known, ranges = private.prepared(dp, p, layout, data.schema[label], weight)
        private.spend(dp, machine, p)
    groups: dict[str, Groups] = {}
    if group is not None:
        groups = {name: ranking.told(machine, frame, group) for name, frame in ({"": data} | dict(sets)).items()}
        known = groups[""]
    rules = rules_for(p, layout, data.rows, weight is not None or p.scale_pos_weight != 1, noise)
    labels = side.labels(machine, p, data, label, weight, rules.exponent, known)
    bins = side.bins.find(machine, features, layout, ranges) if start is None else start.bins
    targets = {name: labels.of(frame, groups.get(name)) for name, frame in sets.items()}
    prepared = labels.prepared
    if start is None:
        base, up, down = prepared["base"], prepared["up"], prepared["down"]
        model = Model(machine, p, bins, data.schema[label], [], base, up, down, rules.exponent)
    else:
        model = continuing.begun(start, machine, rules.exponent, p)
    held_out = {name: bins.matrices(model.conformed(frame)) for name, frame in sets.items()}
    x = bins.matrices(features)
    evaluations = [
        EvaluationSet(n, machine, p, held_out[n], targets[n], prepared, sets[n].rows, groups.get(n)) for n in sets
    ]
    sampling = draw(p, model.layout, data.rows)
    history = _rounds(model, rules, x, prepared, evaluations, sampling, data.rows, progress, boost, groups.get(""))
    return model, history


def _rounds(
    model: Model,
    rules: Rules,
    x: list[Any],
    prepared: Mapping[str, Any],
    evaluations: list[EvaluationSet],
    sampling: Sampling,
    rows: int,
    progress: Progress,
    boost: bool,
    groups: Groups | None,
) -> History:
    machine, p, before = model.machine, model.parameters, len(model.trees)
    step = one_round(model.layout, rules, p.objective)
    names = "target", "threshold", "weight", "counting", "alpha", "penalties", "extra"
    labels = {k: v for k, v in prepared.items() if k in names}
    if not boost:  # a tree by itself splits for any gain, however small labels are
        labels["threshold"] = np.float32(THRESHOLDS[0])
    stop = stopping(p)
    margin = model.margins_of(x, rows, "training")
    for e in evaluations:
        e.begin(model.margins_of(e.matrices, e.rows, "evaluation") if before else None)
    public = {} if groups is None else {"groups": groups}
    with progress.of(p.n_estimators) as done:
        for number in range(p.n_estimators):
            tree, after = machine.run(step, x, margin, labels, sampling.draw() | public, what="training")
            margin = after if boost else margin
            model.trees.append(tree)
            scores = {e.name: e.update(tree) for e in evaluations}
            done(number, scores)
            if stop is not None and stop.over(number, scores[evaluations[-1].name][p.metrics[-1]]):
                break
    if stop is None:
        return History({e.name: e.history for e in evaluations})
    best: list[AnyTree] = model.trees[: before + stop.best_round + 1]
    model.trees = best
    return History({e.name: e.history for e in evaluations}, before + stop.best_round, stop.best)


# What is wrong before anything is computed -------------------------------------------------------------------


def check(
    p: Parameters,
    data: Any,
    label: str,
    weight: str | None,
    sets: Mapping[str, Frame],
    group: str | Sequence[int] | None = None,
) -> tuple[Any, Layout]:
    """The frame of features and its layout, if all is well.

    Raises:
        InputError: for what the public schema shows to be wrong.
        ConfigError: for parameters that do not fit each other or the data.
    """
    if not isinstance(data, Frame | Joined):
        raise InputError(f"`data` must be a frame (`spuvm.data`), got a `{type(data).__name__}`.")
    column = data.schema[label]
    check_group(p, group, weight, sets)
    features = data.drop([name for name in (label, weight, group) if isinstance(name, str)])
    if not features.columns:
        raise InputError(f"the frame has no column but {column.where}: there are no features.")
    check_signs(p, features)
    SIDES[data.kind].labels.check(data, column, weight)
    for frame in (data, *sets.values()):
        check_label(p, frame.schema[label])
    if p.early_stopping_rounds is not None and not sets:
        raise ConfigError("`early_stopping_rounds` needs an `eval_set` whose score can stop improving.")
    return features, SIDES[data.kind].bins.layout_of(features, p)


def check_group(p: Parameters, group: Any, weight: str | None, sets: Mapping[str, Frame]) -> None:
    """Refuse a ranking without groups, and groups of no ranking."""
    if (p.objective in RANKS) != (group is not None):
        need = "needs the `group` of each row" if p.objective in RANKS else "takes no `group`"
        raise ConfigError(f"`objective` {p.objective!r} {need}: a column's name, or the groups' sizes.")
    if group is not None and weight is not None:
        raise ConfigError("`sample_weight` of a ranking: pairs have no weights here, leave it out.")
    if group is not None and sets and not isinstance(group, str):
        raise ConfigError("with an `eval_set`, `group` must be the name of a column that all frames have.")


def check_signs(p: Parameters, features: Any) -> None:
    """Refuse an order of what is no feature, or has none."""
    for name, sign in p.monotone_constraints or ():
        if name not in features.columns:
            raise ConfigError(
                f"`monotone_constraints` names `{name}`{nearest(name, features.columns)}: it is no feature."
            )
        if sign and features.schema[name].type == "category":
            raise ConfigError(
                f"`monotone_constraints`: {features.schema[name].where} has categories, which have no order."
            )


def check_label(p: Parameters, column: Column) -> None:
    """Refuse text as labels unless all know which number each text is: codes follow the alphabet, not a meaning."""
    if column.type != "category":
        return
    if not p.objective.startswith(("binary:", "multi:")):
        raise InputError(f"{column.where} is text, but `objective` {p.objective!r} takes numbers: convert it.")
    if p.objective.startswith("binary:"):
        raise InputError(
            f"{column.where} is text, and which of two is 1 must be said: `positive=` of `fit`, or "
            f"`frame.binary({column.name!r}, positive=...)`."
        )
    if column.categories is None:
        raise InputError(
            f"{column.where} is text whose order only its owner knows: state it, categories={{{column.name!r}: [...]}}."
        )
    if len(column.categories) != p.num_class:
        raise InputError(
            f"{column.where} has {len(column.categories)} categories, but `objective` {p.objective!r} takes "
            f"{p.num_class} classes."
        )
