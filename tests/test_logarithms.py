"""Logarithms of small probabilities, and gradients of losses written with them, where float32 has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core as jex
from test_scales import run

import spuvm as spu
from spuvm.compiler.lower.logarithms import without_small_probabilities

Z = np.array([-25.0, -20.0, -12.0, -3.0, 0.5, 3.0, 14.0, 22.0], np.float32)
LABELS = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0], np.float32)
SCORES = np.random.default_rng(0).normal(0, 12, (8, 4)).astype(np.float32)
CLASSES = np.arange(8) % 4
Array = Any


def cross_entropy(p: Array) -> Array:
    return -jnp.mean(LABELS * jnp.log(p) + (1 - LABELS) * jnp.log(1 - p))


def by_quotient(z: Array) -> Array:
    return 1 / (1 + jnp.exp(-z))


def by_exponentials(x: Array) -> Array:
    e = jnp.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def with_epsilon(z: Array) -> Array:
    p = jax.nn.sigmoid(z)
    return -jnp.mean(LABELS * jnp.log(p + 1e-7) + (1 - LABELS) * jnp.log(1 - p + 1e-7))


def clipped(z: Array) -> Array:
    return cross_entropy(jnp.clip(jax.nn.sigmoid(z), 2.0**-23, 1 - 2.0**-23))


def focal(z: Array) -> Array:
    p = jax.nn.sigmoid(z)
    return -jnp.mean(LABELS * (1 - p) ** 2 * jnp.log(p) + (1 - LABELS) * p**2 * jnp.log1p(-p))


def likelihood(z: Array) -> Array:
    deviation = jnp.exp(LABELS)
    return -jnp.mean(jnp.log(1 / (jnp.sqrt(2 * jnp.pi) * deviation) * jnp.exp(-0.5 * (z / deviation) ** 2)))


def mixed(z: Array) -> Array:
    p = jax.nn.sigmoid(z)
    return -jnp.mean(jnp.log(p * LABELS + (1 - p) * (1 - LABELS)))


def mixed_with_epsilon(z: Array) -> Array:
    p, soft = jax.nn.sigmoid(z), 0.9 * LABELS + 0.05
    return -jnp.mean(jnp.log(p * LABELS + (1 - p) * (1 - LABELS) + 1e-9) + jnp.log(p * soft + (1 - p) * (1 - soft)))


def of_labels(x: Array) -> Array:
    return -jnp.mean(jnp.log(jnp.sum(jax.nn.one_hot(CLASSES, 4) * jax.nn.softmax(x), 1)))


def divergence(x: Array) -> Array:
    p = by_exponentials(x)
    return jnp.mean(jnp.sum(p * (jnp.log(p) - jnp.log(jax.nn.softmax(x[::-1]))), 1))


LOSSES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "sigmoid": (lambda z: cross_entropy(jax.nn.sigmoid(z)), Z),
    "1 / (1 + exp(-z))": (lambda z: cross_entropy(by_quotient(z)), Z),
    "exp(z) / (1 + exp(z))": (lambda z: cross_entropy(jnp.exp(z) / (1 + jnp.exp(z))), Z),
    "with an epsilon": (with_epsilon, Z),
    "clipped": (clipped, Z),
    "in a checkpoint": (jax.checkpoint(lambda z: cross_entropy(jax.nn.sigmoid(z))), Z),
    "at least 1e-6": (lambda z: -jnp.mean(jnp.log(jnp.maximum(jax.nn.sigmoid(z), 1e-6))), Z),
    "chosen by the label": (
        lambda z: -jnp.mean(jnp.log(jnp.where(LABELS > 0, jax.nn.sigmoid(z), 1 - jax.nn.sigmoid(z)))),
        Z,
    ),
    "focal": (focal, Z),
    "mixed by the label": (mixed, Z),
    "mixed by soft labels, with an epsilon": (mixed_with_epsilon, Z),
    "sum over one hot": (of_labels, SCORES),
    "by a sign": (lambda z: jnp.mean(jnp.log(1 + jnp.exp(-(2 * LABELS - 1) * z))), Z),
    "of a density": (likelihood, Z),
    "softmax": (lambda x: -jnp.mean(jnp.log(jax.nn.softmax(x))[jnp.arange(8), CLASSES]), SCORES),
    "softmax, taken first": (lambda x: -jnp.mean(jnp.log(jax.nn.softmax(x)[jnp.arange(8), CLASSES])), SCORES),
    "softmax, one hot": (
        lambda x: -jnp.mean(jnp.sum(jax.nn.one_hot(CLASSES, 4) * jnp.log(jax.nn.softmax(x) + 1e-8), -1)),
        SCORES,
    ),
    "softmax by hand": (
        lambda x: -jnp.mean(jnp.log(jnp.take_along_axis(by_exponentials(x), CLASSES[:, None], 1))),
        SCORES,
    ),
    "entropy": (lambda x: -jnp.mean(jnp.sum(jax.nn.softmax(x) * jnp.log(jax.nn.softmax(x)), 1)), SCORES),
    "divergence": (divergence, SCORES),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients(name: str) -> None:
    """Within 2e-5 of float64's, where probabilities are e^-25."""
    loss, x = LOSSES[name]

    def both(x: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(x)
        return jnp.append(jnp.ravel(gradient), value)

    with jax.enable_x64(True):
        want = np.asarray(both(jnp.asarray(x, jnp.float64)))
    np.testing.assert_allclose(run(both, x), want, atol=2e-5, rtol=2e-6)


def test_logarithms_among_parties() -> None:
    """ln sigmoid(z) and ln(1 - p) by the protocols."""
    fn = lambda z: (jnp.log(jax.nn.sigmoid(z)), jnp.log1p(-jax.nn.sigmoid(z)))  # noqa: E731
    for got, want in zip(spu.reveal(spu.jit(fn)(Z)), (jax.nn.log_sigmoid(Z), jax.nn.log_sigmoid(-Z))):
        np.testing.assert_allclose(got, want, atol=2e-5)


def test_a_loss_costs_less() -> None:
    """No logarithm of each probability, and no quotient in the gradient."""
    loss = lambda z: cross_entropy(jax.nn.sigmoid(z))  # noqa: E731
    plain = lambda z: jnp.mean(LABELS * jax.nn.softplus(-z) + (1 - LABELS) * jax.nn.softplus(z))  # noqa: E731
    cost, other = (spu.jit(jax.value_and_grad(f)).cost(Z) for f in (loss, plain))
    assert cost.bytes_sent.sum() < 1.5 * other.bytes_sent.sum()
    assert spu.jit(jax.grad(loss)).cost(Z).rounds <= 11


def test_within_a_loop() -> None:
    """Training in a scan, each step with its own gradient."""

    def steps(z: Any) -> Any:
        def step(z: Any, _: Any) -> Any:
            return z - 8 * jax.grad(lambda z: cross_entropy(jax.nn.sigmoid(z)))(z), None

        return jax.lax.scan(step, z, None, length=3)[0]

    np.testing.assert_allclose(run(steps, Z), Z - 8 * sum_of_gradients(Z), atol=5e-5)


def sum_of_gradients(z: Any) -> Any:
    total = np.zeros(z.shape)
    for _ in range(3):
        gradient = (1 / (1 + np.exp(-(z - 8 * total))) - LABELS) / len(z)
        total = total + gradient
    return total


N = 3_000
ROWS = np.random.default_rng(1).normal(0, 2, (N, 3)).astype(np.float32)
MASK = (np.random.default_rng(2).random(N) > 0.3).astype(np.float32)
WEIGHTS = np.array([0.7, -0.3, 0.2], np.float32)


def masked(w: Array, x: Array, mask: Array) -> Array:
    return jnp.sum((x @ w - mask) ** 2 * mask) / jnp.sum(mask)


def dice(w: Array, x: Array, mask: Array) -> Array:
    p = jax.nn.sigmoid(x @ w)
    return 1 - (2 * jnp.sum(p * mask) + 1) / (jnp.sum(p) + jnp.sum(mask) + 1)


def weighted(w: Array, x: Array, mask: Array) -> Array:
    a = jnp.exp(0.3 * x @ w)
    return jnp.sum(a * mask) / jnp.sum(a)


# Each term of a weighted mean is rounded by chance: a standard deviation of some 20 units, where 15,000 were missing.
@pytest.mark.parametrize(("ratio", "units"), [(masked, 16), (dice, 16), (weighted, 140)])
def test_gradients_of_quotients_of_sums(ratio: Callable[..., Any], units: int) -> None:
    """1 / B and 1 / B^2 are less than a unit, or few: sums are divided after they are made."""
    with jax.enable_x64(True):
        want = jax.grad(ratio)(*(jnp.asarray(a, jnp.float64) for a in (WEIGHTS, ROWS, MASK)))
        want = np.asarray(want)
    got = run(jax.grad(ratio), WEIGHTS, ROWS, MASK)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=units * 2.0**-18)


