"""Parameters of the device's ring-LWE: 128 bits of security by the standard (`runtime/lattice/standard.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from spuvm.runtime.errors import ConfigError
from spuvm.runtime.lattice.standard import STANDARD
from spuvm.runtime.ring.transform import Basis, basis

# Degree -> bits and number of primes of the ciphertexts' modulus q, bits and number of those of the plaintexts' t.
CHOICES = {8192: (50, 4, 44, 1), 16384: (50, 8, 47, 3)}

MASK_BITS = 40  # of a mask beyond the value it hides: distance 2^-40


@dataclass(frozen=True, eq=False)
class Parameters:
    """Polynomials of Z_q[X]/(X^degree + 1), plaintexts of as many slots modulo t."""

    degree: int
    q: Basis
    t: Basis

    @property
    def name(self) -> str:
        return f"rlwe n={self.degree} q={self.q.primes} t={self.t.primes}"

    @property
    def ciphertext_bytes(self) -> int:
        return 2 * len(self.q.primes) * self.degree * 8


def parameters(degree: int) -> Parameters:
    """The choice for a degree. ConfigError if there is none."""
    if degree not in CHOICES:
        raise ConfigError(f"`degree` must be one of {', '.join(map(str, CHOICES))}, got {degree!r}.")
    q_bits, q_count, t_bits, t_count = CHOICES[degree]
    q, t = basis(q_bits, q_count, degree), basis(t_bits, t_count, degree)
    assert q.modulus.bit_length() <= min(STANDARD[degree])
    return Parameters(degree, q, t)
