"""Odd functions that saturate, in pieces: sigmoid, tanh, erf. Where the protocol has harmonics: functions/harmonics.py.

One comparison per piece says where x is; all of them run at once. Their results select the piece's centre
and coefficients as sums of public numbers, which is local, and one polynomial of degree 5 is evaluated for
all pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from spuvm.compiler.functions import chebyshev, harmonics
from spuvm.compiler.functions.polynomial import Stack, below, inject, linear_tables, raw_constant, reread, spread, stack
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value

Row = tuple[float, ...]


@dataclass(frozen=True)
class OddPieces:
    """f(x) = middle + g(x), g odd and of constant `tail` from the last edge on.

    `odd` has c1, c3, c5 (and more) of the piece around 0, a row of `outer` the centre m of a piece between two edges
    and c0 to c5 (and more) in x - m. Edges and centres are multiples of 2^-8.
    """

    middle: float
    tail: float
    edges: Row
    odd: Row
    outer: tuple[Row, ...]

    def pieces(self) -> list[Row]:
        """(m, c0, ..., c5) of all pieces from left to right, tails included."""
        centre = [0.0, *(c for odd in self.odd for c in (0.0, odd))]
        right = [*self.outer, (0.0, self.tail, *[0.0] * (len(centre) - 2))]
        left = [tuple(c if i and i % 2 == 0 else -c for i, c in enumerate(piece)) for piece in reversed(right)]
        return [*left, tuple(centre), *right]

    def thresholds(self) -> list[float]:
        return [-e for e in reversed(self.edges)] + list(self.edges)


# Errors of the tables, tails included: 4.5e-6, 3.1e-6, 2.7e-6
SIGMOID = OddPieces(
    middle=0.5,
    tail=0.5,
    edges=(0.98828125, 3.03515625, 6.55078125, 12.6015625),
    odd=(0.2499824381, -0.0206846649, 0.0017647278),
    outer=(
        (2.01171875, 0.3820263437, 0.1040621325, -0.0398305386, 0.006497306, 0.0010314225, -0.0006871248),
        (4.79296875, 0.4917758704, 0.0081511632, -0.0039821165, 0.0012939772, -0.0003259358, 0.0000513285),
        (9.578125, 0.4999277781, 0.0000718135, -0.0000288339, 0.0000097974, -0.0000044686, 0.0000008756),
    ),
)
TANH = OddPieces(
    middle=0.0,
    tail=1.0,
    edges=(0.3984375, 1.26171875, 2.3515625, 3.86328125, 6.69921875),
    odd=(0.999979389, -0.3322735678, 0.119540571),
    outer=(
        (0.828125, 0.679468896, 0.5383387012, -0.3658819335, 0.0685138331, 0.0768232054, -0.0565477768),
        (1.8046875, 0.9472906871, 0.1026348589, -0.0973144603, 0.0580644114, -0.0217324158, 0.0032644935),
        (3.109375, 0.9960225895, 0.0079382765, -0.007845119, 0.005194711, -0.0028441419, 0.0010876228),
        (5.28125, 0.9999467582, 0.0001060034, -0.0000904023, 0.0000611904, -0.0000508772, 0.000019971),
    ),
)
ERF = OddPieces(
    middle=0.0,
    tail=1.0,
    edges=(0.44921875, 1.265625, 2.13671875, 3.3203125),
    odd=(1.1283568476, -0.3752328773, 0.1038199911),
    outer=(
        (0.859375, 0.7757617375, 0.5391753789, -0.4631470537, 0.0851350883, 0.1144767505, -0.0600339923),
        (1.703125, 0.9839877473, 0.0620393867, -0.1058979553, 0.0995766861, -0.0462004642, 0.00143269),
        (2.7265625, 0.9998823152, 0.0006708535, -0.001694293, 0.0030015766, -0.004531626, 0.0034060634),
    ),
)
# Fraction bits of (x - centre)^2, and of the coefficients that it multiplies; |x - centre| < 8
_FRACS = {32: (8, 16), 64: (20, 28), 128: (44, 60)}


def _table(b: Builder, name: str, of_64: OddPieces) -> OddPieces:
    """In a ring of 128 bits: as many pieces of degree 9, or 15, as its fraction bits need."""
    if b.ring_bits < 128:
        return of_64
    edges, (first, *others), tail = chebyshev.pieces(name, min(b.frac + 3, 43), 9 if b.frac <= 30 else 15)
    outer = tuple((centre, *coefficients) for centre, coefficients in others)
    return OddPieces(of_64.middle, tail, edges, first[1][1::2], outer)


def sigmoid(b: Builder, x: Value) -> Value:
    """1 / (1 + e^-x), on all of the domain; exactly 0 and 1 beyond -12.61 and 12.61.

    Error: 6e-6 (pieces 4.5e-6) plus one unit, so that it may leave [0, 1] by as much; in a ring of 128 bits two units
    and 2^-41, with as many pieces.
    Cost: 9 rounds under ABY3, see `harmonics.odd_function`; in pieces 15 rounds, 8 comparisons, 8 bit
    injections, 5 truncated products.
    """
    return _odd(b, x, "sigmoid", SIGMOID, harmonics.SIGMOID)


def tanh(b: Builder, x: Value) -> Value:
    """The hyperbolic tangent, on all of the domain; exactly -1 and 1 beyond -6.7 and 6.7.

    Error: 4e-6 (pieces 3.1e-6) plus one unit. Cost: as sigmoid, with 10 pieces.
    """
    return _odd(b, x, "tanh", TANH, harmonics.TANH)


def erf(b: Builder, x: Value) -> Value:
    """2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x, on all of the domain; -1 or 1 beyond 3.33.

    Error: 4e-6 (pieces 2.7e-6) plus one unit. Cost: that of sigmoid.
    """
    return _odd(b, x, "erf", ERF, harmonics.ERF)


def _odd(b: Builder, x: Value, name: str, pieces: OddPieces, sines: harmonics.Sines) -> Value:
    if harmonics.available(b, x.type.frac):
        return harmonics.odd_function(b, x, sines)
    return piecewise(b, x, _table(b, name, pieces))


def piecewise(b: Builder, x: Value, table: OddPieces) -> Value:
    """c0 + c1 u + q (c2 + c3 u + q (c4 + c5 u + ...)), u = x - centre, q = u^2, centre and c_i those of x's piece.

    In the tails c1 to c5 are zero, and a product with zero is zero whatever u and q may be.
    """
    f, (square, inner_frac) = x.type.frac, _FRACS[b.ring_bits]
    sum_frac = square + inner_frac
    thresholds = [raw_constant(b, round(t * 2**f), f, x.shape) for t in table.thresholds()]
    pieces = table.pieces()
    fracs = [f, sum_frac, sum_frac - f, *[inner_frac] * (len(pieces[0]) - 3)]
    entries = [[round(c * 2.0**k) for c, k in zip(piece, fracs)] for piece in pieces]
    chosen = _choose(b, inject(b, below(b, x, thresholds)), entries)
    centre, c0, c1, *others = (reread(b, v, k) for v, k in zip(chosen, fracs))
    even, odd = others[::2], others[1::2]
    u = b.sub(x, centre)
    q = b.with_frac(b.mul_raw(u, u), square)
    products = stack(b, odd).map(b.mul_raw, spread(b, u, len(odd)))
    slopes = products.map(lambda v: b.trunc(v, f))
    inner = b.add(even[-1], slopes.row(b, len(odd) - 1))
    for i in reversed(range(len(odd) - 1)):
        inner = b.add(b.add(even[i], slopes.row(b, i)), b.trunc(b.mul_raw(q, inner), square))
    total = b.add(b.add(b.mul_raw(c1, u), b.mul_raw(q, inner)), c0)
    total = b.add(total, raw_constant(b, round(table.middle * 2**sum_frac), sum_frac, x.shape))
    return b.trunc(total, sum_frac - b.frac)


def _choose(b: Builder, lower: Stack, entries: list[list[int]]) -> list[Value]:
    """The entries of x's piece: the last one's, and the step between pieces for each threshold above x."""
    steps = [[p - q for p, q in zip(left, right)] for left, right in pairwise(entries)]
    sums = linear_tables(b, lower, [list(column) for column in zip(*steps)])
    return [b.add(x, raw_constant(b, last, 0, x.shape)) for x, last in zip(sums, entries[-1])]
