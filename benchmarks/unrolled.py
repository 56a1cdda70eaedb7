"""Processor seconds that programs without loops take to compile and to run first, by their number of operations.

    python benchmarks/unrolled.py                    1,000, 2,000, 5,000 and 10,000 operations
    python benchmarks/unrolled.py 500 1000

Simulated, with an empty cache; each program in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

import spuvm as spu


def unrolled(count: int) -> Any:
    """A chain of `count` dependent operations."""

    def program(x: Any, y: Any) -> Any:
        for i in range(count // 4):
            x = x * 0.5 + y
            x = x * y * 0.9 if i % 2 else x * x - 0.1
        return x

    return program


def measure(count: int) -> None:
    x = np.linspace(0, 1, 8).astype(np.float32)
    y = x[::-1] * np.float32(0.5)
    spu.reveal(spu.jit(lambda a, b: a * b)(x, y))  # loads what all share
    function = spu.jit(unrolled(count))
    start = time.process_time()
    function.compile(x, y)
    compiled = time.process_time()
    got = spu.reveal(function(x, y))
    ran = time.process_time()
    error = np.abs(got - unrolled(count)(x, y)).max()
    print(f"{count:9,} {compiled - start:10.2f} {ran - compiled:10.2f} {error:10.1e}", flush=True)


def main() -> None:
    counts = [int(a) for a in sys.argv[1:]] or [1000, 2000, 5000, 10_000]
    print("operations compiling  first run      error", flush=True)
    for count in counts:
        with tempfile.TemporaryDirectory() as cache:
            again = [sys.executable, __file__, "--one", str(count)]
            subprocess.run(again, env={**os.environ, "SPUVM_CACHE_DIR": cache}, check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(int(sys.argv[2]))
    else:
        main()
