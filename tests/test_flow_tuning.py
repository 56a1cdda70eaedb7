"""Searches over parameters of flows: every method finds the best, what they have in common runs once, secrets stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flows
import jax.numpy as jnp
import pytest
from flows import RAN, constant, failing, meeting

import spuvm as spu
from spuvm.flow import Flow, Range, tune
from spuvm.flow.kinds import Findings, Number, Predictions, Report
from spuvm.flow.page import tuning_page
from spuvm.flow.tuning import values_of
from spuvm.ml.machine import default_device
from spuvm.runtime.errors import ConfigError, InputError


@pytest.fixture(autouse=True)
def parties() -> Iterator[None]:
    RAN.clear()
    spu.init(parties=flows.PARTIES, address="local")
    yield
    spu.shutdown()


@spu.component(name="test_hill")
def hill(x: Number, *, a: float = 0.0, b: int = 1, work: int = 1) -> Findings:
    """Highest, 0, where a = x and b = 3."""
    return Report({"height": -((a - x) ** 2) - abs(b - 3) - 1 / work})


@spu.component(name="test_hidden")
def hidden(x: Number, *, a: float = 0.0) -> Predictions:
    """The same, as a secret."""
    return default_device()(lambda v: -((v - 2.0) ** 2))(spu.PYU("alice")(lambda: jnp.float32(a))())


def flow() -> Flow:
    return Flow("hill", top=hill(constant(value=2.0, tag="once"), name="hill"))


def test_a_grid_has_all_and_shares_what_is_the_same(tmp_path: Path) -> None:
    found = tune(flow(), {"hill.a": [1.0, 2.0, 3.0], "hill.b": [2, 3]}, "top.height", state=tmp_path)
    assert found.best is not None and found.best.parameters == {"hill.a": 2.0, "hill.b": 3}
    assert len(found.trials) == 6 and RAN == ["once"]
    heads, rows = found.table()
    assert heads == ("trial", "hill.a", "hill.b", "top.height", "state", "seconds") and rows[3][:4] == (4, 2.0, 3, -1.0)
    page = tuning_page("hill", found)
    assert "<polyline" in page and 'class="best"' in page
    least = tune(flow(), {"hill.a": [1.0, 2.0]}, "top.height", maximize=False, state=tmp_path)
    assert least.best is not None and least.best.parameters == {"hill.a": 1.0}


def test_searches_are_the_same_again_and_come_near(tmp_path: Path) -> None:
    space: dict[str, Any] = {"hill.a": Range(0.0, 4.0), "hill.b": Range(1, 5, whole=True)}
    for method, trials in (("random", 30), ("optuna", 30)):
        one, again = (tune(flow(), space, "top.height", method=method, trials=trials, state=tmp_path) for _ in range(2))
        assert [t.parameters for t in one.trials] == [t.parameters for t in again.trials]
        assert len(one.trials) == trials and one.best is not None and (one.best.score or -9) > -1.6, method
        assert all(0 <= t.parameters["hill.a"] <= 4 and t.parameters["hill.b"] in range(1, 6) for t in one.trials)


def test_halving_gives_more_to_the_best(tmp_path: Path) -> None:
    space: dict[str, Any] = {"hill.a": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "hill.b": [2, 3, 4]}
    found = tune(
        flow(), space, "top.height", method="halving", trials=9, resource=("hill.work", [1, 10, 100]), state=tmp_path
    )
    assert [t.parameters["hill.work"] for t in found.trials] == [1] * 9 + [10] * 3 + [100]
    assert found.best is found.trials[-1]


def test_trials_run_beside_each_other(tmp_path: Path) -> None:
    """Both begin before one ends; what they have in common runs once, here."""
    (tmp_path / "met").mkdir()
    top = meeting(constant(value=1.0, tag="once"), name="m", number=0, of=2, folder=str(tmp_path / "met"))
    found = tune(Flow("met", top=top), {"m.number": [3, 13]}, "top.number", workers=2, state=tmp_path / "state")
    assert RAN == ["once"] and [t.state for t in found.trials] == ["done", "failed"]
    assert [t.score for t in found.trials] == [4.0, None] and found.best is found.trials[0]
    assert "an unlucky number" in found.trials[1].why
    again = tune(Flow("met", top=top), {"m.number": [3]}, "top.number", state=tmp_path / "state")
    assert again.best is not None and again.best.score == 4.0


def test_a_search_ends_where_nothing_gets_better(tmp_path: Path) -> None:
    values = [2.0, 3.0, 4.0, 5.0, 6.0]
    found = tune(flow(), {"hill.a": values}, "top.height", patience=2, state=tmp_path)
    assert len(found.trials) == 3 and found.best is found.trials[0]
    short = tune(flow(), {"hill.a": values}, "top.height", seconds=1e-9, state=tmp_path)
    assert len(short.trials) == 1


def test_of_secret_scores_only_the_best_is_shown(tmp_path: Path) -> None:
    secret = Flow("hidden", top=hidden(constant(value=0.0), name="hidden"))
    found = tune(secret, {"hidden.a": [0.0, 1.5, 4.0]}, "top", reveal="best", state=tmp_path)
    assert found.best is found.trials[1] and found.best.score == pytest.approx(-0.25, abs=1e-4)
    assert [t.score for t in found.trials if t is not found.best] == [None, None] and found.plot() == ""


def test_what_cannot_be_searched(tmp_path: Path) -> None:
    for more, says in (
        ({"method": "gird"}, "`method` must be one of"),
        ({"score": "tip"}, "names output `tip`: the flow has top"),
        ({"score": "top.hight"}, "no number of the report: there are top.height"),
        ({"space": {"hill.c": [1]}}, "no parameter `c`"),
        ({"space": {"hill.b": [1.5]}}, "must be a whole number"),
        ({"space": {"hill.a": Range(0, 1)}}, "a grid needs values"),
        ({"method": "optuna", "reveal": "best"}, "scores that stay secret guide"),
        ({"reveal": "best"}, "is public"),
        ({"method": "halving"}, "needs `resource`"),
        ({"workers": 0}, "`workers` must be a whole number from 1"),
        ({"engine": "rya"}, "`engine` must be one of local, ray"),
        ({"name": "x"}, "`name` is of one run"),
    ):
        given: dict[str, Any] = {"space": {"hill.a": [1.0]}, "score": "top.height", "state": tmp_path, **more}
        with pytest.raises(ConfigError, match=says):
            tune(flow(), **given)
    bad = Flow("bad", top=failing(constant(value=1.0), name="bad"))
    with pytest.raises(InputError, match="no trial of 2 came to its end: node `bad`"):
        tune(bad, {"bad.message": ["one", "two"]}, "top", state=tmp_path)


def test_spaces_on_the_command_line() -> None:
    assert values_of("a.b=1,2") == ("a.b", [1, 2]) and values_of('a.b="x","y"') == ("a.b", ["x", "y"])
    assert values_of("a.b=0.01..0.3 log") == ("a.b", Range(0.01, 0.3, log=True))
    assert values_of("a.b=1..9") == ("a.b", Range(1, 9, whole=True))
    for wrong in ("a.b", "a.b=x", "a.b=3..1", "a.b=0..1 log"):
        with pytest.raises(ConfigError):
            values_of(wrong)
