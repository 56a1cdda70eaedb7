"""Guarded programs: what they find of overflows made on purpose, what they raise in range, and what they cost.

    python benchmarks/guard.py [--runs 1000] [--large 0] [--write]

`PROGRAMS` are small functions, each with operands in range and with one operand, at a random place, that leads out of
the ring: by a factor between 1 and 2^16 where it is drawn. Runs are simulated, with the real protocol (ABY3, a ring of
64 bits). `--large`: so many runs in range of a million values each, in the clear, by the operations of the guarded
program, with truncations that round by chance as the protocol's do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.objects import encoded
from spuvm.runtime.errors import RangeError

PRODUCT, NUMBER = 2.0**26, 2.0**44  # the limits of products of two secrets, and of all numbers
PAGE = Path(__file__).parent.parent / "docs" / "numbers.md"

Draw = Callable[[np.random.Generator, bool], tuple[Any, ...]]


@dataclass(frozen=True)
class Program:
    """`draw(rng, over)`: the operands, in range or not."""

    name: str
    function: Callable[..., Any]
    draw: Draw


def sizes(rng: np.random.Generator, shape: int | tuple[int, ...], low: float, high: float) -> Any:
    """Signed numbers between 2^low and 2^high, evenly by their exponents."""
    return rng.choice([-1.0, 1.0], shape) * 2.0 ** rng.uniform(low, high, shape)


def beyond(rng: np.random.Generator, x: Any, limit: float, over: bool) -> Any:
    """One element a little, or far, above the limit."""
    if over:
        at = tuple(rng.integers(0, n) for n in np.shape(x))
        x[at] = rng.choice([-1.0, 1.0]) * min(limit * 2.0 ** (0.001 + 16 * rng.uniform() ** 3), 0.99 * NUMBER)
    return x


def factors(rng: np.random.Generator, over: bool, n: int = 12, power: float = 1.0) -> tuple[Any, Any]:
    """Of products below 0.98 2^26, whatever each factor is."""
    product = beyond(rng, sizes(rng, n, -6, 25.97), PRODUCT, over)
    x = np.clip(np.abs(product), 1, None) ** rng.uniform(-0.2, 1.2, n)
    x = np.clip(x, 2.0**-2, 2.0**40)
    return x, product / x


def rows(rng: np.random.Generator, over: bool) -> tuple[Any, Any]:
    """A matrix and a vector; the sums of 40 products stay below 2^26 though parts of them may not."""
    x, w = rng.normal(0, 300, (3, 40)), rng.normal(0, 1000, 40)
    x[:, 0], x[:, 1], w[0], w[1] = 2.0**14, 2.0**14, 2.0**13, -(2.0**13)  # cancel
    if over:
        at, column = rng.integers(0, 3), rng.integers(2, 40)
        others = x[at] @ w - x[at, column] * w[column]
        x[at, column] = (PRODUCT * 2.0 ** (0.01 + 12 * rng.uniform()) - others) / w[column]
    return x, w


def scanned(x: Any, c: Any) -> Any:
    return jax.lax.scan(lambda s, row: (s * row, s), c, x)[0]


def powers(rng: np.random.Generator, over: bool) -> tuple[Any, Any]:
    """Running products: one is beyond the limit on the way, if not at the end."""
    x = rng.uniform(0.9, 1.1, (6, 2))
    c = rng.uniform(1, 1000, 2)
    if over:
        at = int(rng.integers(0, 5))
        x[at] *= PRODUCT * 2.0 ** rng.uniform(1, 5) / c
        x[at + 1] = 2.0**-12
    return x, c


def trained(w: Any, x: Any, y: Any) -> Any:
    return w - 0.1 * jax.grad(lambda w: jnp.mean((x @ w - y) ** 2))(w)


def regression(rng: np.random.Generator, over: bool) -> tuple[Any, Any, Any]:
    x, y = rng.normal(0, 2, (16, 3)), rng.normal(0, 50, 16)
    w = rng.uniform(0.5, 2, 3)
    if over:
        x[rng.integers(0, 16), rng.integers(0, 3)] = PRODUCT * 2.0 ** rng.uniform(2, 8)
    return w, x, y


PROGRAMS = (
    Program("product", lambda x, y: x * y, factors),
    Program("square", lambda x: x * x, lambda rng, over: (beyond(rng, sizes(rng, 12, -6, 12.98), PRODUCT**0.5, over),)),
    Program("product of three", lambda x, y: x * y * 0.5, factors),
    Program("matrix times vector", lambda x, w: x @ w, rows),
    Program("times a constant", lambda x: x * 1000.0,
            lambda rng, over: (beyond(rng, sizes(rng, 12, -6, 34.0), NUMBER / 1000 * 1.01, over),)),
    Program("sum of two", lambda x, y: x + y,
            lambda rng, over: (beyond(rng, sizes(rng, 12, 0, 42.9), NUMBER * 0.999, False) if not over else
                               np.full(12, NUMBER * rng.uniform(0.51, 0.99)),
                               sizes(rng, 12, 0, 42.9) if not over else np.full(12, NUMBER * 0.5))),
    Program("sum of many", lambda x: jnp.sum(x, 0),
            lambda rng, over: (sizes(rng, (100, 3), 0, 37) if not over else
                               np.abs(sizes(rng, (100, 3), 38.5, 43)),)),
    Program("running sum", lambda x: jnp.cumsum(x)[-3:],
            lambda rng, over: (np.abs(sizes(rng, 50, 30, 38)) if not over else
                               np.where(np.arange(50) % 2, 1, -1) * NUMBER * 0.6 * (np.arange(50) > 40) + NUMBER * 0.55
                               * (np.arange(50) == 39),)),
    Program("exponential", jnp.exp,
            lambda rng, over: (np.append(rng.uniform(-40, 30, 11), rng.uniform(30.6, 1000) if over else 0.0),)),
    Program("quotient", lambda x, y: x / y,
            lambda rng, over: (np.append(rng.normal(0, 1e6, 11), 2.0**40 if over else 1.0),
                               np.append(rng.uniform(0.01, 9, 11), 2.0 ** -rng.integers(6, 18) if over else 0.0))),
    Program("chosen by a reveal", lambda x, y: jnp.where(spu.reveal(jnp.sum(x) > 0), x * y, y), factors),
    Program("products in a scan", scanned, powers),
    Program("step of regression", trained, regression),
)  # fmt: skip


def raised(guarded: Any, operands: tuple[Any, ...]) -> bool:
    try:
        spu.reveal(guarded(*operands))
    except RangeError:
        return True
    return False


def found(runs: int, seed: int = 0) -> dict[str, tuple[int, int, int]]:
    """By program: runs of either kind, how many of those beyond the ring raise, and of those in range."""
    jitted = {p.name: spu.jit(p.function, guard=True) for p in PROGRAMS}
    table: dict[str, list[int]] = {p.name: [0, 0, 0] for p in PROGRAMS}
    for run in range(runs):
        program = PROGRAMS[run % len(PROGRAMS)]
        row = table[program.name]
        row[0] += 1
        for column, over in ((1, True), (2, False)):
            rng = np.random.default_rng([seed, run, over])
            row[column] += raised(jitted[program.name], program.draw(rng, over))
    return {name: (n, over, within) for name, (n, over, within) in table.items()}


MILLION = 1_000_000
LARGE: tuple[tuple[Callable[..., Any], Callable[[np.random.Generator], tuple[Any, ...]]], ...] = (
    (lambda x, y: x * y, lambda rng: factors(rng, False, MILLION)),
    (lambda x: x * x, lambda rng: (sizes(rng, MILLION, -6, 12.98),)),
    (lambda x: x * 1000.0, lambda rng: (sizes(rng, MILLION, -6, 34.0),)),
    (lambda x, y: x + y, lambda rng: (sizes(rng, MILLION, 0, 42.9), sizes(rng, MILLION, 0, 42.9))),
)


def raised_in_the_clear(runs: int, seed: int = 1) -> int:
    """How many of so many runs in range raise, of `LARGE` in turn."""
    programs: dict[int, Any] = {}
    count = 0
    for run in range(runs):
        which = run % len(LARGE)
        function, draw = LARGE[which]
        operands = draw(np.random.default_rng([seed, run]))
        if which not in programs:
            programs[which] = spu.jit(function, guard=True).compile(*operands).module
        module = programs[which]
        raw = [encoded(x, v.type, n, 64) for x, v, n in zip(operands, module.body.params, module.inputs)]
        try:
            evaluate(module, raw, jitter=run)
        except RangeError:
            count += 1
    return count


COSTS: tuple[tuple[str, Callable[..., Any], tuple[tuple[int, ...], ...]], ...] = (
    ("x y", lambda x, y: x * y, ((1000,), (1000,))),
    ("X w, 30 columns", lambda x, w: x @ w, ((1000, 30), (30,))),
    ("sigmoid(X w)", lambda x, w: jax.nn.sigmoid(x @ w), ((1000, 30), (30,))),
    ("x / y", lambda x, y: x / y, ((1000,), (1000,))),
    ("x < y", lambda x, y: x < y, ((1000,), (1000,))),
    ("step of regression", trained, ((30,), (1000, 30), (1000,))),
)


def costs() -> list[str]:
    """Rounds and bytes a party, unguarded, guarded, and guarded with all operands stated to be below 8."""
    lines = ["| program, 1,000 rows | unguarded | guarded | guarded, `bound=8` |", "|---|---:|---:|---:|"]
    for name, function, shapes in COSTS:
        arrays = [np.zeros(s, np.float32) for s in shapes]
        stated = [spu.secret(x, bound=8) for x in arrays]
        each = [spu.jit(function).cost(*arrays), *(spu.jit(function, guard=True).cost(*a) for a in (arrays, stated))]
        cells = [f"{c.rounds} rounds, {int(c.bytes_sent.max()):,} bytes" for c in each]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description="Guarded programs.")
    options.add_argument("--runs", type=int, default=1000)
    options.add_argument("--large", type=int, default=0, help="runs in range of a million values, in the clear")
    options.add_argument("--write", action="store_true", help="put the tables into docs/numbers.md")
    given = options.parse_args()
    if given.large:
        print(
            f"{raised_in_the_clear(given.large)} of {given.large:,} runs of a million values in range raised",
            flush=True,
        )
    if not given.runs:
        return
    table = found(given.runs)
    for name, (runs, over, within) in table.items():
        print(f"{name:22} {over:4} of {runs} overflows found, {within} of {runs} runs in range raised")
    total = [sum(column) for column in zip(*table.values())]
    summary = f"{total[1]:,} of {total[0]:,} overflows found, {total[2]} of {total[0]:,} runs in range raised"
    lines = costs()
    print(summary, *lines, sep="\n")
    if given.write:
        text = PAGE.read_text()
        for mark, new in (("guard", "\n".join(lines)), ("found", summary + ".")):
            begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
            head, _, rest = text.partition(begin)
            text = head + begin + new + "\n" + end + rest.partition(end)[2]
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
