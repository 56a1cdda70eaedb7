"""Training beside float32: gradients of mean losses, first steps of optimisers, and loss curves; docs/training.md.

    python benchmarks/training.py               print the tables
    python benchmarks/training.py --write       and put them, and the plot, into docs/

A few minutes of one core. Programs run in the clear, operation by operation, with secret truncations rounding at random
as the protocols' do (`spuvm.compiler.ir.in_the_clear`): a run among parties computes the same up to these roundings.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from spuvm.compiler.front.trace import trace
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Module
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes.pipeline import run_passes
from spuvm.runtime.config import Config
from spuvm.runtime.ring.elements import signed

DOCS = Path(__file__).resolve().parent.parent / "docs"
STEPS, BATCH, HIDDEN = 60, 64, 24

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
GRADIENTS = np.array([10.0, -1.0, 0.1, 0.01, -0.001, 0.0001], np.float32)


class Stepper:
    """A function called again and again with what it has returned, as a Python training loop calls a jitted one.

    `carried`: how many leaves of the arguments are results of the call before. Compiled once for fresh arguments, and
    once for results, which keep their scales.
    """

    def __init__(self, function: Callable[..., Any], carried: int) -> None:
        self.function, self.carried = function, carried
        self.modules: dict[tuple[int, ...], Module] = {}
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


# Gradients of mean losses ------------------------------------------------------------------------------------


def squared(w: Any, x: Any, y: Any) -> Any:
    return jnp.mean((x @ w - y) ** 2)


def logistic(w: Any, x: Any, y: Any) -> Any:
    p = 1 / (1 + jnp.exp(-x @ w))
    return -jnp.mean(jnp.log(p * y + (1 - p) * (1 - y)))


def softmax(w: Any, x: Any, y: Any) -> Any:
    scores = x @ (w[:, None] * jnp.array([1.0, -1.0, 0.5]))
    return -jnp.mean(jnp.sum(jnp.stack([y, 1 - y, 0 * y], 1) * jax.nn.log_softmax(scores), 1))


def huber(w: Any, x: Any, y: Any) -> Any:
    return jnp.mean(optax.huber_loss(x @ w, y))


def poisson(w: Any, x: Any, y: Any) -> Any:
    return jnp.mean(jnp.exp(x @ w) - y * (x @ w))


LOSSES = [squared, logistic, softmax, huber, poisson]


def gradient_error(loss: Callable[..., Any], n: int) -> float:
    """Largest error of `jax.grad`, relative to the largest component of float64's; features within (-8, 8)."""
    generator = np.random.default_rng(n)
    x = np.clip(generator.normal(0, 2.5, (n, 4)), -7.99, 7.99).astype(np.float32)
    y = (x[:, 0] + generator.normal(size=n) > 0).astype(np.float32)
    args = np.full(4, 0.01, np.float32), x, y
    with jax.enable_x64(True):
        want = np.asarray(jax.grad(loss)(*(jnp.asarray(a, jnp.float64) for a in args)))
    (got,) = Stepper(jax.grad(loss), 1)(args, n)
    return float(np.abs(got - want).max() / np.abs(want).max())


def gradients() -> list[str]:
    rows = ["| n | " + " | ".join(f.__name__ for f in LOSSES) + " |", "|---:|" + "---:|" * len(LOSSES)]
    for n in (100, 10_000, 1_000_000):
        rows.append(f"| {n:,} | " + " | ".join(f"{gradient_error(f, n):.1e}" for f in LOSSES) + " |")
    return rows


# Optimisers --------------------------------------------------------------------------------------------------


def first_step(optimiser: optax.GradientTransformation) -> float:
    """Largest relative error of the first updates, of errors beyond the unit of a result."""
    params = np.full_like(GRADIENTS, 0.5)

    def updates(gradients: Any) -> Any:
        return optimiser.update(gradients, optimiser.init(params), params)[0]

    want = np.asarray(updates(GRADIENTS), np.float64)
    (got,) = Stepper(updates, 1)((GRADIENTS,), 1)
    beyond = np.maximum(np.abs(got - want) - 2.0**-18, 0)
    return float((beyond / np.abs(want)).max())


def network(parameters: Any, x: Any) -> Any:
    (w, b), (v, c) = parameters
    return jax.nn.relu(x @ w + b) @ v + c


