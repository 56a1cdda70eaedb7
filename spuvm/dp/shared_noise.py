"""Noise that each computing party draws a share of, for large arrays: nothing is sampled in the machine.

Honest-but-curious parties only. Any `honest` of the shares already are the noise that is claimed, so those who know the
others' shares gain nothing; the rest adds variance: with three parties of which two suffice, half as much again.

Laplace: a geometric variable is the sum of h negative binomial ones of shape 1/h, and discrete Laplace the difference
of two (Goryczka and Xiong, TDSC 2017). Exact.
Gaussian: the sum of h discrete Gaussians of variance sigma^2 / h. It is (1/2) e^2-concentrated private with
e = sensitivity / sigma + tau sqrt(d), tau = 10 sum_k exp(-2 pi^2 (sigma^2 / h) k / (k + 1)) (Kairouz, Liu, Steinke,
ICML 2021, theorem 1); with shares of four units and more, tau is below 10^-67.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from spuvm.dp.sampling import discrete_gaussian, negative_binomial
from spuvm.runtime.errors import ConfigError, InputError

LEAST = 4.0  # units of a share's standard deviation
HONEST: dict[str, Callable[[int], int]] = {"aby3": lambda n: 2, "semi2k": lambda n: 1, "ref2k": lambda n: n}


def honest_of(protocol: str, parties: int) -> int:
    """How many parties' shares make up the noise: those that a protocol trusts not to tell theirs to the others.

    Raises ConfigError for a protocol against parties that deviate: noise is to be drawn in the machine there.
    """
    if protocol not in HONEST:
        raise ConfigError(
            f"under {protocol} parties may deviate, and draw no noise: use `spu.dp.laplace` and `gaussian`, which "
            "draw it in the machine."
        )
    return HONEST[protocol](parties)


def laplace_share(shape: tuple[int, ...], scale: float, honest: int) -> np.ndarray:
    """One party's share, int64: any `honest` of them add up to discrete Laplace noise of this scale."""
    table = negative_binomial(1 / honest, scale)
    one, other = table.sample(shape), table.sample(shape)
    noise: np.ndarray = one - other
    return noise


def gaussian_share(shape: tuple[int, ...], sigma: float, honest: int) -> np.ndarray:
    """The same of discrete Gaussian noise, in units of which sigma has at least 4 sqrt(honest)."""
    each = sigma / math.sqrt(honest)
    if each < LEAST:
        raise InputError(f"shares of noise need {LEAST:g} units of sigma or more, got {each:g}: use a finer grid.")
    return discrete_gaussian(each).sample(shape)
