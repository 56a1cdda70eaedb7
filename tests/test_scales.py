"""Scales: gradients of mean losses, first steps of optimisers, and what stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spuvm as spu
from spuvm.compiler.compile import Program
from spuvm.compiler.front.trace import trace
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Module
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes import pipeline
from spuvm.runtime.config import Config
from spuvm.runtime.errors import EncodingError, InputError
from spuvm.runtime.ring.elements import signed

PROTOCOLS = [("aby3", 64), ("semi2k", 64), ("ref2k", 64), ("aby3", 128)]


def compiled(fn: Callable[..., Any], args: Any, protocol: str = "aby3", ring: int = 64) -> Module:
    traced = trace(fn, args)
    owners = ["secret"] * len(traced.inputs)
    config = (
        Config(protocol=protocol) if ring == 64 else Config(protocol=protocol, ring_bits=ring, fxp_fraction_bits=40)
    )
    return pipeline.run_passes(lower(traced, owners, config))


def run(fn: Callable[..., Any], *args: Any, protocol: str = "aby3", ring: int = 64) -> Any:
    """The first result, with truncations that round at random."""
    module = compiled(fn, args, protocol, ring)
    fracs = [v.type.frac for v in module.body.params]
    raw = [np.rint(np.asarray(x, np.float64) * 2.0**f).astype(np.int64) for x, f in zip(jax.tree.leaves(args), fracs)]
    out = evaluate(module, raw, jitter=3)[0]
    return np.asarray(signed(out)).astype(np.float64) / 2.0 ** module.body.results[0].type.frac


def squared(w: Any, x: Any, y: Any) -> Any:
    return jnp.mean((x @ w - y) ** 2)


def logistic(w: Any, x: Any, y: Any) -> Any:
    p = 1 / (1 + jnp.exp(-x @ w))
    return -jnp.mean(jnp.log(p * y + (1 - p) * (1 - y)))


def softmax(w: Any, x: Any, y: Any) -> Any:
    scores = x @ (w[:, None] * jnp.array([1.0, -1.0, 0.5]))
    return -jnp.mean(jnp.sum(jnp.stack([y, 1 - y, 0 * y], 1) * jax.nn.log_softmax(scores), 1))


def huber(w: Any, x: Any, y: Any) -> Any:
    return jnp.mean(optax.huber_loss(x @ w, y))


def poisson(w: Any, x: Any, y: Any) -> Any:
    return jnp.mean(jnp.exp(x @ w) - y * (x @ w))


LOSSES = [squared, logistic, softmax, huber, poisson]


def data(n: int) -> tuple[Any, Any, Any]:
    """Features within (-8, 8)."""
    generator = np.random.default_rng(n)
    x = np.clip(generator.normal(0, 2.5, (n, 4)), -7.99, 7.99).astype(np.float32)
    y = (x[:, 0] + generator.normal(size=n) > 0).astype(np.float32)
    return np.full(4, 0.01, np.float32), x, y


def relative_error(loss: Callable[..., Any], n: int, **options: Any) -> float:
    args = data(n)
    with jax.enable_x64(True):
        want = np.asarray(jax.grad(loss)(*(jnp.asarray(a, jnp.float64) for a in args)))
    return float(np.abs(run(jax.grad(loss), *args, **options) - want).max() / np.abs(want).max())


@pytest.mark.parametrize("n", [100, 1_000, 100_000])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_gradients_of_mean_losses(loss: Callable[..., Any], n: int) -> None:
    assert relative_error(loss, n) < 1e-3


@pytest.mark.parametrize(("protocol", "ring"), PROTOCOLS[1:])
def test_gradients_of_mean_losses_elsewhere(protocol: str, ring: int) -> None:
    assert relative_error(logistic, 2_000, protocol=protocol, ring=ring) < 1e-3


def test_a_gradient_costs_no_more() -> None:
    """Within 2% of the bytes, and no round more."""
    traced = trace(jax.grad(logistic), data(200))

    def cost(passes: Sequence[pipeline.Pass]) -> tuple[int, int]:
        module = lower(traced, ["secret"] * 3, Config())
        for apply in passes:
            apply(module)
        found = Program(module).cost
        return found.rounds, int(found.bytes_sent.sum())

    before, after = cost(pipeline.PASSES[1:]), cost(pipeline.PASSES)
    assert after[0] <= before[0]
    assert after[1] <= 1.02 * before[1]


GRADIENTS = np.array([10.0, -1.0, 0.1, 0.01, -0.001, 0.0001], np.float32)
OPTIMISERS = {
    "sgd": optax.sgd(0.01, momentum=0.9),
    "adam": optax.adam(1e-3),
    "adamw": optax.adamw(1e-3),
    "amsgrad": optax.amsgrad(1e-3),
    "nadam": optax.nadam(1e-3),
    "radam": optax.radam(1e-3),
    "rmsprop": optax.rmsprop(1e-3),
    "adagrad": optax.adagrad(1e-2),
    "adadelta": optax.adadelta(0.1),
    "yogi": optax.yogi(1e-2),
    "novograd": optax.novograd(1e-3),
    "lamb": optax.lamb(1e-3),
    "lion": optax.lion(1e-3),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_first_steps_of_optimisers(name: str) -> None:
    """Within 2%, or within a unit of what a result holds."""
    optimiser = OPTIMISERS[name]
    params = np.full_like(GRADIENTS, 0.5)

    def updates(gradients: Any) -> Any:
        return optimiser.update(gradients, optimiser.init(params), params)[0]

    want = np.asarray(updates(GRADIENTS), np.float64)
    assert (np.abs(run(updates, GRADIENTS) - want) <= 0.02 * np.abs(want) + 2.0**-18).all()


@pytest.mark.parametrize("name", ["adam", "amsgrad", "radam", "yogi", "adadelta", "nadam"])
def test_states_keep_their_scale(name: str) -> None:
    """Ten calls, each with the state of the one before: within 1% where gradients are 1e-3 and more (radam: 5%)."""
    optimiser = OPTIMISERS[name]
    gradients = np.array([10.0, -1.0, 0.1, 0.01, -0.001], np.float32)

    def step(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = optimiser.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    want = np.zeros_like(gradients), optimiser.init(np.zeros_like(gradients))
    raw: list[Any] = []
    formats: list[tuple[int, ...]] = [()]
    module = None
    for i in range(10):
        args = (*want, gradients * np.float32(1 + 0.1 * (-1) ** i))
        if module is None or formats[-1] != formats[-2]:
            traced = trace(step, args)
            module = lower(traced, ["secret"] * len(traced.inputs), Config())
            module.finer, module.keeps_scales = (*formats[-1], 0) if formats[-1] else (), True
            pipeline.run_passes(module)
        leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(args)]
        fresh = [np.rint(x * 2.0**v.type.frac).astype(np.int64) for x, v in zip(leaves, module.body.params)]
        raw = evaluate(module, [*(raw or fresh[:-1]), fresh[-1]], jitter=i)
        formats.append(tuple(v.type.frac - 18 if v.type.kind == "fxp" else 0 for v in module.body.results))
        want = step(*args)
    assert max(formats[1]) >= 18 and len(set(formats[1:])) == 1
    got = signed(raw[0]).astype(np.float64) / 2.0**18
    np.testing.assert_allclose(got, want[0], rtol=0.05 if name == "radam" else 0.01)  # whose steps are small at first


def test_an_epsilon_beside_a_lost_root_makes_nothing_large() -> None:
    """1e-5 / (0 + 1e-6) would outweigh what counts in a norm of updates, as Lamb's. Fresh moments are fine."""

    @spu.jit
    def fn(state: Any, g: Any) -> Any:
        v = state["v"] + 0.001 * (g * g)
        return {"v": v}, 0.0316 * g / (jnp.sqrt(v) + 1e-6)

    gradients = np.array([0.1, -0.02, 1e-5, -3e-5, 0.0], np.float32)
    state, got = fn({"v": np.full(5, 1e-8, np.float32)}, gradients)
    assert state["v"].type.frac >= 36
    want = 1e-8 + 0.001 * gradients.astype(np.float64) ** 2
    np.testing.assert_allclose(spu.reveal(state["v"]), want, rtol=2e-3)
    np.testing.assert_allclose(spu.reveal(got), 0.0316 * gradients / np.sqrt(want), atol=2e-3)


