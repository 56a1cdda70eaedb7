"""A trained model: trees that no party can read, and edges that only the features' owners know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import spuvm as spu
from spuvm.data import Column, Frame
from spuvm.devices import PYU, PYUObject
from spuvm.ml.binning import indicators
from spuvm.ml.boosting import first_margins, margins
from spuvm.ml.layout import Layout
from spuvm.ml.machine import Machine
from spuvm.ml.parameters import Parameters
from spuvm.ml.plain import PlainModel, plain_trees
from spuvm.ml.tree import Tree
from spuvm.runtime.errors import InputError


@dataclass(eq=False)
class Model:
    """What training leaves.

    Attributes:
        parameters, layout, label: public.
        rounds: of trees.
        trees: those of all rounds side by side; secret.
        base: margins [K] before the first tree; secret.
        exponent: predictions of a regression are margins times 2^exponent; secret.
        edges: by owner, at the owner.
        categories: by owner, at the owner, of its category columns.
    """

    machine: Machine
    parameters: Parameters
    layout: Layout
    label: Column
    rounds: int
    trees: Tree
    base: Any
    exponent: Any
    edges: Mapping[str, PYUObject]
    categories: Mapping[str, PYUObject]

    def matrices(self, data: Frame) -> list[Any]:
        """The indicator matrices of rows to predict, as the machine takes them."""
        return matrices(self.machine, conformed(data, self), self.layout, self.edges)

    def margins(self, data: Frame) -> Any:
        """Secret margins [rows, K]."""
        x = self.matrices(data)
        start = self.machine.run(first_margins, self.base, np.zeros((data.rows, 1), np.int8), what="margins")
        return self.machine.run(margins, x, self.trees, start, what="margins")

    def reveal(self) -> PlainModel:
        """Plain trees, shown to all parties: the splits, the leaves' weights, and the owners' edges.

        Every party's script must ask for it, as for every reveal.
        """
        t = self.trees
        splits, left, right = self.machine.reveal((t.splits, t.left, t.right), "trees")
        base, exponent = self.machine.reveal((self.base, self.exponent), "base score")
        edges = {owner: spu.reveal(edges) for owner, edges in self.edges.items()}
        unit = 2.0 ** float(exponent)
        nodes = plain_trees(splits, left, right, self.layout, edges, unit)
        outputs = self.parameters.outputs
        rounds = [nodes[i : i + outputs] for i in range(0, len(nodes), outputs)]
        return PlainModel(self.parameters, self.layout.all_features, rounds, np.asarray(base, np.float64) * unit)


def conformed(data: Frame, model: Model) -> Frame:
    """The model's features in their order, checked against its schema."""
    if not isinstance(data, Frame):
        raise InputError(f"`data` must be a frame (`spuvm.data.vertical`), got a `{type(data).__name__}`.")
    features = model.layout.all_features
    absent = [p for p in model.layout.owners if p not in data.parties]
    if absent:
        raise InputError(
            f"the model has features of {', '.join(absent)}, who {'has' if len(absent) == 1 else 'have'} "
            "no part in this frame."
        )
    return data.conform(features, model.categories)


def matrices(machine: Machine, data: Frame, layout: Layout, edges: Mapping[str, PYUObject]) -> list[Any]:
    """Each owner's matrix of indicators, made there and shared."""
    return [
        machine.share(PYU(owner)(indicators)(data.at(owner), features, edges[owner]))
        for owner, features in zip(layout.owners, layout.features)
    ]
