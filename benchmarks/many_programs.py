"""How much one process grows by many different small programs, and by a new lambda each call.

    python benchmarks/many_programs.py              1,000 of each, simulated
    python benchmarks/many_programs.py --count 100

Resident memory after a tenth of them, and after all: what a program leaves behind is the difference by their number.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from typing import Any

import numpy as np

import spuvm as spu


def resident() -> float:
    """Megabytes of this process that lie in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def different(number: int) -> None:
    """A program that no other is equal to, on arrays of a size of its own."""
    x = np.linspace(0, 1, 3 + number % 50).astype(np.float32)

    def program(a: Any, b: Any) -> Any:
        return a * b + np.float32(number), a < b * np.float32(1 + number % 7)

    spu.reveal(spu.jit(program)(x, x[::-1].copy()))


def equal(number: int) -> None:
    """The same program as a new function, as who writes a lambda where it is called does."""
    x = np.ones(8, np.float32)
    spu.reveal(spu.jit(lambda a: a * a + 1)(x))


def growth(one: Any, count: int) -> tuple[float, float]:
    """Megabytes after the first tenth, which loads what all share, and after all."""
    for number in range(count // 10):
        one(number)
    gc.collect()
    before = resident()
    for number in range(count // 10, count):
        one(number)
    gc.collect()
    return before, resident()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    count = parser.parse_args().count
    for name, one in (("different programs", different), ("a new lambda each call", equal)):
        before, after = growth(one, count)
        print(f"{count} x {name}: {before:.0f} MB, then {after:.0f} MB: {after - before:+.1f} MB", flush=True)


if __name__ == "__main__":
    main()
