"""Parameters of ring-LWE: 128 bits of security by the homomorphic encryption standard, quantum attacks included.

The bounds are those of Albrecht et al., "Homomorphic Encryption Standard" (homomorphicencryption.org, 2018; eprint
2019/939), tables 1 and 2: secrets uniform in {-1, 0, 1}, errors of standard deviation 3.2 or more.
"""

from __future__ import annotations

from dataclasses import dataclass

from spuvm.runtime.errors import ConfigError
from spuvm.runtime.ring.transform import Basis, basis

# Degree -> bits of the ciphertexts' modulus for 128 bits of security: against classical, against quantum attacks.
STANDARD = {4096: (109, 101), 8192: (218, 202), 16384: (438, 411), 32768: (881, 827)}

# Degree -> bits and number of primes of the ciphertexts' modulus q, bits and number of those of the plaintexts' t.
CHOICES = {8192: (50, 4, 44, 1), 16384: (50, 8, 47, 3)}

ERROR_BITS = 21  # an error is the difference of two sums of so many bits: standard deviation 3.24, at most 21
FLOOD_BITS = 64  # noise before a decryption, beyond what is there: distance below 2^-40 for 2^24 coefficients
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
