"""Read, match, split, bin, boost, evaluate, score card over three parties: costs ahead, killed at each node, kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flows
import pytest

import spuvm as spu
from spuvm.flow import run
from spuvm.flow.estimating import rehearse, table
from spuvm.flow.page import page
from spuvm.flow.records import NodeRun


@pytest.fixture(autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=flows.PARTIES, address="local")
    yield
    spu.shutdown()


class Killed(BaseException):
    """As a signal ends a process."""


def test_the_credit_flow(tmp_path: Path) -> None:
    flow, tables = flows.credit(trees=1), flows.credit_tables(60)
    ahead = rehearse(flow, tables)
    heads, rows = table(ahead.nodes, flow)
    assert heads[3] == "rounds" and len(rows) == len(flow)
    reached: list[str] = []
    made = None
    while made is None:  # killed as each node begins, and resumed
        began = False

        def told(name: str, entry: NodeRun) -> None:
            nonlocal began
            if entry.state == "running":
                if began:
                    raise Killed
                began = True
                reached.append(name)

        try:
            made = run(flow, name="credit", resume=bool(reached), state=tmp_path, tables=tables, workers=1, told=told)
        except Killed:
            continue
    assert sorted(reached) == sorted(flow.nodes)  # each ran once
    assert 0.5 < made["quality"].numbers["auc"] <= 1
    heads, points = made["points"].tables["points"]
    assert heads == ("column", "bin", "points") and len(points) == 1 + 4 * 3
    again = run(flow, state=tmp_path, tables=tables)
    assert set(again.states.values()) == {"cached"} and again["quality"] == made["quality"]
    for name in flow.nodes:  # what was said ahead is what it cost and showed
        known = made_spent(tmp_path, again.nodes[name].key)
        assert known == _json(ahead.nodes[name].spent.as_dict()), name
    text = page([again.recorded()], tmp_path / "carol")
    assert "boost" in text and "points" in text


def made_spent(state: Path, key: str) -> Any:
    from spuvm.flow.checkpoints import Checkpoints

    return Checkpoints(state / "alice" / "nodes").known(key)["spent"]


def _json(x: Any) -> Any:
    import json

    return json.loads(json.dumps(x))
