"""A trained model: trees that no party can read, and edges that only the features' owners know, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.data import Column, Frame
from spuvm.ml import predictions
from spuvm.ml.boosting import AnyTree, first_margins, margins, side_by_side
from spuvm.ml.frames import as_frame, as_frame_or_joined
from spuvm.ml.joined import Joined
from spuvm.ml.layout import Layout
from spuvm.ml.machine import Machine
from spuvm.ml.parameters import Parameters
from spuvm.ml.partition import Bins
from spuvm.ml.plain import PlainModel, plain_trees
from spuvm.ml.shapley import MOST_DEPTH, added, contributions, shares
from spuvm.ml.shapley_leaves import MOST_LEAVES, leaf_contributions, leaf_shares
from spuvm.ml.tree import Pieces, Tree
from spuvm.runtime.errors import InputError

ELEMENTS = 1 << 22  # of the largest array of a prediction: as many trees at once as keep below it
IMPORTANCES = ("weight", "gain", "total_gain")


@dataclass(eq=False)
class Model:
    """What training leaves.

    Attributes:
        parameters, label, exponent: public; gains are known times 2^exponent.
        bins: of the features.
        trees: of each round; secret.
        base: margins [K] before the first tree; secret.
        up, down: predictions of a regression are margins times their product; secret.
    """

    machine: Machine
    parameters: Parameters
    bins: Bins
    label: Column
    trees: list[AnyTree]
    base: Any
    up: Any
    down: Any
    exponent: int

    @property
    def layout(self) -> Layout:
        return self.bins.layout

    def margins(self, data: Any) -> Any:
        """Secret margins [rows, K]."""
        data, _, _ = as_frame_or_joined(data)
        return self.margins_of(self.bins.matrices(self.conformed(data)), data.rows)

    def margins_of(self, x: list[Any], rows: int, what: str = "prediction") -> Any:
        """Secret margins [rows, K] of a frame's matrices."""
        margin = self.machine.run(first_margins, self.base, np.zeros((rows, 1), np.int8), what=what)
        for part in self._parts(rows):
            margin = self.machine.run(margins, x, part, margin, what=what)
        return margin

    def conformed(self, data: Any) -> Any:
        """The model's features in their order, checked against its schema."""
        if not isinstance(data, Frame | Joined):
            raise InputError(f"`data` must be a frame (`spuvm.data`), got a `{type(data).__name__}`.")
        if data.kind != self.bins.kind:
            raise InputError(f"the model was trained on a {self.bins.kind} frame, this one is {data.kind}.")
        return self.bins.conformed(data)

    def _parts(self, rows: int) -> list[list[AnyTree]]:
        """The trees in parts of nearly equal size, which few distinct programs can run."""
        if not self.trees:
            return []
        leaves = self.parameters.max_leaves or 1 << (self.parameters.max_depth - 1)
        nodes = rows * self.parameters.outputs * leaves
        count = min(len(self.trees), -(-len(self.trees) * nodes // ELEMENTS))
        ends = [len(self.trees) * i // count for i in range(count + 1)]
        return [self.trees[a:b] for a, b in pairwise(ends)]

    def shapley(self, data: Any, background: Any = None) -> Any:
        """Contributions of features to margins, [rows, features + 1]; of several outputs [rows, K, features + 1].

        The last is the mean of the background's rows. See `shapley`.
        """
        leaves = self.parameters.max_leaves
        if leaves > MOST_LEAVES:
            raise InputError(
                f"the trees have {leaves} leaves: Shapley values are computed of {MOST_LEAVES} at most, use "
                "`permutation_importance`."
            )
        if not leaves and self.parameters.max_depth > MOST_DEPTH:
            raise InputError(
                f"the trees are {self.parameters.max_depth} deep: Shapley values are computed of {MOST_DEPTH} levels "
                "at most, use `permutation_importance`."
            )
        data, _, _ = as_frame(data)
        x = self.bins.matrices(self.conformed(data))
        known = x if background is None else self.bins.matrices(self.conformed(as_frame(background)[0]))
        made, taken = (leaf_contributions, leaf_shares) if leaves else (contributions, shares)
        function, outputs = made(self.layout, self.parameters.outputs), []
        for part in self._parts(data.rows * (leaves or self.parameters.max_depth) ** 2):
            tree = self.machine.run(side_by_side, part, what="Shapley values")
            seen = self.machine.run(taken, known, tree, what="Shapley values")
            outputs.append(self.machine.run(function, x, tree, seen, what="Shapley values"))
        whole = self.parameters.objective in predictions.IDENTITY
        unit = (self.up, self.down) if whole else None
        return self.machine.run(added, outputs, self.base, unit, what="Shapley values")

    def importance(self, kind: str) -> dict[str, float]:
        """By feature name: how many nodes split it ("weight"), their summed or mean gain. Shown to all parties."""
        if kind not in IMPORTANCES:
            raise InputError(f"`importance_type` must be one of {', '.join(IMPORTANCES)}, got {kind!r}.")
        splits, gains = [t.splits for t in self.trees], [t.gains for t in self.trees]
        function = importances(self.layout, kind == "weight")
        shown = spu.reveal(self.machine.run(function, splits, gains, what="feature importance"))
        count, gain = shown[0], shown[-1] / 2.0**self.exponent
        numbers = {"weight": count, "total_gain": gain, "gain": gain / np.maximum(count, 1)}[kind]
        return {c.name: float(n) for c, n in zip(self.layout.all_features, numbers)}

    def reveal(self) -> PlainModel:
        """Plain trees, shown to all parties: the splits, the leaves' weights, and the owners' edges.

        Every party's script must ask for it, as for every reveal.
        """
        shown = self.machine.reveal([_shown(t) for t in self.trees], "trees")
        base, up, down = self.machine.reveal((self.base, self.up, self.down), "base score")
        edges = self.bins.reveal()
        unit = float(up) * float(down)
        rounds = [plain_trees(tree, self.layout, edges, unit) for tree in shown]
        return PlainModel(self.parameters, self.layout.all_features, rounds, np.asarray(base, np.float64) * unit)


def _shown(tree: AnyTree) -> AnyTree:
    return replace(tree, steps=None, gains=None) if isinstance(tree, Tree) else replace(tree, gains=None)


@cache
def importances(layout: Layout, only_count: bool) -> Callable[..., list[jax.Array]]:
    """A function of splits and gains that reveals, by feature, the number of nodes and perhaps their gain."""
    count = len(layout.all_features)

    def by_feature(splits: Sequence[Sequence[Pieces]], gains: Sequence[jax.Array]) -> list[jax.Array]:
        levels = [jnp.concatenate(level[1:]) for tree in splits for level in tree]
        nodes = sum((jnp.sum(level, axis=(1, 2)) for level in levels), jnp.int32(0))
        columns, first = np.unique(layout.columns, return_index=True)
        numbers = jnp.zeros(count, jnp.int32).at[layout.feature[first]].add(nodes[columns])
        total = jnp.zeros(count, jnp.float32).at[layout.feature].add(sum(gains))
        return [spu.reveal(numbers)] if only_count else [spu.reveal(numbers), spu.reveal(total)]

    return by_feature
