"""Names, trees, source lines, and `reveal` under JAX's transformations."""

from __future__ import annotations

import inspect
import re
import runpy
from collections import namedtuple
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.compiler.front.trace import location_of, reveal, trace
from spuvm.runtime.errors import InputError

Pair = namedtuple("Pair", "left right")


def test_names_of_inputs_and_outputs() -> None:
    def fn(params: Any, pair: Any, *rest: Any) -> Any:
        return {"a": params["w"] + pair.left, "b": (rest[0][1], rest[1])}

    traced = trace(fn, [{"w": 1.0, "v": 2.0}, Pair(1.0, 2.0), (1, 2), 3.0])
    want = ("params.v", "params.w", "pair.left", "pair.right", "rest[0][0]", "rest[0][1]", "rest[1]")
    assert traced.inputs == want
    assert traced.outputs == ("out.a", "out.b[0]", "out.b[1]")
    assert traced.name == "fn"


def test_a_single_result_is_out() -> None:
    assert trace(lambda x: x + 1, [1.0]).outputs == ("out",)


def test_trees() -> None:
    traced = trace(lambda x: {"y": x[0], "z": None}, [(np.ones(3), 2)])
    assert traced.in_tree == jax.tree.structure(((0, 0),))
    assert traced.out_tree == jax.tree.structure({"y": 0, "z": None})


def test_static_arguments() -> None:
    traced = trace(lambda x, n, y: x * n + y, [1.0, 3, 2.0], static_argnums=(-2,))
    assert traced.inputs == ("x", "y")
    assert len(traced.in_avals) == 2


def test_static_argument_out_of_range() -> None:
    with pytest.raises(InputError, match="static_argnums"):
        trace(lambda x: x, [1.0], static_argnums=(1,))


def test_arguments_that_only_look_like_arrays() -> None:
    class Remote:
        shape = (2, 3)
        dtype = np.dtype(np.float32)

    (aval,) = trace(lambda x: x.sum(), [Remote()]).in_avals
    assert aval.shape == (2, 3)


def test_arguments_that_are_no_arrays() -> None:
    with pytest.raises(InputError, match="static_argnums"):
        trace(lambda x: x, ["text"])


def test_the_users_precision_is_remembered() -> None:
    assert not trace(lambda x: x, [1.0]).x64
    with jax.enable_x64(True):
        traced = trace(lambda x: x, [1.0])
    assert traced.x64
    assert traced.in_avals[0].dtype == np.float64


def test_source_lines() -> None:
    def fn(x: Any) -> Any:
        y = x * 2
        return jax.nn.relu(y)

    first = fn.__code__.co_firstlineno
    lines = [location_of(eqn) for eqn in trace(fn, [jnp.ones(3)]).jaxpr.eqns]
    assert [(at.file.endswith("test_trace.py"), at.line) for at in lines if at] == [
        (True, first + 1),
        (True, first + 2),
    ]


def test_lines_of_a_library_are_those_that_called_it(tmp_path: Path) -> None:
    """Also of one that is installed elsewhere, as for the user alone."""
    file = tmp_path / "site-packages" / "squares.py"
    file.parent.mkdir()
    file.write_text("def square(x):\n    return x * x\n")
    library = runpy.run_path(str(file))
    (eqn,) = trace(lambda x: library["square"](x), [jnp.ones(3)]).jaxpr.eqns
    line = location_of(eqn)
    assert line is not None and line.file.endswith("test_trace.py")


def test_an_equation_without_source() -> None:
    assert location_of(object()) is None


def test_reveal_is_the_identity_to_jax() -> None:
    x = jnp.arange(3.0)
    np.testing.assert_array_equal(jax.jit(jax.vmap(reveal))(x), x)
    assert jax.grad(lambda v: reveal(v * v))(3.0) == 6.0
    assert jax.tree.leaves(reveal({"a": 1, "b": 2.0})) == [1, 2.0]


def test_gradients_are_not_revealed() -> None:
    names = [e.primitive.name for e in jax.make_jaxpr(jax.grad(lambda v: reveal(v * v) * v))(3.0).eqns]
    assert names.count("spu_reveal") == 1


def _helpers(x: Any) -> Any:
    y = jnp.where(x > 0.5, x, 2 * x)

    def step(carry: Any, row: Any) -> Any:
        return jnp.where(carry > row, carry, row), jax.nn.silu(row)

    return jax.lax.scan(step, x[0], y)


def _earlier(x: Any) -> Any:
    return spu.reveal(jnp.nanmean(x)), spu.reveal(2 * x), spu.reveal(x[0]), jax.nn.silu(x[0])


@pytest.mark.parametrize("missing", [False, True])
def test_what_jax_traces_once_for_all_callers_is_of_the_line_that_calls_it(missing: bool) -> None:
    x = np.ones(5, np.float32)
    jax.clear_caches()
    spu.jit(_earlier).compile(spu.secret(x, missing=True))
    text = spu.jit(_helpers).compile(spu.secret(x, missing=missing)).emit("ir")
    first = inspect.getsourcelines(_earlier)[1]
    lines = {int(at) for at in re.findall(r"test_trace\.py:(\d+)", text)}
    assert lines and lines.isdisjoint(range(first, first + 2)), text
    start = inspect.getsourcelines(_helpers)[1]
    assert {start + 1, start + 4} <= lines <= set(range(start, start + 7))
