"""The primitives behind `spu.random`: values that no party knows, drawn anew by each run and each iteration."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive

from spuvm.compiler.ir.dtypes import width_of
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Rule
from spuvm.compiler.lower.jaxprs import bodies
from spuvm.runtime.errors import InputError, UnsupportedError

bits_p: Any = Primitive("spu_random_bits")  # {shape, dtype}: uniform integers or bools
uniform_p: Any = Primitive("spu_random_uniform")  # {shape, dtype, centred}: see the rule
NAMES = ("spu_random_bits", "spu_random_uniform")


def _outside(**_: Any) -> Any:
    raise InputError(
        "`spu.random` draws where the parties compute: call it in a function that `spu.jit` or a device runs."
    )


for _primitive in (bits_p, uniform_p):
    _primitive.def_impl(_outside)
    _primitive.def_abstract_eval(lambda *, shape, dtype, **_: jax.core.ShapedArray(shape, np.dtype(dtype)))


def _random(ctx: Context, shape: tuple[int, ...], element: str, note: str = "") -> Value:
    """Each operation has a number, so that no two are taken for the same; `note` is for those who read the program."""
    if ctx.b.ring_bits != 64:
        raise UnsupportedError(f"`spu.random` in a ring of {ctx.b.ring_bits} bits: use ring=64.")
    ctx.randoms += 1
    return ctx.b.op("random", shape=tuple(shape), to=element, number=ctx.randoms, **({"note": note} if note else {}))


def random_bits(ctx: Context, *, shape: tuple[int, ...], dtype: Any, note: str = "") -> Value:
    if np.dtype(dtype) == np.bool_:
        return _random(ctx, shape, "bool", note)
    b, word = ctx.b, _random(ctx, shape, "uint64")
    width = width_of(dtype)
    if width < 64:
        word = b.op("shift_right_logical", word, bits=64 - width)
    return b.bitcast(word, ctx.element(dtype))


def random_uniform(ctx: Context, *, shape: tuple[int, ...], dtype: Any, centred: bool) -> Value:
    """k 2^-f for a uniform k of f bits; centred: (2 k + 1) 2^-f - 1, symmetric about 0 and never 0. 8 rounds."""
    b = ctx.b
    k = b.op("shift_right_logical", _random(ctx, shape, "uint64"), bits=64 - b.frac)
    k = b.bitcast(k, f"fxp{b.frac}")
    if not centred:
        return k
    odd = b.add(b.op("shift_left", k, bits=1), b.broadcast(b.const(1, k.type.element), shape))
    return b.sub(odd, ctx.like(1.0, odd))


def refuse_recomputed(jaxpr: Any) -> None:
    """A checkpoint computes again what it needs, but would draw other values."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in NAMES:
            raise UnsupportedError(
                "`spu.random` in a function that `jax.checkpoint` may compute twice, with other values the second "
                "time: draw outside of it and pass the values in."
            )
        for inner in bodies(eqn.params):
            refuse_recomputed(inner)


RULES: dict[str, Rule] = {"spu_random_bits": random_bits, "spu_random_uniform": random_uniform}


def float_dtype(dtype: Any) -> Any:
    """The dtype of a float result: JAX's default if None."""
    return jnp.result_type(float) if dtype is None else np.dtype(dtype)