def test_objects_of_another_scale_are_like_others(tmp_path: Any) -> None:
    """In operators, in programs that were compiled for others, shared, stored and loaded."""

    def fn(v: Any, g: Any) -> Any:
        v = 0.9 * v + 0.1 * g * g
        return v, g / jnp.sqrt(v)

    f = spu.jit(fn)
    g = np.array([1e-2, 2.0, 200.0], np.float32)
    v, _ = f(np.zeros(3, np.float32), g)
    again, ratio = f(v, g)
    third, _ = f(again, g)
    want = 0.1 * g.astype(np.float64) ** 2
    assert v.type.frac == again.type.frac == third.type.frac == 36
    assert len(f._programs) == 2
    np.testing.assert_allclose(spu.reveal(v), want, rtol=2e-2)
    np.testing.assert_allclose(spu.reveal(again), 1.9 * want, rtol=2e-2)
    np.testing.assert_allclose(spu.reveal(ratio), 1 / np.sqrt(0.19), rtol=5e-3)
    np.testing.assert_allclose(spu.reveal(v + 1.0), want + 1, rtol=1e-5)
    np.testing.assert_allclose(spu.reveal(v[1:] * v[1:]), want[1:] ** 2, rtol=1e-4)
    spu.save_shares({"v": v}, {p: tmp_path / p for p in v.vm.config.parties}, name="state")
    loaded = spu.load_shares({p: tmp_path / p for p in v.vm.config.parties}, v.vm, "state")["v"]
    np.testing.assert_array_equal(spu.reveal(loaded), spu.reveal(v))


