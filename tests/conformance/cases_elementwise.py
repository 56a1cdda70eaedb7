"""The table, element by element: arithmetic, functions, logic, types."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy import special

from conformance.table import (
    ALL,
    ANY,
    ANY_SMALL,
    BOOL,
    BOOLS,
    EXACT,
    FEW,
    FLOATS,
    FROM_ONE,
    INTS,
    MANY,
    NONZERO,
    NUMBERS,
    ODD,
    POSITIVE,
    SCALAR,
    SIGNED,
    UNIT,
    WITHIN_ONE,
    Case,
    alike,
    binary,
    broadcast,
    elementwise,
    index,
    unary,
    uniform,
)
from spuvm.compiler.functions.precision import STATED, Stated

WIDE = uniform(-20, 20, (-20, 21))
SHIFTED = uniform(-0.75, 8)
AMOUNTS = np.array([0, 1, 2, 3, 5])


ARITHMETIC = [
    binary("add", lax.add, ANY, ANY, NUMBERS),
    binary("sub", lax.sub, ANY, ANY, NUMBERS),
    binary("mul", lax.mul, ANY, ANY, NUMBERS, UNIT),
    unary("neg", lax.neg, ANY, NUMBERS),
    unary("square", lax.square, ANY, NUMBERS, UNIT),
    binary("div", lax.div, NONZERO, NONZERO, FLOATS),
    Case("div", lambda x: x / 3, (ANY_SMALL,), elementwise(1), FLOATS, UNIT, "by a constant"),
    Case("div", lambda x: lax.div(x, jnp.full_like(x, 3)), (ANY,), elementwise(1), INTS, EXACT, "by a constant"),
    binary("div", lax.div, ANY, NONZERO, INTS),
    binary("rem", lax.rem, WIDE, NONZERO, (*FLOATS, *INTS)),
    Case("rem", lambda x: lax.rem(x, jnp.full_like(x, 3)), (ANY,), elementwise(1), INTS, EXACT, "by a constant"),
    unary("sign", lax.sign, ANY, NUMBERS),
    unary("abs", lax.abs, ANY_SMALL, (*FLOATS, *SIGNED)),
    unary("floor", lax.floor, WIDE),
    unary("ceil", lax.ceil, WIDE),
    Case("round", partial(lax.round, rounding_method=lax.RoundingMethod.TO_NEAREST_EVEN), (WIDE,), elementwise(1)),
    Case("round", partial(lax.round, rounding_method=lax.RoundingMethod.AWAY_FROM_ZERO), (WIDE,), elementwise(1)),
    Case("integer_pow", lambda x: lax.integer_pow(x, 3), (ANY_SMALL,), elementwise(1), NUMBERS, FEW),
    Case("integer_pow", lambda x: lax.integer_pow(x, -2), (NONZERO,), elementwise(1), FLOATS, MANY),
    binary("pow", lax.pow, POSITIVE, uniform(-2, 2), FLOATS),
    Case("pow", lambda x: x**2.5, (POSITIVE,), elementwise(1), FLOATS, FEW, "a constant exponent"),
]

FUNCTIONS = [
    *(unary(n, f, uniform(-6, 6)) for n, f in (("exp", lax.exp), ("exp2", jnp.exp2), ("expm1", lax.expm1))),
    *(unary(n, f, POSITIVE) for n, f in (("log", lax.log), ("sqrt", lax.sqrt), ("rsqrt", lax.rsqrt))),
    unary("log1p", lax.log1p, SHIFTED),
    unary("logistic", lax.logistic, WIDE),
    *(unary(n, f, WIDE) for n, f in (("tanh", lax.tanh), ("erf", lax.erf), ("erfc", lax.erfc))),
    *(
        unary("erfc", f, o, FLOATS[:2], STATED[n], f"in {n}")
        for n, f, o in (("log_ndtr", special.log_ndtr, WIDE), ("erfcx", special.erfcx, uniform(-2, 40)))
    ),
    *(unary(n, f, WIDE) for n, f in (("sin", lax.sin), ("cos", lax.cos), ("asinh", lax.asinh), ("atan", lax.atan))),
    unary("tan", lax.tan, uniform(-1.5, 1.5)),
    *(unary(n, f, uniform(-6, 6)) for n, f in (("sinh", lax.sinh), ("cosh", lax.cosh))),
    unary("acosh", lax.acosh, FROM_ONE),
    *(unary(n, f, WITHIN_ONE) for n, f in (("atanh", lax.atanh), ("asin", lax.asin), ("acos", lax.acos))),
    unary("erf_inv", lax.erf_inv, WITHIN_ONE),
    unary("cbrt", lax.cbrt, WIDE),
    *(
        unary(n, f, POSITIVE, stated=Stated("", 1e-5, 2e-5))
        for n, f in (("lgamma", lax.lgamma), ("digamma", lax.digamma))
    ),
    binary("atan2", lax.atan2, ANY_SMALL, NONZERO),
    *(
        binary(n, f, POSITIVE, POSITIVE, FLOATS[:2], Stated("", absolute=1.5e-4, units=16))
        for n, f in (("igamma", lax.igamma), ("igammac", lax.igammac))
    ),
    Case(
        "regularized_incomplete_beta",
        broadcast(lax.betainc),
        (POSITIVE, POSITIVE, uniform(0, 1)),
        elementwise(3),
        FLOATS[:2],
        Stated("", absolute=3e-4, units=32),
    ),
    *(
        unary(n, f, WIDE, FLOATS[:2], Stated("", absolute=1e-5, units=2))
        for n, f in (("bessel_i0e", lax.bessel_i0e), ("bessel_i1e", lax.bessel_i1e))
    ),
    binary("zeta", lax.zeta, uniform(1.25, 4), POSITIVE, FLOATS[:2], Stated("", relative=6e-5, absolute=6e-5)),
    unary(
        "polygamma",
        lambda x: lax.polygamma(jnp.full_like(x, 1), x),
        POSITIVE,
        FLOATS[:2],
        Stated("", relative=4e-5, absolute=6e-5),
    ),
]

LOGIC = [
    *(
        binary(n, f, ANY, ANY, ALL)
        for n, f in (("lt", lax.lt), ("le", lax.le), ("gt", lax.gt), ("ge", lax.ge), ("eq", lax.eq), ("ne", lax.ne))
    ),
    *(
        Case(n, lambda x, f=f: f(x, lax.rev(x, (1,))), (ANY_SMALL,), alike(1, ODD), FLOATS, note="total order")
        for n, f in (("lt_to", lax.lt_to_p.bind), ("le_to", lax.le_to_p.bind), ("eq_to", lax.eq_to_p.bind))
    ),
    *(binary(n, f, ANY, ANY, ALL) for n, f in (("max", lax.max), ("min", lax.min))),
    Case(
        "clamp",
        lambda a, x, b: lax.clamp(lax.min(a, b), x, lax.max(a, b)),
        (ANY, ANY, ANY),
        (*alike(3, ODD), ((), ODD, ())),
        NUMBERS,
    ),
    *(
        binary(n, f, ANY, ANY, (*INTS, *BOOL))
        for n, f in (("and", lax.bitwise_and), ("or", lax.bitwise_or), ("xor", lax.bitwise_xor))
    ),
    unary("not", lax.bitwise_not, ANY, (*INTS, *BOOL)),
    *(
        Case(
            n,
            lambda x, f=f: f(x, jnp.broadcast_to(jnp.asarray(AMOUNTS, x.dtype), x.shape)),
            (ANY,),
            alike(1, ODD, (5,)),
            INTS,
        )
        for n, f in (
            ("shift_left", lax.shift_left),
            ("shift_right_logical", lax.shift_right_logical),
            ("shift_right_arithmetic", lax.shift_right_arithmetic),
        )
    ),
    Case("shift_left", lax.shift_left, (ANY, uniform(0, 4)), alike(2, ODD), ("int32",), note="an amount at run time"),
    unary("population_count", lax.population_count, ANY, INTS),
    unary("clz", lax.clz, ANY, INTS),
    unary("is_finite", lax.is_finite, ANY),
    Case(
        "select_n", lambda c, x, y: lax.select(*jnp.broadcast_arrays(c, x, y)), (BOOLS, ANY, ANY), elementwise(3), ALL
    ),
    Case("select_n", lambda i, *xs: lax.select_n(i, *xs), (index(3), ANY, ANY, ANY), alike(4, SCALAR, ODD), ALL),
    *(
        Case("convert_element_type", lambda x, t=t: lax.convert_element_type(x, t), (WIDE,), elementwise(1), ALL)
        for t in ("float32", "int32", "int8", "bool")
    ),
    Case("convert_element_type", lambda x: lax.convert_element_type(x, "uint8"), (POSITIVE,), elementwise(1), ALL),
]
