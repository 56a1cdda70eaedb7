"""How a party reaches its peers, and is reached by them, whichever of them can be reached.

    peer has an address              dial it
    peer only connects outwards      it has dialed this party, and waits there: take that connection
    neither can be reached           both dial the relay, which joins the two connections

Whoever connects outwards alone keeps one connection waiting for each peer that may want it; once it is taken there is
another. In all three ways TLS follows from end to end, with the party that wants to speak as its client.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue

from spuvm.runtime.link.parties import Address, Cluster
from spuvm.runtime.link.tls.first_line import FirstLine, keep_alive

WAIT_HERE = 2  # connections of one peer


@dataclass(frozen=True)
class Post:
    """Where this party waits for a peer that may want to reach it."""

    peer: str
    address: Address
    open: Callable[[float], socket.socket]


class Ways:
    """Of `party`, in one session. `addresses`: of all parties; None for those that only connect outwards.

    `says_to`: whether the addresses serve several sessions, so that a connection says which it means.
    """

    def __init__(
        self, party: str, addresses: Mapping[str, Address | None], relay: Address | None, session: str, says_to: bool
    ) -> None:
        self.party = party
        self._addresses, self._relay, self._session, self._says_to = addresses, relay, session, says_to
        outwards = [n for n, at in addresses.items() if at is None and n != party]
        self._here: dict[str, Queue[socket.socket]] = {peer: Queue(WAIT_HERE) for peer in outwards}

    @property
    def hosts(self) -> list[str]:
        """From where peers may come."""
        found = [at for n, at in self._addresses.items() if at is not None and n != self.party]
        return [at.host for at in [*found, *([self._relay] if self._relay else [])]]

    def posts(self) -> list[Post]:
        """Where this party waits, if nobody can reach it."""
        if self._addresses[self.party] is not None:
            return []
        return [
            Post(peer, at, self._waits(peer, at))
            for peer in self._addresses
            if peer != self.party and (at := self._addresses[peer] or self._relay) is not None
        ]

    def _waits(self, peer: str, at: Address) -> Callable[[float], socket.socket]:
        return lambda seconds: _dial(at, seconds, FirstLine("at", self._session, peer, self.party))

    def open(self, peer: str, seconds: float) -> socket.socket:
        """A connection to a peer, on which TLS may begin. OSError if there is none within `seconds`."""
        address, line = self._addresses[peer], FirstLine("to", self._session, self.party, peer)
        if address is not None:
            return _dial(address, seconds, line if self._says_to else None)
        if self._addresses[self.party] is None:
            if self._relay is None:
                raise OSError(errno.EHOSTUNREACH, "neither can be reached, and there is no relay")
            return _dial(self._relay, seconds, line)
        try:
            return self._here[peer].get(timeout=seconds)
        except Empty:
            raise OSError(errno.ETIMEDOUT, "it can only connect outwards, and has not come") from None

    def admits(self, line: FirstLine) -> bool:
        """Whether a connection that begins with this line is for this party, in this session."""
        me, peer = (line.target, line.source) if line.verb == "to" else (line.source, line.target)
        known = peer in self._addresses if line.verb == "to" else peer in self._here
        return line.session == self._session and me == self.party != peer and known

    def keep(self, line: FirstLine, sock: socket.socket) -> None:
        """A peer waits here, until this party wants it: the newest of its connections are kept."""
        keep_alive(sock)
        while True:
            try:
                return self._here[line.target].put_nowait(sock)
            except Full:
                with suppress(Empty):
                    self._here[line.target].get_nowait().close()

    def close(self) -> None:
        for waiting in self._here.values():
            with suppress(Empty):
                while True:
                    waiting.get_nowait().close()


def of_cluster(cluster: Cluster, party: str) -> Ways:
    addresses = {p.name: p.address for p in cluster.parties}
    return Ways(party, addresses, cluster.relay, cluster.meeting, cluster.session is not None)


def _dial(address: Address, seconds: float, line: FirstLine | None) -> socket.socket:
    end = time.monotonic() + seconds
    sock = socket.create_connection((address.host, address.port), seconds)
    try:
        if line is not None:
            keep_alive(sock)
            sock.settimeout(max(0.01, end - time.monotonic()))
            sock.sendall(bytes(line))
        return sock
    except BaseException:
        sock.close()
        raise
