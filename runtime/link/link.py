"""Links: how the parties of one session exchange buffers, agree, and count what it cost.

A program runs in rounds. In a round a party sends at most one message to each peer and receives
at most one from each; both sides know the sizes from the program, so nothing but payload is
counted. `Link` holds what does not depend on the transport: the checks, the counters, agreement,
session keys and what happens when somebody fails. A transport (`link/memory_link.py`, `link/tls/link.py`)
moves messages and small control frames, in order between each pair. A round is one call
(`exchange`), or is begun and runs while the caller computes what it sends (`begin`).

When a party fails it tells all its peers why (`abort`), so that all stop at once and every
error names the original cause. A link that failed is dead: every later call raises again.

One thread at a time may use a link.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from spuvm.runtime.errors import DeviationError, LinkError, PeerAbortedError, PeerMismatchError, SpuError, for_peers
from spuvm.runtime.legible import legible
from spuvm.runtime.link.agreement import AHEAD, Proposal, disagreement, encoded
from spuvm.runtime.link.round import AtOnce, Exchange
from spuvm.runtime.link.session_keys import SessionKeys, derived
from spuvm.runtime.memory import memory_bytes

Buffer = memoryview | npt.NDArray[Any]

UNDER_WAY = 2.0  # seconds to wait for what others may have sent, after one that is not awaited has stopped
DEFAULT_TIMEOUT = 60.0
MAX_REASON = 2000  # characters of an abort's reason
PIECE_BYTES = 16 << 20  # of what is said openly and has no size known before


class Kind(IntEnum):
    """What a frame between two parties carries; the numbers are the wire format's."""

    HELLO = 1
    READY = 2
    REJECT = 3
    DATA = 4
    AGREE = 5
    KEY = 6
    ABORT = 7
    CLOSE = 8
    ALIVE = 9
    WAITING = 10
    TAKEN = 11
    PACKED = 12


@dataclass
class Counters:
    """What a party has exchanged: payload bytes and messages by peer's rank, and rounds.

    A round is an exchange in which this party sent or received at least one payload byte.
    Agreement, keys, headers and encryption are not counted: the figures must equal those the
    compiler predicts.
    """

    bytes_sent: dict[int, int]
    bytes_received: dict[int, int]
    messages_sent: dict[int, int]
    messages_received: dict[int, int]
    rounds: int = 0

    @classmethod
    def zero(cls, peers: Iterable[int]) -> "Counters":
        ranks = tuple(peers)
        sent, received, out, into = (dict.fromkeys(ranks, 0) for _ in range(4))
        return cls(sent, received, out, into)


