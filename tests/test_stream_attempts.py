"""A party that stops on purpose and comes back with other rows learns nothing; shares of two attempts never meet.

Three parties as threads. What each is sent is recorded, as the deviating one would.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parties import run_threads
from streams import Stop

from spuvm.runtime.config import Config
from spuvm.runtime.errors import InputError, PeerAbortedError, PeerMismatchError
from spuvm.runtime.link.memory_link import MemoryLink, memory_links
from spuvm.runtime.machine.session import Session
from spuvm.streaming import resuming, sealed
from spuvm.streaming.block import Fold, Step, WriteRows
from spuvm.streaming.folder import Folder
from spuvm.streaming.job import Runner
from spuvm.streaming.journal import append
from spuvm.streaming.plan import Options, Plan
from spuvm.streaming.run import fold, write
from spuvm.streaming.sources import Source
from spuvm.vm import VM

CONFIG = Config(parties=("alice", "bob", "carol"))
ROWS, BLOCK = 24, 8
SOURCES = {"x": Source("a.npy", (), "alice"), "y": Source("b.npy", (), "bob")}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row of alice's is the same, and of bob's."""
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.full(ROWS, 3.25, np.float32))
    bring(1.0)


def bring(value: float) -> None:
    """Bob's rows, in a file that looks as it did before."""
    np.save("b.npy", np.full(ROWS, value, np.float32))
    os.utime("b.npy", ns=(0, 0))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[bytes]]:
    """By rank, the messages that it got."""
    messages: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    plain = MemoryLink._transfer

    def transfer(self: MemoryLink, sends: Any, receives: Any) -> None:
        plain(self, sends, receives)
        messages[self.rank] += [b"".join(view.tobytes() for view in views) for views in receives.values()]

    monkeypatch.setattr(MemoryLink, "_transfer", transfer)
    return messages


def meet(run: Callable[[Plan], Any], rows_per_block: int = BLOCK, steps: Any = ()) -> list[Any]:
    """All parties go on; what each gave or raised."""
    links = memory_links(CONFIG.parties)

    def party(rank: int) -> Any:
        with links[rank] as link:
            vm = VM(Session(CONFIG, rank, link))
            return run(Plan(vm, (SOURCES,), Options(rows_per_block, 1, "local", None, False), steps))

    return run_threads([partial(party, rank) for rank in range(3)], 120)


def product(plan: Plan) -> None:
    write(plan, WriteRows("carol"), Path("out.parquet"), Path("run"), True)


PRODUCT = (Step("map", lambda x, y: {"p": x * y}),)


def stop_at(monkeypatch: pytest.MonkeyPatch, block: int, rank: int = 1) -> None:
    """A party stops when it has all messages of a block, and says that it has not finished it."""
    plain = Runner._commit

    def commit(self: Runner, number: int, results: Any) -> None:
        if self.party == rank and number == block:
            raise Stop
        plain(self, number, results)

    monkeypatch.setattr(Runner, "_commit", commit)


def words(messages: list[bytes]) -> list[np.ndarray]:
    """Of the messages that have a word for each row."""
    return [np.frombuffer(m, "<u8") for m in messages if len(m) == 8 * BLOCK]


