"""The table, rows of tables: orders, places, comparisons and quotients of bounded integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.table import ALL, ANY, Case, Operand, Shape, alike
from spuvm.compiler.lower import rows

BITS = 40
SIZES = ((1,), (7,), (40,))


def whole(smallest: int = 0) -> Operand:
    """Of either sign, at least `smallest` and below 2^BITS in size."""

    def draw(rng: np.random.Generator, shape: Shape, _: str) -> Any:
        return rng.integers(smallest, 2**BITS, shape) * rng.choice([-1, 1], shape)

    return Operand(draw, "int64")


def keys(rng: np.random.Generator, shape: Shape, _: str) -> Any:
    """No two alike, and the largest difference fills its bits."""
    return rng.permutation(np.linspace(0, 2**BITS - 1, shape[0]).astype("int64"))


def places(rng: np.random.Generator, shape: Shape, _: str) -> Any:
    return rng.permutation(shape[0]).astype("int64")


TABLES = [
    Case(
        "spu_rows_order",
        lambda k, x: tuple(rows.order_p.bind(k, x, widths=(BITS + 1,))),
        (Operand(keys, "int64"), ANY),
        alike(2, *SIZES),
        ALL,
    ),
    Case(
        "spu_rows_arrange",
        lambda p, x: tuple(rows.arrange_p.bind(p, x)),
        (Operand(places, "int64"), ANY),
        alike(2, *SIZES),
        ALL,
    ),
    Case("spu_rows_below", rows.below_p.bind, (whole(), whole()), alike(2, *SIZES), ("int64",)),
    Case(
        "spu_quotient",
        lambda x, y: rows.quotient_p.bind(x, y, bits=BITS),
        (whole(), whole(1)),
        alike(2, *SIZES),
        ("int64",),
    ),
]
