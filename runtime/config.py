"""The frozen configuration that all parties agree on before anything is sent."""

import hashlib
import json
from dataclasses import asdict, dataclass, field

from spuvm.runtime.errors import ConfigError

RING_BITS = (32, 64, 128)
DEFAULT_FRACTION_BITS = {32: 8, 64: 18, 128: 26}


@dataclass(frozen=True)
class Config:
    """Protocol, ring, fixed point and parties.

    `parties` are the names, by rank. Two runs with equal configurations and equal programs
    exchange the same messages in the same rounds.
    """

    protocol: str = "aby3"
    ring_bits: int = 64
    fxp_fraction_bits: int = 18
    parties: tuple[str, ...] = field(default=("party0", "party1", "party2"))

    def __post_init__(self) -> None:
        if self.ring_bits not in RING_BITS:
            raise ConfigError(f"`ring` must be one of {RING_BITS}, got {self.ring_bits}.")
        if not 1 <= self.fxp_fraction_bits <= self.ring_bits // 2 - 4:
            raise ConfigError(
                f"`fxp_fraction_bits` must be between 1 and {self.ring_bits // 2 - 4} for a "
                f"{self.ring_bits}-bit ring (a product holds twice as many), got {self.fxp_fraction_bits}."
            )
        if len(set(self.parties)) != len(self.parties):
            raise ConfigError(f"`parties` must have different names, got {self.parties}.")

    @property
    def world_size(self) -> int:
        return len(self.parties)

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of all fields, compared by the parties before a run."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
