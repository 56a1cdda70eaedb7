"""A party that comes back on another kind of processor: its float work differs by a unit, and no two views combine.

Three parties as threads. The owner of the rows adds them up by itself, as floats, before anything is shared. In the
second attempt of a block its sums are one unit of the ring greater. Under the masks of the first attempt the messages
of the two would differ by just that unit, which is shown as well: so it is the keys that keep them apart.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_stream_attempts
from parties import run_threads
from streams import Stop
from test_stream_attempts import CONFIG, stop_at

from spuvm.runtime.link.memory_link import memory_links
from spuvm.runtime.link.session_keys import SessionKeys
from spuvm.runtime.machine.session import Session
from spuvm.streaming.grouping import Aggregator, GroupBy, Wanted
from spuvm.streaming.plan import Options, Plan
from spuvm.streaming.run import fold
from spuvm.streaming.sources import Source
from spuvm.vm import VM

data, heard = test_stream_attempts.data, test_stream_attempts.heard  # fixtures
KEYS, ROWS, BLOCK = 8, 48, 16
PARTS = tuple({"x": Source("x.npy", (), party), "k": Source("k.npy", (), party)} for party in ("alice", "bob"))
TOTALS = GroupBy("k", KEYS, (Wanted("total", "sum", "x"),))


def meet() -> list[Any]:
    """All parties go on; what each gave or raised."""
    links = memory_links(CONFIG.parties)

    def party(rank: int) -> Any:
        with links[rank] as link:
            plan = Plan(VM(Session(CONFIG, rank, link)), PARTS, Options(BLOCK, 1, "local", None, False))
            return fold(plan, TOTALS, Path("run"))

    return run_threads([partial(party, rank) for rank in range(3)], 120)


def words(messages: list[bytes]) -> list[np.ndarray]:
    """Of the messages that have a word for each key."""
    return [np.frombuffer(m, "<u8") for m in messages if len(m) == 8 * KEYS]


def known_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protection taken away: every session has the same keys."""

    def derive(self: SessionKeys, holders: tuple[int, ...]) -> bytes:
        return hashlib.sha256(repr(holders).encode()).digest()

    monkeypatch.setattr(SessionKeys, "_derive", derive)


@pytest.mark.parametrize("fresh", [True, False])
def test_views_of_two_attempts_do_not_combine(
    fresh: bool, heard: dict[int, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.linspace(-3, 3, ROWS, dtype=np.float32)
    np.save("x.npy", x)
    np.save("k.npy", np.arange(ROWS) % KEYS)
    if not fresh:
        known_keys(monkeypatch)
    with monkeypatch.context() as patch:
        stop_at(patch, 0)
        assert isinstance(meet()[1], Stop)
    first = {rank: words(m) for rank, m in heard.items()}
    for messages in heard.values():
        messages.clear()
    plain = Aggregator.__call__
    monkeypatch.setattr(Aggregator, "__call__", lambda *args: [sums + np.uint64(1) for sums in plain(*args)])
    states = meet()
    differences = [
        (after - before).view(np.int64) for rank in (0, 1, 2) for before in first[rank] for after in words(heard[rank])
    ]
    assert len(differences) >= 2
    near = sum(bool(np.abs(d).max() <= 2) for d in differences)
    assert near == 0 if fresh else near > 0
    shared = [states[0]["total"].components[0], states[0]["total"].components[1], states[1]["total"].components[2]]
    total = (np.asarray(shared[0]) + shared[1] + shared[2]).view(np.int64) / 2**18
    true = [2 * x[np.arange(ROWS) % KEYS == k].astype(float).sum() for k in range(KEYS)]
    assert np.abs(total - np.array(true)).max() < 12 / 2**18  # roundings, and the units
