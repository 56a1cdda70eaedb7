"""Guarded programs: what overflows is found, what does not is let through, and every party raises alike."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conformance.cases import CASES
from lowering import encode
from machine import run_parties

import spuvm as spu
from spuvm.calls import Jitted
from spuvm.commands.reveals import reveals
from spuvm.compiler.front.trace import trace
from spuvm.compiler.ir import text
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Module
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes.pipeline import run_passes
from spuvm.runtime.config import Config
from spuvm.runtime.errors import EncodingError, RangeError, RangeWarning
from spuvm.runtime.machine.session import Session
from spuvm.runtime.protocols.registered import rank_names
from spuvm.vm import VM

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from guard import PROGRAMS, Program

sys.path.pop(0)


def guarded(fn: Any, args: Any, ring: int = 64) -> Module:
    traced = trace(fn, args)
    config = Config() if ring == 64 else Config(ring_bits=ring, fxp_fraction_bits={32: 8, 128: 26}[ring])
    module = lower(traced, ["secret"] * len(traced.inputs), config)
    module.guard = True
    return run_passes(module)


def raises(module: Module, args: Any, seed: int = 0) -> bool:
    """In the clear, with secret truncations that round at random."""
    leaves = zip(jax.tree.leaves(args), module.body.params)
    raw = [np.asarray(np.rint(np.asarray(x, np.float64) * 2.0**v.type.frac), np.int64) for x, v in leaves]
    try:
        evaluate(module, raw, jitter=seed)
    except RangeError:
        return True
    return False


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_overflows_are_found_and_nothing_else(program: Program) -> None:
    """A sample of `benchmarks/guard.py`, which has 1,000 runs among simulated parties."""
    module = guarded(program.function, program.draw(np.random.default_rng(0), False))
    for run in range(12):
        for over in (True, False):
            args = program.draw(np.random.default_rng([run, over]), over)
            assert raises(module, args, run) == over


def test_norms_of_large_gradients_are_refused() -> None:
    """Squares beyond 2^26, as of gradients that are to be clipped: see docs/training.md."""
    clip = optax.clip_by_global_norm(1.0)
    gradients = np.array([3.0, -4.0, 12.0], np.float32)  # of norm 13
    module = guarded(lambda g: clip.update(g, clip.init(g))[0], (gradients,))
    assert not raises(module, (600 * gradients,))
    assert raises(module, (640 * gradients,))


@cache
def product(ring: int) -> Module:
    return guarded(lambda x, y: x * y, (np.ones(2000, np.float32),) * 2, ring)


@pytest.mark.parametrize("size", [0, 6, 14, 20])
def test_products_up_to_the_limit(size: int) -> None:
    """Found from 2^26 on, let through below (1 - 2^-21) 2^26, whatever the factors' sizes and signs."""
    rng = np.random.default_rng(size)
    x = 2.0 ** (size + rng.uniform(0, 3, 2000)) * rng.choice([-1, 1], 2000)
    below = (1 - 2.0**-21) * 2.0**26 * rng.uniform(size=2000) ** 0.1
    below[::7] = (1 - 2.0**-21) * 2.0**26
    x = np.rint(x * 2.0**18) / 2.0**18
    below = x * np.floor(below / np.abs(x) * 2.0**18) / 2.0**18
    assert not raises(product(64), (x, below / x))
    for at in range(0, 2000, 400):
        y = below / x
        y[at] = (2.0**26 + np.abs(x[at]) * 2.0**-17) / x[at]
        assert raises(product(64), (x, y))


@pytest.mark.parametrize(("ring", "limit"), [(32, 2.0**14), (128, 2.0**74)])
def test_other_rings(ring: int, limit: float) -> None:
    module = guarded(lambda x: jnp.sum(x * x) / 4, (np.ones(3, np.float32),), ring)
    frac = module.body.params[0].type.frac
    for size, over in ((0.5, False), (1.2, True), (8.0, True)):
        x = np.array([1.0, -2.0, size * limit**0.5])
        raw = [int(v) % 2**ring for v in np.rint(x * 2.0**frac)]
        try:
            evaluate(module, [np.array(raw, object)], jitter=1)
        except RangeError:
            assert over
        else:
            assert not over


def controlled(x: Any, n: int) -> Any:
    """Products in a loop within a branch, and what is revealed to decide."""

    def double(state: Any) -> Any:
        return state[0] * state[0], state[1] + 1

    def longer(state: Any) -> Any:
        return spu.reveal(jnp.sum(state[0]) < 1000) & (state[1] < n)

    grown, _ = jax.lax.while_loop(longer, double, (x, 0))
    return jax.lax.cond(spu.reveal(x[0] > 2), lambda y: y * y, lambda y: y, grown)


@pytest.mark.parametrize(("x", "n", "over"), [(1.5, 4, False), (2.5, 3, False), (9.0, 9, False), (22.0, 9, True)])
def test_loops_and_branches_carry_the_bit(x: float, n: int, over: bool) -> None:
    """2.5^16 fits, and 9^8; 22^4, which the loop leaves, is squared by the branch, and does not."""
    module = guarded(lambda x: controlled(x, n), (np.ones(2, np.float32),))
    assert text.to_text(text.parse(text.to_text(module))) == text.to_text(module)
    assert raises(module, (np.full(2, x),)) == over


RISKY = (
    "sort",
    "top_k",
    "qr",
    "eigh",
    "svd",
    "cholesky",
    "dot_general",
    "cumsum",
    "scan",
    "while",
    "cond",
    "scatter_add",
)


OWN = [c for c in CASES if c.primitive in RISKY and "float32" in c.dtypes and "public" not in c.note]


