"""Types, the operations' rules, and what the checker finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spuvm.compiler.ir import ops
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Location, Module, Op, Region, Type, Value, join, uses
from spuvm.runtime.errors import IRError

FXP = Type("fxp", (3,), frac=18)
INT = Type("int", (3,), bits=32, signed=True)
BOOL = Type("bool", (3,))


def test_types_read_as_text() -> None:
    assert str(FXP) == "fxp18[3] secret"
    assert str(INT.with_(visibility=1, shape=(2, 3))) == "int32[2,3] private(1)"
    assert str(Type("bool", (), "public")) == "bool[] public"


def test_join() -> None:
    assert join("public", "public") == "public"
    assert join("public", 1, 1) == 1
    assert join(0, 1) == "secret"
    assert join(0, "secret") == "secret"


def module(*built: Op, params: list[Value], results: list[Value]) -> Module:
    names = tuple(f"x{i}" for i in range(len(params)))
    outputs = tuple(f"y{i}" for i in range(len(results)))
    return Module("test", Region(params, list(built), results), names, outputs, ("f",) * len(params), ())


def test_a_good_module_passes() -> None:
    x, y = Value(FXP), Value(FXP)
    ops.check(module(Op("neg", [x], [y]), params=[x], results=[y]))


WRONG: dict[str, Callable[[Value, Value], tuple[Module, str]]] = {
    "undefined": lambda x, y: (module(Op("neg", [y], [x]), params=[], results=[]), "before it is defined"),
    "twice": lambda x, y: (module(Op("neg", [x], [x]), params=[x], results=[]), "defines a value twice"),
    "type": lambda x, y: (
        module(Op("convert", [x], [y], {"to": "int32"}), params=[x], results=[]),
        "should give",
    ),
    "result": lambda x, y: (module(params=[x], results=[y]), "not defined"),
    "name": lambda x, y: (module(Op("frobnicate", [x], [y]), params=[x], results=[]), "frobnicate"),
    "names": lambda x, y: (Module("m", Region([x], [], [])), "0 names for 1 values"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_checker_finds(name: str) -> None:
    wrong, message = WRONG[name](Value(FXP), Value(FXP))
    with pytest.raises(IRError, match=message):
        ops.check(wrong)


def test_errors_name_the_line() -> None:
    x = Value(FXP)
    op = Op("neg", [x], [Value(INT)], location=Location("train.py", 12))
    with pytest.raises(IRError, match=r"`neg` at train\.py:12"):
        ops.check(module(op, params=[x], results=[]))


ILL_TYPED: dict[str, tuple[str, list[Type], dict[str, Any]]] = {
    "add of two types": ("add", [FXP, INT], {}),
    "add of two shapes": ("add", [FXP, FXP.with_(shape=(4,))], {}),
    "add of bools": ("add", [BOOL, BOOL], {}),
    "mul with bool": ("mul", [FXP, BOOL], {}),
    "trunc of too many bits": ("trunc", [FXP], {"bits": 19}),
    "trunc of an integer": ("trunc", [INT], {"bits": 1}),
    "select on an integer": ("select", [INT, FXP, FXP], {}),
    "a secret index": ("dynamic_slice", [FXP, INT.with_(shape=())], {"sizes": (1,)}),
    "a slice out of bounds": ("slice", [FXP], {"start": (0,), "limit": (4,), "stride": (1,)}),
    "an unknown element": ("convert", [FXP], {"to": "float32"}),
}  # fmt: skip


@pytest.mark.parametrize("name", ILL_TYPED)
def test_ill_typed(name: str) -> None:
    op, types, attrs = ILL_TYPED[name]
    with pytest.raises(IRError):
        Builder(18).op(op, *map(Value, types), **attrs)


def test_visibility_of_results() -> None:
    b = Builder(18)
    public, private = Value(FXP.with_(visibility="public")), Value(FXP.with_(visibility=1))
    assert b.add(public, private).type.visibility == 1
    assert b.op("reveal", private, to="public").type.is_public
    assert b.op("share", public, to="secret").type.is_secret


def test_uses_and_walk() -> None:
    x, y, z = Value(FXP), Value(FXP), Value(FXP)
    first, second = Op("neg", [x], [y]), Op("add", [x, y], [z])
    region = Region([x], [first, second], [z])
    assert uses(region) == {x: [first, second], y: [second], z: [None]}
    assert list(region.walk()) == [first, second]


def test_an_operation_that_was_right_is_checked_again_when_changed() -> None:
    b = Builder(18)
    x = Value(Type("fxp", (3,), frac=18))
    with b.inside(Region([x])) as region:
        y = b.neg(x)
        z = b.reshape(y, (3, 1))
    region.results = [z]
    module = Module("f", region, ("x",), ("out",))
    ops.check(module)
    region.ops[1].attrs = {"shape": (1, 3)}
    with pytest.raises(IRError, match="should give"):
        ops.check(module)
