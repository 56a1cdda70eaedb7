"""Columns in units in which fixed point has room: a mean, and a power of two for the spread.

A number x of a column is z with x = (z + mean) 2^power, where z has mean 0 and a spread of about 1. Powers of two
cost nothing to multiply with, and a column's power says no more than its order of magnitude; both stay with who
knows the column, or are secret. Coefficients of z are coefficients of x times 2^power.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

LOW, HIGH = -40, 60  # powers of columns
FAR = 4096.0  # units from the mean: what is further away counts as this far
SMALL, LARGE = -17, 30  # sizes of secret numbers that are told apart, as powers of two
LEAST, MOST = -36, 30  # secret powers by which numbers are multiplied


# At the owner ------------------------------------------------------------------------------------------------


def learned(x: np.ndarray, least: float, centred: bool) -> dict[str, np.ndarray]:
    """The units of an owner's columns float64 [rows, n].

    Args:
        least: of a spread, as units that are smaller than it serve nothing (see `linear.penalty`).
        centred: whether means are taken off; else they are 0, and spreads are taken around 0.

    Returns:
        mean: float64 [n], in units; power: int32 [n].
    """
    mean = x.mean(axis=0) if centred else np.zeros(x.shape[1])
    spread = np.sqrt(np.mean((x - mean) ** 2, axis=0))
    flat = spread <= 1e-12 * np.abs(x).max(axis=0, initial=1e-300)
    power = np.ceil(np.log2(np.maximum(np.where(flat, np.abs(x).max(axis=0), spread), max(least, 2.0**LOW))))
    power = np.clip(power, LOW, HIGH).astype(np.int32)
    return {"mean": mean * 2.0 ** -power.astype(float), "power": power}


def applied(x: np.ndarray, mean: np.ndarray, power: np.ndarray) -> np.ndarray:
    """An owner's columns in units: float32 [rows, n]."""
    z: np.ndarray = np.clip(x * 2.0 ** -np.asarray(power, float) - mean, -FAR, FAR)
    out: np.ndarray = z.astype(np.float32)
    return out


def exponents(x: np.ndarray) -> np.ndarray:
    """Of each column, the power of two at or above all its numbers: int32 [n]."""
    largest = np.abs(x).max(axis=0, initial=0.0)
    out: np.ndarray = np.clip(np.ceil(np.log2(np.maximum(largest, 2.0**LOW))), LOW, HIGH).astype(np.int32)
    return out


# On secrets --------------------------------------------------------------------------------------------------


def secretly_learned(x: jax.Array, power: jax.Array, least: float, centred: bool) -> dict[str, jax.Array]:
    """The units of secret columns [rows, n] of any size: the spread is the mean distance from the mean.

    Args:
        power: the columns are x 2^power, int32 [n]; `least` is of them, not of x.

    Returns:
        mean: float [n], as the numbers are; power: int32 [n].
    """
    mean = jnp.mean(x, axis=0) if centred else jnp.zeros(x.shape[1], x.dtype)
    size = jnp.mean(jnp.abs(x - mean), axis=0)
    if least:
        size = jnp.maximum(size, times_power(jnp.full(size.shape, least, x.dtype), -power))
    return {"mean": mean, "power": magnitude(size)}


def magnitude(size: jax.Array) -> jax.Array:
    """The power of two at or above a number from 2^SMALL to 2^LARGE: int32."""
    steps = np.asarray(2.0 ** np.arange(SMALL, LARGE), np.float32)
    return jnp.sum(size[..., None] > steps, axis=-1, dtype=jnp.int32) + SMALL


def times_power(x: jax.Array, power: jax.Array, more: int = 0) -> jax.Array:
    """x 2^(power + more) of a secret power from LEAST to MOST; what is outside counts as the nearest there.

    Up by integers of at most 30 bits, which is exact; down by two numbers that have fraction bits enough.
    """
    powers = np.arange(LEAST, MOST + 1) + more
    at = jnp.clip(power - LEAST, 0, len(powers) - 1)
    down = np.minimum(powers, 0)
    first, second = (jnp.asarray(2.0**p, jnp.float32)[at] for p in (down // 2, down - down // 2))
    up = np.maximum(powers, 0)
    out = x * first * second
    for part in (up,) if more <= 0 else (up // 2, up - up // 2):
        out = out * jnp.asarray(2**part, jnp.int32)[at].astype(jnp.float32)
    return out


def secretly_applied(x: jax.Array, mean: jax.Array, power: jax.Array) -> jax.Array:
    """Secret columns in units, [rows, n]."""
    return jnp.clip(times_power(x - mean, -power), -FAR, FAR)


# Numbers of any size, revealed -----------------------------------------------------------------------------------


def as_float(x: jax.Array, power: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Secret numbers x 2^power as mantissa (0.5 to 1, or 0) and exponent, which say nothing but their product.

    Revealing x and the power by themselves would tell the column's order of magnitude.
    """
    size = magnitude(jnp.abs(x))
    mantissa = times_power(x, -size)
    there = jnp.abs(mantissa) > 0.4
    return jnp.where(there, mantissa, 0.0), jnp.where(there, size + power, 0)


def number(mantissa: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """The numbers that `as_float` shows: float64."""
    out: np.ndarray = np.asarray(mantissa, np.float64) * 2.0 ** np.asarray(exponent, np.float64)
    return out
