"""What the rules of `expand` are made of: functions of elements, sums and products of sharings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from spuvm.compiler.expand.expander import Expander, Shared
from spuvm.compiler.ir.module import Op
from spuvm.runtime.ring import arithmetic
from spuvm.runtime.ring import bits as bt

Rule = Callable[[Expander, Op], None]

# Functions of elements; each name is one kernel for all programs. ------------------------------------


def ADD(a: Any, b: Any) -> Any:
    return a + b


def SUB(a: Any, b: Any) -> Any:
    return a - b


def NEG(a: Any) -> Any:
    return -a


def MUL(a: Any, b: Any) -> Any:
    return a * b


def DOT(a: Any, b: Any, *, dims: arithmetic.DimensionNumbers) -> Any:
    return arithmetic.dot_general(a, b, dims)


def XOR(a: Any, b: Any) -> Any:
    return a ^ b


def AND(a: Any, b: Any) -> Any:
    return a & b


def OR(a: Any, b: Any) -> Any:
    return a | b


def SHIFT_LEFT(a: Any, *, bits: int) -> Any:
    return bt.shift_left(a, bits)


def SHIFT_RIGHT(a: Any, *, bits: int) -> Any:
    return bt.shift_right(a, bits)


def MASK(a: Any, *, value: int) -> Any:
    return a & bt.constant(a, value)


def PARITY(a: Any, *, mask: int) -> Any:
    return bt.parity(a, mask)


def LOW_WORD(a: Any, *, bits: int) -> Any:
    low = a & bt.constant(a, (1 << bits) - 1)
    return bt.cast(low, 32) if bits <= 32 else low


def NONZERO(a: Any) -> Any:
    return (a != bt.constant(a, 0)).astype(np.uint8)


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
    function: Callable[..., Any],
    xs: list[Shared],
    *,
    dtype: str | None = None,
    **params: Any,
) -> Shared:
    return ex.apply("plain_" + name, function, *xs, kind=known_kind(xs), dtype=dtype, **params)


def add(ex: Expander, x: Shared, y: Shared) -> Shared:
    """Sum of any two of p, a, d."""
    if x.kind == "p" and y.kind != "p":
        x, y = y, x
    if y.kind == "p" and x.kind != "p":
        return ex.join("add_p", ADD, x, y)
    x, y = _alike(ex, x, y)
    return ex.apply("add", ADD, x, y, kind="d" if "d" in x.kind + y.kind else x.kind)


def _alike(ex: Expander, x: Shared, y: Shared) -> tuple[Shared, Shared]:
    """Both as kind d if one of them is, where that has other components."""
    if {x.kind, y.kind} != {"a", "d"} or len(x.slots) == len(y.slots):
        return x, y
    return ex.summands(x), ex.summands(y)


def neg(ex: Expander, x: Shared) -> Shared:
    return ex.apply("neg", NEG, x, kind=x.kind)


def sub(ex: Expander, x: Shared, y: Shared) -> Shared:
    if y.kind == "p" and x.kind != "p":
        return ex.join("sub_p", SUB, x, y)
    if x.kind == "p" and y.kind != "p":
        return add(ex, neg(ex, y), x)
    x, y = _alike(ex, x, y)
    return ex.apply("sub", SUB, x, y, kind="d" if "d" in x.kind + y.kind else x.kind)


def mul(ex: Expander, x: Shared, y: Shared) -> Shared:
    """Ring product of any two of p, a."""
    if x.kind == "p":
        x, y = y, x
    if x.kind == "p":
        return compute_known(ex, "mul", MUL, [x, y])
    if y.kind == "p":
        return ex.apply("mul_p", MUL, x, y, kind=x.kind, public=(1,))
    return ex.kernel("mul_aa", x, y)


def xor(ex: Expander, x: Shared, y: Shared) -> Shared:
    if x.kind == "p":
        x, y = y, x
    if y.kind == "p" and x.kind != "p":
        return ex.join("xor_p", XOR, x, y, dtype=x.dtype)
    return ex.apply("xor", XOR, x, y, kind=x.kind, dtype=x.dtype)


def and_(ex: Expander, x: Shared, y: Shared) -> Shared:
    if x.kind == "p":
        x, y = y, x
    if x.kind == "p":
        return ex.apply("plain_and", AND, x, y, kind="p", dtype=x.dtype)
    if y.kind == "p":
        return ex.apply("and_p", AND, x, y, kind="b", dtype=x.dtype, public=(1,))
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
    """[x / 2^bits], rounded down or up by chance."""
    return ex.kernel("trunc_d" if x.kind == "d" else "trunc_a", x, bits=bits)


def rounded(ex: Expander, x: Shared, bits: int) -> Shared:
    """[x / 2^bits] as the program's configuration has it: by chance, or always down."""
    return floor(ex, x, bits) if ex.exact else trunc(ex, x, bits)


def floor(ex: Expander, x: Shared, bits: int) -> Shared:
    """[x] of kind a or d -> [floor(x / 2^bits)], for every |x| < 2^(k-2).

    1. [y] = `trunc` [x]: the floor or one more, by chance. It opens x + r for a uniform r.
    2. Beside it, bit number `bits` of x, the lowest of the floor: the top bit of a word of which it is the last.
    3. y has one too many where its lowest bit, which is local, is another. That bit is taken away: the result is a
       function of x alone, so that what is revealed of it tells nothing of r, nor with r of the bits dropped.

    (Source: ours, of kernels that a protocol has.) One comparison of 32 bits, or of the ring's where more are dropped.
    """
    y = trunc(ex, x, bits)
    narrow = bits < 32 < ex.ring_bits
    width = 32 if narrow else ex.ring_bits
    word = ex.apply("low_word", LOW_WORD, x, kind=x.kind, dtype="uint32", bits=32) if narrow else x
    word = word if x.kind == "a" else ex.kernel("reshare_d", word, dtype=word.dtype)
    word = ex.apply("shift_left", SHIFT_LEFT, word, kind="a", dtype=word.dtype, bits=width - 1 - bits)
    one_more = xor(ex, ex.low_bit(y), ex.kernel("msb_a", word, dtype="uint8"))
    return sub(ex, y, ex.injected(one_more))


def shifted(ex: Expander, x: Shared, bits: int) -> Shared:
    return ex.apply("shift_left", SHIFT_LEFT, x, kind=x.kind, bits=bits) if bits else x
