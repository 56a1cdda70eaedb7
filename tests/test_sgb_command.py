"""`spuvm sgb`: train and predict on one machine, simulated and as processes, and what is said about mistakes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import spuvm as spu
from spuvm import cli
from spuvm.network import make_run_folder, run_parties

pytestmark = pytest.mark.usefixtures("preloaded")

PARTIES = ("alice", "bob", "carol")
SPUVM = [sys.executable, "-m", "spuvm"]
FILES = [f"{p}={p}.csv" for p in PARTIES]
PARAMS = """
label = "ill"
key = "name"
[model]
n_estimators = 2
max_depth = 2
max_bin = 4
[data]
missing = false
drop = ["note"]
categories = { ward = "public" }
"""
ROWS = 60


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Three parties' tables with and without labels, in the working folder."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2 * ROWS, 3)).round(2)
    ward = rng.choice(["north", "south"], 2 * ROWS)
    ill = (x.sum(axis=1) + (ward == "north") > 0).astype(int)
    names = [f"p{i}" for i in range(2 * ROWS)]
    note = ["nothing"] * (2 * ROWS)
    whole = pd.DataFrame(
        {"name": names, "a": x[:, 0], "note": note, "b": x[:, 1], "ward": ward, "c": x[:, 2], "ill": ill}
    )
    columns = {"alice": ["a", "note"], "bob": ["b", "ward"], "carol": ["c", "ill"]}
    for party, mine in columns.items():
        whole[:ROWS][["name", *mine]].to_csv(tmp_path / f"{party}.csv", index=False)
        later = whole[ROWS:][["name", *mine]].drop(columns=["ill"], errors="ignore")
        later.to_csv(tmp_path / f"{party}_later.csv", index=False)
    whole.to_csv(tmp_path / "whole.csv", index=False)
    (tmp_path / "params.toml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    spu.shutdown()


LATER = [f"{p}={p}_later.csv" for p in PARTIES]


def train(*more: str) -> int:
    return cli.run(["sgb", "train", "params.toml", *FILES, "--model", "models", *more])


def predict(*more: str, files: list[str] = LATER) -> int:
    return cli.run(["sgb", "predict", "params.toml", *files, "--model", "models", "--to", "bob", *more])


def check(output: str) -> np.ndarray:
    """That predictions are of the later rows, by name, and better than chance."""
    found = pd.read_csv(output) if output.endswith(".csv") else pd.read_parquet(output)
    whole = pd.read_csv("whole.csv")[ROWS:]
    assert list(found.columns) == ["name", "probability"]
    assert found["name"].tolist() == whole["name"].tolist()
    assert ((found["probability"] > 0.5) == whole["ill"].to_numpy()).mean() > 0.65
    risk: np.ndarray = found["probability"].to_numpy().astype(np.float32)
    return risk


def test_simulated_and_as_processes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    assert "revealed: nothing" in capsys.readouterr().err
    assert sorted(p.name for p in Path("models").iterdir()) == sorted(PARTIES)
    assert predict("--output", "risk.csv") == 0
    out, err = capsys.readouterr()
    assert f"revealed: prediction [{ROWS},2] to bob" in err
    assert f"wrote risk.csv ({ROWS} rows)" in err
    assert out == ""
    simulated = check("risk.csv")
    assert predict("--network", "--output", "risk.parquet") == 0
    np.testing.assert_array_equal(check("risk.parquet"), simulated)
    assert predict("--classes", "--quiet", "--output", "classes.csv") == 0
    assert (pd.read_csv("classes.csv")["prediction"] == (simulated > 0.5)).all()


def test_each_party_by_its_own_command(folder: Path) -> None:
    config = str(make_run_folder(folder / "keys", spu.Config(parties=PARTIES)))
    with (folder / "params.toml").open("a") as file:
        file.write("[test]\nsize = 0.2\n")
    commands = {}
    for party in PARTIES:
        line = ["sgb", "train", "params.toml", f"{party}.csv", "--model", f"part_of_{party}"]
        commands[party] = [*SPUVM, *line, "--config", config, "--as", party]
    done = run_parties(commands, timeout=300)
    for party in PARTIES:
        assert "[1] test-logloss: 0." in done[party].stdout
        assert "revealed: scores of test [] to all parties, 2 times" in done[party].stderr
        assert Path(f"part_of_{party}").is_dir()


def test_rows_of_several_parties(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = pd.read_csv("whole.csv")
    for party, some in zip(PARTIES, np.array_split(np.arange(ROWS), 3)):
        whole.iloc[some].to_csv(f"{party}.csv", index=False)
    later = whole[ROWS:].drop(columns="ill")
    later.to_csv("bob_later.csv", index=False)
    later[:9].to_csv("carol_later.csv", index=False)
    (folder / "params.toml").write_text(PARAMS.replace("[data]", '[data]\nframe = "horizontal"'))
    assert train("--network") == 0
    assert "revealed: nothing" in capsys.readouterr().err
    assert predict("--output", "risk.csv", "--tables", "bob", files=["bob=bob_later.csv"]) == 0
    risk = check("risk.csv")
    two = ["bob=bob_later.csv", "carol=carol_later.csv"]
    assert predict("--network", "--output", "both.parquet", files=two) == 0
    both = pd.read_parquet("both.parquet")
    assert list(both.columns) == ["party", "row", "probability"]
    assert both["party"].tolist() == ["bob"] * ROWS + ["carol"] * 9
    assert both["row"].tolist() == [*range(1, ROWS + 1), *range(1, 10)]
    np.testing.assert_array_equal(both["probability"].to_numpy(), np.append(risk, risk[:9]))


# Mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label = 3", "`label` must be text, got 3"),
        ('key = "id"', "`label` is missing"),
        ('label = "y"', "`key` is missing"),
        ('label = "y"\nkey = "id"\nlabl = 3', r"no setting `labl` (did you mean `label`?)"),
        (
            'label = "y"\nkey = "id"\n[data]\nmising = true',
            r"`[data]` has no setting `mising` (did you mean `missing`?)",
        ),
        ('label = "y"\nkey = "id"\n[data]\nmissing = 3', "`missing` must be true, false or names, got 3"),
        ('label = "y"\nkey = "id"\n[test]\nsize = "big"', "`size` must be a number, got 'big'"),
        ("label =", "params.toml is not valid TOML"),
        (PARAMS.replace("n_estimators", "n_trees"), "unknown parameter `n_trees`"),
        (PARAMS.replace("max_depth = 2", "max_depth = 0"), "`max_depth` must be 1 to 10"),
        (PARAMS.replace('"ill"', '"sick"'), "there is no column `sick`"),
        (PARAMS.replace('"name"', '"id"'), "alice.csv has no key column `id`"),
        (PARAMS.replace("[data]", '[data]\nparties = ["alice", "bob"]'), "say that alice, bob bring tables, not"),
    ],
)
def test_parameters_that_do_not_fit(folder: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "params.toml").write_text(text)
    assert train() == 2
    assert message in capsys.readouterr().err
    assert not list(folder.rglob("*.share"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train params.toml --model m", "no files are given"),
        ("train params.toml alice.csv --model m", "'alice.csv' must be like alice=alice.csv"),
        ("train params.toml alice=alice.csv alice=b.csv --model m", "two files of alice"),
        ("train params.toml alice=alice.csv", "Missing option '--model'"),
        ("train other.toml alice=alice.csv --model m", "other.toml cannot be read: No such file"),
        ("train params.toml alice=alice.csv --model m --as alice", "belong together"),
        ("train params.toml a.csv --model m --as alice --config c.toml --network", "`--network` runs all parties"),
        ("predict params.toml alice=alice.csv --model m", "Missing option '--to'"),
        ("predict params.toml alice=alice.csv --model m --to dave --output r.csv", "`--to` must be one of alice, bob"),
        ("predict params.toml alice=alice.csv --model m --to bob", "`--output` is missing: bob sees"),
        ("predict params.toml alice=alice.csv --model m --to bob --output r.npy", "must end in one of .csv, .parquet"),
        ("predict params.toml alice=alice.csv --model m --to bob --output alice.csv", "is there already"),
    ],
)
def test_commands_that_do_not_fit(folder: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["sgb", *line.split()]) == 2
    assert message in capsys.readouterr().err


def test_a_model_that_is_there_is_refused_before_any_process_starts(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "m" / "bob").mkdir(parents=True)
    (folder / "m" / "bob" / "model.share").write_text("of a run that came to its end")
    monkeypatch.setattr("spuvm.commands.sgb.run_together", lambda *_: pytest.fail("started"))
    line = "train params.toml alice=alice.csv bob=bob.csv carol=carol.csv --model m --network"
    assert cli.run(["sgb", *line.split()]) == 2
    said = [text for text in capsys.readouterr().err.splitlines() if "error" in text]
    assert len(said) == 1 and "m/bob/model.share is there already: give another name, or `--force`" in said[0]


def test_one_partys_mistake_stops_all(folder: Path) -> None:
    """Found before it connects: bob's peers learn that he does not come, not what his files hold."""
    config = str(make_run_folder(folder / "keys", spu.Config(parties=PARTIES)))
    (folder / "bobs.toml").write_text("label = 3")
    commands = {}
    for party in PARTIES:
        line = ["sgb", "train", "bobs.toml" if party == "bob" else "params.toml", f"{party}.csv", "--model", party]
        commands[party] = [*SPUVM, *line, "--config", config, "--as", party]
    done = run_parties(commands, timeout=300, check=False)
    assert {p: o.status for p, o in done.items()} == {"alice": 3, "bob": 2, "carol": 3}
    assert "`label` must be text" in done["bob"].stderr
    assert all("bob" in done[p].stderr and "label" not in done[p].stderr for p in ("alice", "carol"))


def test_other_parameters_at_one_party(folder: Path) -> None:
    config = str(make_run_folder(folder / "keys", spu.Config(parties=PARTIES)))
    (folder / "bobs.toml").write_text(PARAMS.replace("max_bin = 4", "max_bin = 8"))
    commands = {}
    for party in PARTIES:
        line = ["sgb", "train", "bobs.toml" if party == "bob" else "params.toml", f"{party}.csv", "--model", party]
        commands[party] = [*SPUVM, *line, "--config", config, "--as", party]
    done = run_parties(commands, timeout=300, check=False)
    assert all("bob differs from alice and carol in `parameters`" in o.stderr for o in done.values())
    assert all(o.status == 3 for o in done.values())
