"""The door of a party while a session is set up: who may come in, before anybody has said who he is.

Connections cost nothing until they speak: they stand in a waiting room, without thread or TLS, and leave it when they
send their first bytes, or are shown out after `SILENT` seconds, or when it is full. Those that speak get one of
`GREETED` places for the handshake. Where room is short, the oldest of the address that has most goes, and addresses of
the cluster file only after all others: so a newcomer always gets in, a peer that speaks at once is through before its
turn to leave comes, and strangers from elsewhere cannot crowd out peers, who may share one address.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, Thread

from spuvm.runtime.errors import LinkError
from spuvm.runtime.link.cluster import Address
from spuvm.runtime.link.tls.channel import hang_up, in_words

SILENT = 3.0  # seconds that a connection has for its first bytes
WAITING = 128  # connections that have said nothing yet
GREETED = 64  # connections whose handshake is under way
FROM_ONE = 16  # of them from an address that the cluster file does not have
POLL = 0.2
BACKLOG = 512

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Guest:
    """A connection that came in, from `host`."""

    sock: socket.socket
    host: str
    port: int
    since: float = field(default_factory=time.monotonic)


class Door:
    """Listens at the address of a party; once open, calls `greet` in a thread for each connection that speaks."""

    def __init__(self, address: Address, party: str, peers: Iterable[str], greet: Callable[[Guest], None]) -> None:
        self._listener = _listen(address)
        self._peers = frozenset(ip for host in peers for ip in _addresses(host))
        self._greet = greet
        self._party = party
        self._waiting: dict[int, Guest] = {}  # by file descriptor, oldest first
        self._greeted: list[Guest] = []
        self._threads: list[Thread] = []
        self._lock = Lock()
        self._closing = False
        self._poller = select.poll()
        self._poller.register(self._listener.fileno(), select.POLLIN)
        self._keeper = Thread(target=self._keep, name=f"spuvm door of {party}", daemon=True)

    def open(self) -> None:
        self._keeper.start()

    def close(self) -> None:
        """Nobody comes in any more; who is neither admitted nor through is shown out."""
        self._closing = True
        hang_up(self._listener)  # ends a poll at once where the system allows it
        self._keeper.join()
        self._listener.close()
        for guest in self._waiting.values():
            guest.sock.close()
        with self._lock:
            for guest in self._greeted:
                hang_up(guest.sock)
            self._greeted.clear()
        for thread in self._threads:
            thread.join()

    def admit(self, guest: Guest) -> None:
        """It has proved who it is: from now on it is not shown out. OSError if it has been already."""
        with self._lock:
            if guest not in self._greeted:
                raise OSError(errno.ECONNABORTED, "it was too slow while others came")
            self._greeted.remove(guest)

    def _keep(self) -> None:
        while not self._closing:
            ready = {fd for fd, _ in self._poller.poll(POLL * 1000)}
            for fd in ready & self._waiting.keys():  # before room is made for newcomers: those that spoke do not go
                self._begin(self._leave_waiting(fd))
            if self._listener.fileno() in ready:
                self._let_in()
            late = time.monotonic() - SILENT
            for guest in [g for g in self._waiting.values() if g.since < late]:
                self._dismiss(guest, "it said nothing")

    def _let_in(self) -> None:
        with suppress(OSError):
            while True:
                sock, (host, port, *_) = self._listener.accept()
                guest = Guest(sock, host.removeprefix("::ffff:"), port)
                self._waiting[sock.fileno()] = guest
                self._poller.register(sock.fileno(), select.POLLIN)
                if len(self._waiting) > WAITING:
                    self._dismiss(crowding(self._waiting.values(), self._peers), "too many wait")

    def _leave_waiting(self, fd: int) -> Guest:
        self._poller.unregister(fd)
        return self._waiting.pop(fd)

    def _dismiss(self, guest: Guest, why: str) -> None:
        log.debug("dropped a connection from %s: %s", guest.host, why)
        self._leave_waiting(guest.sock.fileno()).sock.close()

    def _begin(self, guest: Guest) -> None:
        """Give it a place, if need be another's, and a thread."""
        with self._lock:
            same = [g for g in self._greeted if g.host == guest.host]
            crowd = same if guest.host not in self._peers and len(same) >= FROM_ONE else self._greeted
            if crowd is same or len(crowd) >= GREETED:
                out = crowding(crowd, self._peers)
                self._greeted.remove(out)
                hang_up(out.sock)
            self._greeted.append(guest)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = Thread(target=self._work, args=(guest,), name=f"spuvm greeting of {self._party}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, guest: Guest) -> None:
        try:
            self._greet(guest)
        finally:
            with self._lock, suppress(ValueError):
                self._greeted.remove(guest)


def crowding(guests: Collection[Guest], peers: Collection[str]) -> Guest:
    """Who goes when room is short: the oldest of the address that has most, a peer's only if there is no other."""
    strangers = [g for g in guests if g.host not in peers] or list(guests)
    most = Counter(g.host for g in strangers).most_common(1)[0][0]
    return next(g for g in strangers if g.host == most)


def _addresses(host: str) -> set[str]:
    """What a name stands for; nothing if that is not known here."""
    with suppress(OSError, UnicodeError):
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    return set()


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise LinkError(
            f"Cannot listen at {address}: {in_words(error)}. Is another run still using the port? "
            "Set `listen` (or `address`) in the cluster file to a free port of this machine."
        ) from None
    listener.setblocking(False)
    return listener
