"""What the rules of `expand` are made of: functions of components, sums and products of sharings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from spuvm.compiler.expand.expand import Components, Expander, Shared
from spuvm.compiler.ir.module import Op
from spuvm.runtime.ring import arithmetic, in_the_clear
from spuvm.runtime.ring import bits as bt

Rule = Callable[[Expander, Op], None]

# Functions of components; each name is one kernel for all programs. --------------------------------


def each_component(function: Callable[..., Any]) -> Callable[..., Components]:
    """The same function on the i-th components of all operands."""

    def run(*sharings: Components, **params: Any) -> Components:
        return tuple(function(*components, **params) for components in zip(*sharings))

    return run


def first_component(function: Callable[..., Any]) -> Callable[..., Components]:
    """A public operand joins the first component alone."""

    def run(x: Components, y: Components) -> Components:
        return (function(x[0], y[0]), *x[1:])

    return run


def all_components(function: Callable[..., Any]) -> Callable[..., Components]:
    """A public operand applies to every component."""

    def run(x: Components, y: Components, **params: Any) -> Components:
        return tuple(function(c, y[0], **params) for c in x)

    return run


ADD, SUB = each_component(lambda a, b: a + b), each_component(lambda a, b: a - b)
NEG = each_component(lambda a: -a)
ADD_FIRST, SUB_FIRST = first_component(lambda a, b: a + b), first_component(lambda a, b: a - b)
MUL_EACH, MUL_PUBLIC = each_component(lambda a, b: a * b), all_components(lambda a, b: a * b)
DOT_EACH = each_component(lambda a, b, *, dims: arithmetic.dot_general(a, b, dims))
DOT_PUBLIC = all_components(lambda a, b, *, dims: arithmetic.dot_general(a, b, dims))
DOT_PUBLIC_LEFT = all_components(lambda a, b, *, dims: arithmetic.dot_general(b, a, dims))
XOR_EACH, XOR_FIRST = each_component(lambda a, b: a ^ b), first_component(lambda a, b: a ^ b)
AND_EACH, AND_PUBLIC = each_component(lambda a, b: a & b), all_components(lambda a, b: a & b)
OR_EACH = each_component(lambda a, b: a | b)
SHIFT_LEFT = each_component(lambda a, *, bits: bt.shift_left(a, bits))
SHIFT_RIGHT = each_component(lambda a, *, bits: bt.shift_right(a, bits))
SHIFT_ARITHMETIC = each_component(in_the_clear.shift_right_arithmetic)
MASK = each_component(lambda a, *, value: a & bt.constant(a, value))
PARITY = each_component(lambda a, *, mask: bt.parity(a, mask))
WRAP = each_component(in_the_clear.wrap)
PICK = each_component(lambda c, a, b: in_the_clear.select(c, a, b))
PLAIN_LESS = each_component(in_the_clear.less)
PLAIN_EQUAL = each_component(in_the_clear.equal)
PLAIN_TRUNCATE = each_component(in_the_clear.truncate)
PLAIN_TOWARD_ZERO = each_component(in_the_clear.toward_zero)
PLAIN_DIVISION = each_component(in_the_clear.integer_division)
PLAIN_PREFIX_OR = each_component(in_the_clear.prefix_or)
NONZERO = each_component(lambda a: (a != bt.constant(a, 0)).astype(np.uint8))


def pick_public(c: Components, x: Components, y: Components) -> Components:
    return tuple(in_the_clear.select(c[0], a, b) for a, b in zip(x, y))


# Sums and products of sharings -------------------------------------------------------------------------------


def known(ex: Expander, op: Op) -> list[Shared] | None:
    """The operands if one place knows them all, else None."""
    xs = [ex.primary(v) for v in op.inputs]
    if not all(x.known for x in xs) or len({x.owner for x in xs if x.kind == "v"}) > 1:
        return None
    return xs


def known_kind(xs: list[Shared]) -> str:
    return "v" if any(x.kind == "v" for x in xs) else "p"


def compute_known(
    ex: Expander,
    name: str,
    function: Callable[..., Components],
    xs: list[Shared],
    *,
    dtype: str | None = None,
    **params: Any,
) -> Shared:
    return ex.local("plain_" + name, function, *xs, kind=known_kind(xs), dtype=dtype, **params)


def add(ex: Expander, x: Shared, y: Shared) -> Shared:
    """Sum of any two of p, a, d."""
    if x.kind == "p" and y.kind != "p":
        x, y = y, x
    if y.kind == "p" and x.kind != "p":
        return ex.local("add_p", ADD_FIRST, x, y, kind=x.kind)
    return ex.local("add", ADD, x, y, kind="d" if "d" in x.kind + y.kind else x.kind)


def neg(ex: Expander, x: Shared) -> Shared:
    return ex.local("neg", NEG, x, kind=x.kind)


def sub(ex: Expander, x: Shared, y: Shared) -> Shared:
    if y.kind == "p" and x.kind != "p":
        return ex.local("sub_p", SUB_FIRST, x, y, kind=x.kind)
    if x.kind == "p" and y.kind != "p":
        return add(ex, neg(ex, y), x)
    return ex.local("sub", SUB, x, y, kind="d" if "d" in x.kind + y.kind else x.kind)


def mul(ex: Expander, x: Shared, y: Shared) -> Shared:
    """Ring product of any two of p, a."""
    if x.kind == "p":
        x, y = y, x
    if x.kind == "p":
        return compute_known(ex, "mul", MUL_EACH, [x, y])
    if y.kind == "p":
        return ex.local("mul_p", MUL_PUBLIC, x, y, kind=x.kind)
    return ex.kernel("mul_aa", x, y)


def xor(ex: Expander, x: Shared, y: Shared) -> Shared:
    if x.kind == "p":
        x, y = y, x
    if y.kind == "p" and x.kind != "p":
        return ex.local("xor_p", XOR_FIRST, x, y, kind="b", dtype=x.dtype)
    return ex.local("xor", XOR_EACH, x, y, kind=x.kind, dtype=x.dtype)


def and_(ex: Expander, x: Shared, y: Shared) -> Shared:
    if x.kind == "p":
        x, y = y, x
    if x.kind == "p":
        return ex.local("plain_and", AND_EACH, x, y, kind="p", dtype=x.dtype)
    if y.kind == "p":
        return ex.local("and_p", AND_PUBLIC, x, y, kind="b", dtype=x.dtype)
    return ex.kernel("and_bb", x, y, bits=ex.bits(x), dtype=x.dtype)


def invert(ex: Expander, x: Shared) -> Shared:
    """The negation of a bool."""
    return xor(ex, x, ex.constant(np.ones((), np.uint8), "uint8"))


def sign_bit(ex: Expander, x: Shared) -> Shared:
    """The most significant bit of p or a, as a bool."""
    if x.kind == "p":
        return compute_known(ex, "top_bit", PARITY, [x], dtype="uint8", mask=1 << (ex.ring_bits - 1))
    return ex.kernel("msb_a", x, dtype="uint8")


def blend(ex: Expander, c: Shared, x: Shared, y: Shared) -> Shared:
    """y + c (x - y), with c the ring elements 0 and 1."""
    return add(ex, y, mul(ex, c, sub(ex, x, y)))


def trunc(ex: Expander, x: Shared, bits: int) -> Shared:
    return ex.kernel("trunc_d" if x.kind == "d" else "trunc_a", x, bits=bits)


def shifted(ex: Expander, x: Shared, bits: int) -> Shared:
    return ex.local("shift_left", SHIFT_LEFT, x, kind=x.kind, bits=bits) if bits else x
