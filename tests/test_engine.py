"""The vector engine: the bits of XLA, over every kernel of every protocol and over random programs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from machine import Case, assert_same_shares, cases, kernel_choreography, network, shapes_of, simulate

import spuvm as spu
from spuvm.compiler.assemble.assemble import assemble
from spuvm.compiler.assemble.values import Unsupported
from spuvm.compiler.expand.choreography import Call
from spuvm.compiler.project import executables
from spuvm.compiler.project.kernel_plan import StagePlan
from spuvm.compiler.project.kernels import analyse
from spuvm.runtime.engine import interpreter, tier
from spuvm.runtime.engine.check import BadCode, check
from spuvm.runtime.engine.code import Code, Loop, Operand
from spuvm.runtime.engine.interpreter import Interpreted, place
from spuvm.runtime.engine.primitives import PERMUTATION
from spuvm.runtime.engine.random import Stream
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.machine import executor
from spuvm.runtime.machine.small import small_piece
from spuvm.runtime.protocols.aby3.protocol import ABY3
from spuvm.runtime.protocols.dealt import semi2k, semi2k_first_party_unsafe
from spuvm.runtime.protocols.protocol import Protocol
from spuvm.runtime.protocols.ref2k import ref2k
from spuvm.runtime.ring import native

pytestmark = pytest.mark.skipif(interpreter.library() is None, reason="needs the native library")

rng = np.random.default_rng(0)
KEY = bytes(range(16))


def run_code(code: Code, inputs: Sequence[Any], blocks: Sequence[int] = (), length: int = 64) -> list[np.ndarray]:
    stream = Stream(KEY)
    return Interpreted(code)([np.asarray(x) for x in inputs], place([(stream, b) for b in blocks]), length)


def of_xla(function: Callable[..., Any], *arguments: Any) -> tuple[Any, list[Any]]:
    """What the engine is to run, and XLA's results of it."""
    with jax.enable_x64(True):
        return jax.make_jaxpr(function)(*arguments), jax.tree.leaves(jax.jit(function)(*arguments))


def assert_same(function: Callable[..., Any], *arguments: Any) -> Code:
    """The engine's results of a function are XLA's, to the bit and the type."""
    return assert_runs(*of_xla(function, *arguments), *arguments)


def assert_runs(closed: Any, want: Sequence[Any], *arguments: Any) -> Code:
    code = assemble(closed.jaxpr, closed.consts, [False] * len(arguments))
    for got, wanted in zip(run_code(code, arguments), want, strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, np.asarray(wanted))
    return code


def numbers(dtype: Any, *shape: int) -> np.ndarray:
    """Uniform words, with zero, the limits and -1 among them."""
    if np.dtype(dtype).kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    words = np.frombuffer(rng.bytes(int(np.prod(shape)) * 8), np.uint64).astype(dtype).reshape(shape)
    flat = words.reshape(-1)
    for i, edge in enumerate((0, np.iinfo(dtype).min, np.iinfo(dtype).max, np.array(-1).astype(dtype))):
        flat[i::7] = edge
    return words


# every kernel ----------------------------------------------------------------------------------------


def drawn(stage: StagePlan, blocks: list[int]) -> list[np.ndarray]:
    """The randoms of a stage, from the keystream at the given blocks."""
    out = []
    for r, block in zip(stage.randoms, blocks, strict=True):
        if r.dtype == PERMUTATION:
            out.append(np.stack([rng.permutation(r.shape[-1]) for _ in range(r.shape[0])]).reshape(r.shape))
            continue
        raw = np.empty(r.nbytes, np.uint8)
        Stream(KEY).fill(raw, block)
        out.append(raw.view(r.dtype).reshape(r.shape))
    return out


def assert_stage(unit: StagePlan, stage: StagePlan, length: int, *, scales: bool) -> None:
    """The code of `unit`, run on `length` elements, gives the results of `stage`."""
    first = len(stage.avals) - len(stage.randoms)
    streams = [False] * first + [r.dtype != PERMUTATION for r in stage.randoms]
    blocks = [100 * i + 5 for i in range(len(stage.randoms))]
    inputs = [numbers(a.dtype, *a.shape) for a in stage.avals[:first]]
    randoms = drawn(stage, blocks)
    with jax.enable_x64(True):
        code = assemble(unit.function.equations(), (), streams, scales=scales)
        want = stage.function(*map(jnp.asarray, [*inputs, *randoms]))
    arrays = [x for x, is_stream in zip([*inputs, *randoms], streams) if not is_stream]
    got = run_code(code, arrays, [b for b, is_stream in zip(blocks, streams[first:]) if is_stream], length)
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype
        np.testing.assert_array_equal(g, np.asarray(w))


