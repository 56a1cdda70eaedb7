"""One TCP connection for both directions between two parties, of whom one only connects outwards.

After the line `both` (`link/tls/first_line.py`) either side says frames, little endian:

    4 bytes  number of a stream: even if who dialed opened it, odd if the other did
    4 bytes  length of what follows, at most `FRAME`; 0: nothing more comes on this stream in this direction
    ...      bytes of the stream

A stream is what a connection would be: TLS runs on it from end to end, with whoever opened it as its client. Here its
end is a socket of a pair, so that nobody needs to know that it is none of TCP. In each direction one stream carries
data; what its reader does not take yet is kept, up to `SPOOL` bytes, so that it is in no other's way.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, Thread

from spuvm.runtime.link.tls.channel import BLOCK_BYTES, FAREWELL, hang_up
from spuvm.runtime.link.tls.first_line import keep_alive
from spuvm.runtime.link.tls.stream import Wake

HEAD = struct.Struct("<II")
FRAME = 1 << 16
SPOOL = 64 << 20  # bytes that wait for their readers, beyond which nothing is taken of the connection
UNSENT = 1 << 20  # bytes that wait to leave, beyond which nothing is taken of streams
STREAMS = 16  # at once


@dataclass(eq=False)
class _Stream:
    end: socket.socket  # this side's; the other end of the pair is its user's
    waits: deque[memoryview] = field(default_factory=deque)  # for its user
    said_all: bool = False  # the user has closed his end, and the peer is told
    heard_all: bool = False  # the peer has

    @property
    def over(self) -> bool:
        return self.said_all and self.heard_all and not self.waits


class Shared:
    """A connection as many streams, carried by a thread of its own. `arrived` gets each that the peer opens."""

    def __init__(self, sock: socket.socket, dialed: bool, arrived: Callable[[socket.socket], None]) -> None:
        self._sock = sock
        self._arrived = arrived
        self._next, self._theirs = (0, 1) if dialed else (1, 0)
        self._streams: dict[int, _Stream] = {}
        self._unsent: deque[memoryview] = deque()
        self._come = bytearray()
        self._ended = False  # nothing more comes of the connection
        self._retired = False  # no more streams, and it ends with the last
        self._lock = Lock()
        self._wake = Wake()
        keep_alive(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._thread = Thread(target=self._carry, name="spuvm shared connection", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether streams can be opened on it."""
        return not (self._ended or self._retired)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def open(self) -> socket.socket:
        """A new stream, on which TLS may begin. OSError if the connection has ended."""
        with self._lock:
            if not self.alive:
                raise OSError(errno.ECONNRESET, "the connection that it shares has ended")
            number, self._next = self._next, self._next + 2
            here = self._add(number)
        self._wake.set()
        return here

    def retire(self) -> None:
        """No more streams: it ends when those that are open have."""
        self._retired = True
        self._wake.set()

    def join(self, seconds: float) -> None:
        """Wait until it has ended; after so long it is hung up."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            hang_up(self._sock)

    def _add(self, number: int) -> socket.socket:
        end, here = socket.socketpair()
        end.setblocking(False)
        self._streams[number] = _Stream(end)
        return here

    # The thread.

    def _carry(self) -> None:
        try:
            while not self._done():
                self._step()
            self._part()
        finally:
            self._ended = True
            with self._lock:
                for stream in self._streams.values():
                    stream.end.close()
                self._streams.clear()
            self._sock.close()
            self._wake.close()

    def _done(self) -> bool:
        with self._lock:
            for number in [n for n, s in self._streams.items() if s.over or (self._ended and not s.waits)]:
                self._streams.pop(number).end.close()
            if self._ended:
                return not self._streams
            return self._retired and not self._unsent and all(s.said_all for s in self._streams.values())

    def _step(self) -> None:
        """Wait until something can be moved, and move it."""
        poller = select.poll()
        poller.register(self._wake.fd, select.POLLIN)
        with self._lock:
            streams = {s.end.fileno(): (n, s) for n, s in self._streams.items()}
        spooled = sum(len(v) for _, s in streams.values() for v in s.waits)
        unsent = sum(map(len, self._unsent))
        if not self._ended:
            events = (select.POLLIN if spooled < SPOOL else 0) | (select.POLLOUT if unsent else 0)
            poller.register(self._sock.fileno(), events)
        for fd, (_, stream) in streams.items():
            hears = not stream.said_all and not self._ended and unsent < UNSENT
            if events := (select.POLLIN if hears else 0) | (select.POLLOUT if stream.waits else 0):
                poller.register(fd, events)
        for fd, event in poller.poll():
            if fd == self._wake.fd:
                self._wake.clear()
            elif fd in streams:
                self._move(*streams[fd], event)
            else:
                self._exchange(event)

    def _move(self, number: int, stream: _Stream, event: int) -> None:
        """Between a stream's user and this side."""
        if stream.waits:
            self._deliver(stream)
        if event & (select.POLLIN | select.POLLHUP | select.POLLERR) and not stream.said_all and not self._ended:
            try:
                data = stream.end.recv(FRAME)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            stream.said_all = not data
            self._unsent += (memoryview(HEAD.pack(number, len(data))), *([memoryview(data)] if data else []))
            self._send()

    def _deliver(self, stream: _Stream) -> None:
        try:
            while stream.waits:
                n = stream.end.send(stream.waits[0])
                rest = stream.waits.popleft()[n:]
                if len(rest):
                    stream.waits.appendleft(rest)
        except BlockingIOError:
            return
        except OSError:  # its user takes no more
            stream.waits.clear()
        if stream.heard_all:
            with suppress(OSError):
                stream.end.shutdown(socket.SHUT_WR)

    def _send(self) -> None:
        with suppress(BlockingIOError):
            try:
                while self._unsent:
                    n = self._sock.send(self._unsent[0])
                    rest = self._unsent.popleft()[n:]
                    if len(rest):
                        self._unsent.appendleft(rest)
            except BlockingIOError:
                raise
            except OSError:
                self._ended = True

    def _exchange(self, event: int) -> None:
        """Between the peer and this side."""
        if event & select.POLLOUT:
            self._send()
        if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
            try:
                data = self._sock.recv(BLOCK_BYTES)
                self._ended |= not data
                self._come += data
                self._take()
            except BlockingIOError:
                return
            except OSError:  # broken, or it says what is no frame
                self._ended = True

    def _take(self) -> None:
        at = 0
        while len(self._come) - at >= HEAD.size:
            number, length = HEAD.unpack_from(self._come, at)
            if length > FRAME:
                raise OSError(errno.EPROTO, "no frame")
            if len(self._come) - at - HEAD.size < length:
                break
            at += HEAD.size
            self._hear(number, bytes(memoryview(self._come)[at : at + length]))
            at += length
        del self._come[:at]

    def _hear(self, number: int, data: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None:
            if number % 2 != self._theirs % 2 or number < self._theirs or not data:
                return  # of a stream that is over
            self._theirs = number + 2
            if self._retired:
                self._unsent.append(memoryview(HEAD.pack(number, 0)))
                return
            if len(self._streams) >= STREAMS:
                raise OSError(errno.EUSERS, "too many streams")
            with self._lock:
                here = self._add(number)
                stream = self._streams[number]
            self._arrived(here)
        stream.waits += [memoryview(data)] if data else []
        stream.heard_all |= not data
        self._deliver(stream)

    def _part(self) -> None:
        """All has been said: what the peer still says is taken for a moment, else it would undo what is on its way."""
        if self._ended:
            return
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.setblocking(True)
            end = time.monotonic() + FAREWELL
            while (left := end - time.monotonic()) > 0:
                self._sock.settimeout(left)
                if not self._sock.recv(BLOCK_BYTES):
                    break
