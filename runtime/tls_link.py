"""Links between machines: TCP, TLS 1.3, certificates on both sides.

Each ordered pair of parties has a connection of its own: i dials j, and sends its messages to j
over it. So sending and receiving are independent, and a party that waits never stops the other
direction. Small messages are written by the calling thread, larger ones by one thread per peer,
while the calling thread receives straight into the destination arrays.

Wire format (version 1, little endian). Frames follow each other on a connection:

    2 bytes  magic "SV"
    1 byte   version
    1 byte   kind (`link.Kind`)
    4 bytes  sequence number on this connection, from 1 (frames of the set-up: 0), modulo 2^32
    4 bytes  length of the payload in this frame, at most 4 MiB
    8 bytes  length of the whole message
    ...      payload

    HELLO, READY, REJECT   set-up. After the TLS handshake the accepting side says HELLO, then the
                           dialing side; the accepting side ends with READY. A HELLO is a JSON object:
                           protocol, package, party, parties. Who finds a difference sends REJECT
                           ("error class NUL message") instead, and both raise that error.
    DATA                   a message; longer than 4 MiB it takes several frames.
    AGREE, KEY             SHA-256 and topic; holders NUL random bytes (see `link.py`).
    ABORT                  the sender stops: "party that failed first NUL error class and message".
    CLOSE                  the sender has finished; without it a closed connection is a lost peer.

The calling thread never waits for a peer to take data: what a connection does not accept at
once goes to the peer's thread. So parties that all send at the same time cannot block each other.
"""

import errno
import importlib.metadata
import json
import logging
import select
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock, Semaphore, Thread

from spuvm.runtime import certificates
from spuvm.runtime.cluster import Address, Cluster
from spuvm.runtime.errors import (
    CertificateError,
    ConfigError,
    LinkError,
    PeerLostError,
    PeerMismatchError,
    PeerTimeoutError,
    SpuError,
)
from spuvm.runtime.link import MAX_REASON, Kind, Link, size

PROTOCOL_VERSION = 1
MAGIC = b"SV"
HEADER = struct.Struct("<2sBBIIQ")
RECORD_BYTES = 16384  # of one TLS record
INLINE_BYTES = 1 << 17  # up to here a message is written by the calling thread
FRAME_BYTES = 4 << 20
CONTROL_BYTES = 1 << 16  # no control frame is longer
LAST_WORDS = 0.5  # seconds to look for the reason of a peer whose connection broke
SESSION_KINDS = frozenset({Kind.DATA, Kind.AGREE, Kind.KEY, Kind.ABORT, Kind.CLOSE})
FAREWELL = 1.0  # seconds to tell peers why this party stops
DIAL_PAUSES = (0.02, 0.05, 0.1, 0.2)
DIAL = 2.0  # seconds to reach an address
HANDSHAKE = 10.0  # seconds for one connection to say who it is
MAX_STRANGERS = 64  # connections being greeted at once

log = logging.getLogger(__name__)


def connect(cluster: Cluster, party: str, timeout: float | None = None) -> "TlsLink":
    """Join the session of the cluster as `party`; returns when all parties are connected to this one.

    `timeout` (seconds; the cluster file's `timeout_seconds` if not given) limits the set-up and later
    every wait. Raises `CertificateError`, `PeerMismatchError`, `PeerTimeoutError`, or `LinkError`.
    """
    rank = cluster.rank(party)
    limit = cluster.timeout_seconds if timeout is None else timeout
    link = TlsLink(rank, cluster.names, limit)
    try:
        with _SetUp(cluster, party, limit, link._wake) as setup:
            _join(link, setup, limit)
        link._start_session()
    except BaseException:
        link.close()
        raise
    return link


def decline(cluster: Cluster, party: str, reason: str) -> None:
    """Tell the peers that are waiting for `party` why it does not come; takes a second at most.

    Says nothing if this party's own certificate or address cannot be used. No secrets in `reason`.
    """
    wake = _Wake()
    try:
        with _SetUp(cluster, party, FAREWELL, wake) as setup:
            setup.fail(party, reason)
    except SpuError as error:
        log.debug("%s could not tell its peers that it stops: %s", party, error)
    finally:
        wake.close()


