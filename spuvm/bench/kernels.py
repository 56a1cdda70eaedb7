"""The native kernels beside their twins: operations or bytes a second, and whether they give the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from spuvm.bench.report import markdown_table
from spuvm.compiler.executables import OPTIONS
from spuvm.runtime import native, ring
from spuvm.runtime.random import Stream, aligned_empty
from spuvm.runtime.word import Word

KEYSTREAM = 8 << 20  # bytes: what stays in the allocator's reach
SECONDS = 0.3  # of timing for each


@dataclass(frozen=True)
class Kernel:
    """`native` is None where the library is not built. In 10^9 `unit`, the best of several runs."""

    name: str
    unit: str
    native: float | None
    twin: float
    same: bool | None


def kernels(side: int = 1024) -> list[Kernel]:
    """Ring products of `side`^3, two operations for each multiplication, and AES-128-CTR into a buffer."""
    with jax.enable_x64(True):
        products = [_product(np.uint64, side), _product(np.uint32, side), _product_of_words(side)]
    return [*products, _keystream()]


def as_dicts(rows: Sequence[Kernel]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(row) for row in rows]


def from_dicts(records: Sequence[dict[str, Any]]) -> list[Kernel]:
    """The inverse."""
    return [Kernel(**r) for r in records]


HEADER = ("kernel", "unit", "native", "twin", "ratio", "same bits")


def table(rows: Sequence[Kernel]) -> Table:
    """For the terminal."""
    out = Table(title=f"Kernels: {native.features()}", title_justify="left")
    for column in HEADER:
        out.add_column(column, justify="left" if column == "kernel" else "right")
    for r in rows:
        out.add_row(*_cells(r))
    return out


def markdown(rows: Sequence[Kernel]) -> list[str]:
    """For a page."""
    return markdown_table(HEADER, [_cells(r) for r in rows])


def _cells(r: Kernel) -> list[str]:
    ratio = "" if r.native is None else f"{r.native / r.twin:.1f}"
    figures = ("not built" if r.native is None else f"{r.native:.1f}", f"{r.twin:.1f}", ratio)
    return [r.name, f"10^9 {r.unit}/s", *figures, {None: "", True: "yes", False: "NO"}[r.same]]


def _product(dtype: Any, side: int) -> Kernel:
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.integers(0, np.iinfo(dtype).max, (side, side), dtype, endpoint=True)) for _ in range(2))
    compiled = {
        f.__name__: jax.jit(f).lower(x, y).compile(compiler_options=OPTIONS) for f in (ring.matmul, ring.matmul_xla)
    }
    rates, results = [], []
    for run in compiled.values():
        results.append(np.asarray(run(x, y)))
        rates.append(2 * side**3 / 1e9 / _best(partial(_run, run, x, y)))
    built = native.register()
    same = bool((results[0] == results[1]).all()) if built else None
    name = f"{np.dtype(dtype).name} product {side}^3"
    return Kernel(name, "operations", rates[0] if built else None, rates[1], same)


def _product_of_words(side: int) -> Kernel:
    """Modulo 2^128, beside what takes its place: eleven products of 64 bits, native ones."""
    rng = np.random.default_rng(0)
    limbs = [jnp.asarray(rng.integers(0, 2**64 - 1, (side, side), np.uint64, endpoint=True)) for _ in range(4)]
    x, y = Word(*limbs[:2]), Word(*limbs[2:])
    of_pieces = partial(ring.dot_of_words_xla, dims=(((1,), (0,)), ((), ())))
    rates, results = [], []
    for product in (ring.matmul, of_pieces):
        run = jax.jit(product).lower(x, y).compile(compiler_options=OPTIONS)
        results.append([np.asarray(z) for z in jax.tree.leaves(run(x, y))])
        rates.append(2 * side**3 / 1e9 / _best(partial(_run, run, x, y)))
    built = native.multiplies_words()
    same = all((a == b).all() for a, b in zip(*results)) if built else None
    return Kernel(f"128-bit product {side}^3", "operations", rates[0] if built else None, rates[1], same)


def _keystream() -> Kernel:
    key = bytes(range(16))
    buffers = [aligned_empty(KEYSTREAM) for _ in range(2)]
    streams = [Stream(key), Stream(key, openssl=True)]
    rates = []
    for stream, buffer in zip(streams, buffers):
        rates.append(KEYSTREAM / 1e9 / _best(partial(stream.fill, buffer, 0)))
    built = not streams[0].by_openssl
    same = bool((buffers[0] == buffers[1]).all()) if built else None
    return Kernel("AES-128-CTR, one core", "bytes", rates[0] if built else None, rates[1], same)


def _run(product: Callable[..., Any], x: Any, y: Any) -> None:
    jax.block_until_ready(product(x, y))


def _best(run: Callable[[], Any]) -> float:
    """Seconds of the fastest of the runs that a fraction of a second allows, five at least."""
    run()
    best, end, count = float("inf"), time.perf_counter() + SECONDS, 0
    while count < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
        count += 1
    return best
