"""Operators and methods of objects: those of JAX's arrays, computed on the machine."""

from __future__ import annotations

import operator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.arraylike import ArrayLike
from spuvm.runtime.errors import VisibilityError

X = np.array([[0.5, -1.5, 2.0], [3.0, 4.25, -5.0]], np.float32)
HELD = spu.jit(lambda x: x, protocol="ref2k")(X)

CALLS: dict[str, tuple[Any, ...]] = {
    "sum": (0,),
    "prod": (1,),
    "cumsum": (1,),
    "cumprod": (0,),
    "mean": (),
    "std": (1,),
    "var": (),
    "ptp": (0,),
    "min": (),
    "max": (-1,),
    "argmin": (1,),
    "argmax": (0,),
    "any": (),
    "all": (0,),
    "sort": (),
    "argsort": (1,),
    "clip": (-1, 3.5),
    "round": (),
    "astype": (np.int32,),
    "conj": (),
    "dot": (X.T,),
    "trace": (),
    "diagonal": (),
    "take": (np.array([2, 0]), 1),
    "repeat": (2, 0),
    "reshape": (3, -1),
    "ravel": (),
    "flatten": (),
    "squeeze": (),
    "transpose": (1, 0),
    "swapaxes": (0, 1),
}


@pytest.mark.parametrize("name", CALLS)
def test_methods_are_those_of_jax(name: str) -> None:
    shown = spu.reveal(getattr(HELD, name)(*CALLS[name]))
    np.testing.assert_allclose(shown, getattr(jnp.asarray(X), name)(*CALLS[name]), atol=2e-3)


def test_every_method_is_tried() -> None:
    public = {name for name in vars(ArrayLike) if not name.startswith("_")}
    assert public - CALLS.keys() == {"T", "real", "imag", "at", "item", "tolist"}


@pytest.mark.parametrize("name", ["floordiv", "mod", "add", "sub", "mul", "truediv", "lt", "ge", "eq", "ne"])
def test_operators_of_either_side(name: str) -> None:
    apply = getattr(operator, name)
    np.testing.assert_allclose(spu.reveal(apply(HELD, 2.0)), apply(X, 2.0), atol=1e-3)
    np.testing.assert_allclose(spu.reveal(apply(2.0, HELD)), apply(2.0, X), atol=1e-3)
    np.testing.assert_allclose(spu.reveal(apply(jnp.asarray(X), HELD)), apply(X, X), atol=1e-3)


def test_whole_numbers_and_parts() -> None:
    whole = HELD.astype(np.int32)
    quotient, rest = spu.reveal(divmod(whole, 3))
    np.testing.assert_array_equal(quotient, X.astype(np.int32) // 3)
    np.testing.assert_array_equal(rest, X.astype(np.int32) % 3)
    np.testing.assert_array_equal(spu.reveal(whole << 2), X.astype(np.int32) << 2)
    np.testing.assert_array_equal(spu.reveal(whole >> 1), X.astype(np.int32) >> 1)
    np.testing.assert_array_equal(spu.reveal(round(HELD)), np.round(X))
    np.testing.assert_array_equal(spu.reveal(+HELD), X)
    np.testing.assert_array_equal(spu.reveal(HELD.T), X.T)
    np.testing.assert_array_equal(spu.reveal(HELD.real), X)
    assert not spu.reveal(HELD.imag).any()


def test_arguments_of_methods() -> None:
    np.testing.assert_allclose(spu.reveal(HELD.sum(axis=1, keepdims=True)), X.sum(axis=1, keepdims=True), atol=1e-4)
    np.testing.assert_allclose(spu.reveal(HELD.clip(HELD.mean(), 3)), X.clip(X.mean(), 3), atol=1e-4)
    np.testing.assert_allclose(spu.reveal(np.sum(HELD)), X.sum(), atol=1e-4)
    assert HELD.reshape((6,)).shape == HELD.reshape(6).shape == (6,)
    with pytest.raises(ValueError, match="axis 7"):
        HELD.sum(axis=7)
    with pytest.raises(VisibilityError, match="is no argument of it"):
        spu.jit(lambda v: HELD.sum() + v)(1.0)


def test_what_needs_the_value_is_refused() -> None:
    for wrong in (HELD.item, HELD.tolist, lambda: f"{HELD:.2f}", lambda: float(HELD.sum()), lambda: np.array(HELD)):
        with pytest.raises(VisibilityError, match=r"spu.reveal"):
            wrong()
    assert f"{HELD}" == repr(HELD)
    with pytest.raises(TypeError, match="is not changed"):
        HELD[0] = 1
    with pytest.raises(AttributeError, match=r"x.at\[i\].set"):
        HELD.at[0].set(1)