def chosen(protocol: Protocol, ring: int) -> list[Case]:
    """Each kernel with one choice of its parameters."""
    all_of_them = ring == 64 and protocol.name != "ref2k"  # whose exponentials take tables from their callers
    fitting = [c for c in cases(protocol, ring) if dict(c.params).get("owner", 0) < protocol.world_size]
    return list({c.kernel.name: c for c in fitting if all_of_them or c.kernel.name not in FOR_64_BITS}.values())


FOR_64_BITS = {"exp2_ab", "exp2_abb", "harmonics_a", "scaled_aa", "power_b", "position_b"}
PROTOCOLS = [(ABY3, 64), (ABY3, 128), (semi2k(2, 0), 64), (semi2k_first_party_unsafe(3, 0), 64), (ref2k(1), 64)]


@pytest.mark.parametrize(("protocol", "ring"), [pytest.param(p, r, id=f"{p.name}-{r}") for p, r in PROTOCOLS])
def test_every_stage_of_every_kernel(protocol: Protocol, ring: int) -> None:
    """Simulated, and what one of the parties does; element-wise code made for 64 elements runs on 192."""
    for case in chosen(protocol, ring):
        scales = case.kernel.elementwise
        call = kernel_choreography(case, protocol, shapes_of(case, 64 if scales else 16)).block.steps[0]
        assert isinstance(call, Call)
        unit = analyse(call.spec, 64 if scales else None)
        wide = analyse(call.spec, 192) if scales else unit
        parties = [p for p in unit.stages if p in (None, 1)] if ring == 64 else [None]
        for party in parties:
            for of_unit, of_block in zip(unit.stages[party], wide.stages[party], strict=True):
                if of_block.outputs:
                    assert_stage(of_unit, of_block, 192, scales=scales)


# every operation -------------------------------------------------------------------------------------

WORDS = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64)


@pytest.mark.parametrize("dtype", WORDS)
def test_arithmetic_has_the_edges_of_xla(dtype: Any) -> None:
    """Overflow, division by zero and of the least number by -1, comparisons with and without a sign."""
    n = 77
    x, y = numbers(dtype, n), numbers(dtype, n)[::-1].copy()
    two = [lax.add, lax.sub, lax.mul, lax.max, lax.min, lax.div, lax.rem, lax.bitwise_and, lax.bitwise_or]
    two += [lax.bitwise_xor, lax.lt, lax.le, lax.gt, lax.ge, lax.eq, lax.ne]
    one = [lax.bitwise_not, lax.neg, lax.population_count, lax.clz, lax.sign]
    one += [lax.abs] if np.dtype(dtype).kind == "i" else []
    assert_same(lambda a, b: [f(a, b) for f in two] + [f(a) for f in one], x, y)
    assert_same(lambda a: [f(a, dtype(3)) for f in two] + [f(dtype(3), a) for f in two], x)
    assert_same(lambda a, b: (jnp.where(a < b, a, b), jnp.where(a == b, dtype(1), a), a**5), x, y)
    assert_same(lambda a: [lax.convert_element_type(a, to) for to in (*WORDS, bool)], x)


@pytest.mark.parametrize("dtype", WORDS)
def test_shifts_by_the_width_and_more(dtype: Any) -> None:
    x, by = numbers(dtype, 130), np.arange(130).astype(dtype)
    shifts = (lax.shift_left, lax.shift_right_logical, lax.shift_right_arithmetic)
    width = 8 * np.dtype(dtype).itemsize
    assert_same(lambda a, b: [f(a, b) for f in shifts], x, by)
    assert_same(lambda a: [f(a, dtype(b)) for f in shifts for b in (0, 1, width - 1, width, width + 3, 100)], x)


