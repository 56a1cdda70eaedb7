"""Links between machines: TCP, TLS 1.3, certificates on both sides.

Each ordered pair of parties has a connection of its own: i dials j, and sends its messages to j
over it. So sending and receiving are independent, and a party that waits never stops the other
direction. Small messages are written by the calling thread, larger ones by one thread per peer,
while the calling thread decrypts straight into the destination arrays.

What a connection does not accept at once goes to the peer's thread. The calling thread waits for a
peer to take data only when many bytes are queued (AHEAD), and then it receives meanwhile. So parties
that all send at the same time cannot block each other.

A dealer awaits nobody, so it runs ahead: until the queue is full at its end, and at the receiver's the
room for what is not expected yet (`dealer_ahead_mb` of the cluster file). It may hear nothing for long
while its peers are busy with each other, as may parties that do not compute. So a party that gets on, one that
receives data, says so to all (ALIVE), eight times in `timeout` at most. Peers that block each other
get nothing, say nothing, and time out; the dealer and others wait a little longer, and hear who is to blame.

`link/tls/connect.py` joins a session, `link/tls/setup.py` makes its connections (`link/tls/hello.py`: who is at the
other end), and `link/tls/renewal.py` makes lost ones anew. `link/tls/channel.py` is TLS on one of them,
`link/tls/stream.py` the frames that go over it and their format, `link/tls/receiver.py` takes them in.
"""

import select
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from spuvm.runtime.errors import PeerAbortedError, PeerLostError, PeerTimeoutError, SpuError
from spuvm.runtime.link.counts import add_line
from spuvm.runtime.link.link import UNDER_WAY, Kind, Link
from spuvm.runtime.link.parties import Cluster
from spuvm.runtime.link.round import Exchange, leading
from spuvm.runtime.link.tls.channel import BLOCK_BYTES, FAREWELL, RECORD_BYTES, in_words
from spuvm.runtime.link.tls.pace import Pace
from spuvm.runtime.link.tls.receiver import Receiver
from spuvm.runtime.link.tls.renewal import MENDING, Renewal
from spuvm.runtime.link.tls.setup import Connected
from spuvm.runtime.link.tls.stalled import SAYS, Waits
from spuvm.runtime.link.tls.stream import INLINE_BYTES, Sender, Wake
from spuvm.runtime.link.tls.ways import Ways

LAST_WORDS = 0.5  # seconds to look for the reason of a peer whose connection broke
AHEAD = 64 << 20  # bytes that a party computes before it sends them
ALIVE = 1 / 8  # of the time limit, between two frames that say so
BEHIND = 1.2  # times the limit, for a party that may be waiting for the dealer: it notices first
ENDLESS = 1000  # times the limit: no wait is longer, whatever comes meanwhile
TAKEN = 1 << 13  # bytes that are taken at once where a short message is awaited
SHORT = 0.2  # seconds for which a short message is awaited without looking after anything else


