"""Machine code of stages: the bits of the interpreter, no branch on a value, and nothing from disk but what is ours."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Callable
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from machine import cases, kernel_choreography, shapes_of
from test_engine import WORDS, chosen, drawn, numbers, run_code

import spuvm as spu
from spuvm.compiler.assemble.assemble import assemble
from spuvm.compiler.cache import disk
from spuvm.compiler.cache.recent import Recent
from spuvm.compiler.expand.choreography import Call
from spuvm.compiler.fuse import llvm
from spuvm.compiler.fuse.passes import best
from spuvm.compiler.fuse.values import operations
from spuvm.compiler.project import executables, machine_code
from spuvm.compiler.project.kernels import analyse
from spuvm.runtime.engine import interpreter, tier
from spuvm.runtime.engine.code import Code, Loop
from spuvm.runtime.engine.interpreter import Interpreted, place
from spuvm.runtime.engine.random import Stream
from spuvm.runtime.machine import small
from spuvm.runtime.protocols.aby3.protocol import ABY3

pytest.importorskip("llvmlite")
pytestmark = pytest.mark.skipif(interpreter.library() is None, reason="needs the native library")

KEY = bytes(range(16))
LENGTHS = (64, 64 * 37)  # one unit; whole blocks and a part of one


def code_of(function: Callable[..., Any], *arguments: Any) -> Code:
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(function)(*arguments)
    return assemble(closed.jaxpr, closed.consts, [False] * len(arguments), scales=True)


def compiled(code: Code) -> Interpreted:
    with patch.object(llvm, "WORTH", 1):
        text, made, _ = llvm.text_of(code)
    assert made
    keep, loops = llvm.placed(llvm.object_code(text), made)
    return Interpreted(code, loops, keep)


def assert_same_bits(code: Code) -> None:
    fast, stream = compiled(code), Stream(KEY)
    for length in LENGTHS:
        inputs = [numbers(p.dtype, *(n * length // 64 for n in p.shape)) for p in code.inputs]
        begin = place([(stream, 2**64 - 3 + 100 * i) for i in range(len(code.streams))])  # the counter carries
        for got, want in zip(fast(inputs, begin, length), Interpreted(code)(inputs, begin, length), strict=True):
            np.testing.assert_array_equal(got, want)


KERNELS = ("a2b", "mul_trunc_aa", "reveal_b", "share_v", "exp2_ab", "and_bb")


@pytest.mark.parametrize("ring", [64, 128])
def test_stages_of_kernels(ring: int) -> None:
    """Simulated, and what one party does, with messages that are packed."""
    some = [c for c in chosen(ABY3, ring) if c.kernel.name in KERNELS]
    assert len(some) > 3
    for case in some:
        call = kernel_choreography(case, ABY3, shapes_of(case, 64)).block.steps[0]
        assert isinstance(call, Call)
        unit = analyse(call.spec, 64)
        for stage in [s for party in (None, 1) for s in unit.stages[party] if s.outputs]:
            first = len(stage.avals) - len(stage.randoms)
            with jax.enable_x64(True):
                streams = [False] * first + [True] * len(stage.randoms)
                code = assemble(stage.function.equations(), (), streams, scales=True)
            if any(isinstance(s, Loop) and not all(o.is_draw for o in operations(s)) for s in code.segments):
                assert_same_bits(code)


@pytest.mark.parametrize("dtype", WORDS)
def test_operations(dtype: Any) -> None:
    """Overflow, signs, shifts by more than the width, known and not, and words of another width."""
    n = 64

    def all_of_them(a: Any, b: Any, c: Any) -> list[Any]:
        two = [lax.add, lax.sub, lax.mul, lax.max, lax.min, lax.bitwise_and, lax.bitwise_or, lax.bitwise_xor]
        two += [lax.lt, lax.le, lax.gt, lax.ge, lax.eq, lax.ne]
        shifts = [lax.shift_left, lax.shift_right_logical, lax.shift_right_arithmetic]
        one = [lax.bitwise_not, lax.population_count, lax.clz, lax.sign]
        one += [lax.abs] if np.dtype(dtype).kind == "i" else []
        width = 8 * np.dtype(dtype).itemsize
        out = [f(a, b) for f in two] + [f(a) for f in one] + [f(a, dtype(3)) for f in two]
        out += [f(a, y) for f in shifts for y in (c, dtype(1), dtype(width - 1), dtype(width), dtype(100))]
        out += [lax.convert_element_type(a, to) for to in (*WORDS, bool)]
        return [*out, jnp.where(a < b, a, b), -a, jnp.where(c == a, dtype(1), b)]

    code = code_of(all_of_them, *(np.zeros(n, dtype) for _ in range(3)))
    fast, slow = compiled(code), Interpreted(code)
    inputs = [numbers(dtype, n), numbers(dtype, n)[::-1].copy(), np.arange(n).astype(dtype)]
    for got, want in zip(fast(inputs, place([]), n), slow(inputs, place([]), n), strict=True):
        np.testing.assert_array_equal(got, want)


def code_of_stage(kernel: str, party: int | None) -> Code:
    """The first stage of a kernel."""
    case = next(c for c in cases(ABY3) if c.kernel.name == kernel)
    call = kernel_choreography(case, ABY3, shapes_of(case, 64)).block.steps[0]
    assert isinstance(call, Call)
    stage = analyse(call.spec, 64).stages[party][0]
    first = len(stage.avals) - len(stage.randoms)
    with jax.enable_x64(True):
        return assemble(stage.function.equations(), (), [False] * first + [True] * len(stage.randoms), scales=True)


@pytest.mark.parametrize(("kernel", "party"), [("a2b", None), ("a2b", 1), ("mul_trunc_aa", None)])
def test_the_only_branches_are_ends_of_passes(kernel: str, party: int | None) -> None:
    code = code_of_stage(kernel, party)
    (loop,) = code.segments
    assert isinstance(loop, Loop)
    text, _, _ = llvm.text_of(code)
    jumps = [j for j in re.findall(r"^\s+(j\w+|b\.\w+|cb\w+|tb\w+)\s", llvm.assembly(text), re.M) if j != "jmp"]
    assert len(jumps) == len(best(operations(loop)).passes)


def test_an_operation_that_is_lacking_stays_with_the_interpreter() -> None:
    code = code_of(lambda a, b: lax.div(a + b, b) * a - b, *(np.ones(64, np.uint64) for _ in range(2)))
    _, made, lacking = llvm.text_of(code)
    assert made == [] and lacking == ["`div`"]
    for _ in range(2):  # from nothing or from disk, it is listed
        machine_code.left_to_interpreter.clear()
        assert machine_code.machine_code("0" * 64, code) is None
        assert machine_code.left_to_interpreter == {"`div`": 1}


def chain() -> Code:
    return code_of(lambda a, b: ((a * b + a) ^ b) - (a & b), *(np.ones(64, np.uint64) for _ in range(2)))


def test_what_is_on_disk_is_ours_whole_and_for_this_processor(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(disk, "folder", lambda: tmp_path)
    code, name = chain(), "1" * 64
    before = machine_code.compiled_count
    for _ in range(2):
        assert machine_code.machine_code(name, code) is not None
    assert machine_code.compiled_count == before + 1  # the second is from disk
    file = tmp_path / f"{name}.machine"
    whole = file.read_bytes()

    def entry(**changes: Any) -> bytes:
        fields = dict(zip(("version", "code", "made", "content"), pickle.loads(whole[disk.DIGEST_BYTES :])))
        return pickle.dumps(tuple((fields | changes).values()))

    for bad in (entry(version="another"), entry(code="another"), b"no pickle"):
        disk.write(f"{name}.machine", bad)
        before = machine_code.compiled_count
        assert machine_code.machine_code(name, code) is not None
        assert machine_code.compiled_count == before + 1
    for damaged in (whole[:-1], whole[:100] + b"\xff" + whole[101:], b""):
        file.write_bytes(damaged)
        before = machine_code.compiled_count
        assert machine_code.machine_code(name, code) is not None
        assert machine_code.compiled_count == before + 1


def test_without_llvmlite_the_interpreter_serves() -> None:
    with patch.object(llvm, "binding", lambda: None):
        assert machine_code.machine_code("2" * 64, chain()) is None


def test_that_llvmlite_is_not_there_or_broken_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, llvm.__name__)
    llvm.binding.cache_clear()
    try:
        with patch("importlib.import_module", side_effect=OSError("libllvmlite.so: not a library")):
            assert llvm.binding() is None and llvm.binding() is None
        assert [r.getMessage() for r in caplog.records if r.name == llvm.__name__] == [
            "stages are not compiled by LLVM (libllvmlite.so: not a library): install spuvm[llvm]"
        ]
        assert machine_code.machine_code("3" * 64, chain()) is None
    finally:
        llvm.binding.cache_clear()


def test_hot_and_wide_stages_earn_it() -> None:
    """Shares are the same before, and after machine code took the interpreter's place."""
    x = np.linspace(-1, 1, 1 << 15).astype(np.float32)
    with patch.object(executables, "EARNED", 0.0):
        first = spu.jit(lambda a, b: a * b + a)
        results = [spu.reveal(first(x, x)) for _ in range(2)]
        for future in list(executables._PROMOTED.values()):
            future.result()
        results.append(spu.reveal(first(x, x)))
    assert any(executables._FUSED.values())
    with tier.use("llvm"):
        results.append(spu.reveal(first(x, x)))
    np.testing.assert_allclose(results, [x * x + x] * 4, atol=1e-4)


