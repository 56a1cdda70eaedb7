"""JAX programs from end to end: simulated and networked shares are bit-identical, and costs are exact."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from machine import assert_cost, assert_same_shares, key, run_parties

import spuvm as spu
from spuvm.calls import Jitted
from spuvm.compiler.compile import Program
from spuvm.compiler.project import executables
from spuvm.objects import Marked
from spuvm.runtime.config import Config
from spuvm.runtime.link.link import Counters
from spuvm.runtime.link.memory_link import MemoryLink
from spuvm.runtime.machine.session import Session
from spuvm.vm import VM

CONFIG = Config()
PARTIES = CONFIG.parties


def private(x: Any, rank: int) -> Any:
    return spu.private(x, owner=PARTIES[rank])


def run_everywhere(fn: Callable[..., Any], *args: Any) -> tuple[Any, Program, list[Counters]]:
    """The revealed result. On the way: equal shares in both runs, and in the network the predicted cost."""
    vm = VM(Session(CONFIG, keys=key))
    jitted = Jitted(fn, vm)
    program = jitted.compile(*args)
    out = jitted(*args)
    whole = [np.asarray(c) for leaf in jax.tree.leaves(out) for c in leaf.components]
    for rank in range(3):
        program.party(rank)

    def work(rank: int, link: MemoryLink) -> tuple[Any, Counters]:
        mine = VM(Session(CONFIG, rank, link, keys=key))
        leaves = [without_value(x, rank) for x in jax.tree.leaves(args)]
        return [c for x in mine.run(program, leaves) for c in x.components], link.counters

    results = run_parties(work)
    assert_same_shares(program.choreography, whole, [r for r, _ in results])
    counters = [c for _, c in results]
    if program.cost.exact:
        assert_cost(program.cost, counters)
    return spu.reveal(out), program, counters


def without_value(x: Any, rank: int) -> Any:
    """An argument as a party has it: others' private values are only shapes to it."""
    if not isinstance(x, Marked) or x.visibility in ("public", PARTIES[rank]):
        return x
    return Marked(jax.ShapeDtypeStruct(x.shape, x.dtype), x.visibility)


def check(fn: Callable[..., Any], *args: Any, tolerance: float = 1e-3) -> tuple[Program, list[Counters]]:
    got, program, counters = run_everywhere(fn, *args)
    plain = jax.tree.map(lambda x: x.value if isinstance(x, Marked) else x, args)
    for z, want in zip(jax.tree.leaves(got), jax.tree.leaves(jax.jit(fn)(*plain)), strict=True):
        np.testing.assert_allclose(z, want, atol=tolerance, rtol=1e-3)
    return program, counters


RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype(np.float32)
LABELS = (X @ np.array([1.0, -2.0, 0.5, 0.0]) > 0).astype(np.float32)
V = RNG.normal(size=7).astype(np.float32)
W = RNG.normal(size=7).astype(np.float32)
N = RNG.integers(-50, 50, 7, np.int32)


def logistic_regression(x: Any, y: Any) -> Any:
    batches = x.reshape(3, 8, 4), y.reshape(3, 8)

    def loss(params: Any, x: Any, y: Any) -> Any:
        return jnp.mean((jax.nn.sigmoid(x @ params[0] + params[1]) - y) ** 2)

    def step(params: Any, batch: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(params, *batch)
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient), value

    def epoch(params: Any, _: Any) -> Any:
        return lax.scan(step, params, batches)

    return lax.scan(epoch, (jnp.zeros(4), jnp.zeros(())), None, length=2)


def secret_branch(x: Any, y: Any) -> Any:
    return lax.cond(x[0] > y[0], lambda: x * y, lambda: x - y)


def scalars(x: Any, y: Any) -> Any:
    s = jnp.sum(x * y)
    return s * x + s, s * s, jnp.max(y) - y


def integers(n: Any, k: Any) -> Any:
    return (n ^ k) & 0x0F, n >> 2, jnp.sum(n * k), n < k, jnp.where(n > k, n, -k)


def inside_reveal(x: Any, y: Any) -> Any:
    return spu.reveal(jnp.sum(x)) * y, spu.reveal(x, to=PARTIES[2])


def known_loop(x: Any, y: Any) -> Any:
    return lax.fori_loop(0, 4, lambda i, c: c * 0.5 + y[i], x)


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "mean": (lambda a, b, c: (a + b + c) / 3, (private(V, 0), private(W, 1), private(V + W, 2))),
    "scalars": (scalars, (private(V, 0), private(W, 1))),
    "secret branch": (secret_branch, (private(V, 0), private(W, 2))),
    "integers": (integers, (private(N, 1), private(N[::-1].copy(), 2))),
    "reveal inside": (inside_reveal, (private(V, 0), private(W, 1))),
    "known loop": (known_loop, (private(V, 0), private(W, 1))),
    "scan backwards": (
        lambda x, y: lax.scan(lambda c, r: (c * 0.5 + r, c > r), x[0], y, reverse=True),
        (private(V, 0), private(W, 1)),
    ),
    "public operands": (lambda x, y: (x * y + y, jnp.dot(x, y), y * 2), (private(V, 0), spu.public(W))),
    "private work": (lambda x, y: (jnp.sum(x * x) + jnp.sum(y), x @ x), (private(V, 2), private(W, 1))),
    "gradient": (jax.grad(lambda x, y: jnp.sum((x * y - 1.0) ** 2)), (private(V, 0), private(W, 1))),
    "vmap": (jax.vmap(lambda r, w: r @ w, (0, None)), (private(X, 0), private(V[:4], 1))),
    "argmax": (lambda x, y: (jnp.argmax(x + y), jnp.max(x)), (private(V, 0), private(W, 1))),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    fn, args = PROGRAMS[name]
    program, _ = check(fn, *args)
    assert program.cost.exact


