"""What differentially private boosting takes from `Private`: ranges in place of quantiles, noise, what is spent."""

from __future__ import annotations

from typing import Any

import numpy as np

from spuvm.data import Column
from spuvm.dp.ledgers import spend_all
from spuvm.ml.layout import Layout
from spuvm.ml.linear.private import Private
from spuvm.ml.machine import Machine
from spuvm.ml.noisy import LARGEST_HESSIAN, Noise
from spuvm.ml.objectives import MOST_UNITS
from spuvm.ml.parameters import Parameters
from spuvm.ml.partition import Ranges
from spuvm.runtime.errors import ConfigError, InputError


def steps(p: Parameters) -> int:
    """How many noisy sums are made: one of each level."""
    return p.n_estimators * p.max_depth


def prepared(
    dp: Private, p: Parameters, layout: Layout, label: Column, weight: str | None
) -> tuple[Noise, Any, Ranges]:
    """The noise of a level, base score and unit of labels, and each owner's ranges.

    Raises:
        ConfigError: for parameters that do not go with it.
        InputError: for features without a range.
    """
    _check(dp, p, layout, weight)
    features = len(layout.all_features)
    known = _known(dp, p)
    noise = Noise(dp.noise(steps(p)), features, LARGEST_HESSIAN[p.objective], known["far"])
    ranges = [tuple(_range(dp, c) for c in some) for some in layout.features]
    return noise, known, ranges


def spend(dp: Private, machine: Machine, p: Parameters) -> None:
    """In every party's ledger, before anything is computed."""
    spend_all(dp.budget, machine.members, dp.spent(steps(p)), f"Sgb, {p.n_estimators} trees of {p.max_depth} levels")


def said(dp: Private, p: Parameters) -> str:
    """For people."""
    return (
        f"differentially private: epsilon {dp.epsilon:g}, delta {dp.delta:g} for one row; noise of "
        f"{dp.noise(steps(p)):.4g} times the sensitivity in the sums of each of {steps(p)} levels"
    )


def _check(dp: Private, p: Parameters, layout: Layout, weight: str | None) -> None:
    if p.objective not in LARGEST_HESSIAN:
        raise ConfigError(f"`dp` takes `objective` {' or '.join(map(repr, LARGEST_HESSIAN))}, got {p.objective!r}.")
    if layout.owners == ("all parties",):
        raise ConfigError("`dp` of `Sgb` takes a vertical frame: of a horizontal one train `SGDClassifier(dp=...)`.")
    if p.grow_policy == "lossguide":
        raise ConfigError("`dp` needs `grow_policy` 'depthwise': each level's sums are noisy, all nodes at once.")
    if weight is not None:
        raise ConfigError("`sample_weight` and `dp` exclude each other: weights would undo what bounds a row.")
    if p.scale_pos_weight != 1:
        raise ConfigError("`scale_pos_weight` and `dp` exclude each other: weights would undo what bounds a row.")
    if p.sampling_method == "goss":
        raise ConfigError("`sampling_method` 'goss' and `dp` exclude each other: which rows count would be told.")
    if p.objective.startswith("reg:") and dp.label is None:
        raise ConfigError("`dp` of a regression needs the range of its labels: `Private(label=(low, high), ...)`.")


def _range(dp: Private, column: Column) -> tuple[float, float] | None:
    if column.type == "bool":
        return None
    if column.type == "category":
        raise InputError(f"{column.where} has categories: with `dp` encode them (`OneHotEncoder`), or leave it out.")
    return dp.range_of(column)


def _known(dp: Private, p: Parameters) -> dict[str, Any]:
    """Base score and unit that do not depend on rows, and how far from it a label may be, in units."""
    if dp.label is None or not p.objective.startswith("reg:"):
        share = 0.5 if p.base_score is None else p.base_score
        return {"base": np.array([np.log(share / (1 - share))]), "unit": 1.0, "far": 1.0}
    low, high = dp.label
    unit = float(2.0 ** np.ceil(np.log2((high - low) / 2)))
    base = (low + high) / 2 if p.base_score is None else p.base_score
    far = max(high - base, base - low) / unit
    if far <= 0 or far > MOST_UNITS:
        raise ConfigError(f"`base_score` {base:g} is far outside of the range of labels, {low:g} to {high:g}.")
    return {"base": np.array([base / unit]), "unit": unit, "range": (low, high), "far": float(far)}
