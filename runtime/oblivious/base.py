"""Base transfers, secure against a party that deviates (random oracle): Masny and Rindal (CCS 2019), ristretto255.

The receiver with choice b draws a point r_(1-b) and sends r_b = g^a - H(r_(1-b)); the sender with one scalar y sends
g^y and takes the keys (r_i + H(r_(1-i)))^y, of which the receiver computes one, (g^y)^a. By libsodium (package
`rbcl`).
"""

from __future__ import annotations

import hashlib
import importlib
import secrets
from collections.abc import Callable
from typing import Any

from spuvm.runtime.errors import ConfigError, PeerMismatchError

COUNT = 128
POINT = 32
KEY = 16

NO_POINT = "the peer sent what is no point of ristretto255: it does not follow the protocol."


def library() -> Any:
    try:
        return importlib.import_module("rbcl")
    except ImportError:
        raise ConfigError("`preprocessing` 'ot' needs a package: pip install 'spuvm[psi]'.") from None


def sent(swap: Callable[[bytes, int], bytes]) -> list[tuple[bytes, bytes]]:
    """Both keys of each transfer. `swap(body, size)` says a body and hears one of that size."""
    group = library()
    y = group.crypto_core_ristretto255_scalar_random()
    public = group.crypto_scalarmult_ristretto255_base(y)
    said = swap(public, 2 * COUNT * POINT)
    out = []
    try:
        for i in range(COUNT):
            pair = [said[(2 * i + j) * POINT : (2 * i + j + 1) * POINT] for j in (0, 1)]
            points = [group.crypto_core_ristretto255_add(pair[j], _hashed(pair[1 - j], i, 1 - j)) for j in (0, 1)]
            keys = [_key(group.crypto_scalarmult_ristretto255(y, p), public, pair, i) for p in points]
            out.append((keys[0], keys[1]))
    except (RuntimeError, ValueError):
        raise PeerMismatchError(NO_POINT) from None
    return out


def received(choices: list[int], swap: Callable[[bytes, int], bytes]) -> list[bytes]:
    """The key of each choice."""
    group = library()
    scalars, pairs = [], []
    for i, b in enumerate(choices):
        a = group.crypto_core_ristretto255_scalar_random()
        other = group.crypto_core_ristretto255_from_hash(secrets.token_bytes(64))
        mine = group.crypto_core_ristretto255_sub(
            group.crypto_scalarmult_ristretto255_base(a), _hashed(other, i, 1 - b)
        )
        pairs.append([mine, other] if b == 0 else [other, mine])
        scalars.append(a)
    public = swap(b"".join(p for pair in pairs for p in pair), POINT)
    try:
        return [
            _key(group.crypto_scalarmult_ristretto255(a, public), public, pair, i)
            for i, (a, pair) in enumerate(zip(scalars, pairs))
        ]
    except (RuntimeError, ValueError):
        raise PeerMismatchError(NO_POINT) from None


def _hashed(point: bytes, i: int, side: int) -> Any:
    message = b"spuvm base transfer" + bytes([i, side]) + point
    return library().crypto_core_ristretto255_from_hash(hashlib.sha512(message).digest())


def _key(secret: bytes, public: bytes, pair: list[bytes], i: int) -> bytes:
    return hashlib.sha256(b"spuvm transfer key" + bytes([i]) + public + b"".join(pair) + secret).digest()[:KEY]
