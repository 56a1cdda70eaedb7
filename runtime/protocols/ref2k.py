"""REF2K: no security at all. Every party holds the plain ring element.

The oracle of the other protocols and a debugging mode: the same ring, the same fixed point, the
same programs, no masks and (but for inputs) no messages. Never use it on data that is to stay
secret.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce, wraps
from operator import or_
from typing import Any

import numpy as np

from spuvm.runtime.engine.primitives import send
from spuvm.runtime.protocols.algebra import Summands
from spuvm.runtime.protocols.guests import with_others
from spuvm.runtime.protocols.protocol import (
    Kernel,
    Protocol,
    Sharing,
    comparisons_with_public,
    products_with_private,
    table,
)
from spuvm.runtime.protocols.sorting import Sorting
from spuvm.runtime.ring import arithmetic, exponential, harmonics, in_the_clear, one_bit, times_power
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements


def _share(x: Sharing, world_size: int, owner: int) -> Sharing:
    value = x[0]
    for other in range(world_size):
        if other != owner:
            value = send(value, owner, other)
    return (value,)


def _dot(x: Sharing, y: Sharing, *, dims: arithmetic.DimensionNumbers) -> Sharing:
    return (arithmetic.dot_general(x[0], y[0], dims),)


def _product_vma(x: Sharing, m: Sharing, y: Sharing, *, owner: int) -> Sharing:
    return (m[0] * y[0],)


def _dot_vma(x: Sharing, m: Sharing, y: Sharing, *, owner: int, dims: arithmetic.DimensionNumbers) -> Sharing:
    return _dot(m, y, dims=dims)


def _dot_avm(y: Sharing, x: Sharing, m: Sharing, *, owner: int, dims: arithmetic.DimensionNumbers) -> Sharing:
    return _dot(y, m, dims=dims)


def _trunc(x: Sharing, *, bits: int) -> Sharing:
    return (in_the_clear.truncate(x[0], bits=bits),)


def _negative(x: Elements) -> Elements:
    return bt.cast(bt.shift_right(x, bt.width(x) - 1), 8)


def _below(x: Sharing, *limits: Sharing) -> Sharing:
    return (reduce(or_, (bt.shift_left(_negative(x[0] - y), i) for i, (y,) in enumerate(limits))),)


def _keep(x: Sharing) -> Sharing:
    return x


def _in_the_clear(function: Callable[..., Any]) -> Callable[..., Sharing]:
    """The kernel that computes what somebody who knows the values does."""

    @wraps(function)
    def kernel(*xs: Sharing, **params: Any) -> Sharing:
        return (function(*(x for (x,) in xs), **params),)

    return kernel


def before_ref2k(xs: Sequence[Sharing], ys: Sequence[Sharing], kinds: str) -> Sharing:
    """The same on plain values."""
    before = None
    for (x,), (y,), kind in zip(reversed(xs), reversed(ys), reversed(kinds)):
        top = x.dtype.itemsize * 8 - 1
        less = (x ^ 1) & y if kind == "b" else bt.shift_right(x - y, top).astype(np.uint8)
        before = less if before is None else less | ((x == y).astype(np.uint8) & before)
    assert before is not None
    return (before,)


def ref2k(world_size: int, others: int = 0) -> Protocol:
    """The protocol for any number of parties, one included."""
    everyone = (frozenset(range(world_size)),)
    protocol = Protocol(
        name="ref2k",
        security="none: every party sees every value",
        world_size=world_size,
        holders={"a": everyone, "b": everyone, "d": everyone},
        algebra=Summands(1, masked=1),
        sorting=Sorting(lambda xs, kinds: list(xs), before_ref2k, _keep),
        masked=lambda owner: everyone,
        masked_in_shared=lambda owner: (0,),
        kernels=table(
            Kernel("mask_v", lambda x, *, owner, ring: _share((bt.cast(x[0], ring),), world_size, owner), "v", "m"),
            Kernel("product_vma", _product_vma, "vma", "d", local=True),
            Kernel("dot_vma", _dot_vma, "vma", "d", elementwise=False, local=True),
            Kernel("dot_avm", _dot_avm, "avm", "d", elementwise=False, local=True),
            *products_with_private(_product_vma, _keep, _trunc),
            Kernel("product_aa", lambda x, y: (x[0] * y[0],), "aa", "d", local=True),
            Kernel("dot_aa", _dot, "aa", "d", elementwise=False, local=True),
            Kernel("reshare_d", _keep, "d", "a"),
            Kernel("mul_aa", lambda x, y: (x[0] * y[0],), "aa", "a"),
            Kernel("trunc_d", _trunc, "d", "a"),
            Kernel("trunc_a", _trunc, "a", "a"),
            Kernel("mul_trunc_aa", lambda x, y, *, bits: (in_the_clear.truncate(x[0] * y[0], bits=bits),), "aa", "a"),
            Kernel("and_bb", lambda x, y, *, bits: (x[0] & y[0],), "bb", "b"),
            Kernel("msb_a", lambda x: (_negative(x[0]),), "a", "b"),
            *comparisons_with_public(_below),
            Kernel("eqz_a", lambda x: (in_the_clear.equal(x[0], bt.constant(x[0], 0)),), "a", "b"),
            Kernel("a2b", _keep, "a", "b"),
            Kernel("b2a", _keep, "b", "a"),
            Kernel("bit2a", lambda x, *, ring: (bt.cast(x[0], ring),), "b", "a"),
            Kernel("prefix_or_b", lambda x: (in_the_clear.prefix_or(x[0]),), "b", "b"),
            Kernel("exp2_ab", _in_the_clear(exponential.exp2), "ab", "a"),
            Kernel("exp2_abb", _in_the_clear(exponential.exp2), "abb", "a"),
            Kernel("harmonics_a", _in_the_clear(harmonics.sum_of_harmonics), "a", "a"),
            Kernel("scaled_aa", _in_the_clear(times_power.times_power), "aa", "a"),
            Kernel("power_b", _in_the_clear(one_bit.power), "b", "a"),
            Kernel("position_b", _in_the_clear(one_bit.position), "b", "a"),
            Kernel("share_v", lambda x, *, owner: _share(x, world_size, owner), "v", "a"),
            Kernel("share_vb", lambda x, *, owner, bits: _share(x, world_size, owner), "v", "b"),
            Kernel("reveal_a", _keep, "a", "p"),
            Kernel("reveal_b", lambda x, *, bits: x, "b", "p"),
            Kernel("reveal_a_to", lambda x, *, owner: x, "a", "v"),
            Kernel("reveal_b_to", lambda x, *, owner, bits: x, "b", "v"),
        ),
    )
    return with_others(protocol, others)
