"""Keys of a session: secret bytes that exactly some of its parties know, from what these contribute.

Of a pair, both contribute 32 bytes from the operating system at the start of the session, over their own encrypted
connections; of a larger set the lowest rank sends one random value to the others, the first time it asks. The key is
HKDF-SHA256 of these.
"""

import os
from collections.abc import Callable, Iterable, Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from spuvm.runtime.errors import LinkError, PeerMismatchError

KEY_BYTES = 32

Ranks = tuple[int, ...]


class SessionKeys:
    """Those that party `rank` holds. `send(peer, body)` and `receive(peer, awaited)` move what is contributed."""

    def __init__(
        self,
        rank: int,
        parties: Sequence[str],
        send: Callable[[int, bytes], None],
        receive: Callable[[int, str], bytes],
    ) -> None:
        self._rank, self._parties = rank, tuple(parties)
        self._send, self._receive = send, receive
        self._derived: dict[Ranks, bytes] = {}
        self._contributed: dict[tuple[int, Ranks], bytes] = {}  # by whom, and the holders

    def begin(self) -> None:
        """Send this party's contribution to the key of every pair that it is in."""
        for peer in range(len(self._parties)):
            if peer != self._rank:
                self._contribute((min(self._rank, peer), max(self._rank, peer)), to=(peer,))

    def holders(self, ranks: Iterable[int]) -> Ranks:
        """In order. Raises LinkError if this party is none of them."""
        found = tuple(sorted(set(ranks)))
        if self._rank not in found or not set(found) <= set(range(len(self._parties))):
            raise LinkError(
                f"`holders` must be ranks below {len(self._parties)} that include this party's {self._rank}, "
                f"got {found}: a party can only ask for keys that it holds."
            )
        return found

    def known(self, holders: Ranks) -> bytes | None:
        return self._derived.get(holders)

    def derive(self, holders: Ranks) -> bytes:
        """The key, when all that is contributed to it has come."""
        self._derived[holders] = self._derive(holders)
        return self._derived[holders]

    def _derive(self, holders: Ranks) -> bytes:
        if len(holders) == 1:
            return os.urandom(KEY_BYTES)
        contributors = holders if len(holders) == 2 else holders[:1]
        if len(holders) > 2 and self._rank == holders[0]:
            self._contribute(holders, to=holders[1:])
        secret = b"".join(self._contribution(rank, holders) for rank in contributors)
        info = "\0".join(("spuvm session key", *map(str, holders), *self._parties))
        return derived(secret, info)

    def _contribute(self, holders: Ranks, to: Iterable[int]) -> None:
        contribution = os.urandom(KEY_BYTES)
        self._contributed[self._rank, holders] = contribution
        for peer in to:
            self._send(peer, ",".join(map(str, holders)).encode() + b"\0" + contribution)

    def _contribution(self, rank: int, holders: Ranks) -> bytes:
        while (rank, holders) not in self._contributed:
            heard, contribution = self._read(rank, self._receive(rank, f"the session key of ranks {holders}"))
            self._contributed[rank, heard] = contribution
        return self._contributed[rank, holders]

    def _read(self, rank: int, body: bytes) -> tuple[Ranks, bytes]:
        """Holders, and what is contributed. PeerMismatchError for what is none, or comes twice: no wait is endless."""
        names, _, contribution = body.partition(b"\0")
        ranks = {str(r).encode(): r for r in range(len(self._parties))}
        heard = tuple(ranks.get(name, -1) for name in names.split(b","))
        possible = heard == tuple(sorted({*heard, rank, self._rank})) and heard[0] >= 0
        if len(contribution) != KEY_BYTES or not possible or (rank, heard) in self._contributed:
            raise PeerMismatchError(
                f"{self._parties[rank]} sent a malformed part of a session key: it deviates, or has another version."
            )
        return heard, contribution


def derived(key: bytes, label: str) -> bytes:
    """Another key from a key, by HKDF-SHA256."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=label.encode()).derive(key)
