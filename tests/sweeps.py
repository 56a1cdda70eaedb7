"""Sweeps of the non-linear functions over their domains: points, truths, and the largest error measured.

The bounds are those of `functions.precision`. Points are raw, so that fixed point holds them exactly: uniform
ones or uniform in their logarithm, with the neighbours of all powers of two and the ends of the domain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import special

import spuvm as spu
from spuvm.compiler.front.trace import trace
from spuvm.compiler.functions.precision import STATED
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes.pipeline import run_passes
from spuvm.runtime.config import Config
from spuvm.runtime.machine.program import BLOCK

Raw = np.ndarray[Any, Any]
Points = tuple[Raw, ...]
Draw = Callable[[int, int, int], Points]  # of f fraction bits, about n points, raw magnitudes below 2^bits
BITS = 62  # of raw magnitudes in the ring of 64


def magnitudes(bits: float, n: int, seed: int = 0) -> Raw:
    """Positive raw numbers below 2^bits, uniform in their logarithm, and the neighbours of powers of two.

    Beyond 63 bits they are whole float64, and so are the neighbours.
    """
    spread = np.exp2(np.random.default_rng(seed).uniform(0, bits, n))
    if bits > 63:
        edges = np.exp2(np.arange(math.ceil(bits)))
        near = np.concatenate([np.nextafter(edges, 0), edges, np.nextafter(edges, np.inf)])
        return np.unique(np.floor(np.concatenate([spread, near[(near >= 1) & (near < 2.0**bits)]])))
    near = np.array([2**k + d for k in range(math.ceil(bits)) for d in (-1, 0, 1)])
    return np.concatenate([spread.astype(np.int64), near[(near > 0) & (near < 2**bits)]])


def signed(x: Raw) -> Raw:
    return np.concatenate([x, -x])


def between(low: float, high: float, f: int, n: int, seed: int = 1) -> Raw:
    """Raw numbers, uniform, and both ends."""
    a, b = math.ceil(low * 2**f), math.floor(high * 2**f)
    return np.concatenate([np.random.default_rng(seed).integers(a, b, n), [a, a + 1, b - 1, b]])


def around(span: float) -> Draw:
    """All magnitudes, and half of the points between -span and span."""

    def points(f: int, n: int, bits: int) -> Points:
        return (np.concatenate([signed(magnitudes(bits - 0.1, n // 4)), between(-span, span, f, n // 2), [0]]),)

    return points


def positive(*more: int) -> Draw:
    return lambda f, n, bits: (np.concatenate([magnitudes(bits - 0.01, n), np.array(more, np.int64)]),)


def inside_one(f: int, n: int, bits: int) -> Points:
    """In (-1, 1), half of them close to the ends."""
    one = 1 << f
    near = one - np.exp2(np.random.default_rng(2).uniform(0, f - 3, n // 4)).astype(np.int64)
    return (np.concatenate([between(-1 + 2.0**-f, 1 - 2.0**-f, f, n // 2), signed(near)]),)


def closed_one(f: int, n: int, bits: int) -> Points:
    return (np.append(inside_one(f, n, bits)[0], [1 << f, -(1 << f)]),)


def inverse_erf(f: int, n: int, bits: int) -> Points:
    (x,) = inside_one(f, n, bits)
    return (x[np.abs(x) <= (1 - 1.9e-6) * 2.0**f],)


def _quotients(f: int, n: int, bits: int) -> Points:
    """Every size of quotient for every size of divisor."""
    top = bits - 0.01
    y = signed(magnitudes(top, n // 2))
    random = np.random.default_rng(3)
    most = np.minimum(top, top - f + np.log2(np.abs(y.astype(float))))
    x = np.floor(np.exp2(random.uniform(0, 1, y.size) * most)) * random.choice([-1, 1], y.size)
    return x.astype(y.dtype), y


def _powers(f: int, n: int, bits: int) -> Points:
    random = np.random.default_rng(8)
    x = np.exp2(random.uniform(0, f + 10, n)).astype(np.int64)
    return x, (random.uniform(-6, 6, n) * 2**f).astype(np.int64)


def _angles(f: int, n: int, bits: int) -> Points:
    random = np.random.default_rng(4)
    angle, radius = random.uniform(-math.pi, math.pi, n), np.exp2(random.uniform(f - 3, bits - 0.01, n))
    y, x = np.rint(radius * np.sin(angle)), np.rint(radius * np.cos(angle))
    edges = np.array([[0, 0], [1, 0], [0, 1], [0, -1], [-1, 0], [1, 1], [-1, -1]])
    whole = np.int64 if bits < 63 else np.float64
    return np.append(y, edges[:, 0]).astype(whole), np.append(x, edges[:, 1]).astype(whole)


def _not_at_poles(f: int, n: int, bits: int) -> Points:
    """Where the cosine is 16 units and more."""
    x = between(-20, 20, f, n)
    return (x[np.abs(np.cos(x / 2.0**f)) > 2.0 ** (4 - f)],)


def _even(f: int, n: int, bits: int) -> Points:
    top = (bits - f) * math.log(2) - 1e-3
    return (between(-top, top, f, n),)


def _below_largest(f: int, n: int, bits: int) -> Points:
    return (between(-30, (bits - f) * math.log(2) - 1e-3, f, n),)


def _log_ndtr(f: int, n: int, bits: int) -> Points:
    """Where x^2 is a product that fits, and float64 holds it to a unit."""
    top = min(bits / 2 - 0.01, f + 13)
    return (np.concatenate([signed(magnitudes(top, n // 4)), between(-8, 8, f, n // 2)]),)


def _erfcx(f: int, n: int, bits: int) -> Points:
    lowest = math.sqrt((bits - f - 1) * math.log(2)) - 1e-3
    return (np.concatenate([magnitudes(bits - 0.1, n // 2), between(-lowest, 8, f, n // 2)]),)


def _gamma(f: int, n: int, bits: int) -> Points:
    return (np.concatenate([magnitudes(bits - 0.01, n // 2), between(2.0**-f, 8, f, n // 2)]),)


def _log_gamma(f: int, n: int, bits: int) -> Points:
    """Where x ln x is a product that fits."""
    top = bits - f - math.log2((bits - 2 * f) * math.log(2))
    return (np.concatenate([magnitudes(top - 0.01, n // 2), between(2.0**-f, 8, f, n // 2)]),)


@dataclass(frozen=True)
class Sweep:
    """`function` of JAX, `points` raw, `truth` in float64, `plot`: the range shown, logarithmic if asked."""

    function: Callable[..., Any]
    truth: Callable[..., Any]
    points: Draw
    plot: tuple[float, float] = (-8.0, 8.0)
    logarithmic: bool = False


ALL_SIZES = (2.0**-17, 2.0**43)
SWEEPS: dict[str, Sweep] = {
    "exp": Sweep(lax.exp, np.exp, _below_largest, (-16, 30)),
    "exp2": Sweep(jnp.exp2, np.exp2, lambda f, n, bits: (between(-40, bits - f - 1e-3, f, n),), (-20, 43)),
    "expm1": Sweep(jnp.expm1, np.expm1, _below_largest, (-8, 30)),
    "log": Sweep(lax.log, np.log, positive(), ALL_SIZES, True),
    "log1p": Sweep(jnp.log1p, np.log1p, lambda f, n, bits: (magnitudes(bits - 0.1, n) - 2**f + 1,), ALL_SIZES, True),
    "sqrt": Sweep(lax.sqrt, np.sqrt, positive(0), ALL_SIZES, True),
    "rsqrt": Sweep(lax.rsqrt, lambda x: 1 / np.sqrt(x), positive(), ALL_SIZES, True),
    "reciprocal": Sweep(
        lambda x: 1 / x, lambda x: 1 / x, lambda f, n, bits: (signed(magnitudes(bits - 0.01, n // 2)),), ALL_SIZES, True
    ),
    "div": Sweep(lax.div, lambda x, y: x / y, _quotients),
    "pow": Sweep(lax.pow, lambda x, y: x**y, _powers),
    "logistic": Sweep(lax.logistic, special.expit, around(16), (-16, 16)),
    "tanh": Sweep(lax.tanh, np.tanh, around(8), (-8, 8)),
    "erf": Sweep(lax.erf, special.erf, around(4), (-4, 4)),
    "erfc": Sweep(lax.erfc, special.erfc, around(4), (-4, 4)),
    "log_ndtr": Sweep(lambda x: jax.scipy.special.log_ndtr(x), special.log_ndtr, _log_ndtr, (-20, 8)),
    "erfcx": Sweep(lambda x: jax.scipy.special.erfcx(x), special.erfcx, _erfcx, (-3, 16)),
    "sin": Sweep(lax.sin, np.sin, lambda f, n, bits: (between(-50, 50, f, n),), (-10, 10)),
    "cos": Sweep(lax.cos, np.cos, lambda f, n, bits: (between(-50, 50, f, n),), (-10, 10)),
    "tan": Sweep(lax.tan, np.tan, _not_at_poles, (-1.5, 1.5)),
    "sinh": Sweep(lax.sinh, np.sinh, _even, (-12, 12)),
    "cosh": Sweep(lax.cosh, np.cosh, _even, (-12, 12)),
    "asinh": Sweep(lax.asinh, np.arcsinh, around(20), (-20, 20)),
    "acosh": Sweep(
        lax.acosh,
        np.arccosh,
        lambda f, n, bits: ((1 << f) + np.append(magnitudes(bits - 1, n), 0),),
        (1, 2.0**40),
        True,
    ),
    "atanh": Sweep(lax.atanh, np.arctanh, inside_one, (-0.9999, 0.9999)),
    "atan": Sweep(lax.atan, np.arctan, around(8), (-8, 8)),
    "atan2": Sweep(lax.atan2, np.arctan2, _angles),
    "asin": Sweep(lax.asin, np.arcsin, closed_one, (-1, 1)),
    "acos": Sweep(lax.acos, np.arccos, closed_one, (-1, 1)),
    "cbrt": Sweep(lax.cbrt, np.cbrt, around(50), (-50, 50)),
    "lgamma": Sweep(lax.lgamma, special.gammaln, _log_gamma, (0.05, 20)),
    "digamma": Sweep(lax.digamma, special.digamma, _gamma, (0.05, 20)),
    "erf_inv": Sweep(lax.erf_inv, special.erfinv, inverse_erf, (-0.9999, 0.9999)),
}


@dataclass(frozen=True)
class Measured:
    """Errors of one sweep: the points and results as numbers, the errors, and what was allowed for each."""

    points: tuple[Any, ...]
    want: Any
    error: Any
    allowed: Any

    @property
    def excess(self) -> float:
        """The largest error beyond what is allowed."""
        return float((self.error - self.allowed).max())

    @property
    def share(self) -> float:
        """The largest error as a share of what is allowed."""
        return float((self.error / self.allowed).max())


def measure(
    name: str,
    f: int = 18,
    n: int = 300_000,
    jitter: int | None = 7,
    points: Points | None = None,
    protocol: str = "semi2k",
    ring: int = 64,
) -> Measured:
    """A function on its sweep (or given raw points).

    Rings of 32 and 64 bits on the plain evaluator with the protocols' truncation, that of 128 by a simulated run.
    ABY3 has kernels of its own for some functions; all other protocols do as semi2k does.
    """
    sweep = SWEEPS[name]
    raw = sweep.points(f, n, ring - 2) if points is None else points
    numbers = [x / 2.0**f for x in raw]
    with np.errstate(all="ignore"):
        want = sweep.truth(*numbers)
    fits = np.abs(want) < 2.0 ** (ring - 2 - f) * (0.99 if name == "pow" else 1.0)
    run = simulated if ring == 128 else evaluated
    got = run(sweep.function, [x[fits] for x in raw], config(protocol, f, ring), jitter)
    numbers, want = [x[fits] for x in numbers], want[fits]
    allowed = STATED[name].in_ring(ring, f).allowed(want, 2.0**-f, numbers[-1])
    return Measured(tuple(numbers), want, np.abs(got - want), allowed)


CHUNK = 100_000  # the evaluator keeps every intermediate value


def config(protocol: str, f: int, ring: int = 64) -> Config:
    return Config(protocol, ring, f, ("alice", "bob", "carol")[: 2 if protocol == "semi2k" else 3])


def evaluated(function: Callable[..., Any], raw: list[Raw], machine: Config, jitter: int | None) -> Any:
    count = raw[0].size
    size = min(count, CHUNK)
    struct: Any = jax.ShapeDtypeStruct((size,), jnp.float32)
    module = run_passes(lower(trace(function, [struct] * len(raw)), ["secret"] * len(raw), machine))
    parts = []
    for start in range(0, count, size):
        at = min(start, count - size)  # the last chunk overlaps the one before
        (out,) = evaluate(module, [x[at : at + size] for x in raw], jitter=jitter)
        parts.append(out.view(f"int{machine.ring_bits}")[start - at :] / 2.0**machine.fxp_fraction_bits)
    return np.concatenate(parts)


def simulated(function: Callable[..., Any], raw: list[Raw], machine: Config, jitter: int | None) -> Any:
    """By the protocol itself; points are such that float64 holds them."""
    count = raw[0].size
    whole = -(-count // BLOCK) * BLOCK  # sizes whose kernels are compiled already
    size = min(whole, 2 * BLOCK)
    raw = [np.resize(x, whole) for x in raw]
    with jax.enable_x64(True):
        f = spu.jit(
            function,
            protocol=machine.protocol,
            ring=machine.ring_bits,
            fxp_fraction_bits=machine.fxp_fraction_bits,
            world_size=machine.world_size,
        )
        parts = []
        for start in range(0, whole, size):
            at = min(start, whole - size)
            reals = [x[at : at + size].astype(np.float64) / 2.0**machine.fxp_fraction_bits for x in raw]
            parts.append(np.asarray(spu.reveal(f(*reals)))[start - at :])
    return np.concatenate(parts)[:count]
