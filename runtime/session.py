"""A session: one configuration, keys agreed for it, and the counters that must never go back.

The simulator's session holds every key, drawn from the operating system. A party's session takes
its keys from the link, which agreed them when it connected. Programs of one session run one
after another, and every run moves the counters on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spuvm.runtime.config import Config
from spuvm.runtime.encoding import combine, split
from spuvm.runtime.errors import SpuError
from spuvm.runtime.executor import Executor, Listener, Streams
from spuvm.runtime.link import Link
from spuvm.runtime.memory import keep_large_blocks
from spuvm.runtime.program import Holders, PartyProgram
from spuvm.runtime.random import Stream, derive_key, new_key
from spuvm.runtime.values import Component


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
        if self.link is not None:
            self.link.agree("configuration", self.config.digest.encode())

    def _key(self, holders: Holders) -> bytes:
        if self.link is None:
            return new_key()
        return derive_key(self.link.session_key(holders), "spuvm stream " + ",".join(map(str, holders)))

    def run(
        self, program: PartyProgram, digest: str, inputs: Sequence[Component | None]
    ) -> list[Component | None]:
        """Run a program whose hash all parties confirm to be `digest`; tell the peers if it fails here."""
        with self._lock:
            program.prepare()
            executor = Executor(self._streams, self.link, self.listener)
            if self.link is None:
                return executor.run(program, inputs)
            try:
                self.link.agree("program", digest.encode())
                return executor.run(program, inputs)
            except BaseException as e:
                reason = str(e) if isinstance(e, SpuError) else "an internal error"
                self.link.abort(f"{type(e).__name__}: {reason}")
                raise

    def share(self, raw: np.ndarray, kind: str, count: int) -> list[np.ndarray]:
        """Fresh components of a value that this process knows in full (the simulator's inputs)."""
        with self._lock:
            parts, used = split(raw, kind, count, self._input_stream, self._input_blocks)
            self._input_blocks += used
        return parts

    @staticmethod
    def reconstruct(components: Sequence[Component | None], kind: str) -> np.ndarray:
        return combine(components, kind)
