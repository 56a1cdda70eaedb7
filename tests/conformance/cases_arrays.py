"""The table, whole arrays: rearrangements, reductions, products, windows, indexing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from conformance.table import (
    ALL,
    ANY,
    ANY_SMALL,
    BOOL,
    DISTINCT,
    EMPTY,
    EXACT,
    FEW,
    FLOATS,
    INTS,
    NUMBERS,
    ODD,
    SCALAR,
    Case,
    alike,
    anywhere,
    index,
    unary,
    uniform,
)
from spuvm.compiler.functions.precision import Stated

AXES = alike(1, ODD, (7,), (2, 3, 5))

SHAPES = [
    Case("reshape", lambda x: lax.reshape(x, (5, 3)), (ANY,), alike(1, ODD), ALL),
    Case("expand_dims", lambda x: lax.expand_dims(x, (1,)), (ANY,), alike(1, EMPTY, ODD), ALL),
    Case("squeeze", lambda x: lax.squeeze(x, (1,)), (ANY,), alike(1, (3, 1, 5)), ALL),
    Case("broadcast_in_dim", lambda x: lax.broadcast(x, (2, 3)), (ANY,), alike(1, SCALAR, EMPTY, ODD), ALL),
    Case("transpose", lambda x: lax.transpose(x, (1, 0)), (ANY,), alike(1, EMPTY, ODD), ALL),
    Case("rev", lambda x: lax.rev(x, (1,)), (ANY,), alike(1, EMPTY, ODD), ALL),
    Case("slice", lambda x: lax.slice(x, (0, 1), (3, 5), (2, 3)), (ANY,), alike(1, ODD), ALL),
    Case("split", lambda x: tuple(lax.split(x, (2, 3), 1)), (ANY,), alike(1, ODD), ALL),
    Case("concatenate", lambda x, y: lax.concatenate([x, y], 1), (ANY, ANY), (((3, 5), (3, 2)), ((0, 3), (0, 3))), ALL),
    Case("pad", lambda x: lax.pad(x, jnp.zeros((), x.dtype), ((1, 2, 1), (0, -1, 0))), (ANY,), alike(1, ODD), ALL),
    Case("tile", lambda x: jnp.tile(x, (2, 3)), (ANY,), alike(1, EMPTY, ODD), ALL),
    Case("stack", lambda x, y: jnp.stack([x, y]), (ANY, ANY), alike(2, SCALAR, EMPTY, ODD), ALL),
    Case("unstack", lambda x: tuple(jnp.unstack(x)), (ANY,), alike(1, ODD), ALL),
    unary("copy", jnp.copy, ANY, ALL),
    unary("stop_gradient", lax.stop_gradient, ANY_SMALL, FLOATS),
    unary("reduce_precision", lambda x: lax.reduce_precision(x, 8, 23), ANY_SMALL, ("float32",)),
    unary("optimization_barrier", lax.optimization_barrier, ANY, ALL),
    unary("device_put", jax.device_put, ANY, ALL),
]

SMALL = uniform(-2, 2, (-3, 4))
REDUCTIONS = [
    Case("reduce_sum", lambda x: jnp.sum(x, 0, x.dtype), (ANY,), (*AXES, (EMPTY,)), NUMBERS),
    *(
        Case(n, lambda x, f=f: f(x, 0), (ANY,), AXES, ALL)
        for n, f in (("reduce_max", jnp.max), ("reduce_min", jnp.min))
    ),
    Case("reduce_prod", lambda x: jnp.prod(x, 0, x.dtype), (SMALL,), AXES, NUMBERS, FEW),
    *(
        Case(n, lambda x, f=f: f.bind(x, axes=(0,)), (ANY,), AXES, (*INTS, *BOOL))
        for n, f in (("reduce_and", lax.reduce_and_p), ("reduce_or", lax.reduce_or_p), ("reduce_xor", lax.reduce_xor_p))
    ),
    *(
        Case(n, lambda x, f=f: f(x, 0, jnp.int32), (DISTINCT,), AXES, NUMBERS)
        for n, f in (("argmax", lax.argmax), ("argmin", lax.argmin))
    ),
    *(
        Case(n, lambda x, f=f: (f(x, 0), f(x, 0, reverse=True)), (o,), (*AXES, (EMPTY,)), d, s)
        for n, f, o, d, s in (
            ("cumsum", lax.cumsum, ANY, NUMBERS, EXACT),
            ("cumprod", lax.cumprod, SMALL, NUMBERS, FEW),
            ("cummax", lax.cummax, ANY, NUMBERS, EXACT),
            ("cummin", lax.cummin, ANY, NUMBERS, EXACT),
            ("cumlogsumexp", lax.cumlogsumexp, ANY_SMALL, FLOATS, Stated("", absolute=2e-5, units=8)),
        )
    ),
    Case("sort", lambda x: lax.sort(x, dimension=0), (DISTINCT,), (*AXES, (EMPTY,)), NUMBERS),
    Case(
        "sort",
        lambda x, y: lax.sort((x, y), dimension=0, num_keys=1),
        (DISTINCT, ANY),
        alike(2, ODD),
        NUMBERS,
        note="with values",
    ),
    Case("top_k", lambda x: tuple(lax.top_k(x, 2)), (DISTINCT,), alike(1, ODD, (7,)), NUMBERS),
]

PRODUCTS = [
    Case(
        "dot_general",
        jnp.matmul,
        (ANY, ANY),
        (((3, 5), (5, 2)), ((7,), (7,)), ((2, 3, 4), (2, 4, 1)), ((0, 3), (3, 2)), ((2, 0), (0, 3))),
        NUMBERS,
        Stated("", units=2),
    ),
    Case(
        "conv_general_dilated",
        lambda x, w: lax.conv_general_dilated(x, w, (1, 2), "SAME", (1, 1), (2, 1)),
        (SMALL, SMALL),
        (((2, 3, 5, 5), (4, 3, 3, 2)),),
        (*FLOATS, "int32"),
        Stated("", units=2),
    ),
    Case(
        "conv_general_dilated",
        lambda x, w: lax.conv_general_dilated(x, w, (1,), "VALID", feature_group_count=2),
        (SMALL, SMALL),
        (((1, 4, 7), (2, 2, 3)),),
        FLOATS,
        Stated("", units=2),
        "in groups",
    ),
]

WINDOW = {"window_dimensions": (2, 2), "window_strides": (1, 2), "padding": ((0, 0), (0, 1))}
PLAIN_WINDOW = {**WINDOW, "base_dilation": (1, 1), "window_dilation": (1, 1)}
WINDOWS = [
    *(
        Case(
            f"reduce_window_{n}",
            lambda x, i=i, f=f: lax.reduce_window(x, np.asarray(i(x.dtype), x.dtype), f, (2, 2), (1, 2), "VALID"),
            (SMALL,),
            alike(1, ODD),
            ("float32", "float64", "int32"),
        )
        for n, i, f in (
            ("sum", lambda t: 0, lax.add),
            ("max", lambda t: _limit(t, "min"), lax.max),
            ("min", lambda t: _limit(t, "max"), lax.min),
        )
    ),
    Case(
        "reduce_window",
        lambda x: lax.reduce_window(x, jnp.ones((), x.dtype), lax.mul, (2, 2), (1, 2), "VALID"),
        (SMALL,),
        alike(1, ODD),
        ("float32", "int32"),
        FEW,
    ),
    Case("select_and_scatter_add", jax.grad(lambda x: _pooled(x).sum()), (DISTINCT,), alike(1, (4, 6)), ("float32",)),
    Case(
        "select_and_gather_add",
        lambda x, t: jax.jvp(_pooled, (x,), (t,))[1],
        (DISTINCT, SMALL),
        alike(2, (4, 6)),
        ("float32",),
    ),
]


def _limit(dtype: Any, end: str) -> Any:
    if jnp.issubdtype(dtype, jnp.integer):
        return getattr(np.iinfo(dtype), end)
    return -np.inf if end == "min" else np.inf


def _pooled(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 2), "VALID")


FILLED = (*INTS, *BOOL)  # JAX fills floats with NaN
BEYOND = [
    Case("gather", lambda x, i: x[i], (ANY, anywhere(7)), (((7,), (9,)), ((7, 2), (3, 3))), ALL, note="anywhere"),
    Case("gather", lambda x, i: jnp.take(x, i, 0), (ANY, anywhere(7)), (((7, 2), (9,)),), FILLED, note="filled"),
    Case(
        "dynamic_slice",
        lambda x, i: jax.vmap(lambda j: lax.dynamic_slice(x, (j, j), (4, 2)))(i),
        (ANY, anywhere(7)),
        (((7, 5), (9,)),),
        ("float32", "int32"),
        note="anywhere",
    ),
    Case(
        "dynamic_update_slice",
        lambda x, y, i: tuple(lax.dynamic_update_slice(x, y, (i[j], i[j])) for j in range(4)),
        (ANY, ANY, anywhere(7)),
        (((7, 5), (4, 2), (4,)),),
        ("float32", "int32"),
        note="anywhere",
    ),
    Case(
        "scatter-add",
        lambda x, i, y: x.at[i].add(y),
        (SMALL, anywhere(7), SMALL),
        (((7,), (9,), (9,)),),
        ("float32", "int32"),
        note="anywhere",
    ),
]
INDEXED = [
    *BEYOND,
    Case("gather", lambda x, i: x[i], (ANY, index(3)), (((3, 5), (4,)), ((3,), ()), ((3, 2), (2, 2))), ALL),
    Case("dynamic_slice", lambda x, i: lax.dynamic_slice(x, (i, i), (2, 3)), (ANY, index(2)), (((3, 5), ()),), ALL),
    Case(
        "dynamic_update_slice",
        lambda x, y, i: lax.dynamic_update_slice(x, y, (i, i)),
        (ANY, ANY, index(2)),
        (((3, 5), (2, 3), ()),),
        ALL,
    ),
    *(
        Case(
            n,
            lambda x, i, y, f=f: getattr(x.at[i], f)(y),
            (SMALL, index(3), SMALL),
            (((3, 5), (), (5,)), ((3,), (4,), (4,))),
            d,
            s,
        )
        for n, f, d, s in (
            ("scatter", "set", ALL, EXACT),
            ("scatter-add", "add", NUMBERS, EXACT),
            ("scatter-sub", "subtract", NUMBERS, EXACT),
            ("scatter-max", "max", NUMBERS, EXACT),
            ("scatter-min", "min", NUMBERS, EXACT),
            ("scatter-mul", "mul", ("float32", "int32"), FEW),
        )
    ),
]
