"""Links of processes of this machine as slow as real ones: in, a cluster file and a speed; out, one for each party.

Each party reaches its peers through listeners of its own, which pass bytes on later: the bytes of one party leave one
after another at the width of its line, whoever they go to, and arrive after the delay.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from threading import Lock, Thread

from spuvm.compiler.seconds import Speed
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.parties import Cluster

CHUNK = 1 << 16
AHEAD = 256  # chunks that are under way at most, of one connection
Way = tuple[socket.socket, socket.socket]


class Line:
    """A party's line out: when the last bit of so many bytes has left."""

    def __init__(self, width: float) -> None:
        self._width, self._free, self._lock = width, 0.0, Lock()

    def leaves(self, nbytes: int) -> float:
        with self._lock:
            self._free = max(self._free, time.monotonic()) + 8 * nbytes / self._width
            return self._free


class Slow:
    """A listener whose connections are passed on to `port`, one way by each side's line."""

    def __init__(self, port: int, near: Line, far: Line, delay: float) -> None:
        self._port, self._lines, self._delay = port, (near, far), delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._ways: dict[Way, int] = {}  # and how many directions are open
        self._lock = Lock()
        self._start(self._accept)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> int:
        """End all connections; how many."""
        with self._lock:
            for sock in (sock for way in self._ways for sock in way):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            return len(self._ways)

    def _start(self, *work: object) -> None:
        Thread(target=work[0], args=work[1:], daemon=True).start()  # type: ignore[arg-type]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                outer, _ = self._listener.accept()
                try:
                    inner = socket.create_connection(("127.0.0.1", self._port), 5)
                except OSError:
                    outer.close()
                    continue
                inner.settimeout(None)
                with self._lock:
                    self._ways[outer, inner] = 2
                for line, source, target in zip(self._lines, (outer, inner), (inner, outer)):
                    target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    queue: Queue[tuple[float, bytes]] = Queue(AHEAD)
                    self._start(self._take, source, queue, line)
                    self._start(self._give, source, target, queue, (outer, inner))

    def _take(self, source: socket.socket, queue: Queue[tuple[float, bytes]], line: Line) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                queue.put((line.leaves(len(data)) + self._delay, data))
        queue.put((0.0, b""))

    def _give(self, source: socket.socket, target: socket.socket, queue: Queue[tuple[float, bytes]], way: Way) -> None:
        try:
            while (due := queue.get())[1]:
                time.sleep(max(0.0, due[0] - time.monotonic()))
                target.sendall(due[1])
        except OSError:  # what still comes has nowhere to go
            with suppress(OSError):
                source.shutdown(socket.SHUT_RDWR)
            while queue.get()[1]:
                pass
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        self._ended(way)

    def _ended(self, way: Way) -> None:
        """One direction of a connection: after the second it is closed."""
        with self._lock:
            self._ways[way] -= 1
            if not self._ways[way]:
                del self._ways[way]
                for sock in way:
                    sock.close()


@contextmanager
def shaped(path: Path, speed: Speed) -> Iterator[Mapping[str, Path]]:
    """By party its cluster file, in which peers are reached over slow links, while the block runs."""
    cluster: Cluster = load_cluster(path)
    lines = {party.name: Line(speed.width) for party in cluster.parties}
    opened: list[Slow] = []
    out: dict[str, Path] = {}
    try:
        for me in cluster.names:
            text = path.read_text()
            for peer in cluster.parties:
                if peer.name != me and peer.address is not None:
                    slow = Slow(peer.address.port, lines[me], lines[peer.name], speed.delay)
                    opened.append(slow)
                    text = re.sub(rf'(?m)^address = "127\.0\.0\.1:{peer.address.port}"$', _at(slow.port), text)
            out[me] = path.with_name(f"cluster_{me}.toml")
            out[me].write_text(text)
        yield out
    finally:
        for slow in opened:
            slow.close()


def _at(port: int) -> str:
    return f'address = "127.0.0.1:{port}"'
