"""Before anybody has said who he is: connections that idle, trickle or come in crowds keep no peer out."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from spuvm.runtime.link.certificates import make_cluster
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.tls import door as doors
from spuvm.runtime.link.tls.connect import connect
from spuvm.runtime.link.tls.door import Door, Guest, crowding

PARTIES = ("alice", "bob", "carol")
CROWD = 400


def first_bytes() -> bytes:
    """What a TLS client says first."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


WORDS: dict[str, bytes] = {"idle": b"", "one byte": b"\x16", "a whole hello": first_bytes()}


@pytest.mark.parametrize("words", WORDS)
def test_a_crowd_delays_nobody(tmp_path: Path, words: str) -> None:
    """400 connections to one party, from an address that the peers share, before and while they come."""
    cluster = load_cluster(make_cluster(tmp_path, PARTIES, timeout_seconds=60))
    address = cluster.parties[0].address
    assert address is not None
    crowd: list[socket.socket] = []
    came = threading.Event()

    def party(name: str) -> None:
        if name != "alice":
            assert came.wait(30)
        with connect(cluster, name) as link:
            link.agree("end", b"")
            joined.append(name)

    joined: list[str] = []
    threads = [threading.Thread(target=party, args=(name,)) for name in PARTIES]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 20
    while len(crowd) < CROWD and time.monotonic() < until:
        with suppress(OSError):
            sock = socket.create_connection((address.host, address.port), 1)
            crowd.append(sock)
            sock.sendall(WORDS[words])
    start = time.monotonic()
    came.set()
    for thread in threads:
        thread.join(40)
    took = time.monotonic() - start
    for sock in crowd:
        sock.close()
    assert sorted(joined) == sorted(PARTIES)
    assert took < 9  # a machine under load; the places were held for ten seconds each


def guests(*hosts: str) -> list[Guest]:
    return [Guest(socket.socket(), host, i) for i, host in enumerate(hosts)]


def test_who_goes_when_room_is_short() -> None:
    room = guests("peer", "peer", "peer", "x", "y", "y")
    assert crowding(room, {"peer"}) is room[4]
    assert crowding(room[:3], {"peer"}) is room[0]
    assert crowding(room[:4], {"peer"}) is room[3]
    for guest in room:
        guest.sock.close()


def test_silent_connections_are_shown_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "SILENT", 0.3)
    cluster = load_cluster(make_cluster(tmp_path, PARTIES))
    address = cluster.parties[0].address
    assert address is not None
    greeted: list[str] = []

    def greet(guest: Guest) -> None:
        greeted.append(guest.host)
        guest.sock.close()

    door = Door(address, "alice", [], greet)
    door.open()
    with socket.create_connection((address.host, address.port)) as silent:
        silent.settimeout(5)
        assert silent.recv(1) == b""
    with socket.create_connection((address.host, address.port)) as one:
        one.sendall(b"x")
        one.settimeout(5)
        with suppress(OSError):
            one.recv(1)
    door.close()
    assert greeted == ["127.0.0.1"]


def test_at_most_so_many_are_greeted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that is no peer's address FROM_ONE, in all GREETED: the oldest are hung up on."""
    monkeypatch.setattr(doors, "GREETED", 8)
    monkeypatch.setattr(doors, "FROM_ONE", 4)
    for peers, most in (((), 4), (("127.0.0.1",), 8)):
        address = load_cluster(make_cluster(tmp_path, PARTIES)).parties[0].address
        assert address is not None
        leave = threading.Event()

        def greet(guest: Guest, leave: threading.Event = leave) -> None:
            leave.wait(10)
            guest.sock.close()

        door = Door(address, "alice", peers, greet)
        door.open()
        crowd = [socket.create_connection((address.host, address.port)) for _ in range(12)]
        for sock in crowd:
            sock.sendall(b"x")
            sock.settimeout(0.05)
        time.sleep(0.5)
        ended = 0
        for sock in crowd:
            with suppress(TimeoutError):
                ended += sock.recv(1) == b""
        assert ended == 12 - most
        leave.set()
        door.close()
        for sock in crowd:
            sock.close()


def test_the_door_stays_open_whatever_becomes_of_a_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A greeting that fails in no way foreseen, and a system that has no more threads, concern one guest alone."""
    address = load_cluster(make_cluster(tmp_path, PARTIES)).parties[0].address
    assert address is not None
    came: list[Guest] = []

    def greet(guest: Guest) -> None:
        came.append(guest)
        raise KeyError("unforeseen")

    start = threading.Thread.start

    def tired(self: threading.Thread) -> None:
        if "greeting" in self.name and not failed:
            failed.append(self.name)
            raise RuntimeError("can't start new thread")
        start(self)

    failed: list[str] = []
    door = Door(address, "alice", [], greet)
    door.open()
    monkeypatch.setattr(threading.Thread, "start", tired)
    for number in range(3):
        with socket.create_connection((address.host, address.port)) as sock:
            sock.sendall(b"x")
            sock.settimeout(5)
            with suppress(ConnectionResetError):
                assert sock.recv(1) == b""
            assert len(came) == number
    assert all(keeper.is_alive() for keeper in door._keepers)
    door.close()
    assert len(failed) == 1
