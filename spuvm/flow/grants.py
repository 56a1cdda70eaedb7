"""What an owner allows a flow to do with its tables: columns, uses, receivers, and until when.

    [[grant]]
    flow = "4e1f..."                             # the flow's hash, or "any"
    tables = { loans = ["id", "age", "bad"] }    # of this party's catalogue: these columns, or ["*"]
    uses = ["read", "match", "split", "sgb"]     # components that they, and what is made of them, may go into; or ["*"]
    until = 2027-12-31                           # the last day

Each party checks its own file alone; all learn which node it stops, and why in a word. A node that asks for more stops,
and with it the flow; what was finished is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from spuvm.data.schema import nearest
from spuvm.flow.components import known
from spuvm.flow.graph import Flow
from spuvm.policy import fields
from spuvm.policy.fields import Field
from spuvm.policy.rules import HASH
from spuvm.runtime.errors import PolicyError
from spuvm.runtime.located import located

ANY, STAR = "any", "*"
FIELDS = {
    "flow": Field(lambda value: _flow(value)),
    "tables": Field(fields.table_of(fields.texts), {}),
    "uses": Field(lambda value: _uses(value)),
    "until": Field(fields.day),
}


class NotGranted(PolicyError):
    """A node that asks for more than a party allows; its message holds nothing but what all know."""

    told = None


@dataclass(frozen=True)
class Grant:
    """One of a party's grants; `until` is the last day on which it holds, in UTC."""

    flow: str
    tables: Mapping[str, tuple[str, ...]]
    uses: tuple[str, ...]
    until: date

    def misses(self, flow: Flow, node: str, party: str, today: date) -> str | None:
        """What it lacks for a node; None if nothing."""
        if self.flow not in (ANY, flow.hash):
            return "is for another flow"
        if today > self.until:
            return f"ended on {self.until}"
        component = flow.nodes[node].component
        if component.name not in self.uses and STAR not in self.uses:
            return f"does not allow `{component.name}`"
        if component.reads is not None:
            asked = flow.reads(node)
            if asked.party != party:
                return None
            allowed = self.tables.get(asked.table)
            if allowed is None:
                return f"does not name table `{asked.table}`"
            if STAR not in allowed:
                wrong = [c for c in asked.columns or (STAR,) if c not in allowed]
                if wrong:
                    return (
                        f"does not allow column `{wrong[0]}` of `{asked.table}`"
                        if asked.columns
                        else (f"allows some columns of `{asked.table}`, and the node asks for all")
                    )
        return None


def load(path: str | Path) -> tuple[Grant, ...]:
    """The grants of a party's file."""
    with located(path):
        table = fields.read(fields.load(Path(path)), {"grant": Field(_tables)}, str(path))
        return tuple(Grant(**fields.read(g, FIELDS, f"{path}: grant {i}")) for i, g in enumerate(table["grant"], 1))


def _flow(value: Any) -> str:
    if value != ANY and not (isinstance(value, str) and HASH.fullmatch(value)):
        raise ValueError('"any", or the hash of a flow: 64 hexadecimal digits, as `spuvm flow check` prints it')
    return str(value)


def _uses(value: Any) -> tuple[str, ...]:
    """Names that no component has would allow nothing."""
    found = fields.texts(value)
    for name in found:
        if name != STAR and name not in known():
            raise ValueError(
                f"a list of components or [{STAR!r}], and `{name:.60}` is none{nearest(name, list(known()))}"
            )
    return found


def _tables(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("tables [[grant]]")
    return value


def refusal(grants: Sequence[Grant], flow: Flow, node: str, party: str, today: date | None = None) -> str | None:
    """Why a party does not let a node go on; None if it does, or if none of its tables are behind the node."""
    if party not in flow.owners(node):
        return None
    today = today or datetime.now(UTC).date()
    misses = []
    for grant in grants:
        missed = grant.misses(flow, node, party, today)
        if missed is None:
            return None
        misses.append(missed)
    nearest = min(misses, key=lambda m: m.startswith("is for another")) if misses else "is not there"
    return f"the grant of {party} {nearest}"


def check(grants: Mapping[str, Sequence[Grant]], flow: Flow, node: str) -> None:
    """Stop a node that one of the parties here does not allow.

    Raises:
        NotGranted: which says the node, the party, and what its grant lacks.
    """
    for party, own in grants.items():
        why = refusal(own, flow, node, party)
        if why is not None:
            raise NotGranted(
                f"node `{node}` of flow `{flow.name}` stops: {why}. Ask its people for a grant that names this flow "
                f"({flow.hash[:12]}) and what it does (`spuvm flow approve`), then resume."
            )


def asked(flow: Flow, party: str, until: date) -> Grant:
    """The least grant of a party under which a flow runs to its end."""
    tables: dict[str, list[str]] = {}
    uses: list[str] = []
    for name, node in flow.nodes.items():
        if party not in flow.owners(name):
            continue
        uses.append(node.component.name)
        if node.component.reads is not None:
            reads = flow.reads(name)
            if reads.party == party:
                tables.setdefault(reads.table, []).extend(reads.columns or (STAR,))
    columns = {t: tuple(dict.fromkeys(c)) for t, c in tables.items()}
    return Grant(flow.hash, columns, tuple(dict.fromkeys(uses)), until)


def to_toml(grants: Iterable[Grant]) -> str:
    """A file that `load` reads."""
    out = []
    for g in grants:
        tables = ", ".join(f"{json.dumps(t)} = {json.dumps(list(c))}" for t, c in g.tables.items())
        out += ["[[grant]]", f"flow = {json.dumps(g.flow)}", f"tables = {{ {tables} }}"]
        out += [f"uses = {json.dumps(list(g.uses))}", f"until = {g.until.isoformat()}", ""]
    return "\n".join(out)
