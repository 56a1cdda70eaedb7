"""The exponential of a matrix, written in JAX; errors are for f = 18.

How often JAX squares depends on the norm, which is secret. Here always four times: e^A = (e^B)^16, B = A / 16, and e^B
is Taylor's polynomial of degree 11 in five products (Paterson and Stockmeyer, 1973), below 3e-9 where B's norm is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from spuvm.compiler.lower.context import Context, Operand
from spuvm.compiler.lower.jax_rules import apply

Array = jax.Array

_SQUARINGS = 4
_DEGREE = 11
_BLOCK = 3


def expm(a: Array) -> Array:
    """Domain: a 1-norm up to 16, a result that fits. Error: 2e-4 of the largest element of e^|A|. Cost: 16 rounds."""
    b = a * 2.0**-_SQUARINGS
    b2 = b @ b
    powers = [jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape), b, b2]
    b3 = b2 @ b
    out = _block(powers, _DEGREE - _BLOCK + 1)
    for start in range(_DEGREE - 2 * _BLOCK + 1, -1, -_BLOCK):
        out = out @ b3 + _block(powers, start)
    for _ in range(_SQUARINGS):
        out = out @ out
    return out


def _block(powers: Sequence[Array], start: int) -> Array:
    """The terms of B^start and the next two, over B^start."""
    first, *others = (p * (1 / math.factorial(start + i)) for i, p in enumerate(powers))
    return sum(others, first)


# name of a function that JAX calls -> its own rule; constants of JAX's form come before the argument
CALLS: dict[str, Callable[[Context, Sequence[Operand], Any], list[Operand] | None]] = {
    "expm": lambda ctx, args, closed: apply(ctx, expm, args[-1]),
}
