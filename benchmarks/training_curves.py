"""Networks that train beside float32: what docs/training.md draws of optimisers, and its tables are made of.

Programs run in the clear, operation by operation, with secret truncations rounding at random as the protocols' do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer, load_digits

from spuvm.compiler.front.trace import trace
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Module
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes.pipeline import run_passes
from spuvm.runtime.config import Config
from spuvm.runtime.ring.elements import signed

STEPS, HIDDEN, FILTERS, CELLS = 100, 24, 4, 8

OPTIMISERS: dict[str, optax.GradientTransformation] = {
    "sgd, momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(1e-2),
    "adamw": optax.adamw(1e-2),
    "amsgrad": optax.amsgrad(1e-2),
    "nadam": optax.nadam(1e-2),
    "radam": optax.radam(1e-2),
    "rmsprop": optax.rmsprop(3e-3),
    "adagrad": optax.adagrad(5e-2),
    "adadelta": optax.adadelta(1.0),
    "yogi": optax.yogi(1e-2),
    "lion": optax.lion(1e-3),
    "lamb": optax.lamb(1e-2),
    "novograd": optax.novograd(1e-2),
}
# At the rates of the others curves part. Of sgd and seed 0 float32's own do, if its start is moved by a rounding error;
# of sgd's other seeds and of novograd the cause is not known.
SLOWER = {("LSTM", "sgd, momentum"): optax.sgd(2e-2, momentum=0.9), ("LSTM", "novograd"): optax.novograd(3e-3)}


class Stepper:
    """A function called again and again with what it has returned, as a Python training loop calls a jitted one.

    `carried`: how many leaves of the arguments are results of the call before. Compiled once for fresh arguments, and
    once for results, which keep their scales.
    """

    def __init__(self, function: Callable[..., Any], carried: int) -> None:
        self.function, self.carried = function, carried
        self.modules: dict[tuple[int, ...], Module] = {}
        self.restart()

    def restart(self) -> None:
        """The next call takes all of its arguments."""
        self.raw: list[Any] = []
        self.finer: tuple[int, ...] = ()

    def __call__(self, args: tuple[Any, ...], seed: int) -> list[Any]:
        """All results as floats; `args` count where there is no result yet."""
        leaves = jax.tree.leaves(args)
        finer = self.finer or (0,) * self.carried
        if finer not in self.modules:
            traced = trace(self.function, args)
            module = lower(traced, ["secret"] * len(leaves), Config())
            module.finer, module.keeps_scales = (*finer, *[0] * (len(leaves) - self.carried)), True
            self.modules[finer] = run_passes(module)
        module = self.modules[finer]
        fresh = [_encoded(x, v.type.frac) for x, v in zip(leaves, module.body.params)]
        out = evaluate(module, [*(self.raw or fresh[: self.carried]), *fresh[self.carried :]], jitter=seed)
        types = [v.type for v in module.body.results]
        self.raw = out[: self.carried]
        self.finer = tuple(t.frac - 18 if t.kind == "fxp" else 0 for t in types[: self.carried])
        return [np.asarray(signed(x)).astype(np.float64) / 2.0**t.frac for x, t in zip(out, types)]


def _encoded(x: Any, frac: int) -> Any:
    return np.rint(np.asarray(x, np.float64) * 2.0**frac).astype(np.int64)


# Data and networks: parameters are a dict, the last layer gives a score for each class --------------------------


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 images of 64 pixels, from 0 to 1; 10 classes."""
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32), labels


@cache
def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    """569 rows of 10 measurements, each with its mean, deviation and worst, scaled; 2 classes."""
    x, labels = load_breast_cancer(return_X_y=True)
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32), labels


def _dense(x: Any, p: Any, name: str) -> Any:
    return x @ p[f"{name} w"] + p[f"{name} b"]


def mlp(p: Any, x: Any) -> Any:
    return _dense(jax.nn.relu(_dense(x, p, "hidden")), p, "last")


