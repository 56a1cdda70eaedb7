"""The non-linear functions over their whole domains, on the plain evaluator with truncation jitter.

Bounds are those of compiler/precision.py: |error| <= relative |result| + absolute + units 2^-f.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.special import erf as exact_erf
from scipy.special import expit
from sweeps import SWEEPS, between, magnitudes, measure, signed

from spuvm.compiler.cost import cost
from spuvm.compiler.expand.expand import expand
from spuvm.compiler.functions import division as division_file
from spuvm.compiler.functions import exp as exp_file
from spuvm.compiler.functions import log as log_file
from spuvm.compiler.functions import saturating as saturating_file
from spuvm.compiler.functions import sqrt as sqrt_file
from spuvm.compiler.functions import trig as trig_file
from spuvm.compiler.functions.division import div, div_public, int_div, int_rem, integer_pow, reciprocal
from spuvm.compiler.functions.exp import exp, exp2, expm1
from spuvm.compiler.functions.log import log
from spuvm.compiler.functions.precision import STATED
from spuvm.compiler.functions.saturating import erf, sigmoid, tanh
from spuvm.compiler.functions.sqrt import pow_, rsqrt, sqrt
from spuvm.compiler.functions.trig import cos, sin
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Module, Value
from spuvm.compiler.ir.ops import check, parse_element
from spuvm.compiler.passes.pipeline import run_passes
from spuvm.runtime.config import Config
from spuvm.runtime.errors import UnsupportedError
from spuvm.runtime.protocols.registered import protocol_of

FRACTIONS = (8, 18, 22)
BIG = 2.0**62


def build(fn: Any, f: int, shapes: list[tuple[int, ...]], elements: Any = None, visibility: Any = None) -> Module:
    b = Builder(f)
    for i, shape in enumerate(shapes):
        element = elements[i] if elements else f"fxp{f}"
        who = visibility[i] if visibility else "secret"
        b.region.params.append(Value(parse_element(element).with_(shape=shape, visibility=who)))
    b.region.results = [fn(b, *b.region.params)]
    names = tuple(f"x{i}" for i in range(len(shapes)))
    dtypes = ("float32",) * len(shapes)
    config = asdict(Config(fxp_fraction_bits=f))
    module = Module("test", b.region, names, ("y",), dtypes, ("float32",), config)
    check(module)
    return module


def run(fn: Any, *raw: Any, f: int = 18, jitter: int | None = 7, elements: Any = None, visibility: Any = None) -> Any:
    """Raw results for raw inputs."""
    module = build(fn, f, [np.shape(x) for x in raw], elements, visibility)
    (out,) = evaluate(module, [np.asarray(x) for x in raw], jitter=jitter)
    assert out.shape == module.body.results[0].shape
    return out.view(np.int64)


def worst(got: Any, want: Any, relative: float = 0.0, units: float = 1.0) -> float:
    """The largest error beyond the allowed relative one and the units, in units (raw)."""
    return float((np.abs(got - want) - relative * np.abs(want) - units).max())


@pytest.mark.parametrize("f", FRACTIONS)
@pytest.mark.parametrize("name", SWEEPS)
def test_error_bound(name: str, f: int) -> None:
    """What compiler/precision.py states; `make conformance` sweeps 10^6 points."""
    assert measure(name, f, 100_000).excess <= 0


@pytest.mark.parametrize("name", ["exp", "exp2", "pow", "sinh", "logistic"])
def test_error_bound_with_kernels_of_their_own(name: str) -> None:
    assert measure(name, 18, 100_000, protocol="aby3").excess <= 0


def test_every_statement_is_swept() -> None:
    assert list(SWEEPS) == list(STATED)


@pytest.mark.parametrize(
    ("name", "module", "table", "index", "change"),
    [
        ("exp", exp_file, "EXP2", 2, 1e-4),
        ("log", log_file, "LOG", 7, 1e-3),
        ("sqrt", sqrt_file, "SQRT", 0, 2e-5),
        ("rsqrt", sqrt_file, "RSQRT", 4, 1e-3),
        ("reciprocal", division_file, "RECIPROCAL", 5, 1e-3),
        ("sin", trig_file, "SINE", 3, 1e-4),
    ],
)
def test_a_wrong_coefficient_is_noticed(
    name: str, module: Any, table: str, index: int, change: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    coefficients = list(getattr(module, table))
    coefficients[index] += change
    monkeypatch.setattr(module, table, tuple(coefficients))
    assert measure(name, 18).excess > 0


# the tables ----------------------------------------------------------------------------------------------

U = -0.5 * np.cos(np.pi * np.arange(401) / 400)


def minimax(powers: Any, x: Any, target: Any, weight: Any) -> float:
    """The least possible largest |weight * (sum a[p] x^p - target)|: a linear program."""
    basis = np.stack([x**p for p in powers], 1) * weight[:, None]
    one = np.full((len(x), 1), 1e-5)  # the error in units of 1e-5, for the solver's tolerances
    rows = np.block([[basis, -one], [-basis, -one]])
    values = np.concatenate([target * weight, -target * weight])
    bounds = [(None, None)] * len(powers) + [(0, None)]
    found = linprog([0.0] * len(powers) + [1.0], A_ub=rows, b_ub=values, bounds=bounds, method="highs")
    assert found.status == 0
    return float(found.x[-1]) * 1e-5


C = 0.75 + U / 2
TABLES: dict[str, Any] = {
    # coefficients, function, weight, stated error
    "reciprocal": (division_file.RECIPROCAL, 1 / C, C, 1.6e-6),
    "log": (log_file.LOG, np.log(C), C / C, 4.9e-7),
    "log2": (log_file.LOG2, np.log2(C), C / C, 4.5e-7),
    "sqrt": (sqrt_file.SQRT, np.sqrt(C), 1 / np.sqrt(C), 1.3e-6),
    "rsqrt": (sqrt_file.RSQRT, 1 / np.sqrt(C), np.sqrt(C), 4.5e-7),
    "exp2": (exp_file.EXP2, 2 ** (U + 0.5), 2 ** (-U - 0.5), 2.9e-6),
}


@pytest.mark.parametrize("name", TABLES)
def test_polynomials_are_as_good_as_they_say(name: str) -> None:
    """And close to the best possible; the odd coefficients are multiples of 2^-16."""
    a, target, weight, stated = TABLES[name]
    error = float(np.abs(weight * (np.polynomial.polynomial.polyval(U, a) - target)).max())
    assert error <= stated
    assert error <= minimax(range(len(a)), U, target, weight) * 1.2 + 5e-7
    assert all((c * 2**16).is_integer() for c in a[1::2])


def test_sine_is_as_good_as_it_says() -> None:
    u, (s1, s3, s5, s7) = U + 0.5, trig_file.SINE
    error = np.abs(s1 * u + s3 * u**3 + s5 * u**5 + s7 * u**7 - np.sin(np.pi / 2 * u)).max()
    assert error <= 7.3e-7
    assert error <= minimax((1, 3, 5, 7), u, np.sin(np.pi / 2 * u), np.ones(401)) + 3e-7
    assert all((c * 2**16).is_integer() for c in (s3, s7))


@pytest.mark.parametrize(
    ("table", "function", "stated"),
    [
        (saturating_file.SIGMOID, expit, 4.5e-6),
        (saturating_file.TANH, np.tanh, 3.1e-6),
        (saturating_file.ERF, exact_erf, 2.7e-6),
    ],
)
def test_pieces_are_as_good_as_they_say(table: saturating_file.OddPieces, function: Any, stated: float) -> None:
    edges = [-20.0, *table.thresholds(), 20.0]
    for low, high, (centre, *c) in zip(edges, edges[1:], table.pieces()):
        x = np.linspace(low, high, 2000)
        value = np.polynomial.polynomial.polyval(x - centre, c) + table.middle
        assert np.abs(value - function(x)).max() <= stated
    grid = [*table.edges, *(row[0] for row in table.outer)]
    assert all((g * 2**8).is_integer() for g in grid)


# outside of the domains, other shapes and visibilities -----------------------------------------------------


@pytest.mark.parametrize("f", FRACTIONS)
def test_exponentials_saturate(f: int) -> None:
    top = (62 - f) * math.log(2)
    high = [math.ceil(top * 2**f) + 1, 2**50, 2**61]
    low = [math.floor(-(f + 1) * math.log(2) * 2**f) - 1, -(2**50), -(2**61)]
    assert (run(exp, np.array(high), f=f) == 2**62 - 1).all()
    assert (run(exp, np.array(low), f=f) == 0).all()
    assert run(exp2, np.array([(62 - f) * 2**f, -(f + 2) * 2**f]), f=f).tolist() == [2**62 - 1, 0]
    x = between(-5, 8, f, 1000)
    assert worst(run(expm1, x, f=f), np.expm1(x / 2.0**f) * 2.0**f, 0, 1 + 4e-6 * math.exp(8) * 2.0**f) <= 0


@pytest.mark.parametrize("f", FRACTIONS)
def test_what_is_not_in_the_domain_is_as_documented(f: int) -> None:
    outside = np.array([0, -1, -2, -5, -(2**f), -(2**61)])
    for fn in (sqrt, rsqrt):
        assert (run(fn, outside, f=f) == 0).all()
    assert worst(run(log, outside, f=f), -(f + 1) * math.log(2) * 2.0**f, 0, 1 + 2e-6 * 2.0**f) <= 0
    assert (run(pow_, outside, np.full(6, 2**f), f=f) == 0).all()
    assert run(reciprocal, np.array(0), f=f) == 0
    assert (run(div, np.array([5, 0, -(2**61)]), np.zeros(3, int), f=f) == 0).all()


def test_saturated_pieces_are_exact() -> None:
    x = np.array([13, 1000, 2**40]) * 2**18
    for fn, low in ((sigmoid, 0), (tanh, -(2**18)), (erf, -(2**18))):
        assert (run(fn, x) == 2**18).all()
        assert (run(fn, -x) == low).all()


@pytest.mark.parametrize("fn", [exp, exp2, log, sqrt, rsqrt, reciprocal, sigmoid, tanh, erf, sin, cos])
def test_shapes_and_visibilities(fn: Any) -> None:
    """Scalars, matrices and nothing at all; values that somebody knows take the same operations."""
    x = np.array([[1.5, 0.25, 3.0], [0.01, 7.0, 2.0]]) * 2**18
    secret = run(fn, x.astype(np.int64))
    for who in ("public", 1):
        known = run(fn, x.astype(np.int64), visibility=[who])
        assert np.abs(known - secret).max() <= np.abs(secret).max() * 5e-6 + 3
    assert run(fn, np.array(2**18)).shape == ()
    assert run(fn, np.zeros((0, 3), np.int64)).shape == (0, 3)


@pytest.mark.parametrize("f", FRACTIONS)
@pytest.mark.parametrize(("fn", "truth"), [(sin, math.sin), (cos, math.cos)])
def test_angles_of_any_size(fn: Any, truth: Any, f: int) -> None:
    pi = Fraction("3.14159265358979323846264338327950288419716939937510582097494459")
    raw = signed(magnitudes(61.99, 2000))
    turns = [Fraction(int(x), 2**f) / (2 * pi) for x in raw]
    want = np.array([truth(float((t - round(t)) * 2 * pi)) for t in turns]) * 2.0**f
    assert worst(run(fn, raw, f=f), want, 0, 1 + 2e-6 * 2.0**f) <= 0
    quarter = [round(q * math.pi / 2 * 2**f) + d for q in range(-9, 10) for d in (-1, 0, 1)]
    want = np.array([truth(x / 2**f) for x in quarter]) * 2.0**f
    assert worst(run(fn, np.array(quarter), f=f), want, 0, 1 + 2e-6 * 2.0**f) <= 0


# division and powers -----------------------------------------------------------------------------------------


def nearest(x: Any, d: Fraction) -> list[int]:
    """floor(x / d + 1/2) for each x."""
    return [int((Fraction(int(v)) / d + Fraction(1, 2)).__floor__()) for v in x]


def dividends(d: Fraction, n: int) -> Any:
    """Of every size that gives a quotient below 2^62, whole and half multiples of d, and their neighbours."""
    bits = min(61.99, 61.99 + math.log2(abs(d)))
    k = np.random.default_rng(5).integers(-(2**17), 2**17, n)
    near = [int(d * int(i) / 2) + e for i in k for e in (0, 1)]
    near = [v for v in near if abs(v) < 2**bits]
    return np.concatenate([signed(magnitudes(bits, n)), [0], np.array(near, np.int64)])


@pytest.mark.parametrize(
    "d", [3.0, -7.0, 0.1, 1.5, 1e-5, 123456.789, 1e9, -3.3e12, 4095.0, 4096.0, 4097.0, 0.5, 2.0**40, 1e17, 1 / 3]
)
def test_division_by_a_public_number_is_correctly_rounded(d: float) -> None:
    x = dividends(Fraction(d), 1500)
    for jitter in (None, 1, 2):
        got = run(lambda b, v: div_public(b, v, d), x, jitter=jitter)
        assert got.tolist() == nearest(x, Fraction(d))


@pytest.mark.parametrize("y", [1, -1, 3, 2**18, -3 * 2**18, 12345, 2**31 + 1, 2**43 - 1, 2**43, 2**50 + 3, 2**58 + 7])
def test_division_by_a_public_value_is_correctly_rounded(y: int) -> None:
    d = Fraction(y, 2**18)
    x = dividends(d, 1500)
    got = run(div, x, np.full(x.shape, y), visibility=["secret", "public"])
    assert got.tolist() == nearest(x, d)


def test_division_by_public_arrays() -> None:
    d = np.array([3.0, 0.0, 1e30, -0.25, 6.0])
    x = np.full((4, 5), 18000 * 2**18)
    for divisor in (np.broadcast_to(d, x.shape), np.tile(d, (4, 1)), d):
        got = run(lambda b, v, d=divisor: div_public(b, v, d), x)
        assert (got == np.array([6000, 0, 0, -72000, 3000]) * 2**18).all()
    (const,) = [op for op in build(lambda b, v: div_public(b, v, d), 18, [(4, 5)]).body.ops if op.name == "const"][1:2]
    assert const.attrs["data"].shape == (5,)
    with pytest.raises(UnsupportedError, match="2\\^59"):
        run(lambda b, v: div_public(b, v, 2.0**60 + 1), x)


@pytest.mark.parametrize("y", [1, 2, 3, -3, 7, -10, 16, 2**31 - 1, 12345678901, 2**44 + 1, -(2**58) + 1, 0])
def test_integer_quotient_and_remainder(y: int) -> None:
    """Secret by a constant, by a run-time public number, and public by public: toward zero, as C and JAX do."""
    x = np.concatenate([signed(magnitudes(63, 1000)), np.arange(-40, 40), [-(2**63), 2**63 - 1]])
    if 0 < abs(y) < 2**50:
        x = np.concatenate([x, y * np.arange(-30, 30), y * np.arange(-30, 30) - 1])
    want = [abs(int(v)) // abs(y) * (1 if (v < 0) == (y < 0) else -1) if y else 0 for v in x]
    types = ["int64", "int64"]

    def by_constant(b: Builder, v: Value, _: Value) -> Value:
        return int_div(b, v, b.broadcast(b.const(np.array(y), "int64"), v.shape))

    ys = np.full(x.shape, y)
    assert run(by_constant, x, ys, elements=types).tolist() == want
    assert run(int_div, x, ys, elements=types, visibility=["secret", "public"]).tolist() == want
    rest = run(int_rem, x, ys, elements=types, visibility=["secret", "public"])
    assert rest.tolist() == [int(v) - w * y for v, w in zip(x, want)]
    if y:
        assert run(int_div, x, ys, elements=types, visibility=["public", "public"]).tolist() == want


def test_integer_division_by_a_secret_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="secret"):
        run(int_div, np.ones(2, int), np.ones(2, int), elements=["int32", "int32"])


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 8, -1, -2, -3])
def test_integer_powers(n: int) -> None:
    """Negative ones: of small numbers, whose powers have too few digits, and of large ones, whose powers do not fit."""
    numbers = between(0.03125, 4, 18, 5000)
    x = signed(numbers if n > 0 else np.append(numbers, between(4, 2**30, 18, 5000)))
    real, unit = x / 2.0**18, 2.0**-18
    got = run(lambda b, v: integer_pow(b, v, n), x) * unit
    if n >= 0:
        allowed = power_error(np.abs(real), n, 0 * real, unit)
    else:
        allowed = power_error(np.abs(1 / real), -n, 5e-6 / np.abs(real) + 2 * unit, unit)
    assert (np.abs(got - real**n) <= allowed + 1e-12).all()


def power_error(x: Any, n: int, error: Any, unit: float) -> Any:
    """One unit per product, and the error of x, scaled by the factors still to come."""
    if n <= 1:
        return error * n
    half = power_error(x, n // 2, error, unit)
    square = 2 * half * x ** (n // 2) + half**2 + unit
    return square * (x + error) + x ** (n - 1) * error + unit if n % 2 else square


# costs -------------------------------------------------------------------------------------------------------

COSTS: dict[str, tuple[Any, int, int, int]] = {
    # function, inputs, rounds and bytes per element (all parties) that the docstrings state
    "exp": (exp, 1, 17, 815),
    "log": (log, 1, 26, 720),
    "sqrt": (sqrt, 1, 28, 780),
    "rsqrt": (rsqrt, 1, 28, 820),
    "reciprocal": (reciprocal, 1, 28, 915),
    "div": (div, 2, 28, 1165),
    "sigmoid": (sigmoid, 1, 16, 940),
    "tanh": (tanh, 1, 16, 1130),
    "erf": (erf, 1, 16, 940),
    "sin": (sin, 1, 20, 335),
    "cos": (cos, 1, 20, 335),
    "pow": (pow_, 2, 46, 1585),
    "by 3": (lambda b, x: div_public(b, x, 3.0), 1, 14, 227),
    "by 0.1": (lambda b, x: div_public(b, x, 0.1), 1, 14, 322),
    "by 64": (lambda b, x: div_public(b, x, 64.0), 1, 12, 131),
    "by 0.5": (lambda b, x: div_public(b, x, 0.5), 1, 0, 0),
}


@pytest.mark.parametrize("name", COSTS)
def test_costs_are_as_documented(name: str) -> None:
    fn, inputs, rounds, size = COSTS[name]
    module = run_passes(build(fn, 18, [(1000,)] * inputs))
    found = cost(expand(module, protocol_of(Config())), ("a", "b", "c"))
    assert found.rounds <= rounds
    assert found.bytes_sent.sum() / 1000 <= size


@pytest.mark.parametrize("y", [1, 2, 3, 10, 12345678901, 2**44 + 1, 2**58 + 1, 0])
def test_quotients_of_large_unsigned_integers(y: int) -> None:
    """uint64 has no sign: all 64 bits count."""
    edges = [0, 1, 3, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
    random = np.random.default_rng(4).integers(0, 2**64 - 1, 1000, np.uint64, endpoint=True)
    x = np.concatenate([np.array(edges, np.uint64), random])
    want = [int(v) // y if y else 0 for v in x]
    got = run(int_div, x, np.full(x.shape, y, np.uint64), elements=["uint64"] * 2, visibility=["secret", "public"])
    assert got.view(np.uint64).tolist() == want


def test_nothing_at_all_is_divided() -> None:
    assert run(lambda b, x: div_public(b, x, np.full((0, 3), 3.0)), np.zeros((0, 3), np.int64)).shape == (0, 3)
    whole = run(
        lambda b, x: int_div(b, x, b.const(np.full((0, 3), 3), "int32")), np.zeros((0, 3), int), elements=["int32"]
    )
    assert whole.shape == (0, 3)
