"""A convolutional network learns digits: the images are alice's, the labels bob's.

A convolution, max-pooling and a dense layer, trained for three passes over the images.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import Program, main
from digits import CLASSES, TRAINING, images, labels, measures, train
from jax import lax

CHANNELS = 8


def network(parameters: Any, x: jax.Array) -> jax.Array:
    kernel, b1, w2, b2 = parameters
    x = lax.conv_general_dilated(x[..., None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = lax.reduce_window(x + b1, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return jax.nn.relu(x).reshape(x.shape[0], -1) @ w2 + b2


def start() -> Any:
    draw = np.random.default_rng(5)
    kernel = draw.normal(0, np.sqrt(2 / 9), (3, 3, 1, CHANNELS))
    dense = draw.normal(0, np.sqrt(2 / (16 * CHANNELS)), (16 * CHANNELS, CLASSES))
    return (
        jnp.array(kernel, jnp.float32),
        jnp.zeros(CHANNELS),
        jnp.array(dense, jnp.float32),
        jnp.zeros(CLASSES),
    )


def learn(x: jax.Array, y: jax.Array) -> jax.Array:
    """Scores f32[held-out images, 10] after training."""
    return network(train(network, start(), x, y, epochs=3), x[TRAINING:])


def arguments() -> Mapping[str, Any]:
    return {"images": images(), "labels": labels()}


PROGRAM = Program(learn, {"images": "alice", "labels": "bob"}, arguments, measures)

if __name__ == "__main__":
    sys.exit(main(PROGRAM, __file__, __doc__))
