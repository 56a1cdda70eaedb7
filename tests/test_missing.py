"""NaN as a mark of what is missing: numbers that may be NaN, from where they come in to where they are shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowering import agrees, lowered, names

import spuvm as spu
from spuvm.runtime.errors import EncodingError, InputError, UnsupportedError

X = np.array([1.5, -2.0, 3.0, 0.25, -1.0, 4.0], np.float32)
GONE = np.array([1.5, np.nan, 3.0, -2.0], np.float32)


def some(x: Any) -> Any:
    """Missing where it is not positive."""
    return jnp.where(x > 0, x, jnp.nan)


def filled(x: Any) -> Any:
    y = some(x)
    return jnp.where(jnp.isnan(y) | (y > 3), jnp.nanmean(y), y)


STATISTICS = ("nansum", "nanmean", "nanmax", "nanmin", "nanstd", "nanvar", "nanprod", "nanmedian", "nancumsum")
AS_USED: dict[str, Callable[[Any], Any]] = {
    **{name: lambda x, name=name: getattr(jnp, name)(some(x)) for name in STATISTICS},  # type: ignore[misc]
    "of each column": lambda x: jnp.nanmean(some(x).reshape(2, 3), axis=0, keepdims=True),
    "of nothing": lambda x: [f(jnp.where(x > 9, x, jnp.nan)) for f in (jnp.nanmean, jnp.nansum, jnp.nanmax)],
    "quantiles": lambda x: jnp.nanquantile(some(x), jnp.array([0.25, 0.5])),
    "tests": lambda x: [f(some(x)) for f in (jnp.isnan, jnp.isfinite, jnp.isinf)] + [some(x) == some(x)],
    "numbers": lambda x: [jnp.nan_to_num(some(x), nan=7.0), filled(x), some(x).astype(jnp.int32)],
    "plain statistics": lambda x: [some(x).sum(), some(x).mean(), some(x).max(), jnp.argmax(some(x))],
    "comparisons": lambda x: [some(x) > 1, some(x) <= 1, some(x) != 1.5, jnp.maximum(some(x), 1)],
    "arithmetic": lambda x: [jnp.exp(some(x)) - x, jnp.clip(some(x), 0, 2), jnp.round(some(x)), -(some(x) ** 2)],
    "lag": lambda x: x - jnp.concatenate([jnp.array([jnp.nan]), x[:-1]]),
    "moves": lambda x: [x.at[1].set(jnp.nan), jnp.pad(x, 1, constant_values=jnp.nan), some(x)[jnp.array([1, 0])]],
    "order": lambda x: [jnp.sort(some(x)), jnp.argsort(some(x)), jnp.nanargmax(some(x))],
    "running": lambda x: [jnp.cumsum(some(x)), jnp.diff(some(x))],
    "last number": lambda x: lax.associative_scan(lambda a, b: jnp.where(jnp.isnan(b), a, b), some(x)),
    "products": lambda x: [some(x).reshape(2, 3) @ jnp.ones((3, 2)), jnp.ones((2, 2)) @ some(x).reshape(2, 3)],
    "groups": lambda x: jax.ops.segment_sum(some(x), jnp.array([0, 0, 1, 1, 2, 2]), 3),
    "loops": lambda x: [
        lax.scan(lambda c, v: (c + some(v), c), jnp.float32(0), x),
        lax.scan(lambda c, v: (c + jnp.nan_to_num(v), c), jnp.float32(0), some(x)),
        lax.fori_loop(0, 3, lambda i, v: jnp.where(v > 2, jnp.nan, v + 1), x),
    ],
    "branches": lambda x: lax.cond(x[0] > 0, lambda v: v * jnp.nan, lambda v: v, x),
    "rows": lambda x: jax.vmap(jnp.nanmax)(some(x).reshape(2, 3)),
    "probabilities": lambda x: jax.nn.softmax(jnp.nanmean(some(x).reshape(2, 3), 0)),
    "gradient": lambda x: jax.grad(lambda v: jnp.nansum(some(v) ** 2))(x),
    "cases": lambda x: jnp.select([x > 2, x > 0], [x, x * 2], jnp.nan),
    "constant": lambda x: [x * jnp.nan, jnp.where(x > 0, jnp.nan, jnp.inf).sum(), jnp.full_like(x, jnp.nan)],
}


@pytest.mark.parametrize("name", AS_USED)
def test_nan_is_what_it_is_in_jax(name: str) -> None:
    agrees(AS_USED[name], X, units=64)


def test_what_is_known_to_be_a_number_carries_nothing() -> None:
    module = lowered(lambda x: jnp.where(jnp.isfinite(y := some(x)), y, 0).sum(), X)
    assert module.outputs == ("out",)
    assert lowered(lambda x: x * 2, X).outputs == ("out",)
    assert names(lowered(lambda x: jnp.nansum(x), X)).count("select") == 0  # no NaN: a plain sum


def test_what_cannot_carry_it_says_so() -> None:
    for f, name in (
        (lambda x: jnp.convolve(some(x), x), "conv_general_dilated"),
        (lambda x: lax.top_k(some(x), 2), "top_k"),
    ):
        with pytest.raises(UnsupportedError, match=rf"test_missing.py:\d+: `{name}`.*may be NaN: fill them in"):
            lowered(f, X)


def test_input_with_missing_entries() -> None:
    f = spu.jit(lambda x: (jnp.nanmean(x), x * 2, jnp.isnan(x)))
    mean, twice, gone = f(spu.secret(GONE, missing=True))
    assert "may be NaN" in repr(twice) and "may be NaN" not in repr(gone)
    np.testing.assert_allclose(spu.reveal(mean), np.nanmean(GONE), atol=1e-5)
    np.testing.assert_allclose(spu.reveal(twice), GONE * 2, atol=1e-5)
    np.testing.assert_array_equal(spu.reveal(gone), np.isnan(GONE))
    assert f.compile(spu.secret(GONE, missing=True)).hash != f.compile(GONE).hash
    with pytest.raises(EncodingError, match=r"`x` has 1 of 4 elements that are NaN.*missing=True"):
        f(GONE)
    assert spu.check(lambda x: jnp.nanmean(x) * x, spu.secret(GONE, missing=True)).ok


def test_objects_keep_it_between_calls_and_on_disk(tmp_path: Path) -> None:
    x = spu.jit(lambda x: x + 1)(spu.secret({"a": GONE, "n": np.arange(3)}["a"], missing=True))
    np.testing.assert_allclose(spu.reveal(x * x), (GONE + 1) ** 2, atol=1e-4)
    assert np.isnan(spu.reveal(x[1])) and spu.reveal(spu.jit(jnp.nansum)(x)) == pytest.approx(5.5)
    folders = {p: tmp_path / p for p in x.vm.config.parties}
    spu.save_shares({"x": x}, folders, "saved")
    np.testing.assert_allclose(spu.reveal(spu.load_shares(folders, x.vm, "saved"))["x"], GONE + 1, atol=1e-5)


def test_a_revealed_number_that_is_missing_shows_nothing() -> None:
    """What stood there is 0 before it is shown, inside and outside of a program."""
    secret = np.array([5.0, -7.0], np.float32)
    inside = spu.jit(lambda x: spu.reveal(some(x)))(secret)
    outside = spu.jit(some)(secret)
    np.testing.assert_array_equal(spu.reveal([inside, outside]), [[5, np.nan]] * 2)
    bare = type(outside)(outside.parts, outside.type, outside.dtype, outside.vm)
    np.testing.assert_array_equal(spu.reveal(bare), [5, 0])


def test_a_party_brings_it_and_is_shown_it() -> None:
    spu.init(parties=["alice", "bob", "carol"], address="local")
    alice, dev = spu.PYU("alice"), spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"]))
    x = alice(lambda: {"a": GONE, "n": np.arange(3)})().to(dev, missing=True)
    assert spu.reveal(dev(lambda t: jnp.nansum(t["a"]) + t["n"].sum())(x)) == pytest.approx(5.5)
    np.testing.assert_array_equal(x["a"].to(alice).value, GONE)
    with pytest.raises(InputError, match="`missing` alone"):
        alice(lambda: GONE)().to(dev, missed=True)
