"""What the tails of the normal distribution and the inverse error function need; errors are for f = 18."""

from __future__ import annotations

from spuvm.compiler.functions.division import reciprocal
from spuvm.compiler.functions.polynomial import constant, plus, polynomial, table, times, work
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value

# L(1/2 + u), |u| <= 1/2; error 3.2e-7. The odd coefficients are multiples of 2^-16.
TAIL = (
    -0.6717940517728869,
    1.3452911376953125,
    0.1893698835268715,
    -0.3753204345703125,
    -0.15793498393984912,
    0.282867431640625,
    0.11343292248580185,
    -0.284454345703125,
    -0.05271943594257373,
    0.2091827392578125,
)

# erf_inv(x) / x for w = -ln(1 - x^2) = 5 (u + 1/2) and 5 + 15/2 (u + 1/2), |u| <= 1/2; errors 2.7e-6, 6.2e-7
ERF_INV = (
    1.5014067405990277,
    1.2332000732421875,
    -0.10431125138439554,
    -0.156768798828125,
    0.13504047398192284,
    -0.0132904052734375,
    -0.04794375178294351,
    0.02581787109375,
)
ERF_INV_TAIL = (
    2.790963007950776,
    1.268798828125,
    -0.2549935943725153,
    0.0915985107421875,
    -0.031651259067835565,
    0.0014190673828125,
    0.0199958204509646,
    -0.02008056640625,
)
_U = {32: 8, 64: 20, 128: 40}  # fraction bits of u
_TAIL, _END = 5.0, 12.5  # of w; beyond the end, |x| > 1 - 1.9e-6, the result stays


def erfc_tail(b: Builder, y: Value) -> Value:
    """L(1 / y): an inverse with more fraction bits than the result, then the polynomial."""
    frac, b.frac = b.frac, work(b)
    try:
        inverse = reciprocal(b, y)
    finally:
        b.frac = frac
    return polynomial(b, plus(b, inverse, -0.5), table(b, "erfc_tail", TAIL), frac)


def erf_inv_ratio(b: Builder, w: Value) -> Value:
    """erf_inv(x) / x of w: both polynomials, and a choice; what the other one gives may overflow and is dropped."""
    near = plus(b, times(b, w, 1 / _TAIL, work(b)), -0.5)
    far = plus(b, times(b, w, 1 / (_END - _TAIL), work(b)), -_TAIL / (_END - _TAIL) - 0.5)
    small = b.less(w, constant(b, _TAIL, w.type.frac, w.shape))
    near, far = (
        polynomial(b, b.with_frac(u, _U[b.ring_bits]), table(b, name, of_64), b.frac)
        for u, name, of_64 in ((near, "erf_inv", ERF_INV), (far, "erf_inv_tail", ERF_INV_TAIL))
    )
    return b.select(small, near, far)