class TlsLink(Link):
    """One party's end; made by `connect`."""

    def __init__(
        self,
        rank: int,
        parties: Sequence[str],
        timeout: float,
        ways: Ways,
        ahead: int = AHEAD,
        dealer: int | None = None,
        paces: Mapping[int, Pace] | None = None,
        compress: bool = False,
        counts: Path | None = None,
    ) -> None:
        """`ways`: over which its connections go; it closes them. `paces`: by peer, of those that have a rate.

        `ahead`: bytes that a dealer computes before it sends them, and that are received of it before time.
        `counts`: a file that gets a line of what was exchanged when the link is closed.
        """
        advice = "Is it running and reachable? Raise the limit with `timeout_seconds` in the cluster file."
        super().__init__(rank, parties, timeout, advice)
        self._unsent = ahead if rank == dealer else AHEAD
        self._dealer = dealer
        self._early = {dealer: ahead}  # by peer: bytes received before they are expected
        self._heard = time.monotonic()  # when something came from any peer
        self._alive = self._heard  # when this party said that it gets on
        self._waits = Waits(rank, parties)
        self._ways, self._paces, self._compress, self._counts = ways, paces or {}, compress, counts
        self._renewal: Renewal | None = None  # of connections that were lost, if they may be taken up again
        self._tokens: dict[tuple[bool, int], str] = {}  # of connections, by direction and peer
        self._senders: dict[int, Sender] = {}
        self._receivers: dict[int, Receiver] = {}
        self._by_fd: dict[int, Receiver] = {}
        self._unread: set[Receiver] = set()  # of whose connection more was taken than read
        self._buffer = memoryview(bytearray(BLOCK_BYTES))  # on its way from a socket to TLS
        self._poller = select.poll()
        self._wake = Wake()
        self._stopped: PeerAbortedError | None = None  # said by a peer
        self._hope = 0.0  # until when others are awaited since then
        self._poller.register(self._wake.fd, select.POLLIN)

    @property
    def on_wire(self) -> dict[int, int]:
        """Bytes that have left for each peer: payload, or what it was compressed to, frames and TLS."""
        return {peer: sender.on_wire for peer, sender in self._senders.items()}

    @property
    def _complete(self) -> bool:
        return len(self._senders) == len(self._receivers) == len(self.peers)

    def _attach(self, made: Connected) -> None:
        peer, channel = made.peer, made.channel
        if peer in (self._senders if made.outgoing else self._receivers):
            return channel.close()  # a second connection of the same peer
        channel.begin_session()
        self._tokens[made.outgoing, peer] = made.token
        if made.outgoing:
            name = self.parties[peer]
            self._senders[peer] = Sender(
                *(channel, name, self._patience(peer), self._wake, lambda: self._heard),
                *(self._paces.get(peer), self._compress),
            )
        else:
            receiver = Receiver(peer, channel, self, self._waits, self._early.get(peer, 0))
            self._receivers[peer] = self._by_fd[channel.sock.fileno()] = receiver
            self._resume(receiver)

    def _take_up_again(self, cluster: Cluster) -> None:
        """From now on connections that are lost are made anew."""
        connections = (self._senders, self._receivers, self._tokens, self._poller, self._wake)
        self._renewal = Renewal(cluster, self._ways, *connections, resume=self._resume, lost=self._lost)

    def _transfer(self, sends: dict[int, list[memoryview]], receives: dict[int, list[memoryview]]) -> None:
        self._expect(receives)
        for peer, views in sends.items():
            self._send(peer, Kind.DATA, views)
        self._arrive(receives)
        self._settle()

    def exchange_short(self, sends: Mapping[int, memoryview], receives: Mapping[int, memoryview]) -> None:
        """Most rounds of small arrays: a record each way, read in one go. Whatever else comes is taken as ever."""
        if not self._plain(sends, receives):
            return super().exchange_short(sends, receives)
        self._begun = None
        try:
            for peer, view in sends.items():
                self._send(peer, Kind.DATA, [view])
            for peer, view in receives.items():
                self._take_short(self._receivers[peer], view)
            self._settle()
        except BaseException as error:
            self._fail(error)
            raise
        self._count({p: len(v) for p, v in sends.items()}, {p: len(v) for p, v in receives.items()})

    def _plain(self, sends: Mapping[int, memoryview], receives: Mapping[int, memoryview]) -> bool:
        """Whether nothing is under way, and nothing to be agreed or taken up again."""
        if self.failed or self._proposed or self._renewal is not None or self._stopped is not None:
            return False
        short = all(len(v) < RECORD_BYTES // 2 for views in (sends, receives) for v in views.values())
        free = all(not (s := self._senders[p]).busy and s.error is None for p in sends)
        return short and free and all(self._receivers[p].idle for p in receives)

    def _take_short(self, receiver: Receiver, view: memoryview) -> None:
        until = 0.0
        while (come := self._at_once(receiver, view)) is None:
            start = time.monotonic()
            until = until or start + SHORT
            # Others may be far ahead: their messages can wait.
            ready = start < until and receiver.poller.poll(1000 * (until - start))
            self.waited += time.monotonic() - start
            if not ready:
                break
        if come:
            return self._moved(receiver)
        self._expect({receiver.peer: [view]})
        self._resume(receiver)
        self._arrive([receiver.peer])

    def _at_once(self, receiver: Receiver, view: memoryview) -> bool | None:
        try:
            return receiver.at_once(view, self._buffer[:TAKEN])
        except OSError as error:
            receiver.ended = True
            raise self._lost(receiver.peer, error) from None

    def _moved(self, receiver: Receiver) -> None:
        """A short message has come; what else was taken with it is read by the next wait, if not before."""
        if receiver.channel.unread:
            self._unread.add(receiver)
        self._heard = time.monotonic()
        self._waits.moved(receiver.peer, self._heard)
        self._get_on()

    def _get_on(self) -> None:
        if self._heard > self._alive + ALIVE * self.timeout:
            self._alive = self._heard
            self._say(Kind.ALIVE, b"")

    def _begin(self, sends: dict[int, int], receives: dict[int, list[memoryview]]) -> Exchange:
        return TlsExchange(self, sends, receives)

    def _expect(self, receives: Mapping[int, list[memoryview]]) -> None:
        for peer, views in receives.items():
            receiver = self._receivers[peer]
            receiver.expect(views)
            if receiver.parked:
                self._resume(receiver)

    def _arrive(self, receives: Iterable[int]) -> None:
        """Wait until all messages expected from these peers have arrived."""
        awaited = [self._receivers[peer] for peer in receives]
        self._wait(lambda: [r for r in awaited if not r.arrived], self._awaiting_data())
        self._check_senders()

    def _settle(self) -> None:
        """Wait until all messages have left."""
        if busy := [sender for sender in self._senders.values() if sender.busy]:
            self._wait(lambda: [], self._awaiting_data(), busy)
        self._check_senders()

    def _make_room(self, peer: int) -> None:
        """Wait until little enough is queued for the peer."""
        sender = self._senders[peer]
        if sender.crowded(self._unsent):
            self._check_senders()  # one that failed never gets less crowded
            sender.observed = True
            self._wait(lambda: [], self._awaiting_data(), [sender], self._unsent)
            sender.observed = False
            self._check_senders()

    def _arrival(self, peer: int, position: int) -> None:
        """Wait until so many bytes of all messages expected from the peer have arrived."""
        receiver = self._receivers[peer]
        self._wait(lambda: [receiver] if receiver.filled < position else [], self._awaiting_data())

    def _send_control(self, peer: int, kind: Kind, body: bytes) -> None:
        self._send(peer, kind, [memoryview(body)])

    def _receive_control(self, peer: int, kind: Kind, awaited: str) -> bytes:
        receiver = self._receivers[peer]
        inbox = receiver.inbox[kind]

        def heard() -> bool:
            if receiver.overtakes(kind):
                raise self._out_of_step(peer, Kind.DATA, awaited)
            return bool(inbox)

        self._wait(lambda: [] if heard() else [receiver], awaited)
        return inbox.popleft()[1]

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
        if self._renewal is not None:
            self._renewal.close()
        for sender in self._senders.values():
            sender.close()
        for receiver in self._receivers.values():
            receiver.close()
        for pace in self._paces.values():
            pace.close()
        self._ways.close()
        self._wake.close()
        if self._counts is not None:
            add_line(self._counts, self)

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
        missing: Callable[[], list[Receiver]],
        what: str,
        senders: Sequence[Sender] = (),
        most: int | None = None,
    ) -> None:
        """Serve all incoming connections until nobody is missing and no sender has more than `most` bytes queued.

        Raises if a peer stops, or nothing moves in time.
        """
        if self._stopped is not None and time.monotonic() > self._hope:
            raise self._stopped
        start = time.monotonic()
        try:
            self._wait_from(start, missing, what, senders, most)
        finally:
            self.waited += time.monotonic() - start

    def _wait_from(
        self,
        start: float,
        missing: Callable[[], list[Receiver]],
        what: str,
        senders: Sequence[Sender],
        most: int | None,
    ) -> None:
        moved = said = start
        while (late := missing()) or any(s.crowded(most) for s in senders):
            for receiver in late:
                if receiver.closed:
                    name = self.parties[receiver.peer]
                    raise self._stopped or PeerLostError(f"{name} closed its link while {self._me} awaited {what}.")
            awaited = [r.peer for r in late] or [
                p for p, s in self._senders.items() if s in senders and s.crowded(most)
            ]
            patience = self._patience(*awaited)
            if self._renewal is not None and self._renewal.look_after():
                moved = time.monotonic()
            if self._stopped is not None:
                self._check_hope(late, senders, most)
            limit = max(0.0, min(moved + patience, said + SAYS * self.timeout) - time.monotonic())
            limit = limit if self._stopped is None else min(limit, UNDER_WAY)
            progress = self._poll(limit if self._renewal is None else min(limit, MENDING))
            now = time.monotonic()
            if progress and now < start + ENDLESS * patience:
                moved = said = now
            elif now >= moved + patience or progress:
                raise self._stopped or PeerTimeoutError(
                    self._timed_out(awaited, what if late else f"that it takes {what}")
                )
            elif now >= said + SAYS * self.timeout:
                said = now
                self._say(Kind.WAITING, self._waits.frame(awaited, now))
            self._check_senders()

    def _check_hope(self, late: list[Receiver], senders: Sequence[Sender], most: int | None) -> None:
        """After a peer has stopped: what others have sent before they heard of it may be under way."""
        assert self._stopped is not None
        leaving = any(s.crowded(most) or s.error is not None for s in senders)
        if leaving or any(r.stopped for r in late) or time.monotonic() > self._hope:
            raise self._stopped

    def _timed_out(self, awaited: Sequence[int], what: str) -> str:
        return f"{self._waits.text(awaited, what, self.timeout, time.monotonic())} {self._advice}"

    def _patience(self, *awaited: int) -> float:
        """How long to wait for these peers, in seconds: longer where they may themselves wait for the dealer."""
        return self.timeout * (1 if self._dealer in (None, self.rank, *awaited) else BEHIND)

    def _poll(self, limit: float) -> bool:
        """Wait for news on any connection and take it in; whether anything moved."""
        if self._unread:
            while self._unread:
                self._resume(self._unread.pop())
            return True
        filled, moved = self._filled, False
        for fd, _ in self._poller.poll(limit * 1000):
            if fd == self._wake.fd:
                self._wake.clear()
                if self._renewal is not None:
                    self._renewal.readmit()
                moved = True
                continue
            if self._renewal is not None and self._renewal.ended(fd):
                continue
            receiver = self._by_fd[fd]
            before = receiver.progress
            self._resume(receiver, take=True)
            if receiver.progress != before:
                self._heard = time.monotonic()
                self._waits.moved(receiver.peer, self._heard)
                moved = True
        if self._renewal is not None:
            self._renewal.confirm()
        if self._filled != filled:
            self._get_on()
        return moved

    @property
    def _filled(self) -> int:
        """Bytes received where they were expected: what shows that this party gets on."""
        return sum(receiver.filled for receiver in self._receivers.values())

    def _say(self, kind: Kind, body: bytes) -> None:
        """Tell every peer that can take it at once."""
        for peer, sender in self._senders.items():
            if not sender.busy and sender.error is None and not self._receivers[peer].closed:
                with suppress(OSError):  # gone: whoever needs it will notice
                    sender.send(kind, [memoryview(body)])

    def _resume(self, receiver: Receiver, take: bool = False) -> None:
        if receiver.stopped:
            return
        try:
            if take:
                receiver.channel.take(self._buffer)
            receiver.advance()
        except PeerAbortedError as stopped:
            receiver.stopped = True
            if self._stopped is None:
                self._stopped, self._hope = stopped, time.monotonic() + UNDER_WAY
        except OSError as error:
            if self._renewal is None or self._stopped is not None:
                receiver.ended = True
                raise self._lost(receiver.peer, error) from None
            receiver.broken = time.monotonic()
        wanted = not (receiver.parked or receiver.closed or receiver.stopped) and receiver.broken is None
        if wanted != receiver.watched:  # what nobody can take now would wake us all the time
            receiver.watched = wanted
            if wanted:
                self._poller.register(receiver.channel.sock.fileno(), select.POLLIN)
            else:
                self._poller.unregister(receiver.channel.sock.fileno())

    # Failures.

    @property
    def _me(self) -> str:
        return self.parties[self.rank]

    def _failed_send(self, peer: int, error: Exception) -> Exception:
        if not isinstance(error, OSError):
            return error
        if isinstance(error, TimeoutError):
            awaited = f"that it takes {self._awaiting_data()}"
            return PeerTimeoutError(self._timed_out([peer], awaited))
        return self._lost(peer, error)

    def _lost(self, peer: int, error: OSError) -> SpuError:
        """The error for a broken connection: the peer's own reason, if it managed to tell us."""
        if self._stopped is not None:
            return self._stopped
        try:
            self._drain(peer)
        except SpuError as told:
            return told
        return PeerLostError(
            f"Lost {self.parties[peer]} in round {self._round}: its connection to {self._me} ended "
            f"({in_words(error)}). See {self.parties[peer]}'s own messages for the reason."
        )

    def _drain(self, peer: int) -> None:
        """Read on, for a moment, past what we do not need any more."""
        receiver = self._receivers.get(peer)
        if receiver is None or receiver.ended:
            return
        deadline = time.monotonic() + LAST_WORDS
        poller = select.poll()
        poller.register(receiver.channel.sock.fileno(), select.POLLIN)
        receiver.discard = True
        try:
            receiver.advance()
            while not receiver.closed and (left := deadline - time.monotonic()) > 0 and poller.poll(left * 1000):
                receiver.channel.take(self._buffer)
                receiver.advance()
        except OSError:
            receiver.ended = True


