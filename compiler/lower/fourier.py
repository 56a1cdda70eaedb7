"""The discrete Fourier transform of secret numbers: sums of products with public constants.

A factor of the length that is short or prime is a product with a matrix, local but for its truncation: 2
rounds. A composite length n = p q takes a transform over p, a product with the twiddle factors and a transform
over q (Cooley and Tukey, 1965): 6 rounds for one level, whatever the length.

Error: the constants are rounded to 2^-19, so an element of the result is off by about sqrt(n) 2^-19 times the
size of the numbers, and a few units.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from spuvm.runtime.errors import UnsupportedError

Array = Any
Parts = tuple[Array, Array | None]

SHORT = 32  # up to here a matrix is as good as anything
LONGEST_PRIME = 2048  # whose matrix is still a reasonable constant of a program


def kind_of_transform(fft_type: Any) -> str:
    """FFT, IFFT, RFFT or IRFFT."""
    return str(getattr(fft_type, "name", fft_type)).upper().rpartition(".")[2]


def transform(re: Array, im: Array | None, kind: str, lengths: tuple[int, ...]) -> Parts:
    """As `jax.lax.fft`, on real and imaginary parts, over the last `len(lengths)` axes."""
    axes = list(range(-len(lengths), 0))
    inverse = kind in ("IFFT", "IRFFT")
    if kind == "IRFFT":
        for axis, n in zip(axes[:-1], lengths[:-1]):
            re, im = _along(re, im, axis, n, inverse)
        return _real_from_half(re, im, lengths[-1]), None
    for axis, n in reversed(list(zip(axes, lengths))):
        re, im = _along(re, im, axis, n, inverse)
        if kind == "RFFT" and axis == -1:
            re, im = (v[..., : n // 2 + 1] for v in (re, im))
    return re, im if im is not None else jnp.zeros_like(re)


def _along(re: Array, im: Array | None, axis: int, n: int, inverse: bool) -> tuple[Array, Array]:
    re, im = (None if v is None else jnp.moveaxis(v, axis, -1) for v in (re, im))
    re, im = _last_axis(re, im, n, inverse, 1.0 / n if inverse else 1.0)
    return jnp.moveaxis(re, -1, axis), jnp.moveaxis(im, -1, axis)


def _last_axis(re: Array, im: Array | None, n: int, inverse: bool, scale: float) -> tuple[Array, Array]:
    p = _factor(n)
    if p == n:
        return _by_matrix(re, im, n, inverse, scale)
    q = n // p
    # x[j] with j = q a + b: over a for each b, twiddle factors w^(b k), then over b; the result's index is k + p l.
    re, im = (None if v is None else jnp.swapaxes(v.reshape(*v.shape[:-1], p, q), -1, -2) for v in (re, im))
    re, im = _last_axis(re, im, p, inverse, 1.0)
    c, s = _roots(np.outer(np.arange(q), np.arange(p)), n, inverse)
    c, s = c.astype(re.dtype), s.astype(re.dtype)
    re, im = re * c - im * s, re * s + im * c
    re, im = _last_axis(jnp.swapaxes(re, -1, -2), jnp.swapaxes(im, -1, -2), q, inverse, scale)
    return tuple(jnp.swapaxes(v, -1, -2).reshape(*v.shape[:-2], n) for v in (re, im))  # type: ignore[return-value]


def _factor(n: int) -> int:
    """n itself if a matrix is best, else the factor closest to its root from below."""
    if n <= SHORT:
        return n
    divisors = [d for d in range(2, math.isqrt(n) + 1) if n % d == 0]
    if divisors:
        return divisors[-1]
    if n > LONGEST_PRIME:
        raise UnsupportedError(f"a transform of the prime length {n}: pad the data to a length with small factors.")
    return n


def _by_matrix(re: Array, im: Array | None, n: int, inverse: bool, scale: float) -> tuple[Array, Array]:
    c, s = _roots(np.outer(np.arange(n), np.arange(n)), n, inverse)
    c, s = (c * scale).astype(re.dtype), (s * scale).astype(re.dtype)
    if im is None:
        return re @ c, re @ s
    return re @ c - im @ s, re @ s + im @ c


def _roots(powers: np.ndarray[Any, Any], n: int, inverse: bool) -> tuple[Any, Any]:
    """w^powers by their parts, w = exp(-2 pi i / n), or its conjugate."""
    angle = 2 * math.pi * (powers % n) / n
    return np.cos(angle), np.sin(angle) if inverse else -np.sin(angle)


def _real_from_half(re: Array, im: Array | None, n: int) -> Array:
    """The inverse transform of a spectrum of which n // 2 + 1 elements are given, the others their conjugates."""
    half = n // 2 + 1
    k = np.arange(half)
    weight = np.where((k == 0) | ((n % 2 == 0) & (k == n // 2)), 1.0, 2.0) / n
    angle = 2 * math.pi * (np.outer(k, np.arange(n)) % n) / n
    c, s = (np.asarray(f(angle) * weight[:, None], re.dtype) for f in (np.cos, np.sin))
    re = re[..., :half]
    if n > LONGEST_PRIME:
        raise UnsupportedError(f"an inverse transform to {n} real numbers: use ifft, or at most {LONGEST_PRIME}.")
    return re @ c if im is None else re @ c - im[..., :half] @ s
