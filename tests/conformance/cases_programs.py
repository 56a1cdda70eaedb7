"""The table: linear algebra, calls, branches and loops, and what is refused."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import spuvm as spu
from conformance.table import (
    ALL,
    ANY,
    BOOLS,
    FLOATS,
    MANY,
    NUMBERS,
    ODD,
    SCALAR,
    UNIT,
    WITHIN_ONE,
    Case,
    alike,
    binary,
    given,
    index,
    matrix,
    unary,
    uniform,
)
from spuvm.compiler.functions.precision import Stated

SQUARE = ((3, 3), (4, 4), (1, 1))
SMALL = uniform(-2, 2, (-3, 4))

LINALG = [
    Case(
        "cholesky",
        lambda a: lax.linalg.cholesky(a),
        (matrix("definite"),),
        tuple((s,) for s in SQUARE),
        FLOATS[:2],
        MANY,
    ),
    Case(
        "triangular_solve",
        lambda a, b: lax.linalg.triangular_solve(a, b, left_side=True, lower=True),
        (matrix("lower"), SMALL),
        (((3, 3), (3, 2)), ((4, 4), (4, 1))),
        FLOATS[:2],
        MANY,
    ),
    Case("lu", lambda a: lax.linalg.lu(a)[0], (matrix("definite"),), alike(1, (3, 3), (4, 4)), FLOATS[:2], MANY),
    Case("qr", lambda a: jnp.linalg.qr(a), (matrix("general"),), alike(1, (3, 3), (4, 3)), FLOATS[:2], MANY),
    Case(
        "householder_product",
        lambda a, t: lax.linalg.householder_product(a, t),
        (WITHIN_ONE, WITHIN_ONE),
        (((4, 3), (3,)),),
        FLOATS[:2],
        MANY,
    ),
    Case("custom_linear_solve", jnp.linalg.solve, (matrix("definite"), SMALL), (((3, 3), (3,)),), FLOATS[:2], MANY),
    Case(
        "eigh",
        lambda a: jnp.linalg.eigvalsh(a),
        (matrix("symmetric"),),
        alike(1, (3, 3)),
        FLOATS[:1],
        Stated("", relative=2e-5, units=8),
    ),
    Case(
        "svd",
        lambda a: jnp.linalg.svd(a, compute_uv=False),
        (matrix("definite"),),
        alike(1, (3, 3)),
        FLOATS[:1],
        Stated("", relative=2e-5, units=8),
    ),
    *(
        Case(
            n,
            f,
            (matrix(kind),),
            alike(1, (4, 4)),
            FLOATS[:1],
            Stated("", relative=2e-5, units=24),
            "with vectors, multiplied again",
        )
        for n, f, kind in (
            ("eigh", lambda a: _from_eigenvectors(a), "symmetric"),
            ("svd", lambda a: _from_svd(a), "general"),
        )
    ),
]


def _from_eigenvectors(a: Any) -> Any:
    w, v = jnp.linalg.eigh(a)
    return (v * w) @ v.T


def _from_svd(a: Any) -> Any:
    u, s, v = jnp.linalg.svd(a)
    return (u * s) @ v


@jax.custom_jvp
def _own(x: Any) -> Any:
    return x * 2


_own.defjvp(lambda p, t: (_own(*p), t[0] * 2))


@jax.custom_vjp
def _own_vjp(x: Any) -> Any:
    return x * 2


_own_vjp.defvjp(lambda x: (x * 2, None), lambda _, g: (g * 2,))

CONTROL = [
    unary("jit", jax.jit(lambda x: x + x), ANY, NUMBERS),
    unary("custom_jvp_call", _own, ANY, FLOATS),
    unary("custom_vjp_call", _own_vjp, ANY, FLOATS),
    Case(
        "checkpoint",
        jax.grad(lambda x: jax.checkpoint(lambda y: y * y)(x).sum()),
        (ANY,),
        alike(1, ODD),
        FLOATS[:1],
        UNIT,
    ),
    Case(
        "cond", lambda c, x: lax.cond(c, lambda v: v + v, lambda v: -v, x), (BOOLS, ANY), (((), ()), ((), ODD)), NUMBERS
    ),
    Case(
        "cond",
        lambda i, x: lax.switch(i, [lambda v: v + v, lambda v: -v, lambda v: v], x),
        (index(3), ANY),
        (((), ODD),),
        NUMBERS,
        note="switch",
    ),
    Case(
        "scan",
        lambda x: lax.scan(lambda c, r: (c + r, c), jnp.zeros(x.shape[1:], x.dtype), x),
        (ANY,),
        alike(1, ODD, (1, 2), (4,)),
        NUMBERS,
    ),
    Case("while", lambda x: lax.fori_loop(0, 3, lambda i, c: c + x, x), (ANY,), alike(1, SCALAR, ODD), NUMBERS),
    Case(
        "while",
        lambda n, x: lax.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] + x), (0, x))[1],
        (given("int32", uniform(1, 4)), ANY),
        (((), ODD),),
        ("float32", "int32"),
        note="a public number of trips",
    ),
    unary("spu_reveal", spu.reveal, ANY, ALL),
]

REFUSED = [
    binary("nextafter", lax.nextafter, ANY, ANY, ("float32",)),
    Case("bitcast_convert_type", lambda x: lax.bitcast_convert_type(x, jnp.int32), (ANY,), alike(1, ODD), ("float32",)),
    Case(
        "reduce",
        lambda x: lax.reduce(x, jnp.zeros((), x.dtype), lambda a, b: lax.max(abs(a), abs(b)), (0,)),
        (ANY,),
        alike(1, ODD),
        ("float32",),
    ),
    Case("eig", lambda x: jnp.linalg.eigvals(x).real, (matrix("general"),), alike(1, (3, 3)), ("float32",)),
    Case("approx_top_k", lambda x: lax.approx_max_k(x, 2)[0], (ANY,), alike(1, ODD), ("float32",)),
    Case(
        "debug_callback", lambda x: (jax.debug.callback(lambda v: None, x), x)[1], (ANY,), alike(1, ODD), ("float32",)
    ),
    Case("pure_callback", lambda x: jax.pure_callback(lambda v: v, x, x), (ANY,), alike(1, ODD), ("float32",)),
    Case(
        "random_bits",
        lambda n: jax.random.uniform(jax.random.key(n)),
        (given("int32", uniform(1, 4)),),
        alike(1, SCALAR),
        ("int32",),
        Stated(""),
    ),
]
