"""Training beside float32: gradients of mean losses, first steps of optimisers, and loss curves; docs/training.md.

    python benchmarks/training.py               print the tables
    python benchmarks/training.py --write       and put them, and the plot, into docs/
    python benchmarks/training.py --again       train all anew: a quarter of an hour of one core

Curves are kept in records/training.jsonl, a line each, so that a run that ended goes on. Programs run in the clear,
operation by operation, with secret truncations rounding at random as the protocols' do
(`spuvm.compiler.ir.in_the_clear`): a run among parties computes the same up to these roundings.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from training_curves import NETWORKS, OPTIMISERS, Curve, Stepper, Trainer

HERE = Path(__file__).resolve().parent
DOCS, RECORDS = HERE.parent / "docs", HERE / "records" / "training.jsonl"
GRADIENTS = (10.0 ** np.linspace(-4, 1, 41) * (-1.0) ** np.arange(41)).astype(np.float32)


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


def errors(got: Any, want: Any) -> float:
    """The largest relative error of updates, of what is beyond the unit of a result."""
    want = np.asarray(want, np.float64)
    return float((np.maximum(np.abs(np.asarray(got) - want) - 2.0**-18, 0) / np.abs(want)).max())


def within_a_call(optimiser: optax.GradientTransformation, params: Any) -> float:
    def updates(gradients: Any) -> Any:
        return optimiser.update(gradients, optimiser.init(params), params)[0]

    return errors(Stepper(updates, 1)((GRADIENTS,), 1)[0], updates(GRADIENTS))


def by_argument(optimiser: optax.GradientTransformation, params: Any) -> float:
    """The state is an argument and a result."""
    state, tree = jax.tree.flatten(optimiser.init(params))

    def step(state: Any, gradients: Any) -> Any:
        updates, new = optimiser.update(gradients, jax.tree.unflatten(tree, state), params)
        return [*jax.tree.leaves(new), updates]

    return errors(Stepper(step, len(state))((state, GRADIENTS), 1)[-1], step(state, GRADIENTS)[-1])


def in_a_scan(optimiser: optax.GradientTransformation, params: Any) -> float:
    """All of four steps."""

    def steps(gradients: Any) -> Any:
        def step(state: Any, _: Any) -> Any:
            return optimiser.update(gradients, state, params)[::-1]

        return jax.lax.scan(step, optimiser.init(params), None, length=4)[1]

    return errors(Stepper(steps, 0)((GRADIENTS,), 1)[0], steps(GRADIENTS))


def recorded() -> dict[tuple[str, str, int], Curve]:
    lines = RECORDS.read_text().splitlines() if RECORDS.exists() else []
    return {c.key: c for c in (Curve(**json.loads(line)) for line in lines)}


def measured(networks: list[str], optimisers: list[str], seeds: list[int], again: bool) -> None:
    """Adds a line to the records for each curve that is not there yet; `again`: for all of these."""
    for network in networks:
        for optimiser in optimisers:
            there = {} if again else recorded()
            trainer = None
            for seed in seeds:
                if (network, optimiser, seed) in there:
                    continue
                trainer = trainer or Trainer(network, optimiser)
                curve = trainer.curve(seed)
                with RECORDS.open("a") as out:
                    out.write(json.dumps(curve.record()) + "\n")
                print(f"{network}, {optimiser}, seed {seed}: gap {curve.gap:.4f}, {curve.accuracies}", flush=True)


def table(curves: dict[tuple[str, str, int], Curve]) -> list[str]:
    """A row for each optimiser and network, of all seeds that there are."""
    rows = [
        "| optimiser | network | seeds | loss, float32 | loss | largest gap | accuracy, float32 | accuracy | less |"
    ]
    rows.append("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for optimiser in OPTIMISERS:
        for network in NETWORKS:
            these = [c for c in curves.values() if c.key[:2] == (network, optimiser)]
            if these:
                plain, ours = (np.mean([x[-5:] for x in xs]) for xs in zip(*((c.float32, c.shared) for c in these)))
                before, after = np.mean([c.accuracies for c in these], 0)
                less = max(max(c.accuracies[0] - c.accuracies[1] for c in these), 0.0)
                rows.append(
                    f"| {optimiser} | {network} | {len(these)} | {plain:.3f} | {ours:.3f} "
                    f"| {max(c.gap for c in these):.3f} | {before:.1%} | {after:.1%} | {100 * less:.1f} |"
                )
    return rows


def first_steps() -> list[str]:
    rows = ["| optimiser | within one call | state an argument | four steps of a scan |", "|---|---:|---:|---:|"]
    params = np.full_like(GRADIENTS, 0.5)
    for name, optimiser in OPTIMISERS.items():
        found = (f(optimiser, params) for f in (within_a_call, by_argument, in_a_scan))
        rows.append(f"| {name} | " + " | ".join(f"{x:.1%}" for x in found) + " |")
    return rows


def plot(curves: dict[tuple[str, str, int], Curve]) -> str:
    """A panel for each network and optimiser, of the first seed: float32 as a grey line, ours thin and dark."""
    width, height, seed = 200, 60, 0
    size = f'width="{len(NETWORKS) * (width + 12)}" height="{len(OPTIMISERS) * (height + 22)}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">']
    for (i, network), (j, optimiser) in product(enumerate(NETWORKS), enumerate(OPTIMISERS)):
        curve = curves.get((network, optimiser, seed))
        if curve is None:
            continue
        left, top = i * (width + 12) + 6, j * (height + 22) + 16
        parts.append(f'<text x="{left}" y="{top - 4}">{optimiser}, {network}</text>')
        parts.append(f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#ccc"/>')
        most = max(curve.float32)
        for losses, style in ((curve.float32, 'stroke="#bbb" stroke-width="4"'), (curve.shared, 'stroke="#036"')):
            points = (
                f"{left + k * width / (len(losses) - 1):.1f},{top + height * (1 - min(max(y / most, 0), 1)):.1f}"
                for k, y in enumerate(losses)
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
    parser.add_argument("--again", action="store_true", help="train anew what the records have")
    parser.add_argument("--networks", nargs="*", choices=[*NETWORKS], default=[*NETWORKS], help="these alone")
    parser.add_argument("--optimisers", nargs="*", choices=[*OPTIMISERS], default=[*OPTIMISERS], help="these alone")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], help="of parameters and batches")
    options = parser.parse_args()
    measured(options.networks, options.optimisers, options.seeds, options.again)
    curves = recorded()
    shown = {"optimisers": table(curves), "first steps": first_steps(), "gradients": gradients()}
    print("\n\n".join("\n".join(rows) for rows in shown.values()))
    if options.write:
        page = DOCS / "training.md"
        text = page.read_text()
        for name, rows in shown.items():
            text = put(text, name, rows)
        page.write_text(text)
        (DOCS / "plots" / "training.svg").write_text(plot(curves))


if __name__ == "__main__":
    main()
