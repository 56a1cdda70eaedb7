"""Parties that nobody can reach: they dial out, to a peer or to a relay, and sessions are as any other."""

from __future__ import annotations

import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from parties import run_threads
from test_resume import rounds, session

from spuvm.runtime.errors import ConfigError
from spuvm.runtime.link.certificates import free_ports, make_cluster
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.parties import Address
from spuvm.runtime.link.tls import relay as relays
from spuvm.runtime.link.tls import ways
from spuvm.runtime.link.tls.channel import hang_up
from spuvm.runtime.link.tls.door import Door, Guest, hand_over
from spuvm.runtime.link.tls.first_line import FirstLine, hear, parse
from spuvm.runtime.link.tls.relay import Relay
from spuvm.runtime.link.tls.shared import Shared
from spuvm.runtime.link.tls.ways import Ways, of_cluster

PARTIES = ("alice", "bob", "carol")


def hide(path: Path, *names: str, more: str = "") -> Path:
    """The cluster file, in which these parties only connect outwards."""
    text = path.read_text()
    for name in names:
        text = re.sub(rf'(\[parties\.{name}\]\n)address = "[^"]*"\n(listen.*\n)?', r"\1outward = true\n", text)
    path.write_text(more + text)
    return path


@pytest.mark.parametrize("hidden", [("bob",), ("alice", "carol")])
@pytest.mark.parametrize("cuts", [0, 12])
def test_sessions_with_parties_that_only_connect_outwards(tmp_path: Path, hidden: tuple[str, ...], cuts: int) -> None:
    """All say something to all, while connections are cut; through a relay if two cannot be reached."""
    (port,) = free_ports(1)
    with ExitStack() as stack:
        more = "grace_seconds = 20\n"
        if len(hidden) > 1:
            stack.enter_context(Relay(Address("127.0.0.1", port)))
            more += f'relay = "127.0.0.1:{port}"\n'
        path = hide(make_cluster(tmp_path, PARTIES), *hidden, more=more)
        results, done = session(path, partial(rounds, count=60, largest=20_000, pause=0.005), cuts, 0.04)
    assert results == ["done"] * 3
    assert not cuts or done > 3


@pytest.mark.parametrize("hidden", [("bob",), ("alice", "carol")])
def test_one_connection_is_enough_for_both_directions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: tuple[str, ...]
) -> None:
    """A party that nobody can reach has one with each peer, which is made anew for both directions when it is lost."""
    made: list[tuple[str, ...]] = []
    dial = ways._dial

    def counted(address: Address, seconds: float, lines: list[FirstLine]) -> socket.socket:
        sock = dial(address, seconds, lines)
        made.append(tuple(line.verb for line in lines))
        return sock

    monkeypatch.setattr(ways, "_dial", counted)
    links: list[Any] = []
    cut = threading.Barrier(4)

    def work(link: Any) -> str:
        links.append(link)
        rounds(link, 10, 300_000, 0)
        cut.wait(90)
        cut.wait(90)  # all connections of those that are hidden, meanwhile
        return rounds(link, 10, 300_000, 0)

    first: list[int] = []

    def saw() -> None:
        cut.wait(90)
        first.append(len(made))
        for link in links:
            for meeting in link._ways._meetings.values() if link.parties[link.rank] in hidden else ():
                hang_up(meeting._shared._sock)
        cut.wait(90)

    saboteur = threading.Thread(target=saw)
    saboteur.start()
    (port,) = free_ports(1)
    with Relay(Address("127.0.0.1", port)):
        more = f'grace_seconds = 20\nrelay = "127.0.0.1:{port}"\n'
        results, _ = session(hide(make_cluster(tmp_path, PARTIES), *hidden, more=more), work)
    saboteur.join()
    assert results == ["done"] * 3
    direct = 2 if len(hidden) == 1 else 0  # those that can be reached dial each other, one connection each way
    relayed = len(hidden) - 1
    before, again = made[: first[0]], made[first[0] :]
    assert [before.count(verbs) for verbs in ((), ("both",), ("at",))] == [direct, 2, relayed]
    assert again.count(()) == 0 < 2 <= again.count(("both",))
    assert (before.count(("to", "both")) > 0) == bool(relayed)  # again, if it came before the one that waits