@pytest.mark.parametrize("case", OWN, ids=lambda c: f"{c.primitive} {c.note}")
def test_algorithms_with_formats_of_their_own_raise_nothing(case: Any) -> None:
    rng = np.random.default_rng(1)
    args = [o.draw(rng, s, o.dtype or "float32") for o, s in zip(case.operands, case.shapes[0])]
    module = guarded(case.function, args)
    evaluate(module, [encode(x, d) for x, d in zip(jax.tree.leaves(args), module.input_dtypes)], jitter=1)


def test_a_guarded_call() -> None:
    """Simulated: the result of the unguarded, or an error that is an OverflowError and says nothing of the data."""
    f = spu.jit(lambda x, y: spu.reveal(x * y) + x, guard=True)
    x, y = np.array([3.0, -5000.0], np.float32), np.array([0.5, 7000.0], np.float32)
    np.testing.assert_allclose(spu.reveal(f(x, y)), x * y + x, rtol=1e-6)
    with pytest.raises(OverflowError, match=r"test_guard.py:\d+: a number left what the ring holds") as raised:
        f(x, 2 * y)
    assert isinstance(raised.value, RangeError) and "5000" not in str(raised.value)
    learned = [x.what for x in spu.jit(f.fn, guard=True, protocol="ref2k").compile(x, y).learns.of("party0")]
    assert learned == ["whether a number left what the ring holds, here or before (the guard's bit)",
                       "the revealed number[2]"]  # fmt: skip
    assert reveals(f.compile(x, y))[0].startswith("reveals whether a number left what the ring holds, to everyone")
    assert f.cost(x, y).rounds > spu.jit(f.fn).cost(x, y).rounds


def test_what_bounds_prove_costs_nothing() -> None:
    x = spu.secret(np.ones(3, np.float32), bound=100)
    fn = lambda x, y: jnp.tanh(x) * y + x  # noqa: E731
    plain, safe = spu.jit(fn), spu.jit(fn, guard=True)
    assert "guarded" not in safe.compile(x, x).text
    assert safe.cost(x, x).bytes_sent.tolist() == plain.cost(x, x).bytes_sent.tolist()
    assert "guarded" in safe.compile(np.ones(3, np.float32), np.ones(3, np.float32)).text


@pytest.mark.parametrize("config", [Config(), Config("semi2k", parties=("a", "b"))], ids=lambda c: c.protocol)
def test_every_party_raises_alike_and_goes_on(config: Config) -> None:
    """The dealer, too. The next call of the same session is as if nothing had happened."""
    owner = config.parties[0]
    x = np.array([3.0, 5000.0], np.float32)

    def work(rank: int, link: Any) -> Any:
        vm = VM(Session(config, rank, link))
        f = Jitted(lambda x, y: x * y, vm, default="public", guard=True)
        y = f(spu.private(x, owner), spu.private(x, config.parties[1]))
        found = []
        for factor in (1.0, 0.5):
            try:
                found.append(vm.reveal([f(y, spu.public(np.full(2, factor, np.float32)))])[0])
                found.append(vm.reveal([f(y, y)])[0])
            except RangeError as e:
                found.append(str(e))
        return found

    names = rank_names(config)
    results = run_parties(work, len(names))
    for found in results[:2]:
        np.testing.assert_allclose(found[0], x * x, rtol=1e-5)
        np.testing.assert_allclose(found[2], x * x / 2, rtol=1e-5)
    assert len({(r[1], r[3]) for r in results}) == 1 and "a number left what the ring holds" in results[0][1]


def row(found: Any, operation: str) -> Any:
    return next(r for r in found.rows if r.operation == operation)


def test_verdicts_of_lines() -> None:
    """Safe; cannot tell, and what would help; refused, with a warning. A guard checks what is stated inside."""
    x = np.ones((4, 3), np.float32)
    f = spu.jit(lambda w, x: (jnp.tanh(x @ w), jnp.sum(x * 3)))
    found = f.scales(x[0], spu.secret(x, bound=8))
    assert (row(found, "product").verdict, row(found, "product").settled_by) == ("cannot tell", "a bound of w")
    assert row(found, "sum").verdict == row(found, "tanh").verdict == "safe"
    assert "spu.secret(x, bound=8)" in str(found)
    safe = f.scales(spu.secret(x[0], bound=100), spu.secret(x, bound=8))
    assert {r.verdict for r in safe.rows} == {"safe"} and "spu.secret" not in str(safe)
    with pytest.warns(RangeWarning, match=r"do not hold|does not hold, at .*test_guard.py:\d+ \(aligned\)"):
        refused = f.scales(spu.secret(x[0], bound=1e8), spu.secret(x, bound=1e7))
    assert row(refused, "aligned").verdict == "refused"
    inside = guarded(lambda x: spu.bound(x, 8.0) * 2, (x,))
    assert not raises(inside, (7.9 * x,)) and raises(inside, (8.1 * x,))


@pytest.mark.parametrize("low", [np.iinfo(np.int32).min, -8, 8])
def test_bounds_of_integers_are_checked_where_they_come_in(low: int) -> None:
    f = spu.jit(lambda n: n * 1.5, guard=True)
    with pytest.raises(EncodingError, match="`n` has numbers that are not below its bound 8"):
        f(spu.secret(np.array([low, 3], np.int32), bound=8))
    assert "guarded" not in f.compile(spu.secret(np.array([7], np.int32), bound=8)).text


def test_scales_tell_what_sums_of_scaled_products_hold() -> None:
    """2^(24 - log2(n)/2) before the truncation, as docs/numbers.md has it."""
    n = 10_000
    x = jax.ShapeDtypeStruct((n,), np.float32)
    found = spu.jit(lambda x, y: jnp.dot(x / n, y)).scales(x, x)
    assert row(found, "product").limit == 16