class TlsExchange(Exchange):
    """A long message leaves piece by piece, by its sender's thread; a short one at once, when it is complete."""

    def __init__(self, link: TlsLink, sends: dict[int, int], receives: dict[int, list[memoryview]]) -> None:
        self._link: TlsLink = link
        self._missing = dict(sends)
        self._held: dict[int, list[memoryview]] = {peer: [] for peer, n in sends.items() if n <= INLINE_BYTES}
        self._started = {peer: link._receivers[peer].expected for peer in receives}
        self._receives = tuple(receives)
        link._expect(receives)
        for peer in sends.keys() - self._held.keys():
            link._senders[peer].open(sends[peer])

    def put(self, peer: int, array: Any, nbytes: int) -> None:
        self._link._concluded()
        if peer not in self._held:
            self._link._senders[peer].put(array, nbytes)
            return self._make_room(peer)
        self._held[peer].append(leading(array, nbytes))
        self._missing[peer] -= nbytes
        if not self._missing[peer]:
            with self._link._abort_on_error():
                self._link._send(peer, Kind.DATA, self._held.pop(peer))
            self._make_room(peer)

    def _make_room(self, peer: int) -> None:
        if self._link._senders[peer].crowded(self._link._unsent):
            with self._link._abort_on_error():
                self._link._make_room(peer)

    def wait(self, peer: int, nbytes: int) -> None:
        self._link._concluded()
        if peer in self._started and self._link._receivers[peer].filled < (end := self._started[peer] + nbytes):
            with self._link._abort_on_error():
                self._link._arrival(peer, end)

    def finish(self) -> None:
        self._link._concluded()
        with self._link._abort_on_error():
            self._link._arrive(self._receives)
