"""Every operation of the IR, on operands of every type and visibility, against the plain evaluator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from machine import (
    Interpreter,
    Raw,
    both,
    module,
    predicted_cost,
    shared_inputs,
    simulated,
    type_of,
)

from spuvm.compiler.expand.expand import expand
from spuvm.compiler.expand.rules import EXPAND
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.elementary import ELEMENTARY, EXACT
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Module, Type, Value, join
from spuvm.compiler.ir.ops import CONTROL, RULES
from spuvm.runtime.protocols.aby3.protocol import ABY3
from spuvm.runtime.protocols.protocol import Protocol
from spuvm.runtime.protocols.ref2k import ref2k

REF2K = ref2k(3)
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
NUMBERS = [*INTEGERS, "fxp18"]
ELEMENTS = ["bool", *NUMBERS]
VISIBILITIES: list[int | str] = ["public", 0, 1, "secret"]
Build = Callable[..., Value]


def raws_of(t: Type, seed: int) -> Raw:
    """Canonical ring elements of a type: its extremes, zero and ones, then random values."""
    rng = np.random.default_rng(seed)
    if t.kind == "bool":
        return rng.integers(0, 2, t.shape, np.uint64)
    low, high = (-(2**29), 2**29) if t.kind == "fxp" else (-(2 ** (t.bits - 1)), 2 ** (t.bits - 1) - 1)
    if t.kind == "int" and not t.signed:
        low, high = 0, 2**t.bits - 1
    edges = [low, high, 0, 1, low + (low < 0), high - 1, -1 if low else high // 2]
    values = [int(v) % 2**64 for v in np.roll(edges, seed)] if low else np.roll(np.array(edges, object), seed)
    random = rng.integers(0, 2**63, t.size, np.uint64).astype(object) % (high - low + 1) + low
    flat = np.array([*(int(v) % 2**64 for v in values), *(int(v) % 2**64 for v in random)], np.uint64)[: t.size]
    return flat.reshape(t.shape)


# The operations ----------------------------------------------------------------------------------------


def _op(name: str, **attrs: Any) -> Build:
    return lambda b, *xs: b.op(name, *xs, **attrs)


def _times(b: Builder, x: Value, y: Value) -> Value:
    return b.mul(x, y)


def _of_products(b: Builder, x: Value, y: Value) -> Value:
    """One truncation of a sum of products, which are added before they are reshared."""
    z = b.op("mul", x, y)
    return b.with_frac(b.sub(b.add(z, b.op("mul", x, x)), b.neg(z)), x.type.frac)


MASK = 0x8000_0001_0000_0105
UNARY: dict[str, Build] = {
    "neg": _op("neg"),
    "shift_left": _op("shift_left", bits=3),
    "shift_right_logical": _op("shift_right_logical", bits=3),
    "shift_right_logical 0": _op("shift_right_logical", bits=0),
    "shift_right_arithmetic": _op("shift_right_arithmetic", bits=3),
    "prefix_or": _op("prefix_or", bits=0),
    "bit_parity": _op("bit_parity", mask=MASK),
    "bit_parity of one": _op("bit_parity", mask=1 << 63),
}
BINARY: dict[str, Build] = {
    "add": _op("add"),
    "sub": _op("sub"),
    "mul": _times,
    "mul of products": _of_products,
    "less": _op("less"),
    "equal": _op("equal"),
}
LOGICAL: dict[str, Build] = {"and": _op("and"), "or": _op("or"), "xor": _op("xor")}
ANY: dict[str, Build] = {
    "not": _op("not"),
    "share": _op("share", to="secret"),
    "reveal": _op("reveal", to="public"),
    "reveal to 1": _op("reveal", to=1),
    "reveal to 2": _op("reveal", to=2),
}
INEXACT = {"mul", "mul of products", "convert fxp10"}
# Operations that a secret operand makes no dearer: no message, whatever else is public.
FREE = {"add", "sub", "neg", "shift_left", "bitcast", "mul", "bool and", "bool or", "bool xor", "bool not", "not"}


def unary(element: str) -> dict[str, Build]:
    conversions: dict[str, Build] = {f"convert {t}": _op("convert", to=t) for t in conversions_of(element)}
    if element == "bool":
        return ANY | conversions
    retyped = "int64" if element == "fxp18" else "fxp7"
    return ANY | UNARY | conversions | {"bitcast": _op("bitcast", to=retyped)}


def conversions_of(element: str) -> list[str]:
    if element == "fxp18":
        return ["bool", "int32", "int64", "uint64", "fxp18", "fxp10", "fxp24"]
    return [*ELEMENTS, "fxp10"]


def binary(element: str) -> dict[str, Build]:
    return LOGICAL if element == "bool" else LOGICAL | BINARY


def single(build: Build, *types: Type) -> Module:
    return module(lambda b, *xs: [build(b, *xs)], *types)


def assert_agrees(name: str, m: Module, raws: Sequence[Raw], got: Sequence[Raw]) -> None:
    for want, z in zip(evaluate(m, raws), got, strict=True):
        assert z.shape == want.shape, name
        error = (np.asarray(z).astype(np.uint64) - want).view(np.int64)
        assert error.size == 0 or (error.min() >= 0 and error.max() <= (name in INEXACT)), (name, error)


def interpreted(name: str, m: Module, protocol: Protocol, raws: Sequence[Raw]) -> None:
    choreography = expand(m, protocol)
    inputs = shared_inputs(choreography, raws)
    assert_agrees(name, m, raws, Interpreter().run(choreography, inputs))


def bytes_of(m: Module, protocol: Protocol = ABY3) -> int:
    return int(predicted_cost(expand(m, protocol)).bytes_sent.sum())


# Every operation, type and visibility ------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [ABY3, REF2K], ids=lambda p: str(p.name))
@pytest.mark.parametrize("element", ELEMENTS)
def test_unary(element: str, protocol: Protocol) -> None:
    for who, (name, build) in product(VISIBILITIES, unary(element).items()):
        t = type_of(element, (11,), who)
        interpreted(name, single(build, t), protocol, [raws_of(t, 1)])


@pytest.mark.parametrize("protocol", [ABY3, REF2K], ids=lambda p: str(p.name))
@pytest.mark.parametrize("element", ELEMENTS)
def test_binary(element: str, protocol: Protocol) -> None:
    for pair in product(VISIBILITIES, repeat=2):
        types = [type_of(element, (11,), who) for who in pair]
        raws = [raws_of(t, i) for i, t in enumerate(types)]
        for name, build in binary(element).items():
            interpreted(name, single(build, *types), protocol, raws)


@pytest.mark.parametrize("element", ["bool", "uint8", "int64", "fxp18"])
def test_select(element: str) -> None:
    for c, x, y in product(VISIBILITIES, repeat=3):
        types = [type_of("bool", (11,), c), type_of(element, (11,), x), type_of(element, (11,), y)]
        raws = [raws_of(t, i) for i, t in enumerate(types)]
        m = single(_op("select"), *types)
        interpreted("select", m, ABY3, raws)
        known = {c, x, y} - {"public"}
        if known == {0} or known == {1} or not known or (c == "public" and known == {"secret"}):
            assert bytes_of(m) == 0


@pytest.mark.parametrize("element", NUMBERS)
def test_integer_division(element: str) -> None:
    pairs: list[tuple[int | str, int | str]] = [("public", "public"), (1, "public"), ("public", 2), (0, 0)]
    for pair in pairs:
        types = [type_of(element, (11,), who) for who in pair]
        m = single(_op("integer_division"), *types)
        interpreted("integer_division", m, ABY3, [raws_of(t, i) for i, t in enumerate(types)])
        assert bytes_of(m) == 0


DOTS = {
    "matrix": ((3, 4), (4, 2), (((1,), (0,)), ((), ()))),
    "vectors": ((5,), (5,), (((0,), (0,)), ((), ()))),
    "batch": ((2, 3, 4), (2, 4, 2), (((2,), (1,)), ((0,), (0,)))),
    "empty": ((3, 0), (0, 2), (((1,), (0,)), ((), ()))),
    "outer": ((3,), (2,), (((), ()), ((), ()))),
}


@pytest.mark.parametrize("element", ["int8", "uint64", "fxp18"])
@pytest.mark.parametrize("name", DOTS)
def test_dot(element: str, name: str) -> None:
    left, right, dims = DOTS[name]

    def build(b: Builder, x: Value, y: Value) -> Value:
        z = b.op("dot", x, y, dims=dims)
        return b.with_frac(z, 18) if element == "fxp18" else z

    for pair in product(VISIBILITIES, repeat=2):
        types = [type_of(element, shape, who) for shape, who in zip((left, right), pair)]
        raws = [raws_of(t, i) for i, t in enumerate(types)]
        if element == "fxp18":
            raws = [r & np.uint64(2**24 - 1) for r in raws]
        for protocol in (ABY3, REF2K):
            interpreted("mul", single(build, *types), protocol, raws)


# What does not pay ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("element", ["bool", "int32", "uint64", "fxp18"])
def test_known_operands_cost_nothing(element: str) -> None:
    """What one party can compute is computed there; only `reveal` and `share` of it move bytes."""
    known: list[int | str] = ["public", 0, 1]
    for name, build in unary(element).items():
        for who in known:
            m = single(build, type_of(element, (8,), who))
            moves = who != "public" and name in ("share", "reveal", "reveal to 2", f"reveal to {1 - int(who)}")
            assert (bytes_of(m) > 0) == moves, (name, who)
    for name, build in binary(element).items():
        for pair in product(known, repeat=2):
            m = single(build, *(type_of(element, (8,), who) for who in pair))
            assert (bytes_of(m) == 0) == (join(*pair) != "secret"), (name, pair)


def test_public_operands_are_free_beside_secret_ones() -> None:
    for element, name in product(("int32", "fxp18"), ("add", "sub", "raw product")):
        build = _op("mul") if name == "raw product" else BINARY[name]
        for pair in (("public", "secret"), ("secret", "public")):
            assert bytes_of(single(build, *(type_of(element, (8,), who) for who in pair))) == 0
    for build in LOGICAL.values():
        assert bytes_of(single(build, type_of("bool", (8,), "public"), type_of("bool", (8,)))) == 0
    for element in ("int32", "fxp18"):
        for name in ("neg", "shift_left", "bitcast"):
            assert bytes_of(single(unary(element)[name], type_of(element, (8,)))) == 0


def test_private_operands_are_shared_once() -> None:
    """One word an element from the owner, and none from the others; a bool is one bit."""
    for element, each in (("fxp18", 64), ("bool", 1)):
        build = _op("xor" if element == "bool" else "add")
        for who in (0, 1, 2):
            m = single(build, type_of(element, (16,), who), type_of(element, (16,)))
            cost = predicted_cost(expand(m, ABY3))
            assert cost.bytes_sent.tolist() == [16 * each // 8 * (p == who) for p in range(3)]
            assert cost.rounds == 1

    def twice(b: Builder, x: Value, y: Value) -> Value:
        return b.add(b.add(x, y), b.sub(y, x))

    assert bytes_of(single(twice, type_of("fxp18", (16,), 0), type_of("fxp18", (16,)))) == 128


def test_conversions_are_kept() -> None:
    """A value that is asked for as bits twice is converted once."""

    def build(b: Builder, x: Value) -> list[Value]:
        return [b.op("bit_parity", x, mask=1 << i) for i in range(5)]

    once = module(lambda b, x: build(b, x)[:1], type_of("int64", (16,)))
    assert bytes_of(module(build, type_of("int64", (16,)))) == bytes_of(once) > 0


@pytest.mark.parametrize(
    ("source", "target"), [("int32", "uint64"), ("uint64", "int64"), ("uint8", "int16"), ("int8", "int64")]
)
def test_conversions_that_keep_the_ring_element_are_free(source: str, target: str) -> None:
    assert bytes_of(single(_op("convert", to=target), type_of(source, (16,)))) == 0


def test_a_word_in_bits_is_revealed_as_bits() -> None:
    def build(b: Builder, x: Value) -> Value:
        return b.op("reveal", b.op("shift_right_logical", x, bits=1), to="public")

    m = single(build, type_of("int64", (16,)))
    there = bytes_of(single(_op("bit_parity", mask=1), type_of("int64", (16,))))
    assert bytes_of(m) == there + 3 * 8 * 16


# Rearrangements --------------------------------------------------------------------------------------------


def rearrangements(shape: tuple[int, ...]) -> Iterator[tuple[str, Callable[..., Value]]]:
    """(name, build) of local operations on x, y of `shape`."""
    rank, size = len(shape), int(np.prod(shape, dtype=int))
    yield "reshape", lambda b, x, y: b.op("reshape", x, shape=(size, 1))
    yield "broadcast", lambda b, x, y: b.broadcast(x, (2, *shape))
    if not rank:
        return
    window = tuple(range(1, rank))
    rows = [[shape[0] - 1], [0], [shape[0] // 2]] if size else [[0]]
    dims = (window, (0,), (0,), (), ())
    row = (1, *shape[1:])

    def index(b: Builder, data: Any) -> Value:
        return b.const(np.array(data), "int32")

    def spread(name: str) -> Callable[..., Value]:
        def build(b: Builder, x: Value, y: Value) -> Value:
            part = b.op("gather", y, index(b, rows), dims=dims, sizes=row, mode="clip")
            return b.op(name, x, index(b, rows[::-1]), part, dims=dims, mode="clip")

        return build

    yield "transpose", lambda b, x, y: b.op("transpose", x, perm=tuple(range(rank))[::-1])
    yield "slice", lambda b, x, y: b.slice(x, 0, 0, shape[0], 2)
    yield "rev", lambda b, x, y: b.op("rev", x, axes=(0,))
    yield "concatenate", lambda b, x, y: b.concatenate([x, y, x], 0)
    yield (
        "pad",
        lambda b, x, y: b.op(
            "pad", x, b.const(np.int64(0), x.type.element), low=(1,) * rank, high=(2,) * rank, interior=(1,) * rank
        ),
    )
    if size:
        yield "gather", lambda b, x, y: b.op("gather", x, index(b, rows), dims=dims, sizes=row, mode="clip")
        yield "scatter", spread("scatter")
        yield "dynamic_slice", lambda b, x, y: b.op("dynamic_slice", x, *[index(b, 1)] * rank, sizes=(1,) * rank)
        yield (
            "dynamic_update_slice",
            lambda b, x, y: b.op("dynamic_update_slice", x, b.slice(y, 0, 0, 1), *[index(b, i) for i in range(rank)]),
        )


def sums(shape: tuple[int, ...]) -> Iterator[tuple[str, Callable[..., Value]]]:
    if not shape:
        return
    yield "sum", lambda b, x, y: b.sum(x, (0,))
    yield "sum of all", lambda b, x, y: b.sum(x, range(len(shape)))
    yield "cumsum", lambda b, x, y: b.op("cumsum", x, axis=0, reverse=False)
    yield "cumsum back", lambda b, x, y: b.op("cumsum", y, axis=len(shape) - 1, reverse=True)
    if 0 not in shape:
        dims = (tuple(range(1, len(shape))), (0,), (0,), (), ())
        yield (
            "scatter_add",
            lambda b, x, y: b.op(
                "scatter_add", x, b.const(np.zeros((shape[0], 1), int), "int64"), y, dims=dims, mode="clip"
            ),
        )


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("element", ["bool", "int16", "fxp18"])
def test_rearrangements(element: str, shape: tuple[int, ...]) -> None:
    operations = [*rearrangements(shape), *(sums(shape) if element != "bool" else ())]
    pairs: list[tuple[int | str, int | str]] = [("public", "public"), (0, 0), (0, 1), ("secret", "secret")]
    for who, (name, build) in product([*pairs, ("public", "secret")], operations):
        types = [type_of(element, shape, w) for w in who]
        m = single(build, *types)
        interpreted(name, m, ABY3, [raws_of(t, i) for i, t in enumerate(types)])
        if 1 not in who:
            assert bytes_of(m) == 0, name


def test_sums_of_bits_are_sums_of_numbers() -> None:
    """A word that is shared as bits must be converted before it is added up."""
    for name, build in sums((7,)):

        def of_bits(b: Builder, x: Value, y: Value, build: Any = build) -> Value:
            result: Value = build(b, b.op("and", x, y), b.op("xor", x, y))
            return result

        types = [type_of("int64", (7,))] * 2
        interpreted(name, single(of_bits, *types), ABY3, [raws_of(t, i) for i, t in enumerate(types)])


def test_sums_of_products_are_reshared_once() -> None:
    def build(b: Builder, x: Value, y: Value) -> Value:
        return b.trunc(b.sum(b.op("mul", x, y), (0, 1)), 18)

    m = single(build, *[type_of("fxp18", (30, 40))] * 2)
    assert bytes_of(m) == 3 * (8 + 3)
    x = [raws_of(t, i) & np.uint64(2**20 - 1) for i, t in enumerate([type_of("fxp18", (30, 40))] * 2)]
    interpreted("mul", m, ABY3, x)


# Scalars that stand for arrays --------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [7, 5000])
def test_broadcast_scalars(n: int) -> None:
    """A broadcast scalar stays one element until it meets an array: as input, constant, or computed."""

    def build(b: Builder, s: Value, c: Value, x: Value, p: Value) -> list[Value]:
        def all_(v: Value) -> Value:
            return b.broadcast(v, (n,))

        square = all_(b.mul(s, s))
        return [
            *(b.op(name, all_(v), w) for name in ("add", "sub") for v in (s, c) for w in (x, p)),
            *(b.op(name, w, all_(s)) for name in ("add", "sub") for w in (x, p)),
            b.mul(square, x),
            b.add(square, p),
            b.op("xor", all_(b.less(s, c)), b.less(x, p)),
            b.op("xor", all_(b.less(s, c)), b.less(p, p)),
            b.select(all_(b.less(s, c)), x, p),
            b.select(b.less(p, all_(c)), all_(s), all_(c)),
            all_(s),
            b.sum(all_(s), (0,)),
        ]

    types = [type_of("fxp18"), type_of("fxp18", (), "public"), type_of("fxp18", (n,)), type_of("fxp18", (n,), "public")]
    m = module(build, *types)
    raws = [raws_of(t, i + 1) & np.uint64(2**24 - 1) for i, t in enumerate(types)]
    choreography = expand(m, ABY3)
    interpreted_ = Interpreter().run(choreography, shared_inputs(choreography, raws))
    ran = both(m, ABY3, raws)
    for got in (interpreted_, ran, simulated(m, REF2K, raws)):
        for z, want in zip(got, evaluate(m, raws), strict=True):
            assert z.shape == want.shape
            error = (z.astype(np.uint64) - want).view(np.int64)
            assert np.abs(error).max() <= 2**7  # a unit of the square, times x < 2^6


# On the machine itself ------------------------------------------------------------------------------------------


def everything(element: str) -> Callable[..., list[Value]]:
    """All operations on secret operands in one program."""

    def build(b: Builder, x: Value, y: Value, p: Value) -> list[Value]:
        out = [f(b, x) for f in unary(element).values()]
        out += [f(b, x, y) for f in binary(element).values()]
        out += [f(b, x, p) for f in binary(element).values()]
        out += [f(b, x, y) for _, f in rearrangements(x.shape)]
        if element != "bool":
            out += [f(b, x, y) for _, f in sums(x.shape)]
            out.append(b.select(b.less(x, p), y, x))
        return out

    return build


def check_everything(element: str, shape: tuple[int, ...], run: Callable[..., list[Raw]], protocol: Protocol) -> None:
    types = [type_of(element, shape), type_of(element, shape), type_of(element, shape, "public")]
    m = module(everything(element), *types)
    raws = [raws_of(t, i) for i, t in enumerate(types)]
    for z, want in zip(run(m, protocol, raws), evaluate(m, raws), strict=True):
        assert z.shape == want.shape
        error = (np.asarray(z).astype(np.uint64) - want).view(np.int64)
        assert error.size == 0 or (error.min() >= 0 and error.max() <= 1)


@pytest.mark.parametrize("element", ["bool", "int32", "uint64", "fxp18"])
def test_everything_as_parties(element: str) -> None:
    check_everything(element, (3, 5), both, ABY3)


@pytest.mark.parametrize("shape", [(), (0,), (63,), (175_001,)], ids=str)
@pytest.mark.parametrize("protocol", [ABY3, REF2K], ids=lambda p: str(p.name))
def test_everything_simulated(shape: tuple[int, ...], protocol: Protocol) -> None:
    for element in ("fxp18",) if shape == (175_001,) else ("bool", "uint64", "fxp18"):
        check_everything(element, shape, simulated, protocol)


def test_every_operation_has_a_rule() -> None:
    chosen_before = {*ELEMENTARY, *EXACT} - EXPAND.keys()
    assert set(EXPAND) == {*RULES, *CONTROL} - chosen_before
