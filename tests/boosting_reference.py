"""Gradient boosting in the clear, node by node in float64: what the secure trees are held to.

It knows nothing of matrices of indicators, levels or tournaments: a node tries each split of each feature,
with missing cells to the right and to the left, and keeps the best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spuvm.data.schema import Column
from spuvm.ml.parameters import Parameters
from spuvm.ml.plain import Node

Gradients = tuple[np.ndarray, np.ndarray]


def quantile_edges(x: np.ndarray, max_bin: int) -> np.ndarray:
    """The edges of a numeric feature."""
    x = np.sort(x[~np.isnan(x)].astype(np.float32))
    distinct = np.unique(x)
    if len(distinct) <= max_bin:
        return distinct[1:]
    picked = {x[i * len(x) // max_bin] for i in range(1, max_bin)}
    return np.array(sorted(picked - {distinct[0]}), np.float32)


def grow(
    x: np.ndarray, columns: Sequence[Column], g: np.ndarray, h: np.ndarray, p: Parameters, edges: list[np.ndarray]
) -> Node:
    """One tree for the rows x [rows, features]."""
    return _node(x, columns, g, h, p, edges, 0)


def _node(
    x: np.ndarray,
    columns: Sequence[Column],
    g: np.ndarray,
    h: np.ndarray,
    p: Parameters,
    edges: list[np.ndarray],
    depth: int,
) -> Node:
    leaf = Node(weight=-p.learning_rate * g.sum() / (h.sum() + p.reg_lambda))
    if depth == p.max_depth or not len(x):
        return leaf if len(x) else Node(weight=0.0)

    def score(rows: np.ndarray) -> float:
        return float(g[rows].sum() ** 2 / (h[rows].sum() + p.reg_lambda))

    best, found = score(np.ones(len(x), bool)) + max(p.gamma, 1e-6), None
    for f, column in enumerate(columns):
        cells = x[:, f].astype(np.float32)
        gone = np.isnan(cells)
        for missing_left in (False, True) if column.missing else (False,):
            for edge in edges[f]:
                goes = cells != edge if column.type == "category" else cells < edge
                left = np.where(gone, missing_left, goes)
                if min(h[left].sum(), h[~left].sum()) < max(p.min_child_weight, 1e-5):
                    continue
                total = score(left) + score(~left)
                if total > best:
                    best, found = total, (f, float(edge), missing_left, left)
    if found is None:
        return leaf
    f, edge, missing_left, left = found
    below = [_node(x[s], columns, g[s], h[s], p, edges, depth + 1) for s in (left, ~left)]
    return Node(None, f, edge, missing_left, *below)


def logistic(margin: np.ndarray, y: np.ndarray) -> Gradients:
    q = 1 / (1 + np.exp(-margin))
    return q - y, q * (1 - q)


def squared(margin: np.ndarray, y: np.ndarray) -> Gradients:
    return margin - y, np.ones(len(y))


def apply(node: Node, x: np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    """The weight that each row reaches, one row after another."""
    return np.array([_weight(node, row.astype(np.float32), columns) for row in x])


def _weight(node: Node, row: np.ndarray, columns: Sequence[Column]) -> float:
    while node.weight is None:
        cell, kind = row[node.feature], columns[node.feature].type
        if np.isnan(cell):
            left = node.default_left
        else:
            left = cell != node.edge if kind == "category" else cell < np.float32(node.edge)
        child = node.left if left else node.right
        assert child is not None
        node = child
    return node.weight


def same(ours: Node, theirs: Node, tolerance: float, where: str = "root") -> None:
    """Assert that two trees are equal: features, edges and directions exactly, weights within the tolerance."""
    assert (ours.weight is None) == (theirs.weight is None), f"{where}: {ours} against {theirs}"
    if ours.weight is not None and theirs.weight is not None:
        assert abs(ours.weight - theirs.weight) < tolerance, where
        return
    split = (ours.feature, np.float32(ours.edge), ours.default_left)
    assert split == (theirs.feature, np.float32(theirs.edge), theirs.default_left), where
    for side in ("left", "right"):
        same(getattr(ours, side), getattr(theirs, side), tolerance, f"{where}.{side}")
