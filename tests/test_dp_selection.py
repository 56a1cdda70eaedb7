"""Quantiles, thresholds and groups: right with much epsilon, private in what they spend, refused without sense."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.dp import Budget, check, spending
from spuvm.dp.selection import threshold
from spuvm.dp.spending import DELTA, total
from spuvm.runtime.errors import InputError

X = np.arange(200, dtype=np.float32)
COUNTS = np.array([500, 1, 0, 300, 2], np.int32)


def run(function: Callable[[Any], Any], x: np.ndarray) -> Any:
    return spu.reveal(spu.jit(function, protocol="ref2k")(x))


def test_what_is_chosen() -> None:
    def everything(x: Any) -> Any:
        return (
            spu.dp.quantile(x, 0.5, [10, 60, 98, 140, 190], 50.0),
            spu.dp.quantile(x, 1.0, [10, 60, 98, 140, 190], 50.0),
            spu.dp.above_threshold(x[:6] * 100, 250.0, 1.0, 20.0),
            spu.dp.above_threshold(x[:6], 900.0, 1.0, 20.0),
        )

    middle, top, first, none = run(everything, X)
    assert [float(middle), float(top), int(first), int(none)] == [98, 190, 3, 6]
    assert total(spending(everything, X), 0) == pytest.approx(140.0)
    found = check(lambda x: spu.dp.quantile(x, 0.5, [10.0, 60.0], 1.0), X)
    assert found.leaks == ()


def test_groups_of_few_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPUVM_STATE_DIR", str(tmp_path))
    kept, counts = run(lambda c: spu.dp.groups(c, 1.0, 1e-6), COUNTS)
    assert kept.tolist() == [True, False, False, True, False]
    assert counts[~kept].tolist() == [0, 0, 0]
    assert np.abs(counts - COUNTS)[kept].max() < 30
    spent = spending(lambda c: spu.dp.groups(c, 1.0, 1e-6), COUNTS)
    assert [s.mechanism for s in spent] == ["laplace", DELTA]
    assert total(spent, 1e-5) == pytest.approx(1.0)
    assert total(spent, 1e-7) == math.inf
    budget = Budget(5.0, 2.5e-6, path=tmp_path / "b")
    budget.spend(spent * 2)
    with pytest.raises(InputError, match="epsilon inf"):
        budget.spend(spent)


def test_groups_are_proved_of_counts_alone_and_by_what_the_ledgers_units_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPUVM_STATE_DIR", str(tmp_path))
    codes = np.array([0, 1, 1, 2], np.int32)

    def grouped(x: Any, each: int = 1, contributions: int = 1) -> Any:
        return spu.dp.groups(jnp.zeros(3, jnp.int32).at[x].add(each), 1.0, 1e-6, contributions)

    assert check(grouped, codes).ok and check(lambda x: grouped(x, 1, 3), codes).ok
    assert not check(lambda x: grouped(x, 1000), codes).ok
    budget = Budget(100.0, 1e-3, unit="patient", contributions=3, path=tmp_path / "b")
    with pytest.raises(InputError, match=r"one patient of this ledger may have 3 rows"):
        budget.reveal(grouped, codes)
    assert not budget.uses
    budget.reveal(lambda x: grouped(x, 1, 3), codes, run=lambda f: spu.jit(f, protocol="ref2k"))
    assert budget.spent == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize("contributions", [1, 3])
def test_one_unit_alone_reaches_the_threshold_with_delta_at_most(contributions: int) -> None:
    epsilon, delta = 0.5, 1e-3
    q = math.exp(-epsilon / contributions)
    least = threshold(epsilon, delta, contributions)
    reached = q ** (least - contributions) / (1 + q)
    assert contributions * reached <= delta < contributions * reached / q * 1.0001


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: spu.dp.quantile(x, 1.5, [1, 2], 1.0),
        lambda x: spu.dp.quantile(x, 0.5, [2, 1], 1.0),
        lambda x: spu.dp.quantile(x[:, None], 0.5, [1, 2], 1.0),
        lambda x: spu.dp.above_threshold(x, 1.0, 0.0, 1.0),
        lambda x: spu.dp.above_threshold(x, 1.0, 1.0, -1.0),
        lambda x: spu.dp.groups(x, 1.0, 0.0),
        lambda x: spu.dp.groups(x, 1.0, 1e-6, contributions=0),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: Callable[[Any], Any]) -> None:
    with pytest.raises(InputError):
        spu.jit(wrong, protocol="ref2k").compile(X)
