"""The plain meaning of a plan: the same relations, of all owners' rows in one process, without protocol and shares."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from spuvm.devices import PYUObject
from spuvm.marking import reveal
from spuvm.objects import SPUObject
from spuvm.runtime.errors import InputError
from spuvm.sql import machine, scanning
from spuvm.sql.answers import beyond, cells, computed
from spuvm.sql.database import Database
from spuvm.sql.shares import NOBODY, held


def evaluate(db: Database, sql: str, to: str, **options: Any) -> list[tuple[Any, ...]]:
    """The rows of a query, in a simulation: what `db.sql` gives, for tests and debugging. Policies are not asked.

    Raises:
        InputError: as `Database.plan`.
    """
    plan = db.plan(sql, to, **options)
    spelled = machine.dictionaries(plan.root)
    with jax.enable_x64(True):
        given = {}
        for scan in plan.scans:
            if scan.owner == NOBODY:
                shared = held(db.shares[scan.table], scan.items, spelled)
                given[scan.name] = jax.tree.map(_known, shared, is_leaf=_is_object)
                continue
            wanted = {f.name: (f.type, f.nullable) for f in scan.fields}
            tree = scanning.scanned(db.stores[scan.owner].value, scan, wanted, spelled)
            given[scan.name] = jax.tree.map(jnp.asarray, tree)
        out = computed(plan, {"scans": given, "matched": {}, "frac": 0})
        if out["fits"] is not None and not bool(out["fits"]):
            raise InputError(beyond(plan.root))
        return list(zip(*cells(plan, {"columns": out["columns"], "there": out["there"]})))


def _is_object(x: Any) -> bool:
    return isinstance(x, SPUObject | PYUObject)


def _known(x: Any) -> Any:
    """What a simulation holds of an object."""
    if isinstance(x, PYUObject):
        return jax.tree.map(jnp.asarray, x.value)
    return jnp.asarray(reveal(x))
