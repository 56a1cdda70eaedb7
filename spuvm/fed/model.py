"""What a training gives: parameters that all know, each party's own model, metrics, and who learned what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spuvm.devices import PYU, PYUObject
from spuvm.fed.layout import Layout
from spuvm.runtime.errors import InputError


@dataclass(frozen=True, eq=False)
class Model:
    """Attributes:
    layout: which leaves are trained together.
    vector: those, one after another: public.
    history: of each round what was revealed beside the parameters: `parties` that took part, `left_out`, the metrics.
        The first metrics are of the model that training started with, the last of this one.
    learns: who learned what.
    workers: each party's own part, at that party.
    """

    layout: Layout
    vector: np.ndarray
    history: tuple[Mapping[str, float], ...]
    learns: tuple[str, ...]
    workers: Mapping[str, PYUObject]

    @property
    def params(self) -> Any:
        """The pytree that training started with, with what was trained together; personal leaves as they were."""
        return self.layout.model(self.layout.placed(self.vector, self.layout.leaves))

    def at(self, party: str) -> PYUObject:
        """The party's own model, with its personal leaves, at that party."""
        if party not in self.workers:
            raise InputError(f"`{party}` took no part: {', '.join(self.workers)} did.")
        vector = self.vector
        return PYU(party)(lambda worker: worker.model(vector))(self.workers[party])

    def __repr__(self) -> str:
        return (
            f"<model of {self.layout.size:,} parameters, {len(self.workers)} parties, {len(self.history) - 1} rounds>"
        )