def test_what_takes_no_such_logarithms_stays_as_it_is() -> None:
    """The same object: programs, their hashes and costs are as they were."""
    for fn in (
        lambda x: jnp.log(jnp.abs(x) + 1) * jnp.exp(x) / x,
        jax.grad(lambda x: jnp.sum(jax.nn.sigmoid(x) / (1 + jnp.exp(x)))),
        jax.grad(lambda x: jnp.mean(jax.nn.log_softmax(x))),
        lambda x: jnp.log(1 + jnp.exp(x)),
    ):
        closed = jax.make_jaxpr(fn)(Z)
        assert without_small_probabilities(closed) is closed


def test_quotients_that_do_not_cancel() -> None:
    """Beside those that do; of a divisor that is used otherwise, too."""

    def fn(z: Any) -> Any:
        p = jax.nn.sigmoid(z)
        return jnp.log(p) + LABELS / p * 0.5 + (LABELS / p) * (p * z) + p / (p + z * z)

    z = np.linspace(-3, 3, 8).astype(np.float32)
    closed = jax.make_jaxpr(fn)(z)
    again = without_small_probabilities(closed)
    assert again is not closed
    np.testing.assert_allclose(jex.jaxpr_as_fun(again)(z)[0], fn(z), rtol=1e-5)
    np.testing.assert_allclose(run(fn, z), fn(z), rtol=1e-4, atol=1e-4)


