"""Components that learn how to prepare columns and do it: every transformer of `spuvm.ml`, by a table.

Each gives its model and the rows transformed. Columns that are not asked for stay as they are, so the label's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from spuvm import ml
from spuvm.data import Frame
from spuvm.data.part import Part
from spuvm.devices import PYU
from spuvm.flow.components import component
from spuvm.flow.estimators import as_component, parameters_of
from spuvm.flow.kinds import Model, Rows
from spuvm.flow.parameters import REQUIRED
from spuvm.ml.common.table import Table
from spuvm.runtime.errors import InputError

Names = tuple[str, ...]


class Prepared(NamedTuple):
    """What was learned, and the rows by it."""

    model: Model
    data: Rows


TRANSFORMERS: dict[
    str, tuple[type[Any], str]
] = {  # by component: the class, and the columns that it takes if none are named
    "bin": (ml.KBinsDiscretizer, "numbers"),
    "scale": (ml.StandardScaler, "numbers"),
    "scale_min_max": (ml.MinMaxScaler, "numbers"),
    "scale_max_abs": (ml.MaxAbsScaler, "numbers"),
    "scale_robust": (ml.RobustScaler, "numbers"),
    "scale_quantile": (ml.QuantileTransformer, "numbers"),
    "normalize": (ml.Normalizer, "numbers"),
    "encode": (ml.OneHotEncoder, "categories"),
    "encode_ordinal": (ml.OrdinalEncoder, "categories"),
    "encode_target": (ml.TargetEncoder, "categories"),
    "impute": (ml.SimpleImputer, "all"),
    "polynomial": (ml.PolynomialFeatures, "numbers"),
    "woe": (ml.WOEEncoder, "all"),
    "pca": (ml.PCA, "numbers"),
    "svd": (ml.TruncatedSVD, "numbers"),
    "nmf": (ml.NMF, "numbers"),
    "select_varying": (ml.VarianceThreshold, "numbers"),
    "select_best": (ml.SelectKBest, "numbers"),
}
TYPES = {"numbers": ("float", "int"), "categories": ("category",), "all": ("float", "int", "bool", "category")}
LABELLED = ("woe", "encode_target", "select_best")  # that learn from labels
LINEAR: dict[str, type[Any]] = {  # models whose smallest coefficients say which columns go
    "ridge": ml.Ridge,
    "lasso": ml.Lasso,
    "logistic_regression": ml.LogisticRegression,
    "linear_svc": ml.LinearSVC,
}


def _made(name: str, made: type[Any], takes: str) -> None:
    labelled = name in LABELLED

    def fit(data: Any, *, columns: Names = (), label: str = "", **parameters: Any) -> Prepared:
        if labelled and not label:
            raise InputError(f"component `{name}` learns from labels: name their column, `label`.")
        chosen = columns or _chosen(data, TYPES[takes], label)
        model = made(**parameters)
        features = data[list(chosen)]
        made_of = model.fit_transform(features, data[label]) if labelled else model.fit(features).transform(features)
        return Prepared(model, joined(data, chosen, made_of))

    about = {
        "columns": (Annotated[Names, f"if none are named, {takes if takes != 'all' else 'all'} but the label"], ()),
        "label": (Annotated[str, "the column of labels" if labelled else "a column that is left as it is"], ""),
    }
    as_component(name, fit, made, Prepared, about, parameters_of(made))


def _rfe() -> None:
    def fit(data: Any, *, columns: Names = (), label: str, by: str, **parameters: Any) -> Prepared:
        chosen = columns or _chosen(data, TYPES["numbers"], label)
        model, features = ml.RFE(estimator=LINEAR[by](), **parameters), data[list(chosen)]
        return Prepared(model, joined(data, chosen, model.fit_transform(features, data[label])))

    about: dict[str, tuple[Any, Any]] = {
        "columns": (Annotated[Names, "if none are named, numbers but the label"], ()),
        "label": (Annotated[str, "the column of labels"], REQUIRED),
        "by": (
            Annotated[
                Literal["ridge", "lasso", "logistic_regression", "linear_svc"],
                "the model that is fitted again and again",
            ],
            REQUIRED,
        ),
    }
    own = {name: known for name, known in parameters_of(ml.RFE).items() if name != "estimator"}
    as_component("select_recursively", fit, ml.RFE, Prepared, about, own)


def _chosen(data: Any, types: Names, label: str) -> Names:
    columns = data.schema.columns if isinstance(data, Frame) else data.columns
    found = tuple(c.name for c in columns if c.type in types and c.name != label)
    if not found:
        raise InputError(f"the frame has no columns of type {' or '.join(types)} besides the label: name `columns`.")
    return found


@component
def transform(model: Model, data: Rows) -> Rows:
    """Prepare other rows by what was learned of those before: bins, scales, codes, weights of evidence."""
    known = model.fitted.columns
    if known is None or not hasattr(model, "transform"):
        raise InputError("`model` transforms nothing: give one of bin, scale, encode, impute, woe, ...")
    names = tuple(c.name for c in known.columns)
    return joined(data, names, model.transform(data[list(names)]))


# Together again -------------------------------------------------------------------------------------------


def joined(data: Any, gone: Sequence[str], made: Table) -> Any:
    """The rows with some columns replaced by those of a table: a frame, if owners know all of them, else a table."""
    if isinstance(data, Frame) and data.kind == "vertical" and all(b.owner is not None for b in made.blocks):
        return _frame(data, gone, made)
    rest = [c for c in (data.columns if isinstance(data, Frame) else data.names) if c not in gone]
    if not rest:
        return made
    other = ml.common.table.table_of(made.machine, data[rest], missing=True)
    return replace(made, blocks=(*made.blocks, *other.blocks), frame=None)


def _frame(data: Frame, gone: Sequence[str], made: Table) -> Frame:
    columns = [c for c in data.schema.columns if c.name not in gone]
    parts = dict(data.parts)
    for block in made.blocks:
        assert block.owner is not None
        columns += block.columns
        names, types = block.names, {c.name: c.type for c in block.columns}
        known = block.categories if "category" in types.values() else None
        parts[block.owner] = PYU(block.owner)(_replaced)(
            parts[block.owner], block.value, names, types, tuple(gone), known
        )
    return replace(data, schema=replace(data.schema, columns=tuple(columns)), parts=parts)


def _replaced(
    part: Part, x: np.ndarray, names: Names, types: Mapping[str, str], gone: Names, known: Mapping[str, Names] | None
) -> Part:
    kept = {n: v for n, v in part.columns.items() if n not in gone}
    categories = {n: v for n, v in part.categories.items() if n in kept}
    categories |= {n: tuple((known or {})[n]) for n in names if types[n] == "category"}
    added = {n: np.ascontiguousarray(x[:, i], np.float64) for i, n in enumerate(names)}
    kinds = {n: t for n, t in part.types.items() if n in kept} | dict(types)
    return replace(part, types=kinds, columns={**kept, **added}, categories=categories)


for _name, (_class, _takes) in TRANSFORMERS.items():
    _made(_name, _class, _takes)
_rfe()