U64 = np.uint64
MOVES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "transposes": (lambda a: (a.T + a.T, jnp.transpose(a.reshape(2, 2, 6), (2, 0, 1)).reshape(6, 4)), ((4, 6),)),
    "slices": (lambda a: (a[::2, 1:5:3], a[3:1:-1], a[:, ::-1] ^ a, a[1:1]), ((4, 6),)),
    "broadcasts": (lambda a, b: (a[:, None] * b, jnp.broadcast_to(a, (3, 4)) + a), ((4,), (4, 6))),
    "joins": (lambda a, b: (jnp.concatenate([a, b, a], 0), jnp.concatenate([a, b], 1)[:, 3:]), ((4, 6), (4, 6))),
    "pads": (lambda a: lax.pad(a, U64(7), ((-1, 2, 1), (2, -3, 2))), ((4, 6),)),
    "pads that cut all": (lambda a: lax.pad(a, U64(7), ((-5, 9, 0), (0, 0, 0))), ((4, 6),)),
    "sums": (lambda a: (a.sum(), a.sum(0), a.sum(1), a.T.max(0), a.min((0, 1))), ((37, 70),)),
    "long sums": (lambda a: (a.sum(dtype=a.dtype), (a & U64(3)).sum(0)), ((3, 5000),)),
    "running sums": (lambda a: (lax.cumsum(a, 1), lax.cumsum(a, 0, reverse=True), lax.cummax(a, 1)), ((5, 9),)),
    "products": (lambda a, b: (a @ b, b.T @ a.T, a @ b[:, 0], jnp.tensordot(a, b.T, 2)), ((5, 7), (7, 5))),
    "batches": (lambda a, b: jnp.einsum("bij,bkj->kbi", a, b), ((2, 3, 4), (2, 5, 4))),
    "rows": (
        lambda a: (a[jnp.array([3, 0, 9, -1])], jnp.take(a, jnp.array([[1], [7]]), 1, mode="clip")),
        ((4, 6),),
    ),
    "along": (lambda a: jnp.take_along_axis(a, (a % U64(6)).astype(np.int32), axis=1), ((4, 6),)),
    "counted": (lambda a: a + lax.broadcasted_iota(U64, (4, 6), 1), ((4, 6),)),
    "a loop after a sum": (lambda a: (a - a.sum(0)) * (a + a[0].sum()), ((4, 6),)),
    "results twice": (lambda a: (a, a + U64(1), a + U64(1), a.T, jnp.zeros((3,), U64)), ((4, 6),)),
}


@pytest.mark.parametrize("name", MOVES)
def test_whole_arrays(name: str) -> None:
    function, shapes = MOVES[name]
    assert_same(function, *(numbers(U64, *shape) for shape in shapes))


@pytest.mark.parametrize("dtype", WORDS)
def test_elements_that_one_index_chooses(dtype: Any) -> None:
    """Indices beyond both ends are moved inwards, or filled, whatever their type; batches in any order."""
    x = numbers(dtype, 6, 11)
    where = np.array([0, 10, 11, -1, 3, 2**62, -(2**63), 5, 7, 7], np.int64)

    def taken(x: Any, signed: Any, unsigned: Any) -> Any:
        modes: list[dict[str, Any]] = [{"mode": "clip"}, {"mode": "fill"}, {"mode": "fill", "fill_value": 7}]
        rows = [x[0].at[i].get(**m) for i in (signed, unsigned, signed.reshape(5, 1, 2, 1)) for m in modes]
        each = jnp.broadcast_to(signed, (6, 10))
        along = [jnp.take_along_axis(x, each, axis=1, mode=m) for m in ("clip", "fill")]
        return rows, along, jnp.take_along_axis(x.T, jnp.broadcast_to(signed[:6], (11, 6)), axis=1, mode="clip")

    assert_same(taken, x, where, where.view(np.uint64))
    one, near = lax.GatherDimensionNumbers((), (0,), (0,)), np.clip(where, -(2**31), 2**31 - 1)
    for mode in ("clip", "fill"):
        assert_same(lambda x, i, m=mode: lax.gather(x, i[:, None], one, (1,), mode=m), x[0], near.astype(dtype))


def test_elements_that_many_indices_choose() -> None:
    """Tasks of several threads begin within a row."""
    rng = np.random.default_rng(5)
    x, where = numbers(U64, 3, 50_001), rng.integers(0, 50_001, (3, 50_001))
    assert_same(lambda x, i: (jnp.take_along_axis(x, i, 1), x[0][i]), x, where)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), ()])
