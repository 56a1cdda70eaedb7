"""The cube root."""

from __future__ import annotations

from spuvm.compiler.functions.exp import exponential
from spuvm.compiler.functions.log import LOG_FRAC, log2_and_valid
from spuvm.compiler.functions.polynomial import constant, raw_constant, times_integer
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value

_THIRD = {32: 10, 64: 28, 128: 60}  # fraction bits of 1/3; log2 |x| < 2^6 and 6 + 26 + 28 < 62


def cbrt(b: Builder, x: Value) -> Value:
    """sign(x) 2^(log2 |x| / 3); 0 for 0. Error: relative 6e-6 plus one unit. Cost: 41 rounds, 705 bytes."""
    negative = b.convert(b.less(x, raw_constant(b, 0, x.type.frac, x.shape)), "fxp0")
    sign = b.sub(constant(b, 1, 0, x.shape), times_integer(b, negative, 2))
    third = _THIRD[b.ring_bits]
    logarithm, valid = log2_and_valid(b, b.mul_raw(x, sign), LOG_FRAC[b.ring_bits])
    size = exponential(b, logarithm, (2**third + 1) // 3, third)
    return b.mul_raw(size, b.mul_raw(sign, valid))
