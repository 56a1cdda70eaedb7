"""Oblivious selection: y_j = x_(p_j), where one party knows x, another the pointers p, and nobody learns y.

Security: semi-honest, no two of the three parties collude. From Mohassel, Rindal, Rosulek: Fast database joins and
PSI for secret shared data, CCS 2020, section 4 (switching networks): permute, duplicate, permute. Values are words
modulo 2^32, 2^64 or 2^128, which add up to the value, or bytes, whose exclusive or it is; one row of a matrix for
each column.

Roles: the programmer P knows the pointers, the sender S the values, the receiver R nothing. P and S have a random
order and masks in common, and so have the other two pairs; `Places.random` draws them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from spuvm.psi.places import Held, Move, Places
from spuvm.runtime.ring.elements import WIDE, Word, joined, limbs

Shares = dict[str, Held]  # by party; together the matrix [columns, rows]


@dataclass(frozen=True)
class Roles:
    """Three different parties."""

    programmer: str
    sender: str
    receiver: str


@dataclass(frozen=True)
class Group:
    """How shares combine: `dtype` and the operations of an array of it."""

    dtype: Any
    add: Callable[[Any, Any], Any]
    subtract: Callable[[Any, Any], Any]
    sums: Callable[..., Any]  # running totals along an axis


def group_of(dtype: Any) -> Group:
    """Bytes combine by exclusive or, words by addition."""
    if np.dtype(dtype) == np.uint8:
        return Group(np.dtype(np.uint8), np.bitwise_xor, np.bitwise_xor, np.bitwise_xor.accumulate)
    if np.dtype(dtype) == WIDE:
        return Group(WIDE, _wide(operator.add), _wide(operator.sub), _wide_cumsum)
    return Group(np.dtype(dtype), np.add, np.subtract, _cumsum)


def _cumsum(x: np.ndarray, axis: int) -> np.ndarray:
    return np.cumsum(x, axis=axis, dtype=x.dtype)


def _wide(operation: Callable[[Word, Word], Word]) -> Callable[[Any, Any], Any]:
    return lambda x, y: joined(operation(Word(*limbs(x)), Word(*limbs(y))).tree_flatten()[0])


def _wide_cumsum(x: np.ndarray, axis: int) -> np.ndarray:
    low, high = limbs(x)
    totals = _cumsum(low, axis)
    carries = (totals < low).astype(np.uint64)  # a total is less than what came to it last where it went beyond 2^64
    return joined([totals, _cumsum(high, axis) + _cumsum(carries, axis)])


@dataclass(frozen=True)
class Asked:
    """What is selected: public sizes.

    Attributes:
        columns, values: of the sender's matrix [columns, values].
        rows: how many pointers; one is a position, or -1 for a zero.
        repeated: whether a position may be pointed to more than once.
        together: whether equal pointers are neighbours; else they are brought together, and back.
    """

    columns: int
    values: int
    rows: int
    repeated: bool = True
    together: bool = False

    @property
    def places(self) -> int:
        """With a zero for each row that may want one."""
        return self.values + self.rows

    def traffic(self, itemsize: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Of programmer, sender and receiver, rounds and bytes that each sends, of elements of so many bytes."""
        cells, at = self.columns * self.rows * itemsize, 4 * self.rows
        first = self.columns * self.places * itemsize
        if not self.repeated:
            return (1, at), (1, first), (1, 0)
        choice = -(-self.rows // 8)
        if self.together:
            return (3, at + choice), (3, first + cells), (2, 2 * cells)
        return (4, 2 * at + choice), (4, first + 2 * cells), (3, 2 * cells)


def select(places: Places, x: Held, pointers: Held, asked: Asked, roles: Roles, dtype: Any) -> Shares:
    """Shares of x[:, pointers] at the programmer and one other party.

    Args:
        x: [columns, values] of `dtype` at the sender.
        pointers: int64[rows] at the programmer.

    Sends of a column, in words: values + rows; if pointers are repeated 3 rows more, and if equal ones are not
    neighbours, another row. Of all columns together four bytes a row for each permutation.
    """
    p, s, r = roles.programmer, roles.sender, roles.receiver
    group = group_of(dtype)
    plan = places.run(p, _plan, pointers, asked)
    padded = places.run(s, _padded, x, asked)
    shape = asked.columns, asked.places
    mine, theirs = permute(places, padded, places.run(p, lambda q: q.sources, plan), shape, asked.rows, roles, group)
    if not asked.repeated:
        return {p: mine, r: theirs}
    copies = places.run(p, lambda q: q.copies, plan)
    size = asked.columns, asked.rows
    more, theirs = duplicate(places, theirs, copies, size, Roles(p, r, s), group)
    mine = places.run(p, lambda a, b, c: group.add(_spread(a, c), b), mine, more, copies)
    if asked.together:
        return {p: mine, s: theirs}
    back = places.run(p, lambda q: q.back, plan)
    more, theirs = permute(places, theirs, back, size, asked.rows, Roles(p, s, r), group)
    mine = places.run(p, lambda a, b, q: group.add(a[:, q.back], b), mine, more, plan)
    return {p: mine, r: theirs}


@dataclass(frozen=True, eq=False)
class _Plan:
    """`sources`: distinct positions, in the order of pointers; `copies`: where a row is the one before it;
    `back`: of each pointer the row that is its.
    """

    sources: np.ndarray
    copies: np.ndarray
    back: np.ndarray


def _plan(pointers: np.ndarray, asked: Asked) -> _Plan:
    rows = len(pointers)
    order = np.arange(rows) if asked.together or not asked.repeated else np.argsort(pointers, kind="stable")
    wanted = pointers[order]
    copies = np.zeros(rows, bool)
    if asked.repeated:
        copies[1:] = (wanted[1:] == wanted[:-1]) & (wanted[1:] >= 0)
    else:
        assert len(np.unique(wanted[wanted >= 0])) == (wanted >= 0).sum(), "a pointer is repeated"
    sources = np.where((wanted >= 0) & ~copies, wanted, asked.values + np.arange(rows))
    back = np.empty(rows, np.int64)
    back[order] = np.arange(rows)
    return _Plan(sources, copies, back)


def _padded(x: np.ndarray, asked: Asked) -> np.ndarray:
    out = np.zeros((asked.columns, asked.places), x.dtype)
    out[:, : asked.values] = x
    return out


def permute(
    places: Places, x: Held, order: Held, shape: tuple[int, int], rows: int, roles: Roles, group: Group
) -> tuple[Held, Held]:
    """Shares of x[:, order] at the programmer and the receiver, for `rows` distinct positions of [columns, n].

    1. P and S draw an order f and masks m. S sends R b = (x - m)[f].
    2. P sends R where each wanted position is in f: random distinct numbers to R, who does not know f.
    3. R's share is b there, P's is m[order].
    """
    p, s, r = roles.programmer, roles.sender, roles.receiver
    n = shape[1]
    first = places.permutation((p, s), n)
    masks = places.random((p, s), shape, group.dtype)
    hidden = places.run(s, lambda a, m, f: group.subtract(a, m)[:, f], x, masks, first)
    at = places.run(p, _positions, order, first)
    got, where = places.move(
        Move(hidden, s, r, shape, group.dtype), Move(at, p, r, (rows,), np.uint32 if n < 1 << 32 else np.uint64)
    )
    mine = places.run(p, lambda m, o: m[:, o], masks, order)
    theirs = places.run(r, lambda b, w: b[:, w], got, where)
    return mine, theirs


def _positions(order: np.ndarray, first: np.ndarray) -> np.ndarray:
    inverse = np.empty(len(first), np.uint32 if len(first) < 1 << 32 else np.uint64)
    inverse[first] = np.arange(len(first), dtype=inverse.dtype)
    found: np.ndarray = inverse[order]
    return found


def duplicate(
    places: Places, x: Held, copies: Held, shape: tuple[int, int], roles: Roles, group: Group
) -> tuple[Held, Held]:
    """Shares of y at the programmer and the receiver: y_i is y_(i-1) where P's `copies`[i], else S's x_i.

    1. S and R draw R's share v, and pads w0, w1; P and S draw bits f.
    2. S sends P both x_i - v_i and v_(i-1) - v_i, padded with w_f and w_(1-f); P sends R c_i = copies_i xor f_i.
    3. R sends P the pad w_c: it opens the one that P wants. P's share is that, plus its share before if it copies.
    """
    p, s, r = roles.programmer, roles.sender, roles.receiver
    rows = shape[1]
    v = places.random((s, r), shape, group.dtype)
    pads = places.random((s, r), (2, *shape), group.dtype)
    flips = places.random((p, s), (rows,), np.uint8)
    both = places.run(s, _both, x, v, pads, flips, group)
    choice = places.run(p, lambda c, f: np.packbits(c ^ (f & 1).astype(bool)), copies, flips)
    offered, chosen = places.move(
        Move(both, s, p, (2, *shape), group.dtype), Move(choice, p, r, (-(-rows // 8),), np.uint8)
    )
    opened = places.run(r, lambda w, c: _chosen(w, np.unpackbits(c, count=rows)), pads, chosen)
    (pad,) = places.move(Move(opened, r, p, shape, group.dtype))
    mine = places.run(p, _opened, offered, pad, copies, group)
    return mine, v


def _chosen(either: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """either[bits[j], :, j]"""
    out: np.ndarray = np.where(bits.astype(bool), either[1], either[0])
    return out


def _both(x: np.ndarray, v: np.ndarray, pads: np.ndarray, flips: np.ndarray, group: Group) -> np.ndarray:
    before = np.zeros_like(v)
    before[:, 1:] = v[:, :-1]
    flip = (flips & 1).astype(bool)
    fresh = group.add(group.subtract(x, v), _chosen(pads, flip))
    again = group.add(group.subtract(before, v), _chosen(pads, ~flip))
    return np.stack([fresh, again])


def _opened(offered: np.ndarray, pad: np.ndarray, copies: np.ndarray, group: Group) -> np.ndarray:
    steps = group.subtract(_chosen(offered, copies), pad)
    totals = group.sums(steps, axis=1)
    # What the groups before sum to: the total in front of each group's first row.
    start = np.maximum.accumulate(np.where(copies, 0, np.arange(len(copies))))
    before = np.where(start > 0, totals[:, start - 1], np.zeros((), totals.dtype))
    mine: np.ndarray = group.subtract(totals, before)
    return mine


def _spread(x: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Every group's first column in all its rows."""
    start = np.maximum.accumulate(np.where(copies, 0, np.arange(len(copies))))
    out: np.ndarray = x[:, start]
    return out
