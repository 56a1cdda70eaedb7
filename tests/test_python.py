"""`spu.jit` as people write Python: methods, keywords, functions of functions, results as sequences."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.runtime.errors import EncodingError, InputError, SpuError, VisibilityError

X = np.arange(4, dtype=np.float32)


@spu.jit
def more(x: Any, n: float = 1.0) -> Any:
    return x + n


class Layer:
    def __init__(self, weight: Any, settings: Any = None) -> None:
        self.weight, self.settings = weight, settings

    @spu.jit
    def forward(self, x: Any, *, bias: Any = 0.0) -> Any:
        return x * self.weight + bias + (self.settings or {}).get("shift", 0.0)


@jax.tree_util.register_dataclass
@dataclass
class Pair:
    first: Any
    second: Any

    @spu.jit
    def product(self, other: Any) -> Any:
        return self.first * other.second


def test_a_method_follows_its_object() -> None:
    """No program of earlier attributes is used, whether they are numbers, arrays changed in place, or nested."""
    layer, other = Layer(2.0), Layer(np.full(4, 5.0, np.float32), {"shift": 1.0})
    assert spu.reveal(layer.forward(X)).tolist() == [0, 2, 4, 6]
    assert spu.reveal(other.forward(X, bias=1.0)).tolist() == [2, 7, 12, 17]
    layer.weight = 3.0
    other.weight[0], other.settings["shift"] = 7.0, 2.0
    assert spu.reveal(layer.forward(X)).tolist() == [0, 3, 6, 9]
    assert spu.reveal(other.forward(X + 1)).tolist() == [9, 12, 17, 22]
    assert layer.forward.compile(X).hash == layer.forward.compile(X).hash
    assert Layer.forward.compile  # of the class, it is the function


def test_a_method_of_a_pytree_takes_it_as_an_argument() -> None:
    pair = Pair(X, np.float32(2.0))
    program = pair.product.compile(pair)
    assert program.module.inputs == ("self.first", "self.second", "other.first", "other.second")
    assert all(v.type.is_secret for v in program.module.body.params)
    assert spu.reveal(pair.product(pair)).tolist() == [0, 2, 4, 6]


def test_keywords() -> None:
    f = spu.jit(lambda x, *, scale, **others: x * scale + others["b"] - others["a"])
    assert spu.reveal(f(X, b=X, scale=2.0, a=1.0)).tolist() == [-1, 2, 5, 8]
    assert f.compile(X, b=X, scale=spu.public(2.0), a=1.0).module.inputs == ("x", "a", "b", "scale")
    g = spu.jit(lambda x, n, *, times=1: jnp.tile(x, n)[: 4 * times], static_argnames=("n", "times"))
    assert spu.reveal(g(X, n=2)).tolist() == [0, 1, 2, 3]
    assert spu.reveal(g(X, 2, times=2)).shape == (8,)
    assert spu.reveal(spu.jit(lambda x, n=2: x * n, static_argnums=1)(X)).tolist() == [0, 2, 4, 6]
    assert spu.reveal(spu.jit(lambda x: x, donate_argnums=0)(X)).tolist() == X.tolist()
    with pytest.raises(TypeError, match="unexpected"):
        more(X, weight=2)


def test_a_jitted_function_within_another_is_a_part_of_it() -> None:
    outer = spu.jit(lambda x: jax.vmap(more)(x) * 2 + more(x, n=2.0), protocol="semi2k")
    assert spu.reveal(outer(X)).tolist() == [4, 7, 10, 13]
    slope = spu.jit(jax.grad(lambda x: jnp.sum(more(x) ** 2)))
    assert spu.reveal(slope(X)).tolist() == [2, 4, 6, 8]


@pytest.mark.parametrize("transformed", [jax.jit(more), jax.vmap(more), jax.grad(more)])
def test_what_jax_makes_of_a_jitted_function(transformed: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"`more` was made by `spu.jit`.*spu.jit\(jax.grad\(f\)\)"):
        transformed(X)


def test_a_result_is_a_sequence() -> None:
    x = more(X)
    a, *rest = x
    assert len(x) == 4 and len(rest) == 3
    assert [float(spu.reveal(v)) for v in x] == [1, 2, 3, 4]
    assert spu.reveal(sum(x)) == 10 and spu.reveal(a) == 1
    assert spu.reveal(x[np.int64(-1)]) == 4
    table = more(np.zeros((2, 3), np.float32))
    for index in (4, -5, np.int64(4)):
        with pytest.raises(IndexError, match=f"index {index} is out of bounds for axis 0 of size 4"):
            x[index]
    for where in ((0, 3), (..., 3), (slice(None), -4), (0, ..., 3)):
        with pytest.raises(IndexError, match="axis 1 of size 3"):
            table[where]
    with pytest.raises(TypeError, match="scalar"):
        list(x[0])
    with pytest.raises(VisibilityError, match="contains"):
        assert 1.0 in x


def test_a_result_is_copied_as_itself_and_not_pickled() -> None:
    x = more(X)
    assert copy.copy(x) is x and copy.deepcopy({"a": x})["a"] is x
    with pytest.raises(InputError, match="save_shares"):
        pickle.dumps(x)


@pytest.mark.parametrize("use", [lambda y, o: y + o, lambda y, o: o @ y, lambda y, o: jnp.dot(o, y)])
def test_an_object_that_is_no_argument(use: Callable[..., Any]) -> None:
    held = more(X)
    with pytest.raises(VisibilityError, match="is no argument of it"):
        spu.jit(lambda y: use(y, held))(X)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array(["2020-01-01"], "datetime64[D]"), "give dates as whole days"),
        (np.array([5], "timedelta64[s]"), "give durations"),
        (np.array(["a"]), "integer codes"),
        (np.array([b"a"]), "integer codes"),
        (np.array([None, 1], object), "numeric dtype"),
        (X.astype(">f4"), "byte order"),
        (X.astype(np.longdouble), "float64"),
        (np.zeros(2, [("a", "f4")]), "fields"),
        ("text", "neither an array nor a number"),
        (2**40, "does not hold"),
    ],
)
def test_leaves_that_are_no_numbers(value: Any, message: str) -> None:
    for given in (value, spu.public(value)):
        with pytest.raises(SpuError, match=message) as e:
            more(X, n={"rate": given})
        assert "`n.rate`" in str(e.value)
        assert isinstance(e.value, InputError | EncodingError)
