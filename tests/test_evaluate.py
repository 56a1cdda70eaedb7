"""The plain evaluator against Python integers and lax, op by op, and its control operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from jax import lax

from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.in_the_clear import LIMIT, evaluate
from spuvm.compiler.ir.module import Region, Type, Value
from spuvm.compiler.ir.ops import CONTROL, RULES, parse_element
from spuvm.runtime.errors import IRError

EDGES = np.array([0, 1, -1, 2, -5, 7, 2**31, -(2**31), 2**61 - 1, -(2**61), 2**63 - 1, -(2**63)], np.int64)


def param(b: Builder, element: str, shape: tuple[int, ...] = (), visibility: int | str = "secret") -> Value:
    value = Value(parse_element(element).with_(shape=shape, visibility=visibility))
    b.region.params.append(value)
    return value


def apply(
    name: str, *inputs: tuple[str, Any], jitter: int | None = None, visibility: str = "secret", **attrs: Any
) -> Any:
    b = Builder(18)
    values = [param(b, e, np.shape(x), visibility) for e, x in inputs]
    b.region.results.append(b.op(name, *values, **attrs))
    (out,) = evaluate(b.region, [np.asarray(x) for _, x in inputs], jitter=jitter)
    assert out.dtype == np.uint64
    assert out.shape == b.region.results[0].shape
    return out.view(np.int64)


def wrapped(x: int) -> int:
    return (x + 2**63) % 2**64 - 2**63


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("add", lambda x, y: x + y),
        ("sub", lambda x, y: x - y),
        ("mul", lambda x, y: x * y),
        ("and", lambda x, y: x & y),
        ("or", lambda x, y: x | y),
        ("xor", lambda x, y: x ^ y),
        ("less", lambda x, y: x < y),
        ("equal", lambda x, y: x == y),
    ],
)
def test_binary(name: str, meaning: Any) -> None:
    x, y = (a.ravel() for a in np.meshgrid(EDGES, EDGES))
    got = apply(name, ("int64", x), ("int64", y))
    assert got.tolist() == [wrapped(meaning(int(p), int(q))) for p, q in zip(x, y)]


def test_uint64_compares_unsigned() -> None:
    assert apply("less", ("uint64", [1, -1]), ("uint64", [-1, 1])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("source", "raw", "target", "want"),
    [
        ("bool", [0, 1], "fxp18", [0, 2**18]),
        ("bool", [0, 1], "int32", [0, 1]),
        ("int32", [-3, 3], "fxp18", [-3 * 2**18, 3 * 2**18]),
        ("int64", [2**31, -1], "int32", [-(2**31), -1]),
        ("int64", [-1, 257], "uint8", [255, 1]),
        ("int32", [-2, 0], "bool", [1, 0]),
        ("fxp2", [-9, -8, -7, -1, 0, 1, 7, 8, 9], "int32", [-2, -2, -1, 0, 0, 0, 1, 2, 2]),
        ("fxp4", [-1, 33], "fxp2", [-1, 8]),
        ("fxp2", [-1, 33], "fxp4", [-4, 132]),
    ],
)
def test_convert(source: str, raw: list[int], target: str, want: list[int]) -> None:
    assert apply("convert", (source, raw), to=target).tolist() == want


def test_not_keeps_the_width() -> None:
    assert apply("not", ("bool", [0, 1])).tolist() == [1, 0]
    assert apply("not", ("uint8", [0, 200])).tolist() == [255, 55]
    assert apply("not", ("int8", [0, -100])).tolist() == [-1, 99]


def test_shifts() -> None:
    assert apply("shift_right_logical", ("int32", [-5]), bits=1).tolist() == [0x7FFFFFFD]
    assert apply("shift_right_logical", ("int32", [-5]), bits=0).tolist() == [-5]
    assert apply("shift_right_logical", ("fxp18", [-1]), bits=63).tolist() == [1]
    assert apply("shift_right_arithmetic", ("int32", [-5, 5]), bits=1).tolist() == [-3, 2]
    assert apply("shift_left", ("int64", [-5, 2**62]), bits=2).tolist() == [-20, 0]


def test_bits() -> None:
    got = apply("prefix_or", ("int64", EDGES), bits=0)
    assert got.tolist() == [wrapped((1 << (int(x) % 2**64).bit_length()) - 1) for x in EDGES]
    mask = 0xF0F0F0F0F0F0F0F1
    got = apply("bit_parity", ("fxp18", EDGES), mask=mask)
    assert got.tolist() == [(int(x) % 2**64 & mask).bit_count() % 2 for x in EDGES]


def test_integer_division_floors_and_marks_zero() -> None:
    x, y = [7, -7, 7, -7, 5, -(2**63)], [2, 2, -2, -2, 0, -1]
    got = apply("integer_division", ("int64", x), ("int64", y), visibility="public")
    assert got.tolist() == [3, -4, -4, 3, -1, -(2**63)]
    assert apply("integer_division", ("uint64", [-1]), ("uint64", [2]), visibility="public").tolist() == [2**63 - 1]


def test_dot_is_exact_in_the_ring() -> None:
    random = np.random.default_rng(0)
    x, y = random.integers(-(2**63), 2**63, (3, 4, 5)), random.integers(-(2**63), 2**63, (4, 6, 3))
    got = apply("dot", ("int64", x), ("int64", y), dims=(((1,), (0,)), ((0,), (2,))))
    assert (got == np.einsum("bik,inb->bkn", x, y)).all()


@pytest.mark.parametrize("bits", [1, 18, 44])
def test_truncation_jitters_between_the_neighbours(bits: int) -> None:
    x = np.random.default_rng(1).integers(-LIMIT, LIMIT, 20_000)
    floor = apply("trunc", ("fxp44", x), bits=bits)
    assert (floor == x >> bits).all()
    error = apply("trunc", ("fxp44", x), bits=bits, jitter=2) - floor
    assert set(error.tolist()) == {0, 1}
    assert abs(error.mean() - np.mean((x & ((1 << bits) - 1)) / 2.0**bits)) < 0.02
    whole = x >> bits << bits
    assert (apply("trunc", ("fxp44", whole), bits=bits, jitter=3) == whole >> bits).all()
    assert (apply("trunc", ("fxp44", x), bits=bits, jitter=2, visibility="public") == floor).all()


def test_truncation_out_of_range_is_noise() -> None:
    x = np.full(100, LIMIT)
    assert (apply("trunc", ("fxp44", x), bits=18, jitter=2) != x >> 18).mean() > 0.9


def test_select_and_rearrangements() -> None:
    x = np.arange(6).reshape(2, 3) - 2
    assert apply("select", ("bool", x > 0), ("int64", x), ("int64", x * 0)).tolist() == np.maximum(x, 0).tolist()
    for name, attrs, want in (
        ("reshape", {"shape": (3, 2)}, x.reshape(3, 2)),
        ("transpose", {"perm": (1, 0)}, x.T),
        ("broadcast", {"shape": (2, 4, 3), "dims": (0, 2)}, np.broadcast_to(x[:, None], (2, 4, 3))),
        ("slice", {"start": (0, 1), "limit": (2, 3), "stride": (1, 2)}, x[:, 1::2]),
        ("rev", {"axes": (1,)}, x[:, ::-1]),
        ("sum", {"axes": (0,)}, x.sum(0)),
        ("cumsum", {"axis": 1, "reverse": False}, x.cumsum(1)),
        ("cumsum", {"axis": 1, "reverse": True}, x[:, ::-1].cumsum(1)[:, ::-1]),
    ):
        assert apply(name, ("int64", x), **attrs).tolist() == want.tolist(), name
    joined = apply("concatenate", ("int64", x), ("int64", x), axis=1)
    assert joined.tolist() == np.concatenate([x, x], 1).tolist()


def test_rearrangements_with_indices() -> None:
    b = Builder(18)
    x, i = param(b, "fxp18", (5,)), param(b, "int32", (), "public")
    edge = param(b, "fxp18")
    b.region.results += [
        b.op("dynamic_slice", x, i, sizes=(2,)),
        b.op("dynamic_update_slice", x, b.slice(x, 0, 0, 2), i),
        b.op("pad", x, edge, low=(1,), high=(-1,), interior=(0,)),
    ]
    data = np.arange(5) - 3
    sliced, updated, padded = evaluate(b.region, [data, np.int32(2), np.int64(9)])
    assert sliced.view(np.int64).tolist() == [-1, 0]
    assert updated.view(np.int64).tolist() == [-3, -2, -3, -2, 1]
    assert padded.view(np.int64).tolist() == [9, -3, -2, -1, 0]


def test_gather_and_scatter_follow_lax() -> None:
    rows = np.array([[2], [0], [9]], np.int32)
    data = np.arange(12).reshape(4, 3)
    dims = ((1,), (0,), (0,), (), ())
    b = Builder(18)
    x, i, u = param(b, "int64", (4, 3)), param(b, "int32", (3, 1), "public"), param(b, "int64", (3, 3))
    for name, mode in (("gather", "clip"), ("gather", "fill")):
        b.region.results.append(b.op(name, x, i, dims=dims, sizes=(1, 3), mode=mode))
    for name in ("scatter", "scatter_add"):
        b.region.results.append(b.op(name, x, i, u, dims=dims, mode="fill"))
    clip, fill, put, added = (r.view(np.int64) for r in evaluate(b.region, [data, rows, -data[:3]]))
    assert clip.tolist() == data[[2, 0, 3]].tolist()
    assert fill.tolist() == [*data[[2, 0]].tolist(), [0, 0, 0]]
    want = data.copy()
    want[[2, 0]] = -data[:2]
    assert put.tolist() == want.tolist()
    want = data.copy()
    want[[2, 0]] -= data[:2]
    assert added.tolist() == want.tolist()


def loop_body(b: Builder) -> Region:
    """(k; c, x) -> c + k x, and c as the stacked result."""
    body = Region([Value(Type("int", (), "secret", 64, True)) for _ in range(3)])
    with b.inside(body):
        k, c, x = body.params
        body.results = [b.add(c, b.mul(k, x)), c]
    return body


@pytest.mark.parametrize("reverse", [False, True])
def test_loop(reverse: bool) -> None:
    b = Builder(18)
    k, c, xs = param(b, "int64"), param(b, "int64"), param(b, "int64", (4,))
    attrs = {"trips": 4, "carries": 1, "constants": 1, "reverse": reverse}
    b.region.results = b.ops("loop", [k, c, xs], [loop_body(b)], **attrs)
    data = np.array([1, 2, 3, 4])
    total, stacked = evaluate(b.region, [3, 100, data])

    def step(c: Any, x: Any) -> Any:
        return c + 3 * x, c

    want, want_stacked = lax.scan(step, 100, data, reverse=reverse)
    assert int(total) == int(want)
    assert stacked.tolist() == want_stacked.tolist()


def test_while_and_cond() -> None:
    b = Builder(18)
    x = param(b, "int64", (), "public")
    public = x.type
    condition, body = Region([Value(public)]), Region([Value(public)])
    with b.inside(condition):
        condition.results = [b.less(condition.params[0], b.const(100, "int64"))]
    with b.inside(body):
        body.results = [b.mul(body.params[0], b.const(3, "int64"))]
    (y,) = b.ops("while", [x], [condition, body], condition_constants=0, body_constants=0)
    branches = [Region([Value(public)]), Region([Value(public)])]
    for scale, branch in enumerate(branches):
        with b.inside(branch):
            branch.results = [b.mul(branch.params[0], b.const(scale + 1, "int64"))]
    b.region.results = [y, *b.ops("cond", [x, y], branches)]
    assert [int(v) for v in evaluate(b.region, [1])] == [243, 486]
    assert [int(v) for v in evaluate(b.region, [0 + 5])] == [135, 270]


def test_inputs_are_checked() -> None:
    b = Builder(18)
    b.region.results = [param(b, "int64", (2,))]
    for inputs in ([], [np.zeros(3, np.uint64)], [np.zeros(2)]):
        with pytest.raises(IRError):
            evaluate(b.region, inputs)


def test_every_operation_has_a_definition() -> None:
    from spuvm.compiler.ir import in_the_clear as module

    assert set(module.RULES) | set(module.CONTROL) == set(RULES) | set(CONTROL)
