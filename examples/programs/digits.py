"""The handwritten digits of scikit-learn, as the networks of this folder take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import Measure
from jax import lax
from sklearn.datasets import load_digits

CLASSES = 10
TRAINING = 1280  # of 1797 images
BATCH = 64
RATE = 0.2
Network = Callable[[Any, jax.Array], jax.Array]  # parameters, images f32[n, 8, 8] -> scores f32[n, 10]


def images() -> Any:
    """f32[1797, 8, 8] from 0 to 1, in a fixed random order."""
    return (load_digits().images[_order()] / 16).astype(np.float32)


def labels() -> Any:
    """int32[1797]"""
    return load_digits().target[_order()].astype(np.int32)


def _order() -> Any:
    return np.random.default_rng(0).permutation(1797)


def train(network: Network, start: Any, x: jax.Array, y: jax.Array, epochs: int) -> Any:
    """Stochastic gradient descent on the cross-entropy of softmax; the parameters."""
    batches = (
        x[:TRAINING].reshape(-1, BATCH, *x.shape[1:]),
        jax.nn.one_hot(y[:TRAINING], CLASSES).reshape(-1, BATCH, CLASSES),
    )

    def loss(parameters: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        images, wanted = batch
        return -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(network(parameters, images)), axis=1))

    def step(parameters: Any, batch: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        gradient = jax.grad(loss)(parameters, batch)
        return jax.tree.map(lambda p, g: p - RATE * g, parameters, gradient), None

    def epoch(parameters: Any, _: None) -> tuple[Any, None]:
        return lax.scan(step, parameters, batches)

    return lax.scan(epoch, start, None, length=epochs)[0]


def accuracy(scores: Any) -> float:
    """On the images that training did not see."""
    return float(np.mean(np.argmax(scores, axis=1) == labels()[TRAINING:]))


def measures(secure: Any, clear: Any) -> list[Measure]:
    agree = float(np.mean(np.argmax(secure, axis=1) == np.argmax(clear, axis=1)))
    return [
        Measure("accuracy on held-out images", accuracy(secure), accuracy(clear), 0.01),
        Measure("images with the same digit", agree, 1, 0.01),
    ]
