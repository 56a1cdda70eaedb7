"""Whole random numbers of exact distributions, from the operating system's randomness: no floats anywhere.

A distribution is a table of its cumulative probabilities as integers of 192 bits, computed once. A sample is how many
of them lie at or below a uniform number. 64 bits of that decide, but where they are equal to an entry's: then all do.
What a table leaves out, and what its rounding changes, is below 2^-160 in all.
"""

from __future__ import annotations

import functools
import math
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

import numpy as np

from spuvm.runtime.errors import InputError

BITS = 192
HEAD = 64
PRECISION = 90  # decimal digits
SMALLEST = Decimal(2) ** -180
MOST = 4_000_000  # entries of a table


@dataclass(frozen=True, eq=False)
class Table:
    """`start` + k has a probability of (edges[k] - edges[k-1]) 2^-192; `heads` are their first 64 bits."""

    start: int
    edges: Sequence[int]
    heads: Any

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        """Independent samples, int64 of this shape."""
        count = math.prod(shape)
        drawn = np.frombuffer(os.urandom(8 * count), np.uint64)
        at = np.searchsorted(self.heads, drawn, side="right")
        low = np.searchsorted(self.heads, drawn, side="left")
        for i in np.flatnonzero(at != low).tolist():  # once in 2^64 draws for each entry
            whole = (int(drawn[i]) << BITS - HEAD) | secrets.randbits(BITS - HEAD)
            at[i] = sum(edge <= whole for edge in self.edges[low[i] : at[i]]) + low[i]
        return (at.astype(np.int64) + self.start).reshape(shape)


def _table(start: int, weights: Sequence[Decimal]) -> Table:
    """Of weights that need not add up to 1; all in the current decimal context."""
    total = sum(weights, Decimal(0))
    scale = Decimal(1 << BITS) / total
    edges, run = [], Decimal(0)
    for weight in weights[:-1]:
        run += weight
        edges.append(int(run * scale))
    heads = np.array([edge >> BITS - HEAD for edge in edges], np.uint64)
    return Table(start, edges, heads)


@functools.lru_cache(maxsize=16)
def negative_binomial(shape: float, scale: float) -> Table:
    """P(k) ~ Gamma(k + shape) / k! q^k with q = e^(-1/scale): 1 / shape of them add up to a geometric variable.

    Raises InputError for a scale that is not positive, or whose table would be too long.
    """
    _positive(scale)
    _fits(130 * scale)
    with localcontext() as context:
        context.prec = PRECISION
        q, r = (-1 / Decimal(scale)).exp(), Decimal(shape)
        weights = [Decimal(1)]
        least = SMALLEST * (1 - q)
        while weights[-1] > least:
            k = len(weights)
            weights.append(weights[-1] * q * (k - 1 + r) / k)
        return _table(0, weights)


@functools.lru_cache(maxsize=16)
def discrete_gaussian(sigma: float) -> Table:
    """P(n) ~ exp(-n^2 / (2 sigma^2)) (Canonne, Kamath, Steinke, NeurIPS 2020).

    Raises InputError for a sigma that is not positive, or whose table would be too long.
    """
    _positive(sigma)
    _fits(32 * sigma)
    with localcontext() as context:
        context.prec = PRECISION
        square = 1 / (Decimal(sigma) ** 2)
        step, ratio = (-square / 2).exp(), (-square).exp()
        weights = [Decimal(1)]
        while weights[-1] > SMALLEST:
            weights.append(weights[-1] * step)
            step *= ratio
        return _table(1 - len(weights), weights[:0:-1] + weights)


def _positive(scale: float) -> None:
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"noise needs a scale that is positive and finite, got {scale}.")


def _fits(entries: float) -> None:
    if entries > MOST:
        raise InputError(f"noise of {entries:.0f} values is too wide: use a coarser grid (fewer fraction bits).")
