"""One unit for all columns: the largest column's, so that distances are those of the numbers as they are."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.ml.common import units


def common(z: jax.Array, power: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Columns [rows, n] in units 2^power -> in the largest of these units, and its power []."""
    largest = jnp.max(power)
    return units.times_power(z, power - largest), largest


def shown(x: jax.Array, power: jax.Array) -> Any:
    """Numbers x 2^power as floats, to be revealed."""
    return units.as_float(x, power)


def number(floats: Any) -> np.ndarray:
    """A revealed float."""
    return units.number(np.asarray(floats[0]), np.asarray(floats[1]))
