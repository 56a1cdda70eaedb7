"""Samplers fit their distributions on a million samples; shares add up to what is claimed; audits catch half of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from spuvm.dp import epsilon_at_least, gaussian_share, honest_of, laplace_share
from spuvm.dp.sampling import BITS, HEAD, Table, discrete_gaussian, negative_binomial
from spuvm.runtime.errors import ConfigError, InputError

MILLION = 1_000_000
RUNS = 100_000


def chi_square(samples: np.ndarray, probability: Callable[[int], float], low: int, high: int) -> float:
    """How many standard deviations the statistic lies above its mean; cells low to high, and the two tails."""
    counts = np.bincount(np.clip(samples, low - 1, high + 1) - (low - 1), minlength=high - low + 3).astype(float)
    inside = np.array([probability(k) for k in range(low, high + 1)])
    below = sum(probability(k) for k in range(low - 4000, low))
    expected = np.concatenate([[below], inside, [1 - below - inside.sum()]]) * len(samples)
    keep = expected > 5
    assert counts[~keep].sum() <= 30
    degrees = keep.sum() - 1
    statistic = float(((counts[keep] - expected[keep]) ** 2 / expected[keep]).sum())
    return (statistic - float(degrees)) / math.sqrt(2 * degrees)


def laplace(scale: float) -> Callable[[int], float]:
    q = math.exp(-1 / scale)
    return lambda k: (1 - q) / (1 + q) * q ** abs(k)


def gaussian(sigma: float) -> Callable[[int], float]:
    total = sum(math.exp(-(n**2) / (2 * sigma**2)) for n in range(-int(20 * sigma), int(20 * sigma) + 1))
    return lambda k: math.exp(-(k**2) / (2 * sigma**2)) / total


def test_a_gaussian_table_fits_on_a_million() -> None:
    samples = discrete_gaussian(5.0).sample((MILLION,))
    assert chi_square(samples, gaussian(5.0), -20, 20) < 5
    assert chi_square(samples, gaussian(5.1), -20, 20) > 50


def test_a_negative_binomial_table_fits_on_a_million() -> None:
    q = math.exp(-1 / 4.0)

    def probability(k: int) -> float:
        if k < 0:
            return 0.0
        log = math.lgamma(k + 0.5) - math.lgamma(k + 1) - math.lgamma(0.5) + k * math.log(q)
        return math.exp(log) * math.sqrt(1 - q)

    samples = negative_binomial(0.5, 4.0).sample((MILLION,))
    assert chi_square(samples, probability, 0, 25) < 5


@pytest.mark.parametrize("honest", [1, 2])
def test_laplace_shares_add_up_to_it_exactly(honest: int) -> None:
    """Those of the honest alone: what a party that knows its own share is faced with."""
    samples = sum(laplace_share((MILLION,), 4.0, honest) for _ in range(honest))
    assert isinstance(samples, np.ndarray)
    assert chi_square(samples, laplace(4.0), -30, 30) < 5
    assert chi_square(samples, laplace(4.2), -30, 30) > 50


def test_gaussian_shares_add_up_to_it() -> None:
    samples = gaussian_share((MILLION,), 8.0, 2) + gaussian_share((MILLION,), 8.0, 2)
    assert chi_square(samples, gaussian(8.0), -30, 30) < 5
    three = samples + gaussian_share((MILLION,), 8.0, 2)
    assert three.var() / 64 == pytest.approx(1.5, rel=0.01)


def test_where_64_bits_do_not_decide_all_do() -> None:
    """A table whose entries differ far behind the 64th bit."""
    rest = 1 << BITS - HEAD
    half = (1 << HEAD - 1) * rest
    table = Table(0, [half, half + rest // 4, half + rest // 2], np.array([1 << HEAD - 1] * 3, np.uint64))

    class Fixed:
        def __call__(self, count: int) -> bytes:
            return np.full(count // 8, 1 << HEAD - 1, np.uint64).tobytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spuvm.dp.sampling.os.urandom", Fixed())
        samples = table.sample((2000,))
    assert samples.min() == 1
    assert np.bincount(samples, minlength=4)[1:] / 2000 == pytest.approx([0.25, 0.25, 0.5], abs=0.06)


@pytest.mark.parametrize("kind", ["laplace", "gaussian"])
def test_an_audit_is_below_the_claim_and_catches_half_the_noise(kind: str) -> None:
    """Two of three shares, as one is known; the claim is epsilon 1 (Gaussian: at delta 0, within three sigma).

    The least that an audit must see is seven of its own standard deviations below what it sees on average (0.32).
    """

    def drawn(part: float) -> tuple[np.ndarray, np.ndarray]:
        if kind == "laplace":
            noise = [laplace_share((RUNS,), 8 * part, 2) + laplace_share((RUNS,), 8 * part, 2) for _ in range(2)]
        else:
            noise = [gaussian_share((RUNS,), 30 * part, 2) + gaussian_share((RUNS,), 30 * part, 2) for _ in range(2)]
        return noise[0], noise[1] + 8

    claim, delta = (1.0, 0.0) if kind == "laplace" else (1.0, 5e-3)  # of sensitivity 8 and sigma 30: delta(1) is 1e-4
    assert 0.15 < epsilon_at_least(*drawn(1.0), delta=delta) <= claim
    assert epsilon_at_least(*drawn(0.5 if kind == "laplace" else 0.25), delta=delta) > claim


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: laplace_share((2,), 0.0, 2),
        lambda: laplace_share((2,), math.inf, 2),
        lambda: laplace_share((2,), 1e9, 2),
        lambda: gaussian_share((2,), 2.0, 2),
        lambda: gaussian_share((2,), 1e7, 2),
        lambda: epsilon_at_least(np.zeros(5), np.zeros(5)),
    ],
)
def test_noise_that_cannot_be(wrong: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        wrong()


def test_who_is_trusted_with_shares() -> None:
    assert [honest_of("aby3", 3), honest_of("semi2k", 2), honest_of("ref2k", 3)] == [2, 1, 3]
    with pytest.raises(ConfigError, match="may deviate"):
        honest_of("rep4", 4)
