"""What a penalty asks of units, and coefficients of the features as they are, shown when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.ml.common import units


def as_they_are(
    coef: jax.Array, intercept: jax.Array, scales: Mapping[str, jax.Array], unit: Mapping[str, jax.Array]
) -> dict[str, Any]:
    """Coefficients [d] or [d, K] in units -> floats for features and labels as they are.

    y = (w z + b + mean) 2^p with z = x 2^-q - m: slopes are w 2^(p - q), the intercept (b + mean - m w) 2^p.
    """
    power = scales["power"] if coef.ndim == 1 else scales["power"][:, None]
    shift = scales["mean"] @ coef
    return {
        "coef": units.as_float(coef, unit["power"] - power),
        "intercept": units.as_float(
            intercept + unit["mean"] - shift, unit["power"] + jnp.zeros(shift.shape, jnp.int32)
        ),
    }


def covariance_diagonal(
    covariance: jax.Array, scales: Mapping[str, jax.Array], power: jax.Array | int, intercept: bool
) -> Any:
    """Variances of coefficients of features as they are, [d], and of the intercept, times 2^power, as floats."""
    d = scales["power"].shape[0]
    out = units.as_float(jnp.diag(covariance)[:d], power - 2 * scales["power"])
    if not intercept:
        return [out]
    v = jnp.append(-scales["mean"], 1.0)
    return [out, units.as_float(v @ covariance @ v, jnp.int32(0) + power)]


def shown(floats: Any) -> np.ndarray:
    """What a float that was revealed says."""
    return units.number(np.asarray(floats[0]), np.asarray(floats[1]))
