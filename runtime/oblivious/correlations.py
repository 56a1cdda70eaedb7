"""Correlated randomness made of transfers: what each party puts in, and what its components are.

Party 0 sends words, party 1 chooses by its bits. Beside the products of both parties' words every component has this
party's own: c_i = a_i b_i + (shares), or for words known by exclusive or, whose bits are b_0 + b_1 - 2 b_0 b_1,
c_i = a_i - 2 (shares).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.engine.correlated import Family, Kind
from spuvm.runtime.oblivious.plan import Chunk, bit_width, significant

Values = NDArray[np.uint64]


def inputs(chunk: Chunk, operands: Sequence[Values], party: int) -> list[NDArray[Any]]:
    """What a party gives to each job: words [rows, length] of party 0, bits [rows] of party 1."""
    kind, w = chunk.family.kind, chunk.family.width
    match kind:
        case Kind.MUL:
            a, b = operands
            return [
                _word(v) if party == 0 else _bit(v, k) for k in range(w) for v in ((a, b) if party == 0 else (b, a))
            ]
        case Kind.SQUARE:
            return [_word(operands[0]) if party == 0 else _bit(operands[0], k) for k in range(w - 1)]
        case Kind.AND:
            flat = [_bits(v, significant(chunk.family)) for v in operands]
            return [_word(v) for v in flat] if party == 0 else flat[::-1]
        case Kind.BIT:
            return [_word(_bit(operands[0], 0)) if party == 0 else _bit(operands[0], 0)]
        case Kind.WORD | Kind.TRUNC:
            found = [_bit(operands[0], k) for k in range(w) if bit_width(chunk.family, k)]
            return [_word(v) for v in found] if party == 0 else list(found)
    a, b = _matrices(chunk, operands)
    g, m, k, n = (*a.shape[:2], *b.shape[1:])
    if party == 1:
        return [v for bit in range(w) for v in (_bit(b.reshape(-1), bit), _bit(a.reshape(-1), bit))]
    columns = np.broadcast_to(a.transpose(0, 2, 1)[:, :, None], (g, k, n, m)).reshape(-1, m)
    rows = np.broadcast_to(b[:, None], (g, m, k, n)).reshape(-1, n)
    return [columns, rows] * w


def results(chunk: Chunk, operands: Sequence[Values], shares: Sequence[Values]) -> list[Values]:
    """A party's components of what is made, [count] each (matrices: [g m n], for some rows of b)."""
    family, n = chunk.family, chunk.size
    w = family.width
    one = [s[:, 0] for s in shares]
    match family.kind:
        case Kind.MUL:
            a, b = operands
            return [a * b + _weighted(one, [k for k in range(w) for _ in range(2)], n)]
        case Kind.SQUARE:
            return [operands[0] * operands[0] + _weighted(one, range(1, w), n)]
        case Kind.AND:
            a, b = operands
            bits = significant(family)
            crossed = (one[0] ^ one[1]).reshape(n, bits)
            return [(a & b) ^ _weighted(list(crossed.T), range(bits), n)]
        case Kind.BIT:
            return [(operands[0] & np.uint64(1)) - np.uint64(2) * one[0]]
        case Kind.WORD:
            return [operands[0] - _weighted(one, range(1, w), n)]
        case Kind.TRUNC:
            return _truncated(family, operands[0], one)
    a, b = _matrices(chunk, operands)
    g, m, k, columns = (*a.shape[:2], *b.shape[1:])
    total = products(a, b)
    for bit in range(w):
        first = shares[2 * bit].reshape(g, k, columns, m).sum(1, dtype=np.uint64).transpose(0, 2, 1)
        second = shares[2 * bit + 1].reshape(g, m, k, columns).sum(2, dtype=np.uint64)
        total += (first + second) << np.uint64(bit)
    return [total.reshape(-1)]


def products(a: Values, b: Values) -> Values:
    """Of matrices [g, m, k] and [g, k, n], modulo 2^64."""
    total = np.zeros((a.shape[0], a.shape[1], b.shape[2]), np.uint64)
    for i in range(a.shape[2]):
        total += a[:, :, i, None] * b[:, i, None, :]
    return total


def combined(family: Family, operands: Sequence[Sequence[Values]]) -> list[Values]:
    """What is made, in the clear, of both parties' operands: what a simulation shares."""
    n, w = len(operands[0][0]), family.width
    if family.kind is Kind.DOT:
        g, m, k, columns = family.parameters
        a, b = (x + y for x, y in zip(*operands))
        return [(a.reshape(g, m, k) @ b.reshape(g, k, columns)).reshape(-1)]
    if family.kind in (Kind.MUL, Kind.SQUARE):
        total = [x + y for x, y in zip(*operands)]
        return [total[0] * total[-1]]
    known = [x ^ y for x, y in zip(*operands)]
    if family.kind is Kind.AND:
        return [known[0] & known[1]]
    if family.kind is Kind.BIT:
        return [known[0] & np.uint64(1)]
    if family.kind is Kind.WORD:
        return known
    top = np.uint64(w - 1)
    assert n == len(known[0])
    below = known[0] & np.uint64((1 << (w - 1)) - 1)
    return [known[0], below >> np.uint64(family.parameters[0]), (known[0] & np.uint64((1 << w) - 1)) >> top]


def _truncated(family: Family, own: Values, products: Sequence[Values]) -> list[Values]:
    w, bits = family.width, family.parameters[0]
    r, h, t = (np.zeros_like(own) for _ in range(3))
    shares = iter(products)
    for k in range(w):
        bit = _bit(own, k).astype(np.uint64) - np.uint64(2) * (next(shares) if bit_width(family, k) else np.uint64(0))
        r += bit << np.uint64(k)
        if bits <= k < w - 1:
            h += bit << np.uint64(k - bits)
        if k == w - 1:
            t = bit
    return [r, h, t]


def _matrices(chunk: Chunk, operands: Sequence[Values]) -> tuple[Values, Values]:
    g, m, k, n = chunk.family.parameters
    first, last = chunk.inner
    return operands[0].reshape(g, m, k)[:, :, first:last], operands[1].reshape(g, k, n)[:, first:last]


def _weighted(shares: Sequence[Values], powers: Any, n: int) -> Values:
    total = np.zeros(n, np.uint64)
    for share, k in zip(shares, powers):
        total += share << np.uint64(k)
    return total


def _bit(x: Values, k: int) -> NDArray[np.uint8]:
    return ((x >> np.uint64(k)) & np.uint64(1)).astype(np.uint8)


def _bits(x: Values, w: int) -> NDArray[np.uint8]:
    return ((x[:, None] >> np.arange(w, dtype=np.uint64)) & np.uint64(1)).astype(np.uint8).reshape(-1)


def _word(x: NDArray[Any]) -> Values:
    return x.astype(np.uint64)[:, None]
