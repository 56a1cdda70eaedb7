"""Flows: what owners grant, files, pictures and pages, components by name, commands."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import flows
import pytest
from flow_cases import parties, small
from flows import PARTIES, added, constant, reported

from spuvm.flow import Flow, NodeFailed, find, grants, known, run
from spuvm.flow import files as flow_files
from spuvm.flow.differences import difference, other_data
from spuvm.flow.drawing import svg
from spuvm.flow.files import to_toml
from spuvm.flow.grants import Grant, NotGranted
from spuvm.flow.records import names, read, versions
from spuvm.runtime.errors import ConfigError, InputError

__all__ = ["parties"]
TODAY = date.today()


# Grants -------------------------------------------------------------------------------------------------


def reading() -> Flow:
    rows = find("read")(party="bob", table="bills", columns=["id", "debt"], name="bills")
    return Flow("g", out=find("filter")(rows, where="debt > 0", name="some"))


TABLES = {"bob": {"bills": {"id": [1, 2, 3], "debt": [0.5, -1.5, 2.0], "name": ["x", "y", "z"]}}}


@pytest.mark.parametrize(
    ("change", "node", "why"),
    [
        ({}, None, ""),
        ({"flow": "any"}, None, ""),
        ({"flow": "0" * 64}, "bills", "is for another flow"),
        ({"tables": {"bills": ("id",)}}, "bills", "does not allow column `debt` of `bills`"),
        ({"tables": {}}, "bills", "does not name table `bills`"),
        ({"uses": ("read",)}, "some", "does not allow `filter`"),
        ({"until": TODAY - timedelta(days=2)}, "bills", f"ended on {TODAY - timedelta(days=2)}"),
    ],
)
def test_a_node_that_asks_for_more_stops(tmp_path: Path, change: dict[str, Any], node: str | None, why: str) -> None:
    flow = reading()
    least = grants.asked(flow, "bob", TODAY)
    assert least == Grant(flow.hash, {"bills": ("id", "debt")}, ("read", "filter"), TODAY)
    given = {"bob": [Grant(**{**least.__dict__, **change})]}
    if node is None:
        assert run(flow, state=tmp_path, tables=TABLES, grants=given)["out"].value.num_rows == 2
        return
    with pytest.raises(NotGranted, match=f"node `{node}` of flow `g` stops: the grant of bob {why}"):
        run(flow, state=tmp_path, tables=TABLES, grants=given, name="try")
    assert read(tmp_path / "alice", "try").state == "stopped"
    assert run(flow, state=tmp_path, tables=TABLES, grants={"bob": [least]}, name="try", resume=True)["out"]


def test_grants_are_files(tmp_path: Path) -> None:
    least = grants.asked(reading(), "bob", TODAY)
    (tmp_path / "g.toml").write_text(grants.to_toml([least]))
    assert grants.load(tmp_path / "g.toml") == (least,)
    with pytest.raises(NotGranted, match="the grant of bob is not there"):
        run(reading(), state=tmp_path, tables=TABLES, grants={})


def test_a_changed_flow_has_another_hash() -> None:
    assert small().hash == small().hash != small().set(**{"d.width": 2.5}).hash
    assert len(read_hashes()) == 4


def read_hashes() -> set[str]:
    a, b = constant(value=1.0, name="a"), constant(value=1.0, name="b")
    flows_ = [Flow("x", out=added(a, b)), Flow("x", out=added(b, a)), Flow("y", out=added(a, b))]
    return {f.hash for f in (*flows_, Flow("x", parties=PARTIES, out=added(a, b)))}


# Files, pictures, records -------------------------------------------------------------------------------


def test_toml_and_back(tmp_path: Path) -> None:
    flow = flows.credit()
    (tmp_path / "f.toml").write_text(to_toml(flow))
    assert Flow.load(tmp_path / "f.toml").hash == flow.hash == flow_files.load(tmp_path / "f.toml").hash


def test_what_changed_is_said(tmp_path: Path) -> None:
    a, b = small(), small().set(**{"d.width": 5.0})
    lines = difference(json.loads(a.text), json.loads(b.text))
    assert lines == ["  d: width 2.0 -> 5.0", "  runs anew, as it follows: e, f"]
    c = Flow("small", high=constant(value=2.0, name="a"))
    lines = difference(json.loads(a.text), json.loads(c.text))
    assert "- b (test_constant)" in lines and "  a: tag 'a' -> ''" in lines
    run(a, state=tmp_path)
    run(b, state=tmp_path)
    assert names(tmp_path / "bob") == ["small-1", "small-2"]
    assert versions(tmp_path / "bob") == {a.hash: ["small-1"], b.hash: ["small-2"]}


def test_pictures_have_all_nodes_and_edges(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    made = run(small(), state=tmp_path)
    for picture in (svg(small()), svg(small(), made.nodes), svg(flows.credit())):
        tree = ElementTree.fromstring(picture)
        boxes = tree.findall(".//{http://www.w3.org/2000/svg}rect")
        flow = flows.credit() if len(boxes) > 6 else small()
        assert len(boxes) == len(flow)
        corners = [(float(r.attrib["x"]), float(r.attrib["y"])) for r in boxes]
        apart = [
            (abs(a[0] - b[0]) >= 196 or abs(a[1] - b[1]) >= 62) for i, a in enumerate(corners) for b in corners[:i]
        ]
        assert all(apart)
        lines = tree.findall(".//{http://www.w3.org/2000/svg}path[@stroke]")
        assert len(lines) == sum(len(n.before) for n in flow.nodes.values())


def test_a_page_says_it_all_and_asks_nobody(tmp_path: Path) -> None:
    from spuvm.flow.page import page

    flow = Flow("a <b> & c", found=reported(constant(value=0.75)))
    one = run(flow, state=tmp_path)
    two = run(flow.set(**{"test_constant.value": 0.5}), state=tmp_path)
    text = page([one.recorded()], tmp_path / "alice")
    assert "<b>" not in text.replace("<b>0.75</b>", "") and "a &lt;b&gt; &amp; c" in text
    assert "0.75" in text and ">one</td>" in text and "<polyline" in text and "src=" not in text and "href" not in text
    assert "script" not in text.lower()
    both_ = page([one.recorded(), two.recorded()], tmp_path / "alice")
    assert "value 0.75 -&gt; 0.5" in both_ and both_.count("<polyline") == 2


def test_components_are_listed_and_described() -> None:
    every = known()
    assert {
        "read",
        "match",
        "split",
        "bin",
        "woe",
        "sgb",
        "logistic_regression",
        "evaluate",
        "score_card",
    } <= every.keys()
    for c in every.values():
        assert c.help and c.outputs, c.name
        assert all(p.want for p in c.parameters), c.name
    assert find("sgb").checked({"label": "y"})["max_depth"] == 6
    with pytest.raises(ConfigError, match="`max_depth` of component `sgb` must be 1 to 10, got 11"):
        find("sgb").checked({"label": "y", "max_depth": 11})


JOB = """
[job]
kind = "flow"
parties = ["alice", "bob", "carol"]
tables = { loans = "alice", bills = "bob" }
[flow]
name = "joint"
[flow.nodes.loans]
component = "read"
party = "alice"
table = "loans"
[flow.nodes.bills]
component = "read"
party = "bob"
table = "bills"
[flow.nodes.rows]
component = "match"
tables = ["loans", "bills"]
key = "id"
[flow.nodes.shown]
component = "describe"
data = "rows"
"""


def test_services_run_flows(tmp_path: Path) -> None:
    """A job's text is the flow's file; what a service runs of it is a command that it gives here."""
    from spuvm.cli import run as command
    from spuvm.service.tasks import of_task
    from spuvm.service.work import Place

    work = of_task(JOB)
    assert work.owners == {"loans": "alice", "bills": "bob"} and [r.to for r in work.reveals] == ["all"]
    place = Place("alice", tmp_path, tmp_path / "c.toml", tmp_path / "models", None, {"loans": tmp_path / "l"}, {}, {})
    line = work.command(place)
    assert line[:3] == ["flow", "run", str(tmp_path / "flow.toml")] and f"loans={tmp_path / 'l'}" in line
    assert len(Flow.load(tmp_path / "flow.toml")) == 4
    assert command(["flow", "check", line[2]]) == 0
    with pytest.raises(InputError, match=r"a table \[flow\]"):
        of_task(JOB.partition("[flow]")[0])


def test_secretflows_components_have_ours() -> None:
    text = (flows.EXAMPLE.parents[2] / "docs" / "coming-from.md").read_text()
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `") and "/" in line.split("|")[1]]
    assert len(rows) >= 50
    for theirs, ours in rows:
        for name in re.findall("`([a-z_0-9]+)`", ours):
            assert find(name), theirs


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from spuvm.cli import run as command

    state = ["--state", str(tmp_path / "state")]
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(to_toml(small()))
    two.write_text(to_toml(small().set(**{"d.width": 5.0})))
    (tmp_path / "g.toml").write_text(to_toml(reading()))

    def said(*arguments: str | Path, status: int = 0) -> str:
        capsys.readouterr()
        assert command([str(a) for a in arguments]) == status
        out = capsys.readouterr()
        return out.out + out.err

    assert "6 nodes, hash" in said("flow", "check", one)
    assert "high = 10" in said("flow", "run", one, *state, "--report", tmp_path / "run.html", "--run", "first")
    assert (tmp_path / "run.html").stat().st_size > 3000
    assert "6 cached" in said("flow", "run", one, *state, "--quiet")
    assert "run `first` already" in said("flow", "run", one, *state, "--run", "first", status=2)
    assert "high = 13" in said("flow", "run", one, *state, "--set", "d.width=5.0", "--run", "second")
    assert "first  done" in said("flow", "show", "runs", *state)
    shown = said("flow", "show", "second", *state, "--svg", tmp_path / "a.svg", "--report", tmp_path / "b.html")
    assert "run second: done" in shown and (tmp_path / "a.svg").exists()
    assert "width 2.0 -> 5.0" in said("flow", "diff", one, two)
    assert "width 2.0 -> 5.0" in said("flow", "diff", "first", "second", *state)
    assert "same flow and the same data" in said("flow", "diff", "first", "first", *state)
    made = read(next((tmp_path / "state").glob("*/runs")).parent, "first")
    changed = {n: replace(r, key=f"other {r.key}") for n, r in made.nodes.items()}
    lines = other_data(made, replace(made, nodes=changed))
    assert any("its table holds other data" in line for line in lines) and "runs anew" in lines[-1]
    assert "the two flows are the same" in said("flow", "diff", one, one)
    assert "width 2.0 -> 3.0" in said("flow", "diff", one, one, "--set", "d.width=3.0")
    assert "is a run" in said("flow", "diff", one, "first", "--set", "d.width=3.0", *state, status=2)
    assert said("flow", "check", one, "--set", "d.width=5.0") == said("flow", "check", two)
    past = said("flow", "approve", tmp_path / "g.toml", "--as", "bob", "--until", "2020-01-31", status=2)
    assert "2020-01-31 is past" in past
    grants = said("flow", "run", one, *state, "--grants", tmp_path / "g.toml", status=2)
    assert "say whose by `--as`" in grants
    assert 'uses = ["read", "filter"]' in said("flow", "approve", tmp_path / "g.toml", "--as", "bob")
    space: tuple[str | Path, ...] = (
        "--space",
        "d.width=1.0,7.0",
        "--score",
        "high",
        *state,
        "--report",
        tmp_path / "tune.html",
    )
    assert "best: trial 2, high = 15" in said("flow", "tune", one, *space)
    assert "did you mean `test_both`" in said("component", "show", "test_bot", status=2)
    assert "input   x: number" in said("component", "show", "test_both")
    assert "test_constant = 2" in said("component", "run", "test_constant", "--set", "value=2.0", *state)
    assert "must be like" in said("flow", "tune", one, "--space", "d.width=x", "--score", "high", status=2)
    assert "--config" in said("flow", "run", one, "--as", "bob", status=2)


def test_expressions_read_nothing_but_a_rows_columns(tmp_path: Path) -> None:
    rows = find("read")(party="bob", table="bills")
    for where, says in (
        ("debt > (select 1)", "reads more than"),
        ("exists (select * from read_csv('/etc/passwd'))", "reads more than"),
        ("sum(debt) > 1", "reads more than"),
        ("debt >", "is no expression"),
        ("dept > 1", "does not fit this party's table: .*dept"),
        ("cast(name as int) > 1", r"fails on a row of this party's table .Conversion."),
        ("len(read_text('/etc/passwd').content) > 0", "does not fit|reads more|is no expression"),
    ):
        with pytest.raises(NodeFailed, match=says) as error:
            run(Flow("x", out=find("filter")(rows, where=where)), state=tmp_path, tables=TABLES)
        assert "root:" not in str(error.value) and "'x'" not in str(error.value)
    kept = find("derive")(rows, columns={"twice": "debt * 2", "name": "upper(name)"})
    table = run(Flow("y", out=kept), state=tmp_path, tables=TABLES)["out"].value
    assert table["twice"].to_pylist() == [1.0, -3.0, 4.0] and table["name"].to_pylist() == ["X", "Y", "Z"]
    with pytest.raises(InputError, match="there is no run `nope`"):
        run(Flow("y", out=kept), state=tmp_path, tables=TABLES, name="nope", resume=True)
