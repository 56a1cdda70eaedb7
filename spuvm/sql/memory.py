"""How much memory a query takes, before it runs: an estimate from the bounds of its relations.

A relation is at a party as its components of every array, and what one owner's tables alone give at that owner, as it
is. An operator holds its inputs and its result beside copies in other orders. Relations that nothing reads any more are
let go. Of a table that comes in blocks (see `blocks`) there is itself, and a block in all that is computed of it. What
does not fit is refused with that estimate: joins and sorts work on whole relations, so there is no smaller piece of a
query to go on with.
"""

from __future__ import annotations

from pathlib import Path

from spuvm.runtime.errors import InputError
from spuvm.runtime.memory import memory_bytes
from spuvm.sql import blocks
from spuvm.sql.answers import SHARED
from spuvm.sql.blocks import Streamed
from spuvm.sql.plan import Node, Scan, nodes
from spuvm.sql.shares import NOBODY
from spuvm.vm import VM

WORD = 8  # bytes
COPIES = 5  # of what an operator reads and gives, in its own steps (measured: a million rows grouped, and sorted)
CGROUP = Path("/sys/fs/cgroup/memory.max")


def needed(root: Node, vm: VM, to: str, found: Streamed | None = None) -> int:
    """Bytes that a query for `to` takes at this process, about; in a simulation, at all parties. `found`: what comes in
    blocks."""
    shared = _components(vm)
    me = None if vm.session.party is None else vm.config.members[vm.session.party]
    owners: dict[int, frozenset[str]] = {}
    most, held = 0, 0
    rows = {id(n): blocks.ROWS for n in (*found.scans, *found.way)} if found else {}
    for node in nodes(root):
        owners[id(node)] = frozenset().union(*(owners[id(n)] for n in node.inputs), _owner(node))
        alone = len(owners[id(node)]) == 1 and NOBODY not in owners[id(node)] and (node is not root or to != SHARED)
        components = int(me is None or me in owners[id(node)]) if alone else shared
        most = max(most, components * sum(_bytes(n, rows.get(id(n))) for n in (node, *node.inputs)))
        held += components * _bytes(node) if found and node in found.scans else 0
    return held + COPIES * max(most, _bytes(root) if me == to else 0)


def _owner(node: Node) -> frozenset[str]:
    return frozenset({node.owner}) if isinstance(node, Scan) else frozenset()


def _bytes(node: Node, rows: int | None = None) -> int:
    """Of one component: a word for each array, a byte for each validity, the rows' included; of `rows` at most."""
    width = sum(f.type.parts * (1 if f.type.kind == "bool" else WORD) + f.nullable for f in node.fields)
    return (node.bound if rows is None else min(rows, node.bound)) * (1 + width)


def _components(vm: VM) -> int:
    """Of a secret number, those that this process holds: all of them in a simulation."""
    party = vm.session.party
    return sum(party is None or party in ranks for ranks in vm.protocol.components("a"))


def limit() -> int:
    """Bytes that this process may have: of the machine, or of its container."""
    try:
        return min(memory_bytes(), int(CGROUP.read_text()))
    except (OSError, ValueError):
        return memory_bytes()


def check(root: Node, vm: VM, to: str, found: Streamed | None = None) -> None:
    """InputError if a query for `to` needs more memory than this machine has, before anything runs."""
    asked, most = needed(root, vm, to, found), limit()
    if asked > most:
        raise InputError(
            f"the query needs about {asked / 1e9:,.1f} GB of memory here, and there are {most / 1e9:,.1f} GB: select "
            "fewer columns, aggregate in a subquery of one owner's table before it is joined or sorted, state a "
            "smaller `join_rows`, or connect to a part of the rows at a time. Nothing was run."
        )
