"""Models on disk: a part for each party, which says nothing by itself.

What is secret is stored as the shares that each party holds, by `spuvm.save_shares`: written atomically,
with a digest, a version, and an identity that all parts of one model have in common. What only an owner
knows (edges, the names of categories) is in its own part alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from spuvm.data import Column
from spuvm.devices import SPU
from spuvm.ml.boosting import AnyTree
from spuvm.ml.layout import Layout
from spuvm.ml.leafwise import LeafTree
from spuvm.ml.machine import Machine
from spuvm.ml.model import Model
from spuvm.ml.parameters import Parameters
from spuvm.ml.partitions import SIDES
from spuvm.ml.tree import Tree

VERSION = 2
NAME = "model"


def tree_of(model: Model) -> dict[str, Any]:
    """What `spuvm.save_shares` takes."""
    layout, p = model.layout, model.parameters
    return {
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


def model_of(tree: Mapping[str, Any], device: SPU) -> Model:
    """The inverse of `tree_of`, on a machine of the same configuration."""
    p = Parameters(**_tuples(json.loads(tree["parameters"])))
    features = tuple(tuple(Column.from_json(json.loads(c)) for c in some) for some in tree["features"])
    layout = Layout(tuple(tree["owners"]), features, p.max_bin)
    machine = Machine(device)
    return Model(
        machine=machine,
        parameters=p,
        bins=SIDES[tree["frame"]].bins.stored(machine, layout, tree["bins"]),
        label=Column.from_json(json.loads(tree["label"])),
        trees=[(LeafTree if "picks" in t else Tree)(**t) for t in tree["trees"]],
        base=tree["base"],
        up=tree["up"],
        down=tree["down"],
        exponent=tree["exponent"],
    )


def _parts(tree: AnyTree) -> dict[str, Any]:
    if isinstance(tree, LeafTree):
        return {"splits": tree.splits, "picks": tree.picks, "weights": tree.weights, "gains": tree.gains}
    return {"splits": tree.splits, "left": tree.left, "right": tree.right, "steps": tree.steps, "gains": tree.gains}


def _tuples(parameters: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()}
