"""Threefry-2x32 with 20 rounds, JAX's random generator (Salmon, Moraes, Dror, Shaw, SC 2011), on public words."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.jax_rules import apply
from spuvm.runtime.errors import UnsupportedError

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def rounds(first: Any, second: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Threefry-2x32: two words under a key of two, uint32 of one shape."""
    u = np.uint32
    first, second, x, y = (jnp.asarray(v, u) for v in (first, second, x, y))
    injected = [first, second, first ^ second ^ u(PARITY)]
    x, y = x + first, y + second
    for i in range(5):
        for n in ROTATIONS[i % 2]:
            x = x + y
            y = (y << u(n)) | (y >> u(32 - n))
            y = y ^ x
        x = x + injected[(i + 1) % 3]
        y = y + injected[(i + 2) % 3] + u(i + 1)
    return x, y


def threefry(ctx: Context, *words: Operand) -> list[Operand]:
    if any(isinstance(x, Value) and not x.type.is_public for x in words):
        raise UnsupportedError(
            "a random key or seed that is not public: pass it as `spu.public(key)`, or make it of a constant of the "
            "function. Random values that nobody knows are those of `spu.random`."
        )
    return apply(ctx, rounds, *words)


RULES: dict[str, Rule] = {"threefry2x32": threefry}