@pytest.mark.parametrize(("protocol", "ring"), PROTOCOLS[:3])
def test_a_root_of_small_squares(protocol: str, ring: int) -> None:
    """Right to the unit of the quotient, and 0 / 0 stays 0."""
    x = np.array([0.0, 1e-4, 1e-3, 0.02, 1.0, 100.0], np.float32)
    got = run(lambda x: x / (jnp.sqrt(x * x) + 1e-8), x, protocol=protocol, ring=ring)
    assert got[0] == 0
    np.testing.assert_allclose(got[1:], 1.0, atol=0.02)


@pytest.mark.parametrize(("ring", "frac"), [(128, 26), (64, 16)])
def test_a_deviation_with_other_fractions(ring: int, frac: int) -> None:
    """A root of a quotient by one number, whatever the default fraction bits are."""
    traced = trace(lambda x, m: jnp.nanstd(jnp.where(m > 0, x, jnp.nan)), (np.ones(4, np.float32),) * 2)
    config = Config(ring_bits=ring, fxp_fraction_bits=frac)
    module = pipeline.run_passes(lower(traced, ["secret"] * 2, config))
    x, m = np.array([1.5, 9.0, -2.0, 4.0]), np.array([1, 0, 1, 1])
    raw, number = evaluate(module, [(v * 2.0**frac).astype(np.int64) for v in (x, m)], jitter=1)
    got = int(signed(raw)) / 2.0 ** module.body.results[0].type.frac
    assert number and abs(got - x[m > 0].std()) < 2.0 ** (4 - frac)


def test_limits_of_the_default_fraction_bits_hold() -> None:
    """What a step of gradient descent subtracts from is as large as ever, and means of large numbers."""
    x = np.array([2.0**25, -(2.0**25), 3.0], np.float32)
    np.testing.assert_allclose(run(lambda x: x - 0.01 * x, x), 0.99 * x.astype(np.float64), rtol=1e-4)
    large = np.full(1_000, 2.0**30, np.float32)
    np.testing.assert_allclose(run(lambda x: jnp.mean(x) / 8, large), 2.0**27, rtol=1e-6)
    np.testing.assert_allclose(run(lambda x: jnp.sum(x / 1_000), large), 2.0**30, rtol=1e-4)


def test_known_limits_leave_products_their_room() -> None:
    """Factors below 1 of numbers that may be anything, and of each other, under quotients that want more bits."""
    x = np.array([0.3, -1.2, 2.5], np.float32)
    y = np.array([3e6, -2e7, 5.0], np.float32)

    def fn(x: Any, y: Any) -> Any:
        t, c, s = jnp.tanh(x), jnp.cos(x), jnp.sin(x)
        size = c * c + t * t * s * s
        return s * c * (1 - t * t) / size * y + t * y / (1 + c * c)

    np.testing.assert_allclose(run(fn, x, y), np.asarray(fn(x, y)), rtol=2e-4)


def test_loops_and_results_keep_their_types() -> None:
    module = compiled(
        lambda w, x, y: jax.lax.fori_loop(0, 3, lambda i, w: w - 0.1 * jax.grad(squared)(w, x, y), w), data(4096)
    )
    loop = next(op for op in module.body.walk() if op.name == "loop")
    assert {v.type.frac for v in loop.regions[0].params} == {18}
    assert [v.type.frac for v in module.body.results] == [18]
    assert any(op.output.type.frac > 18 for op in loop.regions[0].walk() if op.name == "trunc")


def test_what_users_state_is_known() -> None:
    """Of an argument it is checked; of a value it follows into what is computed with it, and gradients."""
    x = np.array([3.0, -7.5], np.float32)
    f = spu.jit(lambda x, y: jnp.sum(spu.bound(jnp.tanh(x) * y, 4.0) ** 2) / 8)
    found = f.scales(spu.secret(x, bound=8), spu.secret(x, bound=8.0))
    assert all(row.proved for row in found.rows)
    assert max(row.limit for row in found.rows) <= 5
    assert min(row.headroom for row in found.rows) > 38
    assert "proved" in str(found) and f"test_scales.py:{f.fn.__code__.co_firstlineno}" in str(found)
    promised = f.scales(x, x)
    assert not all(row.proved for row in promised.rows)
    for value in (np.float32(8.0), np.array([0.0, -9.0], np.float32)):
        with pytest.raises(EncodingError, match="`y` has numbers that are not below its bound 8"):
            f(x, spu.secret(value, bound=8))
    slope = jax.grad(lambda x: jnp.sum(spu.bound(x, 8.0) ** 2))
    np.testing.assert_allclose(run(slope, x), 2 * x, atol=1e-4)
    for bad in (0, -1.0, float("nan"), float("inf"), "8"):
        with pytest.raises(InputError, match="a bound is a positive number"):
            spu.secret(x, bound=bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="belongs into a jitted function"):
        spu.bound(x, 8)
