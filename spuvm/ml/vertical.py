"""Vertical frames: every feature has an owner, who bins it; the labels have a holder, who prepares them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

import spuvm as spu
from spuvm.data import Column, Frame
from spuvm.devices import PYU, PYUObject
from spuvm.ml import ranking
from spuvm.ml.binning import Edges, find_edges, indicators, split_count
from spuvm.ml.layout import Layout
from spuvm.ml.machine import Machine
from spuvm.ml.noisy import ranged_edges
from spuvm.ml.objectives import checked, prepare
from spuvm.ml.parameters import Parameters
from spuvm.ml.partition import Bins, Labels, Ranges
from spuvm.ml.predictions import labels_to_score
from spuvm.runtime.errors import InputError

PADDING = 1024  # bytes: of the names of categories all parties see the length, rounded up to a power of two


class VerticalBins(Bins):
    """Edges and categories that only the features' owners know.

    Attributes:
        edges, categories: by owner, at the owner.
    """

    kind = "vertical"

    def __init__(
        self, machine: Machine, layout: Layout, edges: Mapping[str, PYUObject], categories: Mapping[str, PYUObject]
    ) -> None:
        super().__init__(machine, layout)
        self.edges = edges
        self.categories = categories

    @staticmethod
    def layout_of(features: Frame, parameters: Parameters) -> Layout:
        owners = tuple(party for party in features.parties if features.columns_of(party))
        return Layout(owners, tuple(features.schema.of(o) for o in owners), parameters.max_bin)

    @classmethod
    def find(cls, machine: Machine, features: Frame, layout: Layout, ranges: Ranges | None = None) -> VerticalBins:
        if ranges is not None:
            stated = {o: PYU(o)(ranged_edges)(r, layout.max_bin) for o, r in zip(layout.owners, ranges)}
            return cls(machine, layout, stated, {o: features.categories(o) for o in layout.owners})
        edges = {
            o: PYU(o)(find_edges)(features.at(o), f, layout.max_bin) for o, f in zip(layout.owners, layout.features)
        }
        return cls(machine, layout, edges, {o: features.categories(o) for o in layout.owners})

    def conformed(self, data: Frame) -> Frame:
        absent = [p for p in self.layout.owners if p not in data.parties]
        if absent:
            raise InputError(f"the model has features of {', '.join(absent)}: this frame has none of theirs.")
        return data.conform(self.layout.all_features, self.categories)

    def matrices(self, data: Frame) -> list[Any]:
        """Each owner's matrix, made there."""
        return [
            self.machine.matrix(PYU(owner)(indicators)(data.at(owner), features, self.edges[owner]))
            for owner, features in zip(self.layout.owners, self.layout.features)
        ]

    def reveal(self) -> Mapping[str, Edges]:
        return {owner: spu.reveal(edges) for owner, edges in self.edges.items()}

    def to_store(self) -> Any:
        """By owner, what it alone knows, private to it."""
        packed = {o: PYU(o)(pack)(self.edges[o], self.categories[o]) for o in self.layout.owners}
        return {owner: self.machine.spu(_same)(x) for owner, x in packed.items()}

    @classmethod
    def stored(cls, machine: Machine, layout: Layout, values: Any) -> VerticalBins:
        known = {
            o: PYU(o)(unpack)(_at_owner(values[o], o), f, layout.max_bin)
            for o, f in zip(layout.owners, layout.features)
        }
        edges = {o: PYU(o)(lambda x: x[0])(both) for o, both in known.items()}
        categories = {o: PYU(o)(lambda x: x[1])(both) for o, both in known.items()}
        return cls(machine, layout, edges, categories)


class VerticalLabels(Labels):
    """Labels of one party, who prepares them and shares what it made."""

    def __init__(
        self,
        machine: Machine,
        parameters: Parameters,
        data: Frame,
        label: str,
        weight: str | None,
        exponent: int,
        known: Any = None,
    ) -> None:
        self.machine, self.parameters, self.column = machine, parameters, data.schema[label]
        self.holder = PYU(str(self.column.party))
        weights = None if weight is None else data[weight].at(self.holder.party)
        y = data[label].at(self.holder.party)
        self.private = self.holder(prepare)(y, weights, parameters, self.column.where, exponent, known)
        self.prepared = machine.share(self.private)

    def of(self, frame: Frame, groups: Any = None) -> Any:
        y, where = labels_at(frame, self.column.name, self.holder.party), frame.schema[self.column.name].where
        if groups is not None:
            return self.machine.share(self.holder(_gains)(y, groups, self.parameters, where))
        return self.machine.share(self.holder(evaluation_labels)(y, self.private, self.parameters, where))

    @staticmethod
    def check(data: Frame, label: Column, weight: str | None) -> None:
        if weight is not None and data.schema[weight].party != label.party:
            at = data.schema[weight].where
            raise InputError(f"`sample_weight` {at} must be where the labels are, {label.where}: move it there.")

    @staticmethod
    def to_score(machine: Machine, parameters: Parameters, data: Frame, label: str, unit: Any) -> Mapping[str, Any]:
        labels = data[label]
        (holder,) = labels.parties
        made = PYU(holder)(labels_to_score)(labels.at(holder), parameters, labels.column.where)
        return {**machine.share(made), "up": unit[0], "down": unit[1]}


def evaluation_labels(
    labels: np.ndarray, prepared: Mapping[str, Any], parameters: Parameters, where: str
) -> np.ndarray:
    """Labels of held-out rows in the units of training, at their holder: float32 [rows]."""
    y: np.ndarray = checked(labels, parameters, where) / (float(prepared["up"]) * float(prepared["down"]))
    return y.astype(np.float32)


def _gains(labels: np.ndarray, groups: ranking.Groups, parameters: Parameters, where: str) -> np.ndarray:
    return ranking.gains(checked(labels, parameters, where), groups)


def labels_at(frame: Frame, label: str, party: str) -> PYUObject:
    """The label column at its holder, who must be the party that held it in training."""
    if frame.schema[label].party != party:
        raise InputError(f"{frame.schema[label].where} holds labels that {party} held in training: bring them there.")
    at: PYUObject = frame[label].at(party)
    return at


def pack(edges: Edges, categories: Mapping[str, tuple[str, ...]]) -> np.ndarray:
    """What an owner alone knows as int32 [n]: the bits of its edges, then its categories as JSON."""
    text = json.dumps(categories).encode()
    length = PADDING
    while length < len(text):
        length *= 2
    packed: np.ndarray = np.concatenate(
        [*(e.view(np.int32) for e in edges), np.frombuffer(text.ljust(length), np.int32)]
    )
    return packed


def unpack(packed: Any, features: tuple[Column, ...], max_bin: int) -> tuple[Edges, dict[str, tuple[str, ...]]]:
    """The inverse of `pack`."""
    raw = np.ascontiguousarray(packed, np.int32)
    ends = np.cumsum([split_count(c, max_bin) for c in features])
    *edges, text = np.split(raw, ends)
    categories = json.loads(text.tobytes().decode())
    return [e.view(np.float32) for e in edges], {name: tuple(c) for name, c in categories.items()}


def _same(x: Any) -> Any:
    return x


def _at_owner(x: Any, owner: str) -> PYUObject:
    """The private value of a machine at its owner."""
    device = PYU(owner)
    return PYUObject(device, x.known_value() if device.is_here else None)
