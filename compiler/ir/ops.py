"""Every operation of the MPC IR: its type rule, and the checker that applies them all.

A rule takes the input types and the attributes and returns the output types, or raises IRError.
Values are ring elements; `frac` says where the binary point stands. `expand` gives the meaning
per protocol, `evaluate` the plain one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import is_
from typing import Any

import jax
import numpy as np
from jax import lax

from spuvm.compiler.ir.elementary import ELEMENTARY, EXACT
from spuvm.compiler.ir.module import Module, Op, Region, Type, Value, join
from spuvm.runtime.errors import IRError
from spuvm.runtime.ring.exponential import FRACTION

Attrs = dict[str, Any]
TypeRule = Callable[[list[Type], Attrs], list[Type]]


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise IRError(message)


def _same_shape(types: list[Type]) -> tuple[int, ...]:
    _need(len({t.shape for t in types}) == 1, f"operands differ in shape: {[str(t) for t in types]}")
    return types[0].shape


def _who(types: list[Type]) -> int | str:
    return join(*(t.visibility for t in types))


def _linear(types: list[Type], attrs: Attrs) -> list[Type]:
    _same_shape(types)
    _need(len({t.element for t in types}) == 1, f"operands differ in type: {[str(t) for t in types]}")
    _need(types[0].kind != "bool", "arithmetic on bool: convert it first")
    return [types[0].with_(visibility=_who(types))]


def _product(types: list[Type], shape: tuple[int, ...]) -> Type:
    x, y = types
    _need("bool" not in (x.kind, y.kind), "product with bool: convert it first")
    if "fxp" in (x.kind, y.kind):
        return Type("fxp", shape, _who(types), frac=x.frac + y.frac)
    _need(x.element == y.element, f"operands differ in type: {x} and {y}")
    return x.with_(shape=shape, visibility=_who(types))


def _mul(types: list[Type], attrs: Attrs) -> list[Type]:
    return [_product(types, _same_shape(types))]


def _dot(types: list[Type], attrs: Attrs) -> list[Type]:
    (xc, yc), (xb, yb) = attrs["dims"]
    x, y = types
    for a, b in [*zip(xc, yc), *zip(xb, yb)]:
        _need(x.shape[a] == y.shape[b], f"dot of {x} and {y}: dimensions {a} and {b} differ")
    batch = [x.shape[d] for d in xb]
    rest = [d for i, d in enumerate(x.shape) if i not in (*xc, *xb)]
    rest += [d for i, d in enumerate(y.shape) if i not in (*yc, *yb)]
    return [_product(types, tuple(batch + rest))]


def _trunc(types: list[Type], attrs: Attrs) -> list[Type]:
    (x,) = types
    _need(x.kind == "fxp" and 0 < attrs["bits"] <= x.frac, f"trunc by {attrs['bits']} of {x}")
    return [x.with_(frac=x.frac - attrs["bits"])]


def _retype(types: list[Type], attrs: Attrs) -> list[Type]:
    return [parse_element(attrs["to"]).with_(shape=types[0].shape, visibility=types[0].visibility)]


def _exp2(types: list[Type], attrs: Attrs) -> list[Type]:
    _same_shape(types)
    _need(types[0].element == f"fxp{FRACTION}", f"exp2 of {types[0]}: it takes {FRACTION} fraction bits")
    _need(all(t.kind == "bool" for t in types[1:]), "what selects powers of two is bool")
    return [parse_element(attrs["to"]).with_(shape=types[0].shape, visibility=_who(types))]


def _harmonics(types: list[Type], attrs: Attrs) -> list[Type]:
    _need(types[0].kind == "fxp", f"harmonics of {types[0]}")
    return _retype(types, attrs)


def _scaled(types: list[Type], attrs: Attrs) -> list[Type]:
    _same_shape(types)
    _need(types[1].element == f"fxp{FRACTION}", f"2^y of {types[1]}: it takes {FRACTION} fraction bits")
    return [parse_element(attrs["to"]).with_(shape=types[0].shape, visibility=_who(types))]


def _of_word(types: list[Type], attrs: Attrs) -> list[Type]:
    _need(types[0].element == "int64", f"a word of one bit in {types[0]}")
    return _retype(types, attrs)


def _to_bool(types: list[Type], attrs: Attrs) -> list[Type]:
    _linear(types, attrs)
    return [Type("bool", types[0].shape, _who(types))]


def _bitwise(types: list[Type], attrs: Attrs) -> list[Type]:
    _same_shape(types)
    _need(len({t.element for t in types}) == 1, f"operands differ in type: {[str(t) for t in types]}")
    return [types[0].with_(visibility=_who(types))]


def _shift(types: list[Type], attrs: Attrs) -> list[Type]:
    _need(types[0].kind != "bool" and attrs["bits"] >= 0, f"shift of {types[0]} by {attrs['bits']}")
    return [types[0]]


def _select(types: list[Type], attrs: Attrs) -> list[Type]:
    c, x, y = types
    _same_shape(types)
    _need(c.kind == "bool" and x.element == y.element, f"select of {c}, {x}, {y}")
    return [x.with_(visibility=_who(types))]


def _hashable(x: Any) -> Any:
    if isinstance(x, dict):
        return tuple((k, _hashable(v)) for k, v in x.items())
    return tuple(map(_hashable, x)) if isinstance(x, list | tuple) else x


def _like_lax(function: Callable[..., Any]) -> TypeRule:
    """The shape that a JAX function gives, on operands of any type that keep their element."""

    @cache  # tracing is slow, programs repeat themselves, and the checker asks again after each pass
    def shape(shapes: tuple[tuple[int, ...], ...], attrs: tuple[tuple[str, Any], ...]) -> tuple[int, ...]:
        arrays = [jax.ShapeDtypeStruct(s, np.int32) for s in shapes]
        return tuple(jax.eval_shape(lambda *xs: function(*xs, **dict(attrs)), *arrays).shape)

    def rule(types: list[Type], attrs: Attrs) -> list[Type]:
        try:
            out = shape(tuple(t.shape for t in types), _hashable(attrs))
        except (TypeError, ValueError, IndexError) as e:
            raise IRError(f"{[str(t) for t in types]} with {attrs}: {e}") from None
        return [types[0].with_(shape=out, visibility=_who(types))]

    return rule


def _visible(types: list[Type], attrs: Attrs) -> list[Type]:
    return [types[0].with_(visibility=attrs["to"])]


def _random(types: list[Type], attrs: Attrs) -> list[Type]:
    _need(attrs["to"] in ("bool", "uint64"), f"random values of type {attrs['to']}")
    return [parse_element(attrs["to"]).with_(shape=tuple(attrs["shape"]))]


def _wrap(types: list[Type], attrs: Attrs) -> list[Type]:
    _need(types[0].kind == "int", f"wrap of {types[0]}")
    return [types[0]]


def _guarded(types: list[Type], attrs: Attrs) -> list[Type]:
    _need(
        types[0] == Type("bool", (), "public") and len(types) > 1, f"guarded takes a public bool first, got {types[0]}"
    )
    return types[1:]


def _mask(types: list[Type], attrs: Attrs) -> list[Type]:
    _need(isinstance(types[0].visibility, int), f"mask of {types[0]}: only a private value can be masked")
    return [types[0].with_(masked=True)]


def _integer_division(types: list[Type], attrs: Attrs) -> list[Type]:
    _linear(types, attrs)
    _need(_who(types) != "secret", "integer division of secret values has no single operation")
    return [types[0].with_(visibility=_who(types))]


def _elementary(types: list[Type], attrs: Attrs) -> list[Type]:
    _same_shape(types)
    _need(all(t.kind == "fxp" for t in types), f"an elementary function of {[str(t) for t in types]}")
    return [parse_element(attrs["to"]).with_(shape=types[0].shape, visibility=_who(types))]


def _bit(types: list[Type], attrs: Attrs) -> list[Type]:
    _need(types[0].kind != "bool", "bit of bool")
    return [Type("bool", types[0].shape, types[0].visibility)]


def _sort(types: list[Type], attrs: Attrs) -> list[Type]:
    words, rest = types[: len(attrs["widths"])], types[len(attrs["widths"]) :]
    _need(bool(words) and len(_same_shape(types)) == 2, "sort takes words, then operands, of shape [rows, n]")
    _need(all(0 < width <= 64 for width in attrs["widths"]), f"sort by words of {attrs['widths']} bits")
    bools = [width for w, width in zip(words, attrs["widths"]) if w.kind == "bool"]
    _need(all(width == 1 for width in bools), f"sort by bools of {bools} bits")
    who = _who(words)
    return [t.with_(visibility=join(who, t.visibility)) for t in rest]


def _const(types: list[Type], attrs: Attrs) -> list[Type]:
    return [parse_element(attrs["to"]).with_(shape=tuple(attrs["data"].shape), visibility="public")]


# Local rearrangements: the same function on every component of a sharing.


def _padded(x: Any, value: Any, *, low: Any, high: Any, interior: Any) -> Any:
    return lax.pad(x, value, list(zip(low, high, interior)))


def gather(x: Any, indices: Any, *, dims: Any, sizes: Any, mode: str) -> Any:
    offset, collapsed, start, xb, ib = dims
    numbers = lax.GatherDimensionNumbers(
        offset_dims=tuple(offset),
        collapsed_slice_dims=tuple(collapsed),
        start_index_map=tuple(start),
        operand_batching_dims=tuple(xb),
        start_indices_batching_dims=tuple(ib),
    )
    return lax.gather(x, indices, numbers, tuple(sizes), mode=lax.GatherScatterMode.from_any(mode), fill_value=0)


def _scatter_numbers(dims: Any) -> lax.ScatterDimensionNumbers:
    window, inserted, to, xb, ib = dims
    return lax.ScatterDimensionNumbers(
        update_window_dims=tuple(window),
        inserted_window_dims=tuple(inserted),
        scatter_dims_to_operand_dims=tuple(to),
        operand_batching_dims=tuple(xb),
        scatter_indices_batching_dims=tuple(ib),
    )


def scatter_add(x: Any, indices: Any, updates: Any, *, dims: Any, mode: str) -> Any:
    return lax.scatter_add(x, indices, updates, _scatter_numbers(dims), mode=lax.GatherScatterMode.from_any(mode))


def scatter(x: Any, indices: Any, updates: Any, *, dims: Any, mode: str) -> Any:
    return lax.scatter(x, indices, updates, _scatter_numbers(dims), mode=lax.GatherScatterMode.from_any(mode))


def dynamic_slice(x: Any, *starts: Any, sizes: Any) -> Any:
    """As the primitive has it: a negative start is clipped, it does not count from the end."""
    return lax.dynamic_slice(x, starts, tuple(sizes), allow_negative_indices=False)


def dynamic_update_slice(x: Any, update: Any, *starts: Any) -> Any:
    return lax.dynamic_update_slice(x, update, starts, allow_negative_indices=False)


# name -> (function of the arrays, positions of public index operands counted from this one on)
LOCAL: dict[str, Callable[..., Any]] = {
    "reshape": lambda x, *, shape: lax.reshape(x, tuple(shape)),
    "transpose": lambda x, *, perm: lax.transpose(x, tuple(perm)),
    "broadcast": lambda x, *, shape, dims: lax.broadcast_in_dim(x, tuple(shape), tuple(dims)),
    "slice": lambda x, *, start, limit, stride: lax.slice(x, tuple(start), tuple(limit), tuple(stride)),
    "rev": lambda x, *, axes: lax.rev(x, tuple(axes)),
    "concatenate": lambda *xs, axis: lax.concatenate(xs, axis),
    "pad": _padded,
    "sum": lambda x, *, axes: lax.reduce(x, np.zeros((), x.dtype), lax.add, tuple(axes)),
    "cumsum": lambda x, *, axis, reverse: lax.cumsum(x, axis, reverse),
    "gather": gather,
    "scatter": scatter,
    "scatter_add": scatter_add,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
}
INDEX_OPERANDS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "gather": lambda n: (1,),
    "scatter": lambda n: (1,),
    "scatter_add": lambda n: (1,),
    "dynamic_slice": lambda n: tuple(range(1, n)),
    "dynamic_update_slice": lambda n: tuple(range(2, n)),
}


def index_operands(name: str, count: int) -> tuple[int, ...]:
    """Which of the operands of a rearrangement are public indices."""
    return INDEX_OPERANDS[name](count) if name in INDEX_OPERANDS else ()


RULES: dict[str, TypeRule] = {
    "const": _const,  # {data: raw ring elements, to: element type}
    "random": _random,  # {shape, to, number}: uniform, secret; another value whenever it is executed
    "add": _linear,
    "sub": _linear,
    "neg": _linear,
    "mul": _mul,  # fraction bits add up; `trunc` brings them back
    "dot": _dot,  # {dims}: dimension numbers as in lax.dot_general
    "trunc": _trunc,  # {bits}: drop fraction bits, within one unit
    "convert": _retype,  # {to}: the same number in another type, exact where it fits
    "bitcast": _retype,  # {to}: the same ring element read as another type
    # {factors, tops, to}: of y and bools, 2^y sum f_k b_k + 2^32 sum c_k b_k as an integer, read as `to`; -1 <= y < 62,
    # with 57 fraction bits, modulo 128
    "exp2": _exp2,
    # {weights: a_m and b_m with 40 fraction bits, step, to}: sum a_m sin(m x) + b_m cos(m x), m = 1, 1 + step, ..., of
    # x in turns, 2^64 raw; |sum| < 2, or any sum with 57 fraction bits
    "harmonics": _harmonics,
    "scaled": _scaled,  # {to}: x 2^y, raw; |x 2^y| < 2^62, -23 <= y, with 57 fraction bits, modulo 128
    "power": _of_word,  # {to}: 2^(62 - p) of a word whose one bit below 63 is p, negative if it has bit 63
    "position": _of_word,  # {to}: p of such a word, with 56 fraction bits, modulo 256
    "less": _to_bool,
    "equal": _to_bool,
    "and": _bitwise,
    "or": _bitwise,
    "xor": _bitwise,
    "not": _bitwise,
    "shift_left": _shift,  # {bits}
    "shift_right_logical": _shift,  # {bits}, in the integer's own width; fixed point: in the ring's
    "shift_right_arithmetic": _shift,  # {bits}, exact (floor)
    "prefix_or": _shift,  # {bits: 0}: bit i of the result is the or of bits i and above
    "bit_parity": _bit,  # {mask}: the parity of the bits under the mask
    "wrap": _wrap,  # the integer of its type that is the same modulo 2^bits
    "select": _select,  # (c, x, y): x where c, else y
    # {widths, wanted}: words (as many as widths: two of one place differ by less than 2^(width - 1)), then
    # operands, of shape [rows, n] -> the operands, each row in the order of the words, all of which are never
    # equal; `wanted`: half-open ranges of the positions that matter, others hold other elements; (): all. With
    # {places}: the word is where each goes
    "sort": _sort,
    "integer_division": _integer_division,  # floor, of values that somebody knows
    **dict.fromkeys(ELEMENTARY, _elementary),  # {to, ...}: see ir/elementary.py
    **dict.fromkeys(EXACT, _linear),  # {to}: the type of the operands
    "reveal": _visible,  # {to}: "public" or the rank of a party
    "share": _visible,  # {to}: "secret"
    "guarded": _guarded,  # (bit, x, ...): x, ..., as they are; an error at every party if the bit is set
    "mask": _mask,  # send the masked value of a party to the others: products with secrets are cheap then
    **{name: _like_lax(function) for name, function in LOCAL.items()},
}


KEEP_MASKED = frozenset({"mask", "reshape", "transpose", "slice", "rev", "broadcast"})


def parse_element(text: str) -> Type:
    """`bool`, `int32`, `uint8`, `fxp18` as a scalar secret Type."""
    if text == "bool":
        return Type("bool")
    prefix = text.rstrip("0123456789")
    number = int(text[len(prefix) :] or -1)
    if number >= 0 and prefix == "fxp":
        return Type("fxp", frac=number)
    if number >= 0 and prefix in ("int", "uint"):
        return Type("int", bits=number, signed=prefix == "int")
    raise IRError(f"unknown element type `{text}`")


def _types(values: list[Value]) -> list[Type]:
    return [v.type for v in values]


def _seen(values: list[Value]) -> list[Type]:
    """The types as regions see them: whether a value is masked is not theirs to know."""
    return _unmasked(_types(values))


def infer(op: Op) -> list[Type]:
    """The output types that the rule of `op` gives."""
    if op.name in CONTROL:
        return _unmasked(CONTROL[op.name](op))
    if op.name not in RULES:
        raise IRError(f"unknown operation `{op.name}`")
    for position in index_operands(op.name, len(op.inputs)):
        _need(op.inputs[position].type.is_public, f"`{op.name}` needs public indices")
    types = RULES[op.name](_types(op.inputs), op.attrs)
    return types if op.name in KEEP_MASKED else _unmasked(types)


def _unmasked(types: list[Type]) -> list[Type]:
    return [t.with_(masked=False) if t.masked else t for t in types]


def _cond(op: Op) -> list[Type]:
    index, *operands = op.inputs
    _need(index.type.is_public and index.type.shape == (), f"cond needs a public scalar, got {index.type}")
    outs = [_seen(r.results) for r in op.regions]
    _need(all(_seen(r.params) == _seen(operands) for r in op.regions), "cond: a branch's parameters differ")
    _need(all(o == outs[0] for o in outs), "cond: the branches' results differ")
    return outs[0]


def _loop(op: Op) -> list[Type]:
    """{trips, carries, constants, reverse}: inputs are constants, carries, then stacked xs."""
    (body,) = op.regions
    n, c, k = op.attrs["trips"], op.attrs["carries"], op.attrs["constants"]
    fixed, xs = op.inputs[: k + c], op.inputs[k + c :]
    want = _seen(fixed) + [t.with_(shape=t.shape[1:]) for t in _seen(xs)]
    _need(_seen(body.params) == want, "loop: the body's parameters differ from its operands")
    _need(all(x.type.shape[:1] == (n,) for x in xs), "loop: an operand is not stacked over the trips")
    _need(_seen(body.results[:c]) == _seen(fixed[k:]), "loop: a carried value changes its type")
    stacked = [t.with_(shape=(n, *t.shape)) for t in _seen(body.results[c:])]
    return _seen(body.results[:c]) + stacked


def _while(op: Op) -> list[Type]:
    """{condition_constants, body_constants}: regions (condition, body); a public condition."""
    condition, body = op.regions
    a, b = op.attrs["condition_constants"], op.attrs["body_constants"]
    first, second, carry = op.inputs[:a], op.inputs[a : a + b], op.inputs[a + b :]
    _need(_seen(condition.params) == _seen(first + carry), "while: the condition's parameters differ")
    _need(_seen(body.params) == _seen(second + carry), "while: the body's parameters differ")
    _need(_seen(body.results) == _seen(carry), "while: a carried value changes its type")
    (c,) = condition.results
    _need(c.type == Type("bool", (), "public"), f"while needs a public scalar condition, got {c.type}")
    return _seen(carry)


CONTROL: dict[str, Callable[[Op], list[Type]]] = {"cond": _cond, "loop": _loop, "while": _while}


def check(module: Module) -> None:
    """Raise IRError unless every value is defined once, before its use, with the type of its rule."""
    _check_region(module.body)
    for names, values in ((module.inputs, module.body.params), (module.outputs, module.body.results)):
        _need(len(names) == len(values), f"{len(names)} names for {len(values)} values")


def with_results(op: Op) -> Op:
    """Give an operation the results that its rule infers."""
    op.outputs = [Value(t) for t in infer(op)]
    op.checked = _what_counts(op)
    return op


def _what_counts(op: Op) -> tuple[Any, ...]:
    """All that the rule of an operation without regions depends on: objects that are replaced, never changed."""
    return op.name, op.attrs, *(v.type for v in op.inputs), None, *(v.type for v in op.outputs)


def _check_types(op: Op) -> None:
    """Hold the results against the rule, unless nothing of the operation has been replaced since it was last done."""
    what = _what_counts(op)
    if not op.regions and len(what) == len(op.checked) and all(map(is_, what, op.checked)):
        return
    try:
        expected = infer(op)
    except IRError as e:
        raise IRError(f"`{op.name}` at {op.location}: {e}") from None
    _need(expected == _types(op.outputs), f"`{op.name}` at {op.location} should give {expected}")
    op.checked = what


def _check_region(region: Region) -> None:
    defined = set(region.params)
    for op in region.ops:
        for value in op.inputs:
            _need(value in defined, f"`{op.name}` at {op.location} uses a value before it is defined")
        for inner in op.regions:
            _check_region(inner)
        _check_types(op)
        for value in op.outputs:
            _need(value not in defined, f"`{op.name}` at {op.location} defines a value twice")
            defined.add(value)
    _need(all(v in defined for v in region.results), "a region's result is not defined")