def test_nothing_and_one(shape: tuple[int, ...]) -> None:
    x = np.full(shape, 5, U64)
    assert_same(lambda a: (a + a, a.sum(dtype=a.dtype), a.reshape(-1), jnp.broadcast_to(a, (2, *a.shape)) * a), x)


def test_wide_arrays_on_several_threads() -> None:
    x, y = numbers(np.uint64, 300_001), numbers(np.uint8, 300_001)
    assert_same(
        lambda a, b: ((a * a + U64(1)) >> U64(3), b ^ (a >> U64(60)).astype(np.uint8), a.sum(), a[::-1] + a), x, y
    )


def test_older_processors_give_the_same_bits() -> None:
    """Plain loops, and those of AVX2: programs that are made while the level is set."""
    lib = interpreter.library()
    assert lib is not None
    arrays = [numbers(d, 200) for d in WORDS]

    def everything(*arrays: Any) -> list[Any]:
        out = []
        for x in arrays:
            y, five = x[::-1], x.dtype.type(5)
            out += [x + y, x - y, x * y, x & y, x | y, x ^ y, ~x, x < y, x == y, lax.max(x, y), lax.min(x, five)]
            out += [lax.shift_left(x, five), lax.shift_right_logical(x, five), lax.shift_right_arithmetic(y, five)]
            out += [lax.div(x, y), lax.rem(x, y), jnp.where(x < y, x, y), lax.population_count(x), lax.clz(x)]
            out += [lax.convert_element_type(x, to) for to in (np.uint8, np.int32, np.uint64, bool)]
        return out

    closed, want = of_xla(everything, *arrays)
    for level in (0, 1):
        try:
            assert lib.spuvm_engine_set_level(level) == min(level, lib.spuvm_engine_level())
            assert_runs(closed, want, *arrays)
        finally:
            lib.spuvm_engine_set_level(99)


@pytest.mark.usefixtures("preloaded")
def test_the_best_instruction_set_is_the_one_in_use() -> None:
    """From the start: nobody has set a level in a process that has just begun."""
    code = "from spuvm.runtime.engine import interpreter\nlib = interpreter.library()\n"
    code += "assert lib.spuvm_engine_level() == lib.spuvm_engine_set_level(99)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


