"""How each IR operation becomes kernel calls: one rule an operation.

Every rule reads its operands in the share kind that suits it and sets its output. The patterns:
known operands are computed where they are known; linear operations work on each component;
products are left unreshared (kind `d`) when only linear operations and truncations follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jax import lax

from spuvm.compiler import choreography as ch
from spuvm.compiler.expand import Components, Expander, Shared
from spuvm.compiler.ir import Op, Region, Type, Value, uses
from spuvm.compiler.ops import LOCAL, index_operands, parse_element
from spuvm.runtime import bits as bt
from spuvm.runtime import plain, ring

Rule = Callable[[Expander, Op], None]

# Functions of components; each name is one kernel for all programs. --------------------------------


def _each(function: Callable[..., Any]) -> Callable[..., Components]:
    """The same function on the i-th components of all operands."""

    def run(*sharings: Components, **params: Any) -> Components:
        return tuple(function(*components, **params) for components in zip(*sharings))

    return run


def _first(function: Callable[..., Any]) -> Callable[..., Components]:
    """A public operand joins the first component alone."""

    def run(x: Components, y: Components) -> Components:
        return (function(x[0], y[0]), *x[1:])

    return run


def _scaled(function: Callable[..., Any]) -> Callable[..., Components]:
    """A public operand applies to every component."""

    def run(x: Components, y: Components, **params: Any) -> Components:
        return tuple(function(c, y[0], **params) for c in x)

    return run


_add, _sub = _each(lambda a, b: a + b), _each(lambda a, b: a - b)
_neg = _each(lambda a: -a)
_add_first, _sub_first = _first(lambda a, b: a + b), _first(lambda a, b: a - b)
_mul_each, _mul_public = _each(lambda a, b: a * b), _scaled(lambda a, b: a * b)
_dot_each = _each(lambda a, b, *, dims: ring.dot_general(a, b, dims))
_dot_public = _scaled(lambda a, b, *, dims: ring.dot_general(a, b, dims))
_dot_public_left = _scaled(lambda a, b, *, dims: ring.dot_general(b, a, dims))
_xor_each, _xor_first = _each(lambda a, b: a ^ b), _first(lambda a, b: a ^ b)
_and_each, _and_public = _each(lambda a, b: a & b), _scaled(lambda a, b: a & b)
_or_each = _each(lambda a, b: a | b)
_shift_left = _each(lambda a, *, bits: bt.shift_left(a, bits))
_shift_right = _each(lambda a, *, bits: bt.shift_right(a, bits))
_shift_arithmetic = _each(plain.shift_right_arithmetic)
_mask = _each(lambda a, *, value: a & bt.constant(a, value))
_parity = _each(lambda a, *, mask: bt.parity(a, mask))
_wrap = _each(plain.wrap)
_xor_value = _first(lambda a, b: a ^ b)
_pick = _each(lambda c, a, b: plain.select(c, a, b))
_plain_less = _each(plain.less)
_plain_equal = _each(plain.equal)
_plain_truncate = _each(plain.truncate)
_plain_toward_zero = _each(plain.toward_zero)
_plain_division = _each(plain.integer_division)
_plain_prefix_or = _each(plain.prefix_or)
_nonzero = _each(lambda a: (a != bt.constant(a, 0)).astype(np.uint8))


def _pick_public(c: Components, x: Components, y: Components) -> Components:
    return tuple(plain.select(c[0], a, b) for a, b in zip(x, y))


# Helpers ---------------------------------------------------------------------------------------------


def known(ex: Expander, op: Op) -> list[Shared] | None:
    """The operands if one place knows them all, else None."""
    xs = [ex.primary(v) for v in op.inputs]
    if not all(x.known for x in xs) or len({x.owner for x in xs if x.kind == "v"}) > 1:
        return None
    return xs


def known_kind(xs: list[Shared]) -> str:
    return "v" if any(x.kind == "v" for x in xs) else "p"


def compute_known(
    ex: Expander,
    name: str,
    function: Callable[..., Components],
    xs: list[Shared],
    *,
    dtype: str = "uint64",
    **params: Any,
) -> Shared:
    return ex.local("plain_" + name, function, *xs, kind=known_kind(xs), dtype=dtype, **params)


def add(ex: Expander, x: Shared, y: Shared) -> Shared:
    """Sum of any two of p, a, d."""
    if x.kind == "p" and y.kind != "p":
        x, y = y, x
    if y.kind == "p" and x.kind != "p":
        return ex.local("add_p", _add_first, x, y, kind=x.kind)
    return ex.local("add", _add, x, y, kind="d" if "d" in x.kind + y.kind else x.kind)


def neg(ex: Expander, x: Shared) -> Shared:
    return ex.local("neg", _neg, x, kind=x.kind)


def sub(ex: Expander, x: Shared, y: Shared) -> Shared:
    if y.kind == "p" and x.kind != "p":
        return ex.local("sub_p", _sub_first, x, y, kind=x.kind)
    if x.kind == "p" and y.kind != "p":
        return add(ex, neg(ex, y), x)
    return ex.local("sub", _sub, x, y, kind="d" if "d" in x.kind + y.kind else x.kind)


def mul(ex: Expander, x: Shared, y: Shared) -> Shared:
    """Ring product of any two of p, a."""
    if x.kind == "p":
        x, y = y, x
    if x.kind == "p":
        return compute_known(ex, "mul", _mul_each, [x, y])
    if y.kind == "p":
        return ex.local("mul_p", _mul_public, x, y, kind=x.kind)
    return ex.kernel("mul_aa", x, y)


def xor(ex: Expander, x: Shared, y: Shared) -> Shared:
    if x.kind == "p":
        x, y = y, x
    if y.kind == "p" and x.kind != "p":
        return ex.local("xor_p", _xor_first, x, y, kind="b", dtype=x.dtype)
    return ex.local("xor", _xor_each, x, y, kind=x.kind, dtype=x.dtype)


def and_(ex: Expander, x: Shared, y: Shared) -> Shared:
    if x.kind == "p":
        x, y = y, x
    if x.kind == "p":
        return ex.local("plain_and", _and_each, x, y, kind="p", dtype=x.dtype)
    if y.kind == "p":
        return ex.local("and_p", _and_public, x, y, kind="b", dtype=x.dtype)
    return ex.kernel("and_bb", x, y, bits=1 if x.dtype == "uint8" else 64, dtype=x.dtype)


def invert(ex: Expander, x: Shared) -> Shared:
    """The negation of a bool."""
    return xor(ex, x, ex.constant(np.ones((), np.uint8), "uint8"))


def sign_bit(ex: Expander, x: Shared) -> Shared:
    """The most significant bit of p or a, as a bool."""
    if x.kind == "p":
        return compute_known(ex, "top_bit", _parity, [x], dtype="uint8", mask=plain.SIGN)
    return ex.kernel("msb_a", x, dtype="uint8")


def blend(ex: Expander, c: Shared, x: Shared, y: Shared) -> Shared:
    """y + c (x - y), with c the ring elements 0 and 1."""
    return add(ex, y, mul(ex, c, sub(ex, x, y)))


def trunc(ex: Expander, x: Shared, bits: int) -> Shared:
    return ex.kernel("trunc_d" if x.kind == "d" else "trunc_a", x, bits=bits)


# Linear operations and products -------------------------------------------------------------------------


def _linear(name: str, plain_function: Callable[..., Components], rule: Callable[..., Shared]) -> Rule:
    def run(ex: Expander, op: Op) -> None:
        if xs := known(ex, op):
            return ex.set(op.output, compute_known(ex, name, plain_function, xs))
        xs = [ex.summand(v) for v in op.inputs]
        if {"a", "d"} <= {x.kind for x in xs} and op.output not in ex.truncated:
            # Resharing the product now does not make it wait for the other operand's rounds.
            xs = [ex.as_kind(v, "a") if x.kind == "d" else x for v, x in zip(op.inputs, xs)]
        ex.set(op.output, rule(ex, *xs))

    return run


LINEAR = {"add", "sub", "neg", "sum", "cumsum", "reshape", "transpose", "slice", "rev", "bitcast"}


def leading_to_trunc(region: Region, users: dict[Value, list[Op | None]]) -> set[Value]:
    """Values between which and truncations only linear operations stand: products there need no reshare."""
    out: set[Value] = set()
    for op in reversed(region.ops):
        for value in op.outputs:
            readers = users.get(value, [])
            if readers and all(
                u is not None and (u.name == "trunc" or (u.name in LINEAR and u.output in out)) for u in readers
            ):
                out.add(value)
    return out


def _only_linear_uses(ex: Expander, value: Value) -> bool:
    users = ex.users.get(value, [])
    return bool(users) and all(user is not None and user.name in {*LINEAR, "trunc"} for user in users)


def _expand_mul(ex: Expander, op: Op) -> None:
    if xs := known(ex, op):
        return ex.set(op.output, compute_known(ex, "mul", _mul_each, xs))
    x, y = (ex.arithmetic(v) for v in op.inputs)
    if "p" in x.kind + y.kind:
        return ex.set(op.output, mul(ex, x, y))
    users = ex.users.get(op.output, [])
    if len(users) == 1 and users[0] is not None and users[0].name == "trunc":
        ex.products[op.output] = (x, y)
    elif _only_linear_uses(ex, op.output):
        ex.set(op.output, ex.kernel("product_aa", x, y))
    else:
        ex.set(op.output, ex.kernel("mul_aa", x, y))


def _expand_dot(ex: Expander, op: Op) -> None:
    x, y = op.inputs
    dims = tuple(tuple(tuple(int(i) for i in d) for d in pair) for pair in op.attrs["dims"])
    shape = op.output.shape

    def at(value: Value, shared: Shared) -> Shared:
        return ex.whole(shared, value.shape)

    if xs := known(ex, op):
        xs = [at(v, s) for v, s in zip(op.inputs, xs)]
        out = ex.local("plain_dot", _dot_each, *xs, kind=known_kind(xs), shape=shape, elementwise=False, dims=dims)
        return ex.set(op.output, out)
    a, b = at(x, ex.arithmetic(x)), at(y, ex.arithmetic(y))
    if b.kind == "p":
        out = ex.local("dot_p", _dot_public, a, b, kind="a", shape=shape, elementwise=False, dims=dims)
    elif a.kind == "p":
        out = ex.local("p_dot", _dot_public_left, b, a, kind="a", shape=shape, elementwise=False, dims=dims)
    else:
        out = ex.kernel("dot_aa", a, b, shape=shape, dims=dims)
    ex.set(op.output, out)


def _expand_trunc(ex: Expander, op: Op) -> None:
    bits = op.attrs["bits"]
    (value,) = op.inputs
    if value in ex.products:
        x, y = ex.products.pop(value)
        return ex.set(op.output, ex.kernel("mul_trunc_aa", x, y, bits=bits))
    x = ex.primary(value)
    if x.known:
        return ex.set(op.output, compute_known(ex, "truncate", _plain_truncate, [x], bits=bits))
    ex.set(op.output, trunc(ex, ex.summand(value), bits))


# Conversions -----------------------------------------------------------------------------------------------


def _shifted(ex: Expander, x: Shared, bits: int) -> Shared:
    return ex.local("shift_left", _shift_left, x, kind=x.kind, bits=bits) if bits else x


def _expand_convert(ex: Expander, op: Op) -> None:
    (value,) = op.inputs
    source, target = value.type, parse_element(op.attrs["to"])
    x = ex.primary(value)
    if target.kind == "bool":
        out = x if source.kind == "bool" else _nonzero_bool(ex, value)
    elif source.kind == "bool":
        word = ex.widened(x) if x.known else ex.as_kind(value, "a")
        out = _shifted(ex, word, target.frac)
    elif target.kind == "fxp":
        out = _change_fraction(ex, ex.summand(value) if not x.known else x, target.frac - source.frac)
    elif source.kind == "fxp":
        out = _wrapped(ex, _toward_zero(ex, value, source.frac), target)
    elif _holds(target, source):
        out = x if x.kind != "d" else ex.as_kind(value, "a")
    else:
        out = _wrapped(ex, ex.boolean(value) if not x.known else x, target)
    ex.set(op.output, out)


def _holds(target: Type, source: Type) -> bool:
    """Whether every canonical integer of type `source` is one of type `target` as it stands."""
    if target.bits == 64 or target.signed == source.signed:
        return target.bits >= source.bits
    return target.signed and target.bits > source.bits


def _nonzero_bool(ex: Expander, value: Value) -> Shared:
    x = ex.primary(value)
    if x.known:
        return compute_known(ex, "nonzero", _nonzero, [x], dtype="uint8")
    return invert(ex, ex.kernel("eqz_a", ex.as_kind(value, "a"), dtype="uint8"))


def _change_fraction(ex: Expander, x: Shared, bits: int) -> Shared:
    if bits >= 0:
        return _shifted(ex, x, bits)
    return compute_known(ex, "truncate", _plain_truncate, [x], bits=-bits) if x.known else trunc(ex, x, -bits)


def _toward_zero(ex: Expander, value: Value, bits: int) -> Shared:
    """Fixed point to integer, exactly: truncate |x|, step back where that was one too many, put the sign on."""
    x = ex.primary(value)
    if x.known:
        return compute_known(ex, "toward_zero", _plain_toward_zero, [x], bits=bits)
    if not bits:
        return ex.as_kind(value, "a")
    x = ex.as_kind(value, "a")
    negative = ex.kernel("bit2a", ex.kernel("msb_a", x, dtype="uint8"))
    sign = add(ex, neg(ex, _shifted(ex, negative, 1)), ex.constant(np.ones((), np.uint64)))
    magnitude = mul(ex, sign, x)
    quotient = trunc(ex, magnitude, bits)
    rest = sub(ex, magnitude, _shifted(ex, quotient, bits))
    too_many = ex.kernel("bit2a", ex.kernel("msb_a", rest, dtype="uint8"))
    return mul(ex, sign, sub(ex, quotient, too_many))


def _wrapped(ex: Expander, x: Shared, target: Type) -> Shared:
    """The canonical form modulo the target's width. Boolean sharings only; others must fit."""
    if target.bits == 64 or x.kind not in "pvb":
        return x
    return ex.local("wrap", _wrap, x, kind=x.kind, bits=target.bits, signed=target.signed)


