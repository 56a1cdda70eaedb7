"""A model revealed: plain trees, and the same as XGBoost's JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.data.schema import Column
from spuvm.ml.binning import Edges
from spuvm.ml.layout import Layout
from spuvm.ml.leafwise import LeafTree
from spuvm.ml.parameters import RANKS, Parameters
from spuvm.ml.tree import Tree


@dataclass(frozen=True)
class Node:
    """A node of a plain tree. A leaf has a `weight`; the others a feature.

    Rows go left where x < edge (of a category: where x is not the category `edge`), and where the
    cell is missing if `default_left`.
    """

    weight: float | None = None
    feature: int = -1
    edge: float = 0.0
    default_left: bool = False
    left: Node | None = None
    right: Node | None = None


@dataclass(frozen=True)
class PlainModel:
    """A revealed model.

    Attributes:
        trees: of each round, K of them.
        base: margins [K] before the first tree.
        columns: the features, by their number.
    """

    parameters: Parameters
    columns: tuple[Column, ...]
    trees: Sequence[Sequence[Node]]
    base: np.ndarray

    def margins(self, x: np.ndarray) -> np.ndarray:
        """float64 [rows, K] of float features [rows, features]."""
        x = np.asarray(x).astype(np.float32)
        out = np.tile(np.asarray(self.base, np.float64), (len(x), 1))
        for round_ in self.trees:
            for k, tree in enumerate(round_):
                out[:, k] += weights_of(tree, x, self.columns)
        return out

    def save(self, path: str | Path) -> None:
        """Write the model as XGBoost's JSON: `xgboost.Booster(model_file=path)` reads it."""
        Path(path).write_text(json.dumps(to_xgboost(self)))


