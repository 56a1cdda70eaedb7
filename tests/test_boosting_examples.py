"""The tutorials of secure boosting, and the data they are about."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scripts import run_script

import spuvm as spu

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "boosting"
ROWS = 3000  # of the flights
LOADED: dict[str, ModuleType] = {}


def example(name: str) -> ModuleType:
    """A tutorial's module. They import each other by their bare names, as scripts do; other examples have the same."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = LOADED[name] = importlib.util.module_from_spec(spec)
    sys.modules.update(LOADED)
    spec.loader.exec_module(module)
    for loaded in LOADED:
        del sys.modules[loaded]
    return module


prepare = example("prepare")
common = example("common")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("boosting")
    for name in prepare.TUTORIALS:
        prepare.write(name, folder, ROWS)
    return folder


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}


# The data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows", "columns", "label"),
    [
        ("breast_cancer", 569, {"alice": 10, "bob": 10, "carol": 11}, "malignant"),
        ("digits", 1797, {"alice": 30, "bob": 32}, "digit"),
        ("flights", ROWS, {"alice": 8, "bob": 6, "carol": 9, "dave": 1}, "late"),
    ],
)
def test_tables_make_a_frame(data: Path, name: str, rows: int, columns: dict[str, int], label: str) -> None:
    spu.init(parties=list(columns), address="local")
    sources = {party: data / name / f"{party}.parquet" for party in columns}
    frame = spu.data.vertical(sources, key="id", missing=name == "flights")
    assert frame.rows == rows
    assert {p: len(frame.columns_of(p)) for p in frame.parties} == columns
    assert frame.schema[label].party == list(columns)[-1]
    spu.shutdown()


def test_the_diagnoses_are_those_of_the_source(data: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    source = load_breast_cancer()
    found = tables(data / "breast_cancer")
    for party, feature in (("alice", "mean radius"), ("bob", "radius error"), ("carol", "worst radius")):
        column = source.data[:, list(source.feature_names).index(feature)]
        mine = found[party][feature.replace(" ", "_")]
        for malignant in (True, False):
            expected = np.sort(column[(source.target == 0) == malignant])
            np.testing.assert_array_equal(np.sort(mine[found["carol"]["malignant"] == malignant]), expected)
    order = found["alice"]["id"].to_numpy()
    assert abs(np.corrcoef(order, found["carol"]["malignant"])[0, 1]) < 0.1  # an id says nothing


def test_the_halves_of_the_digits_fit_together(data: Path) -> None:
    from sklearn.datasets import load_digits

    found = tables(data / "digits")
    whole = found["alice"].merge(found["bob"], on="id")
    source = load_digits()
    for name in (n for n in whole.columns if n.startswith("pixel")):
        _, row, column = name.split("_")
        np.testing.assert_array_equal(whole[name], source.images[:, int(row), int(column)])
        assert (name in found["alice"].columns) == (int(column) < 4)
    np.testing.assert_array_equal(whole["digit"], source.target)
    gone = 64 - (whole.shape[1] - 2)
    assert gone == (np.ptp(source.data, axis=0) == 0).sum() == 3


def test_the_flights_have_their_aircraft_and_weather(data: Path) -> None:
    found = tables(data / "flights")
    source = prepare.source_of_flights("flights.csv.zip").dropna(subset="arr_delay")
    source["id"] = source["carrier"] + source["flight"].astype(str) + " " + source["time_hour"].str[:13]
    source = source.set_index("id").loc[found["alice"]["id"]].reset_index()
    assert all((t["id"] == source["id"]).all() for t in found.values())
    np.testing.assert_array_equal(found["dave"]["late"], source["arr_delay"] > 15)
    assert 0.2 < found["dave"]["late"].mean() < 0.3
    np.testing.assert_array_equal(found["alice"]["distance"], source["distance"])
    np.testing.assert_array_equal(found["alice"]["departure"], source["hour"] * 60 + source["minute"])
    days = pd.to_datetime(source[["year", "month", "day"]])
    np.testing.assert_array_equal(found["alice"]["weekday"], days.dt.day_of_week)
    planes = prepare.source_of_flights("planes.csv").set_index("tailnum")["seats"]
    np.testing.assert_array_equal(found["bob"]["seats"], source["tailnum"].map(planes))
    assert 0.05 < found["bob"]["seats"].isna().mean() < 0.25
    hours = prepare.source_of_flights("weather.csv").set_index(["origin", "month", "day", "hour"])["pressure"]
    hours = hours[~hours.index.duplicated()]
    local = [hours.get(at, np.nan) for at in zip(source["origin"], source["month"], source["day"], source["hour"])]
    mine = found["carol"]["pressure"].to_numpy()
    both = ~np.isnan(mine) & ~np.isnan(local)
    assert both.mean() > 0.8
    np.testing.assert_array_equal(mine[both], np.array(local)[both])


@pytest.mark.usefixtures("preloaded")
def test_the_files_are_the_same_each_time(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE / "prepare.py"), "digits", "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split(": ")[1][:11] for line in done.stdout.splitlines()] == ["1,797 rows,"] * 2
    for party in ("alice", "bob"):
        name = f"digits/{party}.parquet"
        assert (tmp_path / name).read_bytes() == (data / name).read_bytes()


def test_fewer_rows_are_a_part_of_all() -> None:
    every, some = prepare.digits(), prepare.digits(100)
    for party in every:
        assert len(some[party]) == 100
        assert some[party]["id"].is_monotonic_increasing
        kept = every[party][every[party]["id"].isin(some[party]["id"])]
        pd.testing.assert_frame_equal(kept, some[party])


# The tutorials ---------------------------------------------------------------------------------------------


@pytest.fixture
def devices() -> Iterator[None]:
    yield
    spu.shutdown()


def setting(name: str, data: Path, out: Path, **parameters: Any) -> Any:
    """A tutorial on the data that were prepared, perhaps with other parameters."""
    tutorial = example(name).TUTORIAL
    tutorial = dataclasses.replace(tutorial, parameters={**tutorial.parameters, **parameters})
    return common.Setting(tutorial, data / name, out)


def area(labels: Any, scores: Any) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def pictures(folder: Path) -> set[str]:
    found = list(folder.glob("*.png"))
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000 for path in found)
    return {path.stem for path in found}


