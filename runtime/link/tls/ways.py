"""How a party reaches its peers, and is reached by them, whichever of them can be reached.

    peer has an address              dial it
    one of two connects outwards     it dials the other; both use that one connection (`link/tls/shared.py`)
    neither can be reached           both dial the relay, which joins the two connections to one that both use

A connection that is shared is made by whoever can, as soon as its door is open, and made anew when it has ended. In all
three ways TLS follows from end to end, with the party that wants to speak as its client.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Condition

from spuvm.runtime.link.parties import Address, Cluster
from spuvm.runtime.link.tls.channel import FAREWELL
from spuvm.runtime.link.tls.first_line import FirstLine, hear, keep_alive
from spuvm.runtime.link.tls.shared import Shared

AT_RELAY = 0.2  # seconds for which one who stands at a relay listens in one go


@dataclass(frozen=True)
class Post:
    """Where a peer comes in over the connection that this party shares with it.

    `next`: the stream that it opened, if it did; so many seconds to make the connection, OSError if there is none.
    """

    peer: str
    next: Callable[[float], socket.socket | None]


class Meeting:
    """The connection that is shared with one peer; `make` makes it, where that is this party's part."""

    def __init__(self, make: Callable[[float], tuple[socket.socket, bool] | None] | None) -> None:
        """`make` gives the connection, and whether this party is the one that dialed; None if it is not there yet."""
        self._make = make
        self._shared: Shared | None = None
        self._before: list[Shared] = []
        self._changed = Condition()
        self._streams: Queue[socket.socket] = Queue()
        self._closed = False

    def keep(self, sock: socket.socket, dialed: bool) -> None:
        """From now on this is the connection: streams of the one before go on over that."""
        with self._changed:
            if self._closed:
                return sock.close()
            if self._shared is not None:
                self._shared.retire()
                self._before = [s for s in self._before if s.running] + [self._shared]
            self._shared = Shared(sock, dialed, self._streams.put)
            self._changed.notify_all()

    def open(self, seconds: float) -> socket.socket:
        """A stream to the peer. OSError if there is no connection within `seconds`."""
        with self._changed:
            if not self._changed.wait_for(self._is_there, seconds) or self._shared is None:
                raise OSError(errno.ETIMEDOUT, "there is no connection that both use")
            return self._shared.open()

    def next(self, seconds: float) -> socket.socket | None:
        """A stream that the peer opened."""
        if not self._is_there() and self._make is not None and (made := self._make(seconds)) is not None:
            self.keep(*made)
        with suppress(Empty):
            return self._streams.get(timeout=AT_RELAY)
        return None

    def _is_there(self) -> bool:
        return self._shared is not None and self._shared.alive

    def close(self) -> None:
        """No more streams; what was said on those that have been closed still reaches the peer."""
        with self._changed:
            self._closed = True
            ending = [*self._before, *([self._shared] if self._shared is not None else [])]
        for shared in ending:
            shared.retire()
        with suppress(Empty):
            while True:
                self._streams.get_nowait().close()
        for shared in ending:
            shared.join(2 * FAREWELL)