def _expand_bitcast(ex: Expander, op: Op) -> None:
    ex.values[op.output] = dict(ex.values[op.inputs[0]])


# Comparison and logic ----------------------------------------------------------------------------------------


def _expand_less(ex: Expander, op: Op) -> None:
    type_ = op.inputs[0].type
    unsigned_word = type_.kind == "int" and type_.bits == 64 and not type_.signed
    if xs := known(ex, op):
        out = compute_known(ex, "less", _plain_less, xs, dtype="uint8", signed=not unsigned_word)
        return ex.set(op.output, out)
    x, y = (ex.arithmetic(v) for v in op.inputs)
    if type_.kind == "int" and type_.bits == 64:
        return ex.set(op.output, _less_word(ex, x, y, unsigned_word))
    ex.set(op.output, ex.kernel("msb_a", sub(ex, x, y), dtype="uint8"))


def _less_word(ex: Expander, x: Shared, y: Shared, unsigned: bool) -> Shared:
    """x < y for all 64-bit integers: the sign of x - y, unless the signs differ (it may overflow)."""
    sx, sy, sd = (sign_bit(ex, v) for v in (x, y, sub(ex, x, y)))
    side = invert(ex, sx) if unsigned else sx  # the smaller has this bit when the signs differ
    return xor(ex, sd, and_(ex, xor(ex, sx, sy), xor(ex, side, sd)))


