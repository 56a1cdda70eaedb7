"""Three hospitals train a model together; no row, weight or prediction of one is seen by another.

    python examples/hospitals/train.py                                       all in this process, simulated
    python examples/hospitals/train.py --network                             three processes, mutual TLS
    python examples/hospitals/train.py --as alice --config cluster.toml      one party; likewise bob and carol

Each party opens only its own file, written by `prepare.py`. What the parties learn: the shapes of
the tables; whether all have the same rows in the same order (one bit); and carol alone, the
predictions for the held-out fifth of the rows, from which she computes the AUC.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
from jax import lax

import spuvm as spu

PARTIES = ("alice", "bob", "carol")
LABEL = "malignant"
DATA = Path(__file__).parent / "data"

TRAINING = 456  # of 569 rows; the last fifth is held out
BATCH = 76
EPOCHS = 10
RATE = 0.5


# The model: plain JAX ---------------------------------------------------------------------------------


def standardise(x: jax.Array) -> jax.Array:
    """Columns of mean 0 and variance 1 over the training rows, of f32[rows, columns].

    The first line brings all columns to one magnitude: the variance of a column of thousandths
    would be lost below the fixed-point unit of 4e-6.
    """
    x = x / jnp.max(jnp.abs(x[:TRAINING]), axis=0)
    x = x - jnp.mean(x[:TRAINING], axis=0)
    return x * lax.rsqrt(jnp.mean(x[:TRAINING] ** 2, axis=0))


@jax.custom_jvp
def softplus(z: jax.Array) -> jax.Array:
    """log(1 + e^z), whose derivative is the sigmoid: no logarithm is needed to train."""
    return jnp.logaddexp(z, 0.0)


@softplus.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return softplus(*primals), jax.nn.sigmoid(*primals) * tangents[0]


def scores(model: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    """The log odds that the model gives to rows of standardised features."""
    weights, bias = model
    return x @ weights + bias


def log_loss(model: tuple[jax.Array, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    """Of a batch, summed: -y log p - (1 - y) log(1 - p), with p = sigmoid(z)."""
    z = scores(model, x)
    return jnp.sum(softplus(z) - y * z)


def step(model: Any, batch: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
    """One step of gradient descent."""
    _, gradient = jax.value_and_grad(log_loss)(model, *batch)
    return jax.tree.map(lambda w, g: w - RATE / BATCH * g, model, gradient), None


def predict(alice: jax.Array, bob: jax.Array, carol: jax.Array, y: jax.Array) -> jax.Array:
    """Train on the first rows, predict the others.

    Args:
        alice, bob, carol: features f32[rows, 10] each.
        y: labels f32[rows], 0 or 1; those of the held-out rows are not used.

    Returns:
        The probability of label 1, f32[rows - TRAINING].
    """
    x = jnp.concatenate([standardise(alice), standardise(bob), standardise(carol)], axis=1)
    batches = x[:TRAINING].reshape(-1, BATCH, x.shape[1]), y[:TRAINING].reshape(-1, BATCH)

    def epoch(model: Any, _: None) -> tuple[Any, None]:
        return lax.scan(step, model, batches)

    start = jnp.zeros(x.shape[1]), jnp.zeros(())
    model, _ = lax.scan(epoch, start, None, length=EPOCHS)
    return jax.nn.sigmoid(scores(model, x[TRAINING:]))
