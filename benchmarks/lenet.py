"""LeNet trained on scikit-learn's digits, secret images of one party and labels of another, beside float32.

    python benchmarks/lenet.py [--epochs 20]        # simulated; 1,280 images to train on, 517 to score

Both start from the same parameters and take the same optimiser; each draws the order of its batches itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits

import spuvm as spu
from spuvm.ml import Trainer

TRAINING, BATCH = 1280, 64


class LeNet(nn.Module):
    """Y. LeCun and others, 1998, for images of 8 x 8."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for filters in (6, 16):
            x = nn.avg_pool(nn.relu(nn.Conv(filters, (3, 3))(x)), (2, 2), (2, 2))  # type: ignore[no-untyped-call]
        x = x.reshape(x.shape[0], -1)
        for width in (120, 84):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(10)(x)


def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    order = np.random.RandomState(0).permutation(len(data.target))
    return (data.images[order] / 16).astype(np.float32)[..., None], data.target[order].astype(np.int32)


def in_float32(net: LeNet, params: Any, optimizer: Any, x: np.ndarray, y: np.ndarray, epochs: int) -> Any:
    """Parameters after plain JAX's training."""

    def loss(params: Any, x: Any, y: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(net.apply(params, x), y).mean()

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        updates, state = optimizer.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    state, r = optimizer.init(params), np.random.RandomState(1)
    for _ in range(epochs):
        for batch in r.permutation(len(x)).reshape(-1, BATCH):
            params, state = step(params, state, x[batch], y[batch])
    return params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    epochs = parser.parse_args().epochs
    (x, y), net, optimizer = digits(), LeNet(), optax.sgd(0.1, momentum=0.9)
    start, apply = net.init(jax.random.key(0), x[:2]), cast(Callable[..., jax.Array], net.apply)
    spu.init(parties=["alice", "bob", "carol"], address="local")
    alice, bob = spu.PYU("alice"), spu.PYU("bob")
    began = time.perf_counter()
    trainer = Trainer(apply, optimizer, start)
    trainer.fit(alice(lambda: x[:TRAINING])(), bob(lambda: y[:TRAINING])(), epochs=epochs, batch_size=BATCH)
    outputs = np.asarray(spu.reveal(trainer.predict(alice(lambda: x[TRAINING:])())))
    seconds = time.perf_counter() - began
    plain = net.apply(in_float32(net, start, optimizer, x[:TRAINING], y[:TRAINING], epochs), x[TRAINING:])
    shown = [f"{(np.asarray(o).argmax(axis=1) == y[TRAINING:]).mean():.4f}" for o in (outputs, plain)]
    print(f"{epochs} epochs: accuracy {shown[0]}, float32 {shown[1]}; {seconds:.1f} s simulated")


if __name__ == "__main__":
    main()
