"""Scales of what loops carry: second moments keep their bits from one iteration to the next, sums their range."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_scales import compiled, run

import spuvm as spu
from spuvm.compiler.ir.module import Module, Op

GRADIENTS = np.array([10.0, -1.0, 0.1, 0.01, -0.001], np.float32)


def loops_of(module: Module) -> list[Op]:
    return [op for op in module.body.walk() if op.name in ("loop", "while")]


def trained(optimiser: Any, kind: str) -> Any:
    """Ten steps within one function."""

    def step(i: Any, carry: Any, gradients: Any) -> Any:
        params, state = carry
        updates, state = optimiser.update(gradients * (1 + 0.1 * (1 - 2 * (i % 2))), state, params)
        return optax.apply_updates(params, updates), state

    def fn(gradients: Any) -> Any:
        start = jnp.zeros_like(gradients), optimiser.init(gradients)
        if kind == "scan":
            return jax.lax.scan(lambda c, i: (step(i, c, gradients), None), start, jnp.arange(10))[0][0]
        body = lambda c: (c[0] + 1, step(c[0], c[1], gradients))  # noqa: E731
        return jax.lax.while_loop(lambda c: c[0] < 10, body, (0, start))[1][0]

    return fn


@pytest.mark.parametrize(
    "optimiser", [optax.adam(1e-2), optax.nadam(1e-2), optax.lamb(1e-2)], ids=["adam", "nadam", "lamb"]
)
def test_small_gradients_in_a_scan(optimiser: Any) -> None:
    """Of 1e-4: what a long average gets of its square is 44 units."""
    gradients = np.array([1e-4, -2e-4, 1e-3, 1.0], np.float32)

    def fn(gradients: Any) -> Any:
        params = jnp.full(4, 0.5)

        def step(state: Any, _: Any) -> Any:
            return optimiser.update(gradients, state, params)[::-1]

        return jax.lax.scan(step, optimiser.init(params), None, length=3)[1]

    np.testing.assert_allclose(run(fn, gradients), fn(gradients), rtol=0.03, atol=2.0**-18)


@pytest.mark.parametrize(
    ("optimiser", "kind"),
    [
        (optax.adam(1e-3), "scan"),
        (optax.adam(1e-3), "while"),
        (optax.rmsprop(1e-3), "scan"),
        (optax.adadelta(0.1), "scan"),
        (optax.nadam(1e-3), "scan"),
        (optax.amsgrad(1e-3), "scan"),
        (optax.yogi(1e-3), "scan"),
    ],
    ids=["adam", "adam, while", "rmsprop", "adadelta", "nadam", "amsgrad", "yogi"],
)
def test_training_within_a_loop(optimiser: Any, kind: str) -> None:
    """As exact as step by step (`test_states_keep_their_scale`): within 1% of JAX where gradients are 1e-3 and more."""
    fn = trained(optimiser, kind)
    np.testing.assert_allclose(run(fn, GRADIENTS), fn(GRADIENTS), rtol=0.01, atol=2.0**-18)


SOME = np.array([10.0, -1.0, 0.1, 0.01, -0.001, 3e-4], np.float32)


def in_turn(update: Any, gradients: Any) -> Any:
    """Four steps of Adam in Python, all in one function."""
    state, updates = optax.adam(1e-2).init(gradients), []
    for i in range(4):
        u, state = update(i, gradients, state)
        updates.append(100 * u)
    return jnp.stack(updates)


def in_scan(update: Any, gradients: Any) -> Any:
    def step(state: Any, i: Any) -> Any:
        u, state = update(i, gradients, state)
        return state, 100 * u

    return jax.lax.scan(step, optax.adam(1e-2).init(gradients), jnp.arange(4))[1]


def always(i: Any, g: Any, state: Any) -> Any:
    return optax.adam(1e-2).update(g, state)


def if_small(i: Any, g: Any, state: Any) -> Any:
    """Not at the second step; whether a sum is small enough is secret."""
    return jax.lax.cond(g.sum() * (i + 1) < 20, lambda s: always(i, g, s), lambda s: (jnp.zeros_like(g), s), state)


def where_small(i: Any, g: Any, state: Any) -> Any:
    u, new = always(i, g, state)
    return u, jax.tree.map(lambda x, y: jnp.where(g.sum() * (i + 1) < 20, x, y), new, state)


def every_other(i: Any, g: Any, state: Any) -> Any:
    return jax.lax.cond(i % 2 == 0, lambda s: always(i, g, s), lambda s: (jnp.zeros_like(g), s), state)


@pytest.mark.parametrize("update", [always, if_small, where_small, every_other], ids=lambda f: f.__name__)
@pytest.mark.parametrize("steps", [in_turn, in_scan], ids=lambda f: f.__name__)
def test_states_that_a_condition_keeps(steps: Any, update: Any) -> None:
    fn = partial(steps, update)
    np.testing.assert_allclose(run(fn, SOME), fn(SOME), rtol=0.04, atol=2e-3)


def test_gradients_collected_over_steps() -> None:
    """`MultiSteps` chooses between the state of a step and the last one."""
    fn = trained(optax.MultiSteps(optax.adam(1e-2), 2), "scan")
    np.testing.assert_allclose(run(fn, SOME), fn(SOME), rtol=0.03, atol=2.0**-17)


def test_what_may_grow_keeps_its_range() -> None:
    """A running sum of squares below a root is no product of a constant: it stays as large as ever."""

    def fn(x: Any) -> Any:
        total = jax.lax.scan(lambda c, row: (c + row * row, None), jnp.zeros(2), x)[0]
        return jnp.sqrt(total)

    x = np.full((64, 2), 4000.0, np.float32)  # 2^30 in all
    assert {v.type.frac for op in loops_of(compiled(fn, (x,))) for v in op.outputs} == {18}
    np.testing.assert_allclose(run(fn, x), 32_000.0, rtol=1e-4)


def test_what_comes_in_large_keeps_its_range() -> None:
    """Of what is only replaced nothing says how large it is at first."""

    def fn(x: Any, large: Any) -> Any:
        def body(c: Any, row: Any) -> Any:
            return 0.5 * row * row, jnp.sqrt(row * row) + jnp.sum(c) * 0

        return jax.lax.scan(body, large, x)[0]

    x = np.array([[3.0], [0.5]], np.float32)
    large = np.array([2.0**40], np.float32)
    assert {v.type.frac for op in loops_of(compiled(fn, (x, large))) for v in op.outputs} == {18}


def test_loops_within_loops() -> None:
    """Epochs of batches: what the inner loop keeps, the outer keeps."""
    optimiser = optax.rmsprop(1e-3)

    def fn(gradients: Any) -> Any:
        def batch(carry: Any, g: Any) -> Any:
            updates, state = optimiser.update(g, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        def epoch(i: Any, carry: Any) -> Any:
            return jax.lax.scan(batch, carry, gradients)[0]

        start = jnp.zeros(5), optimiser.init(jnp.zeros(5))
        return jax.lax.fori_loop(0, 4, epoch, start)[0]

    rows = np.stack([GRADIENTS, 1.1 * GRADIENTS])
    np.testing.assert_allclose(run(fn, rows), fn(rows), rtol=0.01)
    assert [max(v.type.frac for v in op.outputs) for op in loops_of(compiled(fn, (rows,)))] == [38, 38]


@pytest.mark.parametrize(
    "optimiser", [optax.adam(0.1), optax.nadam(0.1), optax.rmsprop(0.1)], ids=["adam", "nadam", "rmsprop"]
)
def test_small_rings_train(optimiser: Any) -> None:
    """A second moment keeps the range of a product, whatever the ring: 16 fraction bits of 32 are enough."""

    def step(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = optimiser.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    gradients, start = np.array([1.0, -0.3, 0.1], np.float32), np.full(3, 0.5, np.float32)
    f = spu.jit(step, ring=32)
    got, state = f(start, optimiser.init(start), gradients)
    got, state = f(got, state, gradients)
    want, plain = step(start, optimiser.init(start), gradients)
    want, _ = step(want, plain, gradients)
    np.testing.assert_allclose(spu.reveal(got), want, atol=0.15)
    assert {x.type.frac for x in jax.tree.leaves(state)} <= {0, 8, 16, 18}


def test_whole_numbers_made_of_what_is_carried() -> None:
    """No limit of a carried number follows from integers that are made of it, and added to others."""

    def fn(x: Any) -> Any:
        def step(v: Any, i: Any) -> Any:
            whole = v.astype(jnp.int32) + i
            return v + jnp.concatenate([whole, whole[:1]])[1:].astype(jnp.float32) / 8, None

        return jax.lax.scan(step, x, jnp.arange(3))[0]

    np.testing.assert_allclose(run(fn, GRADIENTS), fn(GRADIENTS), atol=1e-4)
