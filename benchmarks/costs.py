"""Rounds and bytes of the programs that `spuvm bench` times, and of training loops, beside those of an older tree.

    python benchmarks/costs.py                                  print them
    python benchmarks/costs.py --before TREE [--write]          beside those of another checkout of spuvm

Bytes are those of all parties (ABY3, a ring of 64 bits); nothing is run. The older tree compiles the same programs, in
a process of its own. With `--write` the table goes into docs/numbers.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import spuvm as spu

HERE = Path(__file__).resolve()
PAGE = HERE.parent.parent / "docs" / "numbers.md"
Program = tuple[Callable[..., Any], tuple[Any, ...]]


def timed() -> dict[str, Program]:
    """What `spuvm bench` times, from this tree for all."""
    spec = importlib.util.spec_from_file_location(
        "operations", HERE.parent.parent / "spuvm" / "bench" / "operations.py"
    )
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    sizes, generator = found.Sizes(10_000, 128, 1_000), np.random.default_rng(0)
    return {
        name: (operation.function, operation.inputs(generator, sizes.of(operation.sized_by)))
        for name, operation in found.OPERATIONS.items()
    }


def cross_entropy(w: Any, x: Any, y: Any) -> Any:
    p = jax.nn.sigmoid(x @ w)
    return -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))


def mixed(w: Any, x: Any, y: Any) -> Any:
    p = 1 / (1 + jnp.exp(-x @ w))
    return -jnp.mean(jnp.log(p * y + (1 - p) * (1 - y)))


def softmax(w: Any, x: Any, y: Any) -> Any:
    scores = x @ jnp.stack([w, -w, 0.5 * w], 1)
    return -jnp.mean(jnp.log(jax.nn.softmax(scores))[:, 0] * y)


def squared(w: Any, x: Any, y: Any) -> Any:
    return jnp.mean((x @ w - y) ** 2)


def training(loss: Callable[..., Any], optimiser: optax.GradientTransformation) -> Program:
    """Ten steps in a scan, on 1,000 rows of 10 columns."""

    def fn(w: Any, x: Any, y: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            w, state = carry
            updates, state = optimiser.update(jax.grad(loss)(w, x, y), state, w)
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(step, (w, optimiser.init(w)), None, length=10)[0][0]

    return fn, (np.zeros(10, np.float32), np.zeros((1_000, 10), np.float32), np.zeros(1_000, np.float32))


def programs() -> dict[str, Program]:
    return {
        **timed(),
        "training: squared, sgd": training(squared, optax.sgd(0.1)),
        "training: cross entropy, sgd": training(cross_entropy, optax.sgd(0.1)),
        "training: mixed probability, sgd": training(mixed, optax.sgd(0.1)),
        "training: softmax, momentum": training(softmax, optax.sgd(0.1, momentum=0.9)),
        "training: cross entropy, adam": training(cross_entropy, optax.adam(0.01)),
        "training: cross entropy, rmsprop": training(cross_entropy, optax.rmsprop(0.01)),
    }


def costs() -> dict[str, tuple[int, int]]:
    """Rounds and bytes by program."""
    found = {}
    for name, (function, inputs) in programs().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cost = spu.jit(function).cost(*inputs)
        found[name] = cost.rounds, int(cost.bytes_sent.sum())
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def of_tree(tree: Path) -> dict[str, tuple[int, int]]:
    """The same of another tree."""
    command = [sys.executable, str(HERE), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
    out = subprocess.run(command, env=environment, cwd=tree, stdout=subprocess.PIPE, check=True, timeout=3600)
    found: dict[str, tuple[int, int]] = json.loads(out.stdout.splitlines()[-1])
    return found


def table(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    rows = ["| program | rounds, before | rounds | bytes, before | bytes | |", "|---|---:|---:|---:|---:|---:|"]
    for name, (rounds, sent) in after.items():
        old, more = before[name]
        change = sent / more - 1 if more else 0.0
        rows.append(f"| `{name}` | {old:,} | {rounds:,} | {more:,} | {sent:,} | {change:+.1%} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout of spuvm")
    parser.add_argument("--write", action="store_true", help="put the table into docs/numbers.md")
    parser.add_argument("--json", action="store_true", help="print numbers alone")
    options = parser.parse_args()
    after = costs()
    if options.json or options.before is None:
        print(json.dumps(after))
        return
    rows = table(of_tree(options.before), after)
    print("\n".join(rows))
    if options.write:
        text = PAGE.read_text()
        start, end = "<!-- costs -->\n", "<!-- end of costs -->"
        PAGE.write_text(text[: text.index(start) + len(start)] + "\n".join(rows) + "\n" + text[text.index(end) :])


if __name__ == "__main__":
    main()
