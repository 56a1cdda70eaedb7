"""Private federated training: bounded updates, noise as claimed, each round in the ledger before it is shown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spuvm as spu
from spuvm import fed
from spuvm.context import current
from spuvm.dp import Budget
from spuvm.fed.examples import TOGETHER, clipped_sum, total_of
from spuvm.fed.layout import layout_of
from spuvm.fed.private import clipped
from spuvm.runtime.errors import ConfigError, InputError

PARTIES = ("alice", "bob", "carol")


@pytest.fixture(scope="module", autouse=True)
def _end() -> Iterator[None]:
    yield
    spu.shutdown()


@pytest.fixture(autouse=True)
def _three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPUVM_STATE_DIR", str(tmp_path / "state"))
    context = current()
    if context is None or context.parties != PARTIES:
        spu.init(parties=PARTIES, address="local")


def flat(params: Any, batch: Any) -> Any:
    """A loss whose gradient is the mean of the rows."""
    return jnp.mean(batch @ params)


def data(n: int = 40, size: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {p: rng.normal(1, 1, (n, size)).astype(np.float32) for p in PARTIES}


def test_sums_of_clipped_gradients() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 3, (TOGETHER + 7, 4)).astype(np.float32)
    rows[3] = np.nan
    layout = layout_of(jnp.zeros(4))
    got = total_of(clipped_sum(lambda p, b, key: flat(p[0], b), 2.0), layout, [jnp.zeros(4)], rows, len(rows), _key())
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    want = np.nansum(rows * np.minimum(1, 2.0 / norms), axis=0)
    assert got == pytest.approx(want, rel=1e-4)
    assert np.linalg.norm(clipped(rows[0], 0.5)) == pytest.approx(0.5)
    assert not clipped(rows[3], 0.5).any()


def test_noise_of_examples_is_what_it_claims() -> None:
    """The step's spread over many parameters is sigma, with the third share's half of variance more."""
    size, rows = 2000, {p: np.zeros((5, 2000), np.float32) for p in PARTIES}
    private = fed.Private(clip=1.0, noise=2.0)
    model = fed.train(flat, jnp.zeros(size), optax.sgd(1.0), rows, rounds=1, dp=private)
    bits = private.bits(size, 2)
    assert private.sigma(size, bits) / 2**bits == pytest.approx(2.0, rel=0.06)
    spread = model.vector.std() * 15  # the sum's, not the mean's
    assert spread == pytest.approx(2.0 * math.sqrt(1.5), rel=0.1)
    clip, noisy = fed.Private(clip=0.5, noise=0.01), data()
    trained = fed.train(flat, jnp.zeros(3), optax.sgd(1.0), noisy, rounds=2, dp=clip).vector
    every = np.concatenate(list(noisy.values()))
    short = every * np.minimum(1, 0.5 / np.linalg.norm(every, axis=1, keepdims=True))
    assert trained == pytest.approx(-2 * short.mean(0), abs=0.01)


@pytest.mark.filterwarnings("ignore:optax.global_norm is deprecated")
def test_epsilon_and_clipped_gradients_are_those_of_jax_privacy() -> None:
    peer = pytest.importorskip("jax_privacy")
    for noise, sampling, rounds in ((1.2, 0.1, 60), (1.1, 0.05, 100), (4.0, 1.0, 30)):
        settings = peer.accounting.DpParams(
            noise_multipliers=noise, num_samples=10_000, delta=1e-4, batch_size=round(sampling * 10_000)
        )
        account = peer.accounting.DpsgdTrainingAccountant(peer.accounting.RdpAccountantConfig())
        ours = fed.Private(1.0, noise, sampling=sampling).epsilon(rounds, 1e-4)
        assert ours == pytest.approx(float(account.compute_epsilon(rounds, settings)), rel=2e-3)
    rows = np.random.default_rng(1).normal(0, 3, (TOGETHER + 7, 4)).astype(np.float32)
    layout, start = layout_of(jnp.zeros(4)), [jnp.zeros(4)]
    got = total_of(clipped_sum(lambda p, b, key: flat(p[0], b), 2.0), layout, start, rows, len(rows), _key())
    assert got == pytest.approx(np.asarray(peer.clipped_grad(flat, l2_clip_norm=2.0)(start[0], rows)), rel=1e-4)


def test_whole_parties_are_private(tmp_path: Path) -> None:
    private = fed.Private(clip=0.1, noise=0.02, unit="party", budget=Budget(1e5, 1e-5, path=tmp_path / "b"))
    model = fed.train(flat, jnp.zeros(3), optax.sgd(0.1), data(), rounds=3, local_steps=4, dp=private)
    assert np.linalg.norm(model.vector) == pytest.approx(0.3, rel=0.1)
    assert [use.label for use in Budget.open(tmp_path / "b").uses] == [
        f"federated training, round {i}" for i in range(3)
    ]


def test_a_sampled_round_costs_less_and_the_ledger_says_so(tmp_path: Path) -> None:
    private = fed.Private(1.0, 1.1, sampling=0.05)
    import dp_accounting

    accountant = dp_accounting.rdp.RdpAccountant()
    event = dp_accounting.PoissonSampledDpEvent(0.05, dp_accounting.GaussianDpEvent(1.1))
    accountant.compose(event, 100)
    assert private.epsilon(100, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=0.02)
    assert private.epsilon(100, 1e-5) < fed.Private(1.0, 1.1).epsilon(100, 1e-5) / 4
    budgets = {p: Budget(6.0, 1e-5, path=tmp_path / p) for p in PARTIES}
    spent = fed.Private(1.0, 1.1, sampling=0.2, budget=budgets)
    fed.train(flat, jnp.zeros(3), optax.adam(0.1), data(), rounds=5, dp=spent)
    assert [len(budgets[p].uses) for p in PARTIES] == [5, 5, 5]
    assert budgets["bob"].spent == pytest.approx(spent.epsilon(5, 1e-5))
    twice = Budget(20.0, 1e-5, contributions=2, path=tmp_path / "twice")
    twice.spend([spent.round()])
    assert twice.spent > 3 * fed.Private(1.0, 1.1, sampling=0.2).epsilon(1, 1e-5)


def test_what_does_not_last_is_refused_before_it_begins(tmp_path: Path) -> None:
    budget = Budget(1.0, 1e-5, path=tmp_path / "b")
    with pytest.raises(InputError, match="would spend"):
        fed.train(flat, jnp.zeros(3), optax.sgd(0.1), data(), rounds=50, dp=fed.Private(1.0, 1.0, budget=budget))
    assert budget.uses == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"dp": 3}, "Private"),
        ({"strategy": "scaffold"}, "control"),
        ({"aggregate": "median"}, "secure"),
        ({"eval": flat}, "eval_data"),
        ({"local_steps": 2}, "one step"),
        ({"seed": 1}, "seed"),
        ({"personal": "0"}, "personal"),
    ],
)
def test_what_breaks_the_promise_is_refused(change: dict[str, Any], match: str) -> None:
    start = [jnp.zeros(3), jnp.zeros(2)]
    with pytest.raises(ConfigError, match=match):
        fed.train(flat, start, optax.sgd(0.1), data(), **{"rounds": 1, "dp": fed.Private(1.0, 1.0), **change})


@pytest.mark.parametrize(
    "settings",
    [
        {"clip": 0.0}, {"clip": math.nan}, {"noise": 0.0}, {"noise": -1.0}, {"sampling": 0.0}, {"unit": "hospital"},
        {"unit": "party", "sampling": 0.5},
    ],
)  # fmt: skip
def test_settings_without_privacy(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        fed.Private(**{"clip": 1.0, "noise": 1.0, **settings})


def _key() -> Any:
    import jax

    return jax.random.key(0)
