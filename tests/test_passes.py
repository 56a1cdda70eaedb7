"""Each pass on programs that need it; results stay what they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowering import agrees, lowered, names, run

from spuvm.compiler.front.trace import reveal
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Module, Region, Type, Value
from spuvm.compiler.passes import pipeline
from spuvm.compiler.passes.choose import choose_functions
from spuvm.compiler.passes.dead_code import dead_code
from spuvm.compiler.passes.truncation import BLOCK

X = jnp.asarray(np.random.default_rng(5).normal(size=(6, 4)), jnp.float32)


def counts(module: Module) -> Counter[str]:
    return Counter(names(module))


def built(build: Callable[[Builder, Value], Any], type_: Type | None = None) -> Region:
    b = Builder(18)
    x = Value(type_ or Type("fxp", (2, 3), frac=18))
    b.region.params.append(x)
    out = build(b, x)
    b.region.results += out if isinstance(out, list) else [out]
    return b.region


def op_names(region: Region) -> list[str]:
    return [op.name for op in region.walk()]


# common subexpressions and simplification ------------------------------------------------------------------


def test_comparisons_are_shared() -> None:
    fn = jax.value_and_grad(lambda x: (jax.nn.relu(x) * 3).sum())
    assert counts(lowered(fn, X))["less"] == 1


def test_commuted_operands_are_common() -> None:
    assert counts(lowered(lambda x, y: (x * y) - (y * x) * 2, X, X))["mul"] == 2  # and the one by 2


def test_constants_of_equal_data_are_common() -> None:
    module = lowered(lambda x: (x + np.arange(4.0), x * 2 + np.arange(4.0)), X)
    assert counts(module)["const"] == 2


SIMPLER: dict[str, tuple[Callable[[Builder, Value], Any], list[str]]] = {
    "bitcasts": (lambda b, x: b.bitcast(b.bitcast(x, "int64"), "fxp18"), []),
    "reshapes": (lambda b, x: b.reshape(b.reshape(x, (6,)), (3, 2)), ["reshape"]),
    "negations": (lambda b, x: b.neg(b.neg(x)), []),
    "transposes": (lambda b, x: b.op("transpose", b.op("transpose", x, perm=(1, 0)), perm=(1, 0)), []),
    "broadcasts": (lambda b, x: b.broadcast(b.broadcast(x, (4, 2, 3)), (5, 4, 2, 3)), ["broadcast"]),
    "zero": (lambda b, x: b.sub(b.add(b.fxp(0.0, shape=(2, 3)), x), b.fxp(0.0, shape=(2, 3))), []),
    "sum of one": (lambda b, x: b.sum(b.reshape(x, (1, 2, 3)), [0]), []),
    "select of one": (lambda b, x: b.select(b.less(x, b.neg(x)), x, x), []),
    "constants": (lambda b, x: b.add(b.neg(b.fxp(np.ones((2, 3)))), b.fxp(np.ones((2, 3)) * 3)), ["const"]),
    "shared and revealed": (lambda b, x: b.op("reveal", b.op("share", x, to="secret"), to=1), ["reveal"]),
}


@pytest.mark.parametrize("name", SIMPLER)
def test_simplify(name: str) -> None:
    build, want = SIMPLER[name]
    region = built(build)
    raw = [np.arange(6).reshape(2, 3)]
    before = evaluate(region, raw)
    pipeline.simplify(region)
    pipeline.common_subexpressions(region)
    dead_code(region)
    assert op_names(region) == want
    np.testing.assert_array_equal(evaluate(region, raw), before)


def test_revealing_twice() -> None:
    assert counts(lowered(lambda x: reveal(reveal(x)) + reveal(x), X))["reveal"] == 1


# truncation ------------------------------------------------------------------------------------------------


def test_a_sum_of_products_is_truncated_once() -> None:
    module = agrees(lambda x, y: x * y + y * y - x * (x + y), X, X[::-1])
    assert counts(module)["trunc"] == 1


def test_rearrangements_between_do_not_matter() -> None:
    module = agrees(lambda x: ((x * x).T + (x @ x.T @ x).T.reshape(4, 6)).sum(0), X)
    assert counts(module)["trunc"] == 2  # x @ x.T is used by a product


def test_a_truncated_value_with_two_users_stays() -> None:
    def fn(x: Any) -> Any:
        y = x * x
        return y + x[0] * x, y

    assert counts(agrees(fn, X))["trunc"] == 2


@pytest.mark.parametrize("n", [50, 64, 600, 1024])
def test_long_sums_are_truncated_in_blocks(n: int) -> None:
    x = jnp.linspace(0, 2, n)
    module = agrees(lambda v: (v * v).sum(), x, units=64)
    truncated = [op.output.type.size for op in module.body.ops if op.name == "trunc"]
    assert sum(truncated) == -(-n // BLOCK)


def test_blocks_keep_large_sums_right() -> None:
    """600 squares of 1000 do not fit below 2^26 together."""
    x = jnp.full(600, 1000.0)
    agrees(lambda v: (v * v).sum(), x, units=600)


def test_other_formats_do_not_move() -> None:
    """The truncation of a small constant leaves less room for sums."""
    assert counts(lowered(lambda x, y: x * 0.1 + y * 0.1, X, X))["trunc"] == 2


def test_a_product_and_a_shift_are_truncated_once() -> None:
    module = agrees(lambda x, y: x * y * 0.5, X, X)
    assert [op.attrs["bits"] for op in module.body.ops if op.name == "trunc"] == [19]


# conditions ------------------------------------------------------------------------------------------------


def test_conditions_are_converted_before_they_are_broadcast() -> None:
    module = agrees(lambda x: jnp.where(x[:, :1] > 0, x, x * 2), X)
    (injected,) = [op for op in module.body.ops if op.name == "convert"]
    assert injected.output.type.size == 6
    assert "select" not in names(module)


# loops -----------------------------------------------------------------------------------------------------


def test_what_does_not_change_leaves_the_loop() -> None:
    def fn(x: Any, w: Any) -> Any:
        def outer(v: Any, _: Any) -> Any:
            gram = x.T @ x * 0.1 + 1
            return lax.fori_loop(0, 3, lambda i, u: u - (gram @ w) * 0.1 + jnp.abs(x).max(), v), None

        return lax.scan(outer, w, None, length=2)[0]

    module = agrees(fn, X, X[0])
    assert counts(module)["less"] == names_of(module.body, "less")
    assert counts(module)["dot"] == names_of(module.body, "dot") == 2


def names_of(region: Region, name: str) -> int:
    """How often an operation stands in a region itself, not in its loops."""
    return sum(op.name == name for op in region.ops)


def test_cheap_rearrangements_stay_in_the_loop() -> None:
    fn = lambda x, w: lax.fori_loop(0, 3, lambda i, v: v * 0.5 + x.reshape(-1)[:4] + 1, w)  # noqa: E731
    (loop,) = [op for op in agrees(fn, X, X[0]).body.ops if op.name == "loop"]
    assert loop.inputs[0].shape == X.shape


def test_products_read_transposed_matrices_in_place() -> None:
    module = agrees(lambda x, y: (x.T @ y, x @ y.T, jnp.einsum("bi,bj->ij", x, y)), X, X[::-1])
    assert "transpose" not in names(module)


# dead code -------------------------------------------------------------------------------------------------


def test_unused_results_of_loops_leave() -> None:
    def body(c: Any, r: Any) -> Any:
        a, b, n = c
        return (a + r, b * jnp.exp(a), n + 1), (a * a, jnp.log(b))

    module = agrees(lambda x: lax.scan(body, (x[0] * 0, x[0], 0), x)[0][0], X)
    (loop,) = [op for op in module.body.ops if op.name == "loop"]
    assert op_names(loop.regions[0]) == ["add"]
    assert (loop.attrs["carries"], len(loop.inputs), len(loop.outputs)) == (1, 2, 1)


def test_constants_that_a_loop_does_not_read_leave() -> None:
    fn = lambda x, y: lax.scan(lambda c, r: (c + r, y * 2), x[0], x)[0]  # noqa: E731
    (loop,) = [op for op in agrees(fn, X, X).body.ops if op.name == "loop"]
    assert loop.attrs["constants"] == 0


def test_unused_results_of_branches_leave() -> None:
    def fn(x: Any, c: Any) -> Any:
        return lax.cond(c, lambda v: (v * 2, jnp.exp(v)), lambda v: (v, v), x)[0]

    module = agrees(fn, X, True, visibility=["secret", "public"])
    assert len(names(module)) < 8
    (cond,) = [op for op in module.body.ops if op.name == "cond"]
    assert len(cond.outputs) == 1


def test_unused_carries_of_while_leave() -> None:
    def fn(x: Any, n: Any) -> Any:
        def body(c: Any) -> Any:
            return c[0] - 1, c[1] * 2, jnp.exp(c[2])

        return lax.while_loop(lambda c: c[0] > 0, body, (n, x, x))[1]

    module = agrees(fn, X, 3, visibility=["secret", "public"])
    (loop,) = [op for op in module.body.ops if op.name == "while"]
    assert len(loop.outputs) == 2


def test_passes_keep_results() -> None:
    def fn(x: Any) -> Any:
        return jax.grad(lambda v: jax.nn.softmax(v, 0).max() + (v @ v.T).sum())(x)

    plain, better = lowered(fn, X, optimize=False), lowered(fn, X)
    choose_functions(plain)
    assert len(names(better)) < len(names(plain))
    np.testing.assert_allclose(run(plain, X)[0], run(better, X)[0], atol=2.0**-13)
