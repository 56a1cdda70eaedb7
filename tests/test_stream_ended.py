"""A party of a stream that is ended when the others have all: run again, nothing is left, and nothing is computed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import test_stream_attempts
from streams import Stop
from test_stream_attempts import BLOCK, PRODUCT, bring, meet, product

from spuvm.runtime.errors import InputError, LinkError, PeerMismatchError
from spuvm.streaming import finished
from spuvm.streaming.block import Fold, Step, WriteRows
from spuvm.streaming.folder import Folder
from spuvm.streaming.job import Runner
from spuvm.streaming.plan import Plan
from spuvm.streaming.run import fold, write

data = test_stream_attempts.data  # a fixture
FILTERED = (Step("filter", lambda x, y: x * y > 1, "count"), *PRODUCT)
OUTPUT = Path("out.parquet")


def once(plan: Plan) -> None:
    write(plan, WriteRows("carol"), OUTPUT, Path("run"), False)


def ended(monkeypatch: pytest.MonkeyPatch, run: Any, steps: Any, left: int = 0) -> None:
    """Bob is ended when all have agreed that they are done: of what he keeps, `left` files are gone already."""
    plain = Folder.remove

    def remove(self: Folder) -> None:
        if self.path.name != "bob":
            return plain(self)
        for path in sorted(self.path.glob("b*"))[:left]:
            path.unlink()
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "remove", remove)
        first = meet(run, steps=steps)
    assert isinstance(first[1], Stop)
    assert not any(isinstance(x, Exception) for x in (first[0], first[2]))
    assert Path("run/bob/manifest.json").exists()


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks that are computed."""
    seen: list[int] = []
    plain = Runner._compute

    def compute(self: Runner, ready: Any, state: Any) -> Any:
        seen.append(ready.block)
        return plain(self, ready, state)

    monkeypatch.setattr(Runner, "_compute", compute)
    return seen


@pytest.mark.parametrize(("steps", "left"), [(PRODUCT, 0), (PRODUCT, 2), (FILTERED, 0)])
def test_run_again_it_is_done(monkeypatch: pytest.MonkeyPatch, computed: list[int], steps: Any, left: int) -> None:
    ended(monkeypatch, once, steps, left)
    content = OUTPUT.read_bytes(), OUTPUT.stat().st_mtime_ns
    computed.clear()
    for _ in range(2):  # the second time nobody has left anything
        assert meet(once, steps=steps) == [None] * 3
        assert not Path("run").exists()
        assert (OUTPUT.read_bytes(), OUTPUT.stat().st_mtime_ns) == content
    assert computed == []
    assert np.abs(pq.read_table(OUTPUT)["p"].to_numpy() - 3.25).max() < 1e-5


def other_rows() -> None:
    bring(2.0)
    Path("b.npy").touch()


def other_content() -> None:
    OUTPUT.write_bytes(OUTPUT.read_bytes()[:-1] + b"!")


def by_somebody_else() -> None:
    table = pq.read_table(OUTPUT)
    OUTPUT.unlink()
    pq.write_table(table, OUTPUT)


@pytest.mark.parametrize("change", [other_rows, other_content, by_somebody_else])
def test_what_is_not_its_own_is_refused(monkeypatch: pytest.MonkeyPatch, computed: list[int], change: Any) -> None:
    ended(monkeypatch, once, PRODUCT)
    computed.clear()
    change()
    content = OUTPUT.read_bytes()
    errors = meet(once, steps=PRODUCT)
    assert "out.parquet is there already" in str(errors[2])
    assert all(isinstance(e, InputError | LinkError) for e in errors)
    assert OUTPUT.read_bytes() == content
    assert computed == []


def test_another_program_is_not_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    ended(monkeypatch, once, PRODUCT)
    assert "is there already" in str(meet(once, steps=(Step("map", lambda x, y: {"p": x + y}),))[2])


def test_with_force_it_begins_anew_unless_somebody_has_to_clean_up(
    monkeypatch: pytest.MonkeyPatch, computed: list[int]
) -> None:
    ended(monkeypatch, product, PRODUCT)
    computed.clear()
    assert meet(product, steps=PRODUCT) == [None] * 3
    assert computed == []
    assert meet(product, steps=PRODUCT) == [None] * 3
    assert sorted(computed) == sorted([0, 1, 2] * 3)


def test_what_was_moved_away_is_made_anew(monkeypatch: pytest.MonkeyPatch, computed: list[int]) -> None:
    """What bob has left is of a run that came to its end: nobody has to remove it by hand."""
    ended(monkeypatch, once, FILTERED)
    OUTPUT.unlink()
    assert meet(once, steps=FILTERED) == [None] * 3
    assert OUTPUT.exists()
    assert not Path("run").exists()


def test_a_fold_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    total = Fold(lambda t, x, y: t + jnp.dot(x, y), 0.0, jnp.add)
    ended(monkeypatch, lambda plan: fold(plan, total, "run"), ())
    bring(1.0)
    states = meet(lambda plan: fold(plan, total, "run"))
    parts = [states[0].components[0], states[0].components[1], states[1].components[2]]
    assert abs(int(sum(int(x) for x in parts)) % 2**64 / 2**18 - 3.25 * 24) < 1e-3
    assert not Path("run").exists()


def test_finished_blocks_of_a_run_that_did_not_end_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        test_stream_attempts.stop_at(patch, 2)
        meet(once, steps=PRODUCT)
    shutil.rmtree("run/alice")
    assert any("has finished blocks, but another party's folder" in str(e) for e in meet(once, steps=PRODUCT))


def test_tags_say_nothing_and_are_bound_to_the_run() -> None:
    one, same, other = (finished.tag(run, {"rows": 3}) for run in ("a", "a", "b"))
    assert one == same != other
    assert finished.is_tag(one, "a", {"rows": 3})
    assert not any(finished.is_tag(said, "a", {"rows": 3}) for said in (other, "", "\u00e9", "\ud800"))


NEGATIVE = b'{"made": {"run": "", "tags": [], "passes": [{"sources": {"run": ""}, "counts": [-1]}]}, "force": 0}'


@pytest.mark.parametrize(
    "said", [b"", b"[]", b'{"made": {"run": 1}, "force": 0}', b'{"made": 3, "force": 0}', NEGATIVE]
)
def test_what_a_peer_says_has_a_form(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spuvm.runtime.link.link.Link.broadcast", lambda self, owner, body: said)
    errors = meet(once, BLOCK, PRODUCT)
    assert any("carol says of its output" in str(e) for e in errors)
    assert all(isinstance(e, PeerMismatchError | LinkError) for e in errors)  # who is late hears that another stopped