class Ways:
    """Of `party`, in one session. `addresses`: of all parties; None for those that only connect outwards.

    `says_to`: whether the addresses serve several sessions, so that a connection says which it means.
    """

    def __init__(
        self, party: str, addresses: Mapping[str, Address | None], relay: Address | None, session: str, says_to: bool
    ) -> None:
        self.party = party
        self._addresses, self._relay, self._session, self._says_to = addresses, relay, session, says_to
        self._at_relay: dict[str, socket.socket] = {}
        me = addresses.get(party)
        self._meetings = {
            peer: Meeting(self._maker(peer))
            for peer, at in addresses.items()
            if peer != party and (me is None or at is None)
        }

    @property
    def hosts(self) -> list[str]:
        """From where peers may come."""
        found = [at for n, at in self._addresses.items() if at is not None and n != self.party]
        return [at.host for at in [*found, *([self._relay] if self._relay else [])]]

    def posts(self) -> list[Post]:
        """Where peers come in beside the address at which this party listens."""
        return [Post(peer, meeting.next) for peer, meeting in self._meetings.items()]

    def open(self, peer: str, seconds: float) -> socket.socket:
        """A connection to a peer, or a stream of one, on which TLS may begin. OSError if there is none in time."""
        if peer not in self._meetings:
            address = self._addresses[peer]
            assert address is not None
            return _dial(address, seconds, [FirstLine("to", self._session, self.party, peer)] if self._says_to else [])
        try:
            return self._meetings[peer].open(seconds)
        except OSError as error:
            if self._addresses[self.party] is None:
                why = "neither can be reached, and there is no relay" if self._lost(peer) else "no connection to it"
                raise OSError(error.errno, why) from None
            raise OSError(error.errno, "it can only connect outwards, and has not come") from None

    def _lost(self, peer: str) -> bool:
        return self._addresses[peer] is None and self._relay is None

    def admits(self, line: FirstLine) -> bool:
        """Whether a connection that begins with this line is for this party, in this session."""
        if line.session != self._session or line.target != self.party or line.source == self.party:
            return False
        if line.verb == "both":
            return line.source in self._meetings and self._addresses[self.party] is not None
        return line.verb == "to" and line.source in self._addresses

    def keep(self, line: FirstLine, sock: socket.socket) -> None:
        """A peer has dialed, for both to use the connection."""
        self._meetings[line.source].keep(sock, dialed=False)

    def close(self) -> None:
        """Streams that are open go on to their end; no others are made."""
        for waiting in self._at_relay.values():
            waiting.close()
        for meeting in self._meetings.values():
            meeting.close()

    def _maker(self, peer: str) -> Callable[[float], tuple[socket.socket, bool] | None] | None:
        """How this party makes the connection that it shares with a peer; None if the peer does."""
        at, both = self._addresses[peer], FirstLine("both", self._session, self.party, peer)
        if self._addresses.get(self.party) is not None:
            return None
        if at is not None:
            return lambda seconds: (_dial(at, seconds, [both]), True)
        if self._relay is None:
            return None
        relay, order = self._relay, list(self._addresses)
        if order.index(self.party) < order.index(peer):
            to = FirstLine("to", self._session, self.party, peer)
            return lambda seconds: (_dial(relay, seconds, [to, both]), True)
        return lambda seconds: self._stand(relay, peer, seconds)

    def _stand(self, relay: Address, peer: str, seconds: float) -> tuple[socket.socket, bool] | None:
        """Wait at the relay until the peer has come there."""
        if (sock := self._at_relay.get(peer)) is None:
            line = FirstLine("at", self._session, peer, self.party)
            self._at_relay[peer] = sock = _dial(relay, seconds, [line])
        try:
            said = hear(sock, AT_RELAY)
        except TimeoutError:
            return None
        except OSError:
            self._at_relay.pop(peer).close()
            raise
        self._at_relay.pop(peer)
        if said != FirstLine("both", self._session, peer, self.party):
            sock.close()
            raise OSError(errno.EPROTO, "who came to the relay said something else")
        return sock, False


def of_cluster(cluster: Cluster, party: str) -> Ways:
    addresses = {p.name: p.address for p in cluster.parties}
    return Ways(party, addresses, cluster.relay, cluster.meeting, cluster.session is not None)


def _dial(address: Address, seconds: float, lines: list[FirstLine]) -> socket.socket:
    end = time.monotonic() + seconds
    sock = socket.create_connection((address.host, address.port), seconds)
    try:
        if lines:
            keep_alive(sock)
            sock.settimeout(max(0.01, end - time.monotonic()))
            sock.sendall(b"".join(map(bytes, lines)))
        return sock
    except BaseException:
        sock.close()
        raise
