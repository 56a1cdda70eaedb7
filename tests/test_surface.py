"""JAX programs as people write them: masks of infinity, loops under vmap, pytrees of their own making."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowering import lowered, run

import spuvm as spu
from spuvm.compiler.lower.prints import texts
from spuvm.runtime.errors import EncodingError, UnsupportedError, VisibilityError

X = np.array([3.0, 1.0, 2.0], np.float32)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.max(x.at[0].set(-jnp.inf)),
        lambda x: jnp.max(jnp.concatenate([jnp.array([-jnp.inf]), x])),
        lambda x: jnp.min(jnp.pad(x, 1, constant_values=jnp.inf)),
        lambda x: jnp.max(jnp.stack([x, jnp.full(3, -jnp.inf)])),
        lambda x: jnp.max(x.at[0:1].set(jnp.full(1, -jnp.inf))),
        lambda x: lax.fori_loop(0, 3, lambda i, m: jnp.maximum(m, x[i]), -jnp.inf),
        lambda x: lax.scan(lambda m, v: (jnp.maximum(m, v), m), jnp.float32(-jnp.inf), x)[0],
        lambda x: jax.nn.softmax(x.at[1].set(-jnp.inf)),
    ],
)
def test_infinity_is_a_mask_wherever_values_are_moved(f: Callable[[Any], Any]) -> None:
    np.testing.assert_allclose(spu.reveal(spu.jit(f)(X)), f(jnp.asarray(X)), atol=1e-4)


def asked(x: Any) -> Any:
    """What programs ask of masks, before and after they are moved, added to and carried."""
    low, high = jnp.where(x > 1.5, x, -jnp.inf), jnp.where(x > 1.5, x, jnp.inf)
    moved, added = jnp.stack([x, low])[1, ::-1], low + jnp.array([0.0, 2.0, -jnp.inf])
    largest = jax.ops.segment_max(x, jnp.array([0, 2, 2]), 4)
    start: Any = -jnp.inf, 0
    (best, unset), _ = lax.scan(lambda c, v: ((jnp.maximum(c[0], v), c[1] + jnp.isinf(c[0])), None), start, x)
    _, met = lax.scan(lambda c, v: (jnp.where(v > 2.5, jnp.inf, c), jnp.isinf(c)), jnp.float32(0), x)
    return [
        *(f(y) for f in (jnp.isinf, jnp.isposinf, jnp.isneginf, jnp.isfinite) for y in (low, high, moved, added)),
        *(low == -jnp.inf, low > -jnp.inf, low <= -jnp.inf, high != jnp.inf, high < jnp.inf, jnp.isinf(-high)),
        *(jnp.where(jnp.isinf(largest), 0, largest), jnp.nan_to_num(low, neginf=-7.0), jnp.isinf(low.max())),
        *(
            best,
            unset,
            met,
            jnp.isinf(best),
            lax.fori_loop(0, 2, lambda i, c: jnp.where(x > i + 1, c, jnp.inf), x) == jnp.inf,
        ),
    ]


def test_infinities_of_the_program_are_found() -> None:
    for got, want in zip(run(lowered(asked, X), X), asked(jnp.asarray(X)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("ring", [32, 128])
def test_infinities_of_other_rings(ring: int) -> None:
    low = spu.reveal(spu.jit(lambda x: jnp.isinf(jnp.where(x > 1.5, x, -jnp.inf)), ring=ring)(X))
    assert low.tolist() == [False, True, False]


def test_what_comes_in_is_finite_without_a_round() -> None:
    def program(x: Any) -> Any:
        sums = lax.scan(lambda c, v: (c + v, jnp.isinf(c)), jnp.float32(0), jnp.concatenate([x, x]))
        return jnp.isfinite(x), jnp.isinf(x + 1), x * 2 < jnp.inf, jax.nn.softmax(x) == jnp.inf, sums

    assert "less" not in [op.name for op in spu.jit(program).compile(X[:1]).module.body.walk()]


def test_where_it_is_computed_with_it_is_refused() -> None:
    with pytest.raises(EncodingError, match=r"test_surface\.py.*inf"):
        spu.jit(lambda x: x * jnp.array([jnp.inf, 1.0, 2.0]))(X)


def test_loops_under_vmap_run_while_any_goes_on() -> None:
    starts = np.array([0.0, 1.0, 5.0], np.float32)

    def revealed(x: Any) -> Any:
        return jax.vmap(lambda v: lax.while_loop(lambda c: spu.reveal(c) < 3, lambda c: c + 1, v))(x)

    def public(x: Any) -> Any:
        loop = lambda v: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2), (v, v))  # noqa: E731
        return jax.vmap(loop)(x)  # type: ignore[no-untyped-call]

    np.testing.assert_allclose(spu.reveal(spu.jit(revealed)(starts)), [3, 3, 5], atol=1e-5)
    got = spu.reveal(spu.jit(public)(spu.public(starts)))
    np.testing.assert_allclose(got, public(jnp.asarray(starts)), atol=1e-5)


@jax.tree_util.register_pytree_node_class
class Model:
    """One whose constructor fills in what is None, so that a rebuilt object has other leaves."""

    def __init__(self, start: Any = None, centers: Any = None) -> None:
        self.start, self.centers = np.arange(2) if start is None else start, centers

    def tree_flatten(self) -> Any:
        return [self.start, self.centers], None

    @classmethod
    def tree_unflatten(cls, _: Any, leaves: Any) -> Model:
        return cls(*leaves)


def test_names_of_results_are_those_of_what_the_function_returned() -> None:
    def fit(x: Any) -> Model:
        model = Model()
        model.start, model.centers = None, x.sum(0)
        return model

    f = spu.jit(fit)
    assert len(f.compile(X[:, None]).module.outputs) == 1
    np.testing.assert_allclose(spu.reveal(f(X[:, None])).centers, [6.0], atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int32])
@pytest.mark.parametrize("f", [jnp.copysign, jnp.ldexp])
def test_integers_become_floats_as_in_jax(f: Callable[..., Any], dtype: Any) -> None:
    x, y = np.array([1, 2], dtype), np.array([3, 4], dtype)
    got, want = spu.reveal(spu.jit(f)(x, y)), f(x, y)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=2e-6)


def test_what_is_public_is_printed_after_each_run(capsys: pytest.CaptureFixture[str]) -> None:
    def f(n: Any, x: Any) -> Any:
        jax.debug.print("n {} of {total}", n, total=spu.reveal(x.sum()))
        jax.debug.print("done")
        return x

    run = spu.jit(f)
    for n in (2, 3):
        np.testing.assert_array_equal(spu.reveal(run(spu.public(n), X)), X)
        assert capsys.readouterr().out == f"n {n} of 6.0\ndone\n"


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda x: (jax.debug.print("{}", x), x)[1], VisibilityError, "value that is secret: `spu.reveal` it first"),
        (
            lambda x: lax.scan(lambda c, v: (jax.debug.print("{}", c), (c + 1, v))[1], 0, x)[1],
            UnsupportedError,
            "within a loop.*`ys`",
        ),
        (
            lambda x: (jax.debug.print("{n.shape}", n=spu.reveal(x)), x)[1],
            UnsupportedError,
            "`n.shape`: print values, not parts",
        ),
    ],
)
def test_what_is_not_printed_is_refused(f: Callable[[Any], Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=rf"test_surface\.py:\d+: .*{message}"):
        spu.jit(f)(X)


@pytest.mark.parametrize("fmt", ["{0.shape}", "{0[0]}", "{0:>99999}"])
def test_a_format_gets_at_values_alone(fmt: str) -> None:
    """A program may be another's: its formats are looked at like one."""
    with pytest.raises(UnsupportedError, match=r"jax\.debug\.print"):
        texts([f"print 0 {json.dumps([fmt, 0])}"], [np.float32(1)])


def test_what_is_printed_leaves_the_terminal_alone() -> None:
    name = json.dumps(["a\u202e {} \x1b[2J\n", 0])
    assert texts([f"print 0 {name}"], [2]) == ["a? 2 ?[2J\n"]


def test_infinity_fills_in_what_is_out_of_bounds() -> None:
    got = spu.jit(lambda x: jnp.take(x, np.array([0, 5]), mode="fill", fill_value=-jnp.inf).max())(X)
    assert spu.reveal(got) == X[0]
