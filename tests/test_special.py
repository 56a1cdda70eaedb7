"""Special functions over their stated domains, under two protocols in a ring of 64 bits, against SciPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sweeps
from jax import lax
from jax.scipy import special as jsp
from jax.scipy.linalg import expm
from lowering import UNIT, lowered, run
from scipy import linalg, special

Real = np.ndarray[Any, Any]
N = 4000
RNG = np.random.default_rng(21)


class Special(NamedTuple):
    """A function, its truth, operands, and the error allowed, of them and the truth, but for units of 2^-f."""

    function: Callable[..., Any]
    truth: Callable[..., Any]
    operands: tuple[Real, ...]
    allowed: Callable[..., Any]
    units: float


def spread(low: float, high: float, n: int = N) -> Real:
    """Uniform in their logarithm, and both ends."""
    return np.append(np.exp(RNG.uniform(np.log(low), np.log(high), n - 2)), [low, high])


def both_ways(low: float, high: float) -> Real:
    return np.append(RNG.uniform(low, high, N - 3), [low, 0.0, high])


def shapes_and_sizes() -> tuple[Real, Real]:
    """a up to 128, and x near to a or anywhere up to 600, 0 as well."""
    a = spread(2 * UNIT, 128)
    near = a * np.exp(RNG.normal(0, 0.4, N)) + np.abs(RNG.normal(0, 1, N))
    return a, np.where(RNG.random(N) < 0.6, near, np.where(RNG.random(N) < 0.1, 0.0, RNG.uniform(0, 600, N)))


def beta_operands() -> tuple[Real, Real, Real]:
    a, b = spread(2 * UNIT, 64), RNG.permutation(spread(2 * UNIT, 64))
    x = np.where(RNG.random(N) < 0.6, RNG.beta(a + 0.5, b + 0.5), RNG.integers(0, 65, N) / 64)
    return a, b, x


def zeta_operands() -> tuple[Real, Real]:
    return RNG.uniform(1.05, 32, N), spread(1.0, 2.0**20)


GAMMA, BETA = shapes_and_sizes(), beta_operands()
REALS = np.append(both_ways(-20, 20)[: N // 2], RNG.permutation(spread(1, 2.0**40, N - N // 2)))
SPECIAL: dict[str, Special] = {
    "igamma": Special(lax.igamma, special.gammainc, GAMMA, lambda a, x, y: 5e-5 + 1e-5 * a, 0),
    "igammac": Special(lax.igammac, special.gammaincc, GAMMA, lambda a, x, y: 5e-5 + 1e-5 * a, 0),
    "betainc": Special(jsp.betainc, special.betainc, BETA, lambda a, b, x, y: 1e-4 + 1e-5 * (a + b), 0),
    "i0e": Special(jsp.i0e, special.i0e, (REALS,), lambda x, y: 1e-5, 2),
    "i1e": Special(jsp.i1e, special.i1e, (REALS,), lambda x, y: 1e-5, 2),
    "i0": Special(jsp.i0, special.i0, (both_ways(-12, 12),), lambda x, y: 1e-5 * np.exp(np.abs(x)), 2),
    "zeta": Special(lax.zeta, special.zeta, zeta_operands(), lambda s, q, y: 1e-5 * (s + 2) * y + 6e-5, 0),
    **{
        f"polygamma {m}": Special(
            lambda x, m=m: jsp.polygamma(m, x),
            lambda x, m=m: special.polygamma(m, x),
            (spread(0.3, 2.0**20),),
            lambda x, y, m=m: 1e-5 * (m + 3) * np.abs(y) + 6e-5,
            0,
        )
        for m in (1, 3)
    },
    "expi": Special(
        jsp.expi, special.expi, (np.delete(both_ways(-30, 28), N - 2),), lambda x, y: 1e-5 * np.abs(y) + 6e-5, 0
    ),
    "exp1": Special(jsp.exp1, special.exp1, (spread(UNIT, 2.0**40),), lambda x, y: 6e-5, 0),
    "expn": Special(lambda x: jsp.expn(3, x), lambda x: special.expn(3, x), (spread(UNIT, 100),), lambda x, y: 3e-5, 0),
}


def measured(case: Special, protocol: str, ring: int = 64) -> Any:
    """The largest share of what is allowed."""
    f = 18
    raw = [np.rint(np.ldexp(x, f)).astype(np.int64) for x in case.operands]
    operands = [np.ldexp(x.astype(np.float64), -f) for x in raw]
    want = case.truth(*operands)
    evaluate = sweeps.simulated if ring == 128 else sweeps.evaluated
    got = evaluate(case.function, raw, sweeps.config(protocol, f, ring), 7)
    share = np.abs(got - want) / (case.allowed(*operands, want) + case.units * 2.0**-f)
    worst = int(np.argmax(share))
    return share[worst], [float(x[worst]) for x in operands], want[worst], got[worst]


@pytest.mark.parametrize("protocol", ["aby3", "semi2k"])
@pytest.mark.parametrize("name", SPECIAL)
def test_within_the_stated_error(name: str, protocol: str) -> None:
    share, *where = measured(SPECIAL[name], protocol)
    assert share <= 1, where


def test_exponentials_of_matrices() -> None:
    a = RNG.normal(0, 1, (40, 4, 4)) * np.linspace(0.01, 4, 40)[:, None, None]
    a *= np.minimum(1, 16 / np.abs(a).sum(1).max(1))[:, None, None]
    a = np.rint(a / UNIT) * UNIT
    (got,) = run(lowered(expm, a.astype(np.float32)), a, jitter=5)
    want, size = (np.stack([linalg.expm(m) for m in each]) for each in (a, np.abs(a)))
    assert (np.abs(got - want).max((1, 2)) / size.max((1, 2))).max() < 2e-4


def test_gradients() -> None:
    x = np.array([0.5, 1.5, 4.0], np.float32)
    for f, units in (
        (lambda x: lax.digamma(x).sum(), 16),
        (lambda x: lax.igamma(2.5, x).sum(), 16),
        (lambda x: lax.betainc(2.0, 3.0, x / 8).sum(), 32),
        (lambda x: lax.bessel_i0e(x).sum(), 16),
        (lambda x: lax.bessel_i1e(x).sum(), 32),
        (lambda x: jsp.expi(x).sum(), 64),
    ):
        (got,) = run(lowered(jax.grad(f), x), x)
        np.testing.assert_allclose(got, jax.grad(f)(x), rtol=3e-5, atol=units * UNIT)


TIES = np.array([1350, 1250, -1350, -1250, 1349.5, 1350.5, 0, 49.5, 50, -50, 150, 1e6 + 50, 123456], np.float32)


@pytest.mark.parametrize("jitter", [None, 3])
def test_ties_of_exact_quotients_are_rounded_to_even(jitter: int | None) -> None:
    module = lowered(lambda x: (jnp.round(x, -2), jnp.round(x / 100), jnp.round(x / 3), jnp.round(x, 1)), TIES)
    thirds = np.rint(TIES.astype(np.float64) / 3)
    got = run(module, TIES, jitter=jitter)
    np.testing.assert_array_equal(got[0], jnp.round(TIES, -2))
    np.testing.assert_array_equal(got[1], np.rint(TIES.astype(np.float64) / 100))
    np.testing.assert_array_equal(got[2], thirds)
    np.testing.assert_allclose(got[3], jnp.round(TIES, 1), atol=2 * UNIT)
