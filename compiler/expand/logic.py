"""Comparison, logic, operations on bits, and selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spuvm.compiler.expand.expander import Expander, Rule, Shared
from spuvm.compiler.expand.sharings import (
    ADD,
    MASK,
    PARITY,
    XOR,
    and_,
    blend,
    compute_known,
    invert,
    known,
    shifted,
    sign_bit,
    sub,
    xor,
)
from spuvm.compiler.ir.module import Op, Value
from spuvm.runtime.ring import in_the_clear as clear

# Comparison and logic ----------------------------------------------------------------------------------------


def expand_less(ex: Expander, op: Op) -> None:
    type_ = op.inputs[0].type
    unsigned_word = type_.kind == "int" and type_.bits >= ex.ring_bits and not type_.signed
    if xs := known(ex, op):
        out = compute_known(ex, "less", clear.less, xs, dtype="uint8", signed=not unsigned_word)
        return ex.set(op.output, out)
    if op.output in ex.values:
        return  # it came with an earlier comparison of the same value
    x, y = (ex.arithmetic(v) for v in op.inputs)
    if type_.kind == "int" and type_.bits >= ex.ring_bits:
        return ex.set(op.output, _less_word(ex, x, y, unsigned_word))
    comparisons = _of_the_same(ex, op)
    if len(comparisons) > 1:
        return _less_public(ex, comparisons)
    ex.set(op.output, ex.kernel("msb_a", sub(ex, x, y), dtype="uint8"))


def _of_the_same(ex: Expander, op: Op) -> list[Op]:
    """The comparisons of the same secret with public values that one kernel can make, from this one on."""

    def public(value: Value) -> bool:
        return value in ex.values and ex.primary(value).kind == "p"

    secret = [v for v in op.inputs if not public(v)]
    if len(secret) > 1:
        return [op]
    users = [u for u in dict.fromkeys(ex.users[secret[0]]) if u is not None and u.name == "less"]
    found = [u for u in users if u.output not in ex.values and sum(map(public, u.inputs)) == 1]
    while f"below_a{'p' * len(found)}" not in ex.protocol.kernels and len(found) > 1:
        found.pop()
    return found


def _less_public(ex: Expander, ops: Sequence[Op]) -> None:
    """Comparisons of one secret x with public values: c < x is not x < c + 1."""
    above = [ex.primary(op.inputs[0]).kind == "p" for op in ops]
    x = ex.as_kind(ops[0].inputs[above[0]], "a")
    one = ex.constant(1)
    limits = [ex.primary(op.inputs[not a]) for op, a in zip(ops, above)]
    limits = [ex.apply("add", ADD, y, one, kind="p") if a else y for y, a in zip(limits, above)]
    word = ex.kernel(f"below_a{'p' * len(ops)}", x, *limits, dtype="uint8")
    for i, (op, a) in enumerate(zip(ops, above)):
        bit = ex.apply("bit_parity", PARITY, word, kind="b", dtype="uint8", mask=1 << i)
        ex.set(op.output, invert(ex, bit) if a else bit)


def _less_word(ex: Expander, x: Shared, y: Shared, unsigned: bool) -> Shared:
    """x < y for all integers of the ring's width: the sign of x - y, unless the signs differ (it may overflow)."""
    sx, sy, sd = (sign_bit(ex, v) for v in (x, y, sub(ex, x, y)))
    side = invert(ex, sx) if unsigned else sx  # the smaller has this bit when the signs differ
    return xor(ex, sd, and_(ex, xor(ex, sx, sy), xor(ex, side, sd)))


def expand_equal(ex: Expander, op: Op) -> None:
    if xs := known(ex, op):
        return ex.set(op.output, compute_known(ex, "equal", clear.equal, xs, dtype="uint8"))
    x, y = (ex.summand(v) for v in op.inputs)
    difference = sub(ex, x, y)
    ex.set(op.output, ex.kernel("eqz_a", ex.converted(difference, "a"), dtype="uint8"))


def logical(name: str, in_the_clear: Callable[..., Any], rule: Callable[..., Shared]) -> Rule:
    def run(ex: Expander, op: Op) -> None:
        if xs := known(ex, op):
            out = compute_known(ex, name, in_the_clear, xs, dtype=xs[0].dtype)
        else:
            out = rule(ex, *(ex.boolean(v) for v in op.inputs))
        ex.set(op.output, out)

    return run


def or_(ex: Expander, x: Shared, y: Shared) -> Shared:
    return xor(ex, xor(ex, x, y), and_(ex, x, y))


def expand_not(ex: Expander, op: Op) -> None:
    type_ = op.inputs[0].type
    ones = 1 if type_.kind == "bool" else (1 << type_.bits) - 1 if type_.kind == "int" and not type_.signed else -1
    x = ex.boolean(op.inputs[0]) if not ex.primary(op.inputs[0]).known else ex.primary(op.inputs[0])
    mask = ex.constant(np.asarray(ones, object), x.dtype)
    if x.known:
        return ex.set(op.output, compute_known(ex, "xor", XOR, [x, mask], dtype=x.dtype))
    ex.set(op.output, xor(ex, x, mask))


def bits_rule(name: str, function: Callable[..., Any], dtype: str | None = None, attr: str = "bits") -> Rule:
    """An operation on the words of a boolean sharing, linear over exclusive or."""

    def run(ex: Expander, op: Op) -> None:
        x = ex.primary(op.inputs[0])
        x = x if x.known else ex.boolean(op.inputs[0])
        type_ = op.inputs[0].type
        if (
            name == "shift_right"
            and op.attrs["bits"]
            and type_.kind == "int"
            and type_.signed
            and type_.bits < ex.ring_bits
        ):
            x = ex.apply("mask", MASK, x, kind=x.kind, value=(1 << type_.bits) - 1)
        ex.set(op.output, ex.apply(name, function, x, kind=x.kind, dtype=dtype, **{attr: op.attrs[attr]}))

    return run


def expand_shift_left(ex: Expander, op: Op) -> None:
    x = ex.primary(op.inputs[0])
    ex.set(op.output, shifted(ex, x, op.attrs["bits"]))


def expand_prefix_or(ex: Expander, op: Op) -> None:
    if xs := known(ex, op):
        return ex.set(op.output, compute_known(ex, "prefix_or", clear.prefix_or, xs))
    ex.set(op.output, ex.kernel("prefix_or_b", ex.as_kind(op.inputs[0], "b")))


def expand_select(ex: Expander, op: Op) -> None:
    if xs := known(ex, op):
        return ex.set(op.output, compute_known(ex, "select", clear.select, xs, dtype=xs[1].dtype))
    c, x, y = op.inputs
    choice = ex.primary(c)
    boolean = x.type.kind == "bool"
    if choice.kind == "p":
        kind = "b" if boolean else "a"
        a, b = ex.as_kind(x, kind), ex.as_kind(y, kind)
        return ex.set(
            op.output, ex.apply("select_p", clear.select, choice, a, b, kind=kind, dtype=a.dtype, public=(0,))
        )
    if boolean:
        a, b = ex.boolean(x), ex.boolean(y)
        return ex.set(op.output, xor(ex, b, and_(ex, ex.as_kind(c, "b"), xor(ex, a, b))))
    ex.set(op.output, blend(ex, ex.as_kind(c, "a"), ex.arithmetic(x), ex.arithmetic(y)))
