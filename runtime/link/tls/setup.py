"""Setting up a session over TLS: dial every peer, answer whoever dials us, until all are connected.

A connection can fail in two ways. A stranger (a port scanner, a certificate that our authority did
not sign) is logged and dropped, whatever it claims. But a certificate problem that we meet when
dialing a party at its own address, or a difference with a party that has proved who it is, ends
the set-up. A party that fails goes on answering for a moment, so that its peers meet the same
problem and say so, rather than time out.
"""

import logging
import secrets
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import NamedTuple

from spuvm.runtime.errors import SpuError
from spuvm.runtime.link.link import MAX_REASON, Kind
from spuvm.runtime.link.parties import Cluster
from spuvm.runtime.link.tls.channel import FAREWELL, Channel, hang_up, in_words, make_context
from spuvm.runtime.link.tls.door import Door, Guest, for_session
from spuvm.runtime.link.tls.hello import Greeter
from spuvm.runtime.link.tls.stream import Wake, put_frame
from spuvm.runtime.link.tls.ways import Ways

DIAL_PAUSES = (0.02, 0.05, 0.1, 0.2)
DIAL = 2.0  # seconds to reach an address
HANDSHAKE = 10.0  # seconds for one connection to say who it is

log = logging.getLogger(__name__)


class Connected(NamedTuple):
    """A connection that was made: one that we dialed is for sending."""

    outgoing: bool
    peer: int
    channel: Channel
    token: str  # by which the connection is known, should it be lost


class SetUp:
    """The set-up of one party's session, one thread a connection; use as a context manager. `ways` stay open."""

    def __init__(self, cluster: Cluster, party: str, limit: float, wake: Wake, ways: Ways) -> None:
        self.party = party
        self._cluster = cluster
        self._rank = cluster.rank(party)
        self._limit = limit
        self._wake = wake
        self._failure: tuple[str, str] | None = None
        self._patience = FAREWELL
        self._ways = ways
        self._greeter = Greeter(cluster, party, lambda: self._failure)
        self._server = make_context(ssl.PROTOCOL_TLS_SERVER, *self._greeter.key_files, crl=cluster.crl)
        self._client = make_context(ssl.PROTOCOL_TLS_CLIENT, *self._greeter.key_files, crl=cluster.crl)
        self._news: SimpleQueue[Connected | SpuError] = SimpleQueue()
        self._trouble: dict[int, str] = {}  # why the last attempt to reach a peer failed
        self._refused: deque[str] = deque(maxlen=3)  # what happened to connections that came and were dropped
        self._stopping = Event()  # no more dialing
        self._lock = Lock()
        self._open: set[socket.socket] = set()  # sockets that a thread may be blocked on
        self._threads: list[Thread] = []

    def __enter__(self) -> "SetUp":
        listen = self._cluster.parties[self._rank].listen
        self._door = Door(
            listen, self.party, self._ways.hosts, for_session(self._ways, self._answer), self._ways.posts()
        )
        self._door.open()  # whoever comes in finds all of this
        for peer in self._others():
            self._run(self._dial, peer)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._failure is not None:
            self._linger()
        self._door.close()
        with self._lock:
            for sock in self._open:
                hang_up(sock)
        for thread in self._threads:
            thread.join()
        self._drop_news()

    def news(self) -> Iterator[Connected]:
        """The connections that were made since the last call; raises what went wrong."""
        with suppress(Empty):
            while True:
                item = self._news.get_nowait()
                if isinstance(item, SpuError):
                    raise item
                if item.outgoing:
                    self._greeter.told.add(item.peer)  # over this connection
                yield item

    def fail(self, origin: str, reason: str, patience: float = FAREWELL) -> None:
        """From now on tell whoever dials us why this party stops; leave when all know, or after `patience` seconds."""
        self._failure = (origin, reason[:MAX_REASON])
        self._patience = patience

    def absence(self, outgoing: Iterable[int], incoming: Iterable[int]) -> str:
        """Who has not come, and what we know about it."""
        lines = []
        for peer in self._others():
            entry = self._cluster.parties[peer]
            if peer not in outgoing:
                why = self._trouble.get(peer, "no answer")
                lines.append(f"{entry.name} has not come at {self._cluster.where(entry.name)} ({why})")
            elif peer not in incoming:
                here = self._cluster.where(self.party)
                lines.append(f"{entry.name} can be reached but has not connected to {self.party} at {here}")
        dropped = f" Connections dropped meanwhile: {'; '.join(self._refused)}." if self._refused else ""
        return (
            f"After {self._limit:g} s {'; '.join(lines)}.{dropped} Start every party, check the addresses, "
            "or raise `timeout_seconds` in the cluster file."
        )

    def _others(self) -> list[int]:
        return [peer for peer in range(len(self._cluster.parties)) if peer != self._rank]

    def _linger(self) -> None:
        deadline = time.monotonic() + self._patience
        self._drop_news()
        while not self._greeter.told.issuperset(self._others()) and time.monotonic() < deadline:
            time.sleep(0.02)
            self._drop_news()

    def _drop_news(self) -> None:
        """Close what was connected too late; over the outgoing connections, tell why."""
        with suppress(Empty):
            while True:
                item = self._news.get_nowait()
                if isinstance(item, SpuError):
                    continue
                if item.outgoing and self._failure is not None:
                    with suppress(OSError):
                        put_frame(item.channel, Kind.ABORT, "\0".join(self._failure).encode(), sequence=1)
                    self._greeter.told.add(item.peer)
                item.channel.close()

    def _run(self, target: Callable[..., None], *args: object) -> None:
        thread = Thread(target=target, args=args, name=f"spuvm set-up of {self.party}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _report(self, item: Connected | SpuError) -> None:
        self._news.put(item)
        self._wake.set()

    @contextmanager
    def _opened(self, raw: socket.socket, server_side: bool) -> Iterator[Channel]:
        """A channel; if the block fails, the last frame or alert still reaches the peer, and it is closed."""
        context = self._server if server_side else self._client
        with self._lock:
            self._open.add(raw)
        try:
            channel = Channel(raw, context, server_side, min(self._limit, HANDSHAKE))
            try:
                yield channel
            except BaseException:
                channel.part()
                raise
        finally:
            with self._lock:
                self._open.discard(raw)

    def _dial(self, peer: int) -> None:
        name, attempt, token = self._cluster.names[peer], 0, secrets.token_hex(16)
        while not self._stopping.is_set():
            try:
                raw = self._ways.open(name, min(self._limit, DIAL))
                with self._opened(raw, server_side=False) as channel:
                    self._greeter.dial(channel, peer, token)
            except SpuError as error:
                return self._report(error)
            except (OSError, ValueError) as error:
                self._trouble[peer] = in_words(error)
            else:
                return self._report(Connected(True, peer, channel, token))
            self._stopping.wait(DIAL_PAUSES[min(attempt, len(DIAL_PAUSES) - 1)])
            attempt += 1

    def _answer(self, guest: Guest) -> None:
        try:
            with self._opened(guest.sock, server_side=True) as channel:
                peer, token = self._greeter.answer(channel, lambda: self._door.admit(guest))
            self._report(Connected(False, peer, channel, token))
        except SpuError as error:
            self._report(error)
        except (OSError, ValueError) as error:
            self._refused.append(f"from {guest.host}:{guest.port}, {in_words(error)}")
            log.info("dropped a connection from %s: %s", guest.host, in_words(error))
