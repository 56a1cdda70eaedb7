"""The operands of the IR's `sort`: keys of any type as a few words whose differences do not overflow.

Narrow keys share a word, as long as they fit: a sort of int32 by one key compares a single word, the
key and the position side by side. The position comes last, so that no two elements are equal: the order
is stable, and that some keys are equal shows nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from spuvm.compiler.ir.module import Value, join
from spuvm.compiler.lower.context import Context
from spuvm.compiler.lower.pairs import LARGEST, MOST, places_of, taken
from spuvm.compiler.lower.sort_bools import places
from spuvm.compiler.lower.weigh import cheapest

SHORT = 4  # elements from which on shuffling pays; fewer take a few comparisons in a network
WORD = 63  # bits of the numbers in a word, so that differences stay below 2^63

Part = tuple[Value, int, bool]  # an int64 or a bool, the number of its bits, whether it can be negative


def opens(ctx: Context, keys: Sequence[Value], operands: Sequence[Value], axis: int) -> bool:
    """Whether to sort by `sort_words`."""
    if ctx.config.ring_bits != 64:
        return False
    who = join(*(k.type.visibility for k in keys))
    if who == "public" or (who != "secret" and join(who, *(v.type.visibility for v in operands)) == who):
        return True
    return ctx.can_shuffle and keys[0].shape[axis] >= SHORT


def sort_words(
    ctx: Context,
    keys: Sequence[Value],
    operands: Sequence[Value],
    axis: int,
    wanted: tuple[tuple[int, int], ...] = (),
) -> list[Value]:
    """The operands in the order of the keys along an axis, stable; `wanted` as in the IR. By one bool: its places."""
    shape = keys[0].shape
    n = shape[axis]
    order = [*(d for d in range(len(shape)) if d != axis), axis]
    rows = (int(np.prod([shape[d] for d in order[:-1]], dtype=np.int64)), n)
    if 0 in rows:
        return list(operands)

    def as_rows(x: Value) -> Value:
        return ctx.b.reshape(_moved(ctx, x, order), rows)

    if len(keys) == 1 and keys[0].type.kind == "bool" and keys[0].type.is_secret:
        place, width = places(ctx, as_rows(ctx.b.convert(keys[0], "int64")))
        out = ctx.b.ops("sort", [place, *map(as_rows, operands)], widths=(width,), wanted=(), places=True)
        return _as_they_were(ctx, out, shape, order)
    secret = join(*(k.type.visibility for k in keys)) == "secret"
    if secret and not wanted and _comparable(ctx, keys) and n <= LARGEST and rows[0] * n * n // 2 <= MOST:
        usual, by_rank = partial(_by_words, rows=rows), partial(_by_rank, rows=rows)
        ways = [partial(w, count=len(keys)) for w in (usual, by_rank)]
        out = list(cheapest(ctx, ways, *map(as_rows, (*keys, *operands))))  # type: ignore[arg-type]
    else:
        out = _by_words(ctx, *map(as_rows, (*keys, *operands)), rows=rows, count=len(keys), wanted=wanted)
    return _as_they_were(ctx, out, shape, order)


def _comparable(ctx: Context, keys: Sequence[Value]) -> bool:
    """Whether `less` puts all numbers of the keys' types in order: differences have room."""
    return all(k.type.kind == "fxp" or (k.type.kind == "int" and k.type.bits < ctx.b.ring_bits) for k in keys)


def _by_rank(ctx: Context, *xs: Value, rows: tuple[int, int], count: int) -> list[Value]:
    """Each element compared with each other, at once: how many come before it is where it goes."""
    b = ctx.b
    keys = [b.op("transpose", k, perm=(1, 0)) for k in xs[:count]]

    def precedes(i: np.ndarray, j: np.ndarray) -> Value:
        pairs = [(taken(ctx, k, i), taken(ctx, k, j)) for k in keys]
        out = b.less(*pairs[-1])
        for x, y in reversed(pairs[:-1]):
            out = b.logical("or", b.less(x, y), b.logical("and", b.equal(x, y), out))
        return out

    place = b.op("transpose", places_of(ctx, precedes, rows[1]), perm=(1, 0))
    return b.ops("sort", [place, *xs[count:]], widths=(rows[1].bit_length() + 1,), wanted=(), places=True)


def _by_words(
    ctx: Context, *xs: Value, rows: tuple[int, int], count: int, wanted: tuple[tuple[int, int], ...] = ()
) -> list[Value]:
    """By opened comparisons of shuffled words."""
    n = rows[1]
    parts = [part for key in xs[:count] for part in _parts(ctx, key)]
    position = ctx.broadcast(ctx.b.const(np.arange(n), "int64"), rows)
    words = _words(ctx, [*parts, (position, max(1, (n - 1).bit_length()), False)])
    widths = tuple(width for _, width in words)
    return ctx.b.ops("sort", [*(w for w, _ in words), *xs[count:]], widths=widths, wanted=wanted)


def _as_they_were(ctx: Context, xs: Sequence[Value], shape: Sequence[int], order: Sequence[int]) -> list[Value]:
    """Rows as arrays of the shape that they had before `order` put the sorted axis last."""
    moved_shape, back = [shape[d] for d in order], np.argsort(order).tolist()
    return [_moved(ctx, ctx.b.reshape(x, moved_shape), back) for x in xs]


def _moved(ctx: Context, x: Value, order: Sequence[int]) -> Value:
    return x if list(order) == list(range(len(order))) else ctx.b.op("transpose", x, perm=tuple(order))


def _parts(ctx: Context, key: Value) -> list[Part]:
    """A key as integers in lexicographic order. The sign of a word comes first: then nothing overflows, whatever it is.

    Sums near the range may have wrapped around: words of any value are in order, as opened comparisons must be.
    """
    b, t = ctx.b, key.type
    if t.kind == "bool":
        return [(b.convert(key, "int64"), 1, False)]
    number = key if t.kind == "fxp" else b.bitcast(key, "int64")
    if t.kind == "int" and t.bits < 64:
        return [(number, t.bits, t.signed)]
    raw = key if t.kind == "fxp" else b.bitcast(key, "fxp0")
    top = b.less(raw, ctx.like(0, raw))
    signed = t.kind == "fxp" or t.signed
    return [(b.not_(top) if signed else top, 1, False), (number, WORD, True)]


def _words(ctx: Context, parts: Sequence[Part]) -> list[tuple[Value, int]]:
    """The parts, side by side while they fit, with the bits that differences of each word need. Bools stand alone."""
    words: list[tuple[Value, int]] = []
    for value, bits, signed in parts:
        if value.type.kind == "bool":
            words.append((value, 1))
        elif words and words[-1][0].type.kind != "bool" and words[-1][1] - 1 + bits <= WORD:
            word, width = words.pop()
            low = ctx.b.add(value, ctx.like(1 << (bits - 1), value)) if signed else value
            words.append((ctx.b.add(ctx.b.op("shift_left", word, bits=bits), low), width + bits))
        else:
            words.append((value, bits + 1))
    return words
