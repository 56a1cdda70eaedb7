"""Powers of |x| by its logarithm, where the protocol has the kernels: log2 |x| modulo 128 is cheap, and so is 2^y.

|x| raw = c 2^E, c in [1/2, 1]. A word with bit E alone (E - 1 if x is unsigned) comes from the bits of x by
`prefix_or`. It becomes E, in words of a byte, and sign(x) 2^(62 - E), so that x times it is c 2^62: twice that is, as a
fraction of the ring, half a turn times c, and log2 c is a sum of the harmonics of this angle. All of it is modulo 128,
as `exp2` takes its exponents: nothing is truncated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from spuvm.compiler.functions.polynomial import inject, plus, raw_constant, reread, times, times_integer
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value
from spuvm.runtime.ring.harmonics import COEFFICIENT, EXPONENT
from spuvm.runtime.ring.one_bit import PLACE
from spuvm.runtime.ring.times_power import LEAST

_KERNELS = {"exp2_abb", "harmonics_a", "power_b", "position_b"}
_MOST = 30  # fraction bits of x, so that reciprocals of a unit fit
_WORD = (1 << 63) - 1
_MIDDLE = 31  # of log2 |x raw|: less that, truncation takes it
_LOGARITHM, _FACTOR = 27, 29  # fraction bits of a logarithm and of what it is multiplied by


@dataclass(frozen=True)
class Harmonics:
    """constant + sum a_m sin(m pi c) + b_m cos(m pi c), m = 1, 2, ..."""

    constant: float
    sines: tuple[float, ...]
    cosines: tuple[float, ...]


# log2 c, c in [1/2, 1]: error 4.6e-8
LOG2 = Harmonics(
    constant=-1.0892166749,
    sines=(-0.2959002471, 0.2664084053, 0.1655296713, 0.03387258507, 0.001680179965),
    cosines=(-1.546987162, -0.5379534975, -0.07213367591, 0.01101296225, 0.002963672062),
)

# The same, and -2 at c = 0, which stands for numbers that have no logarithm: error 3.4e-8
LOG2_OR_LESS = Harmonics(
    constant=-0.22464825431,
    sines=(-1.4098494719, -0.71222225085, -0.11555914057, 0.06441580158, 0.02982577433, 0.00310216752),
    cosines=(-0.53598022351, -0.63318500997, -0.45014144697, -0.14311944239, -0.01387834605, 0.0009527232),
)


def available(b: Builder, frac: int) -> bool:
    """Whether the protocol has the kernels, for numbers of so many fraction bits."""
    return _KERNELS.issubset(b.kernels) and b.ring_bits == 64 and max(frac, b.frac) <= _MOST


def divides(b: Builder, frac: int, exponent: int) -> bool:
    """Whether there are quotients by numbers of so many fraction bits: 0 < drop <= -LEAST in `Magnitude.inverse`."""
    return "scaled_aa" in b.kernels and available(b, frac) and 0 < LEAST + 62 - exponent <= -LEAST


@dataclass(frozen=True)
class Inverse:
    """2^exponent with log2 of the inverse, and the signs, or 0, of what is not and what is scaled down before."""

    drop: int
    exponent: Value
    near: Value
    far: Value

    def map(self, function: Callable[[Value], Value]) -> Inverse:
        return Inverse(self.drop, *map(function, (self.exponent, self.near, self.far)))

    def times(self, b: Builder, x: Value) -> Value:
        """A quotient, raw. Error: relative 2e-6 and two units."""
        x = reread(b, x, b.ring_bits - 2)
        less = reread(b, b.trunc(x, self.drop), 0)
        chosen = b.add(b.mul_raw(reread(b, x, 0), self.near), b.mul_raw(less, self.far))
        return b.op("scaled", chosen, self.exponent, to="fxp0")


@dataclass(frozen=True)
class Magnitude:
    """Of x raw: the angle pi c as 2^63 c, the word with bit E - above alone below 63, and whether x is negative."""

    angle: Value
    word: Value
    above: int
    sign: Value | None

    def power(self, b: Builder, halves: int, exponent: float, lowest: int = -1) -> Value:
        """|x raw|^(halves / 2) 2^exponent, an integer below 2^62, with the sign of x; 0 if x is 0.

        What is below 2^lowest is 0. Error: relative 3e-7 and one unit. Where x is unsigned: 0 if it is negative.
        """
        y = self._logarithm(b, LOG2, halves, exponent)
        bools, factors = self._counts(b, halves, exponent, lowest)
        return b.op("exp2", y, *bools, to="fxp0", factors=factors, tops=(0,) * len(bools))

    def inverse(self, b: Builder, exponent: int) -> Inverse:
        """What quotients by x need, x_0 2^exponent / x raw; `exponent` fits, see `divides`.

        Numerators are scaled down by 2^-drop first where the exponent would be too low otherwise, that is E > last.
        What they lose is at most a unit of the quotient.
        """
        last, drop = exponent - LEAST, LEAST + 62 - exponent
        assert self.sign is not None
        masks = ((2 << last) - 1, _WORD & -(2 << last))
        here = [b.op("bit_parity", self.word, mask=mask) for mask in masks]
        negative = [b.logical("and", x, self.sign) for x in here]
        near, far, *others = inject(b, [*here, *negative]).rows(b)
        signs = [b.sub(x, times_integer(b, n, 2)) for x, n in zip((near, far), others)]
        y = self._logarithm(b, LOG2, -2, exponent)
        return Inverse(drop, b.add(y, reread(b, times_integer(b, far, drop << EXPONENT), EXPONENT)), *signs)

    def log(self, b: Builder, unit: float, shift: int, frac: int) -> Value:
        """unit (log2 |x raw| + shift), unit <= 1, with `frac` fraction bits; of half a unit if x is 0, or unsigned and
        negative.

        Error: 6e-8 and one unit.
        """
        y = self._logarithm(b, LOG2_OR_LESS, 2, -_MIDDLE)
        if unit == 1.0:
            return plus(b, b.trunc(y, EXPONENT - frac), float(_MIDDLE + shift))
        y = times(b, b.trunc(y, EXPONENT - _LOGARITHM), unit, _FACTOR)
        return b.trunc(plus(b, y, unit * (_MIDDLE + shift)), _LOGARITHM + _FACTOR - frac)

    def valid(self, b: Builder) -> Value:
        """1 if x has a logarithm, else 0."""
        return inject(b, [b.op("bit_parity", self.word, mask=_WORD)]).row(b, 0)

    def _logarithm(self, b: Builder, table: Harmonics, halves: int, more: float) -> Value:
        """log2 |x raw| halves / 2 + more, modulo 128."""
        y = b.op("position", self.word, to=f"fxp{PLACE}")
        y = reread(b, times_integer(b, y, halves), EXPONENT)
        y = b.add(y, _harmonics(b, self.angle, table, halves / 2))
        more += (table.constant + self.above) * halves / 2
        return b.add(y, raw_constant(b, round(more * 2**EXPONENT), EXPONENT, y.shape))

    def _counts(
        self, b: Builder, halves: int, exponent: float, lowest: int
    ) -> tuple[tuple[Value, ...], tuple[int, ...]]:
        """Bools, and what each counts for: the sign, or 0 where E says that the power is below 2^lowest."""
        last = math.floor((exponent - lowest) * 2 / -halves) - self.above if halves < 0 else 62
        counts = b.op("bit_parity", self.word, mask=(2 << min(last, 62)) - 1)
        if self.sign is None:
            return (counts,), (1,)
        return (counts, b.logical("and", counts, self.sign)), (1, -2)


def magnitude(b: Builder, x: Value, *, signed: bool) -> Magnitude:
    """Unsigned: x < 2^63, and no bit counts of a negative x."""
    word = b.word(x)
    if signed:
        fill = b.op("shift_right_arithmetic", word, bits=63)
        negative = b.op("shift_right_logical", word, bits=63)
        bits = b.logical("xor", b.op("shift_left", b.logical("xor", word, fill), bits=1), negative)
    else:
        bits = word
    thermometer = b.op("prefix_or", bits, bits=0)
    one = b.logical("xor", thermometer, b.op("shift_right_logical", thermometer, bits=1))
    if signed:
        one = b.logical("xor", one, b.op("shift_left", negative, bits=63))
    scaled = b.mul_raw(reread(b, x, 0), b.op("power", one, to="fxp0"))
    if not signed:
        return Magnitude(scaled, one, 1, None)
    return Magnitude(times_integer(b, scaled, 2), one, 0, b.op("bit_parity", word, mask=1 << 63))


def _harmonics(b: Builder, angle: Value, table: Harmonics, factor: float) -> Value:
    weights = tuple(
        (round(s * factor * 2**COEFFICIENT), round(c * factor * 2**COEFFICIENT))
        for s, c in zip(table.sines, table.cosines)
    )
    return b.op("harmonics", angle, weights=weights, step=1, to=f"fxp{EXPONENT}")
