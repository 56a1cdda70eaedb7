"""A residual block of flax: alice's weights, bob's images. Batch normalisation in inference mode.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from common import Measure, Program, main
from digits import images
from flax import linen as nn

IMAGES = 16
CHANNELS = 8


class Block(nn.Module):
    """Two convolutions and a shortcut, twice as many channels and half the resolution."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.Conv(2 * CHANNELS, (3, 3), (2, 2), use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=True)(y))
        y = nn.Conv(2 * CHANNELS, (3, 3), use_bias=False)(y)
        y = nn.BatchNorm(use_running_average=True)(y)
        shortcut = nn.Conv(2 * CHANNELS, (1, 1), (2, 2), use_bias=False)(x)
        return nn.relu(y + nn.BatchNorm(use_running_average=True)(shortcut))


class ResNet(nn.Module):
    """A convolution, the block, and the mean over the image: ten scores."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Block()(nn.relu(nn.Conv(CHANNELS, (3, 3))(x)))
        return nn.Dense(10)(x.mean(axis=(1, 2)))


def predict(variables: Any, x: jax.Array) -> Any:
    """Scores f32[images, 10]."""
    return ResNet().apply(variables, x)


def arguments() -> Mapping[str, Any]:
    x = images()[:IMAGES, :, :, None]
    variables = ResNet().init(jax.random.key(0), x)
    return {"variables": jax.tree.map(np.asarray, variables), "images": x}


def measures(secure: Any, clear: Any) -> list[Measure]:
    return [
        Measure("largest error of a score", float(np.max(np.abs(secure - clear))), 0, 2e-4),
        Measure("images with the same class", float(np.mean(secure.argmax(1) == clear.argmax(1))), 1, 0),
    ]


PROGRAM = Program(predict, {"variables": "alice", "images": "bob"}, arguments, measures)

if __name__ == "__main__":
    sys.exit(main(PROGRAM, __file__, __doc__))
