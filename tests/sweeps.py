"""Sweeps of the non-linear functions over their domains: points, truths, and the largest error measured.

The bounds are those of `spuvm.compiler.precision`. Points are raw, so that fixed point holds them exactly: uniform
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
from scipy import special  # type: ignore[import-untyped]

from spuvm.compiler.evaluate import evaluate
from spuvm.compiler.lower import lower
from spuvm.compiler.passes import run_passes
from spuvm.compiler.precision import STATED
from spuvm.compiler.trace import trace
from spuvm.runtime.config import Config

Raw = np.ndarray[Any, Any]
Points = tuple[Raw, ...]
BIG_BITS = 62


def magnitudes(bits: float, n: int, seed: int = 0) -> Raw:
    """Positive raw numbers below 2^bits, uniform in their logarithm, and the neighbours of powers of two."""
    spread = np.exp2(np.random.default_rng(seed).uniform(0, bits, n)).astype(np.int64)
    edges = [2**k + d for k in range(math.ceil(bits)) for d in (-1, 0, 1)]
    return np.concatenate([spread, np.array([e for e in edges if 0 < e < 2**bits], np.int64)])


def signed(x: Raw) -> Raw:
    return np.concatenate([x, -x])


def between(low: float, high: float, f: int, n: int, seed: int = 1) -> Raw:
    """Raw numbers, uniform, and both ends."""
    a, b = math.ceil(low * 2**f), math.floor(high * 2**f)
    return np.concatenate([np.random.default_rng(seed).integers(a, b, n), [a, a + 1, b - 1, b]])


def around(span: float) -> Callable[[int, int], Points]:
    """All magnitudes, and half of the points between -span and span."""

    def points(f: int, n: int) -> Points:
        return (np.concatenate([signed(magnitudes(61.9, n // 4)), between(-span, span, f, n // 2), [0]]),)

    return points


def positive(bits: float = 61.99, *more: int) -> Callable[[int, int], Points]:
    return lambda f, n: (np.concatenate([magnitudes(bits, n), np.array(more, np.int64)]),)


def inside_one(f: int, n: int) -> Points:
    """In (-1, 1), half of them close to the ends."""
    one = 1 << f
    near = one - np.exp2(np.random.default_rng(2).uniform(0, f - 3, n // 4)).astype(np.int64)
    return (np.concatenate([between(-1 + 2.0**-f, 1 - 2.0**-f, f, n // 2), signed(near)]),)


def closed_one(f: int, n: int) -> Points:
    return (np.append(inside_one(f, n)[0], [1 << f, -(1 << f)]),)


def inverse_erf(f: int, n: int) -> Points:
    (x,) = inside_one(f, n)
    return (x[np.abs(x) <= (1 - 1.9e-6) * 2.0**f],)


def _quotients(f: int, n: int) -> Points:
    """Every size of quotient for every size of divisor."""
    y = signed(magnitudes(61.99, n // 2))
    random = np.random.default_rng(3)
    bits = np.minimum(61.99, 61.99 - f + np.log2(np.abs(y.astype(float))))
    x = np.exp2(random.uniform(0, 1, y.size) * bits).astype(np.int64) * random.choice([-1, 1], y.size)
    return x, y


def _powers(f: int, n: int) -> Points:
    random = np.random.default_rng(8)
    x = np.exp2(random.uniform(0, f + 10, n)).astype(np.int64)
    return x, (random.uniform(-6, 6, n) * 2**f).astype(np.int64)


def _angles(f: int, n: int) -> Points:
    random = np.random.default_rng(4)
    angle, radius = random.uniform(-math.pi, math.pi, n), np.exp(random.uniform(-2, 20, n)) * 2.0**f
    y, x = np.rint(radius * np.sin(angle)), np.rint(radius * np.cos(angle))
    edges = np.array([[0, 0], [1, 0], [0, 1], [0, -1], [-1, 0], [1, 1], [-1, -1]])
    return np.append(y, edges[:, 0]).astype(np.int64), np.append(x, edges[:, 1]).astype(np.int64)


def _not_at_poles(f: int, n: int) -> Points:
    """Where the cosine is 64 units and more."""
    x = between(-20, 20, f, n)
    return (x[np.abs(np.cos(x / 2.0**f)) > 2.0 ** (6 - f)],)


def _even(f: int, n: int) -> Points:
    top = (62 - f) * math.log(2) - 1e-3
    return (between(-top, top, f, n),)


@dataclass(frozen=True)
class Sweep:
    """`function` of JAX, `points(f, n)` raw, `truth` in float64, `plot`: the range shown, logarithmic if asked."""

    function: Callable[..., Any]
    truth: Callable[..., Any]
    points: Callable[[int, int], Points]
    plot: tuple[float, float] = (-8.0, 8.0)
    logarithmic: bool = False


ALL_SIZES = (2.0**-17, 2.0**43)
SWEEPS: dict[str, Sweep] = {
    "exp": Sweep(lax.exp, np.exp, lambda f, n: (between(-30, (62 - f) * math.log(2) - 1e-3, f, n),), (-16, 30)),
    "exp2": Sweep(jnp.exp2, np.exp2, lambda f, n: (between(-40, 62 - f - 1e-3, f, n),), (-20, 43)),
    "expm1": Sweep(jnp.expm1, np.expm1, lambda f, n: (between(-30, (62 - f) * math.log(2) - 1e-3, f, n),), (-8, 30)),
    "log": Sweep(lax.log, np.log, positive(), ALL_SIZES, True),
    "log1p": Sweep(jnp.log1p, np.log1p, lambda f, n: (magnitudes(61.9, n) - 2**f + 1,), ALL_SIZES, True),
    "sqrt": Sweep(lax.sqrt, np.sqrt, positive(61.99, 0), ALL_SIZES, True),
    "rsqrt": Sweep(lax.rsqrt, lambda x: 1 / np.sqrt(x), positive(), ALL_SIZES, True),
    "reciprocal": Sweep(
        lambda x: 1 / x, lambda x: 1 / x, lambda f, n: (signed(magnitudes(61.99, n // 2)),), ALL_SIZES, True
    ),
    "div": Sweep(lax.div, lambda x, y: x / y, _quotients),
    "pow": Sweep(lax.pow, lambda x, y: x**y, _powers),
    "logistic": Sweep(lax.logistic, special.expit, around(16), (-16, 16)),
    "tanh": Sweep(lax.tanh, np.tanh, around(8), (-8, 8)),
    "erf": Sweep(lax.erf, special.erf, around(4), (-4, 4)),
    "erfc": Sweep(lax.erfc, special.erfc, around(4), (-4, 4)),
    "sin": Sweep(lax.sin, np.sin, lambda f, n: (between(-50, 50, f, n),), (-10, 10)),
    "cos": Sweep(lax.cos, np.cos, lambda f, n: (between(-50, 50, f, n),), (-10, 10)),
    "tan": Sweep(lax.tan, np.tan, _not_at_poles, (-1.5, 1.5)),
    "sinh": Sweep(lax.sinh, np.sinh, _even, (-12, 12)),
    "cosh": Sweep(lax.cosh, np.cosh, _even, (-12, 12)),
    "asinh": Sweep(lax.asinh, np.arcsinh, around(20), (-20, 20)),
    "acosh": Sweep(
        lax.acosh, np.arccosh, lambda f, n: ((1 << f) + np.append(magnitudes(61, n), 0),), (1, 2.0**40), True
    ),
    "atanh": Sweep(lax.atanh, np.arctanh, inside_one, (-0.9999, 0.9999)),
    "atan": Sweep(lax.atan, np.arctan, around(8), (-8, 8)),
    "atan2": Sweep(lax.atan2, np.arctan2, _angles),
    "asin": Sweep(lax.asin, np.arcsin, closed_one, (-1, 1)),
    "acos": Sweep(lax.acos, np.arccos, closed_one, (-1, 1)),
    "cbrt": Sweep(lax.cbrt, np.cbrt, around(50), (-50, 50)),
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
) -> Measured:
    """A function on its sweep (or given raw points), on the plain evaluator with the protocols' truncation.

    ABY3 has kernels of its own for some functions; all other protocols do as semi2k does.
    """
    sweep = SWEEPS[name]
    raw = sweep.points(f, n) if points is None else points
    numbers = [x / 2.0**f for x in raw]
    with np.errstate(all="ignore"):
        want = sweep.truth(*numbers)
    fits = np.abs(want) < 2.0 ** (BIG_BITS - f) * (0.99 if name == "pow" else 1.0)
    got = _evaluated(sweep.function, [x[fits] for x in raw], config(protocol, f), jitter)
    numbers, want = [x[fits] for x in numbers], want[fits]
    allowed = STATED[name].allowed(want, 2.0**-f, numbers[-1])
    return Measured(tuple(numbers), want, np.abs(got - want), allowed)


CHUNK = 100_000  # the evaluator keeps every intermediate value


def config(protocol: str, f: int) -> Config:
    return Config(protocol, 64, f, ("alice", "bob", "carol")[: 2 if protocol == "semi2k" else 3])


def _evaluated(function: Callable[..., Any], raw: list[Raw], machine: Config, jitter: int | None) -> Any:
    count = raw[0].size
    size = min(count, CHUNK)
    struct: Any = jax.ShapeDtypeStruct((size,), jnp.float32)
    module = run_passes(lower(trace(function, [struct] * len(raw)), ["secret"] * len(raw), machine))
    parts = []
    for start in range(0, count, size):
        at = min(start, count - size)  # the last chunk overlaps the one before
        (out,) = evaluate(module, [x[at : at + size] for x in raw], jitter=jitter)
        parts.append(out.view(np.int64)[start - at :] / 2.0**machine.fxp_fraction_bits)
    return np.concatenate(parts)
