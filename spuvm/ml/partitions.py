"""The sides from which a frame can be cut, and what each needs."""

from __future__ import annotations

from typing import NamedTuple

from spuvm.ml.horizontal import HorizontalBins, HorizontalLabels
from spuvm.ml.joined import JoinedBins, JoinedLabels
from spuvm.ml.partition import Bins, Labels
from spuvm.ml.vertical import VerticalBins, VerticalLabels


class Side(NamedTuple):
    """How features and labels of one kind of frame are prepared."""

    bins: type[Bins]
    labels: type[Labels]


SIDES = {  # by `Frame.kind`
    "vertical": Side(VerticalBins, VerticalLabels),
    "horizontal": Side(HorizontalBins, HorizontalLabels),
    "joined": Side(JoinedBins, JoinedLabels),
}
