"""Limits of bandwidth by peer, and compression: by the bytes that left and the time that it took."""

from __future__ import annotations

import fcntl
import re
import struct
import time
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from services import folder
from test_resume import session

from spuvm.runtime.errors import ConfigError, PeerMismatchError
from spuvm.runtime.link.certificates import make_cluster
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.link import Kind
from spuvm.runtime.link.tls.link import TlsLink
from spuvm.runtime.link.tls.pace import Pace
from spuvm.runtime.link.tls.packed import LENGTH, pack, unpack
from spuvm.runtime.link.tls.stream import HEADER, MAGIC, PROTOCOL_VERSION
from spuvm.service import runner, settings
from spuvm.service.tasks import of_task

__all__ = ["folder"]

PAIR = ("alice", "bob")


def cluster(folder: Path, head: str = "", of_bob: str = "") -> Path:
    path = make_cluster(folder, PAIR, protocol="ref2k")
    path.write_text(head + path.read_text().replace("[parties.bob]", f"[parties.bob]\n{of_bob}"))
    return path


def exchange(link: TlsLink, tables: list[np.ndarray]) -> tuple[dict[int, int], float]:
    """Both say the same tables; the bytes on the wire, and the seconds."""
    before, start = dict(link.on_wire), time.monotonic()
    (peer,) = link.peers
    for table in tables:
        heard = np.zeros_like(table)
        link.exchange({peer: [table]}, {peer: [heard]})
        assert np.array_equal(heard, table)
    link.settle()
    return {p: n - before[p] for p, n in link.on_wire.items()}, time.monotonic() - start


def random(nbytes: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, nbytes, np.uint8)


