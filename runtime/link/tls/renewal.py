"""A session's connections that are lost, or have carried as much as they should: noticed, and made anew meanwhile.

`link/tls/resume.py` says how one is taken up again. Here is what a link does about its own: it notices those that
ended, lets in peers that dialed again, tells peers how much has come, and gives up when the time of grace is over.
"""

from __future__ import annotations

import errno
import logging
import select
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from spuvm.runtime.errors import SpuError
from spuvm.runtime.link.link import Kind
from spuvm.runtime.link.parties import Cluster
from spuvm.runtime.link.tls.hello import Greeter
from spuvm.runtime.link.tls.receiver import Receiver
from spuvm.runtime.link.tls.resume import CONFIRM_BYTES, CONFIRM_PAUSE, Log, Mender, Reception, ready
from spuvm.runtime.link.tls.stream import Sender, Wake
from spuvm.runtime.link.tls.ways import Ways

MENDING = 0.2  # seconds between two looks after connections

log = logging.getLogger(__name__)


class Renewal:
    """Of one party's connections, by peer, once all are made. `tokens`: theirs, by direction and peer.

    `resume` reads on from a connection that was made anew; `lost` is the error for a peer that is gone.
    """

    def __init__(
        self,
        cluster: Cluster,
        ways: Ways,
        senders: Mapping[int, Sender],
        receivers: Mapping[int, Receiver],
        tokens: Mapping[tuple[bool, int], str],
        poller: select.poll,
        wake: Wake,
        resume: Callable[[Receiver], None],
        lost: Callable[[int, OSError], SpuError],
    ) -> None:
        self._grace = cluster.grace_seconds  # in which a lost connection may be taken up again
        self._party, self._names = ways.party, cluster.names
        self._senders, self._receivers, self._poller = senders, receivers, poller
        self._resume, self._lost = resume, lost
        self._watched: set[int] = set()  # descriptors of outgoing connections
        self._confirmed = 0.0  # when peers were last told how much has come
        greeter = Greeter(cluster, ways.party, lambda: None)
        self._menders = {peer: Mender(greeter, cluster, ways, peer, tokens[True, peer]) for peer in senders}
        self._logs = {peer: Log() for peer in senders}
        for peer, sender in senders.items():
            sender.channel.kept = self._logs[peer].add
            sender.mend = partial(self._mend, peer)
            receivers[peer].taken = self._logs[peer].drop
        self.reception = Reception(greeter, cluster, ways, {peer: tokens[False, peer] for peer in receivers}, wake.set)

    def close(self) -> None:
        """No connection is made anew any more."""
        self.reception.close()
        for mender in self._menders.values():
            mender.stop()

    def _mend(self, peer: int) -> list[memoryview] | None:
        """In a sender's thread: a new connection under the old one's descriptor; what is to be said again over it."""
        sender, receiver = self._senders[peer], self._receivers[peer]
        made = self._menders[peer].connect(lambda: sender.stopping or receiver.closed)
        if made is None:
            return None
        channel, count = made
        log.info("%s is connected to %s again", self._party, self._names[peer])
        again = self._logs[peer].since(count)
        sender.channel.go_on(channel)
        return again

    def readmit(self) -> None:
        """Peers that dialed again go on where what they said ended."""
        for peer, channel in self.reception.come():
            receiver = self._receivers[peer]
            with suppress(OSError):  # gone again: it will come again
                with suppress(OSError):  # what has been decrypted is read: the count is of all that need not come again
                    receiver.advance()
                ready(channel, receiver.channel.received)
                if receiver.watched:
                    self._poller.unregister(receiver.channel.sock.fileno())
                    receiver.watched = False
                receiver.channel.go_on(channel)
                receiver.broken = None
                self._resume(receiver)
                continue
            channel.close()

    def confirm(self) -> None:
        """Tell peers what has come, so that they need not keep it."""
        now = time.monotonic()
        if now < self._confirmed + CONFIRM_PAUSE:
            return
        self._confirmed = now
        for peer, receiver in self._receivers.items():
            sender, count = self._senders[peer], receiver.channel.received
            if count - receiver.confirmed >= CONFIRM_BYTES and not sender.busy and sender.error is None:
                receiver.confirmed = count
                with suppress(OSError):
                    sender.send(Kind.TAKEN, [memoryview(count.to_bytes(8, "little"))])

    def look_after(self) -> bool:
        """Notice connections that ended, either way; whether one is made anew. Raises `lost` if that took too long."""
        for sender in self._senders.values():
            fd = sender.channel.sock.fileno()
            wanted = not sender.busy and sender.mend is not None and sender.error is None
            if wanted != (fd in self._watched):
                if wanted:
                    self._poller.register(fd, select.POLLIN)
                    self._watched.add(fd)
                else:
                    self._poller.unregister(fd)
                    self._watched.discard(fd)
        for receiver in self._receivers.values():
            if receiver.broken is not None and time.monotonic() > receiver.broken + self._grace:
                why = f"it was not taken up again within {self._grace:g} s"
                raise self._lost(receiver.peer, OSError(errno.ECONNRESET, why))
        broken = any(r.broken is not None and not r.closed for r in self._receivers.values())
        return broken or any(s.mending for s in self._senders.values())

    def ended(self, fd: int) -> bool:
        """Whether there is something to read on an outgoing connection: then it has ended, and is made anew."""
        if fd not in self._watched:
            return False
        for sender in self._senders.values():
            if sender.channel.sock.fileno() == fd and not sender.busy:
                sender.renew()
        return True
