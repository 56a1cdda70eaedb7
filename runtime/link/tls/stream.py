"""What goes over a TLS connection of a session: frames, sent in one direction (received: `link/tls/receiver.py`).

Wire format (version 5, little endian). Frames follow each other on a connection:

    2 bytes  magic "SV"
    1 byte   version
    1 byte   kind (`link.Kind`)
    4 bytes  sequence number on this connection, from 1 (frames of the set-up: 0), modulo 2^32
    4 bytes  length of the payload in this frame, at most 4 MiB
    8 bytes  length of the whole message
    ...      payload

    HELLO, READY, REJECT   set-up, see `link/tls/hello.py`.
    DATA                   a message, in one or more frames: of at most 4 MiB, and of what is there to send.
    PACKED                 as DATA, with a compressed payload: see `link/tls/packed.py`.
    AGREE, KEY             claims, see `link/agreement.py`; holders NUL random bytes, see `link/link.py`.
    ALIVE                  the sender gets on with its peers, and has nothing for this one.
    WAITING                whom the sender awaits, see `link/tls/stalled.py`.
    TAKEN                  how many bytes the sender has taken of the connection that comes from the receiver.
    ABORT                  the sender stops: "party that failed first NUL error class and message".
    CLOSE                  the sender has finished; without it a closed connection is a lost peer.
"""

import errno
import logging
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from queue import SimpleQueue
from threading import Thread
from typing import Any

from spuvm.runtime.link.link import Kind, size
from spuvm.runtime.link.tls.channel import RECORD_BYTES, Channel
from spuvm.runtime.link.tls.cutting import in_frames, in_frames_as_put, in_records
from spuvm.runtime.link.tls.pace import PAUSE, Pace
from spuvm.runtime.link.tls.packed import pack

PROTOCOL_VERSION = 5
MAGIC = b"SV"
HEADER = struct.Struct("<2sBBIIQ")
INLINE_BYTES = 1 << 18  # up to here a message is written by the calling thread
CONTROL_BYTES = 1 << 16  # no control frame is longer
SESSION_KINDS = frozenset(
    {Kind.DATA, Kind.PACKED, Kind.AGREE, Kind.KEY, Kind.ABORT, Kind.CLOSE, Kind.ALIVE, Kind.WAITING, Kind.TAKEN}
)

log = logging.getLogger(__name__)


def put_frame(channel: Channel, kind: Kind, body: bytes, sequence: int = 0) -> None:
    """Say a control frame while the session is set up."""
    channel.say(HEADER.pack(MAGIC, PROTOCOL_VERSION, kind, sequence, len(body), len(body)) + body)


def get_frame(channel: Channel) -> tuple[Kind, bytes]:
    """Hear a control frame while the session is set up."""
    # Any version is accepted here: that of a HELLO is compared with a proper message.
    magic, _, kind, _, length, _ = HEADER.unpack(channel.hear(HEADER.size))
    if magic != MAGIC or length > CONTROL_BYTES or kind not in set(Kind):
        raise OSError(errno.EPROTO, "it does not speak spuvm's protocol")
    return Kind(kind), channel.hear(length)


