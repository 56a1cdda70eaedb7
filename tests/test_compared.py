"""`spuvm protocols`: what it says is what a run counts, and the page names every protocol."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from spuvm.bench import protocols
from spuvm.bench.operations import Sizes
from spuvm.commands import cli
from spuvm.marking import jit
from spuvm.runtime.protocols.registered import PROTOCOLS

SMALL = ["--size", "100", "--matrix", "4", "--sort-size", "16"]


def test_rows_are_the_programs_costs() -> None:
    (row,) = [r for r in protocols.rows(("multiply",), Sizes(100)) if r.protocol == "aby3"]
    x = np.ones(100, np.float32)
    cost = jit(lambda a, b: a * b).cost(x, x)
    assert (row.rounds, row.bytes_sent) == (cost.rounds, cost.bytes_sent.sum())
    lan, wan = row.seconds
    assert lan == pytest.approx(cost.rounds * 1e-3 + 8e-9 * cost.bytes_sent.max())
    assert wan == pytest.approx(cost.rounds * 25e-3 + 8e-8 * cost.bytes_sent.max())


def test_the_command(tmp_path: Path) -> None:
    page = tmp_path / "protocols.md"
    done = CliRunner().invoke(cli, ["protocols", "--ops", "less", *SMALL, "--json", "--markdown", str(page)])
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)
    assert {t["protocol"] for t in said["protocols"]} == set(PROTOCOLS)
    assert [(r["what"], r["protocol"]) for r in said["costs"]] == [
        ("less", p) for p in ("aby3", "aby3_malicious", "rep4", "semi2k", "semi2k_ot")
    ]
    text = page.read_text()
    assert all(f"| `{p}` |" in text for p in PROTOCOLS)
    assert "UNSAFE" in text
    wrong = CliRunner().invoke(cli, ["protocols", "--ops", "fly"])
    assert wrong.exit_code == 2
    assert "unknown: fly" in wrong.output


def test_the_page_is_the_commands(tmp_path: Path) -> None:
    """Its first operation, made anew."""
    page = Path(__file__).parent.parent / "docs" / "protocols.md"
    made = protocols.markdown(list(protocols.rows(("multiply",))), Sizes())
    lines = page.read_text().splitlines()
    assert [line for line in made.splitlines() if line not in lines] == []
