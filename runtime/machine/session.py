"""A session: one configuration, keys agreed for it, and the counters that must never go back.

The simulator's session holds every key, drawn from the operating system. A party's session takes
its keys from the link, which agreed them when it connected. Programs of one session run one
after another, and every run moves the counters on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from spuvm.runtime.config import Config
from spuvm.runtime.engine.random import Stream, derive_key, new_key
from spuvm.runtime.errors import SpuError
from spuvm.runtime.link.link import Link
from spuvm.runtime.machine.components import Component
from spuvm.runtime.machine.executor import Executor, Listener, Streams
from spuvm.runtime.machine.program import Holders, PartyProgram
from spuvm.runtime.memory import keep_large_blocks
from spuvm.runtime.protocols.registered import protocol_of
from spuvm.runtime.protocols.sharings import split

_SESSIONS: WeakKeyDictionary[Link, int] = WeakKeyDictionary()


@contextmanager
def abort_on_error(link: Link | None) -> Iterator[None]:
    """Tell the peers if the block fails here, so that they stop too. Only our own errors' texts are sent."""
    try:
        yield
    except BaseException as e:
        if link is not None:
            link.abort(f"{type(e).__name__}: {e}" if isinstance(e, SpuError) else type(e).__name__)
        raise


@dataclass
class Session:
    """`party` is None in the simulator, which is all parties at once."""

    config: Config
    party: int | None = None
    link: Link | None = None
    keys: Callable[[Holders], bytes] | None = None
    listener: Listener | None = None

    def __post_init__(self) -> None:
        keep_large_blocks()
        self._streams = Streams(self.keys or self._key, self.party)
        self._input_stream = Stream(new_key())
        self._input_blocks = 0
        self._lock = threading.Lock()
        self._number = 0
        if self.link is not None:
            # Sessions over one link count up, so that no two of them derive the same stream keys.
            self._number = _SESSIONS[self.link.base] = _SESSIONS.get(self.link.base, 0) + 1
            self.link.agree("configuration", f"{self._number} {self.config.digest}".encode())

    def _key(self, holders: Holders) -> bytes:
        if self.link is None:
            return new_key()
        label = f"spuvm session {self._number} stream {','.join(map(str, holders))}"
        return derive_key(self.link.session_key(holders), label)

    def run(
        self,
        program: PartyProgram,
        digest: str,
        inputs: Sequence[Component | None],
        public: bytes | None,
    ) -> list[Component | None]:
        """Run a program; `digest` is its hash and `public` its public inputs, which all parties must share.

        A dealer does not have these: None. Empty: there are none, and nothing is agreed on.
        Results may be in blocks.
        """
        with self._lock, abort_on_error(self.link):
            program.prepare()
            if self.link is not None:
                self.link.propose("program", digest.encode())
                if public != b"":
                    self.link.propose("public arguments", public)
            return Executor(self._streams, self.link, self.listener).run_blocked(program, inputs)

    def run_under(
        self, keys: Callable[[Holders], bytes], program: PartyProgram, inputs: Sequence[Component | None]
    ) -> list[Component | None]:
        """Run a program under keys of its own, whose streams all begin at their first block.

        For programs that may have to run again: under the same keys the same inputs give the same
        messages, bit by bit. Keys must never be used for another program or other inputs. That all
        parties run the same program, with the same keys, is for the caller to make sure.
        """
        with self._lock, abort_on_error(self.link):
            program.prepare()
            return Executor(Streams(keys, self.party), self.link, self.listener).run(program, inputs)

    def share(self, raw: np.ndarray, kind: str) -> list[np.ndarray]:
        """Fresh components of a value that this process knows in full (the simulator's inputs)."""
        with self._lock:
            parts, used = split(protocol_of(self.config).algebra, kind, raw, self._input_stream, self._input_blocks)
            self._input_blocks += used
        return parts
