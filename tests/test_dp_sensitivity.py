"""What one row changes: never less than what it does, and as much as can be proved where the function is followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm import dp
from spuvm.dp import check, private, spending
from spuvm.dp.proving import LARGER, PROVED, STATED
from spuvm.runtime.errors import InputError

X = np.random.default_rng(0).normal(0, 30, (50, 3)).astype(np.float32)
AGE = np.random.default_rng(1).uniform(0, 90, 50).astype(np.float32)
CODE = np.random.default_rng(2).integers(0, 4, 50).astype(np.int32)
SHIFTS = np.tile(np.arange(4, dtype=np.int32), (50, 1))  # so that one code is equal to all four
WEIGHTS = np.array([[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]], np.float32)

FOLLOWED: list[tuple[Callable[..., Any], Any, float]] = [
    (lambda x: jnp.sum(jnp.clip(x, -2, 5)), AGE, 5),
    (lambda x: jnp.sum(x > 65), AGE, 1),
    (lambda x: jnp.sum(jnp.clip(x, 0, 7)), CODE, 7),
    (lambda x: jnp.mean(jnp.clip(x, 0, 100)), AGE, 2),
    (lambda x: jnp.sum(jnp.where(x > 18, jnp.clip(x, 0, 10), 0)), AGE, 10),
    (lambda x: 3 * jnp.sum(jnp.clip(x, 0, 10)) - jnp.sum(x > 3), AGE, 31),
    (lambda x: jnp.sum(x[:, None] == jnp.arange(4), axis=0), CODE, 1),
    (lambda x: jnp.sum(jax.nn.one_hot(x, 4), axis=0), CODE, 1),
    (lambda x: jnp.zeros(4).at[x].add(1.0), CODE, 1),
    (lambda x: jnp.sum(jnp.clip(x, -1, 1), axis=0), X, 3),
    (lambda x: jnp.sum(jnp.clip(x, -1, 1) @ WEIGHTS, axis=0), X, 12),
    (lambda x: jnp.sum(jnp.clip(x, -1, 1), axis=0) @ WEIGHTS, X, 12),
    (lambda x: jnp.clip(x, -1, 1).T @ jnp.clip(x, 0, 1), X, 9),
    (lambda x: jnp.sum(jnp.clip(x, -3, 2) ** 2), AGE, 9),
    (lambda x: jnp.concatenate([jnp.sum(x > 1.0)[None], jnp.sum(x > 60.0)[None]]), AGE, 2),
    (lambda x: jnp.max(jnp.clip(x, 0, 5)), AGE, 5),
    (lambda x: jnp.sum(x), AGE, float("inf")),
    (lambda x: jnp.sum(jnp.clip(x, 0, 1)) ** 2, AGE, float("inf")),
    (lambda x: jnp.sum(jnp.sort(jnp.clip(x, 0, 1))), AGE, float("inf")),
    (lambda x: jax.lax.div(jnp.sum(x[:, None] > jnp.arange(4), axis=0), np.full(4, 4, np.int32)), CODE, float("inf")),
    (lambda x: jnp.sum(jax.lax.div(jnp.clip(x, 0, 7), np.full(x.shape, 2, np.int32))), CODE, 3.5),
    (lambda x: jnp.sum((jnp.clip(x, 0, 0.01) != 0).astype(jnp.float32)), AGE, 1),
    (lambda x: jnp.sum(jax.lax.convert_element_type(jnp.clip(x, 0, 0.01), jnp.bool_)), AGE, 1),
    (lambda x: jnp.sum(jnp.clip(x - 2, -1, 1).astype(jnp.uint8).astype(jnp.int32)), CODE, float("inf")),
    (lambda x: jnp.sum((x.astype(jnp.uint32).clip(0, 1) - jnp.uint32(1)).astype(jnp.float32)), CODE, float("inf")),
    (lambda x: jnp.sum(x[:, None] + SHIFTS[: len(x)] == jnp.arange(4), axis=0), CODE, 4),
]


@pytest.mark.parametrize(("function", "x", "want"), FOLLOWED)
def test_what_is_followed(function: Callable[..., Any], x: np.ndarray, want: float) -> None:
    """The bound is as stated, and no row that is taken out changes the value by more."""
    (found,) = check(lambda x: spu.dp.laplace(function(x), epsilon=1.0), x).findings
    assert found.proved == pytest.approx(want)
    value: Callable[[Any], np.ndarray] = lambda rows: np.asarray(function(rows), np.float64)  # noqa: E731
    before = value(x)
    for i in range(8):
        scale = (len(x) - 1) / len(x) if "mean" in str(function.__code__.co_names) else 1
        after = value(np.delete(x, i, 0)) * scale  # shapes are the same for both
        assert np.abs(before - after).sum() <= want * (1 + 1e-5)


def test_gaussian_noise_is_held_against_the_euclidean_change() -> None:
    for stated, word in ((3.0**0.5 + 1e-3, PROVED), (1.0, LARGER)):
        (found,) = check(lambda x, s=stated: spu.dp.gaussian(jnp.sum(jnp.clip(x, -1, 1), 0), s, 1.0, 1e-5), X).findings
        assert found.status == word


def test_words_for_what_is_proved_and_what_is_not() -> None:
    def mixed(x: Any) -> Any:
        a = spu.dp.laplace(jnp.sum(x), 5.0, 1.0)
        b = spu.dp.count(x > 3, 1.0)
        return a, b, jnp.max(x), a * 2 + b

    found = check(mixed, AGE)
    assert [f.status for f in found.findings] == [STATED, PROVED]
    assert found.leaks == (2,)
    assert not found.ok
    assert "test_dp_sensitivity.py" in str(found) and "result 2 is shown without noise" in str(found)


def test_all_of_the_packages_own_mechanisms_are_proved() -> None:
    def own(x: Any, code: Any) -> Any:
        return (
            spu.dp.sum(x, -3, 9, 1.0), spu.dp.sum(code, 0, 3, 1.0), spu.dp.mean(x, 0, 100, 1.0),
            spu.dp.histogram(x, [0, 30, 60, 99], 1.0),
            spu.dp.noisy_max(jnp.sum(code[:, None] == jnp.arange(4), 0).astype(jnp.float32), 1.0, 1.0),
        )  # fmt: skip

    assert check(own, AGE, CODE).ok, str(check(own, AGE, CODE))


def test_what_is_revealed_within_is_shown(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPUVM_STATE_DIR", str(tmp_path))

    def hidden(x: Any) -> Any:
        largest = spu.reveal(jnp.max(jnp.clip(x, 0, 100)))
        return spu.dp.count(x > 50, 1.0) + 0 * largest.astype(jnp.int32)

    found = check(hidden, AGE)
    assert not found.ok and "test_dp_sensitivity.py" in found.opened[0] and "revealed without noise" in str(found)
    budget = spu.dp.Budget(10.0, path=tmp_path / "b")
    with pytest.raises(InputError, match="without noise"):
        budget.reveal(hidden, AGE)
    assert not budget.uses
    assert check(lambda x: spu.reveal(spu.dp.count(x > 50, 1.0)), AGE).ok


def test_loops_are_the_callers_word() -> None:
    def loop(x: Any) -> Any:
        return jax.lax.scan(lambda c, _: (spu.dp.laplace(c, 1.0, 1.0), None), jnp.sum(x), None, length=3)[0]

    found = check(loop, AGE)
    assert [f.status for f in found.findings] == [STATED]
    assert found.leaks == ()


def test_loops_that_never_run_spend_nothing() -> None:
    def never(x: Any) -> Any:
        return jax.lax.scan(lambda c, _: (spu.dp.laplace(c, 1.0, 1.0), None), jnp.sum(x), None, length=0)[0]

    assert spending(never, AGE) == []


def test_open_sensitivities_are_filled_in_or_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPUVM_STATE_DIR", str(tmp_path))

    def report(x: Any) -> Any:
        return spu.dp.laplace(jnp.sum(jnp.clip(x, 0, 2)), epsilon=4.0), spu.dp.laplace(jnp.sum(x > 1), epsilon=2.0)

    assert [s.epsilon for s in spending(private(report), AGE)] == pytest.approx([4.0, 2.0])
    budget = spu.dp.Budget(10.0, path=tmp_path / "b")
    clipped, _ = budget.reveal(report, AGE)
    assert clipped == pytest.approx(np.clip(AGE, 0, 2).sum(), abs=8)
    assert budget.spent == pytest.approx(6.0)
    with pytest.raises(InputError, match="clip the rows"):
        budget.reveal(lambda x: spu.dp.laplace(jnp.sum(x), epsilon=1.0), AGE)
    with pytest.raises(InputError, match="without noise"):
        budget.reveal(lambda x: (spu.dp.count(x > 1, 1.0), x[0]), AGE)
    with pytest.raises(InputError, match="state it, or let it be proved"):
        spu.jit(lambda x: spu.dp.laplace(jnp.sum(x), epsilon=1.0)).compile(AGE)
    assert len(budget.uses) == 1


def test_the_programs_text_says_whose_word_it_is() -> None:
    def both(x: Any) -> Any:
        return spu.dp.laplace(jnp.sum(x), 5.0, 1.0), spu.dp.count(x > 3, 2.0)

    text = spu.jit(both).compile(AGE).text
    assert "laplace, sensitivity 5 stated, epsilon 1" in text
    assert "laplace, sensitivity 1 proved, epsilon 2" in text


def test_rows_that_a_function_contains_are_not_taken_for_an_argument() -> None:
    """They are constants, which no row changes: there would be no noise."""
    with pytest.raises(InputError, match=r"no row changes what gets noise here.*pass rows as arguments"):
        spending(private(lambda x: spu.dp.laplace(jnp.sum(jnp.clip(AGE, 0, 90)), epsilon=1.0)), AGE)
    with pytest.raises(InputError, match="noise within what JAX differentiates"):
        spending(private(jax.grad(lambda x: spu.dp.laplace(jnp.sum(jnp.clip(x, 0, 90)), epsilon=1.0))), AGE)


WRAPPING: dict[str, Callable[[Any], Any]] = {
    "bytes": lambda x: jnp.sum(x >= 0, dtype=jnp.uint8).astype(jnp.float32),
    "signed": lambda x: jnp.sum(x >= 0, dtype=jnp.int8).astype(jnp.int32),
    "scaled": lambda x: (jnp.sum((x >= 0).astype(jnp.uint32)) * jnp.uint32(2**31)).astype(jnp.float32),
    "large": lambda x: jnp.sum(jnp.clip(x.astype(jnp.int32), 0, 2**30)).astype(jnp.float32),
    "less": lambda x: (jnp.uint32(0) - jnp.sum((x >= 0).astype(jnp.uint32))).astype(jnp.float32),
}


@pytest.mark.parametrize("name", WRAPPING)
def test_a_total_that_wraps_around_has_no_bound_in_a_wider_type(name: str) -> None:
    """A row more turns 255 into 0, which noise for a change of 1 does not hide."""
    one = np.ones(300, np.float32)
    found = dp.check(lambda x: dp.laplace(WRAPPING[name](x), epsilon=1.0), one)
    assert found.findings[0].proved == np.inf
    held = dp.check(lambda x: dp.laplace(jnp.sum(x >= 0, dtype=jnp.uint16).astype(jnp.float32), epsilon=1.0), one)
    assert held.findings[0].proved == 1


NO_ROWS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "mask": (lambda x: dp.count(x.reshape(-1) > 0, 1.0), "by an amount that cannot be followed"),
    "one of them": (lambda x: dp.mean(jnp.broadcast_to(x[:1, 0], (50,)), 0, 1, 1.0), "row by row"),
    "repeated": (lambda x: dp.sum(jnp.tile(x[:1, 0], 50), 0, 1, 1.0), "use `laplace` with a `sensitivity`"),
    "bins": (lambda x: dp.histogram(jnp.broadcast_to(x[:1, 0], (50,)), [0, 1, 2], 1.0), "cannot be followed"),
    "values": (lambda x: dp.count(x[:, 0], 1.0), r"`mask` must be bools \[rows\]"),
    "two axes": (lambda x: dp.count(x > 0, 1.0), r"got bool of shape \(9, 7\)"),
    "weights": (lambda x: dp.sum(x[:, 0], 0, 1, 1.0, where=x[:, 1]), r"`where` must be bools of shape \(9,\)"),
    "nothing": (lambda x: dp.noisy_max(x[:0, 0], 1.0, 1.0), "`scores` is empty"),
}


@pytest.mark.parametrize("name", NO_ROWS)
def test_counts_and_sums_are_of_rows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPUVM_STATE_DIR", str(tmp_path))
    function, says = NO_ROWS[name]
    budget = dp.Budget(epsilon=9, delta=1e-6, unit="row", contributions=1, path=tmp_path / "ledger")
    with pytest.raises(InputError, match=says):
        budget.reveal(function, np.ones((9, 7), np.float32))
    assert budget.spent == 0


def test_a_quantile_is_proved_of_rows() -> None:
    candidates = np.arange(0, 90, 10.0)
    assert check(lambda x: dp.quantile(jnp.sqrt(x), 0.5, candidates, 1.0), AGE).findings[0].status == PROVED
    assert check(lambda x: dp.quantile(jnp.sort(x), 0.5, candidates, 1.0), AGE).findings[0].status == STATED


def test_functions_of_single_rows_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPUVM_STATE_DIR", str(tmp_path))
    budget = dp.Budget(epsilon=9e3, delta=1e-6, unit="row", contributions=1, path=tmp_path / "ledger")
    x = np.linspace(0.5, 8, 30, dtype=np.float32)
    for function, want in (
        (lambda x: dp.sum(jnp.log1p(jnp.sqrt(x)), 0, 4, 1e3), np.log1p(np.sqrt(x)).sum()),
        (lambda x: dp.count((jnp.sin(x) > 0) ^ (x % 2 > 1), 1e3), ((np.sin(x) > 0) ^ (x % 2 > 1)).sum()),
    ):
        assert abs(float(budget.reveal(function, x)) - want) < 0.1
    with pytest.warns(UserWarning, match="0.001 is stated, and a row may change this by 8"):
        budget.reveal(lambda x: dp.laplace(jnp.sum(dp.clip(x, 0, 8)), sensitivity=1e-3, epsilon=1.0), x)
