"""Kernels as `project/tracer.py` records them, against `jax.make_jaxpr`: the same code, the same values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.compiler.expand.choreography import Call, KernelSpec
from spuvm.compiler.project import recorder
from spuvm.compiler.project.analysis import Analysis
from spuvm.compiler.project.equations import bind_equation, equations_of, is_variable
from spuvm.compiler.project.executables import _assembled
from spuvm.compiler.project.kernel_plan import KernelPlan
from spuvm.compiler.project.kernels import kernel_avals
from spuvm.compiler.project.recorder import recorded
from spuvm.compiler.project.stage_function import Known

X, Y = np.array([0, 1, 5, 2**63, 2**64 - 1], np.uint64), np.array([3, 2**40, 0, 7, 2**64 - 1], np.uint64)
SMALL = np.array([1, 0, 255, 7, 128], np.uint8)
Function = Callable[..., Sequence[Any]]


def by_jax(function: Function, avals: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    closed = jax.make_jaxpr(function)(*avals)
    return closed.jaxpr, closed.consts


def values(traced: tuple[Any, Sequence[Any]], *arguments: Any) -> list[np.ndarray]:
    """What the equations give."""
    jaxpr, consts = traced
    rename: dict[Any, Any] = {v: Known(c) for v, c in zip(jaxpr.constvars, consts)}
    env = dict(zip(jaxpr.invars, arguments))

    def read(atom: Any) -> Any:
        return env[atom] if is_variable(atom) else getattr(atom, "val", getattr(atom, "value", None))

    for eqn, ins, outs in equations_of(jaxpr, rename):
        result = bind_equation(eqn, [read(a) for a in ins])
        env.update(zip(outs, result if eqn.primitive.multiple_results else [result]))
    literals = [v if hasattr(v, "val") else rename.get(v, v) for v in jaxpr.outvars]
    return [np.asarray(read(a)) for a in literals]


def program(x: Any, y: Any, c: Any) -> Any:
    number = (x * 3).astype(jnp.int32)
    chosen = jnp.where(c & (x < y), jnp.exp(x) / y, jnp.sqrt(jnp.abs(y)))
    return chosen, number ^ 5, number // 3, jnp.sort(x), x @ y, y.max()


def kernels(protocol: str, ring: int) -> list[KernelSpec]:
    numbers = np.ones(3, np.float32)
    compiled = spu.jit(program, protocol=protocol, ring=ring).compile(numbers, numbers, numbers > 0)
    return list(dict.fromkeys(s.spec for s in compiled.choreography.block.steps if isinstance(s, Call)))


def stages(plan: KernelPlan) -> list[Any]:
    """Of each stage at each party: what is drawn, the types of what comes and goes, its code."""
    found = [s for party in plan.stages.values() for s in party]
    return [(s.randoms, s.avals, len(s.outputs), str(_assembled("", s, scales=False))) for s in found]


@pytest.mark.parametrize(("protocol", "ring"), [("aby3", 64), ("semi2k", 128), ("aby3_malicious", 64)])
def test_kernels_are_as_jax_traces_them(protocol: str, ring: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "left_to_jax", Counter())
    specs = kernels(protocol, ring)
    assert len(specs) > 20
    for spec in specs[::3]:
        avals = kernel_avals(spec, 64)
        with jax.enable_x64(True):
            mine, theirs = (Analysis(spec, *t(spec.function, avals)).plan("") for t in (recorded, by_jax))
        assert (mine.rounds, mine.draws) == (theirs.rounds, theirs.draws), spec.name
        assert stages(mine) == stages(theirs), spec.name
    assert not recorder.left_to_jax


CASES: dict[str, tuple[Function, tuple[Any, ...]]] = {
    "operators": (
        lambda x, y: (x + y, x - y, x * y, x & y, x | y, x ^ y, -x, ~x, x == y, x != y, x < y, x >= y),
        (X, Y),
    ),
    "shifts": (lambda x, y: (x << y, x >> y, x << 64, x >> 100, 3 << x, x.astype(np.int64) >> np.int64(70)), (X, Y)),
    "constants": (lambda x: (x + 1, 7 - x, np.uint64(9) * x, x & X, np.ones(5, np.uint64) ^ x, x + True), (X,)),
    "mixed": (lambda x, s: (x + s, s * s, x.astype(np.uint8) ^ s, s.astype(bool) & (x > 3), s < 7), (X, SMALL)),
    "scalars": (lambda x, y: (x[0] + y, x.sum() * y[:1], jnp.uint64(3) + x, jnp.where(x > y, x, 0)), (X, Y)),
    "signed": (lambda x: (-x.astype(np.int64) >> 3, abs(x.astype(np.int32)), x.astype(np.int8) // 3 % 5), (X,)),
    "floats": (lambda x: (x.astype(np.float64) * 2 + 1, (x.astype(np.float32) < 2).astype(int), x / 3), (X,)),
    "called": (lambda x, y: (jax.jit(lambda a: a + y)(x), *jax.jit(lambda a, b: (b, a * 2))(x, y)), (X, Y)),
    "mapped": (lambda x, y: (jax.vmap(lambda a, b: a * b + a)(x, y), jax.vmap(lambda a: a + y)(x)), (X, Y)),
    "loops": (lambda x, y: (jax.lax.fori_loop(0, 3, lambda i, v: v * y + 1, x), jnp.cumsum(x)), (X, Y)),
    "branches": (lambda x, y: (jax.lax.cond(x[0] > 3, lambda: y + 1, lambda: y), jax.nn.relu(x)), (X, Y)),
    "passed on": (lambda x: (x, x, np.uint64(3), X, x.astype(np.uint64), x.reshape(5), jnp.zeros(2, np.uint8)), (X,)),
    "nothing": (lambda x: (x + x, x.sum(), ~x), (np.zeros((0, 3), np.uint32),)),
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_jaxs(name: str) -> None:
    function, arguments = CASES[name]
    with jax.enable_x64(True):
        mine, theirs = (values(t(function, arguments), *arguments) for t in (recorded, by_jax))
    for got, wanted in zip(mine, theirs, strict=True):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_array_equal(got, wanted)


def test_what_is_not_known_is_traced_by_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "left_to_jax", Counter())

    def loud(x: Any) -> Sequence[Any]:
        jax.debug.print("{}", x[0])
        return (x + 1,)

    with jax.enable_x64(True):
        np.testing.assert_array_equal(values(recorded(loud, (X,)), X)[0], X + np.uint64(1))
        assert sum(recorder.left_to_jax.values()) == 1
        monkeypatch.setattr(recorder, "record", None)  # as with another version of JAX
        function, arguments = CASES["operators"]
        np.testing.assert_array_equal(values(recorded(function, arguments), *arguments)[2], X * Y)
    assert sum(recorder.left_to_jax.values()) == 2


def test_an_error_of_a_kernel_is_its_own() -> None:
    with jax.enable_x64(True), pytest.raises(TypeError, match="incompatible shapes"):
        recorded(lambda x: (x[:2] + x,), (X,))
