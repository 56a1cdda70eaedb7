"""Programs whose first calls are timed: each a function, and its arguments by owner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp

Program = tuple[Callable[..., Any], dict[str, Any]]


def adding() -> Program:
    """Three numbers."""
    return lambda a, b, c: a + b + c, {"alice": np.float32(5), "bob": np.float32(6), "carol": np.float32(7)}


def logistic() -> Program:
    """Ten epochs of logistic regression on 569 x 30, as `spuvm demo` trains."""
    draw = np.random.default_rng(3)
    x = draw.normal(size=(569, 30)).astype(np.float32)

    def train(x: jax.Array, y: jax.Array) -> jax.Array:
        def epoch(_: int, w: jax.Array) -> jax.Array:
            return w - 0.5 / 569 * x.T @ (jax.nn.sigmoid(x @ w) - y)

        weights: jax.Array = jax.lax.fori_loop(0, 10, epoch, jnp.zeros(30))
        return weights

    return train, {"alice": x, "bob": (x[:, 0] > 0).astype(np.float32)}


def gpt() -> Program:
    """Two layers of width 32, two heads, eight tokens."""
    draw = np.random.default_rng(4)
    width, length, heads = 32, 8, 2

    def matrix(*shape: int) -> np.ndarray:
        return draw.normal(0, shape[0] ** -0.5, shape).astype(np.float32)

    layers = [
        {"qkv": matrix(width, 3 * width), "out": matrix(width, width), "up": matrix(width, 4 * width)}
        | {"down": matrix(4 * width, width)}
        for _ in range(2)
    ]

    def normal(x: jax.Array) -> jax.Array:
        centred = x - x.mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-3)

    def model(x: jax.Array, layers: Any) -> jax.Array:
        mask = np.tril(np.ones((length, length), bool))
        for w in layers:
            parts = (normal(x) @ w["qkv"]).reshape(length, 3, heads, width // heads)
            q, k, v = (parts[:, i].transpose(1, 0, 2) for i in range(3))
            scores = jnp.where(mask, q @ k.transpose(0, 2, 1) * (width // heads) ** -0.5, -30.0)
            x = x + (jax.nn.softmax(scores) @ v).transpose(1, 0, 2).reshape(length, width) @ w["out"]
            x = x + jax.nn.gelu(normal(x) @ w["up"]) @ w["down"]
        return normal(x)

    return model, {"alice": matrix(length, width), "bob": layers}


class _MLP(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(10)(nn.relu(nn.Dense(32)(x)))


def _cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    return (logsumexp(scores, -1) - (scores * labels).sum(-1)).mean()


def mlp() -> Program:
    """A step of SGD of a flax MLP, 20-32-10, batch 16."""
    x = np.random.default_rng(5).normal(size=(16, 20)).astype(np.float32)
    start = jax.tree.map(np.asarray, _MLP().init(jax.random.key(0), x))

    def step(x: jax.Array, y: jax.Array) -> Any:
        slopes = jax.grad(lambda p: _cross_entropy(_MLP().apply(p, x), y))(start)  # type: ignore[arg-type]
        return ravel_pytree(jax.tree.map(lambda p, g: p - 0.1 * g, start, slopes))[0]

    return step, {"alice": x, "bob": np.eye(10, dtype=np.float32)[np.arange(16) % 10]}


def vae() -> Program:
    """A step of a variational autoencoder, 16-12-3, batch 8."""
    draw = np.random.default_rng(6)
    shapes = {"enc": (16, 12), "mean": (12, 3), "scale": (12, 3), "dec": (3, 12), "out": (12, 16)}
    start = {k: draw.normal(0, s[0] ** -0.5, s).astype(np.float32) for k, s in shapes.items()}
    noise = draw.normal(size=(8, 3)).astype(np.float32)

    def loss(p: Any, x: jax.Array, noise: jax.Array) -> jax.Array:
        hidden = jnp.tanh(x @ p["enc"])
        mean, log_scale = hidden @ p["mean"], hidden @ p["scale"]
        scores = jnp.tanh((mean + noise * jnp.exp(log_scale)) @ p["dec"]) @ p["out"]
        fit = jnp.mean(jnp.maximum(scores, 0) - scores * x + jnp.log1p(jnp.exp(-jnp.abs(scores))))
        return fit + 0.1 * jnp.mean(mean**2 + jnp.exp(2 * log_scale) - 1 - 2 * log_scale)

    def step(x: jax.Array, noise: jax.Array) -> Any:
        slopes = jax.grad(loss)(start, x, noise)
        return jnp.concatenate([(start[k] - 0.1 * slopes[k]).reshape(-1) for k in shapes])

    return step, {"alice": (draw.uniform(size=(8, 16)) > 0.5).astype(np.float32), "bob": noise}


class _Small(nn.Module):
    """ResNet-18's 17 convolutions with few filters, for images of 16 x 16, without batch statistics."""

    filters: int = 8

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(self.filters, (3, 3))(x))
        for stage in range(4):
            for block in range(2):
                channels, strides = self.filters << stage, (2, 2) if stage and not block else (1, 1)
                y = nn.Conv(channels, (3, 3))(nn.relu(nn.Conv(channels, (3, 3), strides)(x)))
                x = nn.relu(y + (x if x.shape == y.shape else nn.Conv(channels, (1, 1), strides)(x)))
        return nn.Dense(10)(x.mean((1, 2)))


def resnet18_step() -> Program:
    """A training step, 8 filters, batch 4."""
    x = np.random.default_rng(8).uniform(size=(4, 16, 16, 3)).astype(np.float32)
    start = jax.tree.map(np.asarray, _Small().init(jax.random.key(0), x))

    def step(x: jax.Array, y: jax.Array) -> Any:
        slopes = jax.grad(lambda p: _cross_entropy(_Small().apply(p, x), y))(start)  # type: ignore[arg-type]
        return ravel_pytree(jax.tree.map(lambda p, g: p - 0.1 * g, start, slopes))[0]

    return step, {"alice": x, "bob": np.eye(10, dtype=np.float32)[:4]}


def ridge() -> Program:
    """Ridge regression by the singular value decomposition of 40 x 4."""
    draw = np.random.default_rng(9)
    x = draw.normal(size=(40, 4)).astype(np.float32)

    def fit(x: jax.Array, y: jax.Array) -> jax.Array:
        u, s, vt = jnp.linalg.svd(x, full_matrices=False)
        return vt.T @ (s / (s * s + 0.5) * (u.T @ y))

    return fit, {"alice": x, "bob": x @ np.array([1, -0.5, 0.25, 2], np.float32)}


PROGRAMS: dict[str, Callable[[], Program]] = {
    "adding": adding,
    "logistic": logistic,
    "gpt": gpt,
    "mlp": mlp,
    "vae": vae,
    "resnet18-step": resnet18_step,
    "ridge": ridge,
}