def test_pieces_of_some_thousand_elements_earn_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A straight piece is laid out again, once all its wide stages have machine code."""
    monkeypatch.setenv("SPUVM_ENGINE", "native")
    monkeypatch.setattr(interpreter, "EARNED", 0.0)
    monkeypatch.setattr(executables, "_FUSED", {})  # as in a new process
    monkeypatch.setattr(executables, "_PROMOTED", Recent())
    monkeypatch.setattr(small, "_KNOWN", WeakKeyDictionary())
    x = np.linspace(-1, 1, 8192).astype(np.float32)

    def fused() -> int:
        return sum(p.fused for found in small._KNOWN.values() if found is not None for p in found.programs)

    function = spu.jit(lambda a, b: a * b + 0.5 * a)
    results = [spu.reveal(function(x, x[::-1]))]
    results.append(spu.reveal(function(x, x[::-1])))
    for future in list(executables._PROMOTED.values()):
        future.result()
    results += [spu.reveal(function(x, x[::-1])) for _ in range(2)]
    assert fused() > 0
    np.testing.assert_allclose(results, [x * x[::-1] + 0.5 * x] * 4, atol=1e-4)


def test_llvm_runs_the_code_that_xla_defines() -> None:
    """The longest way round: the jaxpr by XLA, its code by LLVM."""
    case = next(c for c in cases(ABY3) if str(c) == "mul_trunc_aa-bits=18")
    call = kernel_choreography(case, ABY3, shapes_of(case, 64)).block.steps[0]
    assert isinstance(call, Call)
    stage = analyse(call.spec, 64).stages[None][0]
    first = len(stage.avals) - len(stage.randoms)
    with jax.enable_x64(True):
        code = assemble(stage.function.equations(), (), [False] * first + [True] * len(stage.randoms), scales=True)
        inputs = [numbers(a.dtype, *a.shape) for a in stage.avals[:first]]
        want = stage.function(*map(jnp.asarray, [*inputs, *drawn(stage, [7 * i for i in range(len(stage.randoms))])]))
    stream = Stream(KEY)
    got = compiled(code)(inputs, place([(stream, 7 * i) for i in range(len(stage.randoms))]))
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g, np.asarray(w))
    assert len(run_code(code, inputs, [7 * i for i in range(len(stage.randoms))])) == len(got)
