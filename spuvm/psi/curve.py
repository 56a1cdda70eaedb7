"""The group that two parties match keys in: ristretto255, of prime order, by libsodium (package `rbcl`), on all cores.

Points and scalars are 32 bytes; an array of n is uint8[n, 32]. The encoding is canonical and there is no cofactor, so
a point tells nothing but itself (RFC 9496); hashing to an x coordinate would show whether it is on the curve or its
twist.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np

from spuvm.psi.keys import Fixed, Keys
from spuvm.runtime.cores import available
from spuvm.runtime.errors import InputError, PeerMismatchError

BYTES = 32
SUITE = b"spuvm-psi-V01-CS01-with-ristretto255_XMD:SHA-512_R255MAP_RO_"
CHUNK = 512  # multiplications of a thread at a time


def library() -> Any:
    """InputError where the package is missing."""
    try:
        import rbcl
    except ImportError:
        raise InputError("matching of two parties alone needs a package: pip install 'spuvm[psi]'.") from None
    return rbcl


def expanded(message: bytes, suite: bytes, size: int) -> bytes:
    """`expand_message_xmd` with SHA-512 of RFC 9380, 5.3.1; `size` up to 16,320 bytes."""
    ending = suite + bytes([len(suite)])
    first = hashlib.sha512(bytes(128) + message + size.to_bytes(2, "big") + b"\0" + ending).digest()
    block = hashlib.sha512(first + b"\1" + ending).digest()
    out = block
    for i in range(2, -(-size // 64) + 1):
        block = hashlib.sha512(bytes(a ^ b for a, b in zip(first, block)) + bytes([i]) + ending).digest()
        out += block
    return out[:size]


def points(keys: Keys) -> np.ndarray:
    """`hash_to_ristretto255` of RFC 9380, appendix B, of every key: uint8[rows, 32]; random where there is none."""
    from_hash = library().crypto_core_ristretto255_from_hash
    said = [m if there else secrets.token_bytes(BYTES) for m, there in zip(messages(keys), keys.present)]
    return _parallel(lambda m: from_hash(expanded(m, SUITE, 64)), said)


def messages(keys: Keys) -> Iterator[bytes]:
    """Each row's key as bytes; different keys have different ones."""
    parts: list[list[bytes]] = []
    for column in keys.columns:
        if isinstance(column, Fixed):
            data = np.ascontiguousarray(column.words).tobytes()
            parts.append([data[i : i + 16] for i in range(0, len(data), 16)])
        else:
            data = column.data.tobytes()
            parts.append(
                [int(n).to_bytes(8, "little") + data[a : a + n] for a, n in zip(column.starts, column.lengths)]
            )
    for row in zip(*parts):
        yield b"".join(row)


def random_scalar() -> bytes:
    """From the operating system, uniform, not zero."""
    scalar: bytes = library().crypto_core_ristretto255_scalar_random()
    return scalar


def inverse(scalar: bytes) -> bytes:
    """Modulo the group's order."""
    out: bytes = library().crypto_core_ristretto255_scalar_invert(scalar)
    return out


def times(scalar: bytes, array: np.ndarray) -> np.ndarray:
    """Every point times the scalar. PeerMismatchError if one is no point of the group, or the neutral one."""
    multiply = library().crypto_scalarmult_ristretto255
    data = np.ascontiguousarray(array).tobytes()
    try:
        return _parallel(lambda p: multiply(scalar, p), [data[i : i + BYTES] for i in range(0, len(data), BYTES)])
    except RuntimeError:
        message = "the peer sent what is no point of ristretto255: it does not follow the protocol."
        raise PeerMismatchError(message) from None


def _parallel(function: Callable[[bytes], bytes], items: Sequence[bytes]) -> np.ndarray:
    """The function of every item, uint8[n, 32]; libsodium lets go of Python's lock, so threads use all cores."""
    chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
    with ThreadPoolExecutor(available()) as pool:
        found = chain.from_iterable(pool.map(lambda c: [function(x) for x in c], chunks))
        return np.frombuffer(b"".join(found), np.uint8).reshape(-1, BYTES)


def outputs(keys: Keys, evaluated: np.ndarray) -> np.ndarray:
    """uint64[rows, 2]: 128 bits of SHA-512 of each key and its point."""
    data = np.ascontiguousarray(evaluated).tobytes()
    found = (
        hashlib.sha512(b"spuvm psi output" + data[BYTES * i : BYTES * (i + 1)] + message).digest()[:16]
        for i, message in enumerate(messages(keys))
    )
    return np.frombuffer(b"".join(found), np.uint64).reshape(-1, 2)