def _expand_equal(ex: Expander, op: Op) -> None:
    if xs := known(ex, op):
        return ex.set(op.output, compute_known(ex, "equal", _plain_equal, xs, dtype="uint8"))
    x, y = (ex.summand(v) for v in op.inputs)
    difference = sub(ex, x, y)
    ex.set(op.output, ex.kernel("eqz_a", ex.converted(difference, "a"), dtype="uint8"))


def _logical(name: str, plain_function: Callable[..., Components], rule: Callable[..., Shared]) -> Rule:
    def run(ex: Expander, op: Op) -> None:
        if xs := known(ex, op):
            out = compute_known(ex, name, plain_function, xs, dtype=xs[0].dtype)
        else:
            out = rule(ex, *(ex.boolean(v) for v in op.inputs))
        ex.set(op.output, out)

    return run


def _or(ex: Expander, x: Shared, y: Shared) -> Shared:
    return xor(ex, xor(ex, x, y), and_(ex, x, y))


def _expand_not(ex: Expander, op: Op) -> None:
    type_ = op.inputs[0].type
    ones = (
        1 if type_.kind == "bool" else (1 << type_.bits) - 1 if type_.kind == "int" and not type_.signed else 2**64 - 1
    )
    x = ex.boolean(op.inputs[0]) if not ex.primary(op.inputs[0]).known else ex.primary(op.inputs[0])
    mask = ex.constant(np.asarray(ones, x.dtype), x.dtype)
    if x.known:
        return ex.set(op.output, compute_known(ex, "xor", _xor_each, [x, mask], dtype=x.dtype))
    ex.set(op.output, xor(ex, x, mask))


