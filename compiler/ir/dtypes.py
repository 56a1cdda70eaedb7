"""JAX's dtypes, those included that NumPy itself has no kind for: bfloat16, float8_e4m3fn, int4, ..."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def kind_of(dtype: Any) -> str:
    """b, i, u, f or c; empty for anything else."""
    d = np.dtype(dtype) if not isinstance(dtype, np.dtype) else dtype
    for kind, family in FAMILIES.items():
        if jnp.issubdtype(d, family):
            return kind
    return ""


def is_key(x: Any) -> bool:
    """Whether it is an array of random keys."""
    return hasattr(x, "dtype") and is_key_dtype(x.dtype)


def is_key_dtype(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jax.dtypes.extended))


FAMILIES: dict[str, Any] = {
    "b": np.bool_,
    "i": np.signedinteger,
    "u": np.unsignedinteger,
    "f": np.floating,
    "c": np.complexfloating,
}


def _info(dtype: Any) -> Any:
    return jnp.iinfo(dtype)  # type: ignore[no-untyped-call]


def width_of(dtype: Any) -> int:
    """Bits of an integer."""
    return int(_info(dtype).bits)


def limits_of(dtype: Any) -> tuple[int, int]:
    """The smallest and the largest integer."""
    info = _info(dtype)
    return int(info.min), int(info.max)
