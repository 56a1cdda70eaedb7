"""A transformer block of flax: alice's weights, bob's text as embedded words.

Attention with softmax, layer normalisation and GELU: Vaswani et al., Attention Is All You Need, 2017.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import Measure, Program, main
from flax import linen as nn

WORDS, WIDTH, HEADS = 16, 32, 4


class Block(nn.Module):
    """Pre-normalised self-attention and a feed-forward layer, each with a shortcut."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=HEADS)(y, mask=nn.make_causal_mask(x[..., 0]))
        y = nn.gelu(nn.Dense(4 * WIDTH)(nn.LayerNorm()(x)))
        return x + nn.Dense(WIDTH)(y)


def apply(variables: Any, x: jax.Array) -> Any:
    """f32[1, words, width] -> the same shape."""
    return Block().apply(variables, x)


def arguments() -> Mapping[str, Any]:
    x = np.random.default_rng(2).normal(size=(1, WORDS, WIDTH)).astype(np.float32)
    variables = Block().init(jax.random.key(0), jnp.asarray(x))
    return {"variables": jax.tree.map(np.asarray, variables), "embedded": x}


def measures(secure: Any, clear: Any) -> list[Measure]:
    return [
        Measure("mean of the result", float(np.mean(secure)), float(np.mean(clear)), 1e-4),
        Measure("largest error", float(np.max(np.abs(secure - clear))), 0, 1e-3),
    ]


PROGRAM = Program(apply, {"variables": "alice", "embedded": "bob"}, arguments, measures)

if __name__ == "__main__":
    sys.exit(main(PROGRAM, __file__, __doc__))