def _bits_rule(name: str, function: Callable[..., Components], dtype: str = "uint64", attr: str = "bits") -> Rule:
    """An operation on the words of a boolean sharing, linear over exclusive or."""

    def run(ex: Expander, op: Op) -> None:
        x = ex.primary(op.inputs[0])
        x = x if x.known else ex.boolean(op.inputs[0])
        type_ = op.inputs[0].type
        if name == "shift_right" and op.attrs["bits"] and type_.kind == "int" and type_.signed and type_.bits < 64:
            x = ex.local("mask", _mask, x, kind=x.kind, value=(1 << type_.bits) - 1)
        ex.set(op.output, ex.local(name, function, x, kind=x.kind, dtype=dtype, **{attr: op.attrs[attr]}))

    return run


def _expand_shift_left(ex: Expander, op: Op) -> None:
    x = ex.primary(op.inputs[0])
    ex.set(op.output, _shifted(ex, x, op.attrs["bits"]))


def _expand_prefix_or(ex: Expander, op: Op) -> None:
    if xs := known(ex, op):
        return ex.set(op.output, compute_known(ex, "prefix_or", _plain_prefix_or, xs))
    ex.set(op.output, ex.kernel("prefix_or_b", ex.as_kind(op.inputs[0], "b")))


def _expand_select(ex: Expander, op: Op) -> None:
    if xs := known(ex, op):
        return ex.set(op.output, compute_known(ex, "select", _pick, xs, dtype=xs[1].dtype))
    c, x, y = op.inputs
    choice = ex.primary(c)
    boolean = x.type.kind == "bool"
    if choice.kind == "p":
        kind = "b" if boolean else "a"
        a, b = ex.as_kind(x, kind), ex.as_kind(y, kind)
        return ex.set(op.output, ex.local("select_p", _pick_public, choice, a, b, kind=kind, dtype=a.dtype))
    if boolean:
        a, b = ex.boolean(x), ex.boolean(y)
        return ex.set(op.output, xor(ex, b, and_(ex, ex.as_kind(c, "b"), xor(ex, a, b))))
    ex.set(op.output, blend(ex, ex.as_kind(c, "a"), ex.arithmetic(x), ex.arithmetic(y)))


