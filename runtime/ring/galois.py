"""Inner products over the Galois ring Z_2^k[X] / (X^41 + X^3 + 1), k 32 or 64; an element is its 41 coefficients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DEGREE, MIDDLE = 41, 3  # of the polynomial X^41 + X^3 + 1, irreducible modulo 2


def inner(x: Array, y: Array) -> Array:
    """The inner product of two vectors over the Galois ring: [n, 41], [n, 41] -> [41]."""
    table = x.T @ y
    out = np.zeros(2 * DEGREE - 1, x.dtype)
    for i, row in enumerate(table):
        out[i : i + DEGREE] += row
    for end in (2 * DEGREE - 1, DEGREE + MIDDLE - 1):  # X^41 = -X^3 - 1; what that leaves above X^40, once more
        high = out[DEGREE:end].copy()
        out[DEGREE:end] = 0
        out[: len(high)] -= high
        out[MIDDLE : MIDDLE + len(high)] -= high
    return out[:DEGREE]
