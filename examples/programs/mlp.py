"""A network of two layers learns digits: the images are alice's, the labels bob's.

Weights and gradients stay secret; what comes out are the scores of the images that were held out.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import Program, main
from digits import CLASSES, TRAINING, images, labels, measures, train

HIDDEN = 32
EPOCHS = 3


def network(parameters: Any, x: jax.Array) -> jax.Array:
    (w1, b1), (w2, b2) = parameters
    return jax.nn.relu(x.reshape(-1, 64) @ w1 + b1) @ w2 + b2


def start() -> Any:
    """Weights as He et al. draw them (ICCV 2015), the same for everyone."""
    draw = np.random.default_rng(3)
    sizes = (64, HIDDEN, CLASSES)
    return [(jnp.array(draw.normal(0, np.sqrt(2 / a), (a, b)), jnp.float32), jnp.zeros(b)) for a, b in pairwise(sizes)]


def learn(x: jax.Array, y: jax.Array) -> jax.Array:
    """Scores f32[held-out images, 10] after training."""
    return network(train(network, start(), x, y, EPOCHS), x[TRAINING:])


def arguments() -> Mapping[str, Any]:
    return {"images": images(), "labels": labels()}


PROGRAM = Program(learn, {"images": "alice", "labels": "bob"}, arguments, measures)

if __name__ == "__main__":
    sys.exit(main(PROGRAM, __file__, __doc__))