# Visibility ----------------------------------------------------------------------------------------------------


def _expand_reveal(ex: Expander, op: Op) -> None:
    (value,) = op.inputs
    to = op.attrs["to"]
    x = ex.primary(value)
    if x.kind == "p" or (x.kind == "v" and x.owner == to):
        return ex.set(op.output, x)
    if x.kind not in "ab":
        x = ex.as_kind(value, "b" if value.type.kind == "bool" else "a")
    params: dict[str, Any] = {"bits": 1 if x.dtype == "uint8" else 64} if x.kind == "b" else {}
    if to == "public":
        return ex.set(op.output, ex.kernel(f"reveal_{x.kind}", x, dtype=x.dtype, **params))
    ex.set(op.output, ex.kernel(f"reveal_{x.kind}_to", x, owner=to, dtype=x.dtype, **params))


def _expand_share(ex: Expander, op: Op) -> None:
    (value,) = op.inputs
    if op.attrs["to"] != "secret":  # a public value where a private one is wanted: its owner knows it already
        return ex.set(op.output, ex.primary(value))
    ex.set(op.output, ex.as_kind(value, "b" if value.type.kind == "bool" else "a"))


# Rearrangements: the same function on every component -------------------------------------------------------------


def _common_kind(ex: Expander, values: list[Value], adds: bool) -> str:
    """The share kind in which values can be put side by side, or added up."""
    kinds = {ex.primary(v).kind for v in values} - {"p", "v"}
    if values[0].type.kind == "bool":
        return "b"
    if kinds == {"d"} and len(values) == 1:
        return "d"
    return "b" if kinds == {"b"} and not adds else "a"


