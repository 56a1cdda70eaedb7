"""HEUObject: an array at one party, as a plaintext there or encrypted under the keeper's key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spuvm.he.layout import Places
from spuvm.objects import Remote

if TYPE_CHECKING:
    from spuvm.he.device import HEU


def _operator(name: str, reflected: bool = False) -> Any:
    def method(self: HEUObject, other: Any) -> Any:
        return self.heu.apply(name, *((other, self) if reflected else (self, other)))

    return method


@dataclass(eq=False, frozen=True)
class HEUObject(Remote):
    """Whole numbers of at most `bound`, read with `frac` fraction bits; `value` is None at all parties but its own.

    A plaintext's `value` is int64 [shape]; a ciphertext's the scheme's words, its elements lie at `places`.
    """

    heu: HEU
    party: str | None  # None: a public number that all scripts have
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    frac: int
    bound: int
    value: Any
    places: Places | None = None  # of a ciphertext
    cells: int = 0
    noise: float = 0.0  # log2 of a bound
    ring: int = 0  # if not 0, right modulo 2^ring only: it came from an SPU
    computed: bool = False  # whether anything but encryption made it

    __array_priority__ = 100
    __array_ufunc__ = None

    @property
    def encrypted(self) -> bool:
        return self.places is not None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def noise_budget(self) -> float:
        """Bits of noise that operations on it may still add; of a plaintext without limit."""
        return self.heu.scheme.budget - self.noise if self.encrypted else float("inf")

    def with_(self, **changes: Any) -> HEUObject:
        return replace(self, **changes)

    def encrypt(self) -> HEUObject:
        """The same under the keeper's key, at the same party; a ciphertext as it is."""
        return self.heu.encrypted(self)

    def to(self, device: Any) -> Any:
        """Decrypted for a party (a PYU) alone, shared on an SPU, or moved, encrypted, to an evaluator's name."""
        return self.heu.moved(self, device)

    def reveal(self) -> Any:
        """The value, shown to all parties."""
        return self.heu.moved(self, self.heu.sk_keeper_device).reveal()

    def refresh(self) -> HEUObject:
        """Encrypted anew by the keeper, who sees it masked: without noise, in order. One round trip."""
        return self.heu.refreshed(self)

    def sum(self, axis: Any = None) -> HEUObject:
        """Over all elements, or over an axis or several."""
        return self.heu.apply("sum", self, axis)

    def bucket_sum(self, indices: Any, buckets: int) -> HEUObject:
        """Sums of the rows of each bucket: [buckets, ...], or [features, buckets, ...] for indices [rows, features].

        `indices` are an evaluator's whole numbers below `buckets`, and stay there.
        """
        return self.heu.apply("bucket_sum", self, indices, buckets)

    def reshape(self, *shape: Any) -> HEUObject:
        return self.heu.apply("reshape", self, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)

    @property
    def T(self) -> HEUObject:  # the name that arrays use
        return self.heu.apply("transpose", self)

    def __getitem__(self, index: Any) -> HEUObject:
        return self.heu.apply("index", self, index)

    __add__, __radd__ = _operator("add"), _operator("add", reflected=True)
    __sub__, __rsub__ = _operator("subtract"), _operator("subtract", reflected=True)
    __mul__, __rmul__ = _operator("multiply"), _operator("multiply", reflected=True)
    __matmul__, __rmatmul__ = _operator("matmul"), _operator("matmul", reflected=True)

    def __neg__(self) -> HEUObject:
        return self.heu.apply("multiply", self, -1)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a scalar HEUObject")
        return self.shape[0]

    def __repr__(self) -> str:
        dims = ",".join(map(str, self.shape))
        how = "encrypted" if self.encrypted else "plaintext"
        return f"<HEUObject {self.dtype.name}[{dims}] {how} at {self.party or 'all'}>"

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("an HEUObject does not turn into an array by itself: use `spu.reveal`, or `.to(party)`.")
