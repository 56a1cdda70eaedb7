"""The plain meaning of every IR operation, in NumPy: the oracle for passes, approximations and protocols.

Every value is a uint64 array of raw ring elements, whatever its type: fixed point x as round(x 2^f), an
integer sign- or zero-extended, a bool as 0 or 1. Where the IR leaves freedom, this is the definition:

* arithmetic and shift_left are those of the ring; `wrap` brings a narrow integer back into its type;
* `not` of an unsigned integer complements its own width, so that the result stays zero-extended;
* `convert` to an integer type wraps to its width, to bool asks x != 0, of fxp to int rounds toward zero;
* `integer_division` by zero gives all ones (-1), as XLA does;
* `trunc` is the floor. With `jitter` (a seed) a secret operand gets what the protocols give:
  floor(x / 2^m + u) with u uniform in [0, 1), and noise if x is outside of [-2^62, 2^62).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from spuvm.compiler.ir import Module, Op, Region, Type, Value
from spuvm.compiler.ops import LOCAL
from spuvm.runtime.errors import IRError
from spuvm.runtime.exponential import FRACTION

Raw = NDArray[np.uint64]
Rule = Callable[[Op, list[Raw]], Raw]
LIMIT = 1 << 62  # trunc is right for -LIMIT <= raw < LIMIT


def evaluate(program: Module | Region, inputs: Sequence[Any], *, jitter: int | None = None) -> list[Raw]:
    """The results of `program` on raw inputs: uint64 arrays, or integers and bools that become them."""
    region = program.body if isinstance(program, Module) else program
    random = None if jitter is None else np.random.default_rng(jitter)
    with np.errstate(over="ignore", divide="ignore"):
        return _run(region, [to_raw(x) for x in inputs], random)


def to_raw(x: Any) -> Raw:
    """An integer or bool array as ring elements."""
    array = np.asarray(x)
    if array.dtype.kind not in "iub":
        raise IRError(f"inputs of `evaluate` are raw ring elements, got {array.dtype}")
    raw: Raw = array.astype(np.int64).view(np.uint64) if array.dtype.kind in "ib" else array.astype(np.uint64)
    return raw


def _run(region: Region, inputs: list[Raw], random: np.random.Generator | None) -> list[Raw]:
    if len(inputs) != len(region.params):
        raise IRError(f"{len(inputs)} inputs for {len(region.params)} parameters")
    for value, raw in zip(region.params, inputs):
        if value.shape != raw.shape:
            raise IRError(f"an input of shape {raw.shape} for a parameter {value.type}")
    values: dict[Value, Raw] = dict(zip(region.params, inputs))
    for op in region.ops:
        xs = [values[v] for v in op.inputs]
        values.update(zip(op.outputs, apply(op, xs, random)))
    return [values[v] for v in region.results]


def apply(op: Op, xs: list[Raw], random: np.random.Generator | None) -> list[Raw]:
    if op.name in CONTROL:
        return CONTROL[op.name](op, xs, random)
    if random is not None and _drops_bits(op) and op.inputs[0].type.is_secret:
        return [_jittered(xs[0], op.inputs[0].type.frac - op.output.type.frac, random)]
    return [np.asarray(RULES[op.name](op, xs), np.uint64)]


def _drops_bits(op: Op) -> bool:
    x, z = op.inputs[0].type if op.inputs else None, op.outputs[0].type
    retyped = x is not None and op.name == "convert" and x.kind == z.kind == "fxp" and x.frac > z.frac
    return op.name == "trunc" or retyped


# arithmetic ------------------------------------------------------------------------------------------


def _signed(x: Raw) -> NDArray[np.int64]:
    return x.view(np.int64)


def _shift_right(x: Raw, bits: int) -> Raw:
    """Arithmetic: the floor of x / 2^bits."""
    return np.asarray(_signed(x) >> np.int64(min(bits, 63))).view(np.uint64)


def _jittered(x: Raw, bits: int, random: np.random.Generator) -> Raw:
    """floor(x / 2^bits + u), u uniform in [0, 1); noise where x is out of range."""
    low: Raw = x & np.uint64((1 << bits) - 1)
    carry = (low + random.integers(0, 1 << bits, x.shape, np.uint64)) >> np.uint64(bits)
    inside = (_signed(x) >= -LIMIT) & (_signed(x) < LIMIT)
    noise = random.integers(0, 1 << 64, x.shape, np.uint64, endpoint=False) if not inside.all() else x
    return np.where(inside, _shift_right(x, bits) + carry, noise)


def canonical(x: Raw, t: Type) -> Raw:
    """An integer wrapped to the width of its type, and sign- or zero-extended to the ring."""
    if t.kind != "int" or t.bits >= 64:
        return x
    high = np.uint64(64 - t.bits)
    wrapped: Raw = (x << high) >> high
    return _shift_right(x << high, 64 - t.bits) if t.signed else wrapped


def _convert(op: Op, xs: list[Raw]) -> Raw:
    (x,), source, target = xs, op.inputs[0].type, op.output.type
    if target.kind == "bool":
        return np.asarray(x != 0, np.uint64)
    if target.kind == "fxp":
        change = target.frac - source.frac  # bool and int have none
        raised: Raw = x << np.uint64(max(change, 0))
        return raised if change >= 0 else _shift_right(x, -change)
    if source.kind == "fxp":
        round_up = np.where(_signed(x) < 0, np.uint64((1 << source.frac) - 1), np.uint64(0))
        x = _shift_right(x + round_up, source.frac)
    return canonical(x, target)


def _exp2(op: Op, xs: list[Raw]) -> Raw:
    """Outside of the domain, garbage as it comes."""
    whole: NDArray[np.int64] = np.rint(np.exp2(np.minimum(_signed(xs[0]) * 2.0**-FRACTION, 62.999))).astype(np.int64)
    return whole.view(np.uint64)


def _less(op: Op, xs: list[Raw]) -> Raw:
    x, y = xs
    unsigned = op.inputs[0].type.element == "uint64"
    return np.asarray(x < y if unsigned else _signed(x) < _signed(y)).astype(np.uint64)


def _not(op: Op, xs: list[Raw]) -> Raw:
    t = op.inputs[0].type
    if t.kind == "bool":
        return xs[0] ^ np.uint64(1)
    return ~xs[0] if t.kind == "fxp" or t.signed else canonical(~xs[0], t)


def _shift_right_logical(op: Op, xs: list[Raw]) -> Raw:
    t = op.inputs[0].type
    x = canonical(xs[0], t.with_(signed=False))
    bits = op.attrs["bits"]
    return canonical(x >> np.uint64(bits) if bits < 64 else x ^ x, t)


def _shift_left(op: Op, xs: list[Raw]) -> Raw:
    bits = op.attrs["bits"]
    return xs[0] << np.uint64(bits) if bits < 64 else xs[0] ^ xs[0]


def _prefix_or(op: Op, xs: list[Raw]) -> Raw:
    x = xs[0]
    for step in (1, 2, 4, 8, 16, 32):
        x = x | (x >> np.uint64(step))
    return x


def _bit_parity(op: Op, xs: list[Raw]) -> Raw:
    ones = np.bitwise_count(xs[0] & np.uint64(op.attrs["mask"]))
    return np.asarray(ones & np.uint8(1), np.uint64)


def _integer_division(op: Op, xs: list[Raw]) -> Raw:
    t = op.inputs[0].type
    x, y = xs if t.kind == "int" and not t.signed else (_signed(xs[0]), _signed(xs[1]))
    by_zero = xs[1] == 0
    quotient = np.asarray(x // np.where(by_zero, np.ones_like(y), y)).view(np.uint64)
    return np.where(by_zero, np.uint64(2**64 - 1), quotient)


def _dot(op: Op, xs: list[Raw]) -> Raw:
    (xc, yc), (xb, yb) = op.attrs["dims"]
    x, y = xs
    x_rest = [d for d in range(x.ndim) if d not in (*xc, *xb)]
    y_rest = [d for d in range(y.ndim) if d not in (*yc, *yb)]
    batch, m, n = [[a.shape[d] for d in ds] for a, ds in ((x, xb), (x, x_rest), (y, y_rest))]
    inner = int(np.prod([x.shape[d] for d in xc], dtype=int))
    left = x.transpose(*xb, *x_rest, *xc).reshape(*batch, int(np.prod(m, dtype=int)), inner)
    right = y.transpose(*yb, *yc, *y_rest).reshape(*batch, inner, int(np.prod(n, dtype=int)))
    product: Raw = np.matmul(left, right)
    return product.reshape((*batch, *m, *n))


# rearrangements --------------------------------------------------------------------------------------


def _broadcast(op: Op, xs: list[Raw]) -> Raw:
    shape, dims = op.attrs["shape"], op.attrs["dims"]
    spread = [1] * len(shape)
    for d, size in zip(dims, xs[0].shape):
        spread[d] = size
    return np.broadcast_to(xs[0].reshape(spread), shape)


def _slice(op: Op, xs: list[Raw]) -> Raw:
    a = op.attrs
    strides = a["stride"] or [1] * xs[0].ndim
    return xs[0][tuple(slice(*bounds) for bounds in zip(a["start"], a["limit"], strides))]


def _cumsum(op: Op, xs: list[Raw]) -> Raw:
    axis = op.attrs["axis"]
    if not op.attrs["reverse"]:
        return np.cumsum(xs[0], axis, np.uint64)
    return np.flip(np.cumsum(np.flip(xs[0], axis), axis, np.uint64), axis)


def _by_lax(op: Op, xs: list[Raw]) -> Raw:
    """The rearrangements with indices: JAX's own definition, on signed views: indices may be negative."""
    with jax.enable_x64(True):
        return np.asarray(LOCAL[op.name](*map(_signed, xs), **op.attrs)).view(np.uint64)


