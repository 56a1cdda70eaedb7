"""Reading and writing at secret, private and public places against JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowering import agrees, lowered, names

import spuvm as spu
from spuvm.compiler.lower.oblivious import FEW
from spuvm.runtime.errors import UnsupportedError

RNG = np.random.default_rng(8)
X = jnp.asarray(RNG.normal(size=(11, 3)), jnp.float32)
LONG = jnp.asarray(RNG.normal(size=70), jnp.float32)
CUBE = jnp.asarray(RNG.normal(size=(5, 6, 7)), jnp.float32)
INTS = jnp.asarray(RNG.integers(-99, 99, (9, 2)), jnp.int32)
BITS = INTS[:, 0] > 0
Q = jnp.asarray([3, 0, 10, 3], jnp.int32)
OUT = jnp.asarray([-12, -1, 0, 5, 10, 11, 99], jnp.int32)
S = jnp.int32(4)
UPDATES = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)

Case = tuple[Callable[..., Any], tuple[Any, ...]]


def picked(mode: str, fill_value: Any = None) -> Callable[..., Any]:
    return lambda x, i: jnp.asarray(x).at[i].get(mode=mode, fill_value=fill_value, wrap_negative_indices=False)


READS: dict[str, Case] = {
    "one row": (lambda x, i: x[i], (X, S)),
    "one element": (lambda x, i: x[i, i // 2], (X, jnp.int32(2))),
    "rows": (lambda x, i: x[i], (X, Q)),
    "negative": (lambda x, i: x[i], (X, -Q - 1)),
    "beyond the end": (lambda x, i: (x[i], x.at[i].set(0.5), x.at[i, 1].get(mode="clip")), (X, OUT)),
    "narrow negative": (lambda x, i: x[i], (LONG, jnp.asarray([-1, -70, 69, 5], jnp.int8))),
    "columns": (lambda x, i: x[:, i], (CUBE, Q[:2])),
    "matrix of indices": (lambda x, i: x[i], (X, Q.reshape(2, 2))),
    "long table": (lambda x, i: x[i], (LONG, jnp.asarray([0, 69, 33]))),
    "known table": (lambda i: jnp.asarray(np.arange(70.0) ** 2 / 64)[i], (jnp.asarray([0, 69, 33]),)),
    "two axes": (lambda x, i: x[i, 1, i], (CUBE, Q[:2])),
    "known beside secret": (lambda x, i: x[np.arange(4), i % 3], (X, Q)),
    "clip": (picked("clip"), (X, OUT)),
    "clip few": (picked("clip"), (X[:3], OUT)),
    "clip power of two": (picked("clip"), (X[:8], OUT)),
    "fill": (picked("fill", 2.5), (X, OUT)),
    "fill few": (picked("fill", 0), (X[:2], OUT)),
    "fill long": (picked("fill", -1.0), (LONG, jnp.asarray([-1, 69, 70, 127, 128]))),
    "fill integers": (picked("fill"), (INTS, OUT)),
    "integers": (lambda x, i: x[i], (INTS, Q % 9)),
    "bools": (lambda x, i: x[i], (BITS, Q % 9)),
    "narrow indices": (lambda x, i: x[i], (X, Q.astype(jnp.uint8))),
    "unsigned indices": (lambda x, i: x[i], (X, Q.astype(jnp.uint32))),
    "take": (lambda x, i: (jnp.take(x, i, axis=0), jnp.take(x, i % 3, axis=1), jnp.take(x, i)), (X, Q)),
    "take_along_axis": (lambda x, i: jnp.take_along_axis(x, i[:, None] % 3, axis=1), (X[:4], Q)),
    "argsort": (lambda x: jnp.take_along_axis(x, jnp.argsort(x, 0), 0), (X[:5],)),
    "dynamic_slice": (lambda x, i: lax.dynamic_slice(x, (i, i - 3), (4, 2)), (X, S)),
    "dynamic_slice beyond": (lambda x, i: lax.dynamic_slice(x, (i + 6, -i), (4, 2)), (X, S)),
    "dynamic_slice anywhere": (
        lambda x, i: tuple(lax.dynamic_slice(x, (j, 0), (4, 3)) for j in i),
        (X, jnp.asarray([-1, -2, -7, -11, -12, 8, 2**31 - 1, -(2**31)], jnp.int32)),
    ),
    "far beyond the ends": (lambda x, i: x[i], (LONG, jnp.asarray([2**31 - 1, 2**31 - 70, -(2**31)], jnp.int32))),
    "dynamic_slice, one axis": (lambda x, i: lax.dynamic_slice_in_dim(x, i, 3, axis=1), (CUBE, S)),
    "dynamic_slice, all": (lambda x, i: lax.dynamic_slice(x, (i, 0), (11, 3)), (X, S)),
    "vmapped slices": (lambda x, i: jax.vmap(lambda r, j: lax.dynamic_slice(r, (j,), (2,)))(x[:4], i), (X, Q % 3)),
    "windows": (lambda x, i: jax.vmap(lambda j: lax.dynamic_slice(x, (j, 1), (3, 2)))(i), (X, Q)),
    "whole numbers": (lambda x, i: (x > 0).astype(float)[i] * x[i], (X, Q)),
    "in a loop": (lambda x: lax.fori_loop(0, 3, lambda t, i: i + (x[i, 0] > 0) * 2 + 1, 0), (X,)),
    "linked list": (lambda n: lax.scan(lambda i, _: (n[i], i), 0, None, length=4), (jnp.asarray([2, 0, 4, 1, 3]),)),
    "empty": (lambda x, i: x[:0][:, i], (X, Q % 3)),
    "no indices": (lambda x, i: x[i[:0]], (X, Q)),
}


@pytest.mark.parametrize("name", READS)
def test_reads(name: str) -> None:
    fn, args = READS[name]
    agrees(fn, *args)


@pytest.mark.parametrize("visibility", ["secret", "public"])
def test_zero_stands_for_nan_out_of_bounds(visibility: str) -> None:
    """JAX fills in NaN: stated in docs/operations.md, and found by `check`."""

    def f(x: Any, i: Any) -> Any:
        return jnp.take(x, i), jnp.take_along_axis(x, i, 0)

    table, places = np.array([1.5, 2.5, 3.5], np.float32), np.array([0, -1, 3, -4], np.int32)
    places = places if visibility == "secret" else spu.public(places)
    for got in spu.reveal(spu.jit(f, protocol="ref2k")(table, places)):
        np.testing.assert_array_equal(got, [1.5, 3.5, 0, 0])
    report = spu.check(f, table, places)
    assert [(x.why, x.operation) for x in report.findings] == [("domain", "gather")]
    assert report.findings[0].reason == "an index is out of bounds" and "fill_value" in report.findings[0].advice


@pytest.mark.parametrize("start", [-12, -11, -10, -2, 3, 8, 99])
def test_public_starts_anywhere(start: int) -> None:
    def f(x: Any, i: Any) -> Any:
        return lax.dynamic_slice(x, (i, 0), (4, 3)), lax.dynamic_update_slice(x, x[:4] + 1, (i, 0))

    agrees(f, X, jnp.int32(start), visibility=["secret", "public"])


def test_axes_that_the_slices_cover_in_part() -> None:
    numbers = lax.GatherDimensionNumbers((1, 2), (1,), (1,))
    agrees(lambda x, i: lax.gather(x, i[:, None], numbers, (4, 1, 3), mode="clip"), CUBE, Q)


WRITES: dict[str, Case] = {
    "set a row": (lambda x, i, u: x.at[i].set(u[0]), (X, S, UPDATES)),
    "set an element": (lambda x, i: x.at[i, 2].set(5.0), (X, S)),
    "set rows": (lambda x, i, u: x.at[i].set(u), (X, jnp.asarray([3, 0, 10, 2]), UPDATES)),
    "set rows again": (lambda x, i, u: x.at[i].set(u), (X, Q, UPDATES)),
    "set a constant": (lambda x, i: x.at[i].set(1.5), (X, Q)),
    "set in a long table": (lambda x, i, u: x.at[i].set(u[:, 0]), (LONG, Q * 6, UPDATES)),
    "set outside": (lambda x, i: x.at[i].set(1.5, wrap_negative_indices=False), (X, OUT)),
    "set outside, clipped": (
        lambda x, i: x.at[i].set(1.5, mode="clip", wrap_negative_indices=False),
        (X, jnp.asarray([-4, 99])),
    ),
    "set two axes": (lambda x, i: x.at[i, :, i].set(2.0), (CUBE, Q % 5)),
    "set columns": (lambda x, i, u: x.at[:, i].set(u[0, 0]), (X, Q % 3, UPDATES)),
    "set integers": (lambda x, i: x.at[i % 9].set(7), (INTS, Q)),
    "set bools": (lambda x, i: x.at[i % 9].set(True), (BITS, Q)),
    "add": (lambda x, i, u: x.at[i].add(u), (X, Q, UPDATES)),
    "add in a long table": (lambda x, i, u: x.at[i].add(u[:, 1]), (LONG, Q * 6, UPDATES)),
    "add outside": (lambda x, i: x.at[i].add(1.5, wrap_negative_indices=False), (X, OUT)),
    "subtract": (lambda x, i, u: x.at[i].subtract(u), (X, Q, UPDATES)),
    "add two axes": (lambda x, i: x.at[i, i].add(0.5), (X, Q % 3)),
    "max": (lambda x, i, u: x.at[i].max(u), (X, Q, UPDATES)),
    "min of one": (lambda x, i, u: x.at[i].min(u[0]), (X, S, UPDATES)),
    "min of integers": (lambda x, i: x.at[i % 9].min(-5), (INTS, Q)),
    "multiply": (lambda x, i, u: x.at[i].multiply(u), (X, Q, UPDATES)),
    "multiply one": (lambda x, i: x.at[i].multiply(3.0), (X, S)),
    "max of two axes": (lambda x, i, u: x.at[i % 4, i % 3].max(u[:, 0]), (X, Q, UPDATES)),
    "segment sum": (lambda x, i: jax.ops.segment_sum(x[:4], i, 11), (X, Q)),
    "bincount": (lambda i: jnp.bincount(i, length=12), (Q,)),
    "dynamic_update_slice": (lambda x, i, u: lax.dynamic_update_slice(x, u[:2, :2], (i, i - 3)), (X, S, UPDATES)),
    "dynamic_update_slice anywhere": (
        lambda x, i, u: tuple(lax.dynamic_update_slice(x, u, (j, 0)) for j in i),
        (X, jnp.asarray([-1, -2, -11, -12, 8, 2**31 - 1], jnp.int32), UPDATES),
    ),
    "dynamic_update_slice beyond": (
        lambda x, i, u: lax.dynamic_update_slice(x, u[:, :2], (i + 9, -i)),
        (X, S, UPDATES),
    ),
    "dynamic_update_index": (lambda x, i, u: lax.dynamic_update_index_in_dim(x, u[0], i, 0), (X, S, UPDATES)),
    "vmapped updates": (
        lambda x, i, u: jax.vmap(lambda r, j, v: lax.dynamic_update_slice(r, v, (j,)))(x[:4], i % 3, u[:, :2]),
        (X, Q, UPDATES),
    ),
    "windows that do not overlap": (
        lambda x, i: x.at[(i[:2] * 5)[:, None] + np.arange(2)].set(1.5, unique_indices=True),
        (X, jnp.asarray([1, 0])),
    ),
    "in a loop": (lambda x: lax.fori_loop(0, 3, lambda t, c: c.at[(c[t, 0] > 0) * 2].add(1.0), x), (X,)),
    "known": (lambda x: (x.at[np.array([1, 1, 2])].max(0.5), x.at[np.array([4, 0, 99])].multiply(2)), (X,)),
    "known, two axes": (lambda x, u: x.at[np.array([1, 1, 1, 2]), np.array([2, 0, 2, 2])].min(u[:, 0]), (X, UPDATES)),
    "known windows": (
        lambda x, u: lax.scatter_max(
            x, np.array([[1], [0], [9], [1]]), u[:, :2], lax.ScatterDimensionNumbers((1,), (), (0,)), mode="clip"
        ),
        (LONG[:9], UPDATES),
    ),
    "known, batched": (
        lambda x, u: jax.vmap(lambda r, i, v: r.at[i].multiply(v))(x[:4], np.arange(8).reshape(4, 2) % 3, u[:, :2]),
        (X, UPDATES),
    ),
    "apply": (lambda x, i: x.at[i].apply(lambda v: v * v), (X, S)),
    "apply, known": (lambda x: x.at[np.array([2, 0])].apply(jnp.abs, unique_indices=True), (X,)),
    "segment max": (lambda x: jnp.full(3, -9.0).at[np.arange(11) % 3].max(x[:, 0]), (X,)),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITES)
def test_writes(name: str) -> None:
    fn, args = WRITES[name]
    agrees(fn, *args)


def sum_of_squares(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, i: (fn(x, i) ** 2).sum()


@pytest.mark.parametrize("name", ["one row", "rows", "long table", "known beside secret", "dynamic_slice", "windows"])
def test_gradients_of_reads(name: str) -> None:
    fn, args = READS[name]
    agrees(jax.grad(sum_of_squares(fn)), *args)


@pytest.mark.parametrize("name", ["set a row", "add", "subtract", "dynamic_update_slice"])
def test_gradients_of_writes(name: str) -> None:
    fn, (x, i, u) = WRITES[name]
    agrees(jax.grad(lambda x, u, i: (fn(x, i, u) ** 2).sum(), (0, 1)), x, u, i)


def cross_entropy(w: Any, x: Any, labels: Any) -> Any:
    return -jax.nn.log_softmax(x @ w)[jnp.arange(len(labels)), labels].mean()


def test_integer_labels() -> None:
    agrees(jax.grad(cross_entropy), X.T[:, :3], X, INTS[:, 0].repeat(2)[:11] % 3, units=64)


# numpy -------------------------------------------------------------------------------------------------

POINTS = jnp.asarray([0.5, 1.0, 2.0, 4.5], jnp.float32)
VALUES = jnp.asarray([1.0, -2.0, 3.0, 8.0], jnp.float32)
AT = jnp.asarray([0.0, 0.7, 2.0, 3.9, 9.0], jnp.float32)

NUMPY: dict[str, Case] = {
    "searchsorted": (lambda x, y: (jnp.searchsorted(x, y), jnp.searchsorted(x, y, side="right")), (POINTS, AT)),
    "compare_all": (lambda x, y: jnp.searchsorted(x, y, method="compare_all"), (POINTS, AT)),
    "searchsorted, long": (
        lambda x, y: (jnp.searchsorted(x, y), jnp.searchsorted(x, y, side="right")),
        (jnp.sort(jnp.round(LONG * 4)), jnp.asarray([[-99, -4, 0.5], [0, 3, 99]], jnp.float32)),
    ),
    "searchsorted, known": (lambda y: jnp.searchsorted(np.arange(64.0, dtype="f4"), y, side="right"), (AT * 8,)),
    "searchsorted of integers": (
        lambda x, y: (jnp.searchsorted(x, y), jnp.searchsorted(x, y, side="right")),
        (jnp.asarray([-7] * 30 + [2**31 - 1] * 9, jnp.int32), jnp.asarray([-8, -7, 5, 2**31 - 1], jnp.int32)),
    ),
    "searchsorted, vmapped": (jax.vmap(jnp.searchsorted), (jnp.sort(X[:6], 0).T, X[:3, :2])),
    "interp": (lambda x, xp, fp: jnp.interp(x, xp, fp), (AT, POINTS, VALUES)),
    "interp, known": (lambda x: jnp.interp(x, np.asarray(POINTS), np.asarray(VALUES)), (AT,)),
    "unique": (lambda i: jnp.unique(i, size=4, fill_value=-1), (jnp.asarray([5, 3, 5, 5, 3, 9]),)),
    "histogram": (lambda x: jnp.histogram(x, bins=3, range=(0.0, 5.0)), (POINTS,)),
    "digitize": (lambda x: jnp.digitize(x, np.asarray(POINTS)), (AT,)),
    "nonzero": (lambda x: jnp.nonzero(x > 0, size=3, fill_value=7), (X[:5, 0],)),
    "one_hot": (lambda i: jax.nn.one_hot(i, 5), (Q,)),
    "choose": (lambda i: jnp.choose(i % 3, [X[0], X[1], X[2]], mode="clip"), (Q[:3],)),
}


@pytest.mark.parametrize("name", NUMPY)
def test_numpy(name: str) -> None:
    fn, args = NUMPY[name]
    agrees(fn, *args, units=64)


# visibility and cost -----------------------------------------------------------------------------------


def test_a_private_index_of_public_data_stays_private() -> None:
    module = agrees(lambda x, i: x[i], X, Q, visibility=["public", 1])
    assert module.body.results[0].type.visibility == 1


@pytest.mark.parametrize("who", [["public", "secret"], ["secret", 0], [0, 2], ["secret", "public"]])
def test_visibilities(who: list[Any]) -> None:
    agrees(lambda x, i: (x[i], x.at[i].set(1.0), x.at[i].max(0.0)), X, Q, visibility=who)


def test_public_indices_need_no_product() -> None:
    module = lowered(lambda x, i: (x[i], x.at[i].add(1.0)), X, Q, visibility=["secret", "public"])
    assert not {"dot", "mul"} & set(names(module))


def test_what_is_sent_grows_with_the_root_of_the_table() -> None:
    def sent(n: int, x: Any) -> float:
        return float(
            spu.jit(lambda x, i: x[i]).cost(x(np.zeros(n, np.float32)), np.zeros(1, np.int32)).bytes_sent.sum()
        )

    assert sent(4096, spu.secret) - sent(1024, spu.secret) < 25 * 130 + 24 * 45
    assert sent(4096, spu.public) < 25 * 128 + 24 + 500


def test_known_segments_compare_each_element_once() -> None:
    module = lowered(lambda x: jnp.zeros(10).at[np.arange(70) % 10].max(x), LONG)
    assert sum(op.output.type.size for op in module.body.ops if op.name == "less") == 70


def test_negative_indices_cost_no_comparison_before() -> None:
    cost = spu.jit(lambda x, i: x[i]).cost(LONG, Q)
    assert cost.rounds == spu.jit(lambda x, i: x.at[i].get(wrap_negative_indices=False)).cost(LONG, Q).rounds + 1


def test_few_positions_are_compared() -> None:
    module = lowered(lambda x, i: lax.dynamic_index_in_dim(x, i, 0), X[:FEW], S)
    assert "bit_parity" not in names(module)


def test_searching_takes_no_loop() -> None:
    module = lowered(jnp.searchsorted, LONG, AT)
    assert "loop" not in names(module)
    assert spu.jit(jnp.searchsorted).cost(LONG, AT).rounds <= 24


def test_windows_that_may_overlap() -> None:
    numbers = lax.ScatterDimensionNumbers((1,), (), (0,))
    with pytest.raises(UnsupportedError, match=r"`scatter`.*overlap.*unique_indices"):
        lowered(lambda x, i, u: lax.scatter(x, i[:, None], u, numbers), LONG, Q, UPDATES)


def test_a_function_applied_at_places_that_may_repeat() -> None:
    with pytest.raises(UnsupportedError, match=r"`scatter`.*unique_indices=True"):
        lowered(lambda x, i: x.at[i].apply(jnp.abs), X, Q)


@pytest.mark.parametrize("protocol", ["ref2k", "aby3"])
def test_protocols(protocol: str) -> None:
    def fn(x: Any, t: Any, i: Any, u: Any) -> Any:
        return (
            x[i],
            t[i * 6],
            x.at[i].set(u),
            t.at[i].max(u[:, 0]),
            lax.dynamic_slice(x, (i[0], i[1]), (4, 2)),
            (x > 0)[i],
        )

    got = spu.reveal(spu.jit(fn, protocol=protocol)(X, LONG, Q, UPDATES))
    for a, b in zip(got, fn(X, LONG, Q, UPDATES), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
