"""Values of each kind in a checkpoint: what all parties know as JSON, and what is a party's in its own folder alone.

Secrets are stored as the shares that each party holds (`spuvm.save_shares`): a party's checkpoint says nothing more
than its memory did.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import spuvm as spu
from spuvm.data import Column, Frame
from spuvm.data.part import Part, pyarrow
from spuvm.data.schema import Schema
from spuvm.devices import PYU, PYUObject
from spuvm.flow.kinds import Report, Written
from spuvm.ml.common.estimator import of_tree
from spuvm.ml.common.table import Block, Table
from spuvm.ml.machine import Machine, default_device
from spuvm.objects import SPUObject

Folders = Mapping[str, Path]  # of the parties that this process is


class Store(NamedTuple):
    """`save(value, folders, name)` gives what all may know, as JSON has it; `load(known, folders, name)` the value."""

    save: Callable[[Any, Folders, str], Any]
    load: Callable[[Any, Folders, str], Any]


# At one party ---------------------------------------------------------------------------------------------


def _save_table(x: PYUObject, folders: Folders, name: str) -> Any:
    party = x.device.party
    PYU(party)(_write_arrow)(x, _path(folders, party, f"{name}.arrow"))
    return {"party": party}


def _load_table(known: Any, folders: Folders, name: str) -> PYUObject:
    return PYU(known["party"])(_read_arrow)(_path(folders, known["party"], f"{name}.arrow"))


def _path(folders: Folders, party: str, name: str) -> Path:
    return folders.get(party, Path()) / name


def _write_arrow(table: Any, path: Path) -> None:
    arrow, _ = pyarrow()
    with arrow.OSFile(str(path), "wb") as file, arrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _read_arrow(path: Path) -> Any:
    arrow, _ = pyarrow()
    with arrow.memory_map(str(path)) as file:
        return arrow.ipc.open_file(file).read_all()


def _write_array(x: Any, path: Path) -> None:
    np.save(path, np.asarray(x), allow_pickle=False)


def _read_array(path: Path) -> np.ndarray:
    out: np.ndarray = np.load(path, allow_pickle=False)
    return out


# Frames ---------------------------------------------------------------------------------------------------


def _save_frame(x: Any, folders: Folders, name: str) -> Any:
    if isinstance(x, Table):
        return _save_secret_table(x, folders, name)
    for party in x.parties:
        PYU(party)(_write_part)(x.parts[party], _path(folders, party, name))
    schema = {
        "columns": [c.to_json() for c in x.schema.columns],
        "rows": x.schema.rows,
        "rows_at": dict(x.schema.rows_at),
    }
    return {"kind": x.kind, "key": list(x.key), "schema": schema, "parties": list(x.parties)}


def _load_frame(known: Any, folders: Folders, name: str) -> Any:
    if "blocks" in known:
        return _load_secret_table(known, folders, name)
    columns = tuple(Column.from_json(c) for c in known["schema"]["columns"])
    schema = Schema(columns, known["schema"]["rows"], known["schema"]["rows_at"])
    parts = {p: PYU(p)(_read_part)(_path(folders, p, name)) for p in known["parties"]}
    return Frame(known["kind"], schema, tuple(known["key"]), parts)


def _write_part(part: Part, path: Path) -> None:
    _write_arrow(part.keys, path.with_name(f"{path.name}.keys.arrow"))
    names = list(part.columns)
    arrays: dict[str, Any] = {f"c{i}": part.columns[n] for i, n in enumerate(names)}
    np.savez(path.with_name(f"{path.name}.npz"), **arrays)
    known = {"where": part.where, "rows": part.rows, "types": dict(part.types), "columns": names}
    known["categories"] = {k: list(v) for k, v in part.categories.items()}
    path.with_name(f"{path.name}.json").write_text(json.dumps(known))


def _read_part(path: Path) -> Part:
    known = json.loads(path.with_name(f"{path.name}.json").read_text())
    with np.load(path.with_name(f"{path.name}.npz"), allow_pickle=False) as arrays:
        columns = {n: arrays[f"c{i}"] for i, n in enumerate(known["columns"])}
    categories = {k: tuple(v) for k, v in known["categories"].items()}
    keys = _read_arrow(path.with_name(f"{path.name}.keys.arrow"))
    return Part(known["where"], known["rows"], keys, known["types"], columns, categories)


def _save_secret_table(x: Table, folders: Folders, name: str) -> Any:
    """Columns of owners in arrays of theirs, secret ones as shares."""
    secret = {}
    for i, b in enumerate(x.blocks):
        if b.owner is None:
            secret[f"b{i}"] = {"value": b.value, "power": b.power}
            continue
        PYU(b.owner)(_write_array)(b.value, _path(folders, b.owner, f"{name}.{i}.npy"))
        if b.categories is not None:
            PYU(b.owner)(_write_json)(b.categories, _path(folders, b.owner, f"{name}.{i}.json"))
    if secret:
        spu.save_shares(secret, folders, name)
    blocks = [
        {"columns": [c.to_json() for c in b.columns], "owner": b.owner, "named": b.categories is not None}
        for b in x.blocks
    ]
    return {"blocks": blocks, "rows": x.rows, "kind": x.kind}


def _write_json(x: Any, path: Path) -> None:
    path.write_text(json.dumps(x))


def _read_json(path: Path) -> Any:
    return {k: tuple(v) for k, v in json.loads(path.read_text()).items()}


def _load_secret_table(known: Any, folders: Folders, name: str) -> Table:
    machine = Machine(default_device())
    secret = any(b["owner"] is None for b in known["blocks"])
    shares = spu.load_shares(folders, machine.spu, name) if secret else {}
    blocks = []
    for i, b in enumerate(known["blocks"]):
        columns, owner = tuple(Column.from_json(c) for c in b["columns"]), b["owner"]
        if owner is None:
            blocks.append(Block(columns, shares[f"b{i}"]["value"], power=shares[f"b{i}"]["power"]))
            continue
        value = PYU(owner)(_read_array)(_path(folders, owner, f"{name}.{i}.npy"))
        named = PYU(owner)(_read_json)(_path(folders, owner, f"{name}.{i}.json")) if b["named"] else None
        blocks.append(Block(columns, value, owner, categories=named))
    return Table(machine, known["rows"], tuple(blocks), known["kind"])


# Others ---------------------------------------------------------------------------------------------------


def _save_model(x: Any, folders: Folders, name: str) -> Any:
    spu.save_shares(x.to_tree(), folders, name)
    return {}


def _load_model(known: Any, folders: Folders, name: str) -> Any:
    device = default_device()
    return of_tree(spu.load_shares(folders, device, name), device)


def _save_predictions(x: Any, folders: Folders, name: str) -> Any:
    if isinstance(x, SPUObject):
        spu.save_shares({"x": x}, folders, name)
        return {"party": None}
    PYU(x.device.party)(_write_array)(x, _path(folders, x.device.party, f"{name}.npy"))
    return {"party": x.device.party}


def _load_predictions(known: Any, folders: Folders, name: str) -> Any:
    if known["party"] is None:
        return spu.load_shares(folders, default_device(), name)["x"]
    return PYU(known["party"])(_read_array)(_path(folders, known["party"], f"{name}.npy"))


def _save_file(x: Written, folders: Folders, name: str) -> Any:
    PYU(x.party)(_write_bytes)(x.digest, _path(folders, x.party, f"{name}.digest"))
    return {"party": x.party, "name": x.name}


def _write_bytes(x: bytes, path: Path) -> None:
    path.write_bytes(x)


def _load_file(known: Any, folders: Folders, name: str) -> Written:
    path = _path(folders, known["party"], f"{name}.digest")
    return Written(known["party"], known["name"], PYU(known["party"])(path.read_bytes)())


STORES = {
    "table": Store(_save_table, _load_table),
    "frame": Store(_save_frame, _load_frame),
    "model": Store(_save_model, _load_model),
    "predictions": Store(_save_predictions, _load_predictions),
    "report": Store(lambda x, folders, name: x.as_dict(), lambda known, folders, name: Report.of_dict(known)),
    "number": Store(lambda x, folders, name: float(x), lambda known, folders, name: known),
    "file": Store(_save_file, _load_file),
}


INLINE = ("report", "number")  # all is known to all: there are no files


def without_frame(x: Any) -> Any:
    """A value as a checkpoint would give it back."""
    return replace(x, frame=None) if isinstance(x, Table) and x.frame is not None else x
