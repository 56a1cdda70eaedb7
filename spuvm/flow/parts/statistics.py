"""Components that describe data: each statistic is revealed to all parties, and no row."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np

from spuvm import ml
from spuvm.flow.components import component
from spuvm.flow.kinds import Findings, Number, Predictions, Report, Rows
from spuvm.ml.common.rules import whole

Names = tuple[str, ...]
TESTS = {"t": ml.ttest_ind, "mann_whitney": ml.mannwhitneyu, "kolmogorov": ml.ks_2samp, "anova": ml.f_oneway}


def _numbers(data: Any, columns: Names) -> Any:
    """The columns named, or all of numbers."""
    if columns:
        return data[list(columns)]
    known = data.schema.columns if hasattr(data, "schema") else data.columns
    return data[[c.name for c in known if c.type in ("float", "int", "bool")]]


@component
def describe(data: Rows, *, columns: Annotated[Names, "all of numbers if none are named"] = ()) -> Findings:
    """Count, missing cells, mean, deviation and quartiles of each column."""
    found = ml.describe(_numbers(data, columns))
    rows: Any = tuple((str(c), *map(float, found.values[:, i])) for i, c in enumerate(found.columns))
    return Report({}, {"columns": (("column", *found.rows), rows)})


@component
def correlation(data: Rows, *, columns: Annotated[Names, "all of numbers if none are named"] = ()) -> Findings:
    """Pearson's correlation of each pair of columns."""
    chosen = _numbers(data, columns)
    names = chosen.columns if hasattr(chosen, "schema") else chosen.names
    found = np.asarray(ml.corr(chosen).values)
    rows: Any = tuple((str(n), *map(float, r)) for n, r in zip(names, found))
    return Report({}, {"correlation": (("", *names), rows)})


@component
def variance_inflation(data: Rows, *, columns: Annotated[Names, "all of numbers if none are named"] = ()) -> Findings:
    """How far each column is a linear combination of the others."""
    chosen = _numbers(data, columns)
    names = chosen.columns if hasattr(chosen, "schema") else chosen.names
    found = np.ravel(ml.variance_inflation(chosen).values)
    rows = tuple((n, float(v)) for n, v in zip(names, found))
    return Report({}, {"variance inflation": (("column", "factor"), rows)})


@component
def crosstab(data: Rows, *, rows: Annotated[str, "a column"], columns: Annotated[str, "another"]) -> Findings:
    """How many rows have each pair of codes of two columns."""
    found = ml.crosstab(data, rows, columns)
    heads = (f"{rows} \\ {columns}", *map(str, range(found.shape[1])))
    return Report({}, {"counts": (heads, tuple((i, *map(int, r)) for i, r in enumerate(found)))})


@component
def chi2(data: Rows, *, rows: Annotated[str, "a column"], columns: Annotated[str, "another"]) -> Findings:
    """Whether two columns of categories are independent."""
    return Report(_scalars(ml.chi2_contingency(data, rows, columns)))


@component
def compare(
    data: Rows,
    *,
    column: Annotated[str, "of numbers"],
    by: Annotated[str, "the column of groups"],
    kind: Annotated[Literal["t", "mann_whitney", "kolmogorov", "anova"], "which test"] = "t",
) -> Findings:
    """Whether a column is distributed alike in several groups."""
    return Report(_scalars(TESTS[kind](data, column, by)))


def _scalars(found: Any) -> dict[str, float]:
    return {k: float(v) for k, v in found.items() if np.ndim(v) == 0}


@component
def stability(
    expected: Rows,
    actual: Rows,
    *,
    column: Annotated[str, "that both have"],
    n_bins: Annotated[int, whole(2, 100), "with equally many of the expected rows"] = 10,
) -> Number:
    """The population stability index of a column: 0.1 is little, 0.25 is much."""
    return ml.psi(expected[column], actual[column], n_bins=n_bins)


@component
def bias(
    data: Rows,
    predictions: Predictions,
    *,
    label: Annotated[str, "the column of labels"],
    group: Annotated[str, "the column of groups"],
) -> Findings:
    """Rates of decisions by group, if every group has enough rows."""
    found = ml.bias_report(data[label], predictions, data[group])
    heads = ("rows", "selection_rate", "true_positive_rate", "false_positive_rate")
    rows = tuple((i, *(float(found[h][i]) for h in heads)) for i in range(len(found["rows"])))
    return Report(_scalars(found), {"by group": (("group", *heads), rows)})
