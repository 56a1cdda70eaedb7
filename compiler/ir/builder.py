"""Building IR: `Builder.op` infers the types; the methods are what rules and approximations use."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from spuvm.compiler.ir.dtypes import kind_of
from spuvm.compiler.ir.module import Location, Op, Region, Type, Value
from spuvm.compiler.ir.ops import with_results
from spuvm.runtime.ring.elements import WIDE, words
from spuvm.runtime.ring.encodings import scaled


class Builder:
    """Appends operations to a region. `frac` is the program's default number of fraction bits.

    `kernels` are those of the program's protocol: an approximation may use operations that not all have.
    """

    def __init__(self, frac: int, ring_bits: int = 64, kernels: Collection[str] = ()) -> None:
        self.frac = frac
        self.kernels = kernels
        self.ring_bits = ring_bits
        self.region = Region()
        self.location = Location()
        self._modular = False

    @contextmanager
    def modular(self) -> Iterator[None]:
        """What is built within is right modulo 2^k, as sums that take back what they added: it is not guarded."""
        self._modular = True
        try:
            yield
        finally:
            self._modular = False

    @contextmanager
    def inside(self, region: Region) -> Iterator[Region]:
        """Append to `region` within the block; constants made there belong to it."""
        outer, self.region = self.region, region
        try:
            yield region
        finally:
            self.region = outer

    def ops(self, name: str, inputs: Sequence[Value], regions: Sequence[Region] = (), **attrs: Any) -> list[Value]:
        op = with_results(Op(name, list(inputs), [], attrs, list(regions), self.location))
        op.modular = self._modular
        self.region.ops.append(op)
        return op.outputs

    def op(self, name: str, *inputs: Value, **attrs: Any) -> Value:
        (out,) = self.ops(name, inputs, **attrs)
        return out

    def function(self, name: str, *inputs: Value, frac: int | None = None, **attrs: Any) -> Value:
        """An elementary function with `frac` fraction bits (default: the program's), see ir/elementary.py."""
        return self.op(name, *inputs, to=f"fxp{self.frac if frac is None else frac}", **attrs)

    # constants ---------------------------------------------------------------------------------

    def const(self, data: Any, element: str) -> Value:
        """A public constant from raw ring elements (any integer array; taken mod 2^k)."""
        raw = np.asarray(data)
        if raw.dtype.kind == "V" and raw.dtype != WIDE and kind_of(raw.dtype) in tuple("iu"):
            raw = raw.astype(np.int64)  # int4 and the like
        return self.op("const", data=words(raw, self.ring_bits), to=element)

    def fxp(self, data: Any, frac: int | None = None, shape: tuple[int, ...] | None = None) -> Value:
        """A public fixed-point constant from real numbers, rounded to nearest."""
        frac = self.frac if frac is None else frac
        real = np.asarray(data, np.float64)
        if shape is not None:
            real = np.broadcast_to(real, shape)
        return self.const(scaled(real, frac, self.ring_bits), f"fxp{frac}")

    def integer(self, data: Any, like: Type) -> Value:
        """An integer constant of the type and shape of `like` (fixed point: raw integer, 0 fraction bits)."""
        return self.const(np.broadcast_to(np.asarray(data), like.shape), like.element)

    # shorthands: no hidden communication beyond what the name says --------------------------------

    def add(self, x: Value, y: Value) -> Value:
        return self.op("add", x, y)

    def sub(self, x: Value, y: Value) -> Value:
        return self.op("sub", x, y)

    def neg(self, x: Value) -> Value:
        return self.op("neg", x)

    def mul_raw(self, x: Value, y: Value) -> Value:
        return self.op("mul", x, y)

    def trunc(self, x: Value, bits: int) -> Value:
        """Drop `bits` fraction bits (within one unit); a negative number adds some, exactly."""
        if bits == 0:
            return x
        if bits < 0:
            shifted = self.op("shift_left", x, bits=-bits)
            return self.bitcast(shifted, f"fxp{x.type.frac - bits}")
        return self.op("trunc", x, bits=bits)

    def with_frac(self, x: Value, frac: int) -> Value:
        """The same number with `frac` fraction bits."""
        return self.trunc(x, x.type.frac - frac)

    def mul(self, x: Value, y: Value, frac: int | None = None) -> Value:
        """Fixed-point product with `frac` fraction bits (default: the program's). Integers: exact."""
        z = self.op("mul", x, y)
        return z if z.type.kind != "fxp" else self.with_frac(z, self.frac if frac is None else frac)

    def bitcast(self, x: Value, element: str) -> Value:
        return x if x.type.element == element else self.op("bitcast", x, to=element)

    def word(self, x: Value) -> Value:
        """The ring element of `x`, read as an integer of the ring's width."""
        return self.bitcast(x, f"int{self.ring_bits}")

    def convert(self, x: Value, element: str) -> Value:
        return x if x.type.element == element else self.op("convert", x, to=element)

    def less(self, x: Value, y: Value) -> Value:
        return self.op("less", x, y)

    def equal(self, x: Value, y: Value) -> Value:
        return self.op("equal", x, y)

    def logical(self, name: str, x: Value, y: Value) -> Value:
        return self.op(name, x, y)

    def not_(self, x: Value) -> Value:
        return self.op("not", x)

    def select(self, c: Value, x: Value, y: Value) -> Value:
        return self.op("select", c, x, y)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        return x if x.shape == tuple(shape) else self.op("reshape", x, shape=tuple(shape))

    def broadcast(self, x: Value, shape: Sequence[int]) -> Value:
        """NumPy broadcasting of `x` to `shape`."""
        shape = tuple(shape)
        if x.shape == shape:
            return x
        return self.op("broadcast", x, shape=shape, dims=tuple(range(len(shape) - len(x.shape), len(shape))))

    def slice(self, x: Value, axis: int, start: int, limit: int, stride: int = 1) -> Value:
        """x[..., start:limit:stride, ...] along `axis`."""
        lows, highs, steps = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
        lows[axis], highs[axis], steps[axis] = start, limit, stride
        return self.op("slice", x, start=tuple(lows), limit=tuple(highs), stride=tuple(steps))

    def concatenate(self, xs: Sequence[Value], axis: int) -> Value:
        return xs[0] if len(xs) == 1 else self.op("concatenate", *xs, axis=axis)

    def sum(self, x: Value, axes: Sequence[int]) -> Value:
        return self.op("sum", x, axes=tuple(axes)) if axes else x


def element_of(dtype: Any, frac: int) -> str:
    """The IR element type of a JAX dtype."""
    d = np.dtype(dtype)
    if d == np.bool_:
        return "bool"
    return d.name if kind_of(d) in "iu" else f"fxp{frac}"
