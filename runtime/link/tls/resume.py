"""Connections that were lost are taken up again: in, how much a peer has; out, a new connection that goes on there.

What a party says over a connection is one sequence of bytes. The sender keeps those that its peer has not confirmed
(`Log`); the receiver counts what it took. When a connection ends without a farewell, or has carried as many records as
its cipher should, the party that dialed it dials again (`Mender`), proves who it is as ever, and says which connection
it means by a token that the two drew when the session began. The other answers with its count, and the bytes after it
come again. They are the same bytes under new TLS keys: no mask of the protocol meets another plaintext, and no record
is encrypted twice under one key. All within `grace_seconds` of the cluster file; 0: a lost connection ends the session.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from threading import Lock

from spuvm.runtime.errors import SpuError
from spuvm.runtime.link.link import Kind
from spuvm.runtime.link.parties import Cluster
from spuvm.runtime.link.tls.channel import Channel, hang_up, in_words, make_context
from spuvm.runtime.link.tls.door import Door, Guest, for_session
from spuvm.runtime.link.tls.hello import Greeter
from spuvm.runtime.link.tls.stream import put_frame
from spuvm.runtime.link.tls.ways import Ways

COUNT = struct.Struct("<Q")
KEPT_BYTES = 1 << 30  # that a peer has not confirmed; beyond them a connection that is lost stays lost
CONFIRM_BYTES = 1 << 20  # so many that have come are confirmed at once
CONFIRM_PAUSE = 0.02  # seconds between two confirmations at least
ATTEMPT = 5.0  # seconds for one attempt
PAUSE = 0.1

log = logging.getLogger(__name__)


class Log:
    """Bytes that were sent and are not confirmed; one thread adds, another may drop.

    Of a peer that confirms nothing no more than `KEPT_BYTES` are kept.
    """

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._start = 0  # of the first chunk, in the whole sequence
        self._lock = Lock()
        self.end = 0

    def add(self, data: bytes | memoryview) -> None:
        """Keep a copy: the caller's buffer is used again."""
        with self._lock:
            self._chunks.append(bytes(data))
            self.end += len(data)
            while self.end - self._start > KEPT_BYTES:
                self._start += len(self._chunks.popleft())

    def drop(self, count: int) -> None:
        """The peer has the first `count` bytes."""
        with self._lock:
            while self._chunks and self._start + len(self._chunks[0]) <= count:
                self._start += len(self._chunks.popleft())

    def since(self, count: int) -> list[memoryview]:
        """What comes after the first `count` bytes. OSError for a count that cannot be."""
        with self._lock:
            if not self._start <= count <= self.end:
                raise OSError(errno.EPROTO, "it claims to have bytes that it cannot have")
            at, out = self._start, []
            for chunk in self._chunks:
                out.append(memoryview(chunk)[max(0, count - at) :])
                at += len(chunk)
            return [piece for piece in out if len(piece)]


class Mender:
    """Dials a peer again."""

    def __init__(self, greeter: Greeter, cluster: Cluster, ways: Ways, peer: int, token: str) -> None:
        self._greeter, self._ways = greeter, ways
        self._name = cluster.names[peer]
        self._context = make_context(ssl.PROTOCOL_TLS_CLIENT, *greeter.key_files, crl=cluster.crl)
        self._peer, self._token = peer, token
        self._grace = cluster.grace_seconds
        self._sock: socket.socket | None = None

    def connect(self, over: Callable[[], bool]) -> tuple[Channel, int] | None:
        """A new connection, and how many bytes the peer has; None if there is nothing to mend any more.

        OSError if the grace time ends; the link's errors.
        """
        end, why = time.monotonic() + self._grace, "no answer"
        if over():
            return None
        while (left := end - time.monotonic()) > 0:
            try:
                self._sock = self._ways.open(self._name, min(left, ATTEMPT))
                channel = Channel(self._sock, self._context, False, min(left, ATTEMPT))
                try:
                    count = COUNT.unpack(self._greeter.dial(channel, self._peer, resume=self._token))[0]
                    return channel, count
                except BaseException:
                    channel.close()
                    raise
            except SpuError:
                raise
            except (OSError, ValueError, struct.error) as error:
                why = in_words(error)
            if over():
                return None
            time.sleep(PAUSE)
        raise OSError(errno.ECONNRESET, f"it was not taken up again within {self._grace:g} s: {why}")

    def stop(self) -> None:
        """Break an attempt under the thread that makes it."""
        if (sock := self._sock) is not None:
            hang_up(sock)


class Reception:
    """Answers peers that dial again, while a session runs. `wake` is called when one is there."""

    def __init__(
        self, greeter: Greeter, cluster: Cluster, ways: Ways, tokens: dict[int, str], wake: Callable[[], None]
    ) -> None:
        self._greeter, self._tokens, self._wake = greeter, tokens, wake
        self._context = make_context(ssl.PROTOCOL_TLS_SERVER, *greeter.key_files, crl=cluster.crl)
        self._come: dict[int, Channel] = {}  # by peer, the last time that it came
        self._lock = Lock()
        listen = cluster.parties[cluster.rank(ways.party)].listen
        self._door = Door(listen, ways.party, ways.hosts, for_session(ways, self._answer), ways.posts())
        self._door.open()

    def close(self) -> None:
        self._door.close()
        for _, channel in self.come():
            channel.close()

    def come(self) -> Iterator[tuple[int, Channel]]:
        """Who is there again; each awaits the number of bytes that are here (`ready`)."""
        with self._lock:
            there, self._come = self._come, {}
        return iter(there.items())

    def _answer(self, guest: Guest) -> None:
        channel = Channel(guest.sock, self._context, True, ATTEMPT)
        try:
            peer = self._greeter.answer_again(channel, self._tokens)
            self._door.admit(guest)
        except (SpuError, OSError, ValueError) as error:
            log.info("dropped a connection from %s: %s", guest.host, error)
            channel.part()
            return
        with self._lock:
            before, self._come[peer] = self._come.get(peer), channel
        if before is not None:
            before.close()
        self._wake()


def ready(channel: Channel, count: int) -> None:
    """Tell a peer that dialed again how many bytes are here; OSError if it has gone."""
    put_frame(channel, Kind.READY, COUNT.pack(count))
