"""Encoding of constants, and products with them."""

from __future__ import annotations

import numpy as np
import pytest

from spuvm.compiler.ir import fixedpoint
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Type, Value
from spuvm.runtime.errors import EncodingError
from spuvm.runtime.ring.elements import signed

FRAC = 18


def test_rounds_to_nearest() -> None:
    assert signed(fixedpoint.encode([0.5, -1.25, 2.0**-19, -(2.0**-20)], FRAC)).tolist() == [1 << 17, -5 << 16, 0, 0]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 2.0**44, -(2.0**44)])
def test_refuses_what_does_not_fit(number: float) -> None:
    with pytest.raises(EncodingError):
        fixedpoint.encode([0.0, number], FRAC)


def test_the_largest_numbers_fit() -> None:
    largest = np.nextafter(2.0**44, 0)
    assert abs(signed(fixedpoint.encode(largest, FRAC))) < 2**62


def test_comparisons_clip() -> None:
    assert signed(fixedpoint.clipped([np.inf, -1e300, 1.0], FRAC)).tolist() == [2**62, -(2**62), 1 << FRAC]


@pytest.mark.parametrize("c", [0.9, 0.5, 0.1, 1e-3, 1e-5, 2.0**-17])
def test_small_constants_keep_18_to_20_significant_bits(c: float) -> None:
    frac = fixedpoint.constant_frac(np.array(c), FRAC)
    assert 2**17 <= c * 2.0**frac < 2**20


def test_large_constants_leave_products_room() -> None:
    """32 significant bits of them; what is mixed, infinite or too large keeps the default, and is refused as ever."""
    for c, frac in ((2.0**14 - 0.5, 18), (3984010.99, 10), (2.0**40 + 0.5, 0)):
        assert fixedpoint.constant_frac(np.array(c), FRAC) == frac
    for many in ([1e5, 0.25], [np.inf, 1e5], [1e15 + 0.5]):
        assert fixedpoint.constant_frac(np.array(many), FRAC) == FRAC


def test_repeated_numbers_are_broadcast() -> None:
    b = Builder(FRAC)
    assert [fixedpoint.constant(b, np.full((3, 4), 7), "int64").shape, len(b.region.ops)] == [(3, 4), 2]
    assert b.region.ops[0].output.shape == ()


PRODUCTS = {
    3.0: ["const", "broadcast", "mul"],
    1.0: [],
    -1.0: ["neg"],
    0.25: ["bitcast", "trunc"],
    -0.25: ["bitcast", "trunc", "neg"],
    0.1: ["const", "broadcast", "mul", "trunc"],
    2.0**21: ["const", "broadcast", "mul", "trunc"],
}


@pytest.mark.parametrize("c", PRODUCTS)
def test_products_with_constants(c: float) -> None:
    b = Builder(FRAC)
    x = Value(Type("fxp", (4,), frac=FRAC))
    b.region.params.append(x)
    b.region.results.append(fixedpoint.mul_constant(b, x, c))
    assert [op.name for op in b.region.ops] == PRODUCTS[c]
    real = np.array([0.0, 1.5, -2.75, 31.0])
    (out,) = evaluate(b.region, [fixedpoint.encode(real, FRAC)])
    np.testing.assert_allclose(out.view(np.int64) / 2.0**FRAC, real * c, atol=2.0**-FRAC, rtol=2.0**-17)
