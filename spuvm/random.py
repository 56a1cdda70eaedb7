"""Random values that no party knows, drawn by all parties together.

For use inside functions that `spu.jit` or a device runs. Every call, every run, and every iteration of a loop
draws anew, from the keystreams of the protocol: there is no seed, and no party's view determines a value. Inside
`jax.vmap` a draw is one value for the whole batch. For numbers that all parties may know, `jax.random` with a
constant key gives exactly JAX's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from spuvm.compiler.ir.dtypes import kind_of
from spuvm.compiler.lower.randomness import bits_p, float_dtype, uniform_p
from spuvm.runtime.errors import InputError

Shape = int | Sequence[int]

_ONE_KEY = 1000  # so many elements are shuffled by one key of 32 bits: two keys are equal with probability 1e-4


def bits(shape: Shape = (), dtype: Any = jnp.uint32) -> Any:
    """Uniform integers of all values that `dtype` has (an integer dtype or bool).

    Free as bools and as bits; 8 rounds where they are used as numbers.
    """
    if kind_of(dtype) not in tuple("iub"):
        raise InputError(f"`dtype` must be bool or an integer, got {dtype}.")
    return bits_p.bind(shape=_shape(shape), dtype=jnp.dtype(dtype))


def uniform(shape: Shape = (), minval: Any = 0.0, maxval: Any = 1.0, dtype: Any = None) -> Any:
    """Uniform floats in [minval, maxval), on a grid of (maxval - minval) 2^-f for f fraction bits."""
    x = uniform_p.bind(shape=_shape(shape), dtype=float_dtype(dtype), centred=False)
    if isinstance(minval, int | float) and isinstance(maxval, int | float) and (minval, maxval) == (0, 1):
        return x
    return minval + x * (maxval - minval)


def normal(shape: Shape = (), dtype: Any = None) -> Any:
    """Standard normal floats: sqrt(2) erf_inv(u) of uniform u in (-1, 1) on a grid of 2^(1-f).

    With f = 18 no value is beyond 4.7, and values beyond 4 stand for intervals of probability.
    """
    u = uniform_p.bind(shape=_shape(shape), dtype=float_dtype(dtype), centred=True)
    return lax.erf_inv(u) * math.sqrt(2.0)


def bernoulli(p: Any = 0.5, shape: Shape | None = None) -> Any:
    """Bools that are true with probability p, to 2^-f. p is a number or an array, secret ones included.

    `shape` is that of p if not given. For p = 1/2, a number, there are no messages.
    """
    whole = _shape(jnp.shape(p) if shape is None else shape)
    if isinstance(p, float) and p == 0.5:
        return bits(whole, jnp.bool_)
    p = jnp.asarray(p)
    p = p if kind_of(p.dtype) == "f" else p.astype(float_dtype(None))
    return uniform(whole, dtype=p.dtype) < p


def permutation(x: Any) -> Any:
    """The numbers 0 to x - 1 in random order, for an int x; the rows of an array in random order.

    By sorting with random keys. Every order is equally likely, but for keys that are equal (probability n^2 2^-33
    with one key, for up to 1000 rows; n^2 2^-65 with two).
    """
    rows = jnp.arange(x) if isinstance(x, int) else jnp.asarray(x)
    if rows.ndim == 0:
        raise InputError("`x` must be a number of elements that Python knows, or an array of at least one axis.")
    count = rows.shape[0]
    keys = [bits(count) for _ in range(1 if count <= _ONE_KEY else 2)]
    wide = [k.reshape((count,) + (1,) * (rows.ndim - 1)) for k in keys]
    operands = [jnp.broadcast_to(k, rows.shape) for k in wide] + [rows]
    return lax.sort(tuple(operands), dimension=0, num_keys=len(keys))[-1]


def _shape(shape: Shape) -> tuple[int, ...]:
    return (int(shape),) if isinstance(shape, int) else tuple(int(d) for d in shape)
