"""The door of a party while a session is set up: who may come in, before anybody has said who he is.

Connections cost nothing until they speak: they stand in a waiting room, without thread or TLS, and leave it when they
send their first bytes, or are shown out after `SILENT` seconds, or when it is full. Those that speak get one of
`GREETED` places for the handshake. Where room is short, the oldest of the address that has most goes, and addresses of
the cluster file only after all others: so a newcomer always gets in, a peer that speaks at once is through before its
turn to leave comes, and strangers from elsewhere cannot crowd out peers, who may share one address.

Where an address serves several sessions, another process has accepted the connections, and hands them over at a path.
Who comes over a connection that this party shares with him (`link/tls/ways.py`) comes in at a post: so all do with a
party that nobody can reach, which listens nowhere.
"""

from __future__ import annotations

import errno
import json
import logging
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread

from spuvm.runtime.errors import LinkError
from spuvm.runtime.link.parties import Address
from spuvm.runtime.link.tls.channel import hang_up, in_words
from spuvm.runtime.link.tls.first_line import FirstLine, hear, parse
from spuvm.runtime.link.tls.ways import Post, Ways

SILENT = 3.0  # seconds that a connection has for its first bytes
WAITING = 128  # connections that have said nothing yet
GREETED = 64  # connections whose handshake is under way
FROM_ONE = 16  # of them from an address that the cluster file does not have
POLL = 0.2
POST = 2.0  # seconds to make a connection to share
HANDING = 1.0  # seconds for a connection to be handed over
BACKLOG = 512

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Guest:
    """A connection that came in, from `host`."""

    sock: socket.socket
    host: str
    port: int
    since: float = field(default_factory=time.monotonic)
    line: FirstLine | None = None  # that it began with, where another process has read it


class Door:
    """Listens at the address of a party; once open, calls `greet` in a thread for each connection that speaks.

    `posts`: where peers come in over connections that are shared with them.
    """

    def __init__(
        self,
        address: Address | Path | None,
        party: str,
        peers: Iterable[str],
        greet: Callable[[Guest], None],
        posts: Sequence[Post] = (),
    ) -> None:
        self._handed = isinstance(address, Path)
        self._listener = None if address is None else _listen(address)
        self._posts = posts
        self._peers = frozenset(ip for host in peers for ip in _addresses(host))
        self._greet = greet
        self._party = party
        self._waiting: dict[int, Guest] = {}  # by file descriptor, oldest first
        self._greeted: list[Guest] = []
        self._threads: list[Thread] = []
        self._lock = Lock()
        self._closing = False
        self._poller = select.poll()
        self._keepers = [Thread(target=self._stand, args=(post,), name=f"spuvm post of {party}") for post in posts]
        if self._listener is not None:
            self._poller.register(self._listener.fileno(), select.POLLIN)
            self._keepers.append(Thread(target=self._keep, args=(self._listener,), name=f"spuvm door of {party}"))

    def open(self) -> None:
        for keeper in self._keepers:
            keeper.daemon = True
            keeper.start()

    def close(self) -> None:
        """Nobody comes in any more; who is neither admitted nor through is shown out."""
        self._closing = True
        if self._listener is not None:
            hang_up(self._listener)  # ends a poll at once where the system allows it
        for keeper in self._keepers:
            if keeper.is_alive():
                keeper.join()
        if self._listener is not None:
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

    def _stand(self, post: Post) -> None:
        """Let in whoever comes over the connection that is shared with a peer."""
        while not self._closing:
            try:
                sock = post.next(POST)
            except OSError as error:
                log.debug("no connection to share with %s: %s", post.peer, in_words(error))
                time.sleep(POLL)
                continue
            if sock is not None:
                self._begin(Guest(sock, f"the connection shared with {post.peer}", 0))

    def _keep(self, listener: socket.socket) -> None:
        while not self._closing:
            ready = {fd for fd, _ in self._poller.poll(POLL * 1000)}
            for fd in ready & self._waiting.keys():  # before room is made for newcomers: those that spoke do not go
                self._begin(self._leave_waiting(fd))
            if listener.fileno() in ready:
                self._let_in(listener)
            late = time.monotonic() - SILENT
            for guest in [g for g in self._waiting.values() if g.since < late]:
                self._dismiss(guest, "it said nothing")

    def _let_in(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                sock, address = listener.accept()
                guest = _handed_over(sock) if self._handed else Guest(sock, _host(address), address[1])
                if guest is None:
                    continue
                if guest.line is not None and guest.line.verb == "both":  # nothing need follow
                    self._begin(guest)
                    continue
                sock = guest.sock
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
        thread = Thread(target=self._work, args=(guest,), name=f"spuvm greeting of {self._party}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads: others may still come in
            return self._drop(guest, str(error))
        with self._lock:  # doors and posts come here
            self._threads = [*(t for t in self._threads if t.is_alive()), thread]

    def _work(self, guest: Guest) -> None:
        try:
            self._greet(guest)
        except Exception as error:  # whatever a guest says concerns it alone
            self._drop(guest, f"{type(error).__name__} while it was greeted")
        finally:
            self._forget(guest)

    def _drop(self, guest: Guest, why: str) -> None:
        log.warning("dropped a connection from %s: %s", guest.host, why)
        self._forget(guest)
        guest.sock.close()

    def _forget(self, guest: Guest) -> None:
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


def _host(address: tuple[str, int]) -> str:
    return address[0].removeprefix("::ffff:")


def hand_over(guest: Guest, path: Path) -> None:
    """Give a connection, and the line that it began with, to who listens at a path. OSError if nobody does."""
    assert guest.line is not None
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(HANDING)
        sock.connect(str(path))
        said = json.dumps([guest.host, guest.port]).encode() + b"\n" + bytes(guest.line)
        socket.send_fds(sock, [said], [guest.sock.fileno()])


def _handed_over(sock: socket.socket) -> Guest | None:
    """A connection that another process of this machine accepted; None if it is not whole."""
    with sock:
        sock.settimeout(HANDING)
        try:
            said, descriptors, _, _ = socket.recv_fds(sock, 4096, 1)
            if not descriptors:
                return None
            given = socket.socket(fileno=descriptors[0])
            head, _, line = said.partition(b"\n")
            host, port = json.loads(head)
            return Guest(given, str(host), int(port), line=parse(line))
        except (OSError, ValueError):
            return None


def _listen(address: Address | Path) -> socket.socket:
    if isinstance(address, Path):
        return _listen_at(address)
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


def _listen_at(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)  # of a process that was killed
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise LinkError(f"Cannot listen at {path}: {in_words(error)}. Set `listen` to another path.") from None
    listener.setblocking(False)
    return listener


def for_session(ways: Ways, greet: Callable[[Guest], None]) -> Callable[[Guest], None]:
    """What a door does with a connection: one that both use is kept, TLS begins on any other of this session."""

    def answer(guest: Guest) -> None:
        guest.sock.setblocking(True)
        try:
            line = guest.line or hear(guest.sock, SILENT)
            if line is not None and not ways.admits(line):
                raise OSError(errno.EPROTO, "it is of another session")
        except OSError as error:
            log.info("dropped a connection from %s: %s", guest.host, in_words(error))
            return guest.sock.close()
        if line is not None and line.verb == "both":
            return ways.keep(line, guest.sock)
        greet(guest)

    return answer
