"""Expanding loops and choices: what their regions compute, and that it is what the evaluator says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from machine import both, module, type_of

from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Region, Type, Value
from spuvm.runtime.protocols.aby3.protocol import ABY3
from spuvm.runtime.protocols.ref2k import ref2k

REF2K = ref2k(3)


def region(b: Builder, types: Sequence[Type], build: Callable[..., Sequence[Value]]) -> Region:
    made = Region([Value(t) for t in types])
    with b.inside(made):
        made.results = list(build(*made.params))
    return made


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("trips", [0, 1, 4])
def test_loop(trips: int, reverse: bool) -> None:
    """Constants, carries and rows of all visibilities; stacked results, public ones included."""

    def build(b: Builder, k: Value, c: Value, n: Value, xs: Value, ps: Value, vs: Value) -> list[Value]:
        row = [type_of("fxp18", (3,)), type_of("int64", (), "public"), type_of("fxp18", (3,), 1)]

        def body(k: Value, c: Value, n: Value, x: Value, p: Value, v: Value) -> list[Value]:
            step = b.add(b.mul(c, k), b.add(x, v))
            big = b.less(c, step)
            return [step, b.add(n, p), big, b.mul(n, p), v, step]

        inner = region(b, [k.type, c.type, n.type, *row], body)
        return b.ops("loop", [k, c, n, xs, ps, vs], [inner], trips=trips, carries=2, constants=1, reverse=reverse)

    types = [
        type_of("fxp18", (3,)),
        type_of("fxp18", (3,)),
        type_of("int64", (), "public"),
        type_of("fxp18", (trips, 3)),
        type_of("int64", (trips,), "public"),
        type_of("fxp18", (trips, 3), 1),
    ]
    m = module(build, *types)
    rng = np.random.default_rng(0)
    raws = [rng.integers(0, 2**18, t.shape).astype(np.uint64) for t in types]
    for z, want in zip(both(m, ABY3, raws), evaluate(m, raws), strict=True):
        assert z.shape == want.shape
        error = (np.asarray(z).astype(np.uint64) - want).view(np.int64)
        assert error.size == 0 or (error.min() >= 0 and error.max() <= trips)


@pytest.mark.parametrize("choice", [-3, 0, 1, 2, 99])
def test_cond(choice: int) -> None:
    """A public index, computed at run time, is clamped; branches may differ in rounds."""

    def build(b: Builder, i: Value, x: Value, y: Value) -> list[Value]:
        branches = [
            region(b, [x.type, y.type], lambda x, y: [b.add(x, y), b.op("share", y, to="secret")]),
            region(b, [x.type, y.type], lambda x, y: [b.mul(x, x), b.mul(b.mul(x, y), y)]),
            region(b, [x.type, y.type], lambda x, y: [x, x]),
        ]
        return b.ops("cond", [b.op("neg", i), x, y], branches)

    m = module(build, type_of("int32", (), "public"), type_of("fxp18", (6,)), type_of("fxp18", (6,), "public"))
    rng = np.random.default_rng(0)
    raws = [np.array(-choice % 2**64, np.uint64), *(rng.integers(0, 2**18, 6).astype(np.uint64) for _ in range(2))]
    for z, want in zip(both(m, ABY3, raws), evaluate(m, raws), strict=True):
        error = (z - want).view(np.int64)
        assert error.min() >= 0
        assert error.max() <= 2


def test_while() -> None:
    """Its condition is public at run time: a counter against a revealed number of trips."""

    def build(b: Builder, n: Value, x: Value, k: Value) -> list[Value]:
        limit = b.op("reveal", n, to="public")
        zero = b.const(np.int64(0), "int64")
        count = type_of("int64", (), "public")
        condition = region(b, [count, count, x.type], lambda limit, i, x: [b.less(i, limit)])
        body = region(
            b,
            [k.type, count, x.type],
            lambda k, i, x: [b.add(i, b.const(np.int64(1), "int64")), b.add(x, b.op("mul", k, k))],
        )
        return b.ops("while", [limit, k, zero, x], [condition, body], condition_constants=1, body_constants=1)

    m = module(build, type_of("int64"), type_of("int64", (5,)), type_of("int64", (5,)))
    for trips in (0, 1, 5):
        raws = [np.array(trips, np.uint64), np.arange(5, dtype=np.uint64), np.arange(5, dtype=np.uint64) * np.uint64(7)]
        got = both(m, ABY3, raws)
        for z, want in zip(got, evaluate(m, raws), strict=True):
            np.testing.assert_array_equal(z, want)


def test_nested_control() -> None:
    """A loop in a branch in a loop, which ends in what it was given."""

    def build(b: Builder, x: Value, i: Value) -> list[Value]:
        def inner(x: Value) -> list[Value]:
            body = region(b, [x.type], lambda c: [b.op("mul", c, c), c])
            out, _ = b.ops("loop", [x], [body], trips=2, carries=1, constants=0, reverse=False)
            return [out]

        def outer(x: Value, i: Value) -> list[Value]:
            branches = [region(b, [x.type], inner), region(b, [x.type], lambda x: [x])]
            return b.ops("cond", [i, x], branches)

        body = region(b, [x.type, type_of("int32", (), "public")], outer)
        return b.ops("loop", [x, i], [body], trips=3, carries=1, constants=0, reverse=True)

    m = module(build, type_of("int64", (4,)), type_of("int32", (3,), "public"))
    raws = [np.arange(4, dtype=np.uint64), np.array([0, 1, 0], np.uint64)]
    (got,) = both(m, ABY3, raws)
    np.testing.assert_array_equal(got, evaluate(m, raws)[0])
