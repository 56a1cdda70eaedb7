"""Rounds and bytes of operations, as the compiler knows them, beside what is published of other protocols.

    python benchmarks/published.py

Nothing runs: `cost` counts. The others' figures are their own, for rings of 64 bits unless their source says else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import spuvm as spu

MILLION, TENTH, SIDE = 10**6, 10**5, 512

ARAKI = "Araki et al. (CCS 2016), semi-honest replicated sharing"
SPU = "SecretFlow SPU, its own cost model (docs/reference/complexity.md)"
SPDZ = "MP-SPDZ `replicated-ring-party.x -R 64`, its own counts, of party 0"
SPDZ_WIDE = "MP-SPDZ, the same; its numbers of 18 + 40 bits need a ring of 128 for this"
CRYPTFLOW = "CrypTFlow2 (Rathee et al., CCS 2020, table 1), 32 bits, two parties without a dealer, half of all bytes"


@dataclass(frozen=True)
class Published:
    """`each`: bytes that a party sends for an element."""

    source: str
    rounds: int
    each: float


@dataclass(frozen=True)
class Row:
    """An operation on `count` elements under one of our protocols, and what others need."""

    name: str
    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    published: tuple[Published, ...]
    protocol: str = "aby3"
    dtype: Any = np.float32

    @property
    def count(self) -> int:
        return int(np.prod(self.shapes[0]))


def two(n: int) -> tuple[tuple[int, ...], ...]:
    return ((n,), (n,))


ROWS = (
    Row("and of bits", lambda x, y: x & y, two(MILLION), (Published(ARAKI, 1, 1 / 8),), dtype=np.bool_),
    Row(
        "multiply and truncate",
        lambda x, y: x * y,
        two(MILLION),
        (Published(SPDZ, 3, 16.0), Published(SPU, 4, 40.0)),
    ),
    Row("multiply and truncate", lambda x, y: x * y, two(MILLION), (Published(SPU, 2, 24.0),), "semi2k"),
    Row(
        "less-than",
        lambda x, y: x < y,
        two(MILLION),
        (Published(SPDZ, 8, 22.4), Published(SPU + ", a2b alone", 8, 64.0)),
    ),
    Row("less-than", lambda x, y: x < y, two(MILLION), (Published(CRYPTFLOW, 5, 3844 / 16),), "semi2k"),
    Row("equality", lambda x, y: x == y, two(MILLION), (Published(SPDZ, 21, 47.0),)),
    Row("matrix product, 512 x 512 x 512", jnp.matmul, ((SIDE, SIDE),) * 2, (Published(SPDZ, 7, 4.2e6 / SIDE**2),)),
    Row("square root", jnp.sqrt, ((TENTH,),), (Published(SPDZ_WIDE, 187, 1440.0),)),
    Row("logarithm to base 2", jnp.log2, ((TENTH,),), (Published(SPDZ_WIDE, 170, 1320.0),)),
    Row("power of 2", jnp.exp2, ((TENTH,),), (Published(SPDZ_WIDE, 41, 375.0),)),
    Row("reciprocal", lambda x: 1 / x, ((TENTH,),), (Published(SPDZ_WIDE, 59, 270.0),)),
    Row("sort of 100,000", lax.sort, ((TENTH,),), (Published(SPDZ, 1185, 3240.0),)),
)
HEADER = (
    "operation",
    "protocol",
    "rounds",
    "bytes/element/party",
    "published: rounds",
    "bytes/element/party",
    "source",
)


def cells() -> list[list[str]]:
    """A line for each operation and source; ours is of the party that sends most."""
    out = []
    for row in ROWS:
        inputs = [jax.ShapeDtypeStruct(s, row.dtype) for s in row.shapes]
        cost = spu.jit(row.function, protocol=row.protocol).cost(*inputs)
        ours = [row.name, row.protocol, f"{cost.rounds:,}", f"{cost.bytes_sent.max() / row.count:,.4g}"]
        out += [[*ours, f"{p.rounds:,}", f"{p.each:,.4g}", p.source] for p in row.published]
    return out


if __name__ == "__main__":
    from spuvm.bench.report import markdown_table

    print("\n".join(markdown_table(HEADER, cells())))