class Wake:
    """Ends the calling thread's poll; other threads call `set`."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self.fd = self._reader.fileno()

    def set(self) -> None:
        with suppress(OSError):  # full: it is awake; closed: nobody waits
            self._writer.send(b"\0")

    def clear(self) -> None:
        with suppress(BlockingIOError):
            self._reader.recv(4096)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class Sender:
    """The outgoing connection to one peer.

    The calling thread writes a short message as far as the connection takes it at once; the rest,
    and long messages, are written by a thread, which starts when it is first needed. It gives up when
    nothing has moved, and nothing was heard of any peer, for `timeout` seconds.
    """

    def __init__(
        self,
        channel: Channel,
        name: str,
        timeout: float,
        wake: Wake,
        heard: Callable[[], float],
        pace: Pace | None = None,
        compress: bool = False,
    ) -> None:
        """`pace`: how fast bytes may leave; `compress`: frames that get smaller by it."""
        self.name = name
        self.on_wire = 0  # bytes that have left, TLS and all
        self._pace, self._compress = pace, compress
        self._put = channel.sock.send if pace is None else pace.through(channel.sock.send)
        self.channel = channel
        self.error: Exception | None = None
        self.observed = False  # the calling thread waits for `queued` to fall: wake it after each frame
        self._timeout = timeout
        self._wake = wake
        self._heard = heard
        self._taken = 0  # bytes of messages for the thread
        self._left = 0  # and those it has written; one of the two threads is in `_blocks` at a time
        self._sequence = 0
        self.stopping = False
        self._inside_frame = False
        self._given = 0  # jobs of the thread: counted by the caller
        self._done = 0  # and by the thread
        self._jobs: SimpleQueue[Iterator[bytes | memoryview] | None] = SimpleQueue()
        self._pieces: SimpleQueue[tuple[Any, int] | None] = SimpleQueue()  # of the message that `put` continues
        self._thread: Thread | None = None
        self.mend: Callable[[], list[memoryview] | None] | None = (
            None  # makes a new connection; what is to be said again
        )
        self.mending = False
        self._poller = select.poll()
        self._poller.register(channel.sock.fileno(), select.POLLOUT)

    @property
    def busy(self) -> bool:
        """Whether the thread still has something to write."""
        return self._given != self._done

    @property
    def queued(self) -> int:
        """Bytes that wait to be written."""
        return self._taken - self._left

    def crowded(self, most: int | None) -> bool:
        """Whether more than so many bytes are queued; if None, anything."""
        return self.busy if most is None else self.queued > most

    def send(self, kind: Kind, views: list[memoryview]) -> None:
        """Send a message without waiting for the peer; raises OSError if the connection is broken.

        The views are in use while `busy`; its end wakes the caller, with `error` set if it failed.
        """
        total = size(views)
        if self.channel.worn and self.mend is not None and not self.busy:
            self.renew()
        if total < RECORD_BYTES and not self.busy:  # most rounds: no generators
            rest = self._offer(iter((self.channel.record(self._header(kind, total, total) + b"".join(views)),)))
        else:
            self._taken += total
            blocks = self._blocks(kind, total, in_frames(views))
            rest = blocks if self.busy or total > INLINE_BYTES else self._offer(blocks)
        if rest is not None:
            self._give(rest)

    def open(self, total: int) -> None:
        """Begin a message of so many bytes, which follow by `put`."""
        self._pieces = SimpleQueue()
        self._give(self._blocks(Kind.DATA, total, in_frames_as_put(total, self._pieces)))

    def put(self, array: Any, nbytes: int) -> None:
        """The next piece of the message begun; the thread waits for what JAX is still computing."""
        self._taken += nbytes
        self._pieces.put((array, nbytes))

    def renew(self) -> None:
        """Make a new connection, in the sender's thread; what is sent meanwhile follows over that one."""
        self.mending = True
        self._give(self._mended())

    def _mended(self) -> Iterator[bytes | memoryview]:
        """What is to be said again over a new connection, which is made now. After the peer's farewell: nothing."""
        if self.mend is None:
            return
        self.mending = True
        again = self.mend()
        self.mending = False
        if again is None:
            self.mend = None  # whatever is still to be sent fails
        else:
            yield from self.channel.again(again)

    def _stop(self) -> None:
        self.stopping = True
        self._pieces.put(None)

    def _give(self, blocks: Iterator[bytes | memoryview]) -> None:
        if self._thread is None:
            self._thread = Thread(target=self._work, name=f"send to {self.name}", daemon=True)
            self._thread.start()
        self._given += 1
        self._jobs.put(blocks)

    def last_words(self, kind: Kind, body: bytes, deadline: float) -> None:
        """Send a closing frame if that is possible by the deadline; a message in progress ends early."""
        self._stop()
        while self.busy and time.monotonic() < deadline:
            time.sleep(0.002)
        if self.busy or self._inside_frame or self.error is not None:
            return self.channel.hang_up()  # also frees the buffers that the thread is sending
        try:
            blocks = self._blocks(kind, len(body), iter([[memoryview(body)]]))
            self._write(blocks, deadline - time.monotonic(), lambda: 0.0)
        except OSError:
            log.debug("%s could not be told that this party stops", self.name)

    def close(self) -> None:
        self._stop()
        if self.busy:
            self.channel.hang_up()
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        self.channel.close()

    def _blocks(self, kind: Kind, total: int, frames: Iterator[list[memoryview]]) -> Iterator[bytes | memoryview]:
        """The message as it goes to the socket, encrypted when its turn comes."""
        for frame in frames:
            if self.stopping and kind is Kind.DATA:
                return
            self._inside_frame = True
            packed = pack(frame) if self._compress and kind is Kind.DATA else None
            what, said = (kind, frame) if packed is None else (Kind.PACKED, [memoryview(packed)])
            header = memoryview(self._header(what, size(said), total))
            yield from self.channel.encrypt(in_records([header, *said]))
            self._inside_frame = False
            self._left += size(frame)
            if self.observed:
                self._wake.set()

    def _header(self, kind: Kind, length: int, total: int) -> bytes:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        return HEADER.pack(MAGIC, PROTOCOL_VERSION, kind, self._sequence, length, total)

    def _offer(self, blocks: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview] | None:
        """Write what the connection takes at once; what is left, or None."""
        put = self._put
        for block in blocks:
            try:
                self.on_wire += (sent := put(block))
                while sent < len(block):
                    block = memoryview(block)[sent:]
                    self.on_wire += (sent := put(block))
            except BlockingIOError:
                return _Begun.of(blocks, block)
            except OSError:
                if self.mend is None or self.stopping:
                    raise
                return chain(self._mended(), blocks)  # in the place of this block, which comes again
        return None

    def _write(self, blocks: Iterator[bytes | memoryview], timeout: float, heard: Callable[[], float]) -> None:
        """Write everything, waiting for the peer; raises TimeoutError if nothing moves and nothing is heard so long."""
        rest = self._offer(blocks)
        while rest is not None:
            if self._pace is not None:
                time.sleep(PAUSE)
            moved = time.monotonic()
            while not self._poller.poll(1000 * max(0.0, timeout + max(moved, heard()) - time.monotonic())):
                if time.monotonic() - max(moved, heard()) >= timeout:
                    raise TimeoutError
            rest = self._offer(rest)

    def _work(self) -> None:
        while (blocks := self._jobs.get()) is not None:
            try:
                if self.error is None:
                    self._write(blocks, self._timeout, self._heard)
            except Exception as error:
                self.error = error
            del blocks
            self._done += 1
            self._wake.set()


class _Begun(Iterator[bytes | memoryview]):
    """Blocks of which the first has left in part."""

    def __init__(self, blocks: Iterator[bytes | memoryview]) -> None:
        self._blocks = blocks
        self._first: bytes | memoryview | None = None

    @classmethod
    def of(cls, blocks: Iterator[bytes | memoryview], first: bytes | memoryview) -> "_Begun":
        made = blocks if isinstance(blocks, cls) else cls(blocks)
        made._first = first
        return made

    def __next__(self) -> bytes | memoryview:
        first, self._first = self._first, None
        return next(self._blocks) if first is None else first
