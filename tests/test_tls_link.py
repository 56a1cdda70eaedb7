"""TLS links: who is let in, what is said when something is wrong, and what happens when a process dies."""

import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from parties import run_threads

from spuvm.runtime.errors import (
    CertificateError,
    ConfigError,
    LinkError,
    PeerAbortedError,
    PeerLostError,
    PeerMismatchError,
    PeerTimeoutError,
)
from spuvm.runtime.legible import legible
from spuvm.runtime.link import certificates
from spuvm.runtime.link.certificates import free_ports, issue, make_authority, make_cluster
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.link import MAX_REASON
from spuvm.runtime.link.tls.channel import Channel, in_words, make_context
from spuvm.runtime.link.tls.connect import connect

PARTIES = ("alice", "bob", "carol")


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    return make_cluster(tmp_path, PARTIES)


def join_all(paths: dict[str, Path], timeout: float = 60) -> dict[str, Any]:
    """Connect every party in a thread, long before the limit of a wait; "connected" or the error."""

    def join(party: str, path: Path) -> str:
        with connect(load_cluster(path), party, timeout=timeout) as link:
            link.agree("start", b"")
            return "connected"

    start = time.monotonic()
    results = run_threads([partial(join, *item) for item in paths.items()], limit=90)
    assert time.monotonic() - start < 45
    return dict(zip(paths, results))


def everyone(path: Path) -> dict[str, Path]:
    return dict.fromkeys(PARTIES, path)


def copy_for(path: Path, name: str, change: Callable[[str], str]) -> Path:
    """A cluster file that differs for one party."""
    other = path.with_name(name)
    other.write_text(change(path.read_text()))
    return other


def assert_bob_is_refused(results: dict[str, Any], peers_say: str, bob_is_told: str) -> None:
    """Bob and at least one peer name the certificate; the other peer may hear of it from the first."""
    assert isinstance(results["bob"], CertificateError), results
    assert bob_is_told in str(results["bob"])
    others = [results["alice"], results["carol"]]
    assert all(isinstance(error, CertificateError | PeerAbortedError) for error in others), results
    assert any(isinstance(error, CertificateError) for error in others)
    for error in others:
        assert "bob" in str(error)
        assert peers_say in str(error)


def test_expired_certificate(cluster_file: Path) -> None:
    issue(cluster_file.parent, "bob", days=-1)
    results = join_all(everyone(cluster_file))
    assert_bob_is_refused(results, "certificate has expired (subject CN=bob", "rejected the certificate of bob")
    assert "certificate expired (bob.crt: subject CN=bob, issued by CN=spuvm authority" in str(results["bob"])
    assert "Issue a new certificate" in str(results["bob"])


def test_certificate_of_another_authority(cluster_file: Path, tmp_path: Path) -> None:
    make_authority(tmp_path / "other")
    certificate = issue(tmp_path / "other", "bob")
    for suffix in (".crt", ".key"):
        certificate.with_suffix(suffix).rename(tmp_path / f"bob{suffix}")
    results = join_all(everyone(cluster_file))
    assert_bob_is_refused(results, "must come from the same authority", "issued by an authority unknown there")


def test_one_party_trusts_another_authority(cluster_file: Path, tmp_path: Path) -> None:
    make_authority(tmp_path / "other")
    issue(tmp_path / "other", "bob")
    for file in ("ca.crt", "bob.crt", "bob.key"):
        (tmp_path / "other" / file).rename(tmp_path / f"other-{file}")

    def change(text: str) -> str:
        return text.replace('"ca.crt"', '"other-ca.crt"').replace('"bob.', '"other-bob.')

    paths = everyone(cluster_file) | {"bob": copy_for(cluster_file, "bob.toml", change)}
    results = join_all(paths)
    assert_bob_is_refused(results, "authority", "authority")


def test_certificate_of_another_party(cluster_file: Path, tmp_path: Path) -> None:
    for suffix in (".crt", ".key"):
        (tmp_path / f"bob{suffix}").write_bytes((tmp_path / f"carol{suffix}").read_bytes())
    results = join_all(everyone(cluster_file))
    assert_bob_is_refused(results, "it is another party's (subject CN=carol", "it is another party's")


