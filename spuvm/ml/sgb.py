"""Secure gradient boosting as an estimator: `Sgb(...).fit(frame, label=...)`."""

from __future__ import annotations

from typing import Any

import numpy as np

import spuvm as spu
from spuvm.data import Frame
from spuvm.devices import PYU, SPU
from spuvm.ml.binning import find_edges
from spuvm.ml.boosting import Sampling, first_margins, one_round, rules_for, side_by_side
from spuvm.ml.layout import Layout
from spuvm.ml.machine import Machine
from spuvm.ml.model import Model, matrices
from spuvm.ml.objectives import prepare
from spuvm.ml.parameters import NAMES, Parameters
from spuvm.runtime.errors import ConfigError, InputError


class Sgb:
    """Gradient-boosted trees on data of several parties."""

    def __init__(self, *, device: SPU | None = None, **parameters: Any) -> None:
        unknown = [name for name in parameters if name not in NAMES]
        if unknown:
            raise ConfigError(f"unknown parameter `{unknown[0]}`: there are {', '.join(NAMES)}.")
        self.parameters = Parameters(**parameters)
        self.device = device
        self.model: Model | None = None

    def fit(self, data: Frame, label: str, *, sample_weight: str | None = None) -> Sgb:
        p = self.parameters
        _check_frame(data, label, sample_weight, p)
        machine = Machine(self.device or default_device())
        features = data.drop([name for name in (label, sample_weight) if name])
        owners = tuple(party for party in data.parties if features.columns_of(party))
        layout = Layout(owners, tuple(features.schema.of(o) for o in owners), p.max_bin)
        edges = {o: PYU(o)(find_edges)(features.at(o), f, p.max_bin) for o, f in zip(layout.owners, layout.features)}
        column = data.schema[label]
        holder = PYU(str(column.party))
        weights = None if sample_weight is None else data[sample_weight].at(holder.party)
        prepared = machine.share(holder(prepare)(data[label].at(holder.party), weights, p, column.where))
        x = matrices(machine, features, layout, edges)
        step = one_round(layout, rules_for(p, data.rows, sample_weight is not None), p.objective)
        sampling = Sampling(p, layout, data.rows)
        margin = machine.run(first_margins, prepared["base"], np.zeros((data.rows, 1), np.int8), what="margins")
        labels = {k: v for k, v in prepared.items() if k in ("target", "gamma", "weight")}
        trees = []
        for _ in range(p.n_estimators):
            tree, margin = machine.run(step, x, margin, labels, sampling.draw(), what="training")
            trees.append(tree)
        stacked = trees[0] if len(trees) == 1 else machine.run(side_by_side, trees, what="model")
        self.model = Model(
            machine,
            p,
            layout,
            column,
            len(trees),
            stacked,
            prepared["base"],
            prepared["exponent"],
            edges,
            {o: features.categories(o) for o in owners},
        )
        return self


def default_device() -> SPU:
    """The SPU of all parties of the session."""
    from spuvm.devices import _here

    return SPU(spu.utils.testing.cluster_def(_here().parties))


def _check_frame(data: Frame, label: str, weight: str | None, p: Parameters) -> None:
    if not isinstance(data, Frame):
        raise InputError(f"`data` must be a frame (`spuvm.data.vertical`), got a `{type(data).__name__}`.")
    if p.max_bin > data.rows:
        raise InputError(f"`max_bin` is {p.max_bin}, but there are {data.rows} rows: use fewer bins than rows.")
    if len(data.drop([n for n in (label, weight) if n]).columns) == 0:
        raise InputError("the frame has no column but the label: there are no features.")
    if weight is not None and data.schema[weight].party != data.schema[label].party:
        raise InputError(
            f"`sample_weight` {data.schema[weight].where} must be where the labels are, "
            f"{data.schema[label].where}: move it there."
        )
