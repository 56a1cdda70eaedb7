"""Six small programs, of which tests/golden holds every form. Their lines are part of the forms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu


def product(x: Any, y: Any) -> Any:
    return x * y


def quotient(x: Any, y: Any) -> Any:
    return x / y


def larger(x: Any, y: Any) -> Any:
    return jnp.where(x < y, y, x)


def regression(w: Any, x: Any) -> Any:
    return jax.nn.sigmoid(x @ w)


def loop(x: Any) -> Any:
    return jax.lax.fori_loop(0, 3, lambda i, c: c * x + i, x)


def branch(x: Any) -> Any:
    return jax.lax.cond(spu.reveal(jnp.sum(x)) > 0, jnp.sort, jnp.negative, x)


ROW = np.ones(4, np.float32)
PROGRAMS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "product": (product, (ROW, ROW)),
    "quotient": (quotient, (ROW, ROW)),
    "larger": (larger, (ROW, ROW)),
    "regression": (regression, (ROW, np.ones((2, 4), np.float32))),
    "loop": (loop, (ROW,)),
    "branch": (branch, (ROW,)),
}