def _join(link: "TlsLink", setup: "_SetUp", limit: float) -> None:
    deadline = time.monotonic() + limit
    with link._telling_peers():
        try:
            while not link._complete:
                if time.monotonic() > deadline:
                    raise PeerTimeoutError(setup.absence(link._senders, link._receivers))
                link._poll(0.2)
                for direction, peer, sock in setup.news():
                    link._attach(direction, peer, sock)
        except _Stopped as stopped:
            setup.fail(stopped.origin, stopped.reason)
            raise link._aborted(stopped.peer, stopped.origin, stopped.reason) from None
        except SpuError as error:
            setup.fail(*(link._cause or (setup.party, f"{type(error).__name__}: {error}")))
            raise


class TlsLink(Link):
    """One party's end; made by `connect`."""

    def __init__(self, rank: int, parties: Sequence[str], timeout: float) -> None:
        advice = "Is it running and reachable? Raise the limit with `timeout_seconds` in the cluster file."
        super().__init__(rank, parties, timeout, advice)
        self._senders: dict[int, _Sender] = {}
        self._receivers: dict[int, _Receiver] = {}
        self._by_fd: dict[int, _Receiver] = {}
        self._poller = select.poll()
        self._wake = _Wake()
        self._poller.register(self._wake.fd, select.POLLIN)

    @property
    def _complete(self) -> bool:
        return len(self._senders) == len(self._receivers) == len(self.peers)

    def _attach(self, direction: str, peer: int, sock: ssl.SSLSocket) -> None:
        sock.setblocking(False)
        if peer in (self._senders if direction == "outgoing" else self._receivers):
            return sock.close()  # a second connection of the same peer
        if direction == "outgoing":
            self._senders[peer] = _Sender(sock, self.parties[peer], self.timeout, self._wake)
        else:
            receiver = _Receiver(peer, sock, self)
            self._receivers[peer] = self._by_fd[sock.fileno()] = receiver
            self._watch(receiver)

    def _transfer(self, sends: dict[int, list[memoryview]], receives: dict[int, list[memoryview]]) -> None:
        for peer, views in receives.items():
            self._receivers[peer].expect(views)
        for peer, views in sends.items():
            self._send(peer, Kind.DATA, views)
        awaited = [self._receivers[peer] for peer in receives]
        busy = [sender for peer in sends if (sender := self._senders[peer]).busy]
        self._wait(
            awaited,
            lambda: all(r.arrived for r in awaited) and not any(sender.busy for sender in busy),
            self._awaiting_data(),
            busy,
        )
        self._check_senders()

    def _send_control(self, peer: int, kind: Kind, body: bytes) -> None:
        self._send(peer, kind, [memoryview(body)])

    def _receive_control(self, peer: int, kind: Kind, awaited: str) -> bytes:
        receiver = self._receivers[peer]
        inbox = receiver.inbox[kind]

        def heard() -> bool:
            if not inbox and receiver.parked:
                raise self._out_of_step(peer, Kind.DATA, awaited)
            return bool(inbox)

        self._wait([receiver], heard, awaited, [])
        return inbox.popleft()

    def _send_abort(self, origin: str, reason: str) -> None:
        body = f"{origin}\0{reason}".encode()
        deadline = time.monotonic() + FAREWELL
        for sender in self._senders.values():
            sender.last_words(Kind.ABORT, body, deadline)

    def _shut(self, graceful: bool) -> None:
        if graceful and self._complete:
            deadline = time.monotonic() + FAREWELL
            for sender in self._senders.values():
                sender.last_words(Kind.CLOSE, b"", deadline)
        for sender in self._senders.values():
            sender.close()
        for receiver in self._receivers.values():
            receiver.close()
        self._wake.close()

    def _send(self, peer: int, kind: Kind, views: list[memoryview]) -> None:
        try:
            self._senders[peer].send(kind, views)
        except OSError as error:
            raise self._failed_send(peer, error) from None

    def _check_senders(self) -> None:
        for peer, sender in self._senders.items():
            if sender.error is not None:
                raise self._failed_send(peer, sender.error)

    # Waiting.

    def _wait(
        self,
        awaited: "list[_Receiver]",
        done: Callable[[], bool],
        what: str,
        senders: "list[_Sender]",
    ) -> None:
        """Serve all incoming connections until `done`; raise if a peer stops, or nothing moves in time."""
        for receiver in self._receivers.values():
            if receiver.ready():
                self._resume(receiver)
        while not done():
            for receiver in awaited:
                if receiver.closed and not receiver.arrived:
                    name = self.parties[receiver.peer]
                    raise PeerLostError(f"{name} closed its link while {self._me} awaited {what}.")
            if not self._poll(self.timeout):
                slow = [s.name for s in senders if s.busy]
                names = [self.parties[r.peer] for r in awaited if not r.arrived] or slow
                raise PeerTimeoutError(self._timeout_text(names, what))
            self._check_senders()

    def _poll(self, limit: float) -> bool:
        """Wait for news on any connection and take it in; False if there was none."""
        events = self._poller.poll(limit * 1000)
        for fd, _ in events:
            if fd == self._wake.fd:
                self._wake.clear()
            elif fd in self._by_fd:
                self._resume(self._by_fd[fd])
        return bool(events)

    def _resume(self, receiver: "_Receiver") -> None:
        next(receiver.steps)
        while receiver.ready():
            next(receiver.steps)
        self._watch(receiver)

    def _watch(self, receiver: "_Receiver") -> None:
        """Poll the connections that can take data now: others would wake us all the time."""
        wanted = not receiver.parked and not receiver.closed
        if wanted != receiver.watched:
            receiver.watched = wanted
            if wanted:
                self._poller.register(receiver.sock.fileno(), select.POLLIN)
            else:
                self._poller.unregister(receiver.sock.fileno())

    # Failures.

    @property
    def _me(self) -> str:
        return self.parties[self.rank]

    def _failed_send(self, peer: int, error: OSError) -> SpuError:
        if isinstance(error, TimeoutError):
            awaited = f"that it takes {self._awaiting_data()}"
            return PeerTimeoutError(self._timeout_text([self.parties[peer]], awaited))
        return self._lost(peer, error)

    def _lost(self, peer: int, error: OSError | None) -> SpuError:
        """The error for a broken connection: the peer's own reason, if it managed to tell us."""
        try:
            self._drain(peer)
        except SpuError as told:
            return told
        why = f" ({_plain(error)})" if error is not None else ""
        return PeerLostError(
            f"Lost {self.parties[peer]} in round {self._round}: its connection to {self._me} ended{why}. "
            f"See {self.parties[peer]}'s own messages for the reason."
        )

    def _drain(self, peer: int) -> None:
        receiver = self._receivers.get(peer)
        deadline = time.monotonic() + LAST_WORDS
        if receiver is None or receiver.ended:
            return
        receiver.discard = True
        try:
            while not receiver.ended and not receiver.closed and time.monotonic() < deadline:
                next(receiver.steps)
                if not receiver.ready():
                    time.sleep(0.005)
        except PeerLostError:
            return