def test_a_shared_connection_carries_streams_both_ways() -> None:
    """What is said before an end arrives, however late it is read; a stream that nobody reads is in no other's way."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = socket.create_connection(listener.getsockname())
        here, _ = listener.accept()
    arrived: Queue[socket.socket] = Queue()
    a, b = Shared(there, True, arrived.put), Shared(here, False, arrived.put)
    stuck, one = a.open(), b.open()
    stuck.sendall(bytes(3_000_000))  # into what is kept for its reader
    unread = arrived.get(timeout=10)
    data = random.Random(1).randbytes(2_000_000)
    saying = threading.Thread(target=_say_all, args=(one, data))
    saying.start()
    other = arrived.get(timeout=10)
    assert _all_of(other) == data
    other.sendall(b"thank you")
    other.close()
    assert _all_of(one) == b"thank you"
    saying.join(10)
    a.retire()
    with pytest.raises(OSError, match="has ended"):
        a.open()
    stuck.close()
    a.join(10)
    assert len(_all_of(unread)) == 3_000_000  # said before its end
    for sock in (unread, one):
        sock.close()
    b.retire()
    b.join(10)
    assert not a.running and not b.running


@pytest.mark.parametrize(
    "said",
    [
        [struct.pack("<II", 0, (1 << 16) + 1)],
        [b"spuvm/1 to s alice bob\n"],
        [struct.pack("<II", number, 1) + b"x" for number in range(0, 80, 2)],
    ],
)
def test_what_is_no_frame_or_too_many_ends_a_shared_connection(said: list[bytes]) -> None:
    streams: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as peer:
        shared = Shared(listener.accept()[0], False, streams.append)
        with suppress(OSError):
            for data in said:
                peer.sendall(data)
        for _ in range(1000):
            if not shared.alive:
                break
            time.sleep(0.01)
        assert not shared.alive
        assert len(streams) == (16 if len(said) > 1 else 0)
        for stream in streams:
            stream.close()
        shared.join(10)
        assert not shared.running


def _say_all(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def _all_of(sock: socket.socket) -> bytes:
    sock.settimeout(20)
    found = bytearray()
    while data := sock.recv(1 << 16):
        found += data
    return bytes(found)


def test_what_a_relay_passes_on_is_encrypted_from_party_to_party(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[bytes] = []
    monkeypatch.setattr(relays, "_pass_on", _listening(passed))
    (port,) = free_ports(1)
    path = make_cluster(tmp_path, ("alice", "bob"), protocol="ref2k")
    hide(path, "alice", "bob", more=f'relay = "127.0.0.1:{port}"\n')

    def work(link: Any) -> str:
        link.agree("a word that a relay must not learn", b"")
        return "done"

    with Relay(Address("127.0.0.1", port)):
        results, _ = session(path, work)
    assert results == ["done"] * 2
    assert len(passed) > 4
    line = bytes(FirstLine("both", load_cluster(path).meeting, "alice", "bob"))  # what it was told anyway
    said = b"".join(passed).replace(line, b"", 1)
    assert not any(word in said for word in (b"a word", b"alice", b"bob"))


def _listening(passed: list[bytes]) -> Callable[[socket.socket, socket.socket], None]:
    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                passed.append(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    return pass_on


def test_several_sessions_at_one_port(tmp_path: Path) -> None:
    """A process that accepts connections hands each to the session that its first line names; bob only dials out."""
    ports = free_ports(3)
    paths, doors = [], []
    for name in ("one", "two"):
        path = make_cluster(tmp_path / name, PARTIES)
        text = f'session = "{name}"\n' + path.read_text()
        for i, party in enumerate(PARTIES):
            was = re.search(rf'\[parties\.{party}\]\naddress = "([^"]*)"\n', text)
            assert was is not None
            new = f'address = "127.0.0.1:{ports[i]}"\nlisten = "unix:{party}"'
            text = text.replace(f'address = "{was[1]}"', new)
        path.write_text(text)
        paths.append(hide(path, "bob"))

    def answer(party: str, guest: Guest) -> None:
        line = hear(guest.sock, 3)
        assert line is not None and party in (line.source, line.target)
        with suppress(OSError):  # it does not listen yet
            hand_over(Guest(guest.sock, guest.host, guest.port, line=line), tmp_path / line.session / party)
        guest.sock.close()

    for i, party in enumerate(PARTIES):
        doors.append(Door(Address("127.0.0.1", ports[i]), party, ["127.0.0.1"], partial(answer, party)))
        doors[-1].open()
    work = partial(rounds, count=20, largest=5_000, pause=0)
    found = run_threads([partial(session, path, work) for path in paths], limit=200)
    for door in doors:
        door.close()
    assert found == [(["done"] * 3, 0)] * 2


@pytest.mark.parametrize(
    "line",
    [
        b"spuvm/1 to\n",
        b"spuvm/1 to s alice\n",
        b"spuvm/1 via s alice bob\n",
        b"spuvm/1 to ../s alice bob\n",
        b"spuvm/1 to s alice bob carol\n",
        b"spuvm/1 to s alice bob",
        b"spuvm/2 to s alice bob\n",
        b"s" * 1000,
        b"s\xff\n",
        b"s\n",
        b"",
    ],
)
def test_lines_that_are_none(line: bytes) -> None:
    with pytest.raises(OSError, match="no line of spuvm"):
        parse(line)
    here, there = socket.socketpair()
    with here, there:
        there.sendall(line)
        there.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError):  # noqa: PT011  # closed, or no line
            hear(here, 0.2)


def test_a_line_takes_nothing_of_what_follows() -> None:
    line = FirstLine("to", "s", "alice", "bob")
    here, there = socket.socketpair()
    with here, there:
        there.sendall(bytes(line) + b"\x16\x03")
        assert hear(here, 3) == line
        assert hear(here, 3) is None
        assert here.recv(10) == b"\x16\x03"


def test_who_trickles_a_line_is_given_no_more_time() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"s")
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            hear(here, 0.2)
        assert time.monotonic() - start < 5


def test_lines_of_other_sessions_and_parties_are_not_let_in(tmp_path: Path) -> None:
    cluster = load_cluster(hide(make_cluster(tmp_path, PARTIES), "bob"))
    mine = of_cluster(cluster, "alice")
    name = cluster.meeting
    assert mine.admits(FirstLine("both", name, "bob", "alice"))
    assert mine.admits(FirstLine("to", name, "carol", "alice"))
    for line in (
        FirstLine("both", name, "carol", "alice"),  # who can be reached
        FirstLine("both", "other", "bob", "alice"),
        FirstLine("both", name, "bob", "carol"),
        FirstLine("at", name, "bob", "alice"),  # which is for relays
        FirstLine("to", name, "bob", "carol"),
        FirstLine("to", name, "alice", "alice"),
        FirstLine("to", name, "mallory", "alice"),
    ):
        assert not mine.admits(line), line


def test_a_relay_keeps_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "WAITING", 5)
    (port,) = free_ports(1)
    at = Address("127.0.0.1", port)
    with Relay(at, joined=2) as relay, ExitStack() as stack:

        def dial(verb: str, name: str) -> socket.socket:
            sock = stack.enter_context(socket.create_connection((at.host, at.port), 5))
            sock.sendall(bytes(FirstLine(verb, name, "alice", "bob")))
            return sock

        waiting = [dial("at", f"s{i}") for i in range(12)]
        _until(lambda: {k[0] for k in relay._waiting} == {f"s{i}" for i in range(7, 12)})
        wanting = [dial("to", f"s{i}") for i in (7, 8)]
        _until(lambda: len(relay._pairs) == 2)
        assert dial("to", "s9").recv(1) == b""  # too many
        assert dial("to", "s1").recv(1) == b""  # nobody waits
        assert dial("to", "s9").recv(1) == b""
        wanting[0].close()
        waiting[7].close()
        _until(lambda: len(relay._pairs) == 1)


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("outward = true", 'outward = true\naddress = "127.0.0.1:1"'), "neither `address` nor `listen`"),
        (("outward = true", "outward = 1"), "`outward` of"),
        (("outward = true", ""), "lacks `address`; or set `outward = true`"),
        (("relay = ", "# relay = "), "set `relay`"),
        (('relay = "127.0.0.1:1"', 'relay = "127.0.0.1"'), "`relay` of"),
        (('relay = "127.0.0.1:1"', 'relay = "127.0.0.1:1"\nsession = "a b"'), "`session` in"),
    ],
)
def test_cluster_files_that_are_wrong(tmp_path: Path, change: tuple[str, str], why: str) -> None:
    path = hide(make_cluster(tmp_path, PARTIES), "bob", "carol", more='relay = "127.0.0.1:1"\n')
    load_cluster(path)
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ConfigError, match=re.escape(why)):
        load_cluster(path)


def test_a_party_that_does_not_come_is_named() -> None:
    mine = Ways("alice", {"alice": Address("127.0.0.1", 1), "bob": None}, None, "s", False)
    with pytest.raises(OSError, match="can only connect outwards"):
        mine.open("bob", 0.01)
