"""Where a run's time went: all of it is accounted for, and waiting is not computing."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.compiler.compile import compile_function
from spuvm.profiling import WAITING, Profile, merged, read, rows
from spuvm.runtime.config import Config
from spuvm.runtime.errors import InputError
from spuvm.runtime.machine.program import Round, Task
from spuvm.runtime.machine.session import Session
from spuvm.vm import VM


def task(op: str) -> Task:
    return Task({}, (), (), (), None, (), {}, op=op, location=f"{op}.py:1")


def test_time_is_accounted_for_once() -> None:
    waited = 0.0
    profile = Profile("alice")
    profile.begin(lambda: waited)
    start = time.perf_counter()
    time.sleep(0.05)
    waited += 0.03
    profile.did_run(task("mul"))
    profile.did_run(task("add"))  # in the same pass
    time.sleep(0.02)
    profile.did_run(task("less"))
    time.sleep(0.04)
    waited += 0.04
    profile.did_exchange(Round())
    spent = time.perf_counter() - start
    events = profile.events()
    names = ("mul", "add", "less", WAITING)
    seconds = {name: sum(e["dur"] for e in events if e["name"] == name) / 1e6 for name in names}
    assert sum(seconds.values()) == pytest.approx(spent, abs=0.005)
    assert seconds[WAITING] == pytest.approx(0.07, abs=1e-6)
    assert seconds["mul"] == pytest.approx(seconds["add"], abs=1e-6)
    assert seconds["mul"] == pytest.approx(0.01, abs=0.008)
    ends = [(e["ts"], e["ts"] + e["dur"]) for e in events]
    assert all(a[1] <= b[0] + 1 for a, b in itertools.pairwise(ends))  # nothing overlaps


def total(x: Any, y: Any) -> Any:
    return spu.reveal(jnp.sum(x * y), to="alice")


def test_rows_have_what_the_program_counts(tmp_path: Path) -> None:
    x = np.ones(50, np.float32)
    config = Config("aby3", 64, 18, ("alice", "bob", "carol"))
    program = compile_function(total, (x, x), [0, 1], config)
    profile = Profile("alice")
    profile.begin(lambda: 0.0)
    VM(Session(config, listener=profile)).run(program, [x, x])
    profile.write(tmp_path / "a.json")
    found = rows(read(tmp_path / "a.json"), program.cost, "alice")
    counted = {(r.op, r.location): int(r.bytes[0]) for r in program.cost.rows}
    shown = {(r["operation"], r["line"]): r["bytes"] for r in found if r["bytes"]}
    assert shown  # in a simulation some operations run together with others, under both names
    assert shown.items() <= counted.items()
    trace = json.loads(merged([read(tmp_path / "a.json")] * 2))["traceEvents"]
    assert min(e["ts"] for e in trace if e["ph"] == "X") == 0
    assert [e["args"]["name"] for e in trace if e["ph"] == "M"] == ["alice"]
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "b.json")
