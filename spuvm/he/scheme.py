"""What a scheme is to the device: plaintexts are vectors modulo t, ciphertexts are cells of `slots` of their elements.

Semi-honest parties: whoever computes on ciphertexts follows the script. Additively homomorphic schemes of which
ciphertexts say nothing without the secret key (IND-CPA).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Scheme(ABC):
    """Plaintexts are what `plain` makes, vectors of any length; they fill cells one after another."""

    name: str  # with the parameters
    slots: int  # of a cell
    modulus: int  # of plaintexts
    fresh: float  # log2 of the noise of a new ciphertext
    times_plain_noise: float  # what a product with a plaintext adds
    budget: float  # log2 of the noise that a ciphertext may have before it is decrypted or moved
    moved: float  # what moving adds

    @abstractmethod
    def make_keys(self) -> tuple[Any, Any]:
        """A public and a secret key."""

    @abstractmethod
    def key_bytes(self, public: Any) -> bytes: ...

    @abstractmethod
    def key_from(self, body: bytes) -> Any:
        """ValueError if it is none."""

    @abstractmethod
    def cell_bytes(self, public: Any) -> int: ...

    @abstractmethod
    def to_bytes(self, words: Any, public: Any) -> bytes: ...

    @abstractmethod
    def from_bytes(self, body: bytes, public: Any) -> Any:
        """ValueError if these are not ciphertexts."""

    # Plaintexts.

    @abstractmethod
    def plain(self, numbers: NDArray[Any], public: Any) -> Any:
        """Whole numbers [count], int64 or Python's, modulo t."""

    @abstractmethod
    def uniform(self, count: int, public: Any) -> Any:
        """Uniform modulo t."""

    @abstractmethod
    def select(self, plain: Any, places: NDArray[np.int64], public: Any) -> Any:
        """plain[places] [rows, m], summed over m: [rows]."""

    @abstractmethod
    def scatter(self, plain: Any, places: NDArray[np.int64], size: int, onto: Any, public: Any) -> Any:
        """`onto` (zeros if None) of `size`, with plain[i] at places[i]."""

    @abstractmethod
    def negative(self, plain: Any, public: Any) -> Any: ...

    @abstractmethod
    def total(self, a: Any, b: Any, public: Any) -> Any: ...

    @abstractmethod
    def integers(self, plain: Any, bound: int, public: Any) -> NDArray[Any]:
        """Whole numbers in (-t/2, t/2): int64 if `bound` allows it, else Python's."""

    @abstractmethod
    def low_words(self, plain: Any, public: Any) -> NDArray[np.uint64]:
        """The same modulo 2^64."""

    @abstractmethod
    def plain_bytes(self, plain: Any, public: Any) -> bytes: ...

    @abstractmethod
    def plain_from(self, body: bytes, count: int, public: Any) -> Any: ...

    # Ciphertexts: arrays [cells, ...].

    @abstractmethod
    def encrypt(self, plain: Any, public: Any) -> Any: ...

    @abstractmethod
    def decrypt(self, words: Any, secret: Any, public: Any) -> Any: ...

    @abstractmethod
    def add(self, a: Any, b: Any, public: Any) -> Any: ...

    @abstractmethod
    def negate(self, a: Any, public: Any) -> Any: ...

    @abstractmethod
    def add_plain(self, a: Any, plain: Any, public: Any) -> Any: ...

    @abstractmethod
    def times_plain(self, a: Any, plain: Any, public: Any) -> Any: ...

    @abstractmethod
    def products(self, a: Any, plain: Any, fold: bool, public: Any) -> Any:
        """a times the plaintext, all cells added into one if `fold`."""

    @abstractmethod
    def joined(self, rows: list[Any], public: Any) -> Any:
        """Cells one after another."""

    @abstractmethod
    def summed(self, a: Any, groups: NDArray[np.int64], public: Any) -> Any:
        """Cells [groups, m], added in each group; a scheme with several slots keeps one of each (m = 1)."""

    @abstractmethod
    def times_number(self, a: Any, factor: int, public: Any) -> Any: ...

    @abstractmethod
    def fold(self, a: Any, public: Any) -> Any:
        """All cells added into one."""

    @abstractmethod
    def hidden(self, a: Any, noise: float, public: Any) -> Any:
        """The same plaintexts, encrypted anew, and flooded with noise: nothing shows what was computed."""
