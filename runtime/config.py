"""The frozen configuration that all parties agree on before anything is sent."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from spuvm.runtime.errors import ConfigError

RING_BITS = (32, 64, 128)
DEFAULT_FRACTION_BITS = {32: 8, 64: 18, 128: 26}
TRUNCATIONS = ("probabilistic", "exact")  # the usual one first
OPTIMIZE = ("auto", "latency", "bandwidth")  # the usual one first


@dataclass(frozen=True)
class Config:
    """Protocol, ring, fixed point and parties.

    `parties` are the names of those that compute, by rank; `others` those that only bring values and are
    shown results: their ranks follow. `truncation` is how fixed point rounds what is secret: "probabilistic", to one of
    the two neighbours by chance, or "exact", always down. `optimize`: the links that circuits are
    chosen for, "latency" (a message is long on its way), "bandwidth" (they are narrow) or "auto" (the usual circuits).
    Two runs with equal configurations and equal programs exchange the same messages in the same rounds.
    """

    protocol: str = "aby3"
    ring_bits: int = 64
    fxp_fraction_bits: int = 18
    parties: tuple[str, ...] = field(default=("party0", "party1", "party2"))
    others: tuple[str, ...] = ()
    truncation: str = TRUNCATIONS[0]
    optimize: str = OPTIMIZE[0]

    def __post_init__(self) -> None:
        if self.ring_bits not in RING_BITS:
            raise ConfigError(f"`ring` must be one of {RING_BITS}, got {self.ring_bits}.")
        if not 1 <= self.fxp_fraction_bits <= self.ring_bits // 2 - 4:
            raise ConfigError(
                f"`fxp_fraction_bits` must be between 1 and {self.ring_bits // 2 - 4} for a "
                f"{self.ring_bits}-bit ring (a product holds twice as many), got {self.fxp_fraction_bits}."
            )
        if self.truncation not in TRUNCATIONS:
            raise ConfigError(f"`truncation` must be one of {', '.join(TRUNCATIONS)}, got {self.truncation!r}.")
        if self.optimize not in OPTIMIZE:
            raise ConfigError(f"`optimize` must be one of {', '.join(OPTIMIZE)}, got {self.optimize!r}.")
        if len(set(self.members)) != len(self.members):
            raise ConfigError(f"`parties` must have different names, got {', '.join(self.members)}.")

    @property
    def world_size(self) -> int:
        return len(self.parties)

    @property
    def members(self) -> tuple[str, ...]:
        """All that a value can belong to, by rank."""
        return (*self.parties, *self.others)

    @property
    def exact(self) -> bool:
        return self.truncation == "exact"

    @property
    def settings(self) -> dict[str, Any]:
        """The fields as a dictionary; `others` if there are any, `truncation` and `optimize` if not the usual."""
        usual = {"others": (), "truncation": TRUNCATIONS[0], "optimize": OPTIMIZE[0]}
        return {k: v for k, v in asdict(self).items() if k not in usual or v != usual[k]}

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of all fields, compared by the parties before a run."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
