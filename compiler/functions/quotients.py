"""Exact quotients and remainders of integers, and remainders of fixed point: which way for which operands."""

from __future__ import annotations

from spuvm.compiler.functions import secret_division
from spuvm.compiler.functions.exact_division import constant_of, int_div, raw_rem
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value, join
from spuvm.runtime.ring.elements import signed


def quotient(b: Builder, x: Value, y: Value, *, bits: int | None = None) -> Value:
    """x / y of integers, toward zero; `bits`, if known, of both their magnitudes."""
    if _by_a_secret(x, y):
        if bits is not None:
            return secret_division.bounded_quotient(b, x, y, bits)
        return secret_division.quotient(b, x, y)
    if x.type.is_secret and _is_large(b, y):
        return secret_division.by_bits(b, x, y)[0]
    return int_div(b, x, y)


def remainder(b: Builder, x: Value, y: Value) -> Value:
    """x rem y, the sign of x, as in C. Fixed point: of the raw integers, exact on their grid."""
    fixed = x.type.kind == "fxp"
    if _by_a_secret(x, y):
        return (secret_division.fixed_point_remainder if fixed else secret_division.remainder)(b, x, y)
    if fixed:
        return raw_rem(b, x, y)
    whole = quotient(b, x, y)
    return b.bitcast(b.bitcast(b.sub(x, b.mul_raw(whole, y)), "fxp0"), x.type.element)


def _by_a_secret(x: Value, y: Value) -> bool:
    """Whether the divisor is no public number, and nobody knows both."""
    return not y.type.is_public and join(x.type.visibility, y.type.visibility) == "secret"


def _is_large(b: Builder, y: Value) -> bool:
    """Whether a divisor is known now, and beyond what a quotient by constants takes."""
    data = constant_of(b, y)
    if data is None or not data.size:
        return False
    numbers = signed(data) if y.type.signed else data
    return max(abs(int(n)) for n in (numbers.min(), numbers.max())) >= 1 << b.ring_bits - 5