def cnn(p: Any, x: Any) -> Any:
    """A convolution of 3 by 3, the largest of each 2 by 2, a dense layer."""
    x = jax.lax.conv_general_dilated(
        x.reshape(-1, 8, 8, 1), p["filters"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jax.nn.relu(x + p["bias"])
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return _dense(x.reshape(len(x), -1), p, "last")


def lstm(p: Any, x: Any) -> Any:
    """Ten measurements one after another, three numbers each, in a scan."""

    def cell(carry: Any, x: Any) -> Any:
        h, c = carry
        i, f, g, o = jnp.split(_dense(jnp.concatenate([x, h], 1), p, "cell"), 4, 1)
        c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    nothing = jnp.zeros((len(x), CELLS), x.dtype)
    (h, _), _ = jax.lax.scan(cell, (nothing, nothing), jnp.transpose(x.reshape(-1, 3, 10), (2, 0, 1)))
    return _dense(h, p, "last")


@dataclass(frozen=True)
class Network:
    """`shapes` of the parameters; those of a name with a space and a `b` at its end, and `bias`, begin at 0."""

    scores: Callable[[Any, Any], Any]
    data: Callable[[], tuple[np.ndarray, np.ndarray]]
    batch: int
    train: int  # rows; the rest tells the accuracy
    shapes: dict[str, tuple[int, ...]]

    def start(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        found = {}
        for name, shape in self.shapes.items():
            width = (2 / np.prod(shape[:-1])) ** 0.5 if len(shape) > 1 else 0.0
            found[name] = generator.normal(0, width, shape).astype(np.float32) if width else np.zeros(shape, np.float32)
        return found


NETWORKS = {
    "MLP": Network(
        mlp, digits, 64, 1400,
        {"hidden w": (64, HIDDEN), "hidden b": (HIDDEN,), "last w": (HIDDEN, 10), "last b": (10,)},
    ),
    "CNN": Network(
        cnn, digits, 64, 1400,
        {"filters": (3, 3, 1, FILTERS), "bias": (FILTERS,), "last w": (9 * FILTERS, 10), "last b": (10,)},
    ),
    "LSTM": Network(
        lstm, breast_cancer, 32, 369,
        {"cell w": (3 + CELLS, 4 * CELLS), "cell b": (4 * CELLS,), "last w": (CELLS, 2), "last b": (2,)},
    ),
}  # fmt: skip


# Curves -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """Losses of each step on its batch, and accuracies on rows that were not trained on: float32's and ours."""

    network: str
    optimiser: str
    seed: int
    float32: list[float]
    shared: list[float]
    accuracies: tuple[float, float]

    @property
    def key(self) -> tuple[str, str, int]:
        return self.network, self.optimiser, self.seed

    @property
    def gap(self) -> float:
        return float(np.abs(np.subtract(self.float32, self.shared)).max())

    def record(self) -> dict[str, Any]:
        return asdict(self)


class Trainer:
    """One network and one optimiser: compiled once for all seeds."""

    def __init__(self, network: str, optimiser: str) -> None:
        self.names = network, optimiser
        self.network, self.optimiser = NETWORKS[network], SLOWER.get(self.names, OPTIMISERS[optimiser])
        start = self.network.start(np.random.default_rng(0))
        self.ours = Stepper(self._step, len(jax.tree.leaves((start, self.optimiser.init(start)))))
        self.plain = jax.jit(self._step)

    def _step(self, parameters: Any, state: Any, x: Any, y: Any) -> Any:
        def loss_of(parameters: Any) -> Any:
            return optax.softmax_cross_entropy(self.network.scores(parameters, x), y).mean()

        loss, slope = jax.value_and_grad(loss_of)(parameters)
        updates, state = self.optimiser.update(slope, state, parameters)
        return optax.apply_updates(parameters, updates), state, loss

    def curve(self, seed: int, steps: int = STEPS) -> Curve:
        """Both trained with the same parameters and batches, which the seed draws."""
        x, labels = self.network.data()
        hot = np.eye(labels.max() + 1, dtype=np.float32)[labels]
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(x))
        train, test = order[: self.network.train], order[self.network.train :]
        start = self.network.start(generator)
        given = start, self.optimiser.init(start)
        self.ours.restart()
        state, got, losses = given, [], []
        for i in range(steps):
            at = train[np.arange(i * self.network.batch, (i + 1) * self.network.batch) % len(train)]
            *state, loss = self.plain(*state, x[at], hot[at])
            got = self.ours((*given, x[at], hot[at]), 1000 * seed + i)
            losses.append((round(float(loss), 5), round(float(got[-1]), 5)))
        learned = jax.tree.unflatten(jax.tree.structure(start), got[: len(jax.tree.leaves(start))])
        first, second = (
            float(
                (np.asarray(self.network.scores(jax.tree.map(np.float32, p), x[test])).argmax(1) == labels[test]).mean()
            )
            for p in (state[0], learned)
        )
        plain, shared = zip(*losses)
        return Curve(*self.names, seed, list(plain), list(shared), (round(first, 5), round(second, 5)))
