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
from spuvm.compiler.ir.ops import LOCAL
from spuvm.compiler.lower.conv import windows_of
from spuvm.compiler.project.executables import OPTIONS
from spuvm.runtime.engine.random import Stream, aligned_empty
from spuvm.runtime.ring import arithmetic, native
from spuvm.runtime.ring.elements import LIMB_DTYPE, Word

KEYSTREAM = 8 << 20  # bytes: what stays in the allocator's reach
SECONDS = 0.3  # of timing for each
WIDTHS = (64, 32, 128)


@dataclass(frozen=True)
class Kernel:
    """`native` is None where the library is not built. In 10^9 `unit`, the best of several runs."""

    name: str
    unit: str
    native: float | None
    twin: float
    same: bool | None


def kernels(side: int = 1024, images: int = 4) -> list[Kernel]:
    """Ring products of `side`^3 and convolutions, two operations for each multiplication, and AES-128-CTR."""
    with jax.enable_x64(True):
        products = [_product(bits, side) for bits in WIDTHS] + [_convolution(bits, images) for bits in WIDTHS]
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


def _product(bits: int, side: int) -> Kernel:
    x, y = _uniform((side, side), bits, 0), _uniform((side, side), bits, 1)
    return _beside(f"{bits}-bit product {side}^3", 2 * side**3, bits, lambda dot: dot, x, y)


def _convolution(bits: int, images: int) -> Kernel:
    """As programs do it: windows are gathered, and then multiplied as a matrix."""
    size, channels, window = 32, 64, 3
    index = windows_of([size] * 2, [window] * 2, (1, 1), (1, 1), (1, 1), [(window // 2,) * 2] * 2)
    x = _uniform((images, size**2, channels), bits, 0)
    y = _uniform((window**2 * channels, channels), bits, 1)
    dims: Any = {"dims": ((0, 3), (1,), (1,), (), ()), "sizes": (images, 1, channels), "mode": "fill"}
    gather = partial(LOCAL["gather"], indices=index[..., None], **dims)

    def convolution(dot: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: Any, y: Any) -> Any:
            seen = arithmetic.moved(lambda v: gather(v).reshape(images * size**2, -1), x)
            return dot(seen, y)

        return run

    operations = 2 * images * size**2 * window**2 * channels**2
    shape = f"{images}x{size}x{size}x{channels}, {window}x{window}x{channels}"
    return _beside(f"{bits}-bit convolution {shape}", operations, bits, convolution, x, y)


def _uniform(shape: tuple[int, ...], bits: int, seed: int) -> Any:
    rng, dtype = np.random.default_rng(seed), np.dtype(LIMB_DTYPE[bits])
    limbs = [jnp.asarray(rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)) for _ in range(bits // 32)]
    return Word(*limbs[:2]) if bits == 128 else limbs[0]


def _beside(
    name: str, operations: int, bits: int, form: Callable[[Callable[..., Any]], Callable[..., Any]], x: Any, y: Any
) -> Kernel:
    """What `form` makes of the ring's product, and of its twin; of 128 bits that is eleven products of 64."""
    twin = partial(arithmetic.dot_of_words_xla, dims=(((1,), (0,)), ((), ()))) if bits == 128 else arithmetic.matmul_xla
    rates, results = [], []
    for dot in (arithmetic.matmul, twin):
        run = jax.jit(form(dot)).lower(x, y).compile(compiler_options=OPTIONS)
        results.append([np.asarray(z) for z in jax.tree.leaves(run(x, y))])
        rates.append(operations / 1e9 / _best(partial(_run, run, x, y)))
    built = native.multiplies_words() if bits == 128 else native.register()
    same = all(bool((a == b).all()) for a, b in zip(*results)) if built else None
    return Kernel(name, "operations", rates[0] if built else None, rates[1], same)


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
