"""Streams that go on where they stopped: after errors, kills and a full disk, and not on anything else."""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import streams
from streams import ROWS, START, Stop, finished, moments, run_until, stream, together

import spuvm as spu
from spuvm.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("preloaded")

data, rows = streams.data, streams.rows  # fixtures

LIMIT = 300.0
KILLS = 10
UNIT = 2.0**-18


@pytest.mark.parametrize("combine", [together, None])
def test_a_fold_goes_on(rows: spu.Stream, data: Any, monkeypatch: pytest.MonkeyPatch, combine: Any) -> None:
    start = START if combine else {"rows": jnp.int32(0), "xy": 0.0, "top": -100.0}
    with monkeypatch.context() as patch:
        seen = run_until(patch, 2, Stop())
        with pytest.raises(Stop):
            rows.fold(moments, start, combine, folder="run")
        assert seen == [0, 1]
    with monkeypatch.context() as patch:
        seen = run_until(patch, -1, Stop())
        shown = spu.reveal(rows.fold(moments, start, combine, folder="run"))
        assert seen == [2, 3]
    assert shown["rows"] == ROWS
    assert abs(shown["xy"] - np.dot(data["x"].astype(float), data["y"])) < 0.02
    assert not Path("run/simulated").exists()


@pytest.fixture
def begun(rows: spu.Stream, monkeypatch: pytest.MonkeyPatch) -> spu.Stream:
    """A run that stopped after two blocks, in the folder out.parquet.run."""
    out = rows.map(lambda x, y: {"p": x * y})
    with monkeypatch.context() as patch:
        run_until(patch, 2, Stop())
        with pytest.raises(Stop):
            out.to_parquet("out.parquet", "carol")
    return out


def touched() -> spu.Stream:
    os.utime("b.parquet")
    return stream()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: stream().map(lambda x, y: {"p": x * y + 1}), "the programs .* differ"),
        (lambda: stream(200).map(lambda x, y: {"p": x * y}), "the programs|the rows of a block"),
        (
            lambda: touched().map(lambda x, y: {"p": x * y}),
            r"the files differ \(y \(part 0\): modified_ns",
        ),
    ],
)
def test_a_folder_of_another_run(begun: spu.Stream, change: Callable[[], spu.Stream], words: str) -> None:
    before = {p: p.read_bytes() for p in Path("out.parquet.run/simulated").iterdir()}
    with pytest.raises(InputError, match=rf"belongs to another run: {words}"):
        change().to_parquet("out.parquet", "carol")
    assert before == {p: p.read_bytes() for p in Path("out.parquet.run/simulated").iterdir()}


def test_a_folder_of_something_else(rows: spu.Stream) -> None:
    Path("run/simulated").mkdir(parents=True)
    Path("run/simulated/thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"holds other files \(thesis.tex"):
        rows.to_parquet("out.parquet", "carol", folder="run")
    assert Path("run/simulated/thesis.tex").read_text() == "precious"


def test_a_finished_block_that_was_damaged(begun: spu.Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("out.parquet.run/simulated/block-000001.npz")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=r"block-000001.npz is damaged.*computed anew"):
        begun.to_parquet("out.parquet", "carol")
    assert not Path("out.parquet").exists()
    with monkeypatch.context() as patch:
        seen = run_until(patch, -1, Stop())
        begun.to_parquet("out.parquet", "carol")
    assert seen == [1]
    assert pq.read_table("out.parquet").num_rows == ROWS


def test_a_full_disk(begun: spu.Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"No space left on device.*make room and start the same command again"):
            begun.to_parquet("out.parquet", "carol")
    assert set(finished("out.parquet.run/simulated")) == {0, 1}
    begun.to_parquet("out.parquet", "carol")
    assert pq.read_table("out.parquet").num_rows == ROWS


SCRIPT = """
import sys
import spuvm as spu
from spuvm.streaming import folder as folders
from spuvm.streaming.job import Runner

plain = Runner._compute

def compute(self, ready, state):
    with open("log", "a") as file:
        file.write(f"{sys.argv[1]} {ready.block}\\n")
    return plain(self, ready, state)

Runner._compute = compute
s = spu.stream({"x": "a.parquet:x@alice", "y": "b.parquet:y@bob"}, rows_per_block=25)
s.map(lambda x, y: {"p": x * y, "q": x * y * y}).to_parquet("out.parquet", "carol", folder=sys.argv[2])
"""


def test_killed_at_any_moment_the_output_is_the_same_within_a_unit(rows: spu.Stream, data: Any) -> None:
    def start(name: str, folder: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", SCRIPT, name, folder])

    rng = np.random.default_rng(int.from_bytes(os.urandom(4)))
    done_before: dict[str, set[int]] = {}
    for kill in range(1, KILLS + 1):
        done_before[str(kill)] = before = set(finished_lines("run/simulated"))
        target = len(before) + int(rng.integers(1, 4))
        process = start(str(kill), "run")
        wait_for(functools.partial(reached, target, process))
        time.sleep(float(rng.uniform(0, 0.01)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if Path("out.parquet").exists():
            break
    done_before["last"] = set(finished_lines("run/simulated"))
    if not Path("out.parquet").exists():
        assert start("last", "run").wait(LIMIT) == 0
    output = pq.read_table("out.parquet")
    Path("out.parquet").unlink()
    assert start("whole", "whole").wait(LIMIT) == 0
    whole = pq.read_table("out.parquet")
    assert np.abs(output["p"].to_numpy() - whole["p"].to_numpy()).max() <= UNIT
    assert np.abs(output["q"].to_numpy() - whole["q"].to_numpy()).max() <= 5 * UNIT  # (x y + a unit) y, |y| <= 4
    ran = [line.split() for line in Path("log").read_text().splitlines()]
    again = [(name, block) for name, block in ran if int(block) in done_before.get(name, ())]
    assert again == []


def finished_lines(folder: str) -> list[int]:
    text = b"".join(p.read_bytes() for p in Path(folder).glob("blocks-*.jsonl"))
    return [json.loads(line)["block"] for line in text.splitlines(keepends=True) if line.endswith(b"}\n")]


def reached(target: int, process: subprocess.Popen[bytes]) -> bool:
    return len(finished_lines("run/simulated")) >= target or process.poll() is not None


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
