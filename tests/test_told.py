"""Text, decimal commas and large integers do not become numbers unless somebody says which."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spuvm as spu
from spuvm.data import tables
from spuvm.ml import Sgb
from spuvm.runtime.errors import InputError, SpuError

N = 24
X = np.linspace(-1, 1, N)
COMMAS = [f"{v:.1f}".replace(".", ",") for v in 100 + 10 * X]
GOOD_BAD = np.where(X > 0, "bad", "good")
THREE = np.where(X > 0.5, "a", np.where(X < -0.5, "b", "c"))


@pytest.fixture(autouse=True)
def parties() -> None:
    spu.init(parties=["alice", "bob", "carol"], address="local")


def frame(label: Any, **more: Any) -> spu.data.Frame:
    ids = np.arange(N)
    return spu.data.vertical({"alice": {"id": ids, "x": X}, "bob": {"id": ids, "y": label}}, key="id", **more)


@pytest.mark.parametrize(
    ("label", "objective", "words"),
    [
        (COMMAS, "reg:squarederror", "numbers that are written as text"),
        ([str(int(1000 + 10 * v)) for v in X], "reg:squarederror", "is text, but `objective` .* takes numbers"),
        (GOOD_BAD, "binary:logistic", r"which of two is 1 must be said: `positive=`"),
        (np.where(X > 0, "10", "9"), "binary:logistic", "which of two is 1 must be said"),
        (THREE, "binary:logistic", "which of two is 1 must be said"),
        (THREE, "multi:softmax", r"text whose order only its owner knows: state it, categories="),
    ],
)
def test_labels_that_are_text(label: Any, objective: str, words: str) -> None:
    classes: dict[str, Any] = {"num_class": 3} if objective.startswith("multi") else {}
    with pytest.raises(InputError, match=words):
        Sgb(n_estimators=1, max_depth=1, max_bin=4, objective=objective, **classes).fit(frame(label), "y")


def test_positive_says_which_is_one() -> None:
    found = frame(GOOD_BAD).binary("y", positive="bad")
    assert found.schema["y"].type == "bool"
    assert found["y"].at("bob").value.tolist() == (X > 0).astype(float).tolist()
    assert frame(GOOD_BAD).binary("y", positive="good")["y"].at("bob").value.tolist() == (X <= 0).astype(float).tolist()
    for label, positive in ((GOOD_BAD, "Bad"), (THREE, "a")):
        with pytest.raises(InputError, match="`positive` must be one of two"):
            frame(label).binary("y", positive=positive)
    with pytest.raises(InputError, match="it needs no `positive`"):
        frame(X > 0).binary("y", positive="bad")


def test_a_model_of_what_is_positive() -> None:
    data = frame(GOOD_BAD)
    model = Sgb(n_estimators=1, max_depth=1, max_bin=4).fit(data, "y", positive="bad", eval_set={"t": data})
    risk = np.asarray(model.predict_proba(data.drop("y"), to="carol").value)
    risk = risk[:, -1] if risk.ndim == 2 else risk
    assert risk[X > 0].min() > 0.5 > risk[X < 0].max()
    assert model.score(data) == 1.0  # as `fit` was told
    assert model.score(data, positive="good") == 0.0


@pytest.mark.parametrize("cells", [COMMAS, ["1.5", "2"] * (N // 2), ["1.000,5"] * N])
def test_features_whose_numbers_are_text(cells: list[str]) -> None:
    with pytest.raises(InputError, match="numbers that are written as text"):
        frame(cells)
    codes = pd.Series(cells).astype("category")
    assert frame(codes).schema["y"].type == "category"
    assert frame(cells, categories={"y": "public"}).schema["y"].type == "category"
    assert frame(["01067", "20095"] * (N // 2)).schema["y"].type == "category"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([decimal.Decimal(2**60 + 1)] * N),
        pa.array([2**60 + 1] * N),
        pa.array([datetime.date(2020, 1, 1)] * N),
        pa.array([datetime.timedelta(1)] * N),
        pa.array([b"x"] * N),
        [2**70] * N,
        [object()] * N,
    ],
    ids=["decimal", "int64", "date", "duration", "bytes", "python int", "object"],
)
def test_columns_that_are_no_numbers(column: Any) -> None:
    with pytest.raises(InputError):
        frame(column)


WRONG: dict[str, Callable[[], Any]] = {
    "text": lambda: np.array(["1", "2"]),
    "object": lambda: np.array([1, "2"], object),
    "date": lambda: np.array(["2020-01-01"], "datetime64[D]"),
    "duration": lambda: np.array([3], "timedelta64[D]"),
    "python int": lambda: np.array([2**70]),
    "int64": lambda: np.array([2**40]),
    "uint64": lambda: np.array([2**63 + 5], np.uint64),
    "int64 min": lambda: np.array([-(2**31) - 1]),
    "cells that pandas may lack": lambda: pd.Series([1, None], dtype="Int64"),
    "categorical": lambda: pd.Categorical(["a", "b"]),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("how", ["jit", "PYU", "public", "private"])
def test_arrays_that_do_not_fit(kind: str, how: str) -> None:
    value = WRONG[kind]()
    ways: dict[str, Callable[[], Any]] = {
        "jit": lambda: spu.jit(lambda x: x + x)(value),
        "public": lambda: spu.jit(lambda x, y: x + y)(spu.public(value), np.int32(1)),
        "private": lambda: spu.jit(lambda x: x + x)(spu.private(value, owner="party0")),
        "PYU": lambda: spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"])).share(
            spu.PYU("bob")(lambda: value)()
        ),
    }
    with pytest.raises(SpuError):
        ways[how]()


def test_arrays_that_fit() -> None:
    edges = np.array([-(2**31), 2**31 - 1])
    assert spu.reveal(spu.jit(lambda x: x)(edges)).tolist() == edges.tolist()
    with jax.enable_x64(True):
        wide = np.array([2**40, -(2**62)])
        assert spu.reveal(spu.jit(lambda x: x)(wide)).tolist() == wide.tolist()
    assert spu.reveal(spu.jit(lambda x: x.astype(jnp.int32))(np.array([7, 9], np.uint8))).tolist() == [7, 9]


def test_decimals_in_tables(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([decimal.Decimal(2**60 + 1)])}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="decimals beyond 2\\^53"):
        tables.read(tmp_path / "t.parquet")
