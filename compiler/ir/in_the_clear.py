"""The plain meaning of every IR operation, in NumPy: the oracle for passes, approximations and protocols.

Every value is an array of raw ring elements, whatever its type: fixed point x as round(x 2^f), an integer
sign- or zero-extended, a bool as 0 or 1. Rings of 32 and 64 bits compute on arrays of their dtypes, that of
128 on object arrays of Python's integers. Where the IR leaves freedom, this is the definition:

* arithmetic and shift_left are those of the ring; `wrap` brings a narrow integer back into its type;
* `not` of an unsigned integer complements its own width, so that the result stays zero-extended;
* `convert` to an integer type wraps to its width, to bool asks x != 0, of fxp to int rounds toward zero;
* `integer_division` by zero gives all ones (-1), as XLA does;
* `trunc` is the floor. With `jitter` (a seed) a secret operand gets what the protocols give:
  floor(x / 2^m + u) with u uniform in [0, 1), and noise if x is outside of [-2^(k-2), 2^(k-2)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from spuvm.compiler.ir.elementary import ELEMENTARY, rounded
from spuvm.compiler.ir.module import Module, Op, Region, Type, Value
from spuvm.compiler.ir.ops import LOCAL, index_operands
from spuvm.runtime.errors import IRError, RangeError
from spuvm.runtime.ring.elements import RING_DTYPE, WIDE, signed, words
from spuvm.runtime.ring.exponential import FRACTION
from spuvm.runtime.ring.harmonics import COEFFICIENT
from spuvm.runtime.ring.one_bit import PLACE

Raw = NDArray[Any]
Random = np.random.Generator | None
LIMIT = 1 << 62  # trunc is right for -LIMIT <= raw < LIMIT in the ring of 64 bits


@dataclass(frozen=True)
class Ring:
    """Z_2^bits on arrays of its own representation: NumPy's unsigned integers, or Python's in object arrays."""

    bits: int

    def make(self, x: Any) -> Raw:
        """From ring elements or integers."""
        array = np.asarray(x)
        if array.dtype != WIDE and array.dtype.kind not in "iubO":
            raise IRError(f"inputs of `evaluate` are raw ring elements, got {array.dtype}")
        raw = array if array.dtype == WIDE else words(array, self.bits)
        return raw if self.bits < 128 else np.asarray(signed(raw) % 2**128, object)

    def result(self, x: Raw) -> Raw:
        return words(x, self.bits)

    def number(self, value: int) -> Any:
        """A scalar that operators take with arrays."""
        return RING_DTYPE[self.bits].type(value % 2**self.bits) if self.bits < 128 else value % 2**128

    def wrap(self, x: Any) -> Raw:
        """After a sum, difference, product or left shift. A comparison becomes 0 and 1."""
        if self.bits < 128:
            return np.asarray(x).astype(RING_DTYPE[self.bits], copy=False)
        x = np.asarray(x)
        return np.asarray(x.astype(object) % 2**128, object)

    def signed(self, x: Raw) -> Any:
        if self.bits < 128:
            return signed(x)
        return np.where(x >= 2**127, x - 2**128, x)

    def shift_right(self, x: Raw, bits: int) -> Raw:
        """Arithmetic: the floor of x / 2^bits."""
        bits = min(bits, self.bits - 1)
        if self.bits == 128:
            return self.wrap(self.signed(x) >> bits)
        moved: Raw = np.asarray(self.signed(x) >> np.dtype(f"int{self.bits}").type(bits))
        return moved.view(RING_DTYPE[self.bits])

    def random(self, generator: np.random.Generator, bits: int, shape: tuple[int, ...]) -> Raw:
        """Uniform below 2^bits."""
        if self.bits < 128:
            return self.wrap(generator.integers(0, (1 << bits) - 1, shape, np.uint64, endpoint=True))
        drawn = generator.integers(0, 1 << 32, (*shape, 4), np.uint64).astype(object)
        return self.wrap(sum(drawn[..., i] << (32 * i) for i in range(4)) % 2**bits)


def evaluate(
    program: Module | Region, inputs: Sequence[Any], *, jitter: int | None = None, ring: int = 64
) -> list[Raw]:
    """The results of `program` on raw inputs: ring elements, or integers and bools that become them.

    A module says what its ring is; of a region, `ring` does.
    """
    region = program.body if isinstance(program, Module) else program
    if isinstance(program, Module):
        ring = program.config.get("ring_bits", ring)
    random = None if jitter is None else np.random.default_rng(jitter)
    machine = Machine(Ring(ring), random)
    with np.errstate(over="ignore", divide="ignore"):
        results = machine.run(region, [machine.ring.make(x) for x in inputs])
        return [machine.ring.result(x) for x in results]


def ring_of(raw: Raw) -> Ring:
    """The ring whose elements these are, as `Ring` represents them."""
    return Ring(128 if raw.dtype == object else 8 * raw.dtype.itemsize)


@dataclass(frozen=True)
class Machine:
    """Operations on raw values; `random` rounds secret truncations as the protocols do."""

    ring: Ring
    random: Random

    def run(self, region: Region, inputs: list[Raw]) -> list[Raw]:
        if len(inputs) != len(region.params):
            raise IRError(f"{len(inputs)} inputs for {len(region.params)} parameters")
        for value, raw in zip(region.params, inputs):
            if value.shape != raw.shape:
                raise IRError(f"an input of shape {raw.shape} for a parameter {value.type}")
        values: dict[Value, Raw] = dict(zip(region.params, inputs))
        for op in region.ops:
            xs = [values[v] for v in op.inputs]
            values.update(zip(op.outputs, self.apply(op, xs)))
        return [values[v] for v in region.results]

    def apply(self, op: Op, xs: list[Raw]) -> list[Raw]:
        if op.name in CONTROL:
            return CONTROL[op.name](self, op, xs)
        if self.random is not None and _drops_bits(op) and op.inputs[0].type.is_secret:
            return [_jittered(self.ring, xs[0], op.inputs[0].type.frac - op.output.type.frac, self.random)]
        return [self.ring.wrap(RULES[op.name](self.ring, op, xs))]


def _drops_bits(op: Op) -> bool:
    x, z = op.inputs[0].type if op.inputs else None, op.outputs[0].type
    retyped = x is not None and op.name == "convert" and x.kind == z.kind == "fxp" and x.frac > z.frac
    return op.name == "trunc" or retyped


# arithmetic ------------------------------------------------------------------------------------------


def _jittered(r: Ring, x: Raw, bits: int, random: np.random.Generator) -> Raw:
    """floor(x / 2^bits + u), u uniform in [0, 1); noise where x is out of range."""
    low = x & r.number((1 << bits) - 1)
    carry = (low + r.random(random, bits, x.shape)) >> r.number(bits)
    limit = 1 << (r.bits - 2)
    inside = (r.signed(x) >= -limit) & (r.signed(x) < limit)
    noise = r.random(random, r.bits, x.shape) if not inside.all() else x
    return r.wrap(np.where(inside.astype(bool), r.wrap(r.shift_right(x, bits) + carry), noise))


def canonical(r: Ring, x: Raw, t: Type) -> Raw:
    """An integer wrapped to the width of its type, and sign- or zero-extended to the ring."""
    if t.kind != "int" or t.bits >= r.bits:
        return x
    high = r.number(r.bits - t.bits)
    left = r.wrap(x << high)
    return r.shift_right(left, r.bits - t.bits) if t.signed else left >> high


def _convert(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    (x,), source, target = xs, op.inputs[0].type, op.output.type
    if target.kind == "bool":
        return r.wrap(x != 0)
    if target.kind == "fxp":
        change = target.frac - source.frac  # bool and int have none
        return r.wrap(x << r.number(change)) if change >= 0 else r.shift_right(x, -change)
    if source.kind == "fxp":
        round_up = np.where(np.asarray(r.signed(x) < 0, bool), r.number((1 << source.frac) - 1), r.number(0))
        x = r.shift_right(r.wrap(x + round_up), source.frac)
    return canonical(r, x, target)


def _exp2(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    """Outside of the domain, garbage as it comes. Rings of 64 bits alone have it."""
    whole: Raw = np.rint(np.exp2(np.minimum(r.signed(xs[0]) * 2.0**-FRACTION, 62.999))).astype(np.int64)
    terms = (
        (whole * factor + (top << 32)) * np.asarray(bit, np.int64)
        for bit, factor, top in zip(xs[1:], op.attrs["factors"], op.attrs["tops"])
    )
    return np.asarray(sum(terms), np.int64).view(np.uint64)


def _harmonics(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    """Rings of 64 bits alone have it."""
    angle = r.signed(xs[0]) * (2 * np.pi * 2.0**-64)
    angles = ((1 + i * op.attrs["step"]) * angle for i in range(len(op.attrs["weights"])))
    terms = (a * np.sin(m) + b * np.cos(m) for m, (a, b) in zip(angles, op.attrs["weights"]))
    whole: Raw = np.rint(sum(terms) * 2.0 ** (op.output.type.frac - COEFFICIENT)).astype(np.int64)
    return whole.view(np.uint64)


def _scaled(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    """Rings of 64 bits alone have it."""
    x, y = (r.signed(v) for v in xs)
    largest = 2.0**63 - 1024
    whole: Raw = np.rint(np.clip(x * np.exp2(y * 2.0**-FRACTION), -largest, largest)).astype(np.int64)
    return whole.view(np.uint64)


def _power(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    """Rings of 64 bits alone have it."""
    lower = xs[0] & np.uint64(2**63 - 1)
    size = np.where(lower > 0, np.uint64(1 << 62) // np.maximum(lower, np.uint64(1)), np.uint64(0))
    return r.wrap(np.where(r.signed(xs[0]) < 0, -size, size))


def _position(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    lower = np.maximum(xs[0] & np.uint64(2**63 - 1), np.uint64(1))
    return r.wrap(np.log2(lower.astype(np.float64)).astype(np.uint64) << np.uint64(PLACE))


def _less(r: Ring, op: Op, xs: list[Raw]) -> Any:
    x, y = xs
    t = op.inputs[0].type
    unsigned = t.kind == "int" and not t.signed and t.bits >= r.bits
    return x < y if unsigned else r.signed(x) < r.signed(y)


def _not(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    t = op.inputs[0].type
    if t.kind == "bool":
        return r.wrap(xs[0] ^ r.number(1))
    inverted = r.wrap(xs[0] ^ r.number(-1))
    return inverted if t.kind == "fxp" or t.signed else canonical(r, inverted, t)


def _shift_right_logical(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    t = op.inputs[0].type
    x = canonical(r, xs[0], t.with_(signed=False))
    bits = op.attrs["bits"]
    return canonical(r, np.asarray(x >> r.number(bits) if bits < r.bits else x ^ x), t)


def _shift_left(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    bits = op.attrs["bits"]
    return xs[0] << r.number(bits) if bits < r.bits else xs[0] ^ xs[0]


def _prefix_or(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    x, step = xs[0], 1
    while step < r.bits:
        x = x | (x >> r.number(step))
        step *= 2
    return x


def _bit_parity(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    x, step = xs[0] & r.number(op.attrs["mask"]), r.bits // 2
    while step:
        x = x ^ (x >> r.number(step))
        step //= 2
    return r.wrap(x & r.number(1))


def _integer_division(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    t = op.inputs[0].type
    x, y = xs if t.kind == "int" and not t.signed else (r.signed(xs[0]), r.signed(xs[1]))
    by_zero = np.asarray(xs[1] == 0, bool)
    quotient = np.asarray(x // np.where(by_zero, y - y + 1, y))
    quotient = quotient.view(RING_DTYPE[r.bits]) if r.bits < 128 else r.wrap(quotient)
    return np.where(by_zero, r.number(-1), quotient)


def _elementary(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    """The function of the numbers, correctly rounded as far as float64 goes."""
    reals = (np.asarray(r.signed(x)).astype(np.float64) / 2.0**v.type.frac for x, v in zip(xs, op.inputs))
    attrs = {k: v for k, v in op.attrs.items() if k != "to"}
    with np.errstate(all="ignore"):
        real = ELEMENTARY[op.name](*reals, **attrs) if xs[0].size else np.zeros(xs[0].shape)
    return r.make(rounded(real, op.output.type.frac, r.bits))


def _quotient(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    """Toward zero, in Python's integers."""
    t = op.inputs[0].type
    unsigned = t.kind == "int" and not t.signed
    x, y = (np.asarray(v if unsigned else r.signed(v)).astype(object) for v in xs)
    zero = np.asarray(y == 0, bool)
    size = abs(x) // np.where(zero, 1, abs(y))
    return canonical(r, r.make(np.where(zero, -1, np.where((x < 0) ^ (y < 0), -size, size))), t)