def test_without_an_engine_it_is_said_once_and_xla_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No library, or one of older source."""
    monkeypatch.delenv("SPUVM_NATIVE", raising=False)
    monkeypatch.setattr(interpreter, "library", lambda: None)
    monkeypatch.setattr(native, "warned", False)
    tier._available.cache_clear()
    try:
        x = np.array([1.5, -2], np.float32)
        with tier.use("native"):
            assert tier.current() == tier.current() == "xla"
            np.testing.assert_allclose(spu.reveal(spu.jit(lambda a: a * a)(x)), x * x, atol=1e-4)
        assert [r.message for r in caplog.records if "without its vector engine" in r.message] == [
            "spuvm runs without its vector engine, every stage by XLA: the native library is not there, or of older "
            "source. With a C++ compiler at hand, install spuvm again."
        ]
    finally:
        tier._available.cache_clear()


def step(what: int, x: Any, y: Any, i: int, j: int, to: Any) -> Any:
    y, of = y.astype(x.dtype), x.dtype.type
    made: list[Callable[[], Any]] = [
        lambda: x + y,
        lambda: x - of(j),
        lambda: of(j) - x * y,
        lambda: x & ~y | of(i),
        lambda: jnp.where(x < y, y ^ x, x),
        lambda: lax.shift_left(x, of(j % 70)) ^ lax.shift_right_logical(y, of(i % 70)),
        lambda: x.astype(to),
        lambda: (x == y).astype(x.dtype) + lax.max(x, y),
        lambda: lax.rem(x, y) + lax.div(y, of(j + 1)),
    ]
    return made[what]()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_random_programs(data: st.DataObject) -> None:
    """Chains of operations on words of all widths."""
    n = data.draw(st.sampled_from([1, 5, 64, 600]))
    steps = data.draw(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 99), st.integers(0, 99)), max_size=12))
    to = data.draw(st.sampled_from(WORDS))

    def program(*inputs: Any) -> Any:
        values = list(inputs)
        for what, i, j in steps:
            values.append(step(what, values[i % len(values)], values[j % len(values)], i, j, to))
        return values[len(inputs) :]

    assert_same(program, *(numbers(d, n) for d in (np.uint64, np.uint8, np.int32, np.uint16)))


# reductions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "n"), [(np.uint8, 4096), (np.int32, 4095), (np.uint64, 4099), (np.int64, 50_001)])
def test_what_is_only_folded_is_never_whole(dtype: Any, n: int) -> None:
    """Also two at a time, not of what else is kept, and of what a fold gave."""
    x, y = numbers(dtype, n), numbers(dtype, n)

    def program(a: Any, b: Any) -> Any:
        product = a * b + a
        every = jnp.sum(product, dtype=dtype), jnp.prod(product, dtype=dtype), jnp.max(product), jnp.min(product)
        return *every, product ^ every[0], jnp.max((a + b) * every[1]), jnp.min((a ^ b).reshape(1, -1), axis=1)

    code = assert_same(program, x, y)
    assert len([f for loop in code.segments if isinstance(loop, Loop) for f in loop.folds]) == (2 if n >= 4096 else 0)
    both = assert_same(lambda a, b: (jnp.max(a * b), jnp.min(a ^ b), jnp.sum(a | b, dtype=dtype)), x, y)
    assert len(both.segments) == (1 if n >= 4096 else 4)


@pytest.mark.parametrize("rows", [1, 3, 17])
def test_rows_that_are_long_are_folded_in_parts(rows: int) -> None:
    x = numbers(np.uint64, rows, 140_003)
    assert_same(lambda a: (jnp.sum(a, axis=1), jnp.max(a.T, axis=0), jnp.sum(a, axis=0)), x)


def test_folds_that_leave_their_arrays_are_refused() -> None:
    code = assert_same(lambda a: jnp.max(a + a), numbers(np.uint32, 5000))
    (loop,) = code.segments
    assert isinstance(loop, Loop)
    (fold,) = loop.folds
    bad = [
        fold._replace(to=fold.array),
        fold._replace(to=0),
        fold._replace(offset=4),
        fold._replace(array=fold.to),
        fold._replace(width=8),
        fold._replace(operation="add.u64"),
        fold._replace(operation="select.u32"),
    ]
    for folds in [*((b,) for b in bad), (fold, fold)]:
        with pytest.raises(BadCode):
            check(replace(code, segments=(loop._replace(folds=folds),)))
    made = loop.code[0]
    many = made._replace(elements=5000, operands=(made.result, made.result), result=Operand("register", 0))
    others = [loop, loop._replace(folds=())], [Loop(1, 256, 20000, (made, many), loop.folds)]
    for segments in others:
        with pytest.raises(BadCode, match="never whole"):
            check(replace(code, segments=tuple(segments)))


# what is refused -------------------------------------------------------------------------------------


def test_floating_point_is_left_to_xla() -> None:
    closed = jax.make_jaxpr(lambda a: a * 0.5)(np.ones(3, np.float32))
    with pytest.raises(Unsupported, match="float32"):
        assemble(closed.jaxpr, closed.consts, [False])


def test_an_operation_that_the_engine_lacks_is_named() -> None:
    closed = jax.make_jaxpr(lambda a: lax.sort(a))(np.ones(3, np.int32))
    with pytest.raises(Unsupported, match="`sort`"):
        assemble(closed.jaxpr, closed.consts, [False])


def test_code_that_leaves_its_arrays_is_refused() -> None:
    code = assert_same(lambda a: a + a, numbers(np.uint32, 64))
    (loop,) = code.segments
    assert isinstance(loop, Loop)
    (add,) = loop.code
    result = Operand("array", add.result.where, 4, add.result.step)
    for bad in (add._replace(result=result), add._replace(operation="add.u64"), add._replace(elements=2)):
        with pytest.raises(BadCode):
            check(replace(code, segments=(loop._replace(code=(bad,)),)))
    with pytest.raises(BadCode):
        check(replace(code, segments=(loop._replace(units=65),)))


def test_the_tier_is_a_setting() -> None:
    with tier.use("xla"):
        assert tier.current() == "xla"
    with pytest.raises(ConfigError, match="`engine` must be one of native, llvm, xla, got 'fast'"), tier.use("fast"):
        pass


PROGRAM = """
import numpy as np, spuvm as spu
from spuvm.compiler.project import executables
x = np.linspace(-1, 1, 20, dtype=np.float32)
r = spu.jit(lambda a, b: (a * b + a, a < b))(x, x[::-1].copy())
print(spu.reveal(r)[0].tolist(), executables.compiled_count > 0, len(executables._INTERPRETED) > 0)
"""


@pytest.mark.parametrize("engine", ["native", "xla"])
def test_the_environment_chooses(engine: str, tmp_path: Any) -> None:
    """XLA compiles nothing by default, and everything when it is asked for."""
    tmp_path.chmod(0o700)
    env = {**os.environ, "SPUVM_ENGINE": engine, "SPUVM_CACHE_DIR": str(tmp_path)}
    out = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, timeout=120)
    assert out.stdout.split("]")[1].split() == [str(engine == "xla"), str(engine == "native")], out.stderr


# small pieces ----------------------------------------------------------------------------------------


def test_small_arrays_stay_with_the_engine_where_wide_ones_have_earned_xla() -> None:
    case = next(c for c in cases(ABY3) if c.kernel.name == "mul_aa")
    taken: list[bool] = []

    def piece(straight: Any, general: bool) -> Any:
        taken.append((found := small_piece(straight)) is not None)
        return None if general else found

    with patch.object(executables, "EARNED", 0.0):
        for general in (True, False):
            choreography = kernel_choreography(case, ABY3, shapes_of(case, 5))
            inputs = [numbers(s.dtype, *s.shape) for port in choreography.inputs for s in port.slots]
            with patch.object(executor, "small_piece", partial(piece, general=general)):
                simulate(choreography, inputs, runs=2)
            for compiled in list(executables._PROMOTED.values()):
                compiled.result()
    assert taken and all(taken)


@pytest.mark.parametrize("n", [0, 1, 5, 64, 777])
@pytest.mark.parametrize("name", ["a2b", "mul_trunc_aa-bits=18", "reveal_b-bits=1", "dot_aa"])
def test_rounds_in_one_call_are_the_general_ones(name: str, n: int) -> None:
    """Shares, rounds and bytes: simulated and as parties, with padded blocks, packed messages and whole arrays."""
    case = next(c for c in cases(ABY3) if str(c) == name or c.kernel.name == name)
    if not case.kernel.elementwise:
        n = 16
    choreography = kernel_choreography(case, ABY3, shapes_of(case, n))
    inputs = [numbers(s.dtype, *s.shape) for port in choreography.inputs for s in port.slots]
    inputs = [x & 1 if x.dtype == np.uint8 else x for x in inputs]  # bools
    made = []
    for general in (False, True):
        taken: list[bool] = []

        def piece(straight: Any, general: bool = general, taken: list[bool] = taken) -> Any:
            taken.append((found := small_piece(straight)) is not None)
            return None if general else found

        with patch.object(executor, "small_piece", piece):
            whole = simulate(choreography, inputs, runs=2)
            parties, counters = network(choreography, inputs, runs=2)
        assert all(taken) and taken
        assert_same_shares(choreography, whole, parties)
        made.append((whole, [(c.rounds, c.bytes_sent, c.messages_sent) for c in counters]))
    for one, other in zip(made[0][0], made[1][0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert made[0][1] == made[1][1]


def test_bytecode_can_be_read() -> None:
    text = spu.jit(lambda a, b: a * b).compile(np.ones(3, np.float32), np.ones(3, np.float32)).emit("bytecode")
    assert "mul.u64" in text and "draw" in text and "loop 1 units each of 64 elements" in text


def test_inputs_of_another_size_or_type_never_reach_the_engine() -> None:
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(lambda a: a + a)(numbers(np.uint32, 64))
    made = Interpreted(assemble(closed.jaxpr, closed.consts, [False]))
    for bad in (numbers(np.uint32, 63), numbers(np.uint64, 64), numbers(np.int32, 64)):
        with pytest.raises(TypeError, match="a stage takes uint32 of 256 bytes a unit"):
            made([bad], place([]))
