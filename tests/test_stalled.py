"""Who is named when nothing moves: who stopped first, never who waits for it."""

from __future__ import annotations

import time
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parties import run_threads

from spuvm.runtime.errors import PeerMismatchError, SpuError
from spuvm.runtime.link.certificates import make_cluster
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.link import Kind
from spuvm.runtime.link.tls.connect import connect
from spuvm.runtime.link.tls.link import TlsLink
from spuvm.runtime.link.tls.stalled import Waits

PARTIES = ("alice", "bob", "carol")
LIMIT = 1.5


@pytest.fixture
def cluster(tmp_path: Path) -> Any:
    return load_cluster(make_cluster(tmp_path, PARTIES, timeout_seconds=20))


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=lambda o: "".join(map(str, o)))
def test_a_chain_of_waits_names_its_end(cluster: Any, order: tuple[int, ...]) -> None:
    """The first awaits the second, who awaits the third, who does nothing: both name the third."""
    first, second, third = order

    def party(name: str) -> Any:
        with connect(cluster, name) as link:
            link.agree("start", b"")
            link.timeout = LIMIT
            got = np.zeros(8, np.uint8)
            try:
                if link.rank == third:
                    time.sleep(2 * LIMIT)
                if link.rank == second:
                    time.sleep(0.2)
                link.exchange({}, {second if link.rank == first else third: [got]})
            except SpuError as error:
                return str(error)

    said = run_threads([lambda name=name: party(name) for name in PARTIES])  # type: ignore[misc]
    for rank in (first, second):
        assert f"Nothing came from {PARTIES[third]} for" in said[rank], said
        assert f"Nothing came from {PARTIES[second]}" not in said[rank]


def test_who_waits_in_a_circle_says_that_the_cause_is_not_known(cluster: Any) -> None:
    def party(name: str) -> Any:
        with connect(cluster, name) as link:
            link.agree("start", b"")
            link.timeout = LIMIT
            try:
                link.exchange({}, {(link.rank + 1) % 3: [np.zeros(8, np.uint8)]})
            except SpuError as error:
                return str(error)

    for said in run_threads([lambda name=name: party(name) for name in PARTIES]):  # type: ignore[misc]
        assert "it is not known who failed first" in said


def test_what_was_said_long_ago_or_contradicted_is_not_believed() -> None:
    bob, alice = Waits(1, PARTIES), Waits(0, PARTIES)
    assert alice.hear(bob.frame([2], now=10.0), now=10.0)
    assert alice.causes([1], since=9.0) == ([2], [(1, 2)])
    assert alice.causes([1], since=11.0) == ([1], [])
    alice.moved(1, now=10.5)
    assert alice.causes([1], since=9.0) == ([1], [])
    assert alice.hear(b'{"1": [[2], 2.0]}', now=11.0)  # at a third party it was said at 9
    assert alice.causes([1], since=8.0) == ([1], [])
    assert alice.hear(b'{"1": [[2], 0.1]}', now=11.0)
    assert alice.text([1], "data", 60, now=11.0) == (
        "Nothing came from carol for 60 s: alice awaited data from bob, and bob awaits carol."
    )
    for malformed in (b"", b"[]", b"{", b'{"1": 3}', b'{"7": [[], 0]}', b'{"1": [[9], 0]}', b'{"1": [[2], -5]}'):
        assert not alice.hear(malformed, now=11.0)


@pytest.mark.parametrize("kind", [Kind.ALIVE, Kind.WAITING, Kind.AGREE, Kind.KEY])
def test_a_peer_that_floods_is_refused(cluster: Any, kind: Kind) -> None:
    """Frames that carry nothing awaited are counted: a party names who sends them, and its memory stays small."""

    def party(name: str) -> Any:
        with connect(cluster, name, timeout=5) as link:
            assert isinstance(link, TlsLink)
            link.agree("start", b"")
            try:
                if name == "bob":
                    body = {Kind.WAITING: b"{}", Kind.KEY: b"0,1\0" + bytes(32)}.get(kind, b"")
                    for _ in range(5000):
                        link._send_control(0, kind, body)
                link.exchange({}, {(link.rank + 1) % 3: [np.zeros(8, np.uint8)]})
            except SpuError as error:
                return error

    said = run_threads([lambda name=name: party(name) for name in PARTIES])  # type: ignore[misc]
    assert isinstance(said[0], PeerMismatchError)
    assert "bob sent" in str(said[0])
