"""What makes ring-LWE hold: 128 bits of security by the homomorphic encryption standard, quantum attacks included.

The bounds are those of Albrecht et al., "Homomorphic Encryption Standard" (homomorphicencryption.org, 2018; eprint
2019/939), tables 1 and 2: secrets uniform in {-1, 0, 1}, errors of standard deviation 3.2 or more.
"""

from __future__ import annotations

# Degree -> bits of the ciphertexts' modulus for 128 bits of security: against classical, against quantum attacks.
STANDARD = {4096: (109, 101), 8192: (218, 202), 16384: (438, 411), 32768: (881, 827)}

ERROR_BITS = 21  # an error is the difference of two sums of so many bits: standard deviation 3.24, at most 21
FLOOD_BITS = 64  # noise before a decryption, beyond what is there: distance below 2^-40 for 2^24 coefficients
