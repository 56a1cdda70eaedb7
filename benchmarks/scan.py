"""What a scan of a service's port costs a job that runs: `make scan`.

    python benchmarks/scan.py                   jobs with and without the scan in turn, five pairs

Three services on this machine; the same job is run again and again, in turn alone and while the port that serves it is
scanned: 10,000 malformed requests, a thousand connections that say nothing, fifty that say a byte a second. The scanner
gives way to the jobs, as it shares their cores here. Printed are the seconds of each; the exit status is 1 if the scan
adds more than `--within` of the median, or if the service keeps files open.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from soak import PARTIES, Three, size

REQUESTS, IDLE, SLOW = 10_000, 1_000, 50
NOISE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # a beginning of TLS, and nothing that follows
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /jobs HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
    b"\x00" * 200,
    b"\xff" * 4096,
    b"spuvm session=../../x from=alice to=bob\n",
    b"a" * 9000,
    b"",
)
PACE = 300.0  # malformed requests a second: a scanner's, not a flood


class Scan:
    """Scans an address from threads of its own until it is left; `sent` counts malformed requests."""

    def __init__(self, host: str, port: int) -> None:
        self._at, self._over, self.sent = (host, port), threading.Event(), 0
        self._socks: list[socket.socket] = []
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._idle, self._slow, self._malformed)]

    def __enter__(self) -> Scan:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        for sock in self._socks:
            sock.close()

    def _dial(self) -> socket.socket | None:
        with suppress(OSError):
            return socket.create_connection(self._at, 5)
        return None

    def _idle(self) -> None:
        """Connections that say nothing; those that were shown out come again."""
        held: list[socket.socket] = []
        while not self._over.is_set():
            while len(held) < IDLE and not self._over.is_set():
                if (sock := self._dial()) is None:
                    break
                sock.setblocking(False)
                held.append(sock)
            self._over.wait(1)
            held = [s for s in held if _is_open(s) or s.close()]  # type: ignore[func-returns-value]
        self._socks += held

    def _slow(self) -> None:
        """Connections that begin TLS a byte a second."""
        held = [s for s in (self._dial() for _ in range(SLOW)) if s is not None]
        self._socks += held
        for byte in NOISE[0]:
            for sock in held:
                with suppress(OSError):
                    sock.sendall(bytes([byte]))
            if self._over.wait(1):
                return

    def _malformed(self) -> None:
        """One after another, every fourth over TLS without a certificate."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        begun = time.monotonic()
        while not self._over.is_set() and self.sent < REQUESTS:
            if (sock := self._dial()) is not None:
                with suppress(OSError), sock:
                    if self.sent % 4 == 3:
                        sock = tls.wrap_socket(sock, server_hostname="alice", do_handshake_on_connect=False)
                        sock.settimeout(0.2)
                        sock.do_handshake()
                    sock.sendall(NOISE[self.sent % len(NOISE)])
            self.sent += 1
            self._over.wait(max(0.0, begun + self.sent / PACE - time.monotonic()))


@contextmanager
def beside(host: str, port: int) -> Iterator[list[int]]:
    """A scan from a process of its own that gives way to all others, as one of another machine takes no time here.

    After the block the list has how many malformed requests were sent.
    """
    argv = [sys.executable, __file__, "--scan", f"{host}:{port}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        sent: list[int] = []
        yield sent
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        sent.append(int(process.stdout.read()))


def until_told(address: str) -> None:
    """Scan until nothing more can come from standard input, and at least so long that a fifth was sent."""
    os.nice(19)
    host, _, port = address.rpartition(":")
    with Scan(host, int(port)) as scan:
        sys.stdin.read()
        while scan.sent < REQUESTS // 5:
            time.sleep(0.05)
    print(scan.sent)


def _is_open(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def seconds_of_a_job(three: Three, kind: str) -> float:
    """From asking until all parties have finished it."""
    start = time.perf_counter()
    id = three.submit(kind, "alice")
    for party in PARTIES:
        while (state := three.ask(party, f"/api/jobs?begins={id}")) == [] or state[0]["state"] in (
            *("waiting", "approved", "running"),
        ):
            time.sleep(0.02)
        if state[0]["state"] != "done":
            raise SystemExit(f"the job {state[0]['state']} at {party}: {state[0]['reason']}")
    return time.perf_counter() - start


def scanned(three: Three, kind: str, pairs: int) -> tuple[list[float], list[float], int]:
    """Seconds of jobs alone and during a scan of alice's port, in turn; how many malformed requests were sent."""
    at = three.settings["alice"].listen
    assert at is not None
    seconds_of_a_job(three, kind)  # which compiles
    alone, during, sent = [], [], 0
    for _ in range(pairs):
        alone.append(seconds_of_a_job(three, kind))
        with beside(at.host, at.port) as told:
            time.sleep(4)  # until the crowd is there
            during.append(seconds_of_a_job(three, kind))
        sent += told[0]
        time.sleep(1)
        print(f"alone {alone[-1]:6.2f} s   scanned {during[-1]:6.2f} s", flush=True)
    return alone, during, sent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--kind", default="psi", help="Of job, as in benchmarks/soak.py.")
    parser.add_argument("--within", type=float, default=0.10)
    parser.add_argument("--scan", metavar="HOST:PORT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.scan:
        until_told(given.scan)
        return 0
    with tempfile.TemporaryDirectory(prefix="spuvm-scan-") as folder:
        three = Three(Path(folder), parallel=2)
        try:
            for party in PARTIES:
                three.start(party)
            for party in PARTIES:
                three.wait_until_up(party)
            before = size(three.processes["alice"].pid)
            alone, during, sent = scanned(three, given.kind, given.pairs)
            time.sleep(5)
            after = size(three.processes["alice"].pid)
        finally:
            three.stop()
    more = statistics.median(during) / statistics.median(alone) - 1
    print(f"{sent:,} malformed requests, {IDLE:,} idle connections, {SLOW} slow ones; median job {more:+.1%}")
    print(f"alice: MiB and open files {before} before, {after} after")
    return more > given.within or after[1] > before[1] + 20


if __name__ == "__main__":
    sys.exit(main())