def test_rewinding_shows_nothing(heard: dict[int, list[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same masks the difference of two messages would be that of the rows: the same for all of them."""
    with monkeypatch.context() as patch:
        stop_at(patch, 0)
        errors = meet(product, steps=PRODUCT)
    assert isinstance(errors[1], Stop)
    first = {rank: words(m) for rank, m in heard.items()}
    for messages in heard.values():
        messages.clear()
    bring(2.0)
    assert meet(product, steps=PRODUCT) == [None, None, None]
    assert np.abs(pq.read_table("out.parquet")["p"].to_numpy() - 6.5).max() < 1e-5
    compared = 0
    for rank in range(3):
        for before in first[rank]:
            for after in words(heard[rank]):
                compared += 1
                assert len(np.unique(after - before)) == len(np.unique(after ^ before)) == BLOCK
    assert compared > 3


def test_equal_blocks_do_not_show(heard: dict[int, list[bytes]]) -> None:
    """One row a block: a word that comes twice would say which blocks are equal."""
    total = Fold(lambda t, x, y: t + jnp.dot(x, y), 0.0, jnp.add)
    assert not any(isinstance(x, Exception) for x in meet(lambda plan: fold(plan, total, None), 1))
    for messages in heard.values():
        found = np.concatenate([np.frombuffer(m, "<u8") for m in messages if len(m) in (8, 16, 32, 40)])
        random = found[found > 1 << 40]
        assert len(random) > ROWS / 2
        assert len(np.unique(random)) == len(random)


def attempts(party: str) -> dict[int, int]:
    found = Folder.open(Path("run") / party)
    assert found is not None
    return {block: record["attempt"] for block, record in found.finished().items()}


@pytest.mark.parametrize("in_order", [False, True])
def test_shares_of_two_attempts_are_never_combined(in_order: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    total = Fold(lambda t, x, y: t + jnp.dot(x, y), 0.0, None if in_order else jnp.add)
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    plain = Runner._compute

    def compute(self: Runner, ready: Any, state: Any) -> Any:
        seen[self.party or 0].append(ready.block)
        return plain(self, ready, state)

    monkeypatch.setattr(Runner, "_compute", compute)
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        meet(lambda plan: fold(plan, total, "run"))
    assert attempts("bob") == {0: 1}
    assert 1 in attempts("alice")
    held: dict[str, dict[int, int]] = {}
    with monkeypatch.context() as patch:  # the folders vanish in the end
        patch.setattr(Folder, "remove", lambda self: held.update({self.path.name: attempts(self.path.name)}))
        states = meet(lambda plan: fold(plan, total, "run"))
    assert held["alice"] == held["bob"] == held["carol"] == {0: 1, 1: 2, 2: 2}
    assert all(blocks.count(0) == 1 and blocks.count(1) == 2 for blocks in seen.values())
    parts = [states[0].components[0], states[0].components[1], states[1].components[2]]
    value = int(sum(int(x) for x in parts)) % 2**64
    assert abs(value / 2**18 - 3.25 * ROWS) < 1e-3


def test_a_journal_of_another_attempt_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever alters its journal says so to all before anything is combined."""
    plain = Runner._commit

    def commit(self: Runner, number: int, results: Any) -> None:
        self.folder.attempt += self.party == 1
        plain(self, number, results)

    monkeypatch.setattr(Runner, "_commit", commit)
    total = Fold(lambda t, x, y: t + jnp.dot(x, y), 0.0, jnp.add)
    errors = meet(lambda plan: fold(plan, total, "run"), ROWS)
    assert all(isinstance(e, PeerMismatchError | PeerAbortedError) for e in errors)
    assert any("`attempts of the blocks`" in str(e) for e in errors)


def test_a_block_is_not_begun_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "EVALUATIONS", 2)
    stop_at(monkeypatch, 1)
    for _ in range(2):
        assert isinstance(meet(product, steps=PRODUCT)[1], Stop)
    for error in meet(product, steps=PRODUCT):
        assert "was begun 2 times and never finished by all" in str(error)


# What is read back --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder with two finished blocks and a lost one."""
    folder = Folder.create(tmp_path_factory.mktemp("f") / "run", {"format": 2, "rows": [3]}, "ab")
    folder.begin(1)
    for block in range(3):
        folder.begin_block(block, "0")
        folder.store(block, {"x": np.arange(4) + block}, "0", {"rows": block})
    append(folder.path / "blocks-0.jsonl", {"block": 2, "attempt": 1, "lost": True})
    return folder


FUZZED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZED
@given(data=st.data())
def test_damage_is_never_taken_for_data(run: Folder, data: st.DataObject) -> None:
    """Any byte of any file changed, or its end cut off: a clear error, or less that is finished, never other data."""
    path = data.draw(st.sampled_from(sorted(run.path.iterdir())))
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = data.draw(st.sampled_from([good[:at], good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :]]))
    whole, words = run.finished(), ["damaged"]
    path.write_bytes(bad)
    try:
        found = Folder.open(run.path)
        for block, record in ({} if found is None else found.finished()).items():
            assert record == whole.get(block, record)
            assert run.load(block, record)["x"].tolist() == (np.arange(4) + block).tolist()
    except InputError as error:
        words.append(str(error))
    finally:
        path.write_bytes(good)
        journal = run.path / "blocks-0.jsonl"
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(lines[:4]))
    assert all("damaged" in w for w in words)


@FUZZED
@given(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.booleans(), st.none())), st.binary())
def test_sealed_lines_come_back_or_not_at_all(body: dict[str, Any], noise: bytes) -> None:
    body.pop("check", None)
    assert sealed.unsealed(sealed.sealed(body)) == body
    with pytest.raises(ValueError, match=r"."):
        sealed.unsealed(noise)
