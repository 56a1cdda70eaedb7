"""Split learning: towers at parties and a top elsewhere train what one net in the clear does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spuvm as spu
from spuvm import fed
from spuvm.context import current
from spuvm.fed.split import _same_norms
from spuvm.runtime.errors import ConfigError, InputError, PublicError, SpuError

PARTIES = ("alice", "bob", "carol")
RNG = np.random.default_rng(0)
X = {"alice": RNG.normal(size=(32, 3)).astype(np.float32), "bob": RNG.normal(size=(32, 2)).astype(np.float32)}
Y = (X["alice"][:, 0] - X["bob"][:, 1] > 0).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def _end() -> Iterator[None]:
    yield
    spu.shutdown()


@pytest.fixture(autouse=True)
def _three() -> None:
    context = current()
    if context is None or context.parties != PARTIES:
        spu.init(parties=PARTIES, address="local")


def tower(params: Any, x: Any) -> Any:
    return jnp.tanh(x @ params["w"])


def top(params: Any, z: Any) -> Any:
    return z @ params["w"] + params["b"]


def loss(outputs: Any, labels: Any) -> Any:
    return jnp.mean((outputs - labels) ** 2)


def parameters() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    towers = {p: {"w": jnp.asarray(rng.normal(0, 0.5, (x.shape[1], 2)), jnp.float32)} for p, x in X.items()}
    return towers, {"w": jnp.asarray(rng.normal(0, 0.5, 4), jnp.float32), "b": jnp.zeros(())}


def in_the_clear(epochs: int, size: int) -> Any:
    whole = parameters()

    def objective(both: Any, at: Any) -> Any:
        towers, head = both
        z = jnp.concatenate([tower(towers[p], X[p][at]) for p in X], 1)
        return loss(top(head, z), Y[at])

    rng = np.random.RandomState(0)
    for _ in range(epochs):
        order = rng.permutation(32)
        for start in range(0, 32, size):
            slopes = jax.grad(objective)(whole, order[start : start + size])
            whole = jax.tree.map(lambda p, g: p - 0.2 * g, whole, slopes)
    return whole


def go(**more: Any) -> fed.SplitModel:
    towers, head = parameters()
    arguments: dict[str, Any] = {
        "towers": {p: (tower, towers[p]) for p in X}, "top": (top, head), "loss": loss, "optimizer": optax.sgd(0.2),
        "data": X, "labels": {"carol": Y}, "epochs": 2, "batch_size": 16, **more,
    }  # fmt: skip
    return fed.split(**arguments)


@pytest.mark.parametrize("at", ["carol", "machine"])
def test_it_trains_what_one_net_does(at: str) -> None:
    model = go(at=at)
    towers, head = in_the_clear(2, 16)
    limit = 1e-5 if at == "carol" else 2e-3
    for p in X:
        own = spu.reveal(spu.PYU(p)(lambda w: w.params)(model.towers[p]))
        assert np.abs(np.asarray(own["w"]) - np.asarray(towers[p]["w"])).max() < limit
    z = np.concatenate([tower(towers[p], X[p]) for p in X], 1)
    got = spu.reveal(model.predict(X, to="bob"))
    assert np.abs(got - np.asarray(top(head, z))).max() < 10 * limit
    said = " ".join(model.learns)
    assert ("carol: the outputs" in said) == (at == "carol")


def test_protected_gradients_have_one_norm_on_average() -> None:
    rng = np.random.default_rng(2)
    g = [rng.normal(size=(3000, 2)) * np.exp(rng.normal(size=(3000, 1))) / 3000, np.zeros((3000, 1))]
    out = _same_norms([jnp.asarray(x, jnp.float32) for x in g], rng.normal(size=3000))
    largest = np.max(np.sum(g[0] ** 2, 1))
    own = np.sum(g[0] ** 2, 1)
    small = (own < largest / 10) & (own > largest / 900)
    assert np.mean(np.sum(np.asarray(out[0]) ** 2, 1)[small]) == pytest.approx(largest, rel=0.15)
    assert np.asarray(out[0]).mean() == pytest.approx(g[0].mean(), abs=4 * np.sqrt(largest / 3000))


def test_protected_training_on_the_machine() -> None:
    model = go(epochs=1, protect="max_norm")
    assert "with the norm of the largest" in " ".join(model.learns)
    assert np.isfinite(spu.reveal(model.predict(X, to="carol"))).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"at": "alice"}, "who has the labels"),
        ({"protect": "hope"}, "max_norm"),
        ({"labels": {"carol": Y, "bob": Y}}, "one party"),
        ({"labels": {"dave": Y}}, "dave"),
        ({"data": {"alice": X["alice"]}}, "same parties"),
        ({"data": {**X, "bob": X["bob"][:30]}}, "bob 30"),
        ({"labels": {"carol": Y[:31]}}, "labels 31"),
        ({"batch_size": 33}, "33"),
        ({"batch_size": 0}, "batch_size"),
        ({"optimizer": 1}, "optimizer"),
        ({"data": {**X, "bob": iter([X["bob"]])}}, "no iterators"),
    ],
)
def test_bad_input_is_one_error(change: dict[str, Any], match: str) -> None:
    with pytest.raises((ConfigError, InputError, PublicError), match=match) as caught:
        go(**change)
    assert isinstance(caught.value, SpuError)
