"""Numbers as 32-bit integers that can be added: deltas as units of 2^-f, and exact wide numbers as digits.

A sum of the parties' words must stay below 2^31, so each may use its share of the range. What does not fit is found
here, at its owner, and never wraps around.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

FRACTION_BITS = 20
WORD = (1 << 31) - 1
DIGIT_BITS = 15
DIGITS = 4
MOST_PARTIES = 1 << 15
METRIC_BITS = 30


def limit(parties: int, bits: int = FRACTION_BITS) -> float:
    """The largest magnitude that each of so many parties may add."""
    return (WORD // parties) / 2.0**bits


def quantised(x: np.ndarray, bits: int = FRACTION_BITS, most: int = WORD) -> np.ndarray:
    """int32 units of 2^-bits, to the nearest; x within `limit`, or brought within `most` units."""
    units = np.rint(x * x.dtype.type(2.0**bits))
    words: np.ndarray = (units if most == WORD else np.clip(units, -most, most)).astype(np.int32)
    return words


def real(words: np.ndarray, dtype: np.dtype, bits: int = FRACTION_BITS) -> np.ndarray:
    """What a sum of words stands for."""
    return (np.asarray(words, np.float64) * 2.0**-bits).astype(dtype)


def digits(values: Iterable[int]) -> np.ndarray:
    """Whole numbers below 2^60 in magnitude as int32 [values, 4]: digits of 15 bits, the last one signed."""
    rows = [
        [*(v >> DIGIT_BITS * i & (1 << DIGIT_BITS) - 1 for i in range(DIGITS - 1)), v >> DIGIT_BITS * (DIGITS - 1)]
        for v in values
    ]
    return np.asarray(rows, np.int64).reshape(-1, DIGITS).astype(np.int32)


def numbers(sums: Sequence[Sequence[int]] | np.ndarray) -> list[int]:
    """The sums of whole numbers whose digits were added; exact."""
    return [sum(int(d) << DIGIT_BITS * i for i, d in enumerate(row)) for row in np.asarray(sums).tolist()]
