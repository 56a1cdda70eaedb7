"""What LightGBM's `save_model("....txt")` wrote, at the party that has the file: trees as XGBoost's file has them.

A row goes left where x <= threshold, of float64; rows are float32 here, so that an edge is the least float32 above the
threshold, and x < edge says the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spuvm.ml.imported.xgboost_file import MOST_TREES, assembled
from spuvm.runtime.errors import DataError

OBJECTIVES = {  # the name that says how margins become predictions; and the others' are predictions themselves
    "binary": "binary:logistic",
    "multiclass": "multi:softprob",
    **dict.fromkeys(
        ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg"),
        "reg:squarederror",
    ),
}
CATEGORICAL, DEFAULT_LEFT = 1, 2  # bits of a decision's type
NONE_MISSING, ZERO_MISSING = 0, 1  # its bits 2 and 3: what counts as missing; 2: NaN

Header = dict[str, str]


def read(path: str | Path) -> dict[str, Any]:
    """A model's file; see `xgboost_file.read`.

    Raises:
        DataError: for a file that is no such model, or one that cannot be computed here.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError):
        raise DataError("the model's file cannot be read: give the path of what `save_model` wrote.") from None
    try:
        header, blocks = _split(text)
        learner = _learner(header, len(blocks))
        share = 1.0 if "average_output" not in header else _classes(header) / len(blocks)
        scale = share * float(_of_objective(header, "sigmoid", "1"))
        return assembled(learner, [_tree(b, scale) for b in blocks])
    except (ValueError, KeyError, TypeError, IndexError):
        raise DataError("the file is no whole model of LightGBM: write it with `save_model('model.txt')`.") from None


def _split(text: str) -> tuple[Header, list[Header]]:
    """The lines before the trees, and those of each tree, as names and values."""
    if not text.startswith("tree\n") or "\nend of trees" not in text:
        raise ValueError("not from beginning to end")
    head, *trees = text.split("\nend of trees")[0].split("\nTree=")
    return _pairs(head), [_pairs(t) for t in trees]


def _pairs(lines: str) -> Header:
    return {name: value for name, _, value in (line.partition("=") for line in lines.splitlines())}


def _classes(header: Header) -> int:
    return int(header["num_tree_per_iteration"])


def _of_objective(header: Header, name: str, otherwise: str) -> str:
    """A number that follows the objective's name."""
    more = dict(word.partition(":")[::2] for word in header["objective"].split()[1:])
    return more.get(name, otherwise)


def _learner(header: Header, trees: int) -> dict[str, Any]:
    """What is said of the whole model, as XGBoost says it."""
    objective, *more = header["objective"].split()
    if objective not in OBJECTIVES or "sqrt" in more:
        raise DataError(f"the model's objective is {header['objective']!r}: there are {', '.join(OBJECTIVES)}.")
    if not 1 <= trees <= MOST_TREES:
        raise DataError(f"the model has {trees} trees: 1 to {MOST_TREES} can be imported.")
    classes, name = _classes(header), OBJECTIVES[objective]
    several = name == "multi:softprob"
    if trees % classes or several != (classes > 1):
        raise ValueError("trees of some classes are missing")
    return {
        "objective": {"name": name},
        "feature_names": header["feature_names"].split(),
        "learner_model_param": {
            "num_feature": str(int(header["max_feature_idx"]) + 1),
            "num_class": str(classes if several else 0),
            "base_score": "0.5" if objective == "binary" else "0",
        },
    }


def _tree(lines: Header, scale: float) -> dict[str, Any]:
    """Nodes, first those that split, then the leaves, whose weights stand where edges do."""
    leaves = int(lines["num_leaves"])
    inner = leaves - 1
    weights = _numbers(lines, "leaf_value", leaves) * scale
    none = np.full(leaves, -1)
    if not inner:
        return {"left_children": none, "right_children": none, "split_conditions": weights}
    kind = _numbers(lines, "decision_type", inner).astype(int)
    thresholds = _numbers(lines, "threshold", inner)
    _check(lines, kind)
    missing_left = np.where(kind >> 2 == NONE_MISSING, thresholds >= 0, kind & DEFAULT_LEFT)
    left, right = (_children(_numbers(lines, name, inner).astype(int), inner) for name in ("left_child", "right_child"))
    padding = np.zeros(leaves, int)
    return {
        "left_children": np.concatenate([left, none]),
        "right_children": np.concatenate([right, none]),
        "split_indices": np.concatenate([_numbers(lines, "split_feature", inner).astype(int), padding]),
        "default_left": np.concatenate([missing_left.astype(bool).astype(int), padding]),
        "split_conditions": np.concatenate([above(thresholds), weights]),
    }


def _numbers(lines: Header, name: str, count: int) -> np.ndarray:
    out = np.array([float(v) for v in lines[name].split()])
    if len(out) != count:
        raise ValueError(name)
    return out


def _check(lines: Header, kind: np.ndarray) -> None:
    if (kind & CATEGORICAL).any():
        raise DataError("the model splits categories: encode them before training.")
    if (kind >> 2 == ZERO_MISSING).any():
        raise DataError("the model takes zeros as missing: train it without `zero_as_missing`.")
    if lines.get("is_linear", "0") != "0":
        raise DataError("the model's leaves are linear models: train it without `linear_tree`.")


def _children(child: np.ndarray, inner: int) -> np.ndarray:
    """Numbers of nodes; leaves were numbered -1, -2, ..."""
    if (child >= inner).any() or (child < -inner - 1).any():
        raise ValueError("a node that is none")
    return np.where(child >= 0, child, inner - 1 - child)


def above(thresholds: np.ndarray) -> np.ndarray:
    """The least float32 above each, as float64: of a float32, x <= threshold is x < this."""
    with np.errstate(over="ignore"):
        near = thresholds.astype(np.float32)
        floor = np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)
        out: np.ndarray = np.nextafter(floor, np.float32(np.inf)).astype(np.float64)
    return out
