"""Shifts by amounts that are not known at compile time, bit casts, and functions of jax.numpy that read bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.compiler.functions.polynomial import raw_constant, times_integer
from spuvm.compiler.ir.dtypes import kind_of, width_of
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.jax_rules import apply
from spuvm.runtime.errors import UnsupportedError

# shifts ------------------------------------------------------------------------------------------------


def shifted(ctx: Context, name: str, x: Value, amount: Value) -> Value:
    """x shifted by n: to the left, x 2^n; to the right, the upper half of x 2^(width - n). 14 (30) rounds.

    2^n is a product over the bits of n. From `width` on (and below 0), nothing is left but signs.
    """
    b, width = ctx.b, x.type.bits
    if 2 * width > b.ring_bits or width & (width - 1):
        raise UnsupportedError(
            f"the shift's amount is {amount.type.visibility} at run time, which {x.type.element} has no room for: "
            "use an amount known at compile time, or 32 bits."
        )
    inside = b.less(ctx.like(0, amount), b.add(amount, ctx.like(1, amount)))
    inside = b.logical("and", inside, b.less(amount, ctx.like(width, amount)))
    bits = [b.convert(b.op("bit_parity", amount, mask=1 << i), "fxp0") for i in range(width.bit_length() - 1)]
    one = raw_constant(b, 1, 0, x.shape)
    if name == "shift_left":
        powers = [b.add(one, times_integer(b, v, (1 << (1 << i)) - 1)) for i, v in enumerate(bits)]
        factor = b.bitcast(b.mul_raw(_product(ctx, powers), b.convert(inside, "fxp0")), "int64")
        return b.bitcast(b.mul_raw(b.bitcast(x, "int64"), factor), x.type.element)
    outside = b.convert(b.not_(inside), "fxp0")
    # n outside: as n = width - 1 if signs are to stay, else as n = width, where nothing does
    powers = [
        b.sub(raw_constant(b, 1 << (1 << i), 0, x.shape), times_integer(b, v, (1 << (1 << i)) - 1))
        for i, v in enumerate(bits)
    ]
    factor = times_integer(b, _product(ctx, powers), 2)
    left = 2 if name == "shift_right_arithmetic" else 1
    factor = b.add(factor, b.mul_raw(outside, b.sub(raw_constant(b, left, 0, x.shape), factor)))
    signed = name == "shift_right_arithmetic"
    own = x.type.element if x.type.signed is signed else ("" if signed else "u") + x.type.element.lstrip("u")
    wide = b.bitcast(b.convert(b.bitcast(x, own), "int64"), "fxp0")
    word = b.bitcast(b.mul_raw(wide, factor), "int64" if signed else "uint64")
    return b.bitcast(b.bitcast(b.op(name, word, bits=width), "int64"), x.type.element)


def _product(ctx: Context, xs: list[Value]) -> Value:
    while len(xs) > 1:
        xs = [ctx.b.mul_raw(p, q) for p, q in zip(xs[::2], xs[1::2])] + xs[len(xs) // 2 * 2 :]
    return xs[0]


# bit casts -----------------------------------------------------------------------------------------------


def bitcast_convert_type(ctx: Context, x: Value, *, new_dtype: Any) -> Value:
    """Between signed and unsigned integers of the same width: local."""
    if x.type.kind == "int" and kind_of(new_dtype) in "iu" and width_of(new_dtype) == x.type.bits:
        return ctx.b.bitcast(x, ctx.element(new_dtype))
    source = "a float" if x.type.kind == "fxp" else x.type.element
    raise UnsupportedError(
        f"the bits of {source} are not those of {np.dtype(new_dtype).name}: secret floats are fixed-point numbers, "
        "secret integers ring elements. Use astype; jnp.floor, jnp.log2 and >> give what bits are read for."
    )


# functions of jax.numpy ------------------------------------------------------------------------------------

Call = Callable[[Context, Sequence[Operand], Any], list[Operand] | None]


def called(function: Callable[..., Any]) -> Call:
    """The rule of a function that JAX traces as a call: another form of it."""

    def rule(ctx: Context, args: Sequence[Operand], closed: Any) -> list[Operand] | None:
        return apply(ctx, function, *args)

    return rule


def of_one_dtype(function: Callable[..., Any]) -> Call:
    """The same, with operands of the result's dtype: a Python number among them may be of a wider one."""

    def rule(ctx: Context, args: Sequence[Operand], closed: Any) -> list[Operand] | None:
        dtype = closed.out_avals[0].dtype
        return apply(ctx, lambda *xs: function(*(x.astype(dtype) for x in xs)), *args)

    return rule


def signbit(x: Any) -> Any:
    """There is no -0."""
    return x < 0


def copysign(x: Any, y: Any) -> Any:
    x, y = (v if kind_of(v.dtype) == "f" else v.astype(jnp.promote_types(v.dtype, np.float32)) for v in (x, y))
    return jnp.where((x < 0) == (y < 0), x, -x)


def ldexp(x: Any, n: Any) -> Any:
    x = x if kind_of(x.dtype) == "f" else x.astype(np.float32)
    return x * lax.exp2(n.astype(x.dtype))


def gammasgn(x: Any) -> Any:
    """1, or -1 between negative numbers of which the upper one is odd."""
    below = jnp.floor(x)
    return jnp.where((x < 0) & (below != 2 * jnp.floor(below * 0.5)), -1.0, 1.0).astype(x.dtype)


def gcd(x: Any, y: Any) -> Any:
    """Stein's binary algorithm: 2 width steps, each halves a number or their difference. 30 rounds a step."""
    shape = jnp.broadcast_shapes(x.shape, y.shape)
    u, v = (jnp.broadcast_to(jnp.abs(a), shape) for a in (x, y))
    width = width_of(u.dtype)

    def step(_: Any, state: Any) -> Any:
        u, v, scale = state
        u_odd, v_odd = (u & 1) == 1, (v & 1) == 1
        less = u < v
        both, neither = u_odd & v_odd, ~(u_odd | v_odd)
        top = jnp.where(both & ~less, u - v, u)
        bottom = jnp.where(both & less, v - u, v)
        halve_u, halve_v = ~u_odd | (both & ~less), ~v_odd | (both & less)
        u = jnp.where(halve_u, lax.shift_right_logical(top, jnp.ones_like(top)), top)
        v = jnp.where(halve_v, lax.shift_right_logical(bottom, jnp.ones_like(bottom)), bottom)
        return u, v, jnp.where(neither, scale + scale, scale)

    u, v, scale = lax.fori_loop(0, 2 * width, step, (u, v, jnp.ones_like(u)))
    return (u + v) * scale


def lcm(x: Any, y: Any) -> Any:
    divisor = gcd(x, y)
    quotient = lax.div(jnp.abs(x), jnp.where(divisor == 0, 1, divisor))
    return quotient * jnp.abs(y)


CALLS: dict[str, Call] = {
    **{f.__name__: called(f) for f in (signbit, copysign, ldexp, gammasgn)},
    **{f.__name__: of_one_dtype(f) for f in (gcd, lcm)},
}
RULES: dict[str, Rule] = {"bitcast_convert_type": bitcast_convert_type}