def test_certificate_that_names_no_party(cluster_file: Path, tmp_path: Path) -> None:
    issue(tmp_path, "mallory")
    for suffix in (".crt", ".key"):
        (tmp_path / f"mallory{suffix}").rename(tmp_path / f"bob{suffix}")
    results = join_all(everyone(cluster_file))
    assert_bob_is_refused(results, "it is another party's (subject CN=mallory", "it is another party's")


def test_the_dns_name_alone_is_enough(cluster_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = certificates.name_of
    monkeypatch.setattr(certificates, "name_of", lambda _: name("Bob and Sons"))
    issue(cluster_file.parent, "bob")
    assert set(join_all(everyone(cluster_file)).values()) == {"connected"}


def test_a_common_name_does_not_count_beside_a_dns_name(cluster_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = certificates.name_of
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "name_of", lambda _: name("bob"))
        issue(cluster_file.parent, "mallory")
    for suffix in (".crt", ".key"):
        (cluster_file.parent / f"mallory{suffix}").rename(cluster_file.parent / f"bob{suffix}")
    results = join_all(everyone(cluster_file))
    assert_bob_is_refused(results, "it is another party's (subject CN=bob", "it is another party's")


def test_different_party_lists(cluster_file: Path) -> None:
    def reorder(text: str) -> str:
        head, alice, bob, carol = text.split("\n\n")
        return "\n\n".join((head, bob, alice, carol))

    paths = everyone(cluster_file) | {"bob": copy_for(cluster_file, "bob.toml", reorder)}
    results = join_all(paths)
    assert all(isinstance(e, PeerMismatchError | PeerAbortedError) for e in results.values()), results
    assert isinstance(results["bob"], PeerMismatchError)
    assert "differ in `parties`" in str(results["bob"])
    assert all("differ in `parties`" in str(e) for e in results.values())


def test_different_versions(cluster_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(_: str) -> str:
        return "0.2" if threading.current_thread().name.endswith("of bob") else "0.1"

    monkeypatch.setattr("importlib.metadata.version", version)
    results = join_all(everyone(cluster_file))
    assert isinstance(results["bob"], PeerMismatchError)
    assert all("differ in `package`" in str(e) for e in results.values())


def test_absent_party_is_named(cluster_file: Path) -> None:
    results = join_all(dict.fromkeys(("alice", "bob"), cluster_file), timeout=1)
    address = load_cluster(cluster_file).parties[2].address
    assert address is not None
    assert any(isinstance(e, PeerTimeoutError) for e in results.values())
    for error in results.values():
        assert isinstance(error, PeerTimeoutError | PeerAbortedError)
        assert f"carol has not come at {address} (Connection refused)" in str(error)
        assert "timeout_seconds" in str(error)


def test_port_in_use(cluster_file: Path) -> None:
    address = load_cluster(cluster_file).parties[0].address
    assert address is not None
    with (
        socket.create_server((address.host, address.port)),
        pytest.raises(LinkError, match=r"Cannot listen at .*Address already in use.*free port"),
    ):
        connect(load_cluster(cluster_file), "alice", timeout=1)


def test_a_key_of_another_certificate_is_refused(cluster_file: Path, tmp_path: Path) -> None:
    (tmp_path / "alice.key").write_bytes((tmp_path / "bob.key").read_bytes())
    with pytest.raises(ConfigError, match="give a PEM certificate and its own key"):
        connect(load_cluster(cluster_file), "alice", timeout=1)


def test_strangers_do_not_disturb(cluster_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cluster = load_cluster(cluster_file)
    results: dict[str, Any] = {}

    def alice() -> None:
        with connect(cluster, "alice", timeout=10) as link:
            link.agree("start", b"")
            results["alice"] = "connected"

    thread = threading.Thread(target=alice)
    thread.start()
    strangers = []
    address = cluster.parties[0].address
    assert address is not None
    for words in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(300), b"", b"\x16\x03\x01"):
        while True:
            try:
                stranger = socket.create_connection((address.host, address.port))
                break
            except ConnectionRefusedError:
                time.sleep(0.01)
        stranger.sendall(words)
        strangers.append(stranger)  # the last two stay, saying nothing more
    strangers[0].close()
    strangers[1].close()
    time.sleep(0.2)
    results |= join_all(dict.fromkeys(("bob", "carol"), cluster_file))
    thread.join(10)
    assert results == dict.fromkeys(PARTIES, "connected")
    assert "dropped a connection from 127.0.0.1" in caplog.text
    for stranger in strangers:
        stranger.close()


PARTY_PROCESS = """
import sys, warnings
warnings.simplefilter("error")
import numpy as np
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.errors import SpuError
from spuvm.runtime.link.tls.connect import connect

path, party, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
with connect(load_cluster(path), party) as link:
    data, got = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    link.agree("start", b"")
    print("running", flush=True)
    try:
        while True:
            link.exchange({(link.rank + 1) % 3: [data]}, {(link.rank - 1) % 3: [got]})
    except SpuError as error:
        print(type(error).__name__, error, flush=True)
"""


@pytest.mark.usefixtures("preloaded")
@pytest.mark.parametrize("size", [8, 50_000_000])
def test_killed_process_stops_the_others(cluster_file: Path, size: int) -> None:
    command = [sys.executable, "-c", PARTY_PROCESS, str(cluster_file)]
    processes = [
        subprocess.Popen([*command, party, str(size)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for party in PARTIES
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
        time.sleep(0.5)
        processes[2].send_signal(signal.SIGKILL)
        start = time.monotonic()
        outputs = [process.communicate(timeout=10) for process in processes]
        assert time.monotonic() - start < 5
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    for out, err in outputs[:2]:
        assert err == ""
        assert out.startswith(("PeerLostError", "PeerAbortedError")), out
        assert "Lost carol in round" in out


def test_a_killed_peer_is_lost_while_nothing_is_awaited_of_it(cluster_file: Path) -> None:
    cluster = load_cluster(cluster_file)
    errors: dict[str, Any] = {}
    barrier = threading.Barrier(3)

    def party(name: str) -> None:
        with connect(cluster, name, timeout=10) as link:
            barrier.wait(10)
            if name == "carol":
                for sender in link._senders.values():
                    sender.channel.hang_up()
                link._failure = LinkError("dead")
                return
            try:
                link.exchange({}, {1 - link.rank: [np.zeros(8, np.uint8)]})
            except LinkError as error:
                errors[name] = error

    threads = [threading.Thread(target=party, args=(name,)) for name in PARTIES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert {type(e) for e in errors.values()} <= {PeerLostError, PeerAbortedError}
    assert len(errors) == 2
    assert all("Lost carol" in str(e) for e in errors.values())


def test_connections_are_tls_1_3_with_certificates_on_both_sides(cluster_file: Path) -> None:
    cluster = load_cluster(cluster_file)
    seen: list[Any] = []

    def party(name: str) -> None:
        with connect(cluster, name, timeout=10) as link:
            channels = [sender.channel for sender in link._senders.values()]
            for channel in (*channels, *(receiver.channel for receiver in link._receivers.values())):
                tls = channel.tls
                seen.append((tls.version(), bool(tls.getpeercert()), tls.compression()))
            link.agree("end", b"")

    threads = [threading.Thread(target=party, args=(name,)) for name in PARTIES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [("TLSv1.3", True, None)] * 12


def test_nothing_below_tls_1_3_and_nobody_without_a_certificate_is_let_in(cluster_file: Path) -> None:
    folder = cluster_file.parent
    server = make_context(ssl.PROTOCOL_TLS_SERVER, folder / "ca.crt", folder / "alice.crt", folder / "alice.key")
    old, anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (old, anonymous):
        context.check_hostname = False
        context.load_verify_locations(folder / "ca.crt")
    old.load_cert_chain(folder / "bob.crt", folder / "bob.key")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for context, reason in ((old, "unsupported protocol|version"), (anonymous, "did not return a certificate")):
        ours, theirs = socket.socketpair()
        stranger = threading.Thread(target=handshake_and_close, args=(theirs, context))
        stranger.start()
        # A stand-in for the TCP option, which a pair of local sockets lacks.
        channel = Channel(cast(Any, Local(ours)), server, server_side=True, seconds=5)
        with pytest.raises(ssl.SSLError) as error:
            channel.handshake()
        assert re.search(reason, in_words(error.value))
        channel.close()
        stranger.join(5)


def test_a_stranger_who_trickles_is_given_no_more_time(cluster_file: Path) -> None:
    folder = cluster_file.parent
    context = make_context(ssl.PROTOCOL_TLS_SERVER, folder / "ca.crt", folder / "alice.crt", folder / "alice.key")
    ours, theirs = socket.socketpair()
    channel = Channel(cast(Any, Local(ours)), context, server_side=True, seconds=0.3)
    hello = b"\x16\x03\x01\x02\x00\x01" + bytes(100)

    def trickle() -> None:
        with suppress(OSError):
            for byte in hello:
                theirs.send(bytes([byte]))
                time.sleep(0.1)

    thread = threading.Thread(target=trickle)
    thread.start()
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        channel.handshake()
    assert time.monotonic() - start < 8  # all of it would take ten
    channel.close()
    thread.join(5)
    theirs.close()


class Local:
    """A local socket that takes TCP's options."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def setsockopt(self, *_: int) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def handshake_and_close(sock: socket.socket, context: ssl.SSLContext) -> None:
    with suppress(OSError), context.wrap_socket(sock) as tls:
        tls.recv(1)


def test_one_key_is_advised_against_after_so_many_records(
    cluster_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("spuvm.runtime.link.tls.channel.ADVISED_BYTES", 1_000_000)
    cluster = load_cluster(cluster_file)

    def party(name: str) -> None:
        with connect(cluster, name, timeout=10) as link:
            if name == "alice":
                link.exchange({1: [np.zeros(900_000, np.uint8)]}, {})
                link.agree("quiet", b"")
                assert not caplog.records
                link.exchange({1: [np.zeros(200_000, np.uint8)]}, {})
            else:
                sizes = (900_000, 200_000) if name == "bob" else ()
                for i, n in enumerate(sizes):
                    link.exchange({}, {0: [np.zeros(n, np.uint8)]})
                    if i == 0:
                        link.agree("quiet", b"")
                if name == "carol":
                    link.agree("quiet", b"")
            link.agree("end", b"")

    threads = [threading.Thread(target=party, args=(name,)) for name in PARTIES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert "join anew for new keys" in caplog.text


def test_what_a_peer_says_cannot_control_the_terminal() -> None:
    assert legible("no\x1b[2J such\ncolumn é\u202e") == "no?[2J such?column é?"
    assert legible("a\nb\x85", lines=True) == "a\nb?"
    assert len(legible("x" * 10**6, MAX_REASON)) == MAX_REASON


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(5))) == 5


def test_abort_interrupts_long_messages(cluster_file: Path) -> None:
    """Bob stops while alice's message to him is under way."""
    cluster = load_cluster(cluster_file)
    errors: dict[str, Any] = {}
    big = np.zeros(60_000_000, np.uint8)

    def party(name: str) -> None:
        with connect(cluster, name, timeout=10) as link:
            link.agree("start", b"")
            try:
                if name == "alice":
                    link.exchange({1: [big]}, {})
                elif name == "bob":
                    time.sleep(0.3)
                    link.abort("InputError: no such column")
                else:
                    link.exchange({}, {1: [np.zeros(8, np.uint8)]})
            except LinkError as error:
                errors[name] = error

    start = time.monotonic()
    threads = [threading.Thread(target=party, args=(name,)) for name in PARTIES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert time.monotonic() - start < 5
    assert {type(e) for e in errors.values()} == {PeerAbortedError}
    assert len(errors) == 2
    assert all("bob stopped" in str(e) and "no such column" in str(e) for e in errors.values())


def test_a_message_in_progress_ends_early_when_its_sender_stops(cluster_file: Path) -> None:
    """Alice is sending to bob when carol stops: bob hears it between two frames of alice's message."""
    cluster = load_cluster(cluster_file)
    errors: dict[str, Any] = {}

    def party(name: str) -> None:
        with connect(cluster, name, timeout=10) as link:
            link.agree("start", b"")
            try:
                if name == "carol":
                    time.sleep(0.1)
                    link.abort("InputError: no such column")
                while True:
                    data = np.zeros(200_000_000, np.uint8)
                    if name == "alice":
                        link.exchange({1: [data]}, {})
                    else:
                        link.exchange({}, {0: [data]})
            except LinkError as error:
                errors[name] = error

    threads = [threading.Thread(target=party, args=(name,)) for name in PARTIES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert all("no such column" in str(e) for e in errors.values()), errors
    assert len(errors) == 3
