"""Sums of single examples' gradients, each of a bounded norm: what DP-SGD adds up. Plain JAX at the party."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.fed.layout import Layout

TOGETHER = 64  # examples whose gradients are in memory at a time

BELOW = 1 - 1e-5  # what float32 may add to a norm

Objective = Callable[[Any, Any, Any], Any]  # trained leaves, a batch, a key -> the loss


def clipped_sum(objective: Objective, clip: float) -> Callable[..., Any]:
    """(trained leaves, examples [TOGETHER, 1, ...], mask [TOGETHER], keys) -> the sum of their clipped gradients."""

    @jax.jit
    def summed(trained: Any, examples: Any, mask: Any, keys: Any) -> Any:
        def one(example: Any, here: Any, key: Any) -> Any:
            slopes = jax.grad(objective)(trained, example, key)
            length = jnp.sqrt(sum(jnp.sum(jnp.square(s.astype(jnp.float32))) for s in slopes))
            good = here & jnp.isfinite(length)
            factor = jnp.minimum(1.0, clip * BELOW / jnp.maximum(length, 1e-30))
            return [jnp.where(good, s * factor.astype(s.dtype), 0) for s in slopes]

        return [jnp.sum(s, axis=0) for s in jax.vmap(one)(examples, mask, keys)]

    return summed


def total_of(
    summed: Callable[..., Any], layout: Layout, trained: Sequence[Any], examples: Any, rows: int, key: Any
) -> np.ndarray:
    """Of all examples [rows, ...]: the layout's vector, in float64 so that blocks add up as they are."""
    out = np.zeros(layout.size, np.float64)
    for start in range(0, rows, TOGETHER):
        count = min(TOGETHER, rows - start)
        some = jax.tree.map(lambda x, s=start, n=count: _filled(x[s : s + n]), examples)
        keys = jax.random.split(jax.random.fold_in(key, start), TOGETHER)
        found = summed(list(trained), some, np.arange(TOGETHER) < count, keys)
        out += np.concatenate([np.asarray(f, np.float64).reshape(-1) for f in found])
    return out


def _filled(x: np.ndarray) -> np.ndarray:
    """As many rows as are taken together, each a batch of one; those that are not there are zeros."""
    out = np.zeros((TOGETHER, 1, *x.shape[1:]), x.dtype)
    out[: len(x), 0] = x
    return out
