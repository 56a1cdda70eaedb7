"""Products of replicated sharings, proved before anything is revealed: of three parties one may deviate (malicious).

A product is computed as ABY3 does it: a party that deviates can add an error to its own summand and nothing else, and
learns nothing by it. `multiplied` says what is to be proved; `machine/proofs.py` says how.
"""

from __future__ import annotations

from math import prod
from typing import Any

import jax.numpy as jnp

from spuvm.runtime.engine.primitives import confirm, multiplied, send
from spuvm.runtime.errors import ProtocolError
from spuvm.runtime.protocols.aby3 import products
from spuvm.runtime.protocols.algebra import Sharing
from spuvm.runtime.protocols.protocol import each, xor
from spuvm.runtime.ring import arithmetic
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import Elements, Word

FEW = 4  # results of one matrix product, up to which its products are proved one by one


def joint_send(x: Elements, src: int, by: int, dst: int, bits: int | None = None) -> Elements:
    """x, which two parties know, at the third: one sends it, the other confirms it by a tag."""
    return confirm(send(x, src, dst, bits), by, dst)


def placed(x: Elements, component: int) -> Sharing:
    """What the two holders of a component know -> a sharing of it. Local: nobody can deviate."""
    return tuple(x if i == component else bt.zeros_like(x) for i in range(3))


def proved(x: Sharing, y: Sharing, z: Sharing, how: str) -> Sharing:
    if isinstance(z[0], Word):
        raise ProtocolError("parties that may deviate compute in rings of 32 and 64 bits: use `ring=64`.")
    if how != "dot":
        x, y = (each(lambda a: a if a.shape == z[0].shape else a + bt.zeros_like(z[0]), v) for v in (x, y))
    return multiplied(x, y, z, how)


def mul_aa(x: Sharing, y: Sharing) -> Sharing:
    """[x], [y] -> [x y], proved. One round, one word a party."""
    return proved(x, y, products.mul_aa(x, y), "mul")


def and_bb(x: Sharing, y: Sharing, *, bits: int) -> Sharing:
    """[x], [y] -> [x & y] on words of `bits` significant bits, proved. One round, `bits` a party."""
    return proved(x, y, products.and_bb(x, y, bits=bits), "and")


def dot_aa(x: Sharing, y: Sharing, *, dims: arithmetic.DimensionNumbers) -> Sharing:
    """The ring's generalised matrix product, proved. One round, the words of the result a party."""
    (xc, yc), (xb, yb) = dims
    xf = [d for d in range(x[0].ndim) if d not in (*xc, *xb)]
    yf = [d for d in range(y[0].ndim) if d not in (*yc, *yb)]
    g, k = (prod(x[0].shape[d] for d in axes) for axes in (xb, xc))
    m, n = prod(x[0].shape[d] for d in xf), prod(y[0].shape[d] for d in yf)
    out = tuple(x[0].shape[d] for d in (*xb, *xf)) + tuple(y[0].shape[d] for d in yf)
    left = each(lambda a: _laid_out(a, (*xb, *xf, *xc), (g, m, k)), x)
    right = each(lambda a: _laid_out(a, (*yb, *yc, *yf), (g, k, n)), y)
    if m * n <= FEW:
        return each(lambda a: a.reshape(out), _summed(left, right))
    z = products.reshare_d(products.dot_aa(left, right, dims=(((2,), (1,)), ((0,), (0,)))))
    return each(lambda a: a.reshape(out), proved(left, right, z, "dot"))


def _laid_out(x: Any, axes: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    return (x if axes == tuple(range(len(axes))) else x.transpose(axes)).reshape(shape)


def _summed(x: Sharing, y: Sharing) -> Sharing:
    """[x] of shape [g, m, k], [y] of [g, k, n] -> [x y] of few results: each product by itself, then the sums."""
    (g, m, k), n = x[0].shape, y[0].shape[2]
    every = (g, m, n, k)

    def spread(a: Any, axes: tuple[int, ...], shape: tuple[int, ...]) -> Any:
        return jnp.broadcast_to(a.transpose(axes).reshape(shape), every)

    left = each(lambda a: spread(a, (0, 1, 2), (g, m, 1, k)), x)
    right = each(lambda a: spread(a, (0, 2, 1), (g, 1, n, k)), y)
    return each(lambda a: a.sum(3, dtype=a.dtype), mul_aa(left, right))


def sum_of_three(x: Sharing, y: Sharing, z: Sharing) -> tuple[Sharing, Sharing]:
    """Three shared words -> two with the same sum. One round.

    A carry-save adder: bit by bit x xor y xor z, and the majority of the three, which counts twice.
    """
    majority = xor(and_bb(xor(x, z), xor(y, z), bits=bt.width(x[0])), z)
    return xor(xor(x, y), z), each(lambda a: bt.shift_left(a, 1), majority)
