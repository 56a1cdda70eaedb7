"""Noise has the distribution that it claims, functions spend what they say, and a budget is never overspent."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import three_owners

import spuvm as spu
from spuvm.compiler.lower.noise import (
    _below_each,
    _count_digits,
    gaussian_p,
    gaussian_parts,
    gaussian_tails,
    laplace_digits,
)
from spuvm.dp import Budget, Spent, spending
from spuvm.dp.mechanisms import gaussian_of
from spuvm.dp.spending import epsilon_of, rho_of, total
from spuvm.runtime.errors import DataError, InputError

ZEROS = np.zeros(4000, np.int32)


def chi_square(samples: np.ndarray, probability: Callable[[int], float], reach: int) -> float:
    """By degree of freedom, of values -reach to reach and of what is beyond."""
    counts = np.array([(samples == k).sum() for k in range(-reach, reach + 1)] + [(abs(samples) > reach).sum()])
    expected = np.array([probability(k) for k in range(-reach, reach + 1)])
    expected = np.append(expected, 1 - expected.sum()) * len(samples)
    return float(((counts - expected) ** 2 / expected).sum() / (len(counts) - 1))


def test_digits_of_a_geometric_variable() -> None:
    """The product over digits is the geometric distribution itself."""
    scale = 3.7
    digits = [number / 2**64 for number in laplace_digits(scale)]
    q = math.exp(-1 / scale)
    for n in (0, 1, 5, 12, 40):
        product = math.prod(p if n >> i & 1 else 1 - p for i, p in enumerate(digits))
        assert product == pytest.approx((1 - q) * q**n, rel=1e-12)


def test_tails_of_a_gaussian() -> None:
    tails = [number / 2**64 for number in gaussian_tails(4.0)]
    weights = np.exp(-(np.arange(-60, 61) ** 2) / 32)
    assert tails[0] == pytest.approx(1 - 1 / weights.sum(), rel=1e-12)
    assert tails[3] == pytest.approx(weights[np.abs(np.arange(-60, 61)) >= 4].sum() / weights.sum(), rel=1e-12)
    assert tails[-1] < 2**-60


@pytest.mark.parametrize("protocol", ["ref2k", "aby3"])
def test_laplace_noise_is_what_it_claims_and_half_of_it_would_be_noticed(protocol: str) -> None:
    epsilon = 0.5
    samples = spu.reveal(spu.jit(lambda x: spu.dp.laplace(x, 1, epsilon), protocol=protocol)(ZEROS))
    q = math.exp(-epsilon)
    assert chi_square(samples, lambda k: (1 - q) / (1 + q) * q ** abs(k), 9) < 2.5
    half = math.exp(-2 * epsilon)
    assert chi_square(samples, lambda k: (1 - half) / (1 + half) * half ** abs(k), 4) > 10


def test_gaussian_noise_is_what_it_claims() -> None:
    function = lambda x: spu.dp.gaussian(x, 1.0, 1.0, 1e-5)  # noqa: E731
    x = np.zeros(4, np.float32)
    (spent,) = spending(function, x)
    jitted = spu.jit(function, protocol="ref2k")
    samples = np.concatenate([spu.reveal(jitted(x)) for _ in range(120)])
    sigma = spent.ratio * 1.25  # of the sensitivity, with rounding at most this
    assert 0.75 * sigma < samples.std() < 1.15 * sigma
    assert abs(samples.mean()) < 4 * sigma / math.sqrt(len(samples))
    assert total([spent], 1e-5) <= 1.02


def test_a_gaussian_of_the_machine_fits_its_distribution() -> None:
    sigma = 5.0
    function = lambda x: gaussian_p.bind(x, sensitivity=1.0, sigma=sigma, grid=0.25)  # noqa: E731
    samples = np.rint(spu.reveal(spu.jit(function, protocol="ref2k")(np.zeros(4000, np.float32))) * 4).astype(int)

    def density(sigma: float) -> Callable[[int], float]:
        total = sum(math.exp(-(n**2) / (2 * sigma**2)) for n in range(-400, 401))
        return lambda n: math.exp(-(n**2) / (2 * sigma**2)) / total

    assert chi_square(samples, density(4 * sigma), 50) < 2
    assert chi_square(samples, density(3 * sigma), 50) > 5


def test_a_uniform_number_is_compared_with_many_at_once() -> None:
    """At the numbers themselves and beside them, and far away: as whole numbers are."""
    tails = gaussian_tails(20.0)
    numbers = [0, 2**64 - 1, *(t + more for t in (tails[0], tails[3], tails[90], tails[150]) for more in (-1, 0, 1))]
    bits = np.array([[bool(u >> i & 1) for i in reversed(range(64))] for u in numbers])
    below = np.asarray(_below_each(jnp.asarray(bits), tails))
    assert (below == [[u < t for t in tails] for u in numbers]).all()
    digits = np.asarray(_count_digits(jnp.asarray(below)))
    assert (digits @ 2 ** np.arange(digits.shape[-1]) == below.sum(-1)).all()


def test_noise_is_added_to_the_value() -> None:
    x = np.linspace(-50, 50, 40).astype(np.float32)
    got = spu.reveal(spu.jit(lambda x: spu.dp.laplace(x, 0.01, 10.0))(x))
    assert 1e-5 < np.abs(got - x).max() < 0.05


def test_what_has_noise_has_room_for_products() -> None:
    """Numbers that are rounded to the noise's grid are as large as before: a product's limit stays that of the ring."""

    def function(x: Any, y: Any) -> Any:
        noisy = gaussian_of(x, 1.0, 0.001)
        share = noisy * 2.0**17 / (y + 1)
        return noisy * share

    x, y = np.array([9.35, -4.6], np.float32), np.array([40, 20], np.float32)
    got = spu.reveal(spu.jit(function)(x, y))
    assert got == pytest.approx(x * x * 2.0**17 / (y + 1), rel=0.01)


def test_counts_sums_means_and_histograms() -> None:
    x = np.linspace(0, 10, 300).astype(np.float32)

    def report(x: Any) -> Any:
        return (
            spu.dp.count(x > 5, 20.0),
            spu.dp.sum(x, 0, 10, 50.0),
            spu.dp.mean(x, 0, 10, 50.0),
            spu.dp.histogram(x, [0, 2, 5, 11], 20.0),
            spu.dp.noisy_max(jnp.stack([jnp.sum(x > t) for t in (9.0, 1.0, 8.0)]).astype(jnp.float32), 1.0, 20.0),
        )

    count, summed, mean, histogram, best = spu.reveal(spu.jit(report)(x))
    assert abs(int(count) - (x > 5).sum()) <= 2
    assert summed == pytest.approx(x.sum(), abs=4)
    assert mean == pytest.approx(x.mean(), abs=0.05)
    assert np.abs(histogram - np.histogram(x, [0, 2, 5, 11])[0]).max() <= 2
    assert best == 1
    assert total(spending(report, x), 0) == pytest.approx(160.0)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: spu.dp.laplace(x, 0, 1.0),
        lambda x: spu.dp.laplace(x, 1.0, -1.0),
        lambda x: spu.dp.laplace(x, math.inf, 1.0),
        lambda x: spu.dp.laplace(x, 1.0, 1e-320),  # whose inverse is infinite
        lambda x: spu.dp.laplace(x, 1e308, 1.0),
        lambda x: spu.dp.laplace(x, 1.0, "1"),  # type: ignore[arg-type]
        lambda x: spu.dp.sum(x, 0, math.nan, 1.0),
        lambda x: spu.dp.gaussian(x, 1.0, 1.0, 0.0),
        lambda x: spu.dp.gaussian(x.astype(jnp.int32), 1.0, 1.0, 1e-5),
        lambda x: spu.dp.sum(x, 5, 5, 1.0),
        lambda x: spu.dp.histogram(x, [1, 1], 1.0),
        lambda x: spu.dp.mean(x[:, None], 0, 1, 1.0),
        lambda x: spu.dp.laplace(x, 1e12, 1e-3),
        lambda x: spu.dp.gaussian(x, 1e-6, 1.0, 1e-5),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: Callable[[Any], Any]) -> None:
    with pytest.raises(InputError):
        spu.jit(wrong).compile(np.zeros(3, np.float32))


# what is spent ------------------------------------------------------------------------------------------------


def test_loops_spend_as_often_as_they_run() -> None:
    def loop(x: Any) -> Any:
        step = lambda c, _: (spu.dp.laplace(c, 1.0, 0.25), None)  # noqa: E731
        return jax.lax.scan(step, x, None, length=8)[0]

    assert total(spending(loop, jnp.zeros(2)), 0) == pytest.approx(2.0)

    def forever(x: Any) -> Any:
        return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, spu.dp.laplace(c[1], 1.0, 1.0)), (x, x))

    with pytest.raises(InputError, match="unknown length"):
        spending(forever, jnp.zeros(()))


def test_many_uses_cost_less_together() -> None:
    many = [Spent("laplace", 20.0, 100)]
    assert total(many, 0) == pytest.approx(5.0)
    assert total(many, 1e-6) < 3.5


@pytest.mark.parametrize(("epsilon", "times"), [(0.1, 100), (0.5, 100), (1.0, 20), (1.0, 100), (2.0, 100)])
def test_counts_cost_what_discrete_noise_costs_together(epsilon: float, times: int) -> None:
    """Beside the exact losses of discrete Laplace noise, which continuous noise of that epsilon does not reach."""
    accountant = dp_accounting.pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(dp_accounting.dp_event.DiscreteLaplaceDpEvent(epsilon, 1), times)
    exact = accountant.get_epsilon(1e-6)
    assert exact * (1 - 1e-3) <= total([Spent("laplace", 1 / epsilon, times)], 1e-6) <= 1.08 * exact


def test_noise_of_many_elements_at_once_is_not_that_of_one() -> None:
    with pytest.raises(InputError, match="vmap"):
        jax.vmap(lambda x: spu.dp.laplace(x, 1.0, 1.0))(jnp.zeros(3))


def test_concentrated_privacy() -> None:
    for epsilon in (0.1, 1.0, 8.0):
        assert epsilon_of(rho_of(epsilon, 1e-6), 1e-6) == pytest.approx(epsilon, rel=1e-6)
    assert 0.0178 < rho_of(1.0, 1e-6) < 0.0281  # the simple bound, and what the exact Gaussian allows


# budgets ------------------------------------------------------------------------------------------------------
state = three_owners.state  # a fixture


def one(epsilon: float) -> list[Spent]:
    return [Spent("laplace", 1 / epsilon)]


def test_a_budget_is_spent_before_anything_is_shown_and_not_beyond(tmp_path: Path) -> None:
    budget = Budget(1.0, path=tmp_path / "b", unit="patient_id")
    x = np.ones(50, np.float32)
    assert abs(int(budget.reveal(lambda x: spu.dp.count(x > 0, 0.75), x)) - 50) < 40
    again = Budget(1.0, path=tmp_path / "b", unit="patient_id")
    assert again.left == pytest.approx(0.25)
    with pytest.raises(InputError, match="would spend"):
        again.reveal(lambda x: spu.dp.count(x > 0, 0.3), x)
    with pytest.raises(InputError, match="no mechanism"):
        again.reveal(lambda x: jnp.sum(x), x)
    assert [use.number for use in again.uses] == [1]


def test_a_unit_of_several_rows_costs_as_often(tmp_path: Path) -> None:
    budget = Budget(1.0, contributions=3, path=tmp_path / "b")
    assert budget.spend(one(0.3)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "arguments",
    [{"epsilon": 0}, {"epsilon": math.nan}, {"epsilon": 1, "delta": 1}, {"epsilon": 1, "contributions": 0}],
)
def test_what_is_no_budget(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Budget(**arguments, path=tmp_path / "b")


def test_a_ledger_of_another_budget_is_refused(tmp_path: Path) -> None:
    Budget(1.0, path=tmp_path / "b")
    with pytest.raises(InputError, match="another budget"):
        Budget(2.0, path=tmp_path / "b")


@pytest.mark.parametrize(
    "sql",
    [
        "delete from uses where number = 2",
        "delete from uses where number = 1",
        "update uses set spent = replace(spent, '10.0', '99.0') where number = 1",
        "update uses set label = 'x' where number = 2",
        "delete from uses",
    ],
)
def test_a_ledger_that_was_edited_is_refused(tmp_path: Path, sql: str) -> None:
    budget = Budget(1.0, path=tmp_path / "b")
    for _ in range(2):
        budget.spend(one(0.1))
    with sqlite3.connect(tmp_path / "b") as db:
        db.execute(sql)
    db.close()
    with pytest.raises(DataError):
        budget.spend(one(0.1))


def test_a_ledger_from_a_backup_or_none_at_all_is_refused(tmp_path: Path) -> None:
    budget = Budget(1.0, path=tmp_path / "b")
    budget.spend(one(0.1))
    shutil.copy(tmp_path / "b", tmp_path / "backup")
    budget.spend(one(0.5))
    shutil.copy(tmp_path / "backup", tmp_path / "b")
    with pytest.raises(DataError, match="cut or restored"):
        Budget(1.0, path=tmp_path / "b")
    (tmp_path / "b").unlink()
    with pytest.raises(DataError, match="taken away"):
        Budget(1.0, path=tmp_path / "b")


def _spend_many(path: Path) -> int:
    granted = 0
    for _ in range(20):
        try:
            Budget(1.0, path=path).spend(one(0.1))
            granted += 1
        except InputError:
            pass
    return granted


def test_many_at_once_never_overspend(tmp_path: Path) -> None:
    Budget(1.0, path=tmp_path / "b")
    with ThreadPoolExecutor(4) as pool:  # each opens the ledger anew, as another process would
        assert sum(pool.map(_spend_many, [tmp_path / "b"] * 4)) == 10
    assert Budget(1.0, path=tmp_path / "b").spent == pytest.approx(1.0)


def test_wide_noise_in_two_parts_is_one_discrete_gaussian() -> None:
    sigma = 700.3
    (one, fine), (step, coarse) = gaussian_parts(sigma)
    assert one == 1 and step > 8 and gaussian_parts(60.0) == [(1, 60.0)]

    def pmf(sigma: float, reach: int) -> np.ndarray:
        weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
        return np.asarray(weights / weights.sum())

    spread = np.zeros(2 * 9 * 700 // step * step + 1)
    spread[::step] = pmf(coarse, len(spread) // step // 2)
    both = np.convolve(pmf(fine, 700), spread)
    want = pmf(sigma, len(both) // 2)
    inside = np.abs(np.arange(len(both)) - len(both) // 2) < 5 * sigma
    assert both[inside] == pytest.approx(want[inside], rel=1e-9)
