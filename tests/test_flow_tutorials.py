"""SecretFlow's marketing tutorial and its graph of components, rebuilt: costs ahead, those of a run, what it finds."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flows import EXAMPLE

import spuvm as spu
from spuvm.flow import run
from spuvm.flow.estimating import rehearse

PARTIES = ("alice", "bob", "carol")


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLE.with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def test_marketing(tmp_path: Path) -> None:
    made = example("marketing")
    flow, tables = made.marketing(trees=0, steps=5), made.tables(48)
    ahead = rehearse(flow, tables)
    ran = run(flow, state=tmp_path, tables=tables)
    for name, entry in ran.nodes.items():
        assert entry.spent.as_dict() == ahead.nodes[name].spent.as_dict(), name
    assert ran["linear"].numbers["auc"] > 0.7
    heads, rows = ran["correlation"].tables["correlation"]
    both = sorted(set(tables["alice"]["customers"]["uid"]) & set(tables["bob"]["calls"]["uid"]))
    age = dict(zip(tables["alice"]["customers"]["uid"], tables["alice"]["customers"]["age"]))
    campaign = dict(zip(tables["bob"]["calls"]["uid"], tables["bob"]["calls"]["campaign"]))
    want = np.corrcoef([age[i] for i in both], [campaign[i] for i in both])[0, 1]
    (found,) = [row[heads.index("campaign")] for row in rows if row[0] == "age"]
    assert abs(float(found) - want) < 0.01
    assert {r[1] for r in ahead.nodes["to_call"].spent.as_dict()["reveals"]} == {"alice"}  # her list is hers alone


def test_a_graph_of_components(tmp_path: Path) -> None:
    made = example("dag")
    flow, tables = made.dag(), made.tables(60)
    ahead = rehearse(flow, tables)
    ran = run(flow, state=tmp_path, tables=tables)
    assert {n for n, s in ran.states.items() if s == "done"} == set(flow.nodes)
    for name, entry in ran.nodes.items():
        assert entry.spent.as_dict() == ahead.nodes[name].spent.as_dict(), name
    assert ran["quality"].numbers["auc"] > 0.7
    finer = run(flow.set(**{"woe.n_bins": 4}), state=tmp_path, tables=tables)
    assert {n for n, s in finer.states.items() if s == "done"} == {
        *("woe", "woe_report", "substitution", "sgd", "weights", "biclassification")
    }
