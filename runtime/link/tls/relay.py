"""A meeting place for parties of whom neither can be reached: both dial it, and it joins their connections.

It passes on bytes, and knows no key: TLS runs from party to party, through it. What it learns is who speaks with whom
(addresses, and the names in `link/tls/first_line.py`), when and how much. Whoever can reach it may ask, so all that it
keeps is limited, as a whole and for one address.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter, deque
from contextlib import suppress
from threading import Lock, Thread

from spuvm.runtime.link.parties import Address
from spuvm.runtime.link.tls.channel import BLOCK_BYTES, hang_up, in_words
from spuvm.runtime.link.tls.door import SILENT, Door, Guest, crowding
from spuvm.runtime.link.tls.first_line import FirstLine, hear, keep_alive

WAITING = 1024  # connections that wait for a peer; where there are more, the oldest of the address that has most goes
JOINED = 512  # pairs at once
FROM_ONE = 128  # pairs of one address
WAIT_HERE = 2  # connections of one pair

log = logging.getLogger(__name__)


class Relay:
    """Listens at an address once it is open, until it is closed."""

    def __init__(self, address: Address, joined: int = JOINED, from_one: int = FROM_ONE) -> None:
        self._joined, self._from_one = joined, from_one
        self._waiting: dict[tuple[str, str, str], deque[Guest]] = {}
        self._pairs: list[tuple[Guest, Guest]] = []
        self._lock = Lock()
        self._door = Door(address, "relay", [], self._answer)

    def __enter__(self) -> Relay:
        self._door.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._door.close()
        with self._lock:
            for guest in self._all_waiting():
                guest.sock.close()
            for pair in self._pairs:  # whose threads close them
                for guest in pair:
                    hang_up(guest.sock)

    def _all_waiting(self) -> list[Guest]:
        return sorted((g for here in self._waiting.values() for g in here), key=lambda g: g.since)

    def _answer(self, guest: Guest) -> None:
        guest.sock.setblocking(True)
        try:
            line = hear(guest.sock, SILENT)
            if line is None:
                raise OSError(errno.EPROTO, "it did not say whom it wants to reach")
            keep_alive(guest.sock)
            self._door.admit(guest)
            if line.verb == "both":
                raise OSError(errno.EPROTO, "at a relay one waits, or wants to reach somebody")
            if line.verb == "at":
                self._keep(line, guest)
            else:
                self._join(line, guest)
        except OSError as error:
            log.info("dropped a connection from %s: %s", guest.host, in_words(error))
            guest.sock.close()

    def _keep(self, line: FirstLine, guest: Guest) -> None:
        with self._lock:
            here = self._waiting.setdefault(line.pair, deque())
            here.append(guest)
            gone = [here.popleft()] if len(here) > WAIT_HERE else []
            everybody = self._all_waiting()
            if len(everybody) > WAITING:
                gone.append(crowding(everybody, ()))
            for pair, waiting in list(self._waiting.items()):
                for old in [g for g in waiting if g in gone or _is_over(g)]:
                    waiting.remove(old)
                    gone.append(old)
                if not waiting:
                    del self._waiting[pair]
        for old in gone:
            old.sock.close()

    def _join(self, line: FirstLine, guest: Guest) -> None:
        with self._lock:
            other = self._take(line)
            if other is None:
                raise OSError(errno.ENOENT, f"{line.target} does not wait for {line.source}")
            hosts = Counter(g.host for pair in self._pairs for g in pair)
            if len(self._pairs) >= self._joined or hosts[guest.host] >= 2 * self._from_one:
                other.sock.close()
                raise OSError(errno.EUSERS, "too many are joined")
            pair = (guest, other)
            self._pairs.append(pair)
        log.info("joined %s at %s and %s at %s", line.source, guest.host, line.target, other.host)
        back = Thread(target=_pass_on, args=(other.sock, guest.sock), name="spuvm relay", daemon=True)
        back.start()
        Thread(target=self._carry, args=(pair, back), name="spuvm relay", daemon=True).start()

    def _take(self, line: FirstLine) -> Guest | None:
        """Who waits for this connection and is still there, the newest first."""
        here = self._waiting.pop(line.pair, deque())
        while here:
            other = here.pop()
            if not _is_over(other):
                if here:
                    self._waiting[line.pair] = here
                return other
            other.sock.close()
        return None

    def _carry(self, pair: tuple[Guest, Guest], back: Thread) -> None:
        _pass_on(pair[0].sock, pair[1].sock)
        back.join()
        with self._lock:
            self._pairs.remove(pair)
        for guest in pair:
            guest.sock.close()


def _is_over(guest: Guest) -> bool:
    """Whether a connection on which nothing is due has ended."""
    try:
        return guest.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """All that comes, until it ends; what follows at the other end then is its end, too."""
    buffer = memoryview(bytearray(BLOCK_BYTES))
    try:
        while n := source.recv_into(buffer):
            target.sendall(buffer[:n])
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
    except OSError:
        hang_up(source)
        hang_up(target)