def _remainder(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    zero = np.asarray(xs[1] == 0, bool)
    left = r.wrap(xs[0] - r.wrap(_quotient(r, op, xs) * xs[1]))
    return canonical(r, r.wrap(np.where(zero, xs[0], left)), op.output.type)


def _random(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    """By its number alone, so that two runs of a program, before and after the passes, draw the same."""
    high = 2 if op.output.type.kind == "bool" else 2**64
    return r.make(np.random.default_rng(op.attrs["number"]).integers(0, high, op.output.shape, np.uint64))


def _dot(r: Ring, op: Op, xs: list[Raw]) -> Raw:
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


def _broadcast(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    shape, dims = op.attrs["shape"], op.attrs["dims"]
    spread = [1] * len(shape)
    for d, size in zip(dims, xs[0].shape):
        spread[d] = size
    return np.broadcast_to(xs[0].reshape(spread), shape)


def _slice(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    a = op.attrs
    strides = a["stride"] or [1] * xs[0].ndim
    return xs[0][tuple(slice(*bounds) for bounds in zip(a["start"], a["limit"], strides))]


def _cumsum(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    axis, dtype = op.attrs["axis"], xs[0].dtype
    if not op.attrs["reverse"]:
        return np.cumsum(xs[0], axis, dtype)
    return np.flip(np.cumsum(np.flip(xs[0], axis), axis, dtype), axis)


def _by_lax(r: Ring, op: Op, xs: list[Raw]) -> Raw:
    """The rearrangements with indices: JAX's own definition. Those of Python's integers go in 32-bit pieces."""
    positions = index_operands(op.name, len(xs))

    def apply(piece: Callable[[Raw], Raw]) -> Raw:
        arrays = [r.signed(x).astype(np.int64) if i in positions else piece(x) for i, x in enumerate(xs)]
        with jax.enable_x64(True):
            return np.asarray(LOCAL[op.name](*arrays, **op.attrs))

    if r.bits < 128:
        return apply(lambda x: x)
    total: Any = 0
    for shift in range(0, 128, 32):
        piece = apply(lambda x, s=shift: np.asarray((x >> s) % 2**32).astype(np.uint64))  # type: ignore[misc]
        total += piece.astype(object) << shift
    return np.asarray(total)


Rule = Callable[[Ring, Op, list[Raw]], Any]
RULES: dict[str, Rule] = {
    "const": lambda r, op, xs: r.make(op.attrs["data"]),
    "random": _random,
    "add": lambda r, op, xs: xs[0] + xs[1],
    "sub": lambda r, op, xs: xs[0] - xs[1],
    "neg": lambda r, op, xs: r.number(0) - xs[0],
    "mul": lambda r, op, xs: xs[0] * xs[1],
    "dot": _dot,
    "trunc": lambda r, op, xs: r.shift_right(xs[0], op.attrs["bits"]),
    "convert": _convert,
    "bitcast": lambda r, op, xs: xs[0],
    "exp2": _exp2,
    "harmonics": _harmonics,
    "scaled": _scaled,
    "power": _power,
    "position": _position,
    "less": _less,
    "equal": lambda r, op, xs: xs[0] == xs[1],
    "and": lambda r, op, xs: xs[0] & xs[1],
    "or": lambda r, op, xs: xs[0] | xs[1],
    "xor": lambda r, op, xs: xs[0] ^ xs[1],
    "not": _not,
    "shift_left": _shift_left,
    "shift_right_logical": _shift_right_logical,
    "shift_right_arithmetic": lambda r, op, xs: r.shift_right(xs[0], op.attrs["bits"]),
    "prefix_or": _prefix_or,
    "bit_parity": _bit_parity,
    "wrap": lambda r, op, xs: canonical(r, xs[0], op.output.type),
    "select": lambda r, op, xs: np.where(np.asarray(xs[0] != 0, bool), xs[1], xs[2]),
    "integer_division": _integer_division,
    **dict.fromkeys(ELEMENTARY, _elementary),
    "quotient": _quotient,
    "remainder": _remainder,
    "reveal": lambda r, op, xs: canonical(r, xs[0], op.output.type),
    "share": lambda r, op, xs: xs[0],
    "mask": lambda r, op, xs: xs[0],
    "reshape": lambda r, op, xs: xs[0].reshape(op.attrs["shape"]),
    "transpose": lambda r, op, xs: xs[0].transpose(op.attrs["perm"]),
    "broadcast": _broadcast,
    "slice": _slice,
    "rev": lambda r, op, xs: np.flip(xs[0], tuple(op.attrs["axes"])),
    "concatenate": lambda r, op, xs: np.concatenate(xs, op.attrs["axis"]),
    "sum": lambda r, op, xs: np.sum(xs[0], tuple(op.attrs["axes"]), xs[0].dtype),
    "cumsum": _cumsum,
    "pad": _by_lax,
    "gather": _by_lax,
    "scatter": _by_lax,
    "scatter_add": _by_lax,
    "dynamic_slice": _by_lax,
    "dynamic_update_slice": _by_lax,
}


# control ---------------------------------------------------------------------------------------------


def _cond(m: Machine, op: Op, xs: list[Raw]) -> list[Raw]:
    index, *operands = xs
    branch = min(max(int(m.ring.signed(index)), 0), len(op.regions) - 1)
    return m.run(op.regions[branch], operands)


def _loop(m: Machine, op: Op, xs: list[Raw]) -> list[Raw]:
    n, c, k = op.attrs["trips"], op.attrs["carries"], op.attrs["constants"]
    constants, carry, stacked = xs[:k], xs[k : k + c], xs[k + c :]
    rows: list[list[Raw]] = [[] for _ in op.outputs[c:]]
    for i in range(n)[::-1] if op.attrs.get("reverse") else range(n):
        results = m.run(op.regions[0], [*constants, *carry, *(x[i, ...] for x in stacked)])
        carry = results[:c]
        for row, y in zip(rows, results[c:]):
            row.append(y)
    if op.attrs.get("reverse"):
        rows = [row[::-1] for row in rows]
    empty = [m.ring.make(np.zeros(v.shape, np.int64)) for v in op.outputs[c:]]
    return [*carry, *(np.stack(row) if row else e for row, e in zip(rows, empty))]


def _while(m: Machine, op: Op, xs: list[Raw]) -> list[Raw]:
    condition, body = op.regions
    a, b = op.attrs["condition_constants"], op.attrs["body_constants"]
    carry = xs[a + b :]
    while m.run(condition, [*xs[:a], *carry])[0]:
        carry = m.run(body, [*xs[a : a + b], *carry])
    return carry


def _sort(m: Machine, op: Op, xs: list[Raw]) -> list[Raw]:
    keys = zip(op.inputs, xs[: len(op.attrs["widths"])])
    words = [x if v.type.kind == "bool" else m.ring.signed(x) for v, x in keys]
    order = np.lexsort(words[::-1], axis=-1)
    return [np.take_along_axis(x, order, axis=1) for x in xs[len(words) :]]


def _guarded(m: Machine, op: Op, xs: list[Raw]) -> list[Raw]:
    if np.any(xs[0]):
        raise RangeError(f"{op.location}: a number left what the ring holds, here or before.")
    return xs[1:]


CONTROL: dict[str, Callable[[Machine, Op, list[Raw]], list[Raw]]] = {
    "cond": _cond,
    "loop": _loop,
    "while": _while,
    "sort": _sort,
    "guarded": _guarded,
}
