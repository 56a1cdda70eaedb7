"""Every supported primitive through the IR against JAX, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.scipy import special, stats
from lowering import agrees, lowered, names, run

from spuvm.compiler.front.trace import reveal, trace
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.lower.registry import RULES, merge
from spuvm.runtime.config import Config
from spuvm.runtime.errors import EncodingError, InputError, UnsupportedError, VisibilityError

RNG = np.random.default_rng(3)
X = jnp.asarray(RNG.normal(size=(5, 3)) * 2, jnp.float32)
Y = jnp.asarray(RNG.normal(size=(5, 3)) * 2, jnp.float32)
POSITIVE = jnp.abs(X) + 0.25
HALVES = jnp.asarray([0.5, 1.5, 2.5, -0.5, -1.5, 0.3, -0.6, 7.0], jnp.float32)
I = jnp.asarray([[5, -7, 3], [0, 12, -1]], jnp.int32)  # noqa: E741
J = jnp.asarray([[2, 3, 3], [-4, 12, 1]], jnp.int32)
U = jnp.asarray([1, 200, 2**32 - 1], jnp.uint32)
B = jnp.asarray([True, True, False, False])
C = jnp.asarray([True, False, True, False])

BARRIER: Any = lax.optimization_barrier

Case = tuple[Callable[..., Any], tuple[Any, ...]]

ELEMENTWISE: dict[str, Case] = {
    "add": (lambda x, y: (x + y, x + 0, x + 1.25), (X, Y)),
    "sub": (lambda x, y: (x - y, 1 - x, 0 - x), (X, Y)),
    "mul": (lambda x, y: x * y, (X, Y)),
    "mul by constants": (lambda x: (x * 3, x * -1, x * 0, x * 0.5, x * -0.25, x * 0.1, x * 1e-5, x * 3.7), (X,)),
    "mul by an array": (lambda x: (x * np.arange(3.0), x * np.array([0.1, 1e-3, 20.5])), (X,)),
    "neg abs sign square": (lambda x: (-x, jnp.abs(x), jnp.sign(x), jnp.square(x)), (X,)),
    "max min clamp": (lambda x, y: (jnp.maximum(x, y), jnp.minimum(x, 0.5), jnp.clip(x, -1, 1)), (X, Y)),
    "lax.clamp": (lambda x, y: lax.clamp(-0.5, x, jnp.abs(y)), (X, Y)),
    "comparisons": (lambda x, y: (x < y, x <= 0.5, x > y, x >= y, x == y, x != x.at[0].set(0)), (X, Y)),
    "infinities": (lambda x: (x < jnp.inf, x > jnp.inf, x != jnp.inf, jnp.maximum(x, -jnp.inf)), (X,)),
    "same value": (lambda x: (x == x, x != x, x < x, jnp.isnan(x), jnp.isfinite(x)), (X,)),
    "bool logic": (lambda p, q: (p & q, p | q, p ^ q, ~p, p == q, p < q, p | True, p & False), (B, C)),
    "where": (lambda x, y: (jnp.where(x > y, x, y), jnp.where(x > 0, 1.0, 0.0)), (X, Y)),
    "where with a known mask": (lambda x: jnp.where(np.eye(5, 3) > 0, x, 2.0), (X,)),
    "unchosen nan": (
        lambda x: jnp.where(
            jnp.array([True, False, True]), jnp.where(x == x, x, jnp.nan), np.array([jnp.inf, 1, -jnp.inf])
        ),
        (X,),
    ),
    "unchosen infinity": (lambda x: jnp.where(jnp.isfinite(x), x, jnp.inf * (x > 0)), (X,)),
    "unchosen nan in a call": (lambda x: jnp.where(True, x, jax.jit(lambda y: 1 + y * jnp.nan)(x)), (X,)),
    "nan in an unchosen branch": (lambda x: lax.cond(False, lambda y: y * jnp.nan, lambda y: -y, x), (X,)),
    "unchosen nan in a loop": (
        lambda x: lax.scan(lambda s, y: (s + jnp.where(jnp.isnan(y), jnp.nan * y, y), y), x[0], x),
        (X,),
    ),
    "select_n of integers": (lambda i, x, y: lax.select_n(i, x, y, x + y, x * 2), (abs(I) % 4, X[:2], Y[:2])),
    "rounding": (lambda x: (jnp.floor(x), jnp.ceil(x), jnp.round(x), lax.round(x)), (HALVES,)),
    "casts": (lambda x: (x.astype(int), (x > 0).astype(float) * x, x.astype(bool), (x > 0) + 0), (HALVES,)),
    "integer casts": (lambda i: (i.astype(float) / 2, i.astype(bool), i.astype(jnp.int8), i * 1.5), (I,)),
    "casts there and back": (lambda x: ((x > 0).astype(int).astype(bool), (x > 1).astype(float).astype(int)), (X,)),
    "integers": (lambda i, j: (i + j, i - j, i * j, i * 3, -i, abs(i), jnp.sign(i), i**3, i < j, i == j), (I, J)),
    "integer division": (lambda i: (i // 3, i % 3, lax.div(i, 4), lax.rem(i, 5)), (I,)),
    "integer bits": (lambda i, j: (i & j, i | 3, i ^ j, ~i, i << 2, i >> 1), (I, J)),
    "unsigned": (lambda u: (u >> 3, ~u, u < 5, jnp.maximum(u, 7), u.astype(float) * 1e-6), (U,)),
    "shift by arrays": (lambda i: (i << np.array([0, 1, 40]), i >> np.array([1, 40, 0])), (I,)),
    "division": (lambda x, y: (x / y, 1 / y, x / 3, x / np.array([2.0, 4, 7]), 2.5 / y), (X, POSITIVE)),
    "float remainder": (lambda x: (jnp.mod(x, 2), lax.rem(x, 1.5)), (X,)),
    "powers": (lambda x: (x**3, x**-1, x**0.5, x**1.5, 2.0**x, x**0), (POSITIVE,)),
    "exponentials": (lambda x: (jnp.exp(x), jnp.expm1(x), jnp.exp2(x)), (X,)),
    "logarithms": (lambda x: (jnp.log(x), jnp.log1p(x), jnp.log2(x)), (POSITIVE,)),
    "sigmoids": (lambda x: (jax.nn.sigmoid(x), jnp.tanh(x), lax.erf(x), lax.erfc(x)), (X,)),
    "roots": (lambda x: (jnp.sqrt(x), lax.rsqrt(x)), (POSITIVE,)),
    "angles": (lambda x: (jnp.sin(x), jnp.cos(x)), (X,)),
    "nothing to do": (lambda x: BARRIER(lax.reduce_precision(lax.stop_gradient(x), 8, 23)), (X,)),
}

SHAPES: dict[str, Case] = {
    "rearrange": (lambda x: (x.T, x.reshape(3, 5), x[None], x[::-1], x[1:4:2], jnp.roll(x, 1, 0)), (X,)),
    "broadcast": (lambda x: (jnp.broadcast_to(x[0], (2, 3)), x[:, None] * x[None]), (X,)),
    "concatenate": (lambda x: (jnp.concatenate([x, x * 2, np.ones((1, 3))]), jnp.stack([x, x], 1)), (X,)),
    "stack tile": (lambda x: (jnp.unstack(x, axis=1), jnp.tile(x, (2, 1, 3)), lax.split(x, (2, 3))), (X,)),
    "pad": (lambda x: (jnp.pad(x, 1), lax.pad(x, 2.0, ((0, 1, 1), (-1, 0, 0)))), (X,)),
    "split": (lambda x: jnp.split(x, [1, 3]), (X,)),
    "known indices": (lambda x: (x[np.array([0, 3, 3])], jnp.take(x, np.array([1, -1]), 0), x[2, 1]), (X,)),
    "known updates": (lambda x: (x.at[1].set(0), x.at[np.array([0, 0])].add(1.5), x.at[:, 1].subtract(x[:, 0])), (X,)),
    "dynamic slices": (lambda x: (lax.dynamic_slice(x, (7, 1), (2, 2)), x.at[0:2].set(x[3:5])), (X,)),
    "fill value": (lambda x: x.at[np.array([1, 9])].get(mode="fill", fill_value=5.0), (X,)),
    "tril": (lambda x: jnp.tril(x) + jnp.eye(5, 3), (X,)),
    "one_hot": (lambda i: jax.nn.one_hot(i, 4), (abs(I) % 4,)),
}

REDUCTIONS: dict[str, Case] = {
    "sum mean": (lambda x: (x.sum(), x.sum(0), x.mean(1), jnp.var(x), jnp.std(x, 0)), (X,)),
    "max min": (lambda x: (x.max(), x.max(0), x.min(1), x.min((0, 1))), (X,)),
    "prod": (lambda x: (jnp.prod(x, 1), jnp.prod(x / 2)), (X,)),
    "bools": (lambda x: (jnp.any(x > 1, 0), jnp.all(x > -2), (x > 0).sum(), lax.reduce_xor(x > 0, (0,))), (X,)),
    "integers": (lambda i: (i.sum(), i.max(0), lax.reduce_and(i, (1,)), lax.reduce_or(i, (1,))), (I,)),
    "argmax": (lambda x: (x.argmax(), x.argmax(0), x.argmin(1)), (X,)),
    "argmax of ties": (lambda i: (jnp.argmax(i % 2, 1), jnp.argmin(i * 0, 0), (i > 0).argmax()), (jnp.tile(I, 3),)),
    "cumulative": (lambda x: (jnp.cumsum(x, 1), lax.cummax(x), lax.cummin(x, reverse=True)), (X,)),
    "cumprod cumlogsumexp": (lambda x: (jnp.cumprod(x, 1), lax.cumlogsumexp(x)), (X,)),
    "empty": (lambda x: (x[:0].sum(), jnp.any(x[:0] > 0), jnp.prod(x[:0])), (X,)),
    "norms": (lambda x: (jnp.linalg.norm(x), jnp.linalg.norm(x, axis=1), jax.nn.logsumexp(x, 1)), (X,)),
    "sort": (lambda x: (jnp.sort(x, 0), jnp.sort(x, 1), jnp.sort(x.ravel(), descending=True)), (X,)),
    "argsort": (lambda x: (jnp.argsort(x, 0), jnp.argsort(-x[:, 0])), (X,)),
    "stable sort": (lambda i: lax.sort((i, jnp.arange(12)), num_keys=1), (jnp.tile(I.ravel() % 3, 2),)),
    "sort by two keys": (lambda i, x: lax.sort((i, x, i * 2), num_keys=2), (I.ravel() % 2, X.ravel()[:6])),
    "sort of extremes": (
        lambda i: lax.sort((i, jnp.arange(3)), is_stable=False),
        (jnp.array([2**31 - 1, 5, -(2**31)]),),
    ),
    "top_k": (lambda x, u: (lax.top_k(x, 2), lax.top_k(u, 2)), (X, U)),
    "median": (lambda x: (jnp.median(x), jnp.percentile(x, 30, axis=0)), (X,)),
}

PRODUCTS: dict[str, Case] = {
    "of nothing": (lambda x: (x[:, :0] @ x[:0], x[:0] @ x.T), (X,)),
    "matmul": (lambda x, y: (x @ y.T, x.T @ y[:, 0], jnp.dot(x[0], y[0])), (X, Y)),
    "known matrices": (lambda x: (x @ np.arange(6.0).reshape(3, 2), x @ np.array([0.1, 1e-4, 2])), (X,)),
    "counts": (lambda x, y: ((x > 0).astype(float) @ y.T, (x > 0).astype(float).T @ (y > 0).astype(float)), (X, Y)),
    "batched": (lambda x, y: (jnp.einsum("bi,bj->bij", x, y), jnp.einsum("bi,bi->b", x, y)), (X, Y)),
    "integer": (lambda i, j: (i @ j.T, lax.dot(i.astype("i1"), j.T.astype("i1"), preferred_element_type=int)), (I, J)),
    "vmap": (lambda x, y: jax.vmap(lambda a, b: jnp.outer(a, b) @ a)(x, y), (X, Y)),
}  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name: str) -> None:
    fn, args = ELEMENTWISE[name]
    agrees(fn, *args)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    fn, args = SHAPES[name]
    agrees(fn, *args)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    fn, args = REDUCTIONS[name]
    agrees(fn, *args)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    fn, args = PRODUCTS[name]
    agrees(fn, *args)


# control -------------------------------------------------------------------------------------------------

CONTROL: dict[str, Case] = {
    "scan": (lambda x: lax.scan(lambda c, r: (c * 0.5 + r, c.sum()), jnp.zeros(3), x), (X,)),
    "scan in reverse": (lambda x: lax.scan(lambda c, r: (c + r, c), jnp.zeros(3), x, reverse=True), (X,)),
    "scan with known rows": (lambda x: lax.scan(lambda c, r: (c + r * x[0], r), x[0] * 0, np.arange(4.0)), (X,)),
    "scan with equal rows": (lambda x: lax.scan(lambda c, r: (c + r * x[0], r), x[0], np.ones(4)), (X,)),
    "scan of one": (lambda x: lax.scan(lambda c, r: (c + r, c * 2), x[0], x[:1]), (X,)),
    "scan of none": (lambda x: lax.scan(lambda c, r: (c + r, c * 2), x[0], x[:0]), (X,)),
    "fori_loop": (lambda x: lax.fori_loop(0, 5, lambda i, c: c + i * x[i], jnp.zeros(3)), (X,)),
    "nested loops": (
        lambda x: lax.fori_loop(0, 3, lambda i, c: lax.fori_loop(0, 2, lambda j, d: d * 0.5 + x[i, j], c), 0.0),
        (X,),
    ),
    "counted while": (
        lambda x: lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 2, c[1] * 0.5), (0, x)),
        (X,),
    ),
    "while that never runs": (lambda x: lax.while_loop(lambda c: c[0] < 0, lambda c: (c[0], c[1] * 2), (1, x)), (X,)),
    "while, revealed": (
        lambda x: lax.while_loop(lambda c: reveal(c[0] < 10), lambda c: (c[0] * 2, c[1] + 1), (x[0, 0] ** 2 + 1, 0)),
        (X,),
    ),
    "cond": (lambda x: lax.cond(x[0, 0] > 0, lambda y: (y * 2, 1), lambda y: (y + 1, 1), x), (X,)),
    "cond, known": (lambda x: lax.cond(np.True_, lambda y: y * 2, lambda y: y / 0, x), (X,)),
    "cond, revealed": (lambda x: lax.cond(reveal(x[0, 0] > 0), lambda y: y * 2, lambda y: x * 0, x), (X,)),
    "switch": (
        lambda x: lax.switch(x[0].argmax(), [lambda y: y * 2, lambda y: y + 1, lambda y: -y], x),
        (X,),
    ),
    "switch of bools": (lambda i: lax.switch(i[1, 0], [lambda: i > 0, lambda: i < 0, lambda: i == 0]), (I,)),
    "vmapped cond": (jax.vmap(lambda x: lax.cond(x > 0, lambda y: y * 2, lambda y: y + 1, x)), (X[0],)),
    "map": (lambda x: lax.map(lambda r: r.sum() * r, x), (X,)),
    "associative_scan": (lambda x: lax.associative_scan(jnp.add, x), (X,)),
    "calls": (jax.jit(jax.checkpoint(lambda x: jax.jit(jax.nn.relu)(x) * 2)), (X,)),
    "random": (lambda x: x + jax.random.normal(jax.random.key(0), x.shape), (X,)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTROL)
def test_control(name: str) -> None:
    fn, args = CONTROL[name]
    agrees(fn, *args)


def test_known_branches_leave_no_trace() -> None:
    fn, args = CONTROL["cond, known"]
    assert "cond" not in names(lowered(fn, *args))


def test_a_public_condition_branches() -> None:
    module = agrees(
        lambda c, x: lax.cond(c, lambda y: y * 2, lambda y: y * 0, x), True, X, visibility=["public", "secret"]
    )
    assert names(module).count("cond") == 1


def test_loop_counters_stay_public_and_known_carries_leave() -> None:
    fn = lambda x: lax.fori_loop(0, 5, lambda i, c: (c[0], c[1] + i * x[i] * c[0]), (2.0, jnp.zeros(3)))  # noqa: E731
    module = agrees(fn, X)
    (loop,) = [op for op in module.body.ops if op.name == "loop"]
    assert sorted(str(v.type) for v in loop.inputs) == ["fxp18[3] secret", "fxp18[5,3] secret", "int32[] public"]


# gradients -----------------------------------------------------------------------------------------------

LABELS = jnp.asarray([1.0, 0, 1, 1, 0])
WEIGHTS = {"a": Y.T[:, :4] / 2, "b": jnp.full(4, 0.1), "c": X[:4, :1] / 2}


def logistic_regression(w: Any, x: Any, y: Any) -> Any:
    def loss(w: Any) -> Any:
        p = jax.nn.sigmoid(x @ w)
        return -jnp.mean(y * jnp.log(p + 1e-3) + (1 - y) * jnp.log(1 - p + 1e-3))

    def step(w: Any, _: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(w)
        return w - 0.1 * gradient, value

    return lax.scan(step, w, None, length=4)


def mlp(p: Any, x: Any, y: Any) -> Any:
    return jnp.mean((jax.nn.relu(x @ p["a"] + p["b"]) @ p["c"] - y[:, None]) ** 2)


def cross_entropy(w: Any, x: Any) -> Any:
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(x @ w) * jax.nn.one_hot(jnp.arange(5) % 3, 3), 1))


GRADIENTS: dict[str, Case] = {
    "logistic regression": (logistic_regression, (X[0], X, LABELS)),
    "mlp": (jax.value_and_grad(mlp), (WEIGHTS, X, LABELS)),
    "cross entropy": (jax.value_and_grad(cross_entropy), (Y[:3], X)),
    "where": (jax.grad(lambda x: jnp.where(x > 0, x * x, jnp.exp(x)).sum()), (X,)),
    "take": (jax.grad(lambda x: (jnp.take(x, np.array([0, 3, 3]), axis=0) ** 2).sum()), (X,)),
    "max and std": (jax.grad(lambda x: jnp.max(x) + jnp.std(x) + jnp.abs(x).sum()), (X,)),
    "prod and cumsum": (jax.grad(lambda x: jnp.prod(x[0]) + (jnp.cumsum(x, 0) ** 2).sum()), (X,)),
    "scan": (jax.grad(lambda x: lax.scan(lambda c, r: (c * r + r, c), x[0], x)[1].sum()), (X / 4,)),
    "softmax": (jax.grad(lambda x: jax.nn.softmax(x, -1)[:, 0].sum()), (X,)),
    "activations": (jax.grad(lambda x: (jax.nn.gelu(x) + jax.nn.silu(x) + jax.nn.softplus(x)).sum()), (X,)),
    "cond": (jax.grad(lambda x: lax.cond(x[0, 0] > 0, lambda y: (y * y).sum(), jnp.sum, x)), (X,)),
    "hessian": (jax.hessian(lambda w: jnp.sum((X @ w) ** 3)), (X[0],)),
    "reveal": (jax.grad(lambda x: (reveal(x * x) * x).sum()), (X,)),
    "vmapped": (jax.vmap(jax.grad(lambda x: jnp.sin(x).sum() / (1 + x[0] ** 2))), (X,)),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str) -> None:
    fn, args = GRADIENTS[name]
    agrees(fn, *args, units=64)


# visibility ----------------------------------------------------------------------------------------------


def test_visibility_is_joined_not_forced() -> None:
    def fn(a: Any, b: Any, s: Any) -> Any:
        return a * 2 + a.max(), a + b, jnp.sort(b), a + s, reveal(s), reveal(s, to="party2"), reveal(a)

    module = lowered(fn, X[0], X[1], X[2], visibility=["public", 1, "secret"])
    who = [v.type.visibility for v in module.body.results]
    assert who == ["public", 1, 1, "secret", "public", 2, "public"]
    assert names(module).count("reveal") == 2


def test_a_loop_over_private_values_stays_private() -> None:
    fn = lambda x: lax.scan(lambda c, r: (c + r * r, c), jnp.zeros(3), x)  # noqa: E731
    module = agrees(fn, X, visibility=1)
    assert {v.type.visibility for v in module.body.results} == {1}
    assert "share" in names(module)


def test_known_results() -> None:
    module = lowered(lambda x: (jnp.arange(3), 2.5, x), X)
    assert [np.asarray(v).tolist() for v in run(module, X)][:2] == [[0, 1, 2], 2.5]


def test_whole_numbers_multiply_without_truncation() -> None:
    module = lowered(lambda x, y: ((x > 0) * y, (x > 0).astype(float) @ y.T, x * 3, x.astype(int) * y), X, Y)
    assert "trunc" not in names(module)


def test_dead_equations_need_no_rule() -> None:
    agrees(lambda x: (jnp.linalg.inv(x[:3]), x * 2)[1], X)


MASKS = [-jnp.inf, jnp.inf, float(np.finfo(np.float32).min), -1e30]


@pytest.mark.parametrize("mask", MASKS)
def test_infinities_that_mask(mask: float) -> None:
    """What is compared with them, or added to them, is what JAX gives; softmax gives them no weight."""
    which = (X > 0).at[:, 0].set(True)
    agrees(lambda x: jnp.max(jnp.where(x > 0, x, -abs(mask)), axis=0, initial=0), X)
    agrees(lambda x: jax.nn.relu(jnp.where(which, x, -abs(mask))), X)
    agrees(lambda x: jax.nn.softmax(jnp.where(which, 0.0, -abs(mask)) + x), X)
    agrees(lambda x: jnp.where(x > 0, mask, 0) > 1, X)


SPECIAL: dict[str, tuple[Callable[..., Any], Any]] = {  # JAX's own code says NaN beyond their domain
    "expon.ppf": (stats.expon.ppf, np.array([0.1, 0.5, 0.9])),
    "uniform.ppf": (lambda q: stats.uniform.ppf(q, -1.0, 3.0), np.array([0.0, 0.5, 1.0])),
    "truncnorm.cdf": (lambda x: stats.truncnorm.cdf(x, -2.0, 2.0), np.array([-3.0, -1.5, 0.5, 2.5])),
    "bernoulli.cdf": (lambda k: stats.bernoulli.cdf(k, 0.3), np.array([-1, 0, 1, 2])),
    "logsumexp": (lambda x: special.logsumexp(x, b=x), np.array([0.5, -0.25, 2.0])),
    "spence": (special.spence, np.array([0.2, 0.9, 3.0])),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_functions_within_their_domain(name: str) -> None:
    fn, x = SPECIAL[name]
    agrees(fn, x.astype(np.int32 if x.dtype.kind == "i" else np.float32), units=64)


def test_zero_stands_for_nan_beyond_the_domain_of_special_functions_only() -> None:
    x = np.array([-0.5, 0.5, 1.5], np.float32)
    (got,) = run(lowered(stats.expon.ppf, x), x)
    np.testing.assert_allclose(got, [0, np.log(2), 0], atol=1e-4)
    for missing in (  # a user's own NaN, though `jnp.where` was traced for JAX's function before
        lambda x: jnp.where(x > 0, x, jnp.nan),
        lambda x: jax.jit(lambda y: lax.select(y > 0, y, jnp.full_like(y, jnp.nan)))(x),
        lambda x: stats.expon.ppf(jnp.where((x > 0) & (x < 1), x, jnp.nan)),
    ):
        agrees(missing, x)


# refusals ------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[..., Any], type[Exception], str]] = {
    "primitive": (lambda x: lax.nextafter(x, x), UnsupportedError, r"`nextafter`.*no secure.*fixed point"),
    "unknown primitive": (lambda x: lax.igamma_grad_a(x, x), UnsupportedError, "`igamma_grad_a`"),
    "complex": (lambda x: jnp.linalg.cholesky(1j * x @ x.T), UnsupportedError, "`cholesky`: not for complex"),
    "infinity": (lambda x: x * -jnp.inf, EncodingError, "-inf.*use a finite number"),
    "infinity at some places": (
        lambda x: jnp.where(np.eye(5, 3) > 0, x, x * jnp.inf),
        EncodingError,
        "`mul`.*use a finite number",
    ),
    "large": (lambda x: x + 1e20, EncodingError, "1e\\+20"),
    "large result": (lambda x: (x, 1e20), EncodingError, r"result `out\[1\]`"),
    "zero": (lambda x: x / 0, EncodingError, "division by a constant that is zero"),
    "while": (
        lambda x: lax.while_loop(lambda c: c < 9, lambda c: c * 2, x[0, 0]),
        VisibilityError,
        "condition is secret.*fori_loop",
    ),
    "endless": (
        lambda x: lax.while_loop(lambda c: c[0] < 9, lambda c: (c[0] - c[0], c[1] * 2), (0, x))[1],
        UnsupportedError,
        "for ever",
    ),
    "index out of bounds": (lambda x: jnp.take(x, np.array([0, 9]), axis=0), EncodingError, "out of bounds"),
    "reveal in a branch": (
        lambda x: lax.cond(x[0, 0] > 0, lambda y: reveal(y), lambda y: y, x),
        VisibilityError,
        "condition is secret",
    ),
    "party": (lambda x: reveal(x, to="dave"), VisibilityError, "dave.*party0"),
    "key": (lambda x: jax.random.normal(jax.random.key(x[0, 0].astype(int))), UnsupportedError, "seed.*not public"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_line(name: str) -> None:
    fn, error, message = REFUSED[name]
    with pytest.raises(error, match=message) as caught:
        lowered(fn, X)
    assert "test_lower.py:" in str(caught.value)


def test_inputs_that_do_not_fit() -> None:
    traced = trace(lambda x: x, [X])
    with pytest.raises(InputError, match="visibilities"):
        lower(traced, [], Config())
    with pytest.raises(InputError, match="rank 3"):
        lower(traced, [3], Config())
    with pytest.raises(UnsupportedError, match=r"random key .* not public: pass it as `spu\.public\(key\)`"):
        lower(trace(lambda k: jax.random.uniform(k), [jax.random.key(0)]), ["secret"], Config())


def test_registering_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="registered twice"):
        merge(RULES, {"add": RULES["add"]})


def test_double_precision_of_the_user() -> None:
    with jax.enable_x64(True):
        module = lowered(lambda x: x * (1.0 + 2.0**-30) + jnp.arange(3)[1], np.float64(2.0))
    assert module.input_dtypes == ("float64",)
    assert jnp.arange(1.0).dtype == np.float32


@pytest.mark.parametrize("dtype", ["int8", "uint32", "int64", "uint64"])
def test_shifts_by_amounts_of_any_integer_type(dtype: str) -> None:
    """As in XLA an amount of the width and above, or a negative one, shifts all out."""
    with jax.enable_x64(True):
        x = jnp.asarray([3, 100, 7, 9], dtype)
        amounts = np.array([0, 1, 5, 200 if dtype.startswith("u") else -1]).astype(dtype)
        for shift in (lax.shift_left, lax.shift_right_logical, lax.shift_right_arithmetic):
            agrees(lambda x, shift=shift: shift(x, amounts), x - 10)
