"""Bins of features, made by the party that holds them, in NumPy: edges, and the matrix of possible splits.

What is public of a feature: how many splits its type allows (`split_count`), and whether cells may be
missing. Where the edges lie, and how many of them differ, only the owner knows.

A numeric feature splits at its quantiles: a row goes left where x < edge. Of at most `max_bin`
different values, all but the least are edges, as XGBoost's "hist" has them. Of more, the edges are
the values at the ranks i n / max_bin, exactly; XGBoost takes an approximate sketch, and weighs it with
the samples' weights. A category splits from all others: a row goes right where x is the category.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spuvm.data.schema import Column

Edges = list[np.ndarray]  # of each feature: float32 [split_count], for a category the codes


def split_count(column: Column, max_bin: int) -> int:
    """How many splits are tried of a feature: public."""
    if column.type == "bool":
        return 1
    if column.type == "category":
        known = max_bin if column.categories is None else len(column.categories)
        return 1 if known == 2 else known
    return max_bin - 1


def find_edges(values: np.ndarray, columns: Sequence[Column], max_bin: int) -> Edges:
    """The edges of an owner's features.

    Args:
        values: float64 [rows, features], NaN where missing, categories as codes.

    A feature that is the same in all rows has no edge that rows pass: it is never split.
    """
    return [_edges(values[:, i], column, max_bin) for i, column in enumerate(columns)]


def _edges(x: np.ndarray, column: Column, max_bin: int) -> np.ndarray:
    count = split_count(column, max_bin)
    there = ~np.isnan(x)
    x = np.sort(x[there].astype(np.float32))
    distinct = np.unique(x)
    if column.type == "category":
        codes = np.unique(x, return_counts=True)
        if column.categories is not None:
            return public_edges(column)
        frequent = codes[0][np.argsort(-codes[1], kind="stable")[:count]]  # of too many, those with most rows
        return _padded(frequent, count, np.float32(-1))
    if len(distinct) > max_bin:
        ranks = np.arange(1, max_bin) * len(x) // max_bin
        distinct = np.unique(np.concatenate([distinct[:1], x[ranks]]))
    return _padded(distinct[1:], count, np.float32(np.inf))


def public_edges(column: Column) -> np.ndarray:
    """Of a bool, or of a category column whose categories all know: float32 [split_count]."""
    if column.type == "bool":
        return np.ones(1, np.float32)
    known = np.arange(len(column.categories or ()))
    return known[-split_count(column, 0) :].astype(np.float32)


def _padded(edges: np.ndarray, count: int, filler: np.float32) -> np.ndarray:
    """Edges that no row passes make up for missing ones."""
    return np.concatenate([edges, np.full(count - len(edges), filler)]).astype(np.float32)


def indicators(values: np.ndarray, columns: Sequence[Column], edges: Edges) -> np.ndarray:
    """The owner's matrix: bool [rows, width].

    For each feature, for each split, whether the row goes left (0 if the cell is missing); then for
    each feature that may miss cells, whether it does.
    """
    x = values.astype(np.float32)
    blocks = [goes_left(x[:, i], column, edges[i]) for i, column in enumerate(columns)]
    blocks += [np.isnan(x[:, i])[:, None] for i, column in enumerate(columns) if column.missing]
    if not blocks:
        return np.zeros((len(x), 0), bool)
    return np.ascontiguousarray(np.concatenate(blocks, axis=1), dtype=bool)


def goes_left(x: np.ndarray, column: Column, edges: np.ndarray) -> np.ndarray:
    """Of one feature, for each split, whether each row goes left: bool [rows, splits]."""
    left: np.ndarray = (x[:, None] != edges) if column.type == "category" else (x[:, None] < edges)
    left &= ~np.isnan(x)[:, None]
    return left
