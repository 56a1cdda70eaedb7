"""Connections that are cut in mid-session: taken up again, with the same results; or an error when the time is over."""

from __future__ import annotations

import random
import socket
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parties import run_threads

from spuvm.runtime.errors import ConfigError, LinkError, PeerLostError, PeerMismatchError, SpuError
from spuvm.runtime.link.certificates import make_cluster
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.tls import channel as channels
from spuvm.runtime.link.tls import hello, resume
from spuvm.runtime.link.tls.channel import hang_up
from spuvm.runtime.link.tls.connect import connect
from spuvm.runtime.link.tls.link import TlsLink
from spuvm.runtime.link.tls.resume import Log
from spuvm.runtime.link.tls.ways import of_cluster

PARTIES = ("alice", "bob", "carol")


def cluster(folder: Path, grace: float, parties: tuple[str, ...] = PARTIES) -> Path:
    path = make_cluster(folder, parties, protocol="ref2k" if len(parties) == 2 else None)
    path.write_text(f"grace_seconds = {grace}\n" + path.read_text())
    return path


def said(sender: int, receiver: int, number: int, largest: int) -> np.ndarray:
    """What one party says to another in a round: the same on both sides, of any size."""
    rng = np.random.default_rng([sender, receiver, number])
    return rng.integers(0, 256, int(rng.integers(1, largest)), np.uint8)


def rounds(link: TlsLink, count: int, largest: int, pause: float) -> str:
    """Rounds in which all say something to all; whoever hears something else than was said fails."""
    for number in range(count):
        sends = {p: [said(link.rank, p, number, largest)] for p in link.peers}
        heard = {p: [np.zeros_like(said(p, link.rank, number, largest))] for p in link.peers}
        link.exchange(sends, heard)
        for peer in link.peers:
            assert np.array_equal(heard[peer][0], said(peer, link.rank, number, largest))
        if number % 7 == 0:
            link.agree("number", str(number).encode())
        time.sleep(pause)
    return "done"


def cut(links: dict[str, TlsLink], times: int, gap: float, over: threading.Event) -> int:
    """Break connections at random; how many were broken."""
    rng, done = random.Random(1), 0
    while done < times and not over.wait(gap * rng.random()):
        link = links[rng.choice(sorted(links))]
        ends = [s.channel for s in link._senders.values()] + [r.channel for r in link._receivers.values()]
        hang_up(rng.choice(ends).sock)
        done += 1
    return done


def session(path: Path, work: Any, cuts: int = 0, gap: float = 0.05) -> tuple[list[Any], int]:
    """All parties in threads; what each returned or raised, and how many connections were cut."""
    links: dict[str, TlsLink] = {}
    together = threading.Barrier(len(load_cluster(path).names) + 1)
    over = threading.Event()

    def be(party: str) -> Any:
        with connect(load_cluster(path), party, timeout=20) as link:
            links[party] = link
            together.wait(30)
            return work(link)

    def saw() -> int:
        together.wait(30)
        return cut(links, cuts, gap, over)

    names = load_cluster(path).names
    counted: list[int] = []
    saboteur = threading.Thread(target=lambda: counted.append(saw()))
    saboteur.start()
    results = run_threads([partial(be, name) for name in names], limit=100)
    over.set()
    saboteur.join()
    return results, counted[0]


@pytest.mark.parametrize(("count", "largest"), [(120, 3_000), (25, 3_000_000)])
def test_cut_connections_change_nothing(tmp_path: Path, count: int, largest: int) -> None:
    results, cuts = session(cluster(tmp_path, 20), partial(rounds, count=count, largest=largest, pause=0.01), 25)
    assert results == ["done"] * 3
    assert cuts >= 3  # as many as there was time for


def test_a_connection_is_renewed_before_its_cipher_is_worn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "ADVISED_BYTES", 1 << 20)
    made: list[str] = []
    dial = hello.Greeter.dial

    def counted(self: Any, *args: Any, **kwargs: Any) -> bytes:
        made.append(kwargs.get("resume", ""))
        return dial(self, *args, **kwargs)

    monkeypatch.setattr(hello.Greeter, "dial", counted)
    path = cluster(tmp_path, 20, ("alice", "bob"))
    results, _ = session(path, partial(rounds, count=60, largest=100_000, pause=0))
    assert results == ["done"] * 2
    assert sum(map(bool, made)) >= 4


def test_a_party_that_is_gone_is_lost_when_the_time_is_over(tmp_path: Path) -> None:
    def work(link: TlsLink) -> str:
        if link.rank == 1:
            for sender in link._senders.values():
                hang_up(sender.channel.sock)
            assert link._renewal is not None
            link._renewal.reception.close()  # as if its process had ended
            for receiver in link._receivers.values():
                hang_up(receiver.channel.sock)
            time.sleep(4)
            return "gone"
        return rounds(link, 3, 1000, 0)

    start = time.monotonic()
    results, _ = session(cluster(tmp_path, 1.5), work)
    assert time.monotonic() - start < 60
    assert isinstance(results[0], LinkError), results
    assert any("not taken up again within 1.5 s" in str(r) for r in (results[0], results[2])), results


