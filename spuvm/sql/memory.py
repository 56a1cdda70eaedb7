"""How much memory a query takes, before it runs: an estimate from the bounds of its relations.

A relation is at a party as its components of every array, and an operator holds those of its inputs and its result
beside copies in other orders. Relations that nothing reads any more are let go. What does not fit is refused with that
estimate: joins and sorts work on whole relations, so there is no smaller piece of a query to go on with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spuvm.runtime.errors import InputError
from spuvm.runtime.memory import memory_bytes
from spuvm.sql.plan import Field, Node, nodes

WORD = 8  # bytes
COPIES = 5  # of what an operator reads and gives, in its own steps (measured: a million rows grouped, and sorted)
CGROUP = Path("/sys/fs/cgroup/memory.max")


def needed(root: Node, components: int) -> int:
    """Bytes that a query takes at a process which holds so many components of every value, about."""
    most = 0
    for node in nodes(root):
        rows = [node, *node.inputs]
        most = max(most, sum(n.bound * _width(n.fields) for n in rows))
    return most * components * COPIES


def _width(fields: tuple[Field, ...]) -> int:
    """Bytes of a row: a word for each array, a byte for each validity, the row's included."""
    return 1 + sum(f.type.parts * (1 if f.type.kind == "bool" else WORD) + f.nullable for f in fields)


def components_of(vm: Any) -> int:
    """Of a number, those that this process holds: all of them in a simulation."""
    held = vm.protocol.components("a")
    party = vm.session.party
    return sum(party is None or party in ranks for ranks in held)


def limit() -> int:
    """Bytes that this process may have: of the machine, or of its container."""
    try:
        return min(memory_bytes(), int(CGROUP.read_text()))
    except (OSError, ValueError):
        return memory_bytes()


def check(root: Node, vm: Any) -> None:
    """InputError if a query needs more memory than this machine has, before anything runs."""
    asked, most = needed(root, components_of(vm)), limit()
    if asked > most:
        raise InputError(
            f"the query needs about {asked / 1e9:,.1f} GB of memory here, and there are {most / 1e9:,.1f} GB: select "
            "fewer columns, aggregate in a subquery of one owner's table before it is joined or sorted, state a "
            "smaller `join_rows`, or connect to a part of the rows at a time. Nothing was run."
        )
