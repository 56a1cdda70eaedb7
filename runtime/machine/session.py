"""A session: one configuration, keys agreed for it, and the counters that must never go back.

The simulator's session holds every key, drawn from the operating system. A party's session takes
its keys from the link, which agreed them when it connected. Programs of one session run one
after another, and every run moves the counters on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np

from spuvm.runtime.config import Config
from spuvm.runtime.engine import device
from spuvm.runtime.engine.correlated import Family, is_correlated
from spuvm.runtime.engine.random import Stream, derive_key, new_key
from spuvm.runtime.errors import ConfigError, RangeError
from spuvm.runtime.link.link import Link
from spuvm.runtime.machine.components import Component
from spuvm.runtime.machine.executor import Executor, Listener, Streams
from spuvm.runtime.machine.program import Holders, PartyProgram
from spuvm.runtime.memory import keep_large_blocks
from spuvm.runtime.oblivious.streams import Within
from spuvm.runtime.protocols.oblivious import NAME as OBLIVIOUS
from spuvm.runtime.protocols.registered import protocol_of
from spuvm.runtime.protocols.sharings import split

MAKERS = (0, 1)  # who make correlated randomness
_SESSIONS: WeakKeyDictionary[Link, int] = WeakKeyDictionary()


@contextmanager
def abort_on_error(link: Link | None) -> Iterator[None]:
    """Tell the peers if the block fails here, so that they stop too, and only what `errors.for_peers` lets out."""
    try:
        yield
    except RangeError:
        raise  # every party's own: the link is fit for the next call
    except BaseException as e:
        if link is not None:
            link.abort(e)
        raise


@dataclass(frozen=True)
class Call:
    """What all parties must mean alike when they run a program together.

    `program` is its hash; `objects` names all that goes in, in order; `public` is a digest of the public values
    among it, None if there are none, which only the ranks `informed` know (None: all do).
    """

    program: str
    objects: str = ""
    public: bytes | None = None
    informed: tuple[int, ...] | None = None
    note: str = ""


def check_stored(config: Config, folder: Path | None) -> None:
    """ConfigError for a folder of stored randomness under a protocol that makes none."""
    if folder is not None and config.protocol != OBLIVIOUS:
        raise ConfigError(
            f"`stored` keeps what two parties make by oblivious transfer (`preprocessing` 'ot'): protocol "
            f"{config.protocol!r} makes none."
        )


@dataclass
class Session:
    """`party` is None in the simulator, which is all parties at once. `cancelled`, set by another thread, ends the
    program that runs by a CancelledError; over a link the session ends with it, at all parties. `device` is what
    stages run on by XLA, if not the vector engine (`engine.device`); every party's own affair. `stored`: this party's
    folder of randomness made ahead (`oblivious/store.py`), at both parties or neither; a simulation needs none."""

    config: Config
    party: int | None = None
    link: Link | None = None
    keys: Callable[[Holders], bytes] | None = None
    listener: Listener | None = None
    device: str | None = None
    stored: Path | None = None

    def __post_init__(self) -> None:
        check_stored(self.config, self.stored)
        if (name := self.device or device.wanted()) is not None:
            device.found(name)  # said before anything is sent
        keep_large_blocks()
        self._streams = Streams(self.keys or self._key, self.party)
        self._input_stream = Stream(new_key())
        self._input_blocks = 0
        self._lock = threading.Lock()
        self.cancelled = threading.Event()
        self._number = 0
        if self.link is not None:
            # Sessions over one link count up, so that no two of them derive the same stream keys.
            self._number = _SESSIONS[self.link.base] = _SESSIONS.get(self.link.base, 0) + 1
            self.link.agree("configuration", f"{self._number} {self.config.digest}".encode())
            with abort_on_error(self.link):
                protocol_of(self.config).setup(self.link)
                if self._makes:
                    self.link.propose({"stored randomness": b"no" if self.stored is None else b"yes"}, MAKERS)
                if self._makes and self.stored is not None:
                    self._open_store(self.link, self.stored)

    @property
    def name(self) -> str:
        """Of its machine, the same at every party."""
        return f"machine {self._number}"

    @property
    def _makes(self) -> bool:
        """Whether this party makes randomness with another."""
        return self.config.protocol == OBLIVIOUS and self.party in MAKERS

    def _open_store(self, link: Link, folder: Path | None) -> None:
        assert self.party is not None
        self._streams.link = link
        names = (self.config.parties[self.party], self.config.parties[1 - self.party])
        self._streams.open_store(None if folder is None else folder / names[0], names)

    @property
    def within(self) -> Within:
        """What was made by oblivious transfer within this session's runs: all but what was stored."""
        return self._streams.within

    def close_store(self) -> None:
        """Let go of the folder `stored`: another session may have it."""
        self._streams.close_store()

    def make_ahead(self, wanted: Mapping[Family, int], chunk: Mapping[Family, int]) -> None:
        """Make correlated randomness for later runs, in chunks; nothing in a simulation. Kept in `stored`, if given."""
        if self.link is None or not self._makes:
            return
        with self._lock, abort_on_error(self.link):
            text = " ".join(f"{family} {n} {chunk[family]}" for family, n in sorted(wanted.items()))
            self.link.propose({"randomness made ahead": text.encode()}, MAKERS)
            if not self._streams.stored:
                self._open_store(self.link, None)
            self._streams.ahead(wanted, chunk)

    def _key(self, holders: Holders) -> bytes:
        if self.link is None or is_correlated(holders):
            return new_key()
        label = f"spuvm session {self._number} stream {','.join(map(str, holders))}"
        return derive_key(self.link.session_key(holders), label)

    def run(
        self,
        program: PartyProgram,
        inputs: Sequence[Component | None],
        call: Call,
    ) -> list[Component | None]:
        """Run a program, after all parties have agreed on the call. Results may be in blocks."""
        with self._lock, abort_on_error(self.link), device.on(self.device):
            program.prepare()
            self._propose(call)
            return Executor(self._streams, self.link, self.listener, self.cancelled).run_blocked(program, inputs)

    def _propose(self, call: Call) -> None:
        if self.link is None:
            return
        values = {"program": call.program.encode(), "objects": call.objects.encode()}
        if call.public is None:
            return self.link.propose(values, note=call.note)
        with_public = {**values, "public arguments": call.public}
        if call.informed is None:
            return self.link.propose(with_public, note=call.note)
        self.link.propose(values, note=call.note)
        if self.party in call.informed:
            self.link.propose({"public arguments": call.public}, call.informed, call.note)

    def propose(self, what: str, value: str) -> None:
        """What all parties' scripts have to say alike before anything else moves; nothing in a simulation."""
        if self.link is not None:
            with abort_on_error(self.link):
                self.link.propose({what: value.encode()}, note=value)

    def conclude(self) -> None:
        """Until all that was proposed is agreed on: to be called before a script sees a value."""
        if self.link is not None:
            with abort_on_error(self.link):
                self.link.conclude()

    def share(self, raw: np.ndarray, kind: str) -> list[np.ndarray]:
        """Fresh components of a value that this process knows in full (the simulator's inputs)."""
        with self._lock:
            parts, used = split(protocol_of(self.config).algebra, kind, raw, self._input_stream, self._input_blocks)
            self._input_blocks += used
        return parts