class _Wake:
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


class _Sender:
    """The outgoing connection to one peer.

    The calling thread writes a short message as far as the connection takes it at once; the rest,
    and long messages, are written by a thread, which starts when it is first needed.
    """

    def __init__(self, sock: ssl.SSLSocket, name: str, timeout: float, wake: _Wake) -> None:
        self.name = name
        self.error: OSError | None = None
        self._sock = sock
        self._timeout = timeout
        self._wake = wake
        self._sequence = 0
        self._stopping = False
        self._inside_frame = False
        self._given = 0  # jobs of the thread: counted by the caller
        self._done = 0  # and by the thread
        self._jobs: SimpleQueue[Iterator[memoryview] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._poller = select.poll()
        self._poller.register(sock.fileno(), select.POLLOUT)

    @property
    def busy(self) -> bool:
        """Whether the thread still has something to write."""
        return self._given != self._done

    def send(self, kind: Kind, views: list[memoryview]) -> None:
        """Send a message without waiting for the peer; raises OSError if the connection is broken.

        The views are in use while `busy`; its end wakes the caller, with `error` set if it failed.
        """
        pieces: Iterator[memoryview] | None = self._pieces(kind, views)
        if pieces is not None and not self.busy and size(views) <= INLINE_BYTES:
            pieces = self._offer(pieces)
        if pieces is not None:
            if self._thread is None:
                self._thread = Thread(target=self._work, name=f"send to {self.name}", daemon=True)
                self._thread.start()
            self._given += 1
            self._jobs.put(pieces)

    def last_words(self, kind: Kind, body: bytes, deadline: float) -> None:
        """Send a closing frame if that is possible by the deadline; a message in progress ends early."""
        self._stopping = True
        while self.busy and time.monotonic() < deadline:
            time.sleep(0.002)
        if self.busy or self._inside_frame or self.error is not None:
            return _hang_up(self._sock)  # also frees the buffers that the thread is sending
        try:
            self._write(self._pieces(kind, [memoryview(body)]), max(0.0, deadline - time.monotonic()))
        except OSError:
            log.debug("%s could not be told that this party stops", self.name)

    def close(self) -> None:
        self._stopping = True
        if self.busy:
            _hang_up(self._sock)
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        self._sock.close()

    def _pieces(self, kind: Kind, views: list[memoryview]) -> Iterator[memoryview]:
        """The message as it goes to the TLS layer, with the headers of its frames."""
        total = size(views)
        for frame in _frames(views):
            if self._stopping and kind is Kind.DATA:
                return
            self._inside_frame = True
            self._sequence = (self._sequence + 1) & 0xFFFFFFFF
            header = HEADER.pack(MAGIC, PROTOCOL_VERSION, kind, self._sequence, size(frame), total)
            yield from _records([memoryview(header), *frame])
            self._inside_frame = False

    def _offer(self, pieces: Iterator[memoryview]) -> Iterator[memoryview] | None:
        """Write what the connection takes at once; what is left, or None."""
        for piece in pieces:
            while len(piece):
                try:
                    piece = piece[self._sock.send(piece) :]
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    return chain((piece,), pieces)  # TLS must be offered the same piece again
        return None

    def _write(self, pieces: Iterator[memoryview], timeout: float) -> None:
        """Write everything, waiting for the peer; raises TimeoutError if nothing moves for that long."""
        rest = self._offer(pieces)
        while rest is not None:
            if not self._poller.poll(timeout * 1000):
                raise TimeoutError
            rest = self._offer(rest)

    def _work(self) -> None:
        while (pieces := self._jobs.get()) is not None:
            try:
                if self.error is None:
                    self._write(pieces, self._timeout)
            except OSError as error:
                self.error = error
            del pieces
            self._done += 1
            self._wake.set()


def _frames(views: list[memoryview]) -> Iterator[list[memoryview]]:
    """Cut a message into frames of at most FRAME_BYTES; an empty one makes one empty frame."""
    frame: list[memoryview] = []
    room = FRAME_BYTES
    for view in views:
        while len(view):
            if room == 0:
                yield frame
                frame, room = [], FRAME_BYTES
            piece = view[:room]
            frame.append(piece)
            room -= len(piece)
            view = view[len(piece) :]
    yield frame


def _records(pieces: Iterable[memoryview]) -> Iterator[memoryview]:
    """Join small pieces, so that each does not cost a TLS record of its own; large ones are not copied."""
    joined = bytearray()
    for piece in pieces:
        if len(piece) < RECORD_BYTES:
            joined += piece
        if joined and (len(piece) >= RECORD_BYTES or len(joined) >= 2 * RECORD_BYTES):
            yield memoryview(joined)
            joined = bytearray()
        if len(piece) >= RECORD_BYTES:
            yield piece
    if joined:
        yield memoryview(joined)


class _Receiver:
    """The incoming connection from one peer.

    `steps` reads frames as far as the connection has data, then yields. Control frames go to the
    inbox. A message stays in the connection until `expect` says where it goes: until then the
    receiver is `parked`.
    """

    def __init__(self, peer: int, sock: ssl.SSLSocket, link: TlsLink) -> None:
        self.peer = peer
        self.sock = sock
        self.inbox: dict[Kind, deque[bytes]] = {Kind.AGREE: deque(), Kind.KEY: deque()}
        self.parked = False
        self.watched = False
        self.closed = False  # the peer has said CLOSE
        self.ended = False  # the connection is broken
        self.discard = False
        self.arrived = False
        self.steps = self._steps()
        self._link = link
        self._sequence = 0
        self._views: deque[memoryview] | None = None  # what is still to be filled
        self._left = 0  # bytes of the message still to come
        self._expected = 0

    def expect(self, views: list[memoryview]) -> None:
        self._expected = size(views)
        self._views = deque(views)
        self.arrived = False

    def ready(self) -> bool:
        """Whether `steps` can go on without news from the operating system."""
        if self.closed:
            return False
        return self._views is not None if self.parked else self.sock.pending() > 0

    def close(self) -> None:
        self.steps.close()
        self.sock.close()

    def _steps(self) -> Generator[None, None, None]:
        header = memoryview(bytearray(HEADER.size))
        while True:
            yield from self._read(header)
            kind, length, total = self._parse(header)
            if kind is Kind.DATA:
                yield from self._data(length, total)
            else:
                body = bytearray(length)
                yield from self._read(memoryview(body))
                self._control(kind, bytes(body))
                yield

    def _parse(self, header: memoryview) -> tuple[Kind, int, int]:
        magic, version, kind, sequence, length, total = HEADER.unpack(header)
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        limit = FRAME_BYTES if kind == Kind.DATA else CONTROL_BYTES
        due = (MAGIC, PROTOCOL_VERSION, self._sequence)
        if (magic, version, sequence) != due or length > limit or kind not in SESSION_KINDS:
            raise PeerMismatchError(
                f"{self._link.parties[self.peer]} sent a malformed frame (number {sequence}, "
                f"{self._sequence} is due): run the same version of spuvm at every party."
            )
        return Kind(kind), length, total

    def _data(self, length: int, total: int) -> Generator[None, None, None]:
        if self._left == 0 and not self.discard:
            while self._views is None and not self.discard:
                self.parked = True
                yield
            self.parked = False
            if total != self._expected and not self.discard:
                raise self._link._wrong_size(self.peer, total, self._expected)
            self._left = total
        if self.discard:
            yield from self._read(memoryview(bytearray(length)))
            return
        assert self._views is not None
        if not 0 < length <= self._left:
            raise self._link._wrong_size(self.peer, length, self._left)
        self._left -= length
        while length:
            view = self._views.popleft()
            if len(view) > length:
                self._views.appendleft(view[length:])
                view = view[:length]
            length -= len(view)
            yield from self._read(view)
        if self._left == 0:
            self._views = None
            self.arrived = True
            yield

    def _read(self, view: memoryview) -> Generator[None, None, None]:
        while len(view):
            try:
                n = self.sock.recv_into(view)
            except ssl.SSLWantReadError:
                yield
                continue
            except OSError as error:
                self.ended = True
                raise self._link._lost(self.peer, error) from None
            if n == 0:
                self.ended = True
                raise self._link._lost(self.peer, None)
            view = view[n:]

    def _control(self, kind: Kind, body: bytes) -> None:
        if kind is Kind.ABORT:
            origin, _, reason = body.decode(errors="replace").partition("\0")
            raise self._link._aborted(self.peer, origin, reason)
        if kind is Kind.CLOSE:
            self.closed = True
        elif kind is Kind.AGREE and self._views is not None and not self.discard:
            raise self._link._out_of_step(self.peer, kind, self._link._awaiting_data())
        elif kind in self.inbox:
            self.inbox[kind].append(body)


# Setting up.


class _SetUp:
    """Dials every peer and greets whoever dials us, each in a thread, until the session stands.

    Greeting a connection can fail in two ways. A stranger (port scanner, a certificate that our
    authority did not sign) is logged and dropped, whatever it claims. But a certificate problem
    that we meet when dialing a party at its own address, or a difference with a party that has
    proved who it is, ends the set-up. A party that fails goes on answering for a moment, so that
    its peers meet the same problem and say so, rather than time out.
    """

    def __init__(self, cluster: Cluster, party: str, limit: float, wake: _Wake) -> None:
        self.party = party
        self._cluster = cluster
        self._rank = cluster.rank(party)
        self._limit = limit
        self._wake = wake
        self._certificate, key = cluster.credentials(party)
        self._server = _context(ssl.PROTOCOL_TLS_SERVER, cluster, self._certificate, key)
        self._client = _context(ssl.PROTOCOL_TLS_CLIENT, cluster, self._certificate, key)
        self._news: SimpleQueue[tuple[str, int, ssl.SSLSocket] | SpuError] = SimpleQueue()
        self._trouble: dict[int, str] = {}  # why the last attempt to reach a peer failed
        self._refused: deque[str] = deque(maxlen=3)  # what happened to connections that came and were dropped
        self._stopping = Event()  # no more dialing
        self._closing = Event()  # no more answering
        self._failure: tuple[str, str] | None = None
        self._told: set[int] = set()
        self._lock = Lock()
        self._open: set[socket.socket] = set()  # sockets that a thread may be blocked on
        self._threads: list[Thread] = []
        self._places = Semaphore(MAX_STRANGERS)

    def __enter__(self) -> "_SetUp":
        self._listener = _listen(self._cluster.parties[self._rank].listen)
        self._acceptor = Thread(target=self._accept, name=f"spuvm listener of {self.party}", daemon=True)
        self._acceptor.start()
        for peer in range(len(self._cluster.parties)):
            if peer != self._rank:
                self._run(self._dial, peer)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._failure is not None:
            self._linger()
        self._closing.set()
        _hang_up(self._listener)  # ends its accept at once where the system allows it
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            for sock in self._open:
                _hang_up(sock)
        for thread in self._threads:
            thread.join()
        self._drop_news()

    def news(self) -> Iterator[tuple[str, int, ssl.SSLSocket]]:
        """The connections that were made since the last call; raises what went wrong."""
        while True:
            try:
                item = self._news.get_nowait()
            except Empty:
                return
            if isinstance(item, SpuError):
                raise item
            if item[0] == "outgoing":
                self._told.add(item[1])  # over this connection
            yield item

    def fail(self, origin: str, reason: str) -> None:
        """From now on tell whoever dials us why this party stops."""
        self._failure = (origin, reason[:MAX_REASON])

    def absence(self, outgoing: Iterable[int], incoming: Iterable[int]) -> str:
        """Who has not come, and what we know about it."""
        lines = []
        for peer, entry in enumerate(self._cluster.parties):
            if peer != self._rank and peer not in outgoing:
                why = self._trouble.get(peer, "no answer")
                lines.append(f"{entry.name} has not come at {entry.address} ({why})")
            elif peer != self._rank and peer not in incoming:
                here = self._cluster.parties[self._rank].address
                lines.append(f"{entry.name} can be reached but has not connected to {self.party} at {here}")
        dropped = f" Connections dropped meanwhile: {'; '.join(self._refused)}." if self._refused else ""
        return (
            f"After {self._limit:g} s {'; '.join(lines)}.{dropped} Start every party, check the addresses, "
            "or raise `timeout_seconds` in the cluster file."
        )

    def _linger(self) -> None:
        others = set(range(len(self._cluster.parties))) - {self._rank}
        deadline = time.monotonic() + FAREWELL
        self._drop_news()
        while not others <= self._told and time.monotonic() < deadline:
            time.sleep(0.02)
            self._drop_news()

    def _drop_news(self) -> None:
        """Close what was connected too late; over the outgoing connections, tell why."""
        while True:
            try:
                item = self._news.get_nowait()
            except Empty:
                return
            if isinstance(item, SpuError):
                continue
            direction, peer, sock = item
            if direction == "outgoing" and self._failure is not None:
                with suppress(OSError):
                    _put_frame(sock, Kind.ABORT, "\0".join(self._failure).encode(), sequence=1)
                self._told.add(peer)
            sock.close()

    def _run(self, target: Callable[..., None], *args: object) -> None:
        thread = Thread(target=target, args=args, name=f"spuvm set-up of {self.party}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _report(self, item: tuple[str, int, ssl.SSLSocket] | SpuError) -> None:
        self._news.put(item)
        self._wake.set()

    # Dialing.

    def _dial(self, peer: int) -> None:
        attempt = 0
        while not self._stopping.is_set():
            try:
                sock = self._call(peer)
            except SpuError as error:
                return self._report(error)
            except (OSError, ValueError) as error:
                self._trouble[peer] = _plain(error)
            else:
                return self._report(("outgoing", peer, sock))
            self._stopping.wait(DIAL_PAUSES[min(attempt, len(DIAL_PAUSES) - 1)])
            attempt += 1

    def _call(self, peer: int) -> ssl.SSLSocket:
        entry = self._cluster.parties[peer]
        raw = socket.create_connection((entry.address.host, entry.address.port), min(self._limit, DIAL))
        raw.settimeout(min(self._limit, HANDSHAKE))
        sock = _wrap(self._client, raw, server_side=False)
        with self._guarded(sock) as guard:
            try:
                sock.do_handshake()
            except ssl.SSLCertVerificationError as error:
                raise self._unverified(peer, error) from None
            self._check_names(sock, entry.name, f"the party at {entry.address}")
            try:
                theirs = self._hear_hello(sock, peer)
            except ssl.SSLError as error:
                raise self._alert(peer, error) from None
            self._check_hello(sock, theirs, entry.name)
            _put_frame(sock, Kind.HELLO, self._hello())
            self._hear(sock, Kind.READY, peer)
            return guard.keep()

    def _unverified(self, peer: int, error: ssl.SSLCertVerificationError) -> CertificateError:
        entry = self._cluster.parties[peer]
        try:
            pem = ssl.get_server_certificate((entry.address.host, entry.address.port), timeout=1.0)
            which = certificates.describe(ssl.PEM_cert_to_DER_cert(pem))
        except (OSError, ValueError):
            which = "it could not be read again"
        return CertificateError(
            f"The certificate that {entry.name} presents at {entry.address} is not valid: "
            f"{error.verify_message} ({which}). {_cure(error.verify_message, self._cluster.ca)}"
        )

    def _alert(self, peer: int, error: ssl.SSLError) -> Exception:
        """What a failed first read means: the peer checks our certificate after our handshake."""
        reason = (error.reason or "").replace("_", " ").lower()
        if "alert" not in reason or not ("certificate" in reason or "unknown ca" in reason):
            return error
        problem = reason.partition("alert ")[2].replace("unknown ca", "issued by an authority unknown there")
        mine = certificates.describe(certificates.read_der(self._certificate))
        return CertificateError(
            f"{self._cluster.names[peer]} rejected the certificate of {self.party}: {problem} "
            f"({self._certificate.name}: {mine}). {_cure(problem, self._cluster.ca)}"
        )

    # Being dialed.

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                raw, address = self._listener.accept()
            except OSError:
                self._closing.wait(0.01)
                continue
            if not self._places.acquire(blocking=False):
                raw.close()
                continue
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._run(self._greet, raw, f"{address[0]}:{address[1]}")

    def _greet(self, raw: socket.socket, address: str) -> None:
        try:
            raw.settimeout(min(self._limit, HANDSHAKE))
            sock = _wrap(self._server, raw, server_side=True)
            with self._guarded(sock) as guard:
                peer = self._meet(sock)
                self._report(("incoming", peer, guard.keep()))
        except SpuError as error:
            self._report(error)
        except (OSError, ValueError) as error:
            self._refused.append(f"from {address}, {_plain(error)}")
            log.info("dropped a connection from %s: %s", address, _plain(error))
        finally:
            self._places.release()

    def _meet(self, sock: ssl.SSLSocket) -> int:
        """Find out who dialed us, which its certificate must prove; the rank."""
        sock.do_handshake()
        der = sock.getpeercert(binary_form=True)
        assert der is not None
        known = certificates.names(der) & (set(self._cluster.names) - {self.party})
        if not known:
            which = certificates.describe(der)
            _put_frame(sock, Kind.REJECT, _rejection(CertificateError(self._misnamed("a peer", which))))
            raise OSError(errno.EACCES, f"its certificate names no party of the cluster ({which})")
        name = sorted(known)[0]
        if self._failure is not None:
            _put_frame(sock, Kind.ABORT, "\0".join(self._failure).encode())
            self._told.add(self._cluster.rank(name))
            raise OSError(errno.ECONNABORTED, "this party has stopped")
        _put_frame(sock, Kind.HELLO, self._hello())
        theirs = self._hear_hello(sock, self._cluster.rank(name))
        claimed = theirs.get("party")
        if claimed not in known:
            self._check_names(sock, str(claimed), "a peer")
        self._check_hello(sock, theirs, str(claimed))
        _put_frame(sock, Kind.READY, b"")
        return self._cluster.rank(str(claimed))

    # Both.

    def _hello(self) -> bytes:
        try:
            package = importlib.metadata.version("spuvm")
        except importlib.metadata.PackageNotFoundError:
            package = "unknown"
        hello = {
            "protocol": PROTOCOL_VERSION,
            "package": package,
            "parties": list(self._cluster.names),
            "party": self.party,
        }
        return json.dumps(hello).encode()

    def _check_names(self, sock: ssl.SSLSocket, expected: str, who: str) -> None:
        der = sock.getpeercert(binary_form=True)
        assert der is not None
        if expected not in certificates.names(der):
            error = CertificateError(self._misnamed(f"{who} (expected: {expected})", certificates.describe(der)))
            _put_frame(sock, Kind.REJECT, _rejection(error))
            raise error

    def _misnamed(self, who: str, which: str) -> str:
        return (
            f"{self.party} rejected the certificate of {who}: it is another party's ({which}). "
            "Give each party the certificate that names it (DNS name or common name)."
        )

    def _check_hello(self, sock: ssl.SSLSocket, theirs: dict[str, object], name: str) -> None:
        mine = json.loads(self._hello())
        for key in ("protocol", "package", "parties", "party"):
            due = name if key == "party" else mine[key]
            if theirs.get(key) != due:
                error = PeerMismatchError(
                    f"{self.party} and {name} differ in `{key}`: {self.party} has {due}, {name} has "
                    f"{theirs.get(key)}. Give both the same version of spuvm and the same cluster file."
                )
                _put_frame(sock, Kind.REJECT, _rejection(error))
                raise error

    def _hear_hello(self, sock: ssl.SSLSocket, peer: int) -> dict[str, object]:
        body = self._hear(sock, Kind.HELLO, peer)
        try:
            hello = json.loads(body)
        except ValueError:
            hello = None
        if not isinstance(hello, dict):
            raise OSError(errno.EPROTO, "it sent a malformed greeting")
        return hello

    def _hear(self, sock: ssl.SSLSocket, kind: Kind, peer: int) -> bytes:
        got, body = _get_frame(sock)
        if got is kind:
            return body
        first, _, text = body.decode(errors="replace").partition("\0")
        self._told.add(peer)
        if got is Kind.REJECT:
            raise (CertificateError if first == "CertificateError" else PeerMismatchError)(text)
        if got is Kind.ABORT:
            raise _Stopped(peer, first, text)
        raise OSError(errno.EPROTO, "it sent an unexpected frame")

    def _guarded(self, sock: ssl.SSLSocket) -> "_Guard":
        return _Guard(sock, self._open, self._lock)


class _Stopped(LinkError):
    """A peer answered our dialing with the reason why it stopped."""

    def __init__(self, peer: int, origin: str, reason: str) -> None:
        self.peer, self.origin, self.reason = peer, origin, reason
        super().__init__(reason)


class _Guard:
    """Closes a socket whose set-up fails, so that the last frame or alert still reaches the peer."""

    def __init__(self, sock: ssl.SSLSocket, registry: set[socket.socket], lock: Lock) -> None:
        self._sock, self._registry, self._lock = sock, registry, lock

    def __enter__(self) -> "_Guard":
        with self._lock:
            self._registry.add(self._sock)
        return self

    def keep(self) -> ssl.SSLSocket:
        """The set-up succeeded: the socket outlives the guard."""
        with self._lock:
            self._registry.discard(self._sock)
        return self._sock

    def __exit__(self, *_: object) -> None:
        if self._sock not in self._registry:
            return
        # Closing with unread data would reset the connection and drop what we said last.
        try:
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.settimeout(FAREWELL)
            deadline = time.monotonic() + FAREWELL
            while time.monotonic() < deadline and self._sock.recv(CONTROL_BYTES):
                pass
        except OSError:
            pass
        with self._lock:
            self._registry.discard(self._sock)
        self._sock.close()


def _context(side: int, cluster: Cluster, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # a certificate names a party, not a host: see _check_names
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    if side == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    try:
        context.load_cert_chain(certificate, key, password="")  # an encrypted key fails; never ask
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"{certificate} and {key} cannot be used ({_plain(error)}): give a PEM certificate and its own, "
            "unencrypted key."
        ) from None
    try:
        context.load_verify_locations(cluster.ca)
    except ssl.SSLError as error:
        raise ConfigError(f"`ca` {cluster.ca} cannot be used ({_plain(error)}): give a PEM certificate.") from None
    return context


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family, backlog=64)
    except OSError as error:
        raise LinkError(
            f"Cannot listen at {address}: {_plain(error)}. Is another run still using the port? "
            "Set `listen` (or `address`) in the cluster file to a free port of this machine."
        ) from None
    listener.settimeout(0.2)
    return listener


def _wrap(context: ssl.SSLContext, raw: socket.socket, server_side: bool) -> ssl.SSLSocket:
    try:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(raw, server_side=server_side, do_handshake_on_connect=False)
    except BaseException:
        raw.close()
        raise


def _put_frame(sock: ssl.SSLSocket, kind: Kind, body: bytes, sequence: int = 0) -> None:
    sock.sendall(HEADER.pack(MAGIC, PROTOCOL_VERSION, kind, sequence, len(body), len(body)) + body)


def _get_frame(sock: ssl.SSLSocket) -> tuple[Kind, bytes]:
    # Any version is accepted here: that of a HELLO is compared with a proper message.
    magic, _, kind, _, length, _ = HEADER.unpack(_get(sock, HEADER.size))
    if magic != MAGIC or length > CONTROL_BYTES or kind not in set(Kind):
        raise OSError(errno.EPROTO, "it does not speak spuvm's protocol")
    return Kind(kind), _get(sock, length)


def _get(sock: ssl.SSLSocket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = sock.recv(length - len(data))
        if not piece:
            raise OSError(errno.ECONNRESET, "it closed the connection while being set up")
        data += piece
    return data


def _hang_up(sock: socket.socket) -> None:
    """Break a connection under a thread that is blocked on it."""
    with suppress(OSError):  # not connected any more
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _rejection(error: SpuError) -> bytes:
    return f"{type(error).__name__}\0{error}".encode()


def _plain(error: Exception) -> str:
    """An operating system's or TLS error in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS: {error.reason.replace('_', ' ').lower()}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _cure(problem: str, ca: Path) -> str:
    if "expired" in problem:
        return "Issue a new certificate, and check the clocks."
    if "not yet valid" in problem:
        return "Check the clocks of both machines."
    return f"All parties' certificates must come from the same authority (`ca`, here {ca.name})."
