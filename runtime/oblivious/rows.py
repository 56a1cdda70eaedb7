"""Bit transpose, hashes of rows, sums over GF(2^128), trees: native, or by NumPy and OpenSSL with the same bits."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from spuvm.runtime.ring import native

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
FIXED_KEY = bytes.fromhex("5370755661206f626c6976696f757321")  # of the permutation; any public one does
TREE_KEYS = bytes.fromhex("5370755661206f626c69762e206c6566"), bytes.fromhex("5370755661206f626c69762e20726967")
COLUMNS = 128
_POLYNOMIAL = np.uint64(0x87)


def rows_of(columns: Bytes) -> Bytes:
    """uint8[128, n/8] -> uint8[n, 16]: bit j of column i (lowest first) is bit i of row j."""
    n = columns.shape[1] * 8
    lib = _library()
    if lib is None:
        bits = np.unpackbits(columns, axis=1, bitorder="little")
        return np.packbits(bits.T, axis=1, bitorder="little")
    columns = np.ascontiguousarray(columns)
    out = np.empty((n, COLUMNS // 8), np.uint8)
    lib.spuvm_ot_rows(_at(out), _at(columns), ctypes.c_uint64(n // COLUMNS))
    return out


def hashed(rows: Bytes, offset: bytes, length: int, first: int) -> NDArray[np.uint64]:
    """uint64[n, length]: word l of row j is a hash with the number first + j length + l, no two of them alike.

    pi(pi(x) + i) + pi(x) with AES under a fixed key: tweakable, correlation-robust in the ideal cipher model (Guo,
    Katz, Wang, Weng and Yu, S&P 2020, section 7.4).
    """
    n = len(rows)
    lib = _library()
    if lib is not None:
        rows = np.ascontiguousarray(rows)
        out = np.empty((n, length), np.uint64)
        u64 = ctypes.c_uint64
        lib.spuvm_ot_hash(_schedule(lib), _at(out), _at(rows), offset, u64(n), u64(length), u64(first))
        return out
    once = _permuted(np.ascontiguousarray(rows ^ np.frombuffer(offset, np.uint8)).view(np.uint64).reshape(n, 2))
    inner = np.repeat(once, length, axis=0)
    inner[:, 0] ^= np.arange(first, first + n * length, dtype=np.uint64)
    return (_permuted(inner)[:, 0].reshape(n, length)) ^ once[:, :1]


def sums(factors: Bytes, rows: Bytes) -> Bytes:
    """uint8[count, 16]: over b, factors[b] rows[r, b] in GF(2^128); uint8 [blocks, 16] and [count, blocks, 16]."""
    count, blocks = rows.shape[:2]
    lib = _library()
    if lib is None:
        return _sums_by_numpy(factors, rows)
    factors, rows = np.ascontiguousarray(factors), np.ascontiguousarray(rows)
    out = np.empty((count, 16), np.uint8)
    lib.spuvm_ot_sums(_at(out), _at(factors), _at(rows), ctypes.c_uint64(count), ctypes.c_uint64(blocks))
    return out


def _sums_by_numpy(factors: Bytes, rows: Bytes) -> Bytes:
    power = np.ascontiguousarray(factors).view(np.uint64).copy()  # [blocks, 2], times x^i
    words = np.ascontiguousarray(rows).view(np.uint64)
    out = np.zeros((len(rows), 2), np.uint64)
    for i in range(128):
        bits = (words[..., i // 64] >> np.uint64(i % 64)) & np.uint64(1)
        out ^= np.bitwise_xor.reduce((np.uint64(0) - bits)[..., None] & power, axis=1)
        carry = power[:, 1] >> np.uint64(63)
        power[:, 1] = (power[:, 1] << np.uint64(1)) | (power[:, 0] >> np.uint64(63))
        power[:, 0] = (power[:, 0] << np.uint64(1)) ^ (carry * _POLYNOMIAL)
    return out.view(np.uint8)


def children(nodes: Words) -> Words:
    """uint64[n, 2] -> uint64[n, 2, 2]: pi_0(x) + x and pi_1(x) + x with AES under two fixed keys.

    A generator of pseudorandom blocks in the ideal cipher model (Guo, Katz, Wang, Weng and Yu, S&P 2020).
    """
    lib = _library()
    if lib is None or not hasattr(lib, "spuvm_ot_children"):
        return np.stack([_permuted(nodes, key) ^ nodes for key in TREE_KEYS], axis=1)
    nodes = np.ascontiguousarray(nodes)
    out = np.empty((len(nodes), 2, 2), np.uint64)
    schedules = b"".join(bytes(_schedule(lib, key)) for key in TREE_KEYS)
    lib.spuvm_ot_children(schedules, _at(out), _at(nodes), ctypes.c_uint64(len(nodes)))
    return out


def _permuted(x: Words, key: bytes = FIXED_KEY) -> Words:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # a fixed permutation of single blocks
    return np.frombuffer(encryptor.update(np.ascontiguousarray(x).tobytes()), np.uint64).reshape(x.shape)


def _library() -> Any:
    lib = native.library()
    return lib if lib is not None and hasattr(lib, "spuvm_ot_sums") and lib.spuvm_aes_level() else None


def _schedule(lib: Any, key: bytes = FIXED_KEY) -> Any:
    schedule = ctypes.create_string_buffer(11 * 16)
    lib.spuvm_aes_expand(key, ctypes.addressof(schedule))
    return schedule


def _at(a: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(a.ctypes.data)
