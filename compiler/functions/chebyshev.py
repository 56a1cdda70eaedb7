"""Polynomials for rings and fraction bits that the tables do not serve: worked out when compiling, to any precision.

Interpolation at Chebyshev's nodes, whose error is within a small factor of the best polynomial's, in decimal
numbers of 60 digits: the same coefficients on every machine, as parties that compile by themselves need.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from functools import cache
from itertools import pairwise

Function = Callable[[Decimal], Decimal]

DIGITS = 60
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803")
_GRID = 1 << 20  # nodes are multiples of its inverse: cosines need not agree in their last bits
LARGEST_DEGREE = 15


def _series(first: Decimal, ratio: Callable[[int], Decimal]) -> Decimal:
    """first (1 + ratio(0) (1 + ratio(1) (...))), until terms no longer count."""
    term, total, n = first, first, 0
    while abs(term) > Decimal(10) ** -(DIGITS - 5):
        term *= ratio(n)
        total += term
        n += 1
    return total


def _sine_ratio(q: Decimal) -> Decimal:
    """sin(pi/2 u) / u as a function of q = u^2."""
    y = PI / 2
    return _series(y, lambda n: -q * y * y / ((2 * n + 2) * (2 * n + 3)))


def _erf(x: Decimal) -> Decimal:
    if abs(x) > 8:  # 1 - erf 8 < 1e-28
        return Decimal(1).copy_sign(x)
    factor = 2 / PI.sqrt() * (-x * x).exp()  # a series without cancellation
    return _series(factor * x, lambda n: 2 * x * x / (2 * n + 3))


def _atan(v: Decimal) -> Decimal:
    """Halved twice, so that the series converges fast."""
    for _ in range(2):
        v = v / (1 + (1 + v * v).sqrt())
    total = term = v
    for n in range(3, 4 * DIGITS, 2):
        term *= -v * v
        total += term / n
    return 4 * total


def _sigmoid(x: Decimal) -> Decimal:
    return 1 / (1 + (-x).exp()) - Decimal("0.5")


def _erf_inv_ratio(w: Decimal) -> Decimal:
    """erf_inv(x) / x for w = -ln(1 - x^2), by Newton's method from Winitzki's estimate."""
    if not w:
        return PI.sqrt() / 2
    x = (1 - (-w).exp()).sqrt()
    half = 2 / (PI * Decimal("0.147")) - w / 2
    y = ((half * half + w / Decimal("0.147")).sqrt() - half).sqrt()
    for _ in range(6):
        y -= (_erf(y) - x) * PI.sqrt() / 2 * (y * y).exp()
    return y / x


# B_2n, n = 1, 2, ...
_BERNOULLI = [
    Decimal(a) / b for a, b in ((1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6), (-3617, 510))
]
_FAR_OUT = 7  # from where on a fraction of 120 terms has 25 digits, and the series so few left
_FAR = 60  # from where on Stirling's series with these is good to 1e-30


def _lgamma(x: Decimal) -> Decimal:
    z = x + _FAR
    series = sum((c / (2 * n * (2 * n - 1) * z ** (2 * n - 1)) for n, c in enumerate(_BERNOULLI, 1)), Decimal(0))
    far = (z - Decimal("0.5")) * z.ln() - z + (2 * PI).ln() / 2 + series
    return far - sum(((x + i).ln() for i in range(_FAR)), Decimal(0))


def _digamma(x: Decimal) -> Decimal:
    z = x + _FAR
    series = sum((c / (2 * n * z ** (2 * n)) for n, c in enumerate(_BERNOULLI, 1)), Decimal(0))
    return z.ln() - 1 / (2 * z) - series - sum((1 / (x + i) for i in range(_FAR)), Decimal(0))


def _erfc_tail(t: Decimal) -> Decimal:
    """ln (e^(z^2) erfc(z) / t) with t = 1 / (1 + z / 2): far out by a continued fraction."""
    if not t:
        return -(2 * PI.sqrt()).ln()
    z = 2 / t - 2
    if z < _FAR_OUT:
        return (z * z + (1 - _erf(z)).ln()) - t.ln()
    rest = Decimal(0)
    for n in range(2 * DIGITS, 0, -1):
        rest = n / (2 * (z + rest))
    return -(PI.sqrt() * (z + rest) * t).ln()


# Of u in [-1/2, 1/2]; c = 3/4 + u/2. Some are of u + 1/2, one of 5/2 + u.
NORMALIZED: dict[str, Function] = {
    "reciprocal": lambda u: 1 / (Decimal("0.75") + u / 2),
    "log": lambda u: (Decimal("0.75") + u / 2).ln(),
    "log2": lambda u: (Decimal("0.75") + u / 2).ln() / Decimal(2).ln(),
    "sqrt": lambda u: (Decimal("0.75") + u / 2).sqrt(),
    "rsqrt": lambda u: 1 / (Decimal("0.75") + u / 2).sqrt(),
    "exp2": lambda u: ((u + Decimal("0.5")) * Decimal(2).ln()).exp(),
    "atan": lambda u: _atan(u + Decimal("0.5")),
    "sine": lambda u: _sine_ratio(u + Decimal("0.5")),
    "erf_inv": lambda u: _erf_inv_ratio(5 * (u + Decimal("0.5"))),
    "erf_inv_tail": lambda u: _erf_inv_ratio(5 + Decimal("7.5") * (u + Decimal("0.5"))),
    "erfc_tail": lambda u: _erfc_tail(u + Decimal("0.5")),
    "lgamma": lambda u: _lgamma(u + Decimal("2.5")),
    "digamma": lambda u: _digamma(u + Decimal("2.5")),
}
ODD: dict[str, Function] = {"sigmoid": _sigmoid, "tanh": lambda x: 2 * _sigmoid(2 * x), "erf": _erf}


def interpolation(f: Function, middle: Decimal, radius: Decimal, degree: int) -> list[Decimal]:
    """Coefficients c_i of u^i, u = x - middle, of the polynomial that meets f at Chebyshev's nodes."""
    n = degree + 1
    cosines = (round(math.cos(math.pi * (2 * j + 1) / (2 * n)) * _GRID) for j in range(n))
    nodes = [radius * c / _GRID for c in cosines]
    differences = [f(middle + u) for u in nodes]
    for i in range(1, n):
        for j in range(n - 1, i - 1, -1):
            differences[j] = (differences[j] - differences[j - 1]) / (nodes[j] - nodes[j - i])
    out = [Decimal(0)] * n
    for difference, node in zip(reversed(differences), reversed(nodes)):  # Newton's form, multiplied out
        out = [difference - node * out[0], *(low - node * high for low, high in pairwise(out))]
    return out


