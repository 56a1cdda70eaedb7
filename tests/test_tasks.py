"""Tasks beside programs: what their texts say, what is wrong with them, and three services that run all kinds."""

from __future__ import annotations

import importlib.util
import random
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from spuvm.policy.rules import Decision, decide, load_rules
from spuvm.runtime.errors import InputError
from spuvm.service import jobs, work
from spuvm.service.jobs import Source

FILE = Path(__file__).parent.parent / "benchmarks" / "soak.py"


@pytest.fixture(scope="module")
def soak() -> Any:
    spec = importlib.util.spec_from_file_location("soak", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RULE = '[[allow]]\nfrom = ["alice"]\nprograms = ["any"]\nreceivers = ["alice", "carol"]\ndata = { t = %s }\n'


def decided(
    tmp_path: Path, text: str, columns: tuple[str, ...], allowed: str, rule: str = RULE, by: str = ""
) -> Decision:
    """What bob decides about a job of alice with this text, where his policy allows these columns."""
    (tmp_path / "policy.toml").write_text(rule % allowed)
    work = jobs.read(text)
    inputs = {name: Source(owner, "t", columns) for name, owner in work.owners.items()}
    job = replace(jobs.make("alice", text, inputs), note=by)
    asked = jobs.asked(job, jobs.check(job), "bob", lambda name: 60)
    return decide(load_rules(tmp_path / "policy.toml"), asked, date(2026, 1, 1), {})


@pytest.mark.parametrize(
    ("kind", "columns", "allowed", "state"),
    [
        ("psi", ("id",), '["id"]', "ask"),
        ("psi", ("name",), '["name"]', "refused"),  # the text says `id`, whatever the job claims
        ("sql", ("v",), '["v"]', "refused"),  # a query takes the table
        ("sql", (), '["*"]', "ask"),
        ("sgb", ("id",), '["id"]', "refused"),
        ("stream", ("y",), '["*"]', "refused"),  # code, and its hash is not named
    ],
)
def test_what_tasks_take_is_what_their_text_says(
    soak: Any, tmp_path: Path, kind: str, columns: tuple[str, ...], allowed: str, state: str
) -> None:
    assert decided(tmp_path, soak.TASKS[kind], columns, allowed).state == state


def test_code_is_allowed_by_its_hash_alone(soak: Any, tmp_path: Path) -> None:
    text = soak.TASKS["stream"]
    rule = RULE.replace('["any"]', f'["any", "{jobs.read(text).hash}"]')
    assert decided(tmp_path, text, ("y",), '["y"]', rule).state == "ask"
    assert "by its hash" in decided(tmp_path, text + "# more\n", ("y",), '["y"]', rule).reasons[0]


def test_rows_are_no_aggregates(soak: Any, tmp_path: Path) -> None:
    rule = RULE + "min_rows = 2\n"
    assert "rows are shown" in decided(tmp_path, soak.TASKS["psi"], ("id",), '["id"]', rule).reasons[0]


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("psi", ("psi", "dance"), "no kind 'dance'"),
        ("psi", ('kind = "psi"', 'kind = "stream"'), "no kind 'stream'"),
        ("psi", ('"carol"]', '"carol", "-x"]'), "name has 1 to 63"),
        ("psi", ('"carol"]', '"bob"]'), "different names"),
        ("psi", ("[job]", "[other]"), "a table \\[job\\]"),
        ("psi", ("[job]", "job"), "neither a program"),
        ("psi", ('to = ["alice"]', 'to = ["dave"]'), "names dave"),
        ("psi", ('bob = ["id"]', 'bob = ["id@carol"]'), "without `,`"),
        ("psi", (', bob = ["id"]', ""), "two parties or more"),
        ("psi", ('bob = ["id"]', 'dave = ["id"]'), "is of dave"),
        ("sql", ('to = ["carol"]', 'to = ["carol", "alice"]'), "one party"),
        ("sql", ("select", "\\u001b[2Jselect"), "must be a text"),
        ("sgb", ('model = "m"', 'model = "../m"'), "letters, digits"),
        ("sgb", ('"train"', '"predict"'), "gets predictions"),
        ("sgb", ('"train"', '"wash"'), "one of train, predict"),
        ("stream", ('"stream"', '"psi"'), "no kind 'psi'"),
        ("stream", ('"added"', '"added:x"'), "letters, digits"),
        ("stream", ("# ///\n\n", "# ///\n# /// spuvm\n# kind = 1\n# ///\n"), "got several"),
        ("script", ("# inputs", "# inpts"), "unknown key"),
    ],
)
def test_texts_that_are_no_tasks(soak: Any, kind: str, change: tuple[str, str], message: str) -> None:
    text = soak.TASKS[kind].replace(*change, 1)
    assert text != soak.TASKS[kind]
    with pytest.raises(InputError, match=message):
        jobs.read(text)


@pytest.mark.usefixtures("preloaded")
def test_three_services_run_all_kinds_while_they_are_killed(soak: Any, tmp_path: Path) -> None:
    """A short form of `make soak`."""
    random.seed(5)
    given = "--jobs=3 --parallel=3 --every=6 --kinds=program,psi --seconds=150"
    assert soak.soak(tmp_path, soak.arguments(*given.split())) == []


def test_texts_stay_read_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers send them: a few that are as long as may be must not fill a service's memory."""
    seen: list[Any] = []

    def reads(text: Any) -> Any:
        seen.append(text)
        return text

    read = work.remembered(reads)
    monkeypatch.setattr(work, "KEPT_CHARACTERS", 10)
    given: list[Any] = ["aaaa", "bbbb", "aaaa", "cccc", "aaaa"]
    assert [read(text) for text in given] == given
    assert seen == ["aaaa", "bbbb", "cccc"], "the newest stay"
    read("bbbb")
    read("d" * 20)
    read("d" * 20)
    assert seen[3:] == ["bbbb", "d" * 20], "one stays, however long"
