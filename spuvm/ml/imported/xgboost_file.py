"""What XGBoost's `save_model("....json")` wrote, at the party that has the file: trees as arrays of one shape.

All trees are brought to the depth of the deepest: a leaf further up has below it nodes that send every row left,
so that the trees' shapes say nothing. XGBoost compares float32, and so do we: edges are int32 that sort as floats do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.ml.horizontal import LAST, sortable
from spuvm.runtime.errors import DataError

CLASSIFIES = ("binary:logistic", "multi:softprob", "multi:softmax")
MARGINS = ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror")  # predictions are the trees' sum
MOST_DEPTH = 12
MOST_TREES = 10_000
MOST_MARGIN, MOST_NUMBER = 2.0**20, 2.0**44
ROOM = 64.0  # weights are brought into units in which no prediction is beyond

Tree = Mapping[str, Any]


def read(path: str | Path) -> dict[str, Any]:
    """A model's file.

    Returns:
        facts: public, what JSON can hold: objective, classes, trees, depth, features (names; "" if it has none).
        choose: of each level, int8 [features, trees 2^level]: which feature a node splits, none of a node below a leaf.
        defaults: of each level, likewise, 1 also only where missing cells go left.
        edges: of each level, int32 [trees 2^level]; rows go left below.
        leaves: float32 [trees, 2^depth], in units; base: float32 [K]; power: int32: of the units.

    Raises:
        DataError: for a file that is no such model, or one that cannot be computed here.
    """
    try:
        return assembled(*_checked(path))
    except (ValueError, KeyError, TypeError, IndexError):
        raise DataError("the file is no whole model of XGBoost: write it with `save_model('model.json')`.") from None


def assembled(learner: Any, trees: list[Tree]) -> dict[str, Any]:
    """What `read` returns, of what the file says of the model and of each tree, one class after the other."""
    objective, features = learner["objective"]["name"], int(learner["learner_model_param"]["num_feature"])
    depth = max(1, *map(_depth, trees))
    if depth > MOST_DEPTH:
        raise DataError(
            f"the model's trees are {depth} deep, {MOST_DEPTH} at most can be imported: train shallower ones."
        )
    classes = int(learner["learner_model_param"]["num_class"]) or (2 if objective in CLASSIFIES else 0)
    names = [str(n) for n in learner.get("feature_names") or []] or [""] * features
    facts = {"objective": objective, "classes": classes, "trees": len(trees), "depth": depth, "features": names}
    return {"facts": facts, **_arrays(trees, depth, features), **_sizes(learner, trees, depth, max(classes, 1))}


def _checked(path: str | Path) -> tuple[Any, list[Tree]]:
    try:
        learner = json.loads(Path(path).read_text())["learner"]
        booster, objective = learner["gradient_booster"], str(learner["objective"]["name"])
        name = booster["name"]
        trees = booster["model"]["trees"] if name == "gbtree" else []
    except OSError:
        raise DataError("the model's file cannot be read: give the path of what `save_model` wrote.") from None
    if name != "gbtree":
        raise DataError(f"the model's booster is {name!r}: trees alone ('gbtree') can be imported.")
    if objective not in (*CLASSIFIES, *MARGINS):
        raise DataError(f"the model's objective is {objective!r}: there are {', '.join((*CLASSIFIES, *MARGINS))}.")
    if not 1 <= len(trees) <= MOST_TREES:
        raise DataError(f"the model has {len(trees)} trees: 1 to {MOST_TREES} can be imported.")
    if str(learner["learner_model_param"].get("num_target", "1")) != "1":
        raise DataError("the model has several targets: import one model for each.")
    if any(any(t.get("split_type") or []) for t in trees):
        raise DataError("the model splits categories: encode them before training.")
    return learner, _in_order(learner, booster["model"])


def _in_order(learner: Any, model: Any) -> list[Tree]:
    """The trees that count, one class after the other. Of a model that stopped early, those to its best round."""
    trees, best = model["trees"], learner.get("attributes", {}).get("best_iteration")
    if best is not None:
        known = model["gbtree_model_param"]
        a_round = max(1, int(learner["learner_model_param"]["num_class"])) * int(known.get("num_parallel_tree", 1) or 1)
        ends = model.get("iteration_indptr") or range(0, len(trees) + 1, a_round)
        trees = trees[: ends[int(best) + 1]]
    of_class = [model["tree_info"][i] for i in range(len(trees))]
    return [trees[i] for i in sorted(range(len(trees)), key=lambda i: (of_class[:i].count(of_class[i]), of_class[i]))]


def _depth(tree: Tree) -> int:
    """Levels of splits, as far as they can be imported."""
    left, right = np.asarray(tree["left_children"]), np.asarray(tree["right_children"])
    level, depth = np.zeros(1, np.int64), 0
    while len(level := level[left[level] != -1]) and depth <= MOST_DEPTH:
        level, depth = np.concatenate([left[level], right[level]]), depth + 1
    return depth


def _arrays(trees: list[Tree], depth: int, features: int) -> dict[str, Any]:
    choose, defaults, edges = [], [], []
    nodes = [np.zeros(1, np.int64) for _ in trees]  # of the level, in each tree
    for _ in range(depth):
        count = len(nodes[0])
        chosen, default = (np.zeros((features, len(trees), count), np.int8) for _ in range(2))
        edge = np.full((len(trees), count), LAST, np.int32)
        below = []
        for t, (tree, level) in enumerate(zip(trees, nodes)):
            left = np.asarray(tree["left_children"])[level]
            splits, at = left != -1, np.arange(count)
            feature = np.where(splits, np.asarray(tree["split_indices"])[level], 0)
            chosen[feature, t, at] = splits
            default[feature, t, at] = splits & (np.asarray(tree["default_left"])[level] != 0)
            conditions = np.asarray(tree["split_conditions"], np.float32)[level]
            edge[t] = np.where(splits, sortable(conditions), LAST)
            right = np.asarray(tree["right_children"])[level]
            below.append(np.stack([np.where(splits, left, level), np.where(splits, right, level)], axis=1).ravel())
        choose.append(chosen.reshape(features, -1))
        defaults.append(default.reshape(features, -1))
        edges.append(edge.ravel())
        nodes = below
    weights = [np.asarray(t["split_conditions"], np.float64)[level] for t, level in zip(trees, nodes)]
    return {"choose": choose, "defaults": defaults, "edges": edges, "leaves": np.stack(weights)}


def _sizes(learner: Any, trees: list[Tree], depth: int, outputs: int) -> dict[str, Any]:
    """Weights and base in units, which are 1 where margins are logarithms of odds."""
    objective = learner["objective"]["name"]
    outputs = outputs if objective.startswith("multi:") else 1
    text = str(learner["learner_model_param"]["base_score"]).strip("[]")
    base = np.broadcast_to(np.array([float(b) for b in text.split(",")]), (outputs,)).copy()
    if objective == "binary:logistic":
        if not ((base > 0) & (base < 1)).all():
            raise DataError("the model's base score is no probability between 0 and 1: it was trained on one class.")
        base = np.log(base) - np.log1p(-base)
    largest = [max(abs(float(w)) for w, c in zip(t["split_conditions"], t["left_children"]) if c == -1) for t in trees]
    bound = max(float(np.sum(largest) / outputs + np.abs(base).max()), 2.0**-20)
    if not bound < (MOST_NUMBER if objective in MARGINS else MOST_MARGIN):
        raise DataError(
            "the model's weights add up to numbers that are infinite, or too large: train it on smaller ones."
        )
    power = int(np.clip(np.ceil(np.log2(bound / ROOM)), -26, 26)) if objective in MARGINS else 0
    return {"base": (base * 2.0**-power).astype(np.float32), "power": np.int32(power), "unit": 2.0**-power}
