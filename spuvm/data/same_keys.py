"""Whether parties hold the same secret digest: one public bit a party, and nothing more.

An announced digest, even under a key that all parties share, would let each of them test guesses of
another's list of keys ("mine without this one?") in private and as often as it likes. So the digests
are compared blinded, by a Diffie-Hellman equality test against the first party:

    1. every party i hashes its digest to a point P_i of Curve25519 and draws a secret number b_i;
    2. it says b_i P_i;
    3. every other party i says the hash of b_i (b_0 P_0);
    4. the first party compares it with the hash of b_0 (b_i P_i) and says whether they are equal.

Security: semi-honest, whatever the number of parties; different digests look random to everyone
under the decisional Diffie-Hellman assumption (hash modelled as random). B. A. Huberman, M. Franklin,
T. Hogg: Enhancing privacy and trust in electronic communities, EC 1999.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from spuvm.devices import PYU, PYUObject, fetch

PRIME = (1 << 255) - 19
COEFFICIENT = 486662  # of the curve v^2 = u^3 + 486662 u^2 + u


def differing(digests: Mapping[str, PYUObject]) -> tuple[str, ...]:
    """The parties whose digest is not the first party's; known to all.

    Args:
        digests: by party, `bytes` at that party.
    """
    lead, *others = digests
    secrets = {p: PYU(p)(_blind)(digests[p]) for p in digests}
    said = {p: fetch(PYU(p)(_blinded)(secrets[p])) for p in digests}
    answers = {p: fetch(PYU(p)(_answer)(secrets[p], said[lead])) for p in others}
    verdicts = {p: fetch(PYU(lead)(_equal)(secrets[lead], said[p], answers[p])) for p in others}
    return tuple(p for p in others if not int(verdicts[p]))


def _blind(digest: bytes) -> dict[str, Any]:
    return {"key": X25519PrivateKey.generate(), "point": point(digest)}


def _blinded(secret: dict[str, Any]) -> Any:
    return _times(secret["key"], secret["point"])


def _answer(secret: dict[str, Any], said: Any) -> Any:
    shared = _times(secret["key"], np.asarray(said).tobytes())
    return np.frombuffer(hashlib.sha256(shared.tobytes()).digest(), np.uint8)


def _equal(secret: dict[str, Any], said: Any, answer: Any) -> int:
    return int(np.array_equal(_answer(secret, said), np.asarray(answer)))


def _times(key: X25519PrivateKey, u: bytes) -> np.ndarray:
    return np.frombuffer(key.exchange(X25519PublicKey.from_public_bytes(u)), np.uint8)


def point(digest: bytes) -> bytes:
    """A digest as the u of a point on the curve (not on its twist: that would show one bit of it)."""
    for counter in range(256):  # each succeeds with probability 1/2
        drawn = hashlib.sha256(b"spuvm same rows" + bytes([counter]) + digest).digest()
        u = int.from_bytes(drawn, "little") % (1 << 255)
        square = u * (u * u + COEFFICIENT * u + 1) % PRIME
        if 0 < u < PRIME and pow(square, (PRIME - 1) // 2, PRIME) == 1:
            return u.to_bytes(32, "little")
    raise AssertionError("256 hashes off the curve")
