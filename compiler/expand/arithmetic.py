"""Arithmetic: linear operations, products and truncations, conversions between number types.

Products are left unreshared (kind `d`) when only linear operations and truncations follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spuvm.compiler.expand.expander import LINEAR, Expander, Product, Rule, Shared
from spuvm.compiler.expand.masked import factors, keep_converted
from spuvm.compiler.expand.sharings import (
    DOT,
    MUL,
    NONZERO,
    add,
    compute_known,
    floor,
    invert,
    known,
    known_kind,
    mul,
    neg,
    rounded,
    shifted,
    sub,
    trunc,
)
from spuvm.compiler.ir.module import Op, Type, Value
from spuvm.compiler.ir.ops import parse_element
from spuvm.runtime.ring import exponential, harmonics, one_bit, times_power
from spuvm.runtime.ring import in_the_clear as clear

# Linear operations and products -------------------------------------------------------------------------


def linear(name: str, in_the_clear: Callable[..., Any], rule: Callable[..., Shared]) -> Rule:
    def run(ex: Expander, op: Op) -> None:
        if xs := known(ex, op):
            return ex.set(op.output, compute_known(ex, name, in_the_clear, xs))
        xs = [ex.summand(v) for v in op.inputs]
        if {"a", "d"} <= {x.kind for x in xs} and op.output not in ex.truncated:
            # Resharing the product now does not make it wait for the other operand's rounds.
            xs = [ex.as_kind(v, "a") if x.kind == "d" else x for v, x in zip(op.inputs, xs)]
        ex.set(op.output, rule(ex, *xs))

    return run


def _only_linear_uses(ex: Expander, value: Value) -> bool:
    users = ex.users.get(value, [])
    return bool(users) and all(user is not None and user.name in {*LINEAR, "trunc"} for user in users)


def expand_mul(ex: Expander, op: Op) -> None:
    if xs := known(ex, op):
        return ex.set(op.output, compute_known(ex, "mul", MUL, xs))
    private = factors(ex, op.inputs)
    operands = private.operands if private else tuple(ex.arithmetic(v) for v in op.inputs)
    if any(x.kind == "p" for x in operands):
        return ex.set(op.output, mul(ex, *operands))
    product = Product("vma" if private else "aa", operands, private.owner if private else None)
    users = ex.users.get(op.output, [])
    if len(users) == 1 and users[0] is not None and users[0].name == "trunc":
        ex.products[op.output] = product
    else:
        ex.set(op.output, _multiplied(ex, "product" if _only_linear_uses(ex, op.output) else "mul", product))


# Protocols for which squares cost less than products have these kernels.
SQUARES = {"product_aa": "square_d", "mul_aa": "square_a", "mul_trunc_aa": "square_trunc_a"}


def _multiplied(ex: Expander, how: str, product: Product, **params: Any) -> Shared:
    """The product by a kernel of that name; of a value with itself by that of squares, if there is one."""
    name, operands = f"{how}_{product.kinds}", product.operands
    square = SQUARES.get(name, "")
    if square in ex.protocol.kernels and operands[0] is operands[1]:
        name, operands = square, operands[:1]
    return ex.kernel(name, *operands, owner=product.owner, **params)


def expand_dot(ex: Expander, op: Op) -> None:
    x, y = op.inputs
    dims = tuple(tuple(tuple(int(i) for i in d) for d in pair) for pair in op.attrs["dims"])
    shape = op.output.shape

    def at(value: Value, shared: Shared) -> Shared:
        return ex.whole(shared, value.shape)

    if xs := known(ex, op):
        xs = [at(v, s) for v, s in zip(op.inputs, xs)]
        out = ex.apply("plain_dot", DOT, *xs, kind=known_kind(xs), shape=shape, elementwise=False, dims=dims)
        return ex.set(op.output, out)
    if private := factors(ex, op.inputs):
        v, m, a = private.operands
        mine, other = (x, y) if private.left else (y, x)
        v, m, a = at(mine, v), at(mine, m), at(other, a)
        name, operands = ("dot_vma", (v, m, a)) if private.left else ("dot_avm", (a, v, m))
        return ex.set(op.output, ex.kernel(name, *operands, shape=shape, owner=private.owner, dims=dims))
    a, b = at(x, ex.arithmetic(x)), at(y, ex.arithmetic(y))
    if b.kind == "p":
        out = ex.apply("dot_p", DOT, a, b, kind="a", public=(1,), shape=shape, elementwise=False, dims=dims)
    elif a.kind == "p":
        out = ex.apply("p_dot", DOT, a, b, kind="a", public=(0,), shape=shape, elementwise=False, dims=dims)
    else:
        out = ex.kernel("dot_aa", a, b, shape=shape, dims=dims)
    ex.set(op.output, out)


def expand_trunc(ex: Expander, op: Op) -> None:
    bits = op.attrs["bits"]
    (value,) = op.inputs
    if value in ex.products:
        product = ex.products.pop(value)
        if ex.exact:
            return ex.set(op.output, floor(ex, _multiplied(ex, "product", product), bits))
        return ex.set(op.output, _multiplied(ex, "mul_trunc", product, bits=bits))
    x = ex.primary(value)
    if x.known:
        return ex.set(op.output, compute_known(ex, "truncate", clear.truncate, [x], bits=bits))
    ex.set(op.output, rounded(ex, ex.summand(value), bits))


def expand_integer_division(ex: Expander, op: Op) -> None:
    xs = known(ex, op)
    assert xs is not None
    signed = op.inputs[0].type.kind == "fxp" or op.inputs[0].type.signed
    ex.set(op.output, compute_known(ex, "integer_division", clear.integer_division, xs, signed=signed))


# Conversions -----------------------------------------------------------------------------------------------


def expand_convert(ex: Expander, op: Op) -> None:
    (value,) = op.inputs
    source, target = value.type, parse_element(op.attrs["to"])
    x = ex.primary(value)
    if target.kind == "bool":
        out = x if source.kind == "bool" else _nonzero_bool(ex, value)
    elif source.kind == "bool":
        word = ex.widened(x) if x.known else ex.as_kind(value, "a")
        out = shifted(ex, word, target.frac)
    elif target.kind == "fxp":
        out = _change_fraction(ex, ex.summand(value) if not x.known else x, target.frac - source.frac)
    elif source.kind == "fxp":
        out = _wrapped(ex, _toward_zero(ex, value, source.frac), target)
    elif _holds(target, source, ex.ring_bits):
        out = x if x.kind != "d" else ex.as_kind(value, "a")
    else:
        out = _wrapped(ex, ex.boolean(value) if not x.known else x, target)
    ex.set(op.output, out)
    if x.kind == "v" and _is_shift(source, target, ex.ring_bits):
        keep_converted(ex, op, target.frac - source.frac)


def _is_shift(source: Type, target: Type, ring_bits: int) -> bool:
    """Whether the conversion of known numbers is a shift to the left, or nothing."""
    if target.kind == "fxp":
        return target.frac >= source.frac
    return target.kind == "int" and (
        source.kind == "bool" or (source.kind == "int" and _holds(target, source, ring_bits))
    )


def _holds(target: Type, source: Type, ring_bits: int) -> bool:
    """Whether every canonical integer of type `source` is one of type `target` as it stands."""
    if target.bits >= ring_bits or target.signed == source.signed:
        return target.bits >= source.bits
    return target.signed and target.bits > source.bits


def _nonzero_bool(ex: Expander, value: Value) -> Shared:
    x = ex.primary(value)
    if x.known:
        return compute_known(ex, "nonzero", NONZERO, [x], dtype="uint8")
    return invert(ex, ex.kernel("eqz_a", ex.as_kind(value, "a"), dtype="uint8"))


def _change_fraction(ex: Expander, x: Shared, bits: int) -> Shared:
    if bits >= 0:
        return shifted(ex, x, bits)
    return compute_known(ex, "truncate", clear.truncate, [x], bits=-bits) if x.known else rounded(ex, x, -bits)


def _toward_zero(ex: Expander, value: Value, bits: int) -> Shared:
    """Fixed point to integer, exactly: truncate |x|, step back where that was one too many, put the sign on."""
    x = ex.primary(value)
    if x.known:
        return compute_known(ex, "toward_zero", clear.toward_zero, [x], bits=bits)
    if not bits:
        return ex.as_kind(value, "a")
    x = ex.as_kind(value, "a")
    negative = ex.injected(ex.kernel("msb_a", x, dtype="uint8"))
    sign = add(ex, neg(ex, shifted(ex, negative, 1)), ex.constant(1))
    magnitude = mul(ex, sign, x)
    quotient = trunc(ex, magnitude, bits)
    rest = sub(ex, magnitude, shifted(ex, quotient, bits))
    too_many = ex.injected(ex.kernel("msb_a", rest, dtype="uint8"))
    return mul(ex, sign, sub(ex, quotient, too_many))


def _wrapped(ex: Expander, x: Shared, target: Type) -> Shared:
    """The canonical form modulo the target's width. Boolean sharings only; others must fit."""
    if target.bits >= ex.ring_bits or x.kind not in "pvb":
        return x
    return ex.apply("wrap", clear.wrap, x, kind=x.kind, bits=target.bits, signed=target.signed)