def loss_of(parameters: Any, x: Any, y: Any) -> Any:
    return optax.softmax_cross_entropy(network(parameters, x), y).mean()


def curves(optimiser: optax.GradientTransformation) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Losses of each step on its batch, float32's and ours, and both accuracies on rows that were not trained on."""
    images, labels = load_digits(return_X_y=True)
    images, hot = (images / 16).astype(np.float32), np.eye(10, dtype=np.float32)[labels]
    generator = np.random.default_rng(0)
    order = generator.permutation(len(images))
    train, test = order[:1400], order[1400:]
    sizes = ((64, HIDDEN), (HIDDEN, 10))
    start = [
        (generator.normal(0, (2 / m) ** 0.5, (m, n)).astype(np.float32), np.zeros(n, np.float32)) for m, n in sizes
    ]

    def step(parameters: Any, state: Any, x: Any, y: Any) -> Any:
        loss, slope = jax.value_and_grad(loss_of)(parameters, x, y)
        updates, state = optimiser.update(slope, state, parameters)
        return optax.apply_updates(parameters, updates), state, loss

    plain = jax.jit(step)
    ours = Stepper(step, len(jax.tree.leaves((start, optimiser.init(start)))))
    given = start, optimiser.init(start)
    state = given
    losses = []
    got: list[Any] = []
    for i in range(STEPS):
        rows = train[np.arange(i * BATCH, (i + 1) * BATCH) % len(train)]
        *state, loss = plain(*state, images[rows], hot[rows])
        got = ours((*given, images[rows], hot[rows]), i)
        losses.append((float(loss), float(got[-1])))
    learned = jax.tree.unflatten(jax.tree.structure(start), got[: len(jax.tree.leaves(start))])
    accuracies = [
        float((np.asarray(network(p, images[test])).argmax(1) == labels[test]).mean()) for p in (state[0], learned)
    ]
    return *np.array(losses).T, accuracies[0], accuracies[1]


def optimisers() -> tuple[list[str], dict[str, tuple[np.ndarray, np.ndarray]]]:
    rows = ["| optimiser | first step | loss, float32 | loss | largest gap | accuracy, float32 | accuracy |"]
    rows.append("|---|---:|---:|---:|---:|---:|---:|")
    drawn = {}
    for name, optimiser in OPTIMISERS.items():
        plain, ours, before, after = curves(optimiser)
        gap = np.abs(plain - ours).max()
        rows.append(
            f"| {name} | {first_step(optimiser):.1%} | {plain[-5:].mean():.3f} | {ours[-5:].mean():.3f} | {gap:.3f} "
            f"| {before:.1%} | {after:.1%} |"
        )
        print(rows[-1], flush=True)
        drawn[name] = plain, ours
    return rows, drawn


def plot(drawn: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """One small panel an optimiser: float32 as a grey line, ours as a thin dark one, from 0 to 3."""
    width, height, across = 150, 90, 5
    rows = -(-len(drawn) // across)
    size = f'width="{across * (width + 12)}" height="{rows * (height + 28)}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">']
    for i, (name, pair) in enumerate(drawn.items()):
        left, top = (i % across) * (width + 12) + 6, (i // across) * (height + 28) + 18
        parts.append(f'<text x="{left}" y="{top - 5}">{name}</text>')
        parts.append(f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#ccc"/>')
        for losses, style in zip(pair, ('stroke="#bbb" stroke-width="4"', 'stroke="#036" stroke-width="1"')):
            points = (
                f"{left + j * width / (STEPS - 1):.1f},{top + height * (1 - min(max(y, 0), 3) / 3):.1f}"
                for j, y in enumerate(losses)
            )
            parts.append(f'<polyline fill="none" {style} points="{" ".join(points)}"/>')
    return "\n".join([*parts, "</svg>\n"])


def put(text: str, name: str, rows: list[str]) -> str:
    """The text with these rows between its two marks of that name."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    return text[: text.index(start) + len(start)] + "\n".join(rows) + "\n" + text[text.index(end) :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/training.md and docs/plots/training.svg")
    options = parser.parse_args()
    slopes = gradients()
    print("\n".join(slopes), flush=True)
    table, drawn = optimisers()
    if options.write:
        page = DOCS / "training.md"
        page.write_text(put(put(page.read_text(), "gradients", slopes), "optimisers", table))
        (DOCS / "plots" / "training.svg").write_text(plot(drawn))


if __name__ == "__main__":
    main()
