"""What scales of their own cost: rounds and bytes of the programs that `spuvm bench` times, with the pass and without.

    python benchmarks/scales.py [--write]

Without the pass every number has the default fraction bits. Bytes are those of all parties (ABY3, a ring of 64 bits);
nothing is run. With `--write` the table goes into docs/numbers.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from spuvm.bench.operations import OPERATIONS, Operation, Sizes
from spuvm.compiler.compile import Program
from spuvm.compiler.front.trace import Traced, trace
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes.pipeline import PASSES, Pass, scales
from spuvm.runtime.config import Config

PAGE = Path(__file__).parent.parent / "docs" / "numbers.md"
SIZES = Sizes(10_000, 128, 1_000)


def cost(traced: Traced, arguments: int, passes: tuple[Pass, ...]) -> tuple[int, int]:
    """Rounds and bytes of the program that these passes make."""
    module = lower(traced, ["secret"] * arguments, Config())
    module.keeps_scales = True
    for apply in passes:
        apply(module)
    found = Program(module).cost
    return found.rounds, int(found.bytes_sent.sum())


def row(name: str, operation: Operation) -> str:
    inputs = operation.inputs(np.random.default_rng(0), SIZES.of(operation.sized_by))
    traced = trace(operation.function, inputs)
    (rounds, sent), (after, more) = (
        cost(traced, len(traced.inputs), passes) for passes in (tuple(p for p in PASSES if p is not scales), PASSES)
    )
    return f"| `{name}` | {rounds:,} | {after:,} | {sent:,} | {more:,} | {more / sent - 1 if sent else 0.0:+.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/numbers.md")
    rows = ["| program | rounds | with scales | bytes | with scales | |", "|---|---:|---:|---:|---:|---:|"]
    options = parser.parse_args()
    for name, operation in OPERATIONS.items():
        rows.append(row(name, operation))
        print(rows[-1], flush=True)
    if options.write:
        text = PAGE.read_text()
        start, end = "<!-- scales -->\n", "<!-- end of scales -->"
        PAGE.write_text(text[: text.index(start) + len(start)] + "\n".join(rows) + "\n" + text[text.index(end) :])


if __name__ == "__main__":
    main()
