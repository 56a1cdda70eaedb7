"""Integers narrower than the ring: `wrap`, and the low bits alone when one is revealed."""

from __future__ import annotations

from spuvm.compiler.expand.expander import Expander, Shared
from spuvm.compiler.expand.sharings import LOW_WORD, add, neg, shifted, sub, trunc
from spuvm.compiler.ir.module import Op, Type
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring import in_the_clear
from spuvm.runtime.ring.elements import Elements

BITWISE = {"and", "or", "xor", "not", "shift_right_logical", "shift_right_arithmetic", "prefix_or", "bit_parity"}


def expand_wrap(ex: Expander, op: Op) -> None:
    """Local on bits and where somebody knows the value."""
    (value,) = op.inputs
    x = ex.primary(value)
    readers = ex.users.get(op.output, [])
    if not x.known and readers and all(r is not None and r.name in BITWISE for r in readers):
        x = ex.boolean(value)
    if x.kind in "pvb":
        return ex.set(op.output, wrapped(ex, x, value.type))
    ex.set(op.output, _wrapped_sum(ex, ex.as_kind(value, "a"), value.type))


def wrapped(ex: Expander, x: Shared, t: Type) -> Shared:
    """The integer of type t that is x modulo 2^bits, of a known value or of bits."""
    return (
        x
        if t.bits >= ex.ring_bits
        else ex.apply("wrap", in_the_clear.wrap, x, kind=x.kind, bits=t.bits, signed=t.signed)
    )


def _wrapped_sum(ex: Expander, x: Shared, t: Type) -> Shared:
    """[x] -> [x mod 2^bits], sign- or zero-extended. 6 + log2 k rounds: one top bit, one bit injection, one truncation.

    1. [y] = 2^(k - bits) [x], local: the low bits of x are the high bits of y. [s] is the top bit of y.
    2. y + s 2^(k-1) clears the top bit; less 2^(k-2) it is in the domain of truncation, which is exact here, as
       the bits that it drops are zero.
    3. Put back 2^(k-2), and s in its place: worth -2^(bits-1) if signed.
    """
    k = ex.ring_bits
    drop = k - t.bits
    y = shifted(ex, x, drop)
    s = ex.injected(ex.kernel("msb_a", y, dtype="uint8"))
    low = sub(ex, add(ex, y, shifted(ex, s, k - 1)), ex.constant(1 << (k - 2)))
    low = add(ex, trunc(ex, low, drop), ex.constant(1 << (k - 2 - drop)))
    top = shifted(ex, s, t.bits - 1)
    return add(ex, low, neg(ex, top) if t.signed else top)


# Reveals ---------------------------------------------------------------------------------------------------


def _widened(x: Elements, *, ring: int) -> Elements:
    return bt.cast(x, ring)


def is_narrow(t: Type, ring_bits: int) -> bool:
    return t.kind == "int" and t.bits < ring_bits


def low_word(ex: Expander, x: Shared, t: Type) -> Shared:
    """The components modulo 2^bits: they say x modulo 2^bits and nothing else about x."""
    return ex.apply("low_word", LOW_WORD, x, kind=x.kind, dtype="uint32" if t.bits <= 32 else ex.word, bits=t.bits)


def opened_word(ex: Expander, x: Shared, t: Type) -> Shared:
    """A known sum of such components as an integer of type t."""
    return wrapped(ex, ex.apply("widen_word", _widened, x, kind=x.kind, ring=ex.ring_bits), t)