def test_without_a_time_of_grace_a_cut_ends_the_session(tmp_path: Path) -> None:
    results, _ = session(cluster(tmp_path, 0), partial(rounds, count=200, largest=3000, pause=0.01), 1)
    assert all(isinstance(r, PeerLostError | LinkError) for r in results), results


def test_a_party_that_was_started_anew_does_not_go_on(tmp_path: Path) -> None:
    """Its peer, which does, hears so at once."""
    path = cluster(tmp_path, 30, ("alice", "bob"))
    ready, cut_off = threading.Event(), threading.Event()

    def alice() -> str:
        with connect(load_cluster(path), "alice", timeout=10) as link:
            ready.set()
            cut_off.wait(10)
            return rounds(link, 3, 1000, 0)

    def bob() -> str:
        first = connect(load_cluster(path), "bob", timeout=10)
        ready.wait(10)
        assert first._renewal is not None
        first._renewal.reception.close()
        for channel in [s.channel for s in first._senders.values()] + [r.channel for r in first._receivers.values()]:
            hang_up(channel.sock)
        cut_off.set()
        try:
            with connect(load_cluster(path), "bob", timeout=5):
                return "connected"
        finally:
            first.close()

    results = run_threads([alice, bob], limit=60)
    assert isinstance(results[0], PeerMismatchError | LinkError), results
    assert "started anew" in str(results[0])
    assert isinstance(results[1], SpuError), results


def test_the_log_gives_what_is_missing_and_nothing_else() -> None:
    log = Log()
    for piece in (b"abc", b"def", b"ghi"):
        log.add(piece)
    assert b"".join(log.since(0)) == b"abcdefghi"
    assert b"".join(log.since(4)) == b"efghi"
    log.drop(5)
    assert b"".join(log.since(5)) == b"fghi"
    assert log.since(9) == []
    for wrong in (2, 10):
        with pytest.raises(OSError, match="cannot have"):
            log.since(wrong)


def test_of_a_peer_that_confirms_nothing_so_much_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "KEPT_BYTES", 10)
    log = Log()
    for _ in range(1000):
        log.add(b"abcd")
    assert sum(map(len, log.since(log.end - 8))) == 8
    with pytest.raises(OSError, match="cannot have"):
        log.since(0)


def ended(sock: socket.socket) -> bool:
    sock.settimeout(0.02)
    try:
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_who_comes_again_and_again_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a party computes, a peer that dials again and again has one connection that waits, not many."""
    found = load_cluster(cluster(tmp_path, 5.0))
    greeter = hello.Greeter(found, "alice", lambda: None)
    monkeypatch.setattr(greeter, "answer_again", lambda channel, tokens: 1)
    reception = resume.Reception(greeter, found, of_cluster(found, "alice"), {}, lambda: None)
    address = found.parties[0].address
    assert address is not None
    try:
        dialed = [socket.create_connection((address.host, address.port)) for _ in range(20)]
        for sock in dialed:
            sock.sendall(b"x")
        until, left = time.monotonic() + 20, list(dialed)
        while len(left) > 1 and time.monotonic() < until:
            left = [sock for sock in left if not ended(sock)]
        assert len(left) == 1
        ((peer, channel),) = reception.come()
        channel.close()
        assert peer == 1
        assert list(reception.come()) == []
    finally:
        reception.close()
        for sock in dialed:
            sock.close()


def test_some_with_grace_and_some_without_do_not_meet(tmp_path: Path) -> None:
    """One would keep all that it sent, and the other never confirm it."""
    path = cluster(tmp_path, 5.0, PARTIES[:2])
    other = path.with_name("other.toml")
    other.write_text(path.read_text().replace("grace_seconds = 5.0\n", ""))

    def be(party: str, file: Path) -> None:
        connect(load_cluster(file), party, timeout=10).close()

    results = run_threads([partial(be, "alice", path), partial(be, "bob", other)], limit=30)
    assert all(isinstance(r, SpuError) and "`grace_seconds`: " in str(r) for r in results), results


@pytest.mark.parametrize("value", ["-1", '"20"', "true", "1e9"])
def test_grace_is_a_number_of_seconds(tmp_path: Path, value: str) -> None:
    path = make_cluster(tmp_path, ("alice", "bob"), protocol="ref2k")
    path.write_text(f"grace_seconds = {value}\n" + path.read_text())
    with pytest.raises(ConfigError, match="grace_seconds"):
        load_cluster(path)