def expand_exp2(ex: Expander, op: Op) -> None:
    params = {name: op.attrs[name] for name in ("factors", "tops")}
    if xs := known(ex, op):
        return ex.set(op.output, compute_known(ex, "exp2", exponential.exp2, xs, **params))
    bits = op.inputs[1:]
    kinds = "a" + "b" * len(bits)
    ex.set(op.output, ex.kernel(f"exp2_{kinds}", *map(ex.as_kind, op.inputs, kinds), **params))


def expand_harmonics(ex: Expander, op: Op) -> None:
    x = ex.primary(op.inputs[0])
    params = {name: op.attrs[name] for name in ("weights", "step")} | {"frac": op.output.type.frac}
    if x.known:
        return ex.set(op.output, compute_known(ex, "harmonics", harmonics.sum_of_harmonics, [x], **params))
    ex.set(op.output, ex.kernel("harmonics_a", ex.as_kind(op.inputs[0], "a"), **params))


def expand_scaled(ex: Expander, op: Op) -> None:
    if xs := known(ex, op):
        return ex.set(op.output, compute_known(ex, "scaled", times_power.times_power, xs))
    ex.set(op.output, ex.kernel("scaled_aa", *(ex.as_kind(v, "a") for v in op.inputs)))


def of_leading_bit(name: str, in_the_clear: Callable[..., Any]) -> Rule:
    """A function of a word with one bit."""

    def run(ex: Expander, op: Op) -> None:
        x = ex.primary(op.inputs[0])
        if x.known:
            return ex.set(op.output, compute_known(ex, name, in_the_clear, [x]))
        ex.set(op.output, ex.kernel(f"{name}_b", ex.as_kind(op.inputs[0], "b")))

    return run


LEADING: dict[str, Rule] = {
    "power": of_leading_bit("power", one_bit.power),
    "position": of_leading_bit("position", one_bit.position),
}


def expand_bitcast(ex: Expander, op: Op) -> None:
    ex.values[op.output] = dict(ex.values[op.inputs[0]])