def error(f: Function, middle: Decimal, radius: Decimal, coefficients: Sequence[Decimal]) -> Decimal:
    """The largest error at points between the nodes, ends included."""
    count = 8 * len(coefficients)
    worst = Decimal(0)
    for j in range(count + 1):
        u = radius * (2 * j - count) / count
        value = Decimal(0)
        for c in reversed(coefficients):
            value = value * u + c
        worst = max(worst, abs(value - f(middle + u)))
    return worst


@cache
def normalized(name: str, bits: int) -> tuple[float, ...]:
    """Coefficients of NORMALIZED[name], of the least odd degree whose error is below 2^-bits."""
    f, half = NORMALIZED[name], Decimal("0.5")
    with localcontext() as context:
        context.prec = DIGITS
        for degree in range(3, LARGEST_DEGREE + 1, 2):
            found = interpolation(f, Decimal(0), half, degree)
            if error(f, Decimal(0), half, found) < Decimal(2) ** -bits:
                break
        return tuple(map(float, found))


Piece = tuple[float, tuple[float, ...]]  # its centre, and the coefficients in x - centre


@cache
def pieces(name: str, bits: int, degree: int) -> tuple[tuple[float, ...], tuple[Piece, ...], float]:
    """An odd function in pieces of a degree, each as wide as an error below 2^-bits allows.

    The edges on the right (multiples of 2^-8), the pieces (the first is around 0), and what it is beyond.
    """
    f = ODD[name]
    edges: list[int] = []  # times 2^8
    out: list[Piece] = []
    with localcontext() as context:
        context.prec = DIGITS
        bound = Decimal(2) ** -bits
        tail = f(Decimal(64))
        last = bisect_left(range(64 * 256), True, key=lambda e: tail - f(Decimal(e) / 256) < bound / 2)
        while not edges or edges[-1] < last:
            edge, found = _widest(f, edges, last, bound, degree)
            edges.append(edge)
            out.append(found)
        return tuple(e / 256 for e in edges), tuple(out), float(tail)


def _widest(f: Function, edges: list[int], last: int, bound: Decimal, degree: int) -> tuple[int, Piece]:
    """The next edge, up to `last` or one more, and the piece before it. Centres are multiples of 2^-8 too."""
    start = edges[-1] if edges else 0
    widest = 256 * (4 if degree <= 9 else 2)  # powers of more would magnify what the coefficients are rounded by
    step, best = 256 * 4, None
    end = start
    while step:
        middle, radius = ((start + end + step) / 2, (end + step - start) / 2) if edges else (0, end + step)
        if middle == int(middle) and radius <= widest and end + step <= last + 1:
            args = f, Decimal(int(middle)) / 256, Decimal(radius) / 256
            found = interpolation(*args, degree)
            if error(*args, found) < bound:
                end, best = end + step, (float(args[1]), tuple(map(float, found)))
                continue
        step //= 2
    assert best is not None, "pieces of 2^-7 are too wide for the precision"
    if not edges:
        best = (best[0], tuple(c if i % 2 else 0.0 for i, c in enumerate(best[1])))
    return end, best
