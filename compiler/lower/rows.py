"""The primitives behind tables: rows in the order of packed keys, at places that are known to be a permutation, in an
order that nobody knows; and comparisons and exact quotients of bounded integers. Arrays are [rows]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive

from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.sort import sort as by_network
from spuvm.compiler.lower.sort_words import opens
from spuvm.runtime.errors import UnsupportedError

order_p: Any = Primitive("spu_rows_order")  # words, then operands; {widths}: bits that differences of each word need
arrange_p: Any = Primitive("spu_rows_arrange")  # places, then operands: x[i] goes to row places[i]
shuffle_p: Any = Primitive("spu_rows_shuffle")
quotient_p: Any = Primitive("spu_quotient")  # {bits}: of both numbers
below_p: Any = Primitive("spu_rows_below")  # x < y for integers that are less than 2^62 apart
NAMES = ("spu_rows_shuffle",)
LARGEST_BITS = 60  # of numbers that `quotient` divides


# In the clear, by NumPy: nothing is compiled for the shapes of one query ---------------------------------------


def _order(*xs: Any, widths: tuple[int, ...]) -> list[Any]:
    words = [np.asarray(x) for x in xs[: len(widths)]]
    at = np.lexsort(words[::-1])
    return [jnp.asarray(np.asarray(x)[at]) for x in xs[len(widths) :]]


def _arrange(place: Any, *xs: Any) -> list[Any]:
    back = np.empty(len(place), np.int64)
    back[np.asarray(place)] = np.arange(len(place))
    return [jnp.asarray(np.asarray(x)[back]) for x in xs]


def _quotient(x: Any, y: Any, *, bits: int) -> Any:
    return lax.div(x, y)


def _shapes(count: int) -> Any:
    return lambda *xs, widths=(): list(xs[len(widths) or count :])


for _primitive, _run, _leading in (
    (order_p, _order, 0),
    (arrange_p, _arrange, 1),
    (shuffle_p, lambda *xs: list(xs), 0),
):
    _primitive.multiple_results = True
    _primitive.def_impl(_run)
    _primitive.def_abstract_eval(_shapes(_leading))
quotient_p.def_impl(_quotient)
quotient_p.def_abstract_eval(lambda x, y, *, bits: jax.core.ShapedArray(x.shape, x.dtype))


below_p.def_impl(lambda x, y: x < y)
below_p.def_abstract_eval(lambda x, y: jax.core.ShapedArray(x.shape, np.bool_))


# On the machine -----------------------------------------------------------------------------------------------


def _rows(ctx: Context, x: Value) -> Value:
    return ctx.b.reshape(x, (1, *x.shape))


def _flat(ctx: Context, xs: Sequence[Value]) -> list[Value]:
    return [ctx.b.reshape(x, x.shape[1:]) for x in xs]


def _shuffles(ctx: Context, keys: Sequence[Value], values: Sequence[Value]) -> bool:
    return bool(values) and values[0].shape[0] > 0 and opens(ctx, keys, [*keys, *values], 0)


def order(ctx: Context, *xs: Operand, widths: tuple[int, ...]) -> list[Value]:
    """Words of decreasing weight, no two rows alike in all of them."""
    values = [ctx.value(x) for x in xs]
    if not _shuffles(ctx, values[: len(widths)], values[len(widths) :]):
        return by_network(ctx, *values, dimension=0, is_stable=True, num_keys=len(widths))[len(widths) :]
    return _flat(ctx, ctx.b.ops("sort", [_rows(ctx, x) for x in values], widths=tuple(widths), wanted=()))


def arrange(ctx: Context, *xs: Operand) -> list[Value]:
    """Where the protocol can shuffle: shuffled along with the places, which are then opened. Nothing is compared."""
    values = [ctx.value(x) for x in xs]
    if not _shuffles(ctx, values[:1], values[1:]):
        return by_network(ctx, *values, dimension=0, is_stable=True, num_keys=1)[1:]
    width = values[0].shape[0].bit_length() + 1
    return _flat(ctx, ctx.b.ops("sort", [_rows(ctx, x) for x in values], widths=(width,), wanted=(), places=True))


def shuffle(ctx: Context, *xs: Operand) -> list[Value]:
    """The protocol's shuffle; elsewhere a sort by random numbers of 62 bits."""
    values = [ctx.value(x) for x in xs]
    ctx.randoms += 1
    key = ctx.b.op("random", shape=values[0].shape, to="uint64", number=ctx.randoms)
    if ctx.can_shuffle and ctx.config.ring_bits == 64 and values[0].shape[0] > 1:
        words = [ctx.b.bitcast(key, "int64")]
        return _flat(
            ctx, ctx.b.ops("sort", [_rows(ctx, x) for x in (*words, *values)], widths=(64,), wanted=(), mixed=True)
        )
    key = ctx.b.bitcast(ctx.b.op("shift_right_logical", key, bits=2), "int64")
    return by_network(ctx, key, *values, dimension=0, is_stable=True, num_keys=1)[1:]


def quotient(ctx: Context, x: Operand, y: Operand, *, bits: int) -> Value:
    """Rounded toward zero; by 0 it is -1. |x|, |y| < 2^bits, bits up to 60: about 15 rounds for each 17 bits."""
    if bits > LARGEST_BITS:
        raise UnsupportedError(f"quotients of numbers of {bits} bits: at most {LARGEST_BITS}.")
    shape = ctx.outs[0].shape
    p, q = ctx.value(x, shape), ctx.value(y, shape)
    return ctx.b.op("quotient", p, q, to=p.type.element, bits=bits)


def below(ctx: Context, x: Operand, y: Operand) -> Value:
    """The sign of the difference, as of fixed point."""
    shape = ctx.outs[0].shape
    return ctx.b.less(*(ctx.b.bitcast(ctx.value(v, shape), "fxp0") for v in (x, y)))


RULES: dict[str, Rule] = {
    "spu_rows_below": below,
    "spu_rows_order": order,
    "spu_rows_arrange": arrange,
    "spu_rows_shuffle": shuffle,
    "spu_quotient": quotient,
}
