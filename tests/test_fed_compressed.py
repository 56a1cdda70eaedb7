"""Updates of few parameters add up to whole ones, and fifty owners train among three who compute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spuvm as spu
from spuvm import fed
from spuvm.fed.compressing import random_k
from spuvm.fed.layout import layout_of
from spuvm.runtime.errors import ConfigError, InputError

OWNERS = tuple(f"site{i}" for i in range(50))
TRUE = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
START = {"w": jnp.zeros(4), "b": jnp.zeros(2)}


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=OWNERS, address="local")
    yield
    spu.shutdown()


def loss(params: Any, batch: Any) -> Any:
    return jnp.mean((batch["x"] @ params["w"] + jnp.sum(params["b"]) - batch["y"]) ** 2)


def rows(n: int, seed: int) -> dict[str, Any]:
    x = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    return {"x": x, "y": x @ TRUE + 1}


DATA = {p: rows(6 + i % 5, i) for i, p in enumerate(OWNERS)}
FEW = {p: rows(12, i) for i, p in enumerate(OWNERS[:3])}


def test_fifty_owners_of_whom_three_compute() -> None:
    one = fed.train(loss, START, optax.sgd(0.1), DATA, rounds=1, local_steps=1, seed=0)
    x, y = (np.concatenate([d[k] for d in DATA.values()]) for k in "xy")
    assert np.abs(one.params["w"] - 0.2 * x.T @ y / len(y)).max() < 1e-4  # a step of all rows at once


def test_all_of_the_parameters_are_what_they_are_without() -> None:
    options: dict[str, Any] = {"rounds": 2, "local_steps": 2, "seed": 0}
    plain = fed.train(loss, START, optax.sgd(0.1), FEW, **options)
    whole = fed.train(loss, START, optax.sgd(0.1), FEW, compress=random_k(1.0), **options)
    assert all(np.array_equal(a, b) for a, b in zip(plain.params.values(), whole.params.values()))


def test_what_waits_is_added_later_also_after_a_new_start(tmp_path: Path) -> None:
    options: dict[str, Any] = {"local_steps": 2, "seed": 0, "compress": random_k(0.5)}
    straight = fed.train(loss, START, optax.sgd(0.05), FEW, rounds=40, **options)
    assert np.abs(straight.params["w"] - TRUE).max() < 0.1
    assert any("0.5 of the parameters" in line for line in straight.learns)
    folders = {p: tmp_path / p for p in FEW}
    fed.train(loss, START, optax.sgd(0.02), FEW, rounds=3, checkpoint=folders, **options)
    resumed = fed.train(loss, START, optax.sgd(0.02), FEW, rounds=5, checkpoint=folders, **options)
    five = fed.train(loss, START, optax.sgd(0.02), FEW, rounds=5, **options)
    assert np.allclose(resumed.params["w"], five.params["w"], atol=1e-5)
    with pytest.raises(InputError, match="are of another training"):
        fed.train(
            loss, START, optax.sgd(0.02), FEW, rounds=6, checkpoint=folders, **options | {"compress": fed.top_k(0.5)}
        )


def test_positions_are_drawn_anew_and_settings_that_do_not_fit_are_refused() -> None:
    at = [random_k(0.1).positions(100, r) for r in range(200)]
    assert all(len(p) == 10 and len(set(p)) == 10 for p in at)
    assert set(np.concatenate(at)) == set(range(100))
    for share in (0, 1.5, True, "few"):
        with pytest.raises(ConfigError, match="`share` must be above 0"):
            random_k(share)  # type: ignore[arg-type]
    unfit: list[dict[str, Any]] = [{"strategy": "scaffold"}, {"aggregate": "median"}]
    for more in unfit:
        with pytest.raises(ConfigError, match="`compress` goes with"):
            fed.train(loss, START, optax.sgd(0.1), FEW, compress=random_k(0.5), **more)
    for make, value, message in ((fed.low_rank, 0, "`rank` must be"), (fed.sketch, 2, "`share` must be above 0")):
        with pytest.raises(ConfigError, match=message):
            make(value)
    with pytest.raises(ConfigError, match=r"must be spu\.fed\.random_k"):
        fed.train(loss, START, optax.sgd(0.1), FEW, compress=0.5)  # type: ignore[arg-type]


MATRIX = np.random.default_rng(5).normal(size=(12, 2)) @ np.random.default_rng(6).normal(size=(2, 9))  # of rank 2
WIDE = {"w": jnp.zeros((12, 9)), "b": jnp.zeros(9)}


def wide_loss(params: Any, batch: Any) -> Any:
    return jnp.mean((batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2)


def wide_rows(seed: int) -> dict[str, Any]:
    x = np.random.default_rng(seed).normal(size=(40, 12)).astype(np.float32)
    return {"x": x, "y": (x @ MATRIX + 1).astype(np.float32)}


@pytest.mark.parametrize(
    ("compress", "numbers", "rate"),
    [(fed.top_k(0.2), 24, 0.25), (fed.low_rank(2), 51, 0.5), (fed.sketch(0.4), 47, 0.3)],
)
def test_fewer_numbers_a_round_train_the_same_model_also_after_a_new_start(
    compress: Any, numbers: int, rate: float, tmp_path: Path
) -> None:
    data = {p: wide_rows(i) for i, p in enumerate(OWNERS[:3])}
    options: dict[str, Any] = {"local_steps": 3, "seed": 0, "compress": compress}
    straight = fed.train(wide_loss, WIDE, optax.sgd(rate), data, rounds=60, **options)
    assert np.abs(straight.params["w"] - MATRIX).max() < 0.15 and np.abs(straight.params["b"] - 1).max() < 0.15
    layout = straight.layout
    public = compress.opened(layout, compress.start(layout), 0)
    assert sum(compress.size(layout, k, public) for k in range(compress.sends)) == numbers < layout.size
    folders = {p: tmp_path / p for p in data}
    fed.train(wide_loss, WIDE, optax.sgd(rate), data, rounds=2, checkpoint=folders, **options)
    resumed = fed.train(wide_loss, WIDE, optax.sgd(rate), data, rounds=4, checkpoint=folders, **options)
    four = fed.train(wide_loss, WIDE, optax.sgd(rate), data, rounds=4, **options)
    assert np.allclose(resumed.params["w"], four.params["w"], atol=1e-5)


def test_what_is_left_and_what_was_added_are_the_whole_update() -> None:
    layout = layout_of(WIDE)
    update = np.random.default_rng(0).normal(size=layout.size).astype(np.float32)
    ways: list[Any] = [fed.random_k(0.3), fed.top_k(0.3), fed.low_rank(2), fed.sketch(0.3)]
    for how in ways:
        state = how.start(layout)
        public = how.opened(layout, state, 1)
        for number in range(how.sends):
            mean = how.message(layout, number, public, update)
            assert np.abs(mean).max() <= how.largest(layout, update) * (1 + 1e-6)
            public = how.heard(layout, number, public, mean)
        at, added = how.result(layout, state, public, mean)
        whole = how.left(layout, public, update)
        whole[at] += added
        assert np.allclose(whole, update, atol=1e-5)