def _local_rule(name: str) -> Rule:
    function = LOCAL[name]

    def run(ex: Expander, op: Op) -> None:
        positions = index_operands(name, len(op.inputs))
        data = [v for i, v in enumerate(op.inputs) if i not in positions]
        owners = {ex.primary(v).owner for v in data if ex.primary(v).kind == "v"}
        if all(ex.primary(v).known for v in data) and len(owners) <= 1:
            kind, shared = known_kind([ex.primary(v) for v in data]), {v: ex.primary(v) for v in data}
        else:
            kind = _common_kind(ex, data, name in ADDING)
            shared = {v: ex.primary(v) if kind == "d" else ex.as_kind(v, kind) for v in data}
        operands = [ex.primary(v) if i in positions else shared[v] for i, v in enumerate(op.inputs)]
        if name in SPLAT and operands[0].shape == () and op.inputs[0].shape != ():
            return ex.set(op.output, operands[0])
        if name == "broadcast" and op.inputs[0].shape == ():
            return ex.set(op.output, operands[0])
        operands = [ex.whole(x, v.shape) for x, v in zip(operands, op.inputs)]
        attrs = {k: _hashable(v) for k, v in op.attrs.items()}
        out = ex.local(
            name,
            _componentwise(function, positions),
            *operands,
            kind=kind,
            shape=op.output.shape,
            dtype=operands[0].dtype,
            elementwise=False,
            attrs=attrs,
        )
        ex.set(op.output, out)

    _componentwise_cache: dict[tuple[int, ...], Callable[..., Components]] = {}

    def _componentwise(function: Callable[..., Any], positions: tuple[int, ...]) -> Callable[..., Components]:
        if positions not in _componentwise_cache:
            _componentwise_cache[positions] = _on_components(function, positions)
        return _componentwise_cache[positions]

    return run


ADDING = {"sum", "cumsum", "scatter_add"}  # within a component: not what exclusive or is linear over
SPLAT = {"reshape", "transpose", "slice", "rev", "broadcast"}  # of equal elements: still equal


def _on_components(function: Callable[..., Any], positions: tuple[int, ...]) -> Callable[..., Components]:
    def run(*sharings: Components, **params: Any) -> Components:
        count = max(len(s) for i, s in enumerate(sharings) if i not in positions)
        out = []
        for c in range(count):
            arrays = [
                lax.bitcast_convert_type(s[0], np.int64) if i in positions else s[c] for i, s in enumerate(sharings)
            ]
            out.append(function(*arrays, **params))
        return tuple(out)

    return run


def _hashable(x: Any) -> Any:
    return tuple(_hashable(v) for v in x) if isinstance(x, list | tuple) else x


# Constants and control --------------------------------------------------------------------------------------------


def _expand_const(ex: Expander, op: Op) -> None:
    dtype = "uint8" if op.output.type.kind == "bool" else "uint64"
    ex.set(op.output, ex.constant(op.attrs["data"], dtype))


def _set_outputs(ex: Expander, op: Op) -> list[ch.Slot]:
    slots: list[ch.Slot] = []
    for value in op.outputs:
        shared = ex.fresh(value.type)
        ex.set(value, shared)
        slots.extend(shared.slots)
    return slots


def _slots(ex: Expander, values: list[Value]) -> list[ch.Slot]:
    return [s for v in values for s in ex.boundary(v).slots]


def _shared_before(ex: Expander, op: Op, constants: range, body: Region) -> set[int]:
    """Constants of a loop to share before it: private ones that its body only uses among secrets.

    Numbers count the body's parameters; `constants` are their positions among the inputs. What was
    shared before an outer loop stays so.
    """
    users = uses(body)
    out = set()
    for i, position in enumerate(constants):
        param, readers = body.params[i], users.get(body.params[i], [])
        if isinstance(param.type.visibility, int) and (
            not ex.primary(op.inputs[position]).known
            or (bool(readers) and all(_takes_secrets(reader, param) for reader in readers))
        ):
            out.add(i)
    return out