def test_logistic_regression() -> None:
    """Gradients in two nested loops."""
    program, counters = check(logistic_regression, private(X, 0), private(LABELS, 2), tolerance=2e-3)
    assert program.cost.rounds > 100
    assert sum(sum(c.bytes_sent.values()) for c in counters) == program.cost.bytes_sent.sum()


def test_a_compiled_loop() -> None:
    def newton(x: Any, y: Any) -> Any:
        return lax.scan(lambda c, r: (c + 0.5 * (r - c * c), c > r), x, jnp.stack([y, y + x, x]))

    got, program, _ = run_everywhere(newton, private(V, 0), private(W, 1))
    for z, want in zip(jax.tree.leaves(got), jax.tree.leaves(newton(V, W)), strict=True):
        np.testing.assert_allclose(z, want, atol=1e-3)
    assert program.cost.exact


def test_a_branch_on_a_public_value_counts_one_branch_and_says_so() -> None:
    def branch(i: Any, x: Any, y: Any) -> Any:
        return lax.switch(i, [lambda: x + y, lambda: x * y, lambda: x * y * x])

    for i in range(3):
        program, _ = check(branch, spu.public(np.int32(i)), private(V, 0), private(W, 1))
        assert not program.cost.exact


def test_a_loop_of_unknown_length_counts_one_trip_and_says_so() -> None:
    def doubled(n: Any, x: Any, y: Any) -> Any:
        return lax.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] * y), (0, x))[1]

    for n in (0, 3):
        program, counters = check(doubled, spu.public(np.int32(n)), private(V, 0), private(W, 1))
        assert not program.cost.exact
        assert "one trip counted" in str(program.cost)
        shared = 2 * 7 * 8  # what sharing `x` and, before the loop, `y` takes
        each = program.cost.bytes_sent.sum() - shared
        assert sum(sum(c.bytes_sent.values()) for c in counters) == shared + n * each


# The report ------------------------------------------------------------------------------------------------


def two_lines(x: Any, y: Any) -> Any:
    z = x * y
    return lax.fori_loop(0, 5, lambda i, c: jnp.where(c > y, c * z, c), x)


def test_costs_take_no_run_and_no_compilation() -> None:
    before = executables.compiled_count
    jitted = spu.jit(two_lines)
    cost = jitted.cost(V, W)
    assert executables.compiled_count == before
    assert cost.exact
    shapes = [jax.ShapeDtypeStruct((7,), np.float32)] * 2
    assert jitted.cost(*shapes).as_dict() == cost.as_dict()


def test_a_loop_costs_its_body_times_its_trips() -> None:
    def loop(trips: int) -> Callable[..., Any]:
        return lambda x, y: lax.fori_loop(0, trips, lambda i, c: c * y, x)

    two, four = (spu.jit(loop(n)).cost(V, W) for n in (2, 4))
    assert (2 * two.bytes_sent == four.bytes_sent).all()
    assert 2 * two.rounds == four.rounds
    assert (2 * two.party_rounds == four.party_rounds).all()


def test_rows_add_up() -> None:
    cost = spu.jit(two_lines).cost(V, W)
    for rows in (cost.rows, cost.by_op(), cost.by_line()):
        assert (sum(r.bytes for r in rows) == cost.bytes_sent).all()
    assert {r.op for r in cost.by_op()} >= {"trunc", "less", "select"}
    lines = {r.location for r in cost.by_line()}
    first = two_lines.__code__.co_firstlineno
    assert any(line.endswith(f"test_cost.py:{first + 1}") for line in lines)
    assert any(line.endswith(f"test_cost.py:{first + 2}") for line in lines)


def test_the_report_for_people_and_for_programs() -> None:
    cost = spu.jit(two_lines).cost(V, W)
    text = str(cost)
    assert text.startswith(f"{cost.rounds} rounds\n")
    for word in ("party0", "bytes sent", "operation", "line", "less", "test_cost.py:"):
        assert word in text
    assert repr(cost) == text
    data = json.loads(json.dumps(cost.as_dict()))
    assert data["rounds"] == cost.rounds
    assert data["bytes_sent"] == cost.bytes_sent.tolist()
    assert {row["op"] for row in data["by_op"]} == {r.op for r in cost.by_op()}


def test_what_is_known_costs_nothing() -> None:
    cost = spu.jit(two_lines).cost(spu.public(V), spu.public(W))
    assert cost.rounds == 0
    assert not cost.bytes_sent.any()
    cost = spu.jit(lambda x: jnp.sum(x * x + 1)).cost(private(V, 1))
    assert cost.rounds == 0


def test_an_empty_array_costs_nothing() -> None:
    cost = spu.jit(lambda x, y: jnp.where(x > y, x * y, y)).cost(np.zeros(0), np.zeros(0))
    assert cost.rounds == 0
    assert not cost.bytes_sent.any()