@pytest.mark.usefixtures("preloaded")
def test_breast_cancer_over_the_network(
    data: Path, tmp_path: Path, devices: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three processes train, three others load and predict, and carol alone sees."""
    places = ["--data", str(data / "breast_cancer"), "--out", str(tmp_path)]
    status = run_script(EXAMPLE / "breast_cancer.py", "--network", *places)
    said = capsys.readouterr()
    assert status == 0, said.err
    training, _, predicting = said.out.partition("--- predict: 3 processes")
    for party in ("alice", "bob", "carol"):
        assert f"{party} | revealed: nothing" in training
        assert f"{party} | revealed: prediction [143,2] to carol" in predicting
        assert (tmp_path / party / "model.share").is_file()
    assert [p for p in ("alice", "bob", "carol") if re.search(f"{p} . AUC", said.out)] == ["carol"]
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.parquet")}
    assert written == {"carol/predictions.parquet"}
    clear = common.in_the_clear(setting("breast_cancer", data, tmp_path), ["auc"])
    secure = pd.read_parquet(tmp_path / "carol" / "predictions.parquet")
    assert (secure["id"] == clear.ids).all()
    assert area(clear.labels, clear.probability) > 0.98
    assert area(clear.labels, secure["probability"]) == pytest.approx(area(clear.labels, clear.probability), abs=0.005)
    assert f"AUC of XGBoost in the clear: {area(clear.labels, clear.probability):.4f}" in said.out
    assert pictures(tmp_path) == {"roc"}


def test_digits_simulated(data: Path, tmp_path: Path, devices: None, capsys: pytest.CaptureFixture[str]) -> None:
    rounds = 5
    s = setting("digits", data, tmp_path, n_estimators=rounds)
    common.simulate(s)
    out = capsys.readouterr().out
    assert f"revealed: scores of test [] to all parties, {2 * rounds} times; prediction [450] to bob" in out
    clear = common.in_the_clear(s, ["merror", "mlogloss"])
    found = pd.read_parquet(tmp_path / "bob" / "predictions.parquet")
    np.testing.assert_array_equal(found["digit"], clear.labels)
    right, expected = (np.mean(x == clear.labels) for x in (found["found"], clear.probability.argmax(axis=1)))
    assert expected > 0.9
    assert right == pytest.approx(expected, abs=0.02)
    scores = pd.read_parquet(tmp_path / "bob" / "scores.parquet")
    assert scores["merror"].iloc[-1] == pytest.approx(1 - right, abs=1e-5)
    np.testing.assert_allclose(scores["mlogloss"], clear.scores["mlogloss"], atol=0.02)
    s.tutorial.compare(s)
    assert pictures(tmp_path) == {"mlogloss", "merror", "confusion"}


def test_flights_simulated(data: Path, tmp_path: Path, devices: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels at a party without features that does not compute; text, and missing cells."""
    rounds = 4
    s = setting("flights", data, tmp_path, n_estimators=rounds, max_depth=3)
    common.simulate(s)
    out = capsys.readouterr().out
    scores, importance = f"scores of test [] to all parties, {rounds} times", "feature importance [23] to all parties"
    assert f"revealed: {scores}; {importance}; prediction [750,2] to dave" in out
    clear = common.in_the_clear(s, ["logloss"])
    secure = pd.read_parquet(tmp_path / "dave" / "predictions.parquet")
    assert (secure["id"] == clear.ids).all()
    assert area(clear.labels, clear.probability) > 0.65
    assert area(clear.labels, secure["probability"]) == pytest.approx(area(clear.labels, clear.probability), abs=0.005)
    splits = pd.read_parquet(tmp_path / "dave" / "importance.parquet")["splits"]
    assert 0 < splits.sum() <= rounds * 7
    assert (splits == splits.round()).all()
    s.tutorial.compare(s)
    assert pictures(tmp_path) == {"roc", "logloss", "importance"}
