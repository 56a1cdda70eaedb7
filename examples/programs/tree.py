"""A decision tree of alice's on bob's patients: neither the tree nor the patients are shown.

alice fits a tree on her half of the breast-cancer data; bob wants her diagnosis of his half. What she
tells him is its depth. At every node the patient's feature is picked by a secret selection.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import Measure, Program, main
from sklearn.datasets import load_breast_cancer
from sklearn.tree import DecisionTreeClassifier

DEPTH = 4
NODES = 2**DEPTH - 1  # of a complete tree: node i has the children 2 i + 1 and 2 i + 2


def diagnose(features: jax.Array, thresholds: jax.Array, leaves: jax.Array, rows: jax.Array) -> jax.Array:
    """The leaf that each row comes to.

    Args:
        features: one-hot rows f32[NODES, columns], which column a node looks at.
        thresholds: f32[NODES]; a row goes right where its column is greater.
        leaves: f32[NODES + 1], the probability of a malignant tumour.
        rows: f32[rows, columns].
    """
    right = rows @ features.T > thresholds
    reached = jnp.ones((rows.shape[0], 1), bool)
    for level in range(DEPTH):
        here = right[:, 2**level - 1 : 2 ** (level + 1) - 1]
        reached = jnp.stack([reached & ~here, reached & here], axis=2).reshape(rows.shape[0], -1)
    return reached.astype(jnp.float32) @ leaves


@cache
def halves() -> tuple[Any, Any, Any, Any]:
    data = load_breast_cancer()
    x = (data.data / data.data.mean(axis=0)).astype(np.float32)
    return x[::2], data.target[::2], x[1::2], data.target[1::2]


def complete(tree: Any, columns: int) -> tuple[Any, Any, Any]:
    """A fitted tree as the arrays of `diagnose`: a leaf above the last level becomes a path to the left."""
    features = np.zeros((NODES, columns), np.float32)
    thresholds, leaves = np.ones(NODES, np.float32), np.zeros(NODES + 1, np.float32)

    def place(node: int, at: int) -> None:
        if at >= NODES:
            value = tree.value[node][0]
            leaves[at - NODES] = value[0] / value.sum()
        elif tree.children_left[node] < 0:
            place(node, 2 * at + 1)  # no column is selected: 0 > 1 is false
        else:
            features[at, tree.feature[node]] = 1
            thresholds[at] = tree.threshold[node]
            place(tree.children_left[node], 2 * at + 1)
            place(tree.children_right[node], 2 * at + 2)

    place(0, 0)
    return features, thresholds, leaves


def arguments() -> Mapping[str, Any]:
    x, y, rows, _ = halves()
    model = DecisionTreeClassifier(max_depth=DEPTH, random_state=0).fit(x, y)
    features, thresholds, leaves = complete(model.tree_, x.shape[1])
    return {"features": features, "thresholds": thresholds, "leaves": leaves, "rows": rows}


def measures(secure: Any, clear: Any) -> list[Measure]:
    malignant = halves()[3] == 0
    accuracy, true_accuracy = (float(np.mean((p > 0.5) == malignant)) for p in (secure, clear))
    return [
        Measure("accuracy", accuracy, true_accuracy, 0.004),
        Measure("largest error of a probability", float(np.max(np.abs(secure - clear))), 0, 1e-5),
    ]


PROGRAM = Program(
    diagnose,
    {"features": "alice", "thresholds": "alice", "leaves": "alice", "rows": "bob"},
    arguments,
    measures,
)

if __name__ == "__main__":
    sys.exit(main(PROGRAM, __file__, __doc__))