RULES: dict[str, Rule] = {
    "const": lambda op, xs: op.attrs["data"],
    "add": lambda op, xs: xs[0] + xs[1],
    "sub": lambda op, xs: xs[0] - xs[1],
    "neg": lambda op, xs: np.uint64(0) - xs[0],
    "mul": lambda op, xs: xs[0] * xs[1],
    "dot": _dot,
    "trunc": lambda op, xs: _shift_right(xs[0], op.attrs["bits"]),
    "convert": _convert,
    "bitcast": lambda op, xs: xs[0],
    "exp2": _exp2,
    "less": _less,
    "equal": lambda op, xs: xs[0] == xs[1],
    "and": lambda op, xs: xs[0] & xs[1],
    "or": lambda op, xs: xs[0] | xs[1],
    "xor": lambda op, xs: xs[0] ^ xs[1],
    "not": _not,
    "shift_left": _shift_left,
    "shift_right_logical": _shift_right_logical,
    "shift_right_arithmetic": lambda op, xs: _shift_right(xs[0], op.attrs["bits"]),
    "prefix_or": _prefix_or,
    "bit_parity": _bit_parity,
    "wrap": lambda op, xs: canonical(xs[0], op.output.type),
    "select": lambda op, xs: np.where(xs[0] != 0, xs[1], xs[2]),
    "integer_division": _integer_division,
    "reveal": lambda op, xs: canonical(xs[0], op.output.type),
    "share": lambda op, xs: xs[0],
    "mask": lambda op, xs: xs[0],
    "reshape": lambda op, xs: xs[0].reshape(op.attrs["shape"]),
    "transpose": lambda op, xs: xs[0].transpose(op.attrs["perm"]),
    "broadcast": _broadcast,
    "slice": _slice,
    "rev": lambda op, xs: np.flip(xs[0], tuple(op.attrs["axes"])),
    "concatenate": lambda op, xs: np.concatenate(xs, op.attrs["axis"]),
    "sum": lambda op, xs: np.sum(xs[0], tuple(op.attrs["axes"]), np.uint64),
    "cumsum": _cumsum,
    "pad": _by_lax,
    "gather": _by_lax,
    "scatter": _by_lax,
    "scatter_add": _by_lax,
    "dynamic_slice": _by_lax,
    "dynamic_update_slice": _by_lax,
}


