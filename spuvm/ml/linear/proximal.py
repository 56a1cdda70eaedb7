"""Accelerated proximal gradients: penalties with an absolute value, and losses of several classes.

A step goes along the gradient times a public or secret step size (or a matrix, where nothing is shrunk), shrinks
what the penalty shrinks, and adds momentum (A. Beck, M. Teboulle, SIAM J. Imaging Sciences 2 (2009)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import spuvm as spu

CHUNK = 20  # steps between two looks at the criterion


def shrink(x: jax.Array, by: jax.Array) -> jax.Array:
    """x brought towards 0 by at least 0: both sides compare in the same rounds."""
    return jax.nn.relu(x - by) - jax.nn.relu(-x - by)


def descend(
    move: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    by: jax.Array | None,
    tol: float | None,
    max_iter: int,
) -> tuple[jax.Array, jax.Array]:
    """Steps from `start` until none of a step's changes is above `tol`, seen after each `CHUNK` of them.

    Args:
        move: coefficients -> what to take off them: gradient times step size.
        by: what each coefficient shrinks by in a step; None: nothing shrinks.
        tol: None: all steps are made, and nothing is revealed; else one bit a chunk.

    Returns:
        The coefficients, and the number of steps, public.
    """

    def step(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        w, before = state
        count = i.astype(jnp.float32)
        ahead = w + (w - before) * (count / (count + 3))
        moved = ahead - move(ahead)
        return (moved if by is None else shrink(moved, by)), w

    if tol is None:
        w, _ = lax.fori_loop(0, max_iter, step, (start, start))
        return w, jnp.int32(max_iter)

    def chunk(state: Any) -> Any:
        w, before, done, _ = state
        w, before = lax.fori_loop(0, CHUNK, lambda i, s: step(i + done, s), (w, before))
        return w, before, done + CHUNK, spu.reveal(jnp.any(jnp.abs(w - before) > tol))

    first = start, start, jnp.int32(0), jnp.bool_(True)
    w, _, steps, _ = lax.while_loop(lambda s: (s[2] < max_iter) & s[3], chunk, first)
    return w, steps


def inverse_norm(a: jax.Array) -> jax.Array:
    """A step size: one by the Frobenius norm of a matrix, which is at or above its largest eigenvalue."""
    return lax.rsqrt(jnp.sum(a * a))
