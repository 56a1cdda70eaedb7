"""A dealer that runs ahead: how far, what arrives, and who waits for whom."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parties import run_threads

from spuvm.runtime.errors import ConfigError, PeerAbortedError, PeerMismatchError, PeerTimeoutError
from spuvm.runtime.link.certificates import make_cluster
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.tls.connect import connect
from spuvm.runtime.link.tls.link import TlsLink

NAMES = ("alice", "bob", "dealer")
ALICE, BOB, DEALER = range(3)
MIB = 1 << 20
Session = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def cluster_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cluster(tmp_path_factory.mktemp("cluster"), NAMES, protocol="semi2k", dealer="dealer")


@pytest.fixture
def session(cluster_file: Path, tmp_path: Path) -> Session:
    """Runs a function as each of alice, bob and the dealer; what each returned or raised."""

    def run(*bodies: Callable[[TlsLink], Any], ahead: int = 1, timeout: float = 20) -> list[Any]:
        path = cluster_file.with_name(f"ahead{ahead}.toml")
        path.write_text(f"dealer_ahead_mb = {ahead}\n{cluster_file.read_text()}")

        def party(rank: int) -> Any:
            with connect(load_cluster(path), NAMES[rank], timeout=timeout) as link:
                return bodies[rank](link)

        return run_threads([partial(party, rank) for rank in range(3)])

    return run


@cache
def message(number: int, size: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, size, np.uint8)


def give(link: TlsLink, number: int, size: int, pieces: int = 3) -> None:
    """One round of a dealer, as the executor does it."""
    exchange = link.begin({BOB: size}, {})
    for part in np.array_split(message(number, size), pieces):
        exchange.put(BOB, part, part.nbytes)
    exchange.finish()


def take(link: TlsLink, number: int, size: int) -> None:
    got = np.zeros(size, np.uint8)
    exchange = link.begin({}, {DEALER: [got[: size // 2], got[size // 2 :]]})
    exchange.wait(DEALER, size)
    exchange.finish()
    assert np.array_equal(got, message(number, size))


def chat(link: TlsLink, rounds: int, pause: float = 0.0) -> None:
    """Alice and bob exchange a word at a time."""
    for _ in range(rounds):
        time.sleep(pause)
        got = np.zeros(8, np.uint8)
        link.exchange({1 - link.rank: [got]}, {1 - link.rank: [got.copy()]})


@pytest.mark.parametrize("ahead", [0, 1, 64])
def test_what_comes_early_arrives_whole_and_in_order(session: Session, ahead: int) -> None:
    """Sizes around those of frames, blocks and limits; bob is early for some rounds, late for others."""
    sizes = [1, 20, 16_383, 262_144, 262_145, 900_000, 5_000_000, 3, *[1000] * 200, 9_000_001, 70_000]

    def bob(link: TlsLink) -> bool:
        for i, size in enumerate(sizes):
            if i % 4 == 0:
                chat(link, 1)
            take(link, i, size)
        link.agree("end", b"")
        return True

    def alice(link: TlsLink) -> bool:
        chat(link, len(range(0, len(sizes), 4)), 0.002)
        link.agree("end", b"")
        return True

    def dealer(link: TlsLink) -> bool:
        for i, size in enumerate(sizes):
            give(link, i, size)
        link.settle()
        link.agree("end", b"")
        return link.counters.bytes_sent[BOB] == sum(sizes)

    assert session(alice, bob, dealer, ahead=ahead) == [True] * 3


def test_the_dealer_is_ahead_by_so_much_and_no_more(session: Session) -> None:
    """Bob reads on while he waits for alice, and stops when he holds enough; the dealer then waits, too."""
    size, rounds = 700_000, 150  # 100 MB
    given: list[int] = []
    seen: dict[str, int] = {}

    def alice(link: TlsLink) -> None:
        chat(link, 40, 0.05)
        link.agree("end", b"")

    def bob(link: TlsLink) -> None:
        chat(link, 40)
        receiver = link._receivers[DEALER]
        seen["held"] = sum(len(frame) for _, frame in receiver._held)
        seen["given"] = len(given)
        for i in range(rounds):
            take(link, i, size)
        link.agree("end", b"")

    def dealer(link: TlsLink) -> None:
        for i in range(rounds):
            give(link, i, size)
            given.append(i)
            seen["queued"] = max(seen.get("queued", 0), link._senders[BOB].queued)
        link.agree("end", b"")

    assert session(alice, bob, dealer, ahead=2) == [None] * 3
    assert 0 < seen["held"] <= 2 * MIB
    assert MIB < seen["queued"] <= 2 * MIB + size
    assert seen["given"] < rounds  # the rest is what sockets hold


def test_another_size_is_noticed_when_it_is_expected(session: Session) -> None:
    def alice(link: TlsLink) -> None:
        chat(link, 5, 0.05)
        link.agree("end", b"")

    def bob(link: TlsLink) -> None:
        chat(link, 5)
        take(link, 0, 1000)
        take(link, 1, 1000)

    def dealer(link: TlsLink) -> None:
        give(link, 0, 1000)
        give(link, 1, 999)
        link.agree("end", b"")

    failures = session(alice, bob, dealer)
    assert isinstance(failures[BOB], PeerMismatchError)
    assert all("where 1000 are due" in str(f) for f in failures), failures


def test_agreement_with_a_dealer_whose_messages_are_not_taken(session: Session) -> None:
    def party(link: TlsLink) -> None:
        chat(link, 5, 0.05)
        link.agree("end", b"")

    def dealer(link: TlsLink) -> None:
        give(link, 0, 1000)
        link.agree("end", b"")

    failures = session(party, party, dealer)
    assert isinstance(failures[BOB], PeerMismatchError)
    assert "dealer sent data while this party awaits agreement on `end`" in str(failures[BOB])


def test_who_gets_on_is_not_given_up(session: Session) -> None:
    """The dealer waits twice the limit for parties that are busy with each other, full buffers or not."""

    def party(link: TlsLink) -> bool:
        chat(link, 40, 0.1)
        if link.rank == BOB:
            take(link, 0, 60 * MIB)
        link.agree("end", b"")
        return True

    def dealer(link: TlsLink) -> bool:
        give(link, 0, 60 * MIB, pieces=60)
        link.agree("end", b"")
        return True

    message(0, 60 * MIB)  # takes time
    assert session(party, party, dealer, ahead=0, timeout=2) == [True] * 3


def test_peers_that_block_each_other_are(session: Session) -> None:
    """Each awaits the other; nobody gets on, so nobody says so."""

    def party(link: TlsLink) -> None:
        chat(link, 5, 0.1)
        link.exchange({}, {1 - link.rank: [np.zeros(8, np.uint8)]})

    def dealer(link: TlsLink) -> None:
        give(link, 0, 3 * MIB)
        link.agree("end", b"")

    start = time.monotonic()
    failures = session(party, party, dealer, timeout=1)
    assert time.monotonic() - start < 10
    assert any(isinstance(f, PeerTimeoutError) for f in failures[:2])
    assert all("not known who failed first" in str(f) or "Nothing came from" in str(f) for f in failures), failures
    assert not any("Nothing came from dealer" in str(f) for f in failures)


def test_a_peer_that_said_why_it_stops_is_quoted_by_whoever_sends_to_it(session: Session) -> None:
    """The dealer hears it while it awaits nothing; it is told when the connection breaks."""

    def alice(link: TlsLink) -> None:
        chat(link, 1)

    def bob(link: TlsLink) -> None:
        chat(link, 1)
        raise ConfigError("no more")

    def dealer(link: TlsLink) -> None:
        awaited = iter([[link._receivers[BOB]], []])
        link._wait(lambda: next(awaited), "nothing")
        for _ in range(10_000):
            give(link, 0, 1000)

    failures = session(alice, bob, dealer)
    assert isinstance(failures[DEALER], PeerAbortedError)
    assert str(failures[DEALER]) == "bob stopped: an error of its own, which its own message explains"


@pytest.mark.parametrize("value", ["-1", "1.5", "true", '"64"', "2000000"])
def test_how_far_ahead_is_a_number(cluster_file: Path, tmp_path: Path, value: str) -> None:
    path = cluster_file.with_name("wrong.toml")
    path.write_text(f"dealer_ahead_mb = {value}\n{cluster_file.read_text()}")
    with pytest.raises(ConfigError, match=r"`dealer_ahead_mb` in .* must be a number of MiB"):
        load_cluster(path)


def test_how_far_ahead_needs_a_dealer(tmp_path: Path) -> None:
    path = make_cluster(tmp_path, NAMES)
    path.write_text(f"dealer_ahead_mb = 3\n{path.read_text()}")
    with pytest.raises(ConfigError, match="is for a dealer"):
        load_cluster(path)