def _takes_secrets(reader: Op | None, value: Value) -> bool:
    """Whether an operation gives the same result for a private operand and for its sharing."""
    if reader is None or not all(v.type.is_secret for v in reader.outputs):
        return False
    if not reader.regions:
        return True
    constants = _constants(reader)
    return all(i in constants for i, v in enumerate(reader.inputs) if v is value)


def _constants(op: Op) -> range:
    """The positions of a loop's constants among its inputs; of a `while`, the body's."""
    if op.name == "loop":
        return range(op.attrs["constants"])
    if op.name == "while":
        first = op.attrs["condition_constants"]
        return range(first, first + op.attrs["body_constants"])
    return range(0)


def _constant_slots(ex: Expander, values: list[Value], early: set[int]) -> list[ch.Slot]:
    slots: list[ch.Slot] = []
    for i, value in enumerate(values):
        kind = "b" if value.type.kind == "bool" else "a"
        shared = ex.whole(ex.as_kind(value, kind), value.shape) if i in early else ex.boundary(value)
        slots.extend(shared.slots)
    return slots


def _expand_loop(ex: Expander, op: Op) -> None:
    k, c = op.attrs["constants"], op.attrs["carries"]
    early = _shared_before(ex, op, range(k), op.regions[0])
    constants = _constant_slots(ex, op.inputs[:k], early)
    carries, xs = _slots(ex, op.inputs[k : k + c]), _slots(ex, op.inputs[k + c :])
    body = ex.region(op.regions[0], early)
    reverse = bool(op.attrs.get("reverse", False))
    step = ch.Loop(body, op.attrs["trips"], reverse, constants, carries, xs, _set_outputs(ex, op), op.name, op.location)
    ex.block.steps.append(step)


def _expand_cond(ex: Expander, op: Op) -> None:
    index, operands = _slots(ex, op.inputs[:1]), _slots(ex, op.inputs[1:])
    branches = [ex.region(r) for r in op.regions]
    ex.block.steps.append(ch.Cond(branches, index[0], operands, _set_outputs(ex, op), op.name, op.location))


def _expand_while(ex: Expander, op: Op) -> None:
    a, b = op.attrs["condition_constants"], op.attrs["body_constants"]
    early = _shared_before(ex, op, range(a, a + b), op.regions[1])
    first, carries = _slots(ex, op.inputs[:a]), _slots(ex, op.inputs[a + b :])
    second = _constant_slots(ex, op.inputs[a : a + b], early)
    condition, body = ex.region(op.regions[0]), ex.region(op.regions[1], early)
    step = ch.While(condition, body, first, second, carries, _set_outputs(ex, op), op.name, op.location)
    ex.block.steps.append(step)


def _expand_integer_division(ex: Expander, op: Op) -> None:
    xs = known(ex, op)
    assert xs is not None
    signed = op.inputs[0].type.kind == "fxp" or op.inputs[0].type.signed
    ex.set(op.output, compute_known(ex, "integer_division", _plain_division, xs, signed=signed))


EXPAND: dict[str, Rule] = {
    "const": _expand_const,
    "add": _linear("add", _add, add),
    "sub": _linear("sub", _sub, sub),
    "neg": _linear("neg", _neg, neg),
    "mul": _expand_mul,
    "dot": _expand_dot,
    "trunc": _expand_trunc,
    "convert": _expand_convert,
    "bitcast": _expand_bitcast,
    "less": _expand_less,
    "equal": _expand_equal,
    "and": _logical("and", _and_each, and_),
    "or": _logical("or", _or_each, _or),
    "xor": _logical("xor", _xor_each, xor),
    "not": _expand_not,
    "shift_left": _expand_shift_left,
    "shift_right_logical": _bits_rule("shift_right", _shift_right),
    "shift_right_arithmetic": _bits_rule("shift_right_arithmetic", _shift_arithmetic),
    "prefix_or": _expand_prefix_or,
    "bit_parity": _bits_rule("parity", _parity, "uint8", "mask"),
    "select": _expand_select,
    "integer_division": _expand_integer_division,
    "reveal": _expand_reveal,
    "share": _expand_share,
    "loop": _expand_loop,
    "cond": _expand_cond,
    "while": _expand_while,
    **{name: _local_rule(name) for name in LOCAL},
}
