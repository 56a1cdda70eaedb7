"""The real job: the same AUC as in the clear, nothing revealed but the predictions, each party with its own file."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spuvm as spu
from spuvm.network import make_run_folder, run_parties

pytestmark = pytest.mark.usefixtures("preloaded")

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "hospitals"
README = EXAMPLE.parent.parent / "README.md"
TRAIN = str(EXAMPLE / "train.py")


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"hospitals_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


train, prepare = example("train"), example("prepare")
PARTIES = train.PARTIES


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospitals")
    prepare.write(folder)
    return folder


@pytest.fixture(scope="module")
def clear(data: Path) -> float:
    return float(train.in_the_clear(data))


def own_folders(data: Path, to: Path) -> dict[str, Path]:
    """A folder for each party, with its file alone."""
    for party in PARTIES:
        (to / party).mkdir()
        shutil.copy(data / f"{party}.parquet", to / party)
    return {party: to / party for party in PARTIES}


def command(party: str, config: Path, folder: Path) -> list[str]:
    """What a party types, with its own folder for input and output."""
    places = ["--data", str(folder), "--output", str(folder / "predictions.parquet")]
    return [sys.executable, TRAIN, "--as", party, "--config", str(config), *places]


def predictions(data: Path, path: Path) -> tuple[Any, Any]:
    """Probabilities and labels of the held-out rows, matched by id."""
    out = pq.read_table(path).to_pydict()
    label = dict(zip(*(pq.read_table(data / "carol.parquet")[c].to_pylist() for c in ("id", "malignant"))))
    return np.array(out["probability"]), np.array([label[i] for i in out["id"]])


def test_files(data: Path) -> None:
    tables = {p: pq.read_table(data / f"{p}.parquet") for p in PARTIES}
    assert {p: (t.num_rows, t.num_columns) for p, t in tables.items()} == {
        "alice": (569, 11),
        "bob": (569, 11),
        "carol": (569, 12),
    }
    ids = [t["id"].to_pylist() for t in tables.values()]
    assert ids[0] == ids[1] == ids[2] == sorted(set(ids[0]))
    assert len({name for t in tables.values() for name in t.column_names}) == 32


def test_standardise_is_what_it_says(data: Path) -> None:
    x = train.features(pq.read_table(data / "bob.parquet"))
    z = np.asarray(train.standardise(x))[: train.TRAINING]
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(
        z, (x - x[: train.TRAINING].mean(0))[: train.TRAINING] / x[: train.TRAINING].std(0), atol=1e-3
    )


def test_gradient_is_that_of_the_log_loss(data: Path) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(20, 3)).astype(np.float32), rng.integers(0, 2, 20).astype(np.float32)
    model = np.array([0.3, -0.2, 0.5], np.float32), np.float32(0.1)

    def textbook(model: Any) -> jax.Array:
        p = jax.nn.sigmoid(x @ model[0] + model[1])
        return -jax.numpy.sum(y * jax.numpy.log(p) + (1 - y) * jax.numpy.log(1 - p))

    value, gradient = jax.value_and_grad(train.log_loss)(model, x, y)
    expected_value, expected = jax.value_and_grad(textbook)(model)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), gradient, expected)


def test_auc_counts_ties_half() -> None:
    assert train.auc(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0])) == 0.875


def test_simulated(data: Path, clear: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.simulate(data, tmp_path / "predictions.parquet")
    probability, label = predictions(data, tmp_path / "predictions.parquet")
    assert clear > 0.99
    assert train.auc(probability, label) == pytest.approx(clear, abs=0.002)
    assert f"AUC on 113 held-out rows: {train.auc(probability, label):.4f}" in capsys.readouterr().out


def reveals(program: spu.Program) -> list[str]:
    return re.findall(r'reveal .*?"to": ("?\w+"?)', program.text)


def test_only_the_predictions_are_revealed_and_to_carol_alone(data: Path) -> None:
    spu.init(parties=PARTIES, address="local")
    machine: Any = spu.SPU(spu.utils.testing.cluster_def(PARTIES))
    tables = [pq.read_table(data / f"{p}.parquet") for p in PARTIES]
    inputs: list[Any] = [spu.PYU(p)(train.features)(t) for p, t in zip(PARTIES, tables)]
    inputs.append(spu.PYU("carol")(train.labels)(tables[2]))
    program = machine(train.predict_for_carol).compile(*inputs)
    assert reveals(program) == ["2"]
    assert [v.type.visibility for v in program.module.body.results] == [2]
    digests = [spu.PYU(p)(train.digest)(t) for p, t in zip(PARTIES, tables)]
    program = machine(train.same_rows).compile(*digests)
    assert reveals(program) == ['"public"']
    assert [(v.type.kind, v.type.shape, v.type.visibility) for v in program.module.body.results] == [
        ("bool", (), "public")
    ]
    spu.shutdown()


def test_features_are_standardised_without_messages(data: Path) -> None:
    """Scaling happens where the data is: it costs nothing."""
    x = train.features(pq.read_table(data / "alice.parquet"))
    cost = spu.jit(train.standardise, parties=PARTIES).cost(spu.private(x, "alice"))
    assert cost.rounds == 0
    assert cost.bytes_sent.sum() == 0


@pytest.mark.parametrize("change", ["order", "other"])
def test_rows_that_do_not_match(change: str, data: Path, tmp_path: Path) -> None:
    folders = own_folders(data, tmp_path)
    path = folders["bob"] / "bob.parquet"
    table = pq.read_table(path)
    if change == "order":
        table = table.take([1, 0, *range(2, 569)])
    else:
        ids = [*table["id"].to_pylist()[:-1], 1]
        table = table.set_column(0, "id", pa.array(ids))
    pq.write_table(table, path)
    for party in PARTIES[::2]:
        shutil.copy(folders[party] / f"{party}.parquet", folders["bob"])
    with pytest.raises(spu.errors.InputError, match="different ids, or the same in another order"):
        train.simulate(folders["bob"], tmp_path / "predictions.parquet")
    assert not (tmp_path / "predictions.parquet").exists()


def readme_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(r"carol \| +(alice|bob|carol) .*\d$", line)]


def test_three_commands_each_with_its_own_file(data: Path, clear: float, tmp_path: Path, update_golden: bool) -> None:
    folders = own_folders(data, tmp_path)
    config = make_run_folder(tmp_path / "keys", spu.Config(parties=PARTIES))
    outcomes = run_parties({p: command(p, config, folders[p]) for p in PARTIES}, timeout=240)
    outputs = {p: folders[p] / "predictions.parquet" for p in PARTIES}
    probability, label = predictions(data, outputs["carol"])
    assert train.auc(probability, label) == pytest.approx(clear, abs=0.002)
    assert [outputs[p].exists() for p in PARTIES] == [False, False, True]
    for party in PARTIES:
        assert outcomes[party].stderr == ""
        assert ("AUC" in outcomes[party].stdout) == (party == "carol")
        assert re.findall(r"opened .*/(\w+)\.parquet", outcomes[party].stdout) == [party]
    printed = [line for line in outcomes["carol"].stdout.splitlines() if line.split()[:1] in [[p] for p in PARTIES]]
    assert len(printed) == 3
    for line in printed:
        _, rounds, predicted_rounds, sent, predicted_sent, received, _ = line.split()
        assert rounds == predicted_rounds
        assert sent == predicted_sent
        assert int(received.replace(",", "")) > 0
    shown = readme_rows(README.read_text())
    if update_golden:
        text = README.read_text()
        for old, new in zip(shown, printed, strict=True):
            text = text.replace(old, f"carol | {new}")
        README.write_text(text)
        return
    assert [line.split()[2:-1] for line in shown] == [line.split()[:-1] for line in printed]  # all but the seconds


@pytest.mark.parametrize("name", ["id", "malignant"])
def test_a_missing_column_is_named(name: str, data: Path, tmp_path: Path) -> None:
    for party in PARTIES:
        table = pq.read_table(data / f"{party}.parquet")
        pq.write_table(table.drop_columns([c for c in table.column_names if c == name]), tmp_path / f"{party}.parquet")
    with pytest.raises(spu.errors.InputError, match=f"no column `{name}`"):
        train.simulate(tmp_path, tmp_path / "predictions.parquet")


def test_a_missing_file_stops_all_and_is_named_where_it_is_missing(data: Path, tmp_path: Path) -> None:
    config = make_run_folder(tmp_path / "keys", spu.Config(parties=PARTIES))
    folders = own_folders(data, tmp_path)
    (folders["bob"] / "bob.parquet").unlink()
    commands = {p: command(p, config, folders[p]) for p in PARTIES}
    outcomes = run_parties(commands, timeout=60, check=False)
    for party in PARTIES:
        assert outcomes[party].status in (2, 3)
        assert ("bob.parquet is no readable Parquet file" in outcomes[party].stderr) == (party == "bob")
        assert party == "bob" or "bob stopped" in outcomes[party].stderr
        assert "Traceback" not in outcomes[party].stderr
