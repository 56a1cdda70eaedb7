"""Models on disk: a part for each party, which says nothing by itself.

What is secret is stored as the shares that each party holds, by `spuvm.save_shares`: written atomically,
with a digest, a version, and an identity that all parts of one model have in common. What only an owner
knows (edges, the names of categories) is in its own part alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import spuvm as spu
from spuvm.data import Column
from spuvm.devices import SPU
from spuvm.ml.layout import Layout
from spuvm.ml.machine import Machine
from spuvm.ml.model import Model
from spuvm.ml.parameters import Parameters
from spuvm.ml.partitions import SIDES
from spuvm.ml.tree import Tree
from spuvm.runtime.errors import InputError

VERSION = 2
NAME = "model"


def save(model: Model, folders: Mapping[str, str | Path]) -> None:
    """Write `model.share` into each party's folder; a networked run needs its own party's alone."""
    layout, p = model.layout, model.parameters
    tree = {
        "kind": "spuvm.ml.Sgb",
        "version": VERSION,
        "parameters": json.dumps(asdict(p)),
        "frame": model.bins.kind,
        "owners": list(layout.owners),
        "features": [[json.dumps(c.to_json()) for c in features] for features in layout.features],
        "label": json.dumps(model.label.to_json()),
        "exponent": model.exponent,
        "trees": [_parts(t) for t in model.trees],
        "base": model.base,
        "up": model.up,
        "down": model.down,
        "bins": model.bins.to_store(),
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
    machine = Machine(device)
    return Model(
        machine=machine,
        parameters=p,
        bins=SIDES[tree["frame"]].bins.stored(machine, layout, tree["bins"]),
        label=Column.from_json(json.loads(tree["label"])),
        trees=[Tree(**t) for t in tree["trees"]],
        base=tree["base"],
        up=tree["up"],
        down=tree["down"],
        exponent=tree["exponent"],
    )


def _parts(tree: Tree) -> dict[str, Any]:
    return {"splits": tree.splits, "left": tree.left, "right": tree.right, "steps": tree.steps, "gains": tree.gains}


def _tuples(parameters: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()}
