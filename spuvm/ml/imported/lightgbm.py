"""Secure inference with a model of LightGBM that one party trained: the model is its secret, the rows are others'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spuvm.devices import SPU
from spuvm.ml.imported.lightgbm_file import read
from spuvm.ml.imported.xgboost import XgboostClassifier, XgboostRegressor, imported


@dataclass(eq=False, kw_only=True, repr=False)
class LightgbmClassifier(XgboostClassifier):
    """Classes by trees that were imported; see `load_lightgbm`."""


@dataclass(eq=False, kw_only=True, repr=False)
class LightgbmRegressor(XgboostRegressor):
    """Numbers, or scores of a ranking, by trees that were imported; see `load_lightgbm`."""


def load_lightgbm(
    path: str | Path, party: str, *, features: Sequence[str] | None = None, device: SPU | None = None
) -> Any:
    """A model that LightGBM wrote, `save_model("model.txt")`, for rows of others: its splits and weights stay secret.

        model = load_lightgbm("risk.txt", party="bank")     # the bank alone reads the file
        risk = model.predict_proba(customers, to="clinic")

    As `load_xgboost`, whose words on what is public hold here. Rows count as float32. Trees grow leaf by leaf there
    and are brought to the depth of the deepest here: it is worth to train with `max_depth`.

    Returns:
        `LightgbmClassifier` or `LightgbmRegressor`, to predict, score, and save in shares.

    Raises:
        InputError: for a file that is no such model, found by its party, or features of another number.
    """
    return imported(read, (LightgbmClassifier, LightgbmRegressor), path, party, features, device)
