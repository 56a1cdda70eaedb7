"""Tags of what parties confirm to each other, and their comparison before anything is revealed.

Of every message in which a party might deviate, another party that computes the same value confirms it: it adds what it
has (`mine`) to a tag, and the receiver what it got. A tag is a GMAC (NIST SP 800-38D) enciphered by AES, under keys for
this one comparison, which only those two know: a pseudorandom function of the values (a universal hash, then a block
cipher: Wegman and Carter 1981, Shoup, CRYPTO 1996). Tags of other values differ but with probability 2^-128 a block.

Tags themselves are not told. A party that lied may choose its lie so that others go on with x + d s, for its own d and
a secret s, and a tag of that, or which of several tags differ, would show bits of s. So each party tells all others the
exclusive or of all its tags, masked by pads that it shares with each of them: what all told adds up to zero if every
two tags are equal. If a party lied, two others differ in a tag under keys that it does not know: the sum is random to
it, whatever else differs, and not zero. Who spoke last could make it zero: so all first tell what they will say by a
commitment (SHA-256 of it and 16 random bytes), and open it when they have those of all others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from spuvm.runtime.errors import DeviationError
from spuvm.runtime.link.link import Link
from spuvm.runtime.machine.components import Component, whole
from spuvm.runtime.machine.program import Hashed

TAG_BYTES = 16
KEY_BYTES = 16
COMMITMENT_BYTES = 32
OPENING_BYTES = TAG_BYTES + 16

_NONCE = bytes(12)  # every key makes one tag
_PIECE = 1 << 30  # OpenSSL counts in 31 bits

Bytes = NDArray[np.uint8]


class Tag:
    """A GMAC and what enciphers it, under keys that nothing else uses."""

    def __init__(self, keys: bytes) -> None:
        self._made = Cipher(algorithms.AES(keys[:KEY_BYTES]), modes.GCM(_NONCE)).encryptor()
        self._last = Cipher(algorithms.AES(keys[KEY_BYTES:]), modes.ECB()).encryptor()  # of one block

    def add(self, value: np.ndarray) -> None:
        data = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        for start in range(0, len(data), _PIECE):
            self._made.authenticate_additional_data(data[start : start + _PIECE])

    def taken(self) -> Bytes:
        self._made.finalize()
        return np.frombuffer(self._last.update(self._made.tag), np.uint8)


class Checks:
    """One party's tags, by peer: of what it confirms, and of what is confirmed to it.

    `keys(peer, nbytes)` are fresh pseudorandom bytes that this party and a peer share, and nobody else.
    """

    def __init__(self, link: Link | None, keys: Callable[[int, int], np.ndarray]) -> None:
        self._link, self._keys = link, keys
        self._tags: dict[int, tuple[Tag, Tag]] = {}

    def add(self, hashed: Hashed, value: Component) -> None:
        self.record(hashed.peer, hashed.mine, np.asarray(whole(value, hashed.shape)))

    def record(self, peer: int, mine: bool, value: np.ndarray) -> None:
        if peer not in self._tags:
            self._tags[peer] = self._fresh(peer)
        self._tags[peer][0 if mine else 1].add(value)

    def _fresh(self, peer: int) -> tuple[Tag, Tag]:
        assert self._link is not None
        raw = self._keys(peer, 4 * KEY_BYTES).tobytes()
        up, down = Tag(raw[: 2 * KEY_BYTES]), Tag(raw[2 * KEY_BYTES :])
        return (up, down) if self._link.rank < peer else (down, up)

    def taken(self) -> dict[int, tuple[Bytes, Bytes]]:
        """The tags of what was confirmed since the last time, by peer: this party's, and the peer's if nobody lied."""
        tags, self._tags = self._tags, {}
        return {peer: (mine.taken(), theirs.taken()) for peer, (mine, theirs) in tags.items()}

    def told(self, peers: list[int]) -> Bytes:
        """What this party tells all others."""
        pads = [self._keys(p, TAG_BYTES) for p in peers]
        tags = [tag for both in self.taken().values() for tag in both]
        return np.asarray(np.bitwise_xor.reduce([*tags, *pads]))

    def compare(self, parties: int) -> None:
        """Two rounds. Raises DeviationError, before anybody goes on, if anything confirmed is not what was received."""
        if self._link is None:
            return
        link = self._link
        peers = [p for p in range(parties) if p != link.rank]
        opening = np.concatenate([self.told(peers), np.frombuffer(os.urandom(OPENING_BYTES - TAG_BYTES), np.uint8)])
        bound, opened = ({p: np.empty(n, np.uint8) for p in peers} for n in (COMMITMENT_BYTES, OPENING_BYTES))
        for said, heard in ((commitment(link.rank, opening), bound), (opening, opened)):
            link.exchange({p: [said] for p in peers}, {p: [x] for p, x in heard.items()})
        if any((commitment(p, opened[p]) != bound[p]).any() for p in peers):
            raise deviation("what a party says of its tags is not what it was bound to say")
        if np.bitwise_xor.reduce([opening, *opened.values()])[:TAG_BYTES].any():
            raise deviation("what a party was sent is not what another one confirms")


def commitment(rank: int, opening: Bytes) -> Bytes:
    """What binds a party of this rank to say just this, and does not show it."""
    return np.frombuffer(hashlib.sha256(b"spuvm tags of %d: " % rank + opening.tobytes()).digest(), np.uint8)


def deviation(what: str) -> DeviationError:
    return DeviationError(
        f"{what}: somebody deviates from the program. This party stops before anything more is revealed. Who it is "
        "cannot be told: to find out, parties would have to compare what must not be shown."
    )
