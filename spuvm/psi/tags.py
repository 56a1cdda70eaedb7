"""Tags: 128 bits for each key, a pseudorandom function of it under a key that the owners of the tables share.

A tag is AES-CBC-MAC over the key columns' canonical forms (`keys.py`): a value of fixed length is one block, a text
its length and itself. As the number and kinds of columns are agreed on, no form is the beginning of another, and
for such messages CBC-MAC is a pseudorandom function (Petrank and Rackoff, J. Cryptology 2000). Different keys have
equal tags with probability n^2 l^2 / 2^128 for n keys of l blocks; a single number is one block, a permutation.
"""

from __future__ import annotations

import secrets

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from spuvm.psi.keys import Fixed, Keys, Text
from spuvm.psi.raw import low_bytes

PUBLIC_KEY = bytes(16)  # of an order that anybody can compute, where nothing needs to be hidden
BLOCK_ROWS = 1 << 20


def tags(keys: Keys, key: bytes) -> np.ndarray:
    """uint64[rows, 2]. Where a key column is missing: random, so that it matches nothing."""
    out = np.empty((keys.rows, 2), np.uint64)
    for start in range(0, keys.rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, keys.rows)
        out[start:stop] = _tags(keys, key, start, stop)
    missing = np.flatnonzero(~keys.present)
    if missing.size:
        out[missing] = random_tags(missing.size)
    return out


def random_tags(count: int) -> np.ndarray:
    """uint64[count, 2] of the operating system's randomness."""
    return np.frombuffer(secrets.token_bytes(16 * count), np.uint64).reshape(count, 2)


def _tags(keys: Keys, key: bytes, start: int, stop: int) -> np.ndarray:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()

    def aes(blocks: np.ndarray) -> np.ndarray:
        plain = np.ascontiguousarray(blocks).reshape(-1).view(np.uint8)
        out = np.empty((len(blocks) + 1, 2), np.uint64)  # OpenSSL asks for a block more
        encryptor.update_into(plain.data, out.reshape(-1).view(np.uint8).data)
        return out[:-1]

    state = np.zeros((stop - start, 2), np.uint64)
    for column in keys.columns:
        if isinstance(column, Fixed):
            state = aes(state ^ column.words[start:stop])
        else:
            state = _absorb(column, start, stop, state, aes)
    return state


def _absorb(column: Text, start: int, stop: int, state: np.ndarray, aes: object) -> np.ndarray:
    """Blocks: the length and 8 bytes of text, then 16 bytes of text each, the last padded with zeros."""
    assert callable(aes)
    at, lengths = column.starts[start:stop], column.lengths[start:stop]
    first = np.stack([lengths.astype(np.uint64), _word(column.data, at, lengths, 0)], 1)
    state = np.array(aes(state ^ first))
    rows = np.flatnonzero(lengths > 8)
    position = 8
    while rows.size:
        block = np.stack([_word(column.data, at[rows], lengths[rows], position + 8 * i) for i in range(2)], 1)
        state[rows] = aes(state[rows] ^ block)
        position += 16
        rows = rows[lengths[rows] > position]
    return state


def _word(data: np.ndarray, starts: np.ndarray, lengths: np.ndarray, position: int) -> np.ndarray:
    """uint64[rows]: the 8 bytes from `position` on of each text, zeros behind its end."""
    words = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))  # at every byte
    left = np.clip(lengths - position, 0, 8)
    found = words[np.where(left > 0, starts + position, 0)]
    out: np.ndarray = found & low_bytes(left)
    return out


def order(found: np.ndarray) -> np.ndarray:
    """int64[rows]: the order in which tags ascend; equal ones stay in theirs.

    Words of a tag's upper bits and the row's number are sorted; only where upper bits are equal all bits are compared.
    """
    rows = len(found)
    low = np.uint64((1 << max(rows - 1, 0).bit_length()) - 1)
    words = found[:, 0] & ~low
    words |= np.arange(rows, dtype=np.uint64)
    words.sort()
    by: np.ndarray = (words & low).view(np.int64)
    words &= ~low
    equal = words[1:] == words[:-1]
    if equal.any():
        tied = np.zeros(rows, bool)
        tied[1:] |= equal
        tied[:-1] |= equal
        who = by[tied]
        by[tied] = who[np.lexsort((who, found[who, 1], found[who, 0]))]
    return by


def starts_of_groups(found: np.ndarray) -> np.ndarray:
    """bool[rows] of sorted tags: where one differs from the one before."""
    new = np.ones(len(found), bool)
    new[1:] = (found[1:] != found[:-1]).any(1)
    return new