class Link(ABC):
    """One party's end of a session with all other parties. Use as a context manager.

    `timeout` limits, in seconds, how long nothing may happen while this party waits; a long
    message that keeps moving does not time out. `advice` says how to change it.
    """

    def __init__(self, rank: int, parties: Sequence[str], timeout: float, advice: str) -> None:
        self.rank = rank
        self.parties = tuple(parties)
        self.peers = tuple(r for r in range(len(self.parties)) if r != rank)
        self.timeout = timeout
        self.counters = Counters.zero(self.peers)
        self._advice = advice
        self._failure: SpuError | None = None
        self._cause: tuple[str, str] | None = None  # who stopped first, and why, if a peer told us
        self._closed = False
        self.waited = 0.0  # seconds spent waiting for peers, as far as the transport counts them
        self._begun: Exchange | None = None  # the last one
        self._proposed: deque[Proposal] = deque()  # and sent; what the others say is still to be heard
        self._told = False  # the peers know that this party stopped with an error
        self._keys = SessionKeys(rank, self.parties, self._send_key, self._receive_key)

    @property
    def base(self) -> "Link":
        """The link itself, or the one that this is a view of."""
        return self

    def exchange(self, outgoing: Mapping[int, Sequence[Buffer]], incoming: Mapping[int, Sequence[Buffer]]) -> None:
        """One round: send each peer's buffers as one message, fill the given ones from each peer's.

        Buffers are contiguous; their bytes are sent in order, so the two sides may cut a message
        differently as long as the sum is equal: another size is a `PeerMismatchError`. Zero
        bytes are no message. On return the outgoing buffers may be reused.
        """
        sends = self._views(outgoing, writable=False)
        receives = self._views(incoming, writable=True)
        with self._abort_on_error():
            if not sends and not receives:
                return
            self._begun = None
            self._concluded()
            self._transfer(sends, receives)
        self._count({p: size(v) for p, v in sends.items()}, {p: size(v) for p, v in receives.items()})

    def exchange_short(self, sends: Mapping[int, memoryview], receives: Mapping[int, memoryview]) -> None:
        """`exchange` of one short buffer of bytes a peer, none empty: a transport may have a quicker way for it."""
        self.exchange(
            {peer: (view,) for peer, view in sends.items()}, {peer: (view,) for peer, view in receives.items()}
        )

    def begin(self, outgoing: Mapping[int, int], incoming: Mapping[int, Sequence[Buffer]]) -> Exchange:
        """Begin a round: so many bytes will be sent to each peer, and each peer's message goes into these buffers.

        Several may be under way. They have to be finished, in order, before anything else is done with the link;
        until then all buffers are in use; what is sent, until `settle`.
        """
        sends = {peer: nbytes for peer, nbytes in outgoing.items() if nbytes}
        receives = self._views(incoming, writable=True)
        with self._abort_on_error():
            exchange = self._begun = self._begin(sends, receives)
        if sends or receives:
            self._count(sends, {peer: size(views) for peer, views in receives.items()})
        return exchange

    def settle(self) -> None:
        """Wait until all that was sent in rounds that were begun has left, and what was proposed is agreed on."""
        with self._abort_on_error():
            self._concluded()
            self._settle()

    def agree(self, what: str, value: bytes, note: str = "") -> None:
        """Check that `value` is the same at every party, by its SHA-256; every party raises if it is not."""
        self.propose({what: value}, note=note)
        self.conclude()

    def propose(self, values: Mapping[str, bytes], among: Collection[int] | None = None, note: str = "") -> None:
        """Like `agree` on each of these, by topic, but what the others say is awaited when it is needed: no payload
        moves before.

        So parties compute while these messages are under way, and nobody waits for the slowest to begin. `among`:
        the ranks that have to agree, if not all; `note`: what this party is about to do, for its own error.
        """
        if len(self._proposed) >= AHEAD:
            self.conclude()
        ranks = tuple(range(len(self.parties))) if among is None else tuple(sorted({*among, self.rank}))
        proposal = Proposal(encoded(values), ranks, note)
        with self._abort_on_error():
            for peer in ranks:
                if peer != self.rank:
                    self._send_control(peer, Kind.AGREE, proposal.body)
        self._proposed.append(proposal)

    def conclude(self) -> None:
        """Hear what the others say of what was proposed; raises at every party if they do not say the same."""
        with self._abort_on_error():
            while self._proposed:
                self._compare(self._proposed[0])
                self._proposed.popleft()

    @property
    def proposing(self) -> bool:
        """Whether something was proposed of which the others have still to be heard."""
        return bool(self._proposed)

    @property
    def failed(self) -> bool:
        """Whether it has ended with an error: every call raises."""
        return self._failure is not None or self._closed

    def gather(self, body: bytes, size: int | None = None, *, counted: bool = True) -> list[bytes]:
        """What every party says, by rank, in the open. `size`: of what each says, if all know it."""
        with nullcontext() if counted else self.uncounted():
            sizes = self._sizes(len(body), self.peers, self.peers) if size is None else dict.fromkeys(self.peers, size)
            heard = self._in_pieces(body, self.peers, sizes)
        return [body if rank == self.rank else heard[rank] for rank in range(len(self.parties))]

    def broadcast(self, owner: int, body: bytes | None) -> bytes:
        """What one party says to all, in the open; not counted, like agreement. `body` is given by the owner alone."""
        with self.uncounted():
            said = self.deliver(owner, range(len(self.parties)), body)
        assert said is not None
        return said

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        before = [(link, deepcopy(link.counters)) for link in (self, self.base)]
        yield
        for link, counters in before:
            link.counters = counters

    def deliver(self, owner: int, receivers: Collection[int], body: bytes | None) -> bytes | None:
        """Bytes from one party to some, as they are, and counted: its number, then themselves. None elsewhere."""
        if self.rank == owner:
            assert body is not None
            others = [p for p in receivers if p != owner]
            self._in_pieces(body, others, self._sizes(len(body), others, ()))
            return body
        if self.rank not in receivers:
            return None
        return self._in_pieces(b"", (), self._sizes(0, (), (owner,)))[owner]

    def _sizes(self, mine: int, to: Collection[int], of: Collection[int]) -> dict[int, int]:
        """How many bytes each of `of` is about to say."""
        sizes = {p: np.zeros(8, np.uint8) for p in of}
        self.exchange({p: [memoryview(mine.to_bytes(8, "little"))] for p in to}, {p: [x] for p, x in sizes.items()})
        found = {p: int.from_bytes(x.tobytes(), "little") for p, x in sizes.items()}
        for peer, size in found.items():
            if size > memory_bytes():
                with self._abort_on_error():
                    raise PeerMismatchError(f"{self.parties[peer]} claims to send {size:,} bytes, more than fit here.")
        return found

    def _in_pieces(self, body: bytes, to: Collection[int], sizes: Mapping[int, int]) -> dict[int, bytes]:
        """Say `body`, and hear what others do; memory is taken as it comes, whatever sizes were claimed."""
        heard = {p: bytearray() for p in sizes}
        longest = max(len(body), *sizes.values(), 0)
        for start in range(0, longest, PIECE_BYTES):
            piece = memoryview(body)[start : start + PIECE_BYTES]
            places = {p: np.empty(max(0, min(PIECE_BYTES, n - start)), np.uint8) for p, n in sizes.items()}
            self.exchange({p: [piece] for p in to}, {p: [x] for p, x in places.items()})
            for peer, place in places.items():
                heard[peer] += place.data
        return {p: bytes(x) for p, x in heard.items()}

    def session_key(self, holders: Iterable[int]) -> bytes:
        """32 secret bytes, fresh for this session, that exactly the parties `holders` know: see `session_keys`.

        All of a set of more than two must ask, in any order relative to their other keys.
        """
        ranks = self._keys.holders(holders)
        if (key := self._keys.known(ranks)) is not None:
            return key
        with self._abort_on_error():
            return self._keys.derive(ranks)

    def confirm_key(self, holders: Iterable[int]) -> None:
        """Compare a session key among its holders, by a value derived from it: whoever gave it might give several.

        Raises DeviationError if they differ.
        """
        ranks = tuple(sorted(set(holders)))
        mine = derived(self.session_key(ranks), "spuvm confirmation of a key")
        others = [r for r in ranks if r != self.rank]
        with self._abort_on_error():
            for peer in others:
                self._send_control(peer, Kind.AGREE, mine)
            wrong = [p for p in others if self._receive_control(p, Kind.AGREE, "the confirmation of a key") != mine]
            if wrong:
                names = " and ".join(self.parties[p] for p in wrong)
                raise DeviationError(
                    f"{self.parties[self.rank]} was given another session key than {names}: a party deviates. "
                    "Nothing was sent under it."
                )

    def abort(self, why: BaseException | str) -> None:
        """Tell all peers that this party stops, and close.

        Of an exception they are told what `errors.for_peers` says; a text is sent as it is: no secrets in it.
        """
        if self._failure is None and not self._closed:
            reason = why if isinstance(why, str) else for_peers(why)
            self._failure = LinkError(f"This link was aborted: {reason}")
            self._tell(self.parties[self.rank], reason)
        self.close()

    def close(self) -> None:
        """Leave the session. Peers that still expect something of this party get a `PeerLostError`."""
        if not self._closed:
            self._closed = True
            self._shut(graceful=not self._told)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            self.abort(error)
        self.close()

    # What a transport provides.

    def _begin(self, sends: dict[int, int], receives: dict[int, list[memoryview]]) -> Exchange:
        """A transport whose messages move while the caller computes has an exchange of its own."""
        if self._begun is not None:
            self._begun.finish()

        def move(sends: dict[int, list[memoryview]], receives: dict[int, list[memoryview]]) -> None:
            with self._abort_on_error():
                self._concluded()
                self._transfer(sends, receives)

        return AtOnce(sends, receives, move)

    @abstractmethod
    def _settle(self) -> None:
        """Wait until all messages of rounds that were begun and finished have left."""

    @abstractmethod
    def _transfer(self, sends: dict[int, list[memoryview]], receives: dict[int, list[memoryview]]) -> None:
        """Move one round's messages (each of at least one byte); the outgoing views are free on return."""

    @abstractmethod
    def _send_control(self, peer: int, kind: Kind, body: bytes) -> None:
        """Send a small frame, in order with the messages to the same peer, without waiting for the peer."""

    @abstractmethod
    def _receive_control(self, peer: int, kind: Kind, awaited: str) -> bytes:
        """Wait for the next frame of that kind from the peer."""

    @abstractmethod
    def _send_abort(self, origin: str, reason: str) -> None:
        """Tell every peer that can be reached, without raising, that `origin` stopped."""

    @abstractmethod
    def _shut(self, graceful: bool) -> None:
        """Free everything; `graceful` says that this party finished and is not to be called lost."""

    # Shared by the transports.

    def _concluded(self) -> None:
        """Before payload leaves, and before a wait for any."""
        if self._proposed:
            self.conclude()

    def _compare(self, mine: Proposal) -> None:
        awaited = f"agreement on {mine.topics}"
        said = {p: mine.body if p == self.rank else self._receive_control(p, Kind.AGREE, awaited) for p in mine.among}
        if len(set(said.values())) > 1:
            # Everyone who was asked sees the same and stops by itself; who was not has to be told.
            self._failure = PeerMismatchError(disagreement(said, self.parties, mine.note))
            if len(said) < len(self.parties):
                self._tell(self.parties[self.rank], for_peers(self._failure))
            raise self._failure

    @property
    def _round(self) -> int:
        """The round under way, for errors; one that was begun is counted already."""
        return max(1, self.counters.rounds + (self._begun is None))

    def _tell(self, origin: str, reason: str) -> None:
        self._told = True
        self._send_abort(origin, reason[:MAX_REASON])

    def _start_session(self) -> None:
        self._keys.begin()

    def _send_key(self, peer: int, body: bytes) -> None:
        self._send_control(peer, Kind.KEY, body)

    def _receive_key(self, peer: int, awaited: str) -> bytes:
        return self._receive_control(peer, Kind.KEY, awaited)

    def _views(self, buffers: Mapping[int, Sequence[Buffer]], writable: bool) -> dict[int, list[memoryview]]:
        views: dict[int, list[memoryview]] = {}
        for peer, pieces in buffers.items():
            if peer not in self.peers:
                raise LinkError(f"Rank {peer} is no peer of {self.parties[self.rank]}: peers are {self.peers}.")
            flat = [flat_view(piece, writable) for piece in pieces if piece.nbytes]
            if flat:
                views[peer] = flat
        return views

    def _count(self, sent: Mapping[int, int], received: Mapping[int, int]) -> None:
        """Count a round in which so many bytes, never none, went to and came from these peers."""
        c = self.counters
        for moved, payload, messages in (
            (sent, c.bytes_sent, c.messages_sent),
            (received, c.bytes_received, c.messages_received),
        ):
            for peer, nbytes in moved.items():
                payload[peer] += nbytes
                messages[peer] += 1
        c.rounds += 1

    @contextmanager
    def _abort_on_error(self) -> Iterator[None]:
        """Refuse a dead link; if the body fails, tell the peers, so that they name the same cause."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        if self._closed:
            raise LinkError("This link is closed: open a new one with the same configuration.")
        try:
            yield
        except BaseException as error:
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        """Tell the peers of an error of this party's or theirs, once."""
        if not isinstance(error, SpuError):
            self.abort(error)
        elif error is not self._failure:
            self._failure = error
            self._tell(*(self._cause or (self.parties[self.rank], for_peers(error))))

    def _aborted(self, teller: int, origin: str, reason: str) -> PeerAbortedError:
        """The error for a peer's abort; `origin` stopped first, and is named to whom we tell it in turn."""
        origin, reason = legible(origin, MAX_REASON), legible(reason, MAX_REASON)
        self._cause = (origin, reason)
        told = "" if self.parties[teller] == origin else f" (told by {self.parties[teller]})"
        return PeerAbortedError(f"{origin} stopped{told}: {reason}")

    def _wrong_size(self, peer: int, sent: int, expected: int) -> PeerMismatchError:
        return PeerMismatchError(
            f"{self.parties[peer]} sent {sent} bytes in round {self._round} where {expected} are due: "
            "the parties do not run the same program; compare its hash before running (`agree`)."
        )

    def _out_of_step(self, peer: int, got: Kind, awaited: str) -> PeerMismatchError:
        return PeerMismatchError(
            f"{self.parties[peer]} sent {got.name.lower()} while this party awaits {awaited}: "
            "the parties do not run the same program."
        )

    def _awaiting_data(self) -> str:
        return f"the message of round {self._round}"

    def _timeout_text(self, names: Sequence[str], awaited: str) -> str:
        return (
            f"Nothing came from {' and '.join(names)} for {self.timeout:g} s while "
            f"{self.parties[self.rank]} awaited {awaited}. {self._advice}"
        )


def size(views: Iterable[memoryview]) -> int:
    return sum(view.nbytes for view in views)


def flat_view(buffer: Buffer, writable: bool) -> memoryview:
    """The bytes of a contiguous buffer, not copied."""
    array = buffer if isinstance(buffer, np.ndarray) else np.frombuffer(buffer, np.uint8)
    if not array.flags.c_contiguous:
        raise LinkError("A buffer must be contiguous (row-major) to be sent or received: copy it first.")
    if writable and not array.flags.writeable:
        raise LinkError("A buffer to receive into must be writable: pass a NumPy array of your own.")
    return array.reshape(-1).view(np.uint8).data


def scatter(source: Iterable[memoryview], target: Iterable[memoryview]) -> None:
    """Copy the bytes of one list of views into another of equal total size."""
    pieces = iter(source)
    piece = memoryview(b"")
    for view in target:
        while len(view):
            if not len(piece):
                piece = next(pieces)
            n = min(len(view), len(piece))
            view[:n] = piece[:n]
            view, piece = view[n:], piece[n:]