# control ---------------------------------------------------------------------------------------------


def _cond(op: Op, xs: list[Raw], random: np.random.Generator | None) -> list[Raw]:
    index, *operands = xs
    branch = min(max(int(_signed(index)), 0), len(op.regions) - 1)
    return _run(op.regions[branch], operands, random)


def _loop(op: Op, xs: list[Raw], random: np.random.Generator | None) -> list[Raw]:
    n, c, k = op.attrs["trips"], op.attrs["carries"], op.attrs["constants"]
    constants, carry, stacked = xs[:k], xs[k : k + c], xs[k + c :]
    rows: list[list[Raw]] = [[] for _ in op.outputs[c:]]
    for i in range(n)[::-1] if op.attrs.get("reverse") else range(n):
        results = _run(op.regions[0], [*constants, *carry, *(x[i, ...] for x in stacked)], random)
        carry = results[:c]
        for row, y in zip(rows, results[c:]):
            row.append(y)
    if op.attrs.get("reverse"):
        rows = [row[::-1] for row in rows]
    empty = [np.zeros(v.shape, np.uint64) for v in op.outputs[c:]]
    return [*carry, *(np.stack(row) if row else e for row, e in zip(rows, empty))]


def _while(op: Op, xs: list[Raw], random: np.random.Generator | None) -> list[Raw]:
    condition, body = op.regions
    a, b = op.attrs["condition_constants"], op.attrs["body_constants"]
    carry = xs[a + b :]
    while _run(condition, [*xs[:a], *carry], random)[0]:
        carry = _run(body, [*xs[a : a + b], *carry], random)
    return carry


def _sort(op: Op, xs: list[Raw], random: np.random.Generator | None) -> list[Raw]:
    words = [_signed(x) for x in xs[: len(op.attrs["widths"])]]
    order = np.lexsort(words[::-1], axis=-1)
    return [np.take_along_axis(x, order, axis=1) for x in xs[len(words) :]]


CONTROL: dict[str, Callable[[Op, list[Raw], np.random.Generator | None], list[Raw]]] = {
    "cond": _cond,
    "loop": _loop,
    "while": _while,
    "sort": _sort,
}
