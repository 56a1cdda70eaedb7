"""Receiving the frames of one TLS connection (`link/tls/stream.py` has their format)."""

import select
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator

from spuvm.runtime.errors import PeerMismatchError
from spuvm.runtime.link.link import Kind, Link, size
from spuvm.runtime.link.tls.channel import Channel
from spuvm.runtime.link.tls.cutting import FRAME_BYTES
from spuvm.runtime.link.tls.packed import unpack
from spuvm.runtime.link.tls.stalled import Waits
from spuvm.runtime.link.tls.stream import CONTROL_BYTES, HEADER, MAGIC, PROTOCOL_VERSION, SESSION_KINDS

INBOX = 1024  # control frames of a kind; a party proposes no more than `agreement.AHEAD` before it listens
LIVELY = 256
OVERHEAD = 1 << 10  # bytes that a frame held counts for beside its payload


class Receiver:
    """The incoming connection from one peer.

    `advance` reads frames as far as data has been taken from the connection. Control frames go to
    the inbox, with the number of bytes of messages before them. A message goes where `expect` says.
    What comes before that is held, up to `ahead` bytes (of a dealer, which does not wait for its
    peers); then the receiver is `parked` until `expect` makes room. Raises OSError if the connection is
    broken, and the link's errors.
    """

    def __init__(self, peer: int, channel: Channel, link: Link, waits: Waits, ahead: int = 0) -> None:
        self.taken: Callable[[int], None] = lambda count: None  # called with how many bytes the peer says that it has
        self.peer = peer
        self.channel = channel
        self.inbox: dict[Kind, deque[tuple[int, bytes]]] = {Kind.AGREE: deque(), Kind.KEY: deque()}
        self.parked = False
        self.watched = False
        self.closed = False  # the peer has said CLOSE
        self.stopped = False  # the peer has said ABORT
        self.ended = False  # the connection is broken
        self.broken: float | None = None  # since when, if it may still be taken up again
        self.confirmed = 0  # bytes of the connection of which the peer knows that they are here
        self.discard = False
        self.expected = 0  # bytes of all messages that have a place to go
        self.filled = 0  # bytes of them that are there
        self.progress = 0  # grows with all that comes, but for frames that say that the peer waits
        self._second, self._lively = time.monotonic(), 0
        self._waits = waits
        self.poller = select.poll()  # of this connection alone
        self.poller.register(channel.sock.fileno(), select.POLLIN)
        self._between = True  # no byte of the next frame has been read
        self._steps = self._read_frames()
        self._link = link
        self._sequence = 0
        self._due: deque[tuple[int, deque[memoryview]]] = deque()  # messages: size, what is still to be filled
        self._left = 0  # bytes of the message still to come
        self._room = ahead
        self._held: deque[tuple[int, memoryview]] = deque()  # frames: size of the message, payload

    @property
    def arrived(self) -> bool:
        """Whether everything expected is there."""
        return self.filled == self.expected

    def overtakes(self, kind: Kind) -> bool:
        """Whether a message that nobody expects has come before the next control frame of that kind."""
        inbox = self.inbox[kind]
        return inbox[0][0] > self.filled if inbox else self.parked or bool(self._held)

    def expect(self, views: list[memoryview]) -> None:
        """Where the next message goes, after those expected before."""
        total = size(views)
        self.expected += total
        self._due.append((total, deque(views)))
        self._deliver()

    @property
    def idle(self) -> bool:
        """Whether the next byte to be read begins a frame, and nothing is under way."""
        return self._between and not (self._due or self._held or self.parked or self.closed or self.discard)

    def at_once(self, view: memoryview, buffer: memoryview) -> bool | None:
        """Fill `view` with the message that comes next, if it has come whole in one record, while `idle`.

        None: nothing has come yet. False: something else has, and is left to `expect` and `advance`.
        """
        length = HEADER.size + len(view)
        if self.channel.returned:
            return False
        data = self.channel.at_once(length, buffer)
        if not data:
            return None
        due = HEADER.pack(MAGIC, PROTOCOL_VERSION, Kind.DATA, (self._sequence + 1) & 0xFFFFFFFF, len(view), len(view))
        if len(data) != length or not data.startswith(due):
            self.channel.returned = data
            return False
        view[:] = data[HEADER.size :]
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        self.expected += len(view)
        self.filled += len(view)
        self.progress += len(view)
        return True

    def advance(self) -> None:
        """Read what has been taken. OSError if the connection has ended: the frame may go on over another."""
        if not self.closed:
            next(self._steps)
        if not self.closed and (failed := self.channel.failed) is not None:
            self.channel.failed = None
            raise failed

    def close(self) -> None:
        self._steps.close()
        self.channel.close()

    def _read_frames(self) -> Generator[None, None, None]:
        """Yields when more has to be taken from the connection, or the receiver is parked or closed."""
        header = memoryview(bytearray(HEADER.size))
        while True:
            while not (n := self.channel.read_into(header)):
                self._between = True
                yield
            self._between = False
            yield from self._read(header[n:])
            kind, length, total = self._parse(header)
            if kind is Kind.DATA:
                yield from self._data(length, total)
            else:
                body = bytearray(length)
                yield from self._read(memoryview(body))
                if kind is Kind.PACKED:
                    yield from self._packed(body, total)
                    continue
                self._control(kind, bytes(body))
                if self.closed:
                    yield

    def _parse(self, header: memoryview) -> tuple[Kind, int, int]:
        magic, version, kind, sequence, length, total = HEADER.unpack(header)
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        limit = FRAME_BYTES if kind in (Kind.DATA, Kind.PACKED) else CONTROL_BYTES
        due = (MAGIC, PROTOCOL_VERSION, self._sequence)
        if (magic, version, sequence) != due or length > limit or kind not in SESSION_KINDS:
            raise PeerMismatchError(
                f"{self._link.parties[self.peer]} sent a malformed frame (number {sequence}, "
                f"{self._sequence} is due): run the same version of spuvm at every party."
            )
        return Kind(kind), length, total

    def _until_there_is_room(self, length: int) -> Generator[None, None, None]:
        while not self._due and not self.discard and length + OVERHEAD > self._room:
            self.parked = True
            yield
        self.parked = False

    def _packed(self, body: bytearray, total: int) -> Generator[None, None, None]:
        try:
            frame = memoryview(unpack(body, FRAME_BYTES))
        except ValueError:
            raise self._refused("a compressed frame that cannot be read") from None
        yield from self._until_there_is_room(len(frame))
        if not self.discard:
            self._hold(frame, total)

    def _hold(self, frame: memoryview, total: int) -> None:
        """Keep a frame until it is expected, which it may be by now."""
        self._room -= len(frame) + OVERHEAD
        self.progress += len(frame) + 1
        self._held.append((total, frame))
        self._deliver()

    def _data(self, length: int, total: int) -> Generator[None, None, None]:
        yield from self._until_there_is_room(length)
        if self.discard:
            yield from self._read(memoryview(bytearray(length)))
        elif self._due:
            for view in self._places(length, total):
                while len(view):
                    n = self.channel.read_into(view)
                    self.filled += n
                    self.progress += n
                    view = view[n:]
                    if len(view):
                        yield
        else:
            frame = memoryview(bytearray(length))
            yield from self._read(frame)
            self._hold(frame, total)

    def _deliver(self) -> None:
        """Put what is held where it is expected."""
        while self._held and self._due:
            total, frame = self._held.popleft()
            self._room += len(frame) + OVERHEAD
            for view in self._places(len(frame), total):
                view[:] = frame[: len(view)]
                frame = frame[len(view) :]
                self.filled += len(view)

    def _places(self, length: int, total: int) -> Iterator[memoryview]:
        """Where the next `length` bytes go, which are part of a message of `total`."""
        if self._left == 0:
            if total != self._due[0][0]:
                raise self._link._wrong_size(self.peer, total, self._due[0][0])
            self._left = total
        if not 0 < length <= self._left:
            raise self._link._wrong_size(self.peer, length, self._left)
        self._left -= length
        views = self._due[0][1]
        while length:
            view = views.popleft()
            if len(view) > length:
                views.appendleft(view[length:])
                view = view[:length]
            length -= len(view)
            yield view
        if self._left == 0:
            self._due.popleft()

    def _read(self, view: memoryview) -> Generator[None, None, None]:
        while len(view):
            view = view[self.channel.read_into(view) :]
            if len(view):
                yield

    def _control(self, kind: Kind, body: bytes) -> None:
        self.progress += kind not in (Kind.WAITING, Kind.TAKEN)
        if kind is Kind.ABORT:
            origin, _, reason = body.decode(errors="replace").partition("\0")
            raise self._link._aborted(self.peer, origin, reason)
        if kind is Kind.CLOSE:
            self.closed = True
        elif kind is Kind.TAKEN:
            self._limit_liveness()
            self.taken(int.from_bytes(body[:8], "little"))
        elif kind in (Kind.ALIVE, Kind.WAITING):
            self._limit_liveness()
            if kind is Kind.WAITING and not self._waits.hear(body, time.monotonic()):
                raise self._refused("a malformed frame about whom it awaits")
        elif kind is Kind.AGREE and self._due and not self.discard and not self._link.proposing:
            raise self._link._out_of_step(self.peer, kind, self._link._awaiting_data())
        elif kind in self.inbox:
            if len(self.inbox[kind]) >= INBOX:
                raise self._refused(f"more than {INBOX} frames of kind {kind.name} that nobody awaits")
            self.inbox[kind].append((self.filled + sum(len(frame) for _, frame in self._held), body))

    def _limit_liveness(self) -> None:
        """Frames that only say that a peer is there cost something, and keep waits going: so many in a second."""
        now = time.monotonic()
        if now > self._second + 1:
            self._second, self._lively = now, 0
        self._lively += 1
        if self._lively > LIVELY:
            raise self._refused(f"more than {LIVELY} frames a second that say nothing but that it is there")

    def _refused(self, what: str) -> PeerMismatchError:
        return PeerMismatchError(
            f"{self._link.parties[self.peer]} sent {what}: run the same version of spuvm at every party."
        )
