"""Hashes of what parties confirm to each other, and their comparison before anything is revealed.

Of every message in which a party might deviate, another party that computes the same value hashes what it has (`mine`),
and the receiver what it got. SHA-256 over all values in the order of the program: to pass with another value, a party
would have to find a collision. Each hash goes on for as long as the executor runs, so it covers all that came before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from spuvm.runtime.errors import DeviationError
from spuvm.runtime.link.link import Link
from spuvm.runtime.machine.components import Component, whole
from spuvm.runtime.machine.program import Hashed

HASH_BYTES = 32
VERDICT_BYTES = 1


class Checks:
    """One party's hashes, by peer: of what it confirms, and of what is confirmed to it."""

    def __init__(self, link: Link | None) -> None:
        self._link = link
        self._mine: dict[int, hashlib._Hash] = {}
        self._theirs: dict[int, hashlib._Hash] = {}

    def add(self, hashed: Hashed, value: Component) -> None:
        self.record(hashed.peer, hashed.mine, np.asarray(whole(value, hashed.shape)))

    def record(self, peer: int, mine: bool, value: np.ndarray) -> None:
        hashes = self._mine if mine else self._theirs
        data = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        hashes.setdefault(peer, hashlib.sha256()).update(data.data)

    def compare(self, parties: int) -> None:
        """Two rounds. Raises DeviationError, before anybody goes on, if a peer's hash is another than expected.

        In the second round everybody tells all others that it is content; who is not tells them that it stops.
        """
        if self._link is None:
            return
        peers = [p for p in range(parties) if p != self._link.rank]
        got = {p: np.empty(HASH_BYTES, np.uint8) for p in peers}
        sent = {p: np.frombuffer(_digest(self._mine.get(p)), np.uint8) for p in peers}
        self._link.exchange({p: [x] for p, x in sent.items()}, {p: [x] for p, x in got.items()})
        wrong = [p for p in peers if got[p].tobytes() != _digest(self._theirs.get(p))]
        if wrong:
            raise DeviationError(_text([self._link.parties[p] for p in wrong]))
        content = np.ones(VERDICT_BYTES, np.uint8)
        verdicts = {p: np.empty(VERDICT_BYTES, np.uint8) for p in peers}
        self._link.exchange({p: [content] for p in peers}, {p: [x] for p, x in verdicts.items()})
        if not all(v[0] == 1 for v in verdicts.values()):
            raise DeviationError("a party says that it is not content with what it was sent. Nothing was revealed.")


def _digest(found: hashlib._Hash | None) -> bytes:
    return (found or hashlib.sha256()).digest()


def _text(names: Sequence[str]) -> str:
    return (
        f"what this party was sent is not what {' and '.join(names)} confirmed: somebody deviates from the "
        "program, who sent it or who confirmed it. This party stops before anything more is revealed."
    )
