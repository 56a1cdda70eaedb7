"""What stays in memory of compiled stages: what was used last, at most so many."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import spuvm as spu
from spuvm.compiler.cache.recent import Recent
from spuvm.compiler.project import executables
from spuvm.runtime.engine import tier
from spuvm.runtime.errors import ConfigError


def test_what_was_not_used_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPUVM_STAGES_IN_MEMORY", "2")
    kept: Recent[str, int] = Recent()
    for number, key in enumerate("ab"):
        kept.keep(key, number)
    assert kept.use("a") == 0
    kept.keep("c", 2)
    assert dict(kept) == {"a": 0, "c": 2} and kept.use("b") is None


@pytest.mark.parametrize("given", ["0", "-1", "many"])
def test_a_limit_that_is_none_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPUVM_STAGES_IN_MEMORY", given)
    with pytest.raises(ConfigError, match="`SPUVM_STAGES_IN_MEMORY` must be a number of stages, at least 1, got"):
        Recent[str, int]().keep("a", 1)


def test_a_program_runs_in_less_memory_than_it_has_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """By XLA, with room for one stage: each is loaded again when its turn comes."""
    monkeypatch.setenv("SPUVM_STAGES_IN_MEMORY", "1")
    monkeypatch.setattr(executables, "_LOADED", Recent())
    x = np.linspace(-1, 1, 7).astype(np.float32)
    with tier.use("xla"):
        product = spu.jit(lambda a, b: a * b - b)
        for _ in range(2):
            np.testing.assert_allclose(spu.reveal(product(x, x)), x * x - x, atol=1e-4)
    assert len(executables._LOADED) == 1


def test_many_small_programs_leave_little_behind() -> None:
    """A sample of benchmarks/many_programs.py: a thousand may take 200 MB."""
    script = Path(__file__).parents[1] / "benchmarks" / "many_programs.py"
    out = subprocess.run(
        [sys.executable, script, "--count", "40"], capture_output=True, text=True, timeout=300, check=True
    )
    grown = [float(n) for n in re.findall(r"([+-][\d.]+) MB", out.stdout)]
    assert len(grown) == 2 and max(grown) < 36 * 0.2 + 8, out.stdout  # and what is loaded late, once
