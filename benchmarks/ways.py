"""What functions cost by the protocol's own kernels of logarithms and powers, and without these, by polynomials.

    python benchmarks/ways.py

Rounds, and kB of the party that sends most, under `aby3` on 1,000 numbers. Nothing runs.
"""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.passes import choose

KERNELS = {"exp2_abb", "harmonics_a", "power_b", "position_b"}
FUNCTIONS = {
    "a / b": lambda a, b: a / b,
    "1 / b": lambda a, b: 1 / b,
    "sqrt": lambda a, b: jnp.sqrt(a),
    "rsqrt": lambda a, b: jax.lax.rsqrt(a),
    "log": lambda a, b: jnp.log(a),
    "exp": lambda a, b: jnp.exp(a),
}


class Polynomials(Builder):
    """A builder that does not know the kernels."""

    def __init__(self, frac: int, ring_bits: int, usable: Any = ()) -> None:
        super().__init__(frac, ring_bits, [name for name in usable if name not in KERNELS])


def main() -> None:
    x = np.ones(1000, np.float32)
    print(f"{'':8}{'kernels':>16}{'polynomials':>18}")
    for name, function in FUNCTIONS.items():
        costs = []
        for builder in (Builder, Polynomials):
            with patch.object(choose, "Builder", builder):
                costs.append(spu.jit(function).cost(x, x))
        print(name.ljust(8) + "".join(f"{c.rounds:6} {c.bytes_sent.max() / 1000:9.1f}  " for c in costs), flush=True)


if __name__ == "__main__":
    os.environ["SPUVM_CACHE"] = "0"  # what one way made is not read for the other
    main()