SIGNS = np.array([2.0, -3.0, 0.5, -0.25], np.float32)
POINTS = np.array([-2.0, 6.0, 0.5, 7.0], np.float32)


def of_a_product(a: Array) -> Array:
    p = jax.nn.sigmoid(a)
    return jnp.where(p * p[::-1] > 0.995, p, -p) + jnp.log(p)


def of_what_is_filled(a: Array) -> Array:
    return jnp.log(jax.nn.sigmoid(a).at[np.array([0, 3, 9, 1])].get(mode="fill", fill_value=0.0) + 1e-3)


REAL: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "a square of negative quotients": (lambda a, b: jnp.log((jnp.exp(a) / b) ** 2), (POINTS, SIGNS)),
    "two negative divisors": (lambda a, b: jnp.log(jnp.exp(a) / b / (2 * b)), (POINTS, SIGNS)),
    "a negative factor and divisor": (lambda a, b: jnp.log(b * jnp.exp(a) / (2 * b)), (POINTS, SIGNS)),
    "negative beside an epsilon": (lambda a, b: jnp.log(jnp.exp(-2 - a) / b / 256 + 0.005), (np.abs(POINTS), SIGNS)),
    "negative, compared": (lambda a, b: jnp.exp(a) / b > 0.005, (POINTS, SIGNS)),
    "a product near one, compared": (of_a_product, (POINTS,)),
    "places that are none": (of_what_is_filled, (POINTS,)),
}


@pytest.mark.parametrize("name", REAL)
def test_the_same_function_of_real_numbers(name: str) -> None:
    """Of divisors of any sign, of zeros where nothing was gathered: in float64, without a unit."""
    fn, args = REAL[name]
    with jax.enable_x64(True):
        wide = [jnp.asarray(a, jnp.float64) for a in args]
        again = without_small_probabilities(jax.make_jaxpr(lambda *x: (fn(*x), jnp.log(jnp.exp(x[0]))))(*wide))
        np.testing.assert_allclose(jex.jaxpr_as_fun(again)(*wide)[0], fn(*wide), rtol=1e-9)


def test_sums_that_may_be_negative_are_divided_by_as_they_are() -> None:
    """Weights of any sign: only what a logarithm was taken of is positive for certain."""

    def f(z: Array) -> Array:
        p = jax.nn.sigmoid(z)
        return p / (p * WEIGHTS[0] - 4 * (1 - p)) + jnp.log(jnp.exp(z) + 1)

    z = np.linspace(-2, 2, 8).astype(np.float32)
    np.testing.assert_allclose(run(f, z), f(z), atol=1e-4, rtol=1e-4)


def test_nothing_is_divided_by_what_is_smaller_than_it_was() -> None:
    """e^a p is no quotient by 1 - p, y / (p q^2) divides by each in turn, one number that is no total is not scaled."""
    a = np.array([15.0, 8.0, -1.0, 12.0], np.float32)
    p = 1 / (1 + np.exp(-a.astype(np.float64)))
    got = run(lambda a: jnp.exp(a) * jax.nn.sigmoid(a) + 0 * jnp.log(jax.nn.sigmoid(a)), a)
    np.testing.assert_allclose(got, np.exp(a.astype(np.float64)) * p, rtol=1e-4)
    q, small = np.array([0.02, 3.0], np.float32), np.array([-3.0, 0.0], np.float32)

    def quotient(q: Any, a: Any) -> Any:
        return jnp.sum(1 / (jax.nn.sigmoid(a) * q) + jnp.log(jax.nn.sigmoid(a)))

    want = -(1 + np.exp(-small.astype(np.float64))) / q.astype(np.float64) ** 2
    np.testing.assert_allclose(run(jax.grad(quotient), q, small), want, rtol=2e-2)
    s, y = np.float32(0.01), np.random.default_rng(3).normal(1, 1, 4096).astype(np.float32)
    got = run(lambda s, a, y: y @ (jnp.ones(4096, y.dtype) * (2 / (s * jnp.exp(a)))), s, np.float32(0.3), y)
    np.testing.assert_allclose(got, 200 * np.exp(-0.3) * y.sum(dtype=np.float64), rtol=1e-3)
