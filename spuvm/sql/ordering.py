"""Sort keys in few words: columns side by side, each by the bits of its public range, the row's number last.

Then no two rows are equal, the order is stable, and most keys are one word, whose comparisons cost half of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from spuvm.compiler.lower.rows import arrange_p, order_p
from spuvm.sql.columns import Array, Vec, chosen, number
from spuvm.sql.types import WORD, Type

BITS = 62  # of the numbers in a word, so that differences stay below 2^63


@dataclass(frozen=True)
class Part:
    """A number of 0 to 2^bits - 1; `bits` None: a number of the ring's width, alone in its word."""

    value: Array
    bits: int | None


def parts(x: Vec, descending: bool = False, nulls_first: bool = False) -> list[Part]:
    """A column as parts of a key, NULLs behind all values, or before."""
    out = []
    if x.valid is not None:
        out.append(Part(number(x.valid if nulls_first else ~x.valid), 1))
    for word in x.words:
        part = _part(word, x.type, descending)
        # NULLs are zeros, which in a descending key are not the least.
        out.append(part if x.valid is None or not descending else Part(chosen(x.valid, part.value), part.bits))
    return out


def _part(word: Array, type_: Type, descending: bool) -> Part:
    if type_.kind == "bool":
        return Part(number(~word if descending else word), 1)
    if type_.kind == "float":
        return Part(-word if descending else word, None)
    lo, hi = (0, (1 << 8 * WORD) - 1) if type_.kind == "text" and type_.dictionary is None else (type_.lo, type_.hi)
    lo, hi = min(lo, 0), max(hi, 0)  # NULL is zero
    return Part(hi - word if descending else word - lo, max(1, (hi - lo).bit_length()))


@dataclass(frozen=True)
class Key:
    """Words of decreasing weight, with the bits that differences of each need."""

    words: tuple[Array, ...]
    widths: tuple[int, ...]


def packed(all_parts: Sequence[Part]) -> Key:
    """Parts side by side while they fit."""
    words: list[tuple[Array, int]] = []
    for part in all_parts:
        if part.bits is None:
            words.append((part.value, 64))
        elif words and words[-1][1] + part.bits <= BITS:
            word, bits = words.pop()
            words.append((word * (1 << part.bits) + part.value, bits + part.bits))
        elif part.bits > BITS:  # the ring's width: the order of differences would turn
            half = part.value >> 32
            words += [(half, part.bits - 32), (part.value - half * (1 << 32), 32)]
        else:
            words.append((part.value, part.bits))
    return Key(tuple(w for w, _ in words), tuple(min(64, b + 1) for _, b in words))


def by_key(all_parts: Sequence[Part], arrays: Sequence[Array]) -> list[Array]:
    """Arrays [rows] in the order of the key; equal keys in the order that they are in."""
    rows = int(arrays[0].shape[0])
    if rows < 2:
        return list(arrays)
    key = packed([*all_parts, Part(jnp.arange(rows), max(1, (rows - 1).bit_length()))])
    return list(order_p.bind(*key.words, *arrays, widths=key.widths))


def placed(place: Array, arrays: Sequence[Array]) -> list[Array]:
    """x[i] at row place[i], for a secret permutation."""
    return list(arrange_p.bind(place, *arrays)) if int(place.shape[0]) > 1 else list(arrays)


def partitioned(first: Array, arrays: Sequence[Array]) -> list[Array]:
    """Rows where `first` holds before the others, both in the order that they are in. Nothing is compared."""
    rows = int(first.shape[0])
    ones = number(first)
    count = jnp.cumsum(ones)
    ahead, behind = count - 1, count[-1] + jnp.arange(rows) - count
    return placed(behind + ones * (ahead - behind), arrays)


def shifted(x: Array, fill: Any = 0) -> Array:
    """Each row's predecessor; the first row's is `fill`."""
    return jnp.concatenate([jnp.full(1, fill, x.dtype), x[:-1]])


def following(x: Array) -> Array:
    """Each row's successor; the last row's is itself."""
    return jnp.concatenate([x[1:], x[-1:]])


def sorted_vecs(
    all_parts: Sequence[Part], vecs: Sequence[Vec], extra: Sequence[Array] = ()
) -> tuple[list[Vec], list[Array]]:
    """Columns, and arrays beside them, in the order of the key."""
    flat = [a for v in vecs for a in v.arrays]
    out = by_key(all_parts, [*flat, *extra])
    return rebuilt(vecs, out), out[len(flat) :]


def rebuilt(vecs: Sequence[Vec], arrays: Sequence[Array]) -> list[Vec]:
    """Columns from their arrays, one after another."""
    at = 0
    out = []
    for v in vecs:
        out.append(v.rebuilt(arrays[at : at + len(v.arrays)]))
        at += len(v.arrays)
    return out


def changes(key: Key) -> Array:
    """Whether each row's key differs from its predecessor's; the first row's does."""
    some = None
    for word in key.words:
        now = word[1:] != word[:-1]
        some = now if some is None else some | now
    assert some is not None
    return jnp.concatenate([jnp.ones(1, np.bool_), some])
