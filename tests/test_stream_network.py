"""Streams as several processes: parties that are killed, workers, and workers on Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spuvm as spu
from spuvm import cli
from spuvm.network import make_run_folder
from spuvm.runtime.config import Config
from spuvm.runtime.errors import InputError
from spuvm.runtime.link.certificates import free_ports
from spuvm.streaming.job import Runner

pytestmark = pytest.mark.usefixtures("preloaded")

PARTIES = ("alice", "bob", "carol")
ROWS = 2000
LIMIT = 300.0
KILLS = 3

FUNCTIONS = """
import jax.numpy as jnp

def score(x, y):
    return {"p": x * y, "less": x < y}

def kept(stream):
    return stream.filter(lambda x, y: x < y, reveal="count").map(lambda x, y: {"p": x * y, "less": x < y})

def total(stream):
    both = lambda a, b: (a[0] + b[0], a[1] + b[1])
    return stream.fold(lambda t, x, y: (t[0] + jnp.dot(x, y), t[1] + x.shape[0]), (0.0, 0), both)
"""
INPUTS = ["--input", "x=a.parquet:x@alice", "--input", "y=b.parquet:y@bob", "--rows-per-block", "100"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    rng = np.random.default_rng(5)
    columns = {n: rng.uniform(-4, 4, ROWS).astype(np.float32) for n in "xy"}
    pq.write_table(pa.table({"x": columns["x"]}), "a.parquet")
    pq.write_table(pa.table({"y": columns["y"]}), "b.parquet")
    Path("f.py").write_text(FUNCTIONS)
    return columns


def spuvm(*arguments: str) -> int:
    return cli.run(["stream", *arguments])


def check_scores(path: str, data: dict[str, np.ndarray]) -> None:
    table = pq.read_table(path)
    assert np.array_equal(table["less"].to_numpy(), data["x"] < data["y"])
    assert np.abs(table["p"].to_numpy() - data["x"] * data["y"]).max() < 1e-4


# The command ---------------------------------------------------------------------------------------------


def test_rows_by_three_processes(data: Any) -> None:
    assert spuvm("f.py:score", *INPUTS, "--output", "out.parquet@carol", "--network", "--quiet") == 0
    check_scores("out.parquet", data)
    assert not Path("out.parquet.run").exists()


def test_a_fold_by_workers_of_three_parties(data: Any, capfd: pytest.CaptureFixture[str]) -> None:
    shown = []
    for more in ([], ["--workers", "2"], ["--network", "--workers", "2"]):
        assert spuvm("f.py:total", *INPUTS, "--reveal", "all", "--quiet", *more) == 0
        shown.append(capfd.readouterr().out.splitlines())
    for first, second in shown:
        value = float(first.removeprefix("out[0] float32[]: "))
        assert abs(value - float(np.dot(data["x"].astype(float), data["y"]))) < 0.05
        assert second == f"out[1] int32[]: {ROWS}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["f.py:score"], "`--output FILE.parquet@PARTY` is missing"),
        (["f.py:score", "--output", "out.csv@carol"], "write it like 'out.parquet@carol'"),
        (["f.py:total", "--output", "out.parquet@carol"], "`--output` is for rows"),
        (["f.py:score", "--output", "a.parquet@carol"], "a.parquet is there already"),
        (["f.py:score", "--output", "out.parquet@carol", "--input", "x=b.parquet:y@bob"], "y is given fewer times"),
        (["f.py:score", "--output", "out.parquet@carol", "--as", "bob"], "`--config` and `--as` go together"),
        (["f.spux", "--output", "out.parquet@carol"], "is compiled for one shape"),
    ],
)
def test_mistakes(data: Any, arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert spuvm(*arguments, *INPUTS) == 2
    assert words in capfd.readouterr().err


def test_parties_that_differ(data: Any, capfd: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"y": data["y"][1:]}), "b.parquet")
    assert spuvm("f.py:score", *INPUTS, "--output", "out.parquet@carol", "--network", "--quiet") == 2
    said = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert len(said) == 1  # whoever found it first
    assert said[0].startswith("error: ")
    assert "the sources differ in rows: `x` of alice has 2,000, `y` of bob has 1,999" in said[0]


def test_a_fold_of_the_command_goes_on(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = Runner._compute

    def compute(self: Runner, ready: Any, state: Any) -> Any:
        if len(seen) == 6:
            raise InputError("enough")
        seen.append(ready.block)
        return plain(self, ready, state)

    monkeypatch.setattr(Runner, "_compute", compute)
    command = ["f.py:total", *INPUTS, "--rows-per-block", "200", "--reveal", "all", "--quiet", "--folder", "run"]
    assert spuvm(*command) == 2
    assert seen == [0, 1, 2, 3, 4, 5]
    seen.clear()
    assert spuvm(*command) == 0
    assert seen == [6, 7, 8, 9]
    assert not Path("run").exists()


# Killed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["score", "kept"])
def test_a_party_killed_at_any_moment(function: str, data: Any, tmp_path: Path) -> None:
    cluster = make_run_folder(tmp_path / "keys", Config(parties=PARTIES), timeout=240)
    rng = np.random.default_rng(int.from_bytes(os.urandom(4)))
    run = tmp_path / "run"

    def start() -> dict[str, subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "spuvm", "stream", f"f.py:{function}", *INPUTS]
        command += ["--output", "out.parquet@carol", "--folder", str(run), "--config", str(cluster), "--quiet"]
        return {p: subprocess.Popen([*command, "--as", p], stderr=subprocess.DEVNULL) for p in PARTIES}

    def blocks(party: str) -> dict[tuple[str, int], str]:
        """Of all passes."""
        journals = {str(f): f.read_text().splitlines(keepends=True) for f in (run / party).rglob("blocks-*.jsonl")}
        lines = [(name, json.loads(x)) for name, text in journals.items() for x in text if x.endswith("}\n")]
        assert len(lines) == len({(name, r["block"]) for name, r in lines}) or party in ran_ahead
        return {(name, r["block"]): r["sha256"] for name, r in lines}

    ran_ahead: set[str] = set()
    for _ in range(KILLS):
        processes = start()
        victim = str(rng.choice(PARTIES))
        target = len(blocks(victim)) + int(rng.integers(1, 5))
        end = time.monotonic() + LIMIT
        while len(blocks(victim)) < target and processes[victim].poll() is None:
            assert time.monotonic() < end
            time.sleep(0.002)
        if all(p.poll() is None for p in processes.values()):
            processes[victim].send_signal(signal.SIGKILL)
        statuses = {p: x.wait(LIMIT) for p, x in processes.items()}
        if set(statuses.values()) == {0}:
            break
        assert statuses[victim] in (-signal.SIGKILL, 3)
        counts = {p: set(blocks(p)) for p in PARTIES}
        common = set.intersection(*counts.values())
        ran_ahead |= {p for p in PARTIES if counts[p] != common}
    if not Path("out.parquet").exists():
        assert {p.wait(LIMIT) for p in start().values()} == {0}
    keep = data["x"] < data["y"]
    check_scores("out.parquet", data if function == "score" else {n: x[keep] for n, x in data.items()})


# Ray --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster_of_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.filterwarnings("default")  # Ray's own
def test_two_workers_on_ray_give_what_one_process_gives(data: Any, cluster_of_ray: Any) -> None:
    sources = {"x": "a.parquet:x@alice", "y": "b.parquet:y@bob"}

    def write(workers: int, engine: str, path: str) -> None:
        s = spu.stream(sources, rows_per_block=300, workers=workers, engine=engine)
        s.map(lambda x, y: {"p": x * y, "less": x < y}).to_parquet(path, "carol")

    write(1, "local", "one.parquet")
    write(2, "ray", "two.parquet")
    check_scores("one.parquet", data)
    check_scores("two.parquet", data)
    assert np.array_equal(pq.read_table("one.parquet")["less"], pq.read_table("two.parquet")["less"])


def test_each_party_has_a_ray_cluster_of_its_own(data: Any) -> None:
    arguments = ["f.py:score", *INPUTS, "--output", "out.parquet@carol", "--rows-per-block", "700"]
    assert spuvm(*arguments, "--network", "--workers", "2", "--engine", "ray", "--quiet") == 0
    check_scores("out.parquet", data)


def test_a_ray_cluster_that_does_not_answer(
    data: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_ports(1)[0]}")
    began = time.monotonic()
    arguments = ["f.py:score", *INPUTS, "--output", "out.parquet@carol", "--quiet"]
    assert spuvm(*arguments, "--workers", "2", "--engine", "ray") == 2
    assert "where no Ray cluster answers (Connection refused): start one" in capfd.readouterr().err
    assert time.monotonic() - began < 60
