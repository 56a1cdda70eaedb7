"""What all parties of a training agree on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spuvm.fed.compressing import Compression
from spuvm.fed.layout import Layout
from spuvm.fed.private import Private
from spuvm.fed.strategies import Strategy
from spuvm.fed.words import WORD


@dataclass(frozen=True, eq=False)
class Plan:
    """The arguments of `train`, checked."""

    loss: Callable[..., Any]
    optimizer: Any
    layout: Layout
    strategy: Strategy
    parties: tuple[str, ...]
    local_steps: int
    batch_size: int | None
    evaluate: Callable[..., Any] | None
    keep_optimizer: bool
    weighted: bool
    bits: int
    seed: int | None
    private: Private | None = None
    room: int = WORD  # units that a party's words may have
    compress: Compression | None = None

    def compress_state(self) -> dict[str, Any]:
        """What all know of compressed updates before the first round, by name."""
        return {} if self.compress is None else self.compress.start(self.layout)

    @property
    def vectors(self) -> int:
        """How many vectors of the parameters' size leave a party in a round."""
        return 2 if self.strategy.control else 1