def weights_of(node: Node, x: np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    """The weight of the leaf of each row, float64 [rows]."""
    if node.weight is not None:
        return np.full(len(x), node.weight)
    assert node.left is not None and node.right is not None
    cells = x[:, node.feature]
    if columns[node.feature].type == "category":
        left = cells != np.float32(node.edge)
    else:
        left = cells < np.float32(node.edge)
    left = np.where(np.isnan(cells), node.default_left, left)
    out = np.empty(len(x))
    out[left] = weights_of(node.left, x[left], columns)
    out[~left] = weights_of(node.right, x[~left], columns)
    return out


def plain_trees(shown: Tree | LeafTree, layout: Layout, edges: Mapping[str, Edges], unit: float) -> list[Node]:
    """The K trees of a revealed round."""
    where = _columns(layout, edges)
    if isinstance(shown, LeafTree):
        return [_leafwise(shown, k, where, unit) for k in range(shown.weights.shape[0])]
    splits = [np.concatenate([np.asarray(piece) for piece in level[1:]]) for level in shown.splits]

    def node(tree: int, level: int, at: int) -> Node:
        if level == len(splits):
            return Node(weight=float((shown.left, shown.right)[at % 2][tree, at // 2]) * unit)
        chosen = np.flatnonzero(splits[level][:, tree, at])
        if not chosen.size:
            return node(tree, level + 1, 2 * at)
        feature, edge = where[int(chosen[0])]
        below = [node(tree, level + 1, 2 * at + side) for side in (0, 1)]
        return Node(None, feature, edge, chosen.size > 1, *below)

    return [node(t, 0, 0) for t in range(shown.left.shape[0])]


def _leafwise(shown: LeafTree, tree: int, where: list[tuple[int, float]], unit: float) -> Node:
    """A tree that grew leaf by leaf: its last steps are put together first."""
    leaves = [Node(weight=float(w) * unit) for w in np.asarray(shown.weights)[tree]]
    for step in reversed(range(len(shown.picks))):
        chosen = np.flatnonzero(np.concatenate([np.asarray(p)[:, tree, 0] for p in shown.splits[step][1:]]))
        at, right = int(np.asarray(shown.picks[step])[tree].argmax()), leaves.pop()
        if chosen.size:
            feature, edge = where[int(chosen[0])]
            leaves[at] = Node(None, feature, edge, chosen.size > 1, leaves[at], right)
    return leaves[0]


def _columns(layout: Layout, edges: Mapping[str, Edges]) -> list[tuple[int, float]]:
    """Feature and edge of each split column; a column of missing cells stands after all splits of its owner."""
    out, number = [], 0
    for owner, features in zip(layout.owners, layout.features):
        for i in range(len(features)):
            out += [(number + i, float(e)) for e in edges[owner][i]]
        out += [(-1, 0.0)] * sum(c.missing for c in features)
        number += len(features)
    return out


# XGBoost's JSON ---------------------------------------------------------------------------------------------

NO_PARENT = 2147483647
XGBOOST_TYPES = {"float": "float", "int": "int", "bool": "i", "category": "c"}


def to_xgboost(model: PlainModel) -> dict[str, Any]:
    """The model as XGBoost 3 stores it. Gains and sums of hessians are not known: 0."""
    trees = [t for round_ in model.trees for t in round_]
    p, outputs = model.parameters, len(model.base)
    objective: dict[str, Any] = {"name": p.objective}
    if p.multiclass:
        objective["softmax_multiclass_param"] = {"num_class": str(outputs)}
    elif p.objective in RANKS:
        objective["lambdarank_param"] = {"ndcg_exp_gain": "1"}
    elif p.objective == "reg:quantileerror":
        objective["quantile_loss_param"] = {"quantile_alpha": f"[{p.quantile_alpha:g}]"}
    elif p.objective == "reg:pseudohubererror":
        objective["pseudo_huber_param"] = {"huber_slope": f"{p.huber_slope:g}"}
    elif p.objective != "reg:absoluteerror":
        objective["reg_loss_param"] = {"scale_pos_weight": "1"}
    base = 1 / (1 + np.exp(-model.base)) if p.objective == "binary:logistic" else model.base
    return {
        "version": [3, 0, 0],
        "learner": {
            "attributes": {},
            "feature_names": [c.name for c in model.columns],
            "feature_types": [XGBOOST_TYPES[c.type] for c in model.columns],
            "objective": objective,
            "learner_model_param": {
                "base_score": "[" + ",".join(f"{b:.9g}" for b in base) + "]",
                "boost_from_average": "0",
                "num_class": str(outputs if p.multiclass else 0),
                "num_feature": str(len(model.columns)),
                "num_target": "1",
            },
            "gradient_booster": {
                "name": "gbtree",
                "model": {
                    "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
                    "iteration_indptr": list(range(0, len(trees) + 1, outputs)),
                    "tree_info": [i % outputs for i in range(len(trees))],
                    "trees": [_xgboost_tree(t, i, model.columns) for i, t in enumerate(trees)],
                    "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
                },
            },
        },
    }


def _xgboost_tree(root: Node, number: int, columns: Sequence[Column]) -> dict[str, Any]:
    nodes: list[tuple[Node, int]] = [(root, NO_PARENT)]
    children: list[tuple[int, int]] = []
    for i, (node, _) in enumerate(nodes):  # grows while it is read: level by level
        if node.left is None or node.right is None:
            children.append((-1, -1))
            continue
        children.append((len(nodes), len(nodes) + 1))
        nodes += [(node.left, i), (node.right, i)]
    inner = [n if n.weight is None else replace(n, feature=0, edge=n.weight) for n, _ in nodes]
    by_category = [n.weight is None and columns[n.feature].type == "category" for n, _ in nodes]
    categories = [i for i, yes in enumerate(by_category) if yes]
    zeros = [0.0] * len(nodes)
    return {
        "id": number,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(len(columns)),
            "num_nodes": str(len(nodes)),
            "size_leaf_vector": "1",
        },
        "parents": [parent for _, parent in nodes],
        "left_children": [left for left, _ in children],
        "right_children": [right for _, right in children],
        "split_indices": [n.feature for n in inner],
        "split_conditions": [n.edge for n in inner],
        "default_left": [int(n.default_left) for n in inner],
        "split_type": [int(yes) for yes in by_category],
        "categories": [int(inner[i].edge) for i in categories],
        "categories_nodes": categories,
        "categories_segments": list(range(len(categories))),
        "categories_sizes": [1] * len(categories),
        "base_weights": [0.0 if n.weight is None else n.weight for n, _ in nodes],
        "loss_changes": zeros,
        "sum_hessian": zeros,
    }
