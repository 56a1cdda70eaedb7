"""Columns on the machine: arrays [rows] with secret NULLs, and their conversions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import jax.numpy as jnp
import numpy as np

from spuvm.compiler.lower.rows import LARGEST_BITS, quotient_p
from spuvm.runtime.errors import InputError
from spuvm.sql.types import FLOAT, Type, raw, words_of

Array = Any
DTYPES = {"bool": jnp.bool_, "float": jnp.float64}


@dataclass(frozen=True, eq=False)
class Vec:
    """A column. `words`: one array; of text, one for each word. `valid`: bool, or None if nothing is NULL.

    Where it is NULL, the words are zero.
    """

    type: Type
    words: tuple[Array, ...]
    valid: Array | None = None

    @property
    def value(self) -> Array:
        (out,) = self.words
        return out

    @property
    def rows(self) -> int:
        return int(self.words[0].shape[0])

    def map(self, f: Any) -> Vec:
        """The same rearrangement of all arrays."""
        return replace(self, words=tuple(map(f, self.words)), valid=None if self.valid is None else f(self.valid))

    @property
    def arrays(self) -> tuple[Array, ...]:
        return self.words if self.valid is None else (*self.words, self.valid)

    def rebuilt(self, arrays: Sequence[Array]) -> Vec:
        """With other arrays in the order of `arrays`."""
        count = len(self.words)
        return replace(self, words=tuple(arrays[:count]), valid=None if self.valid is None else arrays[count])


def dtype(type_: Type) -> Any:
    return DTYPES.get(type_.kind, jnp.int64)


def literal(type_: Type, raw: Any, rows: int) -> Vec:
    """A constant column; `raw` None is NULL."""
    if raw is None:
        zeros = tuple(jnp.zeros(rows, dtype(type_)) for _ in range(type_.parts))
        return Vec(type_, zeros, jnp.zeros(rows, jnp.bool_))
    values = raw if type_.kind == "text" and type_.dictionary is None else (raw,)
    return Vec(type_, tuple(jnp.full(rows, v, dtype(type_)) for v in values))


def written(values: Sequence[Any], type_: Type) -> Vec:
    """A column of constants, one for each row; None is NULL."""
    there = np.array([v is not None for v in values])
    if type_.kind == "null":
        return literal(type_, None, len(values))
    if type_.kind == "text":
        words = words_of(values, type_.words)
        found = tuple(jnp.asarray(words[:, k]) for k in range(type_.words))
    else:
        zero = dtype(type_)(0)
        found = (jnp.asarray([zero if v is None else raw(v, type_) for v in values], dtype(type_)),)
    return Vec(type_, found, None if there.all() else jnp.asarray(there))


# Validity ---------------------------------------------------------------------------------------------------


def both(*valid: Array | None) -> Array | None:
    """The conjunction, where None is true."""
    some = [v for v in valid if v is not None]
    return reduce(jnp.logical_and, some) if some else None


def either(x: Array | None, y: Array | None) -> Array | None:
    return None if x is None or y is None else x | y


def chosen(condition: Array | None, x: Array) -> Array:
    """x where the condition holds, else zero."""
    if condition is None:
        return x
    if x.dtype == jnp.bool_:
        return condition & x
    return jnp.where(condition, x, jnp.zeros_like(x))


def nulled(x: Vec, valid: Array | None) -> Vec:
    """The column with `valid` in place of its own; zeros where it does not hold."""
    return Vec(x.type, tuple(chosen(valid, w) for w in x.words), valid)


def truth(x: Vec) -> Array:
    """Where it is true: neither false nor NULL."""
    if x.type.kind == "null":
        return jnp.zeros(x.rows, jnp.bool_)
    return x.value if x.valid is None else x.value & x.valid


def number(flag: Array) -> Array:
    """1 where true."""
    return flag.astype(jnp.int64)


# Conversions ------------------------------------------------------------------------------------------------


def rescaled(x: Array, digits: int) -> Array:
    """An integer times 10^digits; digits are dropped by rounding half away from zero."""
    if digits >= 0:
        return x * 10**digits if digits else x
    unit = 10**-digits
    half = jnp.where(x < 0, -(unit // 2), unit // 2)
    return quotient_of(x + half, unit)


def quotient_of(x: Array, unit: int) -> Array:
    """x / unit, toward zero, by a public number."""
    return jnp.sign(x) * (jnp.abs(x) // unit)


def floats(x: Vec) -> Array:
    """The numbers as fixed point."""
    if x.type.kind == "float":
        return x.value
    if x.type.kind == "bool":
        return x.value.astype(jnp.float64)
    if x.type.size >= FLOAT:
        digits = 0
        while x.type.size // 10**digits >= FLOAT:
            digits += 1
        if digits > x.type.scale:
            raise InputError(
                f"a number of up to {x.type.size // 10**x.type.scale:,} as double: the machine's doubles end at 2^40. "
                "Keep it a decimal, or divide first."
            )
        return rescaled(x.value, -digits).astype(jnp.float64) / 10 ** (x.type.scale - digits)
    out = x.value.astype(jnp.float64)
    return out / 10**x.type.scale if x.type.scale else out


def converted(x: Vec, type_: Type) -> Vec:
    """The column as another type; NULL stays NULL."""
    return replace(_converted(x, type_), valid=x.valid)


def _converted(x: Vec, type_: Type) -> Vec:
    have, want = x.type.kind, type_.kind
    if have == "null":
        return literal(type_, None, x.rows)
    if want == "text":
        if x.type.dictionary == type_.dictionary and type_.dictionary is not None:
            return replace(x, type=type_)
        assert x.type.dictionary is None and type_.dictionary is None, "text by code beside text that is not"
        zeros = (jnp.zeros(x.rows, jnp.int64),) * max(0, type_.words - len(x.words))
        return Vec(type_, (*x.words, *zeros)[: type_.words])
    if want == "float":
        return Vec(type_, (floats(x),))
    if want == "bool":
        return Vec(type_, (x.value if have == "bool" else x.value != 0,))
    if have == "bool":
        return Vec(type_, (number(x.value) * 10**type_.scale,))
    if have == "float":
        scaled = x.value * 10**type_.scale
        return Vec(type_, (jnp.floor(scaled + 0.5).astype(jnp.int64),))
    if {have, want} == {"date", "timestamp"}:
        day = 86_400_000_000
        return Vec(type_, (x.value * day if have == "date" else x.value // day,))
    return Vec(type_, (rescaled(x.value, type_.scale - x.type.scale),))


def divided(x: Array, y: Array, size: int, divisor: int, digits: int) -> Array:
    """x 10^digits / y, toward zero, for integers |x| <= size and |y| <= divisor; by zero it is nothing in particular.

    Digit by digit as far as the machine's quotients of 60 bits reach: 10^j x / y = 10^j (x / y) + 10^j (x mod y) / y.
    """
    x, y = jnp.broadcast_arrays(x, y)
    out = None
    while True:
        step = min(digits, _spare(size))
        bits = max((size * 10**step).bit_length(), divisor.bit_length())
        if bits > LARGEST_BITS or (step == 0 and digits and out is not None):
            raise InputError(
                f"a division by numbers of up to {divisor.bit_length()} bits: the machine has {LARGEST_BITS}, and "
                f"needs some "
                "for digits. Cast to fewer digits first."
            )
        part = quotient_p.bind(x * 10**step, y, bits=bits)
        out = part if out is None else out * 10**step + part
        digits -= step
        if digits == 0:
            return out
        x, size = x * 10**step - part * y, divisor


def _spare(size: int) -> int:
    """Digits that a number of this size can still take."""
    step = 0
    while (size * 10 ** (step + 1)).bit_length() <= LARGEST_BITS:
        step += 1
    return step


def joined(parts: Iterable[Vec], type_: Type) -> Vec:
    """Rows of one column behind those of another."""
    vecs = [converted(p, type_) for p in parts]
    words = tuple(jnp.concatenate(ws) for ws in zip(*(v.words for v in vecs)))
    if all(v.valid is None for v in vecs):
        return Vec(type_, words)
    valid = [jnp.ones(v.rows, jnp.bool_) if v.valid is None else v.valid for v in vecs]
    return Vec(type_, words, jnp.concatenate(valid))
