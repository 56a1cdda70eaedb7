"""SecretFlow's marketing tutorial and its graph of components, rebuilt: costs ahead, those of a run, what it finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from flow_cases import parties
from flows import example

from spuvm.flow import run
from spuvm.flow.estimating import rehearse

__all__ = ["parties"]


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
