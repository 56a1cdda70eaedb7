"""What users call: `spu.psi.join`, `intersect`, `count`, `sum`, `union`, `difference`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spuvm.devices import SPU
from spuvm.psi.join import to_shares
from spuvm.psi.plan import Key, Names, planned
from spuvm.psi.shared import SharedTable
from spuvm.runtime.errors import InputError
from spuvm.vm import VM

KINDS = ("inner", "left", "right", "full", "semi", "anti", "union")
MANY = {"inner": (0, 1), "left": (0,), "semi": (0, 1), "anti": (0, 1), "right": (1,)}  # sides whose keys may repeat


def join(
    files: Mapping[str, Any],
    key: Key,
    how: str = "inner",
    output: str = "shared",
    *,
    columns: Names | Mapping[str, Names] | None = None,
    drop: Names | Mapping[str, Names] = (),
    types: Mapping[str, str] | None = None,
    missing: bool = True,
    duplicates: str = "refuse",
    mode: str | None = None,
    helper: str | None = None,
    device: SPU | VM | None = None,
) -> SharedTable:
    """Join the owners' tables by key, as secrets: nobody learns which rows match.

    Args:
        files: by owner, two or more: a path, an arrow table, a pandas frame, or arrays by name. In a networked run each
            party's is used at that party alone; the others may give None.
        key: the key columns, or by party their names there.
        how: "inner", "left", "right", "full", "semi", "anti" (rows of the first without a match), or "union" (of keys).
            Of three owners and more: "inner", "left", "semi", "anti", all others looked up by the first one's keys.
        output: "shared".
        columns, drop: the columns to use beside the key, or to leave out; for all, or by party.
        types: of key columns, by the first owner's names: "int", "text", "date", "time", "instant", "decimal", "bool".
            A CSV file's are read as that ("007" is no number then).
        missing: whether cells beside the key may be missing; False is faster.
        duplicates: a key in several rows of a side that has one row for each: "refuse" it, or take the "first".
            The first owner's rows may repeat keys ("right": the second's; "semi" and "anti": both).
        mode: "helper", "oblivious" or "ecdh"; chosen by parties and kinds of keys if not given.
        helper: in helper mode, the party that finds equal keys; it brings no table.
        device: the SPU that holds the result; the one of all parties that `spu.init` named if not given.

    Returns:
        A `SharedTable`. Its bound is the rows of the first owner ("right": the second; "full", "union": of both),
        of "inner" of two tables without repeated keys, of the smaller.

    Raises:
        InputError, DataError: for tables and keys that do not fit; every party stops.
        ConfigError: for a mode that these parties do not have.
        PeerMismatchError: if the parties' scripts ask for different things.
    """
    if how not in KINDS:
        raise InputError(f"`how` must be one of {', '.join(KINDS)}, got {how!r}.")
    if len(files) > 2 and how in ("right", "full", "union"):
        raise InputError(
            f"`how='{how}'` joins two tables, got {len(files)}: join the others to the result's owner first."
        )
    plan = planned(
        files,
        key,
        how,
        output,
        columns=columns,
        drop=drop,
        types=types,
        missing=missing,
        duplicates=duplicates,
        many=MANY.get(how, ()),
        mode=mode,
        helper=helper,
        device=device,
    )
    return to_shares(plan)
