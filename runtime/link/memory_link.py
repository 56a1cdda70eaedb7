"""Links between threads of one process: simulation with real concurrency, and tests.

A message is copied once, from the sender's buffers into the receiver's; the sender waits until
the receiver has taken it.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Condition

from spuvm.runtime.errors import PeerLostError, PeerTimeoutError
from spuvm.runtime.link.link import DEFAULT_TIMEOUT, UNDER_WAY, Kind, Link, scatter, size


def memory_links(parties: Sequence[str], timeout: float = DEFAULT_TIMEOUT) -> "list[MemoryLink]":
    """One connected link per party, by rank, each to be used by one thread."""
    room = _Room()
    links = [MemoryLink(rank, parties, timeout, room) for rank in range(len(parties))]
    for link in links:
        link._start_session()
    return links


@dataclass(eq=False)
class _Frame:
    kind: Kind
    views: list[memoryview]
    taken: bool = False


@dataclass
class _Room:
    """What all links of a session share; guarded by `changed`."""

    changed: Condition = field(default_factory=Condition)
    frames: dict[tuple[int, int], deque[_Frame]] = field(default_factory=dict)  # by (sender, receiver)
    aborted: dict[int, tuple[str, str]] = field(default_factory=dict)  # rank -> origin, reason
    closed: set[int] = field(default_factory=set)


class MemoryLink(Link):
    """One party's end; made by `memory_links`."""

    def __init__(self, rank: int, parties: Sequence[str], timeout: float, room: _Room) -> None:
        super().__init__(rank, parties, timeout, "Raise the limit with memory_links(..., timeout=seconds).")
        self._room = room
        self._hope: float | None = None  # until when others are awaited after a peer has stopped
        for peer in self.peers:
            room.frames[rank, peer] = deque()

    def _transfer(self, sends: dict[int, list[memoryview]], receives: dict[int, list[memoryview]]) -> None:
        sent = {peer: self._put(peer, Kind.DATA, views) for peer, views in sends.items()}
        for peer, views in receives.items():
            frame = self._next(peer, (Kind.DATA,), self._awaiting_data())
            if size(frame.views) != size(views):
                raise self._wrong_size(peer, size(frame.views), size(views))
            scatter(frame.views, views)
            self._take(peer, frame)
        for peer, frame in sent.items():
            self._wait(peer, lambda frame=frame: frame.taken, f"that it takes {self._awaiting_data()}")  # type: ignore[misc]

    def _settle(self) -> None:
        """Nothing to do: a round ends when its messages have been taken."""

    def _send_control(self, peer: int, kind: Kind, body: bytes) -> None:
        self._put(peer, kind, [memoryview(body)])

    def _receive_control(self, peer: int, kind: Kind, awaited: str) -> bytes:
        frame = self._next(peer, (kind,), awaited)
        self._take(peer, frame)
        return frame.views[0].tobytes()

    def _send_abort(self, origin: str, reason: str) -> None:
        with self._room.changed:
            self._room.aborted[self.rank] = (origin, reason)
            self._room.changed.notify_all()

    def _shut(self, graceful: bool) -> None:
        with self._room.changed:
            self._room.closed.add(self.rank)
            self._room.changed.notify_all()

    def _put(self, peer: int, kind: Kind, views: list[memoryview]) -> _Frame:
        frame = _Frame(kind, views)
        with self._room.changed:
            self._room.frames[self.rank, peer].append(frame)
            self._room.changed.notify_all()
        return frame

    def _take(self, peer: int, frame: _Frame) -> None:
        with self._room.changed:
            self._room.frames[peer, self.rank].remove(frame)
            frame.taken = True
            self._room.changed.notify_all()

    def _next(self, peer: int, kinds: tuple[Kind, ...], awaited: str) -> _Frame:
        """The peer's next frame of these kinds; parts of keys may be overtaken, nothing else."""
        queue = self._room.frames[peer, self.rank]

        def first() -> _Frame | None:
            return next((f for f in queue if f.kind in kinds or f.kind is not Kind.KEY), None)

        self._wait(peer, lambda: first() is not None, awaited)
        frame = first()
        assert frame is not None
        if frame.kind not in kinds:
            raise self._out_of_step(peer, frame.kind, awaited)
        return frame

    def _wait(self, peer: int, done: Callable[[], bool], awaited: str) -> None:
        room = self._room
        deadline = time.monotonic() + self.timeout
        with room.changed:
            self._check_stopped(peer, lapsed=True)
            while not done():
                self._check_stopped(peer)
                if peer in room.closed:
                    raise PeerLostError(
                        f"{self.parties[peer]} closed its link: {self.parties[self.rank]} awaited {awaited}."
                    )
                until = deadline if self._hope is None else min(deadline, self._hope)
                if not room.changed.wait(max(0.0, until - time.monotonic())) and not done() and self._hope is None:
                    raise PeerTimeoutError(self._timeout_text([self.parties[peer]], awaited))

    def _check_stopped(self, peer: int, lapsed: bool = False) -> None:
        """Raise if a peer has stopped, and what is awaited of this one is not under way, or was for too long."""
        tellers = sorted(self._room.aborted.keys() & set(self.peers), key=lambda p: p != peer)
        if not tellers:
            return
        now = time.monotonic()
        self._hope = self._hope or now + min(UNDER_WAY, self.timeout)
        if now >= self._hope or (not lapsed and (tellers[0] == peer or peer in self._room.closed)):
            raise self._aborted(tellers[0], *self._room.aborted[tellers[0]])