@pytest.mark.parametrize("pieces", [1, 300])
def test_a_peer_is_sent_no_more_than_its_rate(tmp_path: Path, pieces: int) -> None:
    """What goes to bob has a rate of 250 kB a second, in one message or many; what goes to alice has none."""
    path = cluster(tmp_path, of_bob='rate = "2Mbit"')
    tables = [random(300_000 // pieces)] * pieces

    def work(link: TlsLink) -> Any:
        if pieces == 1:
            return exchange(link, tables)
        (peer,) = link.peers  # one way, as fast as it goes
        start = time.monotonic()
        for table in tables:
            heard = np.zeros_like(table)
            link.exchange({peer: [table]} if link.rank == 0 else {}, {peer: [heard]} if link.rank == 1 else {})
        link.settle()
        return dict(link.on_wire), time.monotonic() - start

    (alice, _), _ = session(path, work)
    assert alice[0][1] > 300_000
    assert alice[1] >= (300_000 - 0.05 * 250_000) / 250_000 - 0.05, "faster than allowed"
    assert alice[1] < 20


def test_sessions_share_a_rate(tmp_path: Path) -> None:
    """Two that count together get together what one gets alone."""
    sent, start = [0, 0], time.monotonic()

    def count(which: int, block: memoryview | bytes) -> int:
        sent[which] += len(block)
        return len(block)

    paces = [Pace(100_000, tmp_path / "rates" / "bob") for _ in range(2)]
    puts = [pace.through(partial(count, i)) for i, pace in enumerate(paces)]
    while time.monotonic() < start + 0.5:
        for put in puts:
            try:
                put(bytes(2_000))
            except BlockingIOError:
                time.sleep(0.002)
    took = time.monotonic() - start
    for pace in paces:
        pace.close()
    assert 4_000 <= sum(sent) <= (took + 0.05) * 100_000 + 1
    assert min(sent) > 0


def test_a_moment_of_before_the_machine_started_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "bob"
    path.write_bytes(struct.pack("<d", 1e12))
    pace = Pace(100_000, path)
    assert pace.through(len)(bytes(100)) == 100
    pace.close()


def test_a_session_that_was_stopped_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has the account in his hands and does not go on: the others count each for itself after a while."""
    monkeypatch.setattr("spuvm.runtime.link.tls.pace.HELD", 0.05)
    path = tmp_path / "bob"
    pace = Pace(100_000, path)
    put = pace.through(len)
    with path.open("rb") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            put(bytes(100))
        time.sleep(0.1)
        assert put(bytes(100)) == 100
        assert put(bytes(50_000)) <= 5_000
    assert path.read_bytes() == b""
    assert put(bytes(100)) == 100
    assert len(path.read_bytes()) == 8  # together again
    pace.close()


@pytest.mark.parametrize("nbytes", [1_000, 60_000, 9_000_000])
def test_what_compresses_is_compressed_and_shares_are_not(tmp_path: Path, nbytes: int) -> None:
    table, shares = np.arange(nbytes // 8, dtype=np.int64) // 100, random(nbytes)

    def work(link: TlsLink) -> Any:
        packed, _ = exchange(link, [table])
        as_is, _ = exchange(link, [shares])
        both, _ = exchange(link, [table, shares, table])
        return packed, as_is, both, dict(link.counters.bytes_sent)

    results, _ = session(cluster(tmp_path, "compress = true\ngrace_seconds = 20\n"), work)
    for rank, (packed, as_is, both, counted) in enumerate(results):
        (peer,) = packed.keys()
        assert peer == 1 - rank
        assert counted[peer] == 3 * table.nbytes + 2 * shares.nbytes  # the account is of what was said
        assert as_is[peer] >= shares.nbytes
        assert packed[peer] < table.nbytes / 5 if nbytes > 4096 else packed[peer] >= table.nbytes
        assert abs(both[peer] - 2 * packed[peer] - as_is[peer]) < 0.01 * nbytes + 1000


def test_frames_are_packed_and_unpacked() -> None:
    frame = [memoryview(b"a" * 5000), memoryview(b"bc" * 3000)]
    packed = pack(frame)
    assert packed is not None and len(packed) < 200
    assert unpack(packed, 11_000) == b"a" * 5000 + b"bc" * 3000
    assert pack([memoryview(random(100_000).tobytes())]) is None
    assert pack([memoryview(b"a" * 100)]) is None
    for wrong in (
        b"",
        packed[:3],
        packed[:-1],
        packed + b"x",
        LENGTH.pack(10) + packed[4:],
        LENGTH.pack(0) + packed[4:],
    ):
        with pytest.raises(ValueError, match="it "):
            unpack(wrong, 11_000)
    with pytest.raises(ValueError, match="too long"):
        unpack(packed, 10_999)


@pytest.mark.parametrize("body", [b"", b"abcd", LENGTH.pack(1 << 30) + zlib.compress(bytes(1 << 20))])
def test_a_peer_that_sends_something_else_as_packed_is_named(tmp_path: Path, body: bytes) -> None:
    def work(link: TlsLink) -> Any:
        if link.rank == 0:
            sender = link._senders[1]
            sender._sequence += 1
            head = HEADER.pack(MAGIC, PROTOCOL_VERSION, Kind.PACKED, sender._sequence, len(body), 8)
            sender.channel.sock.sendall(sender.channel.record(head + body))
            time.sleep(0.5)
            return None
        link.exchange({}, {0: [np.zeros(8, np.uint8)]})
        return None

    results, _ = session(cluster(tmp_path), work)
    assert isinstance(results[1], PeerMismatchError) and "alice sent a compressed frame" in str(results[1])


@pytest.mark.parametrize("rate", ["50", "50 Mbit", "0Mbit", "1kbit", "-1Mbit", "50MB", ""])
def test_rates_that_are_none(tmp_path: Path, rate: str) -> None:
    with pytest.raises(ConfigError, match=r"`rate` of \[parties.bob\]"):
        load_cluster(cluster(tmp_path, of_bob=f'rate = "{rate}"'))


def test_compress_is_yes_or_no(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`compress` in"):
        load_cluster(cluster(tmp_path, 'compress = "yes"\n'))


TASK = """[job]
kind = "psi"
parties = ["alice", "bob", "carol"]
to = ["alice"]
key = { alice = ["x"], bob = ["x"] }
"""


def test_a_service_hands_its_rates_to_its_jobs(folder: Path) -> None:
    """All jobs count in one folder; what is wrong in the table is said."""
    path = folder / "alice" / "service.toml"
    before = path.read_text()
    path.write_text(f'compress = true\n{before}[rates]\nbob = "50Mbit"\n')
    alice = settings.load(path)
    written = folder / "alice" / "cluster.toml"
    written.write_text(runner._cluster(alice, of_task(TASK), "job", "s", folder / "door"))
    made = load_cluster(written)
    assert {p.name: p.rate for p in made.parties} == {"alice": None, "bob": 6.25e6, "carol": None}
    assert made.compress and made.shared_rates == (alice.state / "rates").absolute()
    for wrong, why in (
        ('[rates]\nbob = "50"\n', "like '50Mbit'"),
        ('[rates]\nmallory = "50Mbit"\n', "mallory, which is no peer"),
        ('[rates]\nalice = "50Mbit"\n', "alice, which is no peer"),
        ("[rates]\nbob = 50\n", "`rates` must be a table in which `bob` is a text"),
    ):
        path.write_text(before + wrong)
        with pytest.raises(ConfigError, match=re.escape(why)):
            settings.load(path)
    path.write_text(f'compress = "yes"\n{before}')
    with pytest.raises(ConfigError, match="`compress` must be true or false"):
        settings.load(path)
