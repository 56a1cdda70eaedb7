"""Federated learning equals what it should: central steps, strategies by their papers, robust rules, who attends."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

import spuvm as spu
from spuvm import fed
from spuvm.context import current
from spuvm.fed import words
from spuvm.fed.aggregates import total
from spuvm.runtime.errors import ConfigError, DataError, InputError, PeerMismatchError, PublicError, SpuError

PARTIES = ("alice", "bob", "carol")
MANY = tuple(f"site{i}" for i in range(10))
START = {"w": jnp.zeros(4), "b": jnp.zeros(())}


@pytest.fixture(scope="module", autouse=True)
def _end() -> Iterator[None]:
    yield
    spu.shutdown()


@pytest.fixture
def three() -> None:
    among(PARTIES)


@pytest.fixture
def ten() -> None:
    among(MANY)


def among(parties: tuple[str, ...]) -> None:
    """A session of these parties, which goes on if it is there: what was compiled is kept."""
    context = current()
    if context is None or context.parties != parties:
        spu.init(parties=parties, address="local")


def loss(params: Any, batch: Any) -> Any:
    return jnp.mean((batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2)


def rows(n: int, seed: int, shift: float = 0.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32) + np.float32(shift)
    return {"x": x, "y": (x @ np.array([1.0, -2.0, 0.5, 3.0]) + 1 + rng.normal(size=n) * 0.1).astype(np.float32)}


DATA = {p: rows(n, n) for p, n in zip(PARTIES, (20, 50, 30))}


def joined(data: dict[str, Any]) -> dict[str, Any]:
    return {k: np.concatenate([d[k] for d in data.values()]) for k in "xy"}


def central(rounds: int, rate: float, start: Any = START) -> Any:
    params = start
    for _ in range(rounds):
        params = jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params, joined(DATA)))
    return params


# the same as central training ---------------------------------------------------------------------------------


def test_one_local_step_is_a_central_step_within_fixed_point(three: None) -> None:
    model = fed.train(loss, START, optax.sgd(0.1), DATA, rounds=8, eval=lambda p, b: {"mse": loss(p, b)})
    want = central(8, 0.1)
    units = 8 * 2 / 2.0**words.FRACTION_BITS  # half a unit a party and round, and float32
    for got, expected in zip(jax.tree.leaves(model.params), jax.tree.leaves(want)):
        assert np.abs(np.asarray(got) - np.asarray(expected)).max() < units
    assert model.history[-1]["mse"] == pytest.approx(float(loss(want, joined(DATA))), rel=1e-4)
    assert model.history[0]["mse"] == pytest.approx(float(loss(START, joined(DATA))), rel=1e-5)
    assert "not how many anybody has" in " ".join(model.learns)


def test_equal_weights_are_a_mean_of_the_parties(three: None) -> None:
    model = fed.train(loss, START, optax.sgd(0.1), DATA, rounds=1, weights="equal")
    slopes = [jax.grad(loss)(START, d)["w"] for d in DATA.values()]
    assert np.abs(model.params["w"] + 0.1 * np.mean(slopes, axis=0)).max() < 1e-5


def test_a_parameter_costs_eight_bytes_a_party(three: None) -> None:
    device = spu.SPU(spu.utils.testing.cluster_def(PARTIES, {"field": "FM32"}))
    xs = [{"body": spu.PYU(p)(lambda: np.zeros(1000, np.int32))()} for p in PARTIES]
    cost = device(total).cost(*xs)
    assert cost.rounds == 2
    assert (cost.bytes_sent <= 8 * 1000).all()


# strategies ---------------------------------------------------------------------------------------------------


def test_control_variates_reach_the_common_optimum_and_plain_averages_do_not(three: None) -> None:
    """Three quadratics of different curvature, many local steps: the drift that SCAFFOLD is for."""
    curved = {"alice": (1.0, 4.0), "bob": (8.0, -1.0), "carol": (3.0, 1.0)}
    data = {p: np.array([c], np.float32) for p, c in curved.items()}

    def bowl(params: Any, batch: Any) -> Any:
        return jnp.mean(batch[:, 0] * (params - batch[:, 1]) ** 2)

    best = sum(a * b for a, b in curved.values()) / sum(a for a, _ in curved.values())
    at = {
        name: float(
            fed.train(bowl, jnp.zeros(()), optax.sgd(0.02), data, rounds=25, local_steps=8, strategy=name).params
        )
        for name in ("fedavg", "scaffold", fed.strategy("fedprox", proximal=5.0))
    }
    fedavg, scaffold, prox = at.values()
    assert abs(scaffold - best) < 1e-3
    assert abs(fedavg - best) > 0.3
    assert abs(prox - best) < abs(fedavg - best)


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_server_steps_are_the_papers(name: str) -> None:
    how = fed.strategy(name)
    state = how.start(3, np.dtype(np.float64))
    rng = np.random.default_rng(1)
    m, v = np.zeros(3), np.full(3, how.tau**2)
    for _ in range(4):
        d = rng.normal(size=3)
        got = how.step(state, slice(0, 3), d)
        m = how.beta1 * m + (1 - how.beta1) * d if how.beta1 else d
        v = {
            "adam": how.beta2 * v + (1 - how.beta2) * d**2,
            "yogi": v - (1 - how.beta2) * d**2 * np.sign(v - d**2),
            "adagrad": v + d**2,
            None: v,
        }[how.second]
        want = how.rate * m if how.second is None else how.rate * m / (np.sqrt(v) + how.tau)
        assert got == pytest.approx(want, rel=1e-9)


# models ---------------------------------------------------------------------------------------------------------


def test_models_of_flax_and_of_equinox(three: None) -> None:
    import equinox
    import flax.linen as nn

    net = nn.Dense(1)
    start = net.init(jax.random.key(0), jnp.zeros((1, 4)))
    data = {p: (d["x"], d["y"]) for p, d in DATA.items()}
    model = fed.train(
        lambda p, b: jnp.mean((jnp.asarray(net.apply(p, b[0]))[:, 0] - b[1]) ** 2), start, optax.adam(0.1), data,
        rounds=2, local_steps=3, batch_size=8, seed=0,
    )  # fmt: skip
    assert str(jax.tree.structure(model.params)) == str(jax.tree.structure(start))
    mlp = equinox.nn.MLP(4, "scalar", 3, 1, key=jax.random.key(1))
    trained = fed.train(
        lambda m, b: jnp.mean((jax.vmap(m)(b[0]) - b[1]) ** 2), mlp, optax.sgd(0.05), data, rounds=2, batch_size=8
    ).params
    assert np.shape(trained(jnp.ones(4))) == ()
    assert np.abs(trained.layers[0].weight - mlp.layers[0].weight).max() > 0


def test_personal_layers_stay(three: None) -> None:
    start = {"body": {"w": jnp.zeros(4)}, "head": {"b": jnp.zeros(())}}
    shifted = {p: {**d, "y": d["y"] + 10 * i} for i, (p, d) in enumerate(DATA.items())}

    def own(params: Any, batch: Any) -> Any:
        return jnp.mean((batch["x"] @ params["body"]["w"] + params["head"]["b"] - batch["y"]) ** 2)

    model = fed.train(own, start, optax.sgd(0.1), shifted, rounds=15, local_steps=4, personal="head", eval=own)
    heads = [spu.reveal(model.at(p))["head"]["b"] for p in PARTIES]
    assert heads == pytest.approx([1, 11, 21], abs=0.6)
    assert float(model.params["head"]["b"]) == 0
    assert model.layout.size == 4
    assert model.history[-1]["metric"] < 0.1
    with pytest.raises(InputError, match="took no part"):
        model.at("dave")


def test_data_of_any_kind(three: None, tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [1.0, 2.0, 3.0], "y": [2.0, 4.0, 6.0]})
    table.to_parquet(tmp_path / "t.parquet")

    def endless() -> Iterator[Any]:
        while True:
            yield {"a": np.array([1.0, 2.0], np.float32), "y": np.array([2.0, 4.0], np.float32)}

    model = fed.train(
        lambda p, b: jnp.mean((p * b["a"] - b["y"]) ** 2), jnp.zeros(()), optax.sgd(0.05),
        {"alice": table, "bob": str(tmp_path / "t.parquet"), "carol": endless}, rounds=30, weights="equal",
    )  # fmt: skip
    assert float(model.params) == pytest.approx(2, abs=0.01)


def test_an_estimator_goes_through_the_same_door(three: None) -> None:
    class Estimator:
        def fit(self, frame: Any, label: str) -> Any:
            return frame.kind, frame.rows, label

    data = {p: pd.DataFrame({"a": [1.0, 2.0], "y": [0, 1]}) for p in PARTIES}
    assert fed.train(Estimator(), data=data, label="y") == ("horizontal", 6, "y")


# parties ----------------------------------------------------------------------------------------------------------


def test_ten_owners_who_come_late_leave_and_return(ten: None) -> None:
    data = {p: rows(8, i) for i, p in enumerate(MANY)}
    attend: dict[str, Callable[[int], bool]] = {
        "site0": lambda r: r >= 2,
        "site1": lambda r: r != 1,
        **{p: (lambda r: r != 3) for p in MANY[2:]},
        "site9": lambda r: r == 3,
    }
    model = fed.train(loss, START, optax.sgd(0.1), data, rounds=5, attend=attend, min_parties=4, eval=loss)
    assert [h["parties"] for h in model.history] == [8, 7, 9, 3, 9, 10]
    assert "skipped" in model.history[3] and "metric" not in model.history[3]
    assert model.history[-1]["metric"] < model.history[0]["metric"]


@pytest.mark.parametrize("aggregate", [fed.median(), fed.trimmed(2), fed.clipped(1.0), fed.krum(2, keep=3)])
def test_two_poisoned_updates_of_ten_do_no_harm(ten: None, aggregate: fed.Rule) -> None:
    """The rule on secret updates is what it is in the clear, and near what the eight honest ones say."""
    rng = np.random.default_rng(0)
    updates = rng.normal(0.3, 0.1, (10, 6)).astype(np.float32)
    honest = updates[2:].mean(0)
    updates[:2] *= [[-500.0], [900.0]]
    device = spu.SPU(spu.utils.testing.cluster_def(MANY[:3]))
    got = spu.reveal(device(aggregate)(*(spu.PYU(p)(lambda i=i: updates[i])() for i, p in enumerate(MANY))))
    with jax.enable_x64(True):
        want = np.asarray(aggregate.combine(jnp.asarray(updates, jnp.float64)))
    assert np.abs(got - want).max() < 0.01
    assert np.abs(updates.mean(0) - honest).max() > 5
    assert np.abs(want - honest).max() < 0.25


@pytest.mark.parametrize("aggregate", [fed.clipped(1.0), fed.krum(1)])
def test_an_update_beyond_all_bounds_does_not_wrap_around(three: None, aggregate: fed.Rule) -> None:
    """Squares of what is far too large would look small, and pass."""
    five = [np.full(4, v, np.float32) for v in (0.1, 0.2, 0.15, 3e7, 0.12)]
    got = spu.reveal(spu.jit(lambda *x: aggregate(*x))(*five))
    assert np.abs(got).max() < 0.5


def test_a_rule_in_training(ten: None) -> None:
    data = {p: rows(12, i) for i, p in enumerate(MANY)}
    for p in MANY[:2]:
        data[p]["y"] = -40 * data[p]["y"]
    kept = fed.train(loss, START, optax.sgd(0.1), data, rounds=4, local_steps=3, aggregate=fed.clipped(2.0))
    test = rows(50, 99)
    assert float(loss(kept.params, test)) < 6 < float(loss(START, test))
    plain = np.mean(
        [jax.grad(loss)(START, d)["w"] for d in data.values()], axis=0
    )  # without a rule: one step goes away
    assert float(loss({**START, "w": -0.3 * plain}, test)) > 50


def test_updates_that_are_no_numbers(three: None, caplog: pytest.LogCaptureFixture) -> None:
    def broken(params: Any, batch: Any) -> Any:
        return loss(params, batch) * jnp.where(batch["x"][0, 0] > 90, jnp.nan, 1.0)

    data = {**DATA, "bob": {"x": DATA["bob"]["x"] + np.float32(100), "y": DATA["bob"]["y"]}}
    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match="1 with NaN") as caught:
        fed.train(broken, START, optax.sgd(0.01), data, rounds=2)
    assert not any(p in str(caught.value) for p in PARTIES)
    assert "bob: this party's update is left out" in caplog.text
    model = fed.train(broken, START, optax.sgd(0.1), data, rounds=2, bad="leave out")
    without = fed.train(loss, START, optax.sgd(0.1), {p: DATA[p] for p in ("alice", "carol")}, rounds=2)
    assert [h["left_out"] for h in model.history] == [1, 1]
    assert np.abs(model.params["w"] - without.params["w"]).max() < 1e-5
    far = {**DATA, "bob": {"x": DATA["bob"]["x"], "y": DATA["bob"]["y"] * np.float32(1e6)}}
    with pytest.raises(InputError, match="1 with numbers beyond"):
        fed.train(loss, START, optax.sgd(0.1), far, rounds=1)
    with pytest.raises(InputError, match="2 with NaN"):
        fed.train(broken, START, optax.sgd(0.1), {**data, "carol": data["bob"]}, rounds=1)
    alone = fed.train(broken, START, optax.sgd(0.1), {**data, "carol": data["bob"]}, rounds=1, bad="leave out")
    assert alone.history[0]["skipped"] == 1 and np.abs(alone.params["w"]).max() == 0


# checkpoints --------------------------------------------------------------------------------------------------


def test_a_training_goes_on_where_it_was(three: None, tmp_path: Path) -> None:
    def go(rounds: int, folder: Path | None, **more: Any) -> fed.Model:
        model = fed.train(
            loss, START, optax.adam(0.05), {**DATA, **more.pop("data", {})}, rounds=rounds, local_steps=2,
            strategy="scaffold", personal="b", keep_optimizer=True, checkpoint=folder, eval=loss, seed=3, **more,
        )  # fmt: skip
        assert isinstance(model, fed.Model)
        return model

    whole = go(4, None)
    go(3, tmp_path)
    (tmp_path / "bob" / "round3.npz").unlink()  # killed before its last one was written
    again = go(4, tmp_path)
    assert np.array_equal(whole.vector, again.vector)
    assert [h["metric"] for h in whole.history] == pytest.approx([h["metric"] for h in again.history])
    assert spu.reveal(again.at("bob"))["b"] == spu.reveal(whole.at("bob"))["b"]
    assert sorted(f.name for f in (tmp_path / "bob").iterdir()) == ["round3.npz", "round4.npz"]
    with pytest.raises(InputError, match="another training"):
        fed.train(loss, START, optax.sgd(0.1), DATA, rounds=1, checkpoint=tmp_path)
    file = tmp_path / "alice" / "round4.npz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match="damaged"):
        go(5, tmp_path)


# words --------------------------------------------------------------------------------------------------------


def test_sums_of_words_do_not_wrap() -> None:
    for parties in (2, 3, 50, 32767):
        most = words.limit(parties, 20)
        top = words.quantised(np.array([most, -most], np.float64), 20)
        assert abs(int(top[0])) * parties < 1 << 31
    values = [0, 1, -1, (1 << 59) + 12345, -(1 << 59) - 7, 32767, -32768]
    sums = np.zeros((len(values), 4), np.int64)
    for _ in range(1000):
        sums += words.digits(values)
    assert abs(sums).max() < 1 << 31
    assert words.numbers(sums) == [1000 * v for v in values]


# bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"strategy": "fedfoo"}, "must be one of fedavg"),
        ({"strategy": fed.STRATEGIES["scaffold"], "aggregate": "median"}, "needs the sum"),
        ({"aggregate": "mean"}, "must be 'secure'"),
        ({"aggregate": fed.trimmed(2)}, "needs 5 parties"),
        ({"rounds": -1}, "`rounds`"),
        ({"local_steps": 0}, "`local_steps`"),
        ({"batch_size": 2.5}, "`batch_size`"),
        ({"bad": "ignore"}, "`bad`"),
        ({"optimizer": None}, "`optimizer`"),
        ({"params": {"w": np.arange(3)}}, "no array of floats"),
        ({"params": {"w": np.array([np.nan])}}, "NaN"),
        ({"params": {"w": np.zeros(2, np.complex64)}}, "complex"),
        ({"personal": "tail"}, "'tail'"),
        ({"data": {"alice": DATA["alice"]}}, "2 parties"),
        ({"data": {**DATA, "dave": None}}, "dave"),
        ({"data": {**DATA, "bob": None}}, "None"),
        ({"data": {**DATA, "bob": {"x": np.zeros((3, 4)), "y": np.zeros(2)}}}, "first axis"),
        ({"data": {**DATA, "bob": {"x": np.zeros((0, 4)), "y": np.zeros(0)}}}, "no rows"),
        ({"data": {**DATA, "bob": {"x": np.full((3, 4), np.nan), "y": np.zeros(3)}}}, "12 numbers that are NaN"),
        ({"data": {**DATA, "bob": {"x": np.array([["a"]])}}}, "only numbers"),
        (
            {"data": {**DATA, "bob": {"x": np.zeros((3, 5), np.float32), "y": np.zeros(3, np.float32)}}},
            "different forms",
        ),
        ({"attend": {"dave": bool}}, "dave"),
        ({"eval": lambda p, b: b["y"]}, "must return numbers"),
        ({"loss": lambda p, b: b["x"] @ p["w"]}, "one number"),
        ({"data": {**DATA, "bob": iter([DATA["bob"]])}, "rounds": 2}, "has ended"),
    ],
)
def test_bad_input_is_one_error(three: None, change: dict[str, Any], match: str) -> None:
    arguments = {"loss": loss, "params": START, "optimizer": optax.sgd(0.1), "data": DATA, "rounds": 1, **change}
    with pytest.raises((ConfigError, DataError, InputError, PublicError, TypeError), match=match) as caught:
        fed.train(**arguments)
    assert isinstance(caught.value, SpuError)


@pytest.mark.parametrize("wrong", [lambda: fed.clipped(0.0), lambda: fed.krum(-1), lambda: fed.krum(1, 0)])
def test_rules_that_make_no_sense(wrong: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError):
        wrong()


def test_what_peers_say_is_checked() -> None:
    from spuvm.fed.meeting import _checked

    assert _checked(json.dumps({"bob": True}).encode(), "bob", bool) is True
    for body in (b"[]", b"{}", b"\xff", b'{"bob": "yes"}', b"[" * 100000):
        with pytest.raises(PeerMismatchError):
            _checked(body, "bob", bool)
