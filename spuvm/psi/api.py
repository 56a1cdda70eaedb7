"""What users call: `spu.psi.join`, `intersect`, `count`, `sum`, `union`, `difference`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spuvm.devices import PYU, SPU, PYUObject
from spuvm.dp.ledgers import Budgets, check_budgets
from spuvm.psi.bounds import cut, noisy_count
from spuvm.psi.guard import Guard
from spuvm.psi.joining import to_shares
from spuvm.psi.kinds import KINDS, MANY
from spuvm.psi.places import Held
from spuvm.psi.plan import Key, Names, Plan, planned
from spuvm.psi.revealed import count as how_many
from spuvm.psi.revealed import joined_rows, matches, total
from spuvm.runtime.errors import InputError
from spuvm.vm import VM

SHARED = "shared"


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
    normalize: Mapping[str, Sequence[str]] | None = None,
    guard: Mapping[str, Guard] | None = None,
    bound: int | None = None,
    epsilon: float | None = None,
    budget: Budgets = None,
) -> Any:
    """Join the owners' tables by key. As secrets, nobody learns which rows match.

    Args:
        files: by owner, two or more: a path, an arrow table, a pandas frame, or arrays by name. In a networked run each
            party's is used at that party alone; the others may give None.
        key: the key columns, or by party their names there.
        how: "inner", "left", "right", "full", "semi", "anti" (rows of the first without a match), or "union" (of keys).
            Of three owners and more: "inner", "left", "semi", "anti", all others looked up by the first one's keys.
        output: "shared"; or the party that alone sees the joined rows; or "all", then every party does.
        columns, drop: the columns to use beside the key, or to leave out (the key's, too); for all, or by party.
        types: of key columns, by the first owner's names: "int", "text", "date", "time", "instant", "decimal", "bool".
            A CSV file's are read as that ("007" is no number then).
        missing: whether cells beside the key may be missing; False is faster.
        duplicates: a key in several rows of a side that has one row for each: "refuse" it, or take the "first".
            The first owner's rows may repeat keys ("right": the second's; "semi", "anti", and "inner" with a `bound`
            in helper mode: both).
        mode: "helper", "oblivious" or "ecdh"; chosen by parties and kinds of keys if not given.
        helper: in helper mode, the party that finds equal keys; it brings no table.
        device: the SPU that holds the result; the one of all parties that `spu.init` named if not given.
        normalize: of text key columns, by the first owner's names, what is done before they are compared: "trim" and
            "lower", "spaces" (several are one), "digits" (nothing else counts).
        guard: by owner, the limits it sets (`Guard`); in a networked run each party's own are used there.
        bound: a smaller public bound of a shared table's rows; all learn whether the rows fit, else an InputError.
        epsilon: the bound is the number of joined rows and noise that the helper draws and that only adds; all learn
            the sum, which is (epsilon, 2^-40)-differentially private. 0.1 adds about 280 rows.
        budget: the ledger that `epsilon` is spent in, before rows are counted, or one for each party.

    Returns:
        A `SharedTable`, or an arrow table at the party, or everywhere. The bound of a shared table is the rows of the
        first owner ("right": of the second; "full", "union": of both); of "inner" of two tables: of the one whose
        keys repeat, else of the smaller.

    Raises:
        InputError, DataError: for tables and keys that do not fit; every party stops.
        ConfigError: for a mode that these parties do not have.
        PeerMismatchError: if the parties' scripts ask for different things.
    """
    if how not in KINDS:
        raise InputError(f"`how` must be one of {', '.join(KINDS)}, got {how!r}.")
    if output != SHARED and (bound is not None or epsilon is not None):
        raise InputError("`bound` and `epsilon` are of shared tables: joined rows that somebody sees have none.")
    check_budgets("budget", budget)
    if budget is not None and epsilon is None:
        raise InputError("`budget` is for `epsilon`, the noise of a shared table's size: give both.")
    if len(files) > 2 and how in ("right", "full", "union"):
        raise InputError(
            f"`how='{how}'` joins two tables, got {len(files)}: join the others to the result's owner first."
        )
    plan = planned(
        files,
        key,
        how,
        output,
        many=MANY.get(how, ()),
        raw=output != SHARED,
        mode=mode,
        helper=helper,
        device=device,
        columns=columns,
        drop=drop,
        types=types,
        missing=missing,
        duplicates=duplicates,
        normalize=normalize,
        guard=guard,
    )
    if output != SHARED:
        return joined_rows(plan)
    table = to_shares(plan, bound)
    if epsilon is not None:
        bound = noisy_count(plan, table, epsilon, budget)
    return table if bound is None else cut(plan, table, bound)


def intersect(files: Mapping[str, Any], key: Key, to: str = "owners", **options: Any) -> Any:
    """The rows of an owner whose key all other owners have.

    Args:
        files, key: as of `join`, two tables or more.
        to: the owner that learns which of its rows these are; "owners": all of them, each of its own.
        options: types, normalize, duplicates, mode, helper, device, guard: as of `join`; `kept`: by party, a folder
            where mode "ecdh" keeps what serves the next query of the same keys.

    Returns:
        An arrow table at that owner, its rows in their order; for "owners", one for each, by party.
    """
    return _rows(planned(files, key, "semi", to, **options), to, without=False)


def difference(files: Mapping[str, Any], key: Key, to: str | None = None, **options: Any) -> Any:
    """The rows of an owner (the first, if `to` is not given) whose key no other owner has; else as `intersect`."""
    to = next(iter(files)) if to is None else to
    return _rows(planned(files, key, "anti", to, **options), to, without=True)


def _rows(plan: Plan, to: str, without: bool) -> Any:
    if to != "owners" and to not in plan.owners:
        raise InputError(f"`to` must be one of {', '.join(plan.owners)}, who own the rows, or 'owners', got {to!r}.")
    found = matches(plan, plan.owners if to == "owners" else (to,), without)
    out = {p: PYU(p)(lambda t, rows: t.arrow.filter(rows))(_at(plan.tables[p], p), _at(found[p], p)) for p in found}
    return out if to == "owners" else out[to]


def _at(held: Held, party: str) -> PYUObject:
    return PYUObject(PYU(party), held.value)


def count(files: Mapping[str, Any], key: Key, **options: Any) -> int:
    """How many keys of the first owner all others have; all parties learn it. Options as of `intersect`."""
    return how_many(planned(files, key, "semi", "count", **options))


def sum(files: Mapping[str, Any], key: Key, column: str, **options: Any) -> Any:
    """The sum of one owner's `column` over its rows whose key all others have; all parties learn it.

    Options as of `intersect`. A float is the machine's fixed point. InputError unless exactly one owner has the column.
    """
    plan = planned(files, key, "semi", "sum", **options)
    having = [p for p in plan.owners if any(n == column for n, *_ in plan.said[p]["columns"])]
    if len(having) != 1:
        raise InputError(f"`column` `{column}` is at {' and '.join(having) or 'no owner'}: it must be at exactly one.")
    if any(n == column and dtype in (None, "category") for n, dtype, _ in plan.said[having[0]]["columns"]):
        raise InputError(f"`column` `{column}` of {having[0]} holds no numbers: nothing can be summed.")
    return total(plan, having[0], column)


def union(files: Mapping[str, Any], key: Key, output: str = SHARED, **options: Any) -> Any:
    """All keys that one of two owners has, once each; nobody learns which both have. Else as `join`."""
    return join(files, key, "union", output, **options)
