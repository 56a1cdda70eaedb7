"""Complex arithmetic and functions on pairs of real arrays; the discrete Fourier transform is in lower/fourier.py.

Written in JAX, for any operands: products with constants, such as a transform's, are products with public
numbers. Errors are those of the real functions used; absolute values are scaled first, so that neither very small
nor very large numbers lose their squares.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.compiler.ir.dtypes import kind_of
from spuvm.compiler.lower import fourier

Array = Any


class Pair(NamedTuple):
    """A complex number by its real and imaginary parts."""

    re: Array
    im: Array


def real_dtype(dtype: Any) -> Any:
    return np.dtype("float64" if np.dtype(dtype).itemsize == 16 else "float32")


def pair_of(x: Any) -> Any:
    """A complex constant as a pair; anything else as it is."""
    if not hasattr(x, "dtype") or not isinstance(x.dtype, np.dtype) or x.dtype.kind != "c":
        return x
    x = np.asarray(x)
    return Pair(x.real, x.imag)


# arithmetic --------------------------------------------------------------------------------------------------


def add(x: Pair, y: Pair) -> Pair:
    return Pair(x.re + y.re, x.im + y.im)


def sub(x: Pair, y: Pair) -> Pair:
    return Pair(x.re - y.re, x.im - y.im)


def neg(x: Pair) -> Pair:
    return Pair(-x.re, -x.im)


def mul(x: Pair, y: Pair) -> Pair:
    return Pair(x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re)


def scaled(x: Pair, factor: Array) -> Pair:
    return Pair(x.re * factor, x.im * factor)


def square(x: Pair) -> Pair:
    return Pair((x.re + x.im) * (x.re - x.im), 2 * x.re * x.im)


def div(x: Pair, y: Pair) -> Pair:
    """x / y = (x conj(w)) / (|w|^2 m) with m the larger part of y in magnitude, w = y / m; x / 0 is 0."""
    m, w = _normal(y)
    out = mul(x, Pair(w.re, -w.im))
    size = w.re * w.re + w.im * w.im
    return Pair(out.re / size / m, out.im / size / m)


def _normal(x: Pair) -> tuple[Array, Pair]:
    """m > 0 and w with x = m w, the larger part of w of magnitude 1; for 0 both are 0."""
    m = jnp.maximum(jnp.abs(x.re), jnp.abs(x.im))
    return m, Pair(x.re / m, x.im / m)


def absolute(x: Pair) -> Array:
    """m sqrt(1 + (n / m)^2) with m >= n the magnitudes of the parts; for m below what a product holds."""
    m, ratio = _sizes(x)
    return m * lax.sqrt(1 + ratio * ratio)


def _sizes(x: Pair) -> tuple[Array, Array]:
    re, im = jnp.abs(x.re), jnp.abs(x.im)
    m = jnp.maximum(re, im)
    return m, (re + im - m) / m


def sign(x: Pair) -> Pair:
    _, w = _normal(x)
    size = lax.rsqrt(w.re * w.re + w.im * w.im)
    return scaled(w, size)


def integer_pow(x: Pair, *, y: int) -> Pair:
    if y < 0:
        one = Pair(jnp.ones_like(x.re), jnp.zeros_like(x.re))
        return div(one, integer_pow(x, y=-y))
    if y == 0:
        return Pair(jnp.ones_like(x.re), jnp.zeros_like(x.re))
    half = integer_pow(x, y=y // 2) if y > 1 else None
    if half is None:
        return x
    return mul(square(half), x) if y % 2 else square(half)


# functions ---------------------------------------------------------------------------------------------------


def exp(x: Pair) -> Pair:
    return scaled(Pair(lax.cos(x.im), lax.sin(x.im)), lax.exp(x.re))


def log(x: Pair) -> Pair:
    m, ratio = _sizes(x)
    return Pair(lax.log(m) + 0.5 * lax.log1p(ratio * ratio), lax.atan2(x.im, x.re))


def sqrt(x: Pair) -> Pair:
    """With t = sqrt((|x| + |re x|) / 2): t + i im x / 2t, or turned by i where re x < 0."""
    t = lax.sqrt((absolute(x) + jnp.abs(x.re)) * 0.5)
    other = jnp.abs(x.im) / (2 * t)
    left = x.re < 0
    im = jnp.where(left, t, other)
    return Pair(jnp.where(left, other, t), jnp.where(x.im < 0, -im, im))


def power(x: Pair, y: Pair) -> Pair:
    return exp(mul(y, log(x)))


def sin(x: Pair) -> Pair:
    return Pair(lax.sin(x.re) * lax.cosh(x.im), lax.cos(x.re) * lax.sinh(x.im))


def cos(x: Pair) -> Pair:
    return Pair(lax.cos(x.re) * lax.cosh(x.im), -lax.sin(x.re) * lax.sinh(x.im))


def sinh(x: Pair) -> Pair:
    return Pair(lax.sinh(x.re) * lax.cos(x.im), lax.cosh(x.re) * lax.sin(x.im))


def cosh(x: Pair) -> Pair:
    return Pair(lax.cosh(x.re) * lax.cos(x.im), lax.sinh(x.re) * lax.sin(x.im))


def tanh(x: Pair) -> Pair:
    """With t = tanh(re x), c and s of im x: (t + i s c (1 - t^2)) / (c^2 + t^2 s^2)."""
    t, c, s = lax.tanh(x.re), lax.cos(x.im), lax.sin(x.im)
    size = c * c + t * t * s * s
    return Pair(t / size, s * c * (1 - t * t) / size)


def tan(x: Pair) -> Pair:
    """-i tanh(i x)"""
    y = tanh(Pair(-x.im, x.re))
    return Pair(y.im, -y.re)


def logistic(x: Pair) -> Pair:
    one = Pair(jnp.ones_like(x.re), jnp.zeros_like(x.re))
    return div(one, add(one, exp(neg(x))))


def shifted_by_one(function: Callable[[Pair], Pair], before: float, after: float) -> Callable[[Pair], Pair]:
    def run(x: Pair) -> Pair:
        y = function(Pair(x.re + before, x.im))
        return Pair(y.re + after, y.im)

    return run


# between real and complex ------------------------------------------------------------------------------------


def convert(x: Any, *, new_dtype: Any, out: Any, **_: Any) -> Any:
    if kind_of(new_dtype) == "c":
        parts = x if isinstance(x, Pair) else Pair(x, jnp.zeros(np.shape(x)))
        return Pair(*(jnp.asarray(p).astype(real_dtype(new_dtype)) for p in parts))
    if kind_of(new_dtype) == "b":
        return (x.re != 0) | (x.im != 0)
    return x.re.astype(new_dtype)


def iota(*, dtype: Any, shape: Any, dimension: int, out: Any, **_: Any) -> Pair:
    numbers = lax.broadcasted_iota(real_dtype(dtype), shape, dimension)
    return Pair(numbers, jnp.zeros_like(numbers))


def conj(x: Any, *, out: Any, **_: Any) -> Pair:
    return Pair(x.re, -x.im) if isinstance(x, Pair) else Pair(x, jnp.zeros_like(x))


def equal(x: Pair, y: Pair) -> Array:
    return (x.re == y.re) & (x.im == y.im)


def select_n(which: Array, *cases: Pair, out: Any, **_: Any) -> Pair:
    return Pair(*(lax.select_n(which, *parts) for parts in zip(*cases)))


# products and reductions ---------------------------------------------------------------------------------------


def bilinear(primitive: Callable[..., Array]) -> Callable[..., Pair]:
    """A product of matrices or a convolution."""

    def run(x: Any, y: Any, *, out: Any, **params: Any) -> Pair:
        if params.get("preferred_element_type") is not None:
            params["preferred_element_type"] = real_dtype(out.dtype)
        product = partial(primitive, **params)
        if not isinstance(x, Pair):
            return Pair(product(x, y.re), product(x, y.im))
        if not isinstance(y, Pair):
            return Pair(product(x.re, y), product(x.im, y))
        return Pair(product(x.re, y.re) - product(x.im, y.im), product(x.re, y.im) + product(x.im, y.re))

    return run


def dot_general(x: Array, y: Array, **params: Any) -> Array:
    params.pop("out_sharding", None)
    return lax.dot_general(x, y, **params)


def reduce_prod(x: Pair, *, axes: Any, out: Any, **_: Any) -> Pair:
    order = [*axes, *(d for d in range(x.re.ndim) if d not in axes)]
    rest = [x.re.shape[d] for d in order[len(axes) :]]
    x = Pair(*(p.transpose(order).reshape(-1, *rest) for p in x))
    while x.re.shape[0] > 1:
        half = x.re.shape[0] // 2
        z = mul(Pair(*(p[:half] for p in x)), Pair(*(p[half : 2 * half] for p in x)))
        x = Pair(*(jnp.concatenate([a, p[2 * half :]]) for a, p in zip(z, x)))
    return Pair(x.re[0], x.im[0])


def cumprod(x: Pair, *, axis: int, reverse: bool, out: Any, **_: Any) -> Pair:
    return Pair(*lax.associative_scan(lambda a, b: mul(Pair(*a), Pair(*b)), tuple(x), axis=axis, reverse=reverse))


def sort(*xs: Any, dimension: int, is_stable: bool, num_keys: int, out: Any) -> list[Any]:
    """By real parts, then by imaginary parts."""
    flat: list[Array] = []
    keys = 0
    for i, x in enumerate(xs):
        parts = list(x) if isinstance(x, Pair) else [x]
        flat, keys = flat + parts, keys + (len(parts) if i < num_keys else 0)
    ordered = iter(lax.sort(tuple(flat), dimension=dimension, is_stable=is_stable, num_keys=keys))
    return [Pair(next(ordered), next(ordered)) if isinstance(x, Pair) else next(ordered) for x in xs]


def fft(x: Any, *, fft_type: Any, fft_lengths: Any, out: Any, **_: Any) -> Any:
    re, im = x if isinstance(x, Pair) else (x, None)
    re, im = fourier.transform(re, im, fourier.kind_of_transform(fft_type), tuple(fft_lengths))
    return re if im is None else Pair(re, im)


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """A rule that needs none of the parameters."""

    def run(*args: Any, **_: Any) -> Any:
        return function(*args)

    return run


PLAIN: dict[str, Callable[..., Any]] = {
    "add": add,
    "add_any": add,
    "sub": sub,
    "neg": neg,
    "mul": mul,
    "div": div,
    "square": square,
    "abs": absolute,
    "sign": sign,
    "exp": exp,
    "log": log,
    "sqrt": sqrt,
    "rsqrt": lambda x: div(Pair(jnp.ones_like(x.re), jnp.zeros_like(x.re)), sqrt(x)),
    "pow": power,
    "sin": sin,
    "cos": cos,
    "tan": tan,
    "sinh": sinh,
    "cosh": cosh,
    "tanh": tanh,
    "logistic": logistic,
    "expm1": shifted_by_one(exp, 0.0, -1.0),
    "log1p": shifted_by_one(log, 1.0, 0.0),
    "real": lambda x: x.re,
    "imag": lambda x: x.im,
    "complex": Pair,
    "eq": equal,
    "ne": lambda x, y: ~equal(x, y),
    "is_finite": lambda x: jnp.ones(x.re.shape, bool),
}

RULES: dict[str, Callable[..., Any]] = {
    **{name: plain(function) for name, function in PLAIN.items()},
    "integer_pow": lambda x, *, y, out: integer_pow(x, y=y),
    "convert_element_type": convert,
    "conj": conj,
    "iota": iota,
    "select_n": select_n,
    "dot_general": bilinear(dot_general),
    "conv_general_dilated": bilinear(lax.conv_general_dilated),
    "reduce_prod": reduce_prod,
    "cumprod": cumprod,
    "sort": sort,
    "fft": fft,
}

# Primitives that do to a complex array what they do to both parts.
PARTWISE = frozenset(
    {"reshape", "broadcast_in_dim", "transpose", "squeeze", "expand_dims", "slice", "rev", "concatenate", "pad"}
    | {"gather", "scatter", "scatter-add", "dynamic_slice", "dynamic_update_slice", "reduce_sum", "cumsum", "copy"}
    | {
        "copy_p",
        "spu_reveal",
        "spu_bound",
        "optimization_barrier",
        "split",
        "tile",
        "reduce_precision",
        "select_and_gather_add",
    }
)
