"""Models on disk: a part for each party, which says nothing by itself.

What is secret is stored as the shares that each party holds, by `spuvm.save_shares`: written atomically,
with a digest, a version, and an identity that all parts of one model have in common. An owner's edges and
the names of its categories are in its own part alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import spuvm as spu
from spuvm.data import Column
from spuvm.devices import PYU, SPU, PYUObject
from spuvm.ml.binning import Edges, split_count
from spuvm.ml.layout import Layout
from spuvm.ml.machine import Machine
from spuvm.ml.model import Model
from spuvm.ml.parameters import Parameters
from spuvm.ml.tree import Tree
from spuvm.runtime.errors import InputError

VERSION = 1
NAME = "model"
PADDING = 1024  # bytes: of the names of categories all parties see the length, rounded up to a power of two


def save(model: Model, folders: Mapping[str, str | Path]) -> None:
    """Write `model.share` into each party's folder; a networked run needs its own party's alone."""
    layout, p = model.layout, model.parameters
    private = {o: _brought(model.machine, PYU(o)(pack)(model.edges[o], model.categories[o])) for o in layout.owners}
    tree = {
        "kind": "spuvm.ml.Sgb",
        "version": VERSION,
        "parameters": json.dumps(asdict(p)),
        "owners": list(layout.owners),
        "features": [[json.dumps(c.to_json()) for c in features] for features in layout.features],
        "label": json.dumps(model.label.to_json()),
        "exponent": model.exponent,
        "trees": [_parts(t) for t in model.trees],
        "base": model.base,
        "up": model.up,
        "down": model.down,
        "private": private,
    }
    spu.save_shares(tree, folders, NAME)


def load(folders: Mapping[str, str | Path], device: SPU) -> Model:
    """The model that `save` stored, on a machine of the same configuration."""
    tree = spu.load_shares(folders, device, NAME)
    if not isinstance(tree, dict) or tree.get("kind") != "spuvm.ml.Sgb":
        raise InputError("`folders` have shares that are no model of `Sgb`: give the folders that `save` was given.")
    if tree["version"] != VERSION:
        raise InputError(
            f"the model has format {tree['version']}, this version of spuvm reads {VERSION}: train it anew."
        )
    p = Parameters(**_tuples(json.loads(tree["parameters"])))
    features = tuple(tuple(Column.from_json(json.loads(c)) for c in some) for some in tree["features"])
    layout = Layout(tuple(tree["owners"]), features, p.max_bin)
    known = {o: PYU(o)(unpack)(_at_owner(tree["private"][o], o), f, p.max_bin) for o, f in zip(layout.owners, features)}
    return Model(
        machine=Machine(device),
        parameters=p,
        layout=layout,
        label=Column.from_json(json.loads(tree["label"])),
        trees=[Tree(**t) for t in tree["trees"]],
        base=tree["base"],
        up=tree["up"],
        down=tree["down"],
        exponent=tree["exponent"],
        edges={o: PYU(o)(lambda x: x[0])(both) for o, both in known.items()},
        categories={o: PYU(o)(lambda x: x[1])(both) for o, both in known.items()},
    )


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


def _parts(tree: Tree) -> dict[str, Any]:
    return {"splits": tree.splits, "left": tree.left, "right": tree.right, "steps": tree.steps, "gains": tree.gains}


def _tuples(parameters: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()}


def _brought(machine: Machine, x: PYUObject) -> Any:
    """A party's array as an object of the machine, private to the party."""
    return machine.spu(_same)(x)


def _same(x: Any) -> Any:
    return x


def _at_owner(x: Any, owner: str) -> PYUObject:
    """The private value of a machine at its owner."""
    device = PYU(owner)
    return PYUObject(device, x.known_value() if device.is_here else None)
