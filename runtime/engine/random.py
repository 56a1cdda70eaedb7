"""Keystreams: AES-128 in counter mode, natively or by OpenSSL, with the same bytes.

A stream is a key; a position in it is the number of a 16-byte block. Who uses which blocks is
the caller's affair: using one twice reveals the difference of what it masked.
"""

import ctypes
import secrets
from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from spuvm.runtime.ring import native

BLOCK_BYTES = 16
KEY_BYTES = 16
PERMUTATION_BYTES = 16  # of randomness for each element of a permutation

_SCHEDULE_BYTES = 11 * BLOCK_BYTES
_ALIGNMENT = 64  # what XLA's CPU client needs to take a buffer without a copy
_LOW = (1 << 64) - 1
_ZEROS = bytes(1 << 18)  # plaintext for OpenSSL: stays in the second-level cache


class Stream:
    """The keystream under one 16-byte key. `fill` may run in several threads at once."""

    def __init__(self, key: bytes, *, openssl: bool = False) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"`key` has {len(key)} bytes; AES-128 takes {KEY_BYTES}")
        lib = native.library()
        self._level: int = lib.spuvm_aes_level() if lib is not None and not openssl else 0
        if lib is None or self._level == 0:
            self._cipher = algorithms.AES(key)
            return
        self._schedule = ctypes.create_string_buffer(_SCHEDULE_BYTES)
        self._schedule_address = ctypes.addressof(self._schedule)
        self._ctr = lib.spuvm_aes_ctr
        lib.spuvm_aes_expand(key, self._schedule_address)

    @property
    def by_openssl(self) -> bool:
        return self._level == 0

    @property
    def schedule_address(self) -> int:
        """Where the native kernels find the expanded key, while this object lives; not there by OpenSSL."""
        return self._schedule_address

    def fill(self, out: NDArray[np.uint8], first_block: int) -> None:
        """Writes the keystream from block `first_block` on into `out`: C-contiguous, writable, any length.

        Block i is AES(key, i as a 128-bit big-endian integer). A last partial block takes its first bytes.
        """
        nbytes = out.nbytes
        if first_block < 0 or (first_block + -(-nbytes // BLOCK_BYTES) - 1) >> 128 > 0:
            raise ValueError("`first_block` and the blocks after it must be numbers of 128 bits")
        if nbytes == 0:
            return
        if not self._level:
            self._fill_openssl(out, first_block)
            return
        # from_buffer refuses what is read-only or not contiguous; half the cost of out.ctypes.
        address = ctypes.addressof(ctypes.c_char.from_buffer(out.data))
        self._ctr(self._level, self._schedule_address, address, nbytes, first_block >> 64, first_block & _LOW)

    def _fill_openssl(self, out: NDArray[np.uint8], first_block: int) -> None:
        mode = modes.CTR(first_block.to_bytes(BLOCK_BYTES, "big"))
        encryptor = Cipher(self._cipher, mode).encryptor()
        target = out.data.cast("B")
        for start in range(0, len(target), len(_ZEROS)):
            piece = target[start : start + len(_ZEROS)]
            encryptor.update_into(memoryview(_ZEROS)[: len(piece)], piece)


def permutations(raw: NDArray[np.uint8], shape: Sequence[int]) -> NDArray[np.int64]:
    """int64[rows, n]: the order of n random 128-bit numbers, row by row; 16 bytes of `raw` each.

    The permutation is uniform but for the chance, below n^2 / 2^129, that two numbers are equal. They are sorted by
    their upper bits, in words whose other bits are the index; only where the upper bits are equal by all others.
    """
    high, low = raw.view(np.uint64).reshape(2, *shape)
    index_bits = max(shape[-1] - 1, 0).bit_length()
    index_mask = np.uint64((1 << index_bits) - 1)
    words = high & ~index_mask
    words |= np.arange(shape[-1], dtype=np.uint64)
    words.sort(axis=-1)
    order: NDArray[np.int64] = (words & index_mask).view(np.int64)
    words >>= np.uint64(index_bits)
    equal = words[..., 1:] == words[..., :-1]
    if equal.any():
        tied = np.zeros(order.shape, bool)
        tied[..., 1:] |= equal
        tied[..., :-1] |= equal
        row, _ = np.nonzero(tied)
        who = order[tied]
        order[tied] = who[np.lexsort((low[row, who], high[row, who], row))]
    return order


def new_key() -> bytes:
    """16 bytes of the operating system's randomness."""
    return secrets.token_bytes(KEY_BYTES)


def derive_key(secret: bytes, label: str) -> bytes:
    """A 16-byte key from `secret`, independent for each `label`: HKDF-SHA256 without salt, RFC 5869.

    `secret` must itself be unpredictable, such as the concatenation of each party's `new_key()`.
    """
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=label.encode()).derive(secret)


def aligned_empty(nbytes: int) -> NDArray[np.uint8]:
    """An uninitialised uint8 array that starts at a multiple of 64 bytes, so that XLA need not copy it."""
    memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = (
        -ctypes.addressof(ctypes.c_char.from_buffer(memory.data)) % _ALIGNMENT
    )  # memory.ctypes takes six times as long
    return memory[start : start + nbytes]
