"""Sorting by opened comparisons: shuffle, rank, rearrange (see sorting and ranking in `runtime/protocols`).

Where the word of each element says where it goes, that is opened after the shuffle and nothing compared. Where any
order will do, the shuffle is all.

Words that somebody knows need none of it: their order is worked out where they are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.compiler.expand.choreography import Call, KernelSpec, Rank, Slot
from spuvm.compiler.expand.expander import Components, Expander, Shared, group
from spuvm.compiler.expand.sharings import known_kind
from spuvm.compiler.ir.module import Op, Value
from spuvm.runtime.protocols.sorting import Sorting
from spuvm.runtime.ring import bits as bt


def expand_sort(ex: Expander, op: Op) -> None:
    widths = op.attrs["widths"]
    words, operands = op.inputs[: len(widths)], op.inputs[len(widths) :]
    if op.attrs.get("mixed"):
        return _mixed(ex, op, operands)
    if _is_known(ex, words, operands):
        return _sort_known(ex, op, words, operands)
    shared = [_word(ex, v, width) for v, width in zip(words, widths)]
    carried = [_carried(ex, v) for v in operands]
    distinct = list({x.slots: x for x in (*shared, *carried)}.values())
    mixed = dict(zip((x.slots for x in distinct), _shuffled(ex, distinct)))
    words_mixed = [mixed[x.slots] for x in shared]
    order = _opened(ex, words_mixed[0]) if op.attrs.get("places") else _rank(ex, words_mixed, op.attrs["wanted"])
    for value, x in zip(op.outputs, carried):
        ex.set(value, _rearranged(ex, mixed[x.slots], order))


def _mixed(ex: Expander, op: Op, operands: Sequence[Value]) -> None:
    """Shuffled, and left so."""
    carried = [_carried(ex, v) for v in operands]
    distinct = list({x.slots: x for x in carried}.values())
    mixed = dict(zip((x.slots for x in distinct), _shuffled(ex, distinct)))
    for value, x in zip(op.outputs, carried):
        ex.set(value, mixed[x.slots])


def _is_known(ex: Expander, words: Sequence[Value], operands: Sequence[Value]) -> bool:
    """Whether all know the words, or one party knows them and the operands."""
    owners = _owners(ex, words)
    if not all(ex.primary(v).known for v in words) or len(owners) > 1:
        return False
    return not owners or all(ex.primary(v).known and _owners(ex, [v]) <= owners for v in operands)


def _owners(ex: Expander, values: Sequence[Value]) -> set[int | None]:
    return {ex.primary(v).owner for v in values if ex.primary(v).kind == "v"}


def _carried(ex: Expander, value: Value) -> Shared:
    """An operand as an arithmetic or boolean sharing, whichever it is."""
    kind = "b" if value.type.kind == "bool" or ex.primary(value).kind == "b" else "a"
    return ex.whole(ex.as_kind(value, kind), value.shape)


def _word(ex: Expander, value: Value, width: int) -> Shared:
    """A bool stays one; of a number as few bits as its differences need."""
    if value.type.kind == "bool":
        return ex.whole(ex.as_kind(value, "b"), value.shape)
    return _narrowed(ex, ex.whole(ex.as_kind(value, "a"), value.shape), width)


def _narrowed(ex: Expander, x: Shared, width: int) -> Shared:
    """Differences below 2^(width - 1) need no more bits."""
    dtype = bt.word_dtype(max(width, 8)).__name__
    return x if dtype == x.dtype else ex.apply("narrow", _narrow, x, kind="a", dtype=dtype, to=dtype)


def _narrow(x: Any, *, to: str) -> Any:
    return x.astype(to)


# Known words -----------------------------------------------------------------------------------------


def _sort_known(ex: Expander, op: Op, words: Sequence[Value], operands: Sequence[Value]) -> None:
    keys = [ex.whole(ex.primary(v), v.shape) for v in words]
    shape = words[0].shape
    order = ex.apply("order_of_known", _order, *keys, kind=known_kind(keys), shape=shape, elementwise=False)
    for value, operand in zip(op.outputs, operands):
        x = ex.primary(operand)
        x = ex.whole(x, operand.shape) if x.known else _carried(ex, operand)
        ex.set(value, _rearranged(ex, x, order))


def _order(*words: Any) -> Any:
    signed = [w.astype(np.int64) if w.dtype == np.uint8 else lax.bitcast_convert_type(w, np.int64) for w in words]
    index = jnp.arange(signed[0].size, dtype=np.int64).reshape(signed[0].shape)
    ordered = lax.sort((*signed, index), dimension=1, num_keys=len(signed))
    return lax.bitcast_convert_type(ordered[-1], np.uint64)


def _rearranged(ex: Expander, x: Shared, order: Shared) -> Shared:
    """The elements of x at the flat indices `order`."""
    kind = known_kind([x, order]) if x.known else x.kind
    return ex.apply(
        "rearrange",
        _take,
        x,
        order,
        kind=kind,
        public=() if x.known else (1,),
        shape=x.shape,
        dtype=x.dtype,
        elementwise=False,
    )


def _take(x: Any, order: Any) -> Any:
    index = lax.bitcast_convert_type(order, np.int64)
    return jnp.take(x.reshape(-1), index, mode="clip")


# Secret words ----------------------------------------------------------------------------------------


def _shuffled(ex: Expander, xs: Sequence[Shared]) -> list[Shared]:
    """All in one new order, which nobody knows."""
    slots = [s for x in xs for s in x.slots]
    fresh = [Slot(s.shape, s.dtype, s.holders) for s in slots]
    kinds = "".join(x.kind for x in xs)
    spec = KernelSpec(
        name="shuffle",
        params=(("kinds", kinds),),
        shapes=tuple(s.shape for s in slots),
        dtypes=tuple(s.dtype for s in slots),
        holders=tuple(s.holders for s in slots),
        out_holders=tuple(s.holders for s in slots),
        elementwise=False,
        communicates=True,
        function=_shuffle(sorting_of(ex), kinds, len(slots) // len(xs)),
    )
    ex.block.steps.append(Call(spec, slots, fresh, ex.op, ex.location))
    mixed = group(fresh, [len(x.slots) for x in xs])
    return [Shared(x.kind, slots) for x, slots in zip(xs, mixed)]


def sorting_of(ex: Expander) -> Sorting:
    assert ex.protocol.sorting is not None
    return ex.protocol.sorting


@cache
def _shuffle(sorting: Sorting, kinds: str, count: int) -> Any:
    def shuffle(*arrays: Any) -> Components:
        mixed = sorting.shuffle(group(arrays, [count] * len(kinds)), kinds)
        return tuple(c for x in mixed for c in x)

    return shuffle


def _rank(ex: Expander, words: Sequence[Shared], wanted: Any) -> Shared:
    slots = [s for x in words for s in x.slots]
    kinds = "".join(x.kind for x in words)
    computing = frozenset(range(ex.protocol.world_size))  # what is opened is not for others
    spec = KernelSpec(
        name="before",
        params=(("kinds", kinds),),
        shapes=(None,) * (2 * len(slots)),
        dtypes=tuple(s.dtype for s in slots) * 2,
        holders=tuple(s.holders for s in slots) * 2,
        out_holders=ex.protocol.components("b"),
        elementwise=True,
        communicates=True,
        function=_comparison(sorting_of(ex), kinds, len(slots) // len(words)),
    )
    opened = KernelSpec(
        name="opened",
        params=(),
        shapes=(None,) * len(spec.out_holders),
        dtypes=("uint8",) * len(spec.out_holders),
        holders=spec.out_holders,
        out_holders=(computing,),
        elementwise=True,
        communicates=True,
        shows=True,
        function=_opening(sorting_of(ex)),
    )
    out = Slot(words[0].shape, "uint64", computing)
    ex.block.steps.append(Rank(spec, opened, slots, [out], tuple(map(tuple, wanted)), ex.op, ex.location))
    return Shared("p", (out,))


def _opened(ex: Expander, place: Shared) -> Shared:
    """The order of shuffled elements that say where they go: opened, a permutation that tells nothing."""
    shown = ex.kernel("reveal_a", place, dtype=place.dtype)
    return ex.apply("order_of_places", _inverse, shown, kind="p", shape=place.shape, elementwise=False)


def _inverse(place: Any) -> Any:
    rows, n = place.shape
    at = place.astype(np.int64) + np.arange(rows)[:, None] * n
    flat = jnp.zeros(rows * n, np.uint64).at[at.reshape(-1)]
    return flat.set(jnp.arange(rows * n, dtype=np.uint64), unique_indices=True).reshape(rows, n)


@cache
def _comparison(sorting: Sorting, kinds: str, count: int) -> Any:
    words = len(kinds)

    def compare(*arrays: Any) -> Components:
        xs = group(arrays, [count] * (2 * words))
        return sorting.before(xs[:words], xs[words:], kinds)

    return compare


@cache
def _opening(sorting: Sorting) -> Any:
    return lambda *bits: sorting.opened(bits)
