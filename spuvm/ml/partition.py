"""What differs between vertical and horizontal frames and joined tables: where bins and labels come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from spuvm.data import Column, Frame
from spuvm.ml.binning import Edges
from spuvm.ml.layout import Layout
from spuvm.ml.machine import Machine
from spuvm.ml.parameters import Parameters

Ranges = Sequence[tuple[tuple[float, float] | None, ...]]


class Bins(ABC):
    """How the features of a frame become indicators of splits.

    Attributes:
        kind: of the frames that it takes.
    """

    kind: str

    def __init__(self, machine: Machine, layout: Layout) -> None:
        self.machine = machine
        self.layout = layout

    @staticmethod
    @abstractmethod
    def layout_of(features: Any, parameters: Parameters) -> Layout:
        """What the public schema says of the matrices; ConfigError if the parameters do not fit it."""

    @classmethod
    @abstractmethod
    def find(cls, machine: Machine, features: Frame, layout: Layout, ranges: Ranges | None = None) -> Bins:
        """The bins of a training set; with stated ranges of each owner's features, None of bools, of these alone."""

    @classmethod
    @abstractmethod
    def stored(cls, machine: Machine, layout: Layout, values: Any) -> Bins:
        """The inverse of `to_store`."""

    @abstractmethod
    def conformed(self, data: Any) -> Any:
        """The model's features in their order, checked and coded as in training."""

    @abstractmethod
    def matrices(self, data: Frame) -> list[Any]:
        """Indicators of a frame that conforms, in the form in which products with them are cheap."""

    @abstractmethod
    def reveal(self) -> Mapping[str, Edges]:
        """The edges, shown to all parties: by owner of the layout."""

    @abstractmethod
    def to_store(self) -> Any:
        """What `spuvm.save_shares` takes."""


class Labels(ABC):
    """The labels of a training set.

    Attributes:
        prepared: what training takes, secret; see `objectives.prepare`.
    """

    prepared: Mapping[str, Any]

    @abstractmethod
    def __init__(
        self,
        machine: Machine,
        parameters: Parameters,
        data: Frame,
        label: str,
        weight: str | None,
        exponent: int,
        known: Any = None,
    ) -> None: ...

    @abstractmethod
    def of(self, frame: Frame, groups: Any = None) -> Any:
        """The labels of other rows in the units of training, secret: float [rows]; of a ranking `ranking.gains`."""

    @staticmethod
    @abstractmethod
    def check(data: Any, label: Column, weight: str | None) -> None:
        """What the public schema shows to be wrong."""

    @staticmethod
    @abstractmethod
    def to_score(machine: Machine, parameters: Parameters, data: Frame, label: str, unit: Any) -> Mapping[str, Any]:
        """What `predictions.score_of` takes besides margins; `unit`: the model's (up, down)."""
