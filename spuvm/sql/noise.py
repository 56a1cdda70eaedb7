"""Aggregates of an owner's rows with noise, where its policy has `epsilon`: which queries, and what they cost.

The lowest GROUP BY above an owner's table gets noise; what stands above it (HAVING, ORDER BY, LIMIT, further GROUP BYs)
works with noisy numbers, and costs nothing. Below it, a row of the owner's may be in one row of the relation at most:
then it changes a count by 1, a sum by the largest number of the column's stated range, and both in one group only.
Which groups there are is private, too: those are shown whose noisy count is above a threshold (`spu.dp.groups`), so
that a group of one unit alone is shown with a probability of delta. What is summed is clipped in the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp

from spuvm import dp
from spuvm.dp.spending import DELTA, Spent
from spuvm.sql.columns import Array, Vec, nulled
from spuvm.sql.groups import group, mean
from spuvm.sql.plan import Aggregate, Constants, Field, Filter, Group, Lookup, Node, Project, Scan, Union, nodes
from spuvm.sql.policy import OwnerPolicy
from spuvm.sql.relation import Rows
from spuvm.sql.sources import quoted
from spuvm.sql.types import integer

POSSIBLE = ("count", "count_if", "sum", "avg")
COUNTS = ("count", "count_if")
Number = tuple[str, str | None]  # "count", "count_if" or "sum", of a column
ROWS: Number = ("count", None)  # the count of a group's rows


@dataclass(frozen=True)
class Noise:
    """Of a GROUP BY.

    Attributes:
        owners: whose ledgers pay.
        epsilon, delta: of one row, all numbers together. contributions: how many rows a unit has at most.
        ranges: of the columns that are summed, in the numbers that the machine holds.
    """

    owners: tuple[str, ...]
    epsilon: float
    delta: float
    contributions: int
    ranges: tuple[tuple[str, float, float], ...]

    def __str__(self) -> str:
        delta = f", delta {self.delta:g}" if self.delta else ""
        return f"; with noise, epsilon {self.epsilon:g}{delta}"


def asking(policies: Mapping[str, OwnerPolicy], to: str) -> dict[str, OwnerPolicy]:
    """The owners whose rows are to be shown with noise: an owner may see its own."""
    return {o: p for o, p in policies.items() if p.epsilon and o != to}


def mark(root: Node, policies: Mapping[str, OwnerPolicy], to: str) -> None:
    """Give every lowest GROUP BY above such an owner's table its noise, if it can have any."""
    mine = asking(policies, to)
    for node in nodes(root) if mine else ():
        if isinstance(node, Group) and not any(isinstance(n, Group) for n in nodes(node.input)):
            owners = tuple(sorted({s.owner for s in _scans(node)} & set(mine)))
            if owners and not any(_reasons(node, s, mine[s.owner]) for s in _scans(node) if s.owner in mine):
                node.noise = _noise(node, owners, mine)


def _noise(node: Group, owners: tuple[str, ...], policies: Mapping[str, OwnerPolicy]) -> Noise:
    some = [policies[o] for o in owners]
    ranges = {a.column: _range(node, a) for a in node.aggregates if a.fn in ("sum", "avg")}
    return Noise(
        owners,
        min(p.epsilon for p in some),
        min(p.delta for p in some) if node.keys else 0.0,
        max(p.contributions for p in some),
        tuple((str(c), *r) for c, r in ranges.items() if r is not None),
    )


def spent(root: Node, owner: str) -> list[Spent]:
    """What a query costs an owner; nothing if it asks for no noise."""
    out = []
    for node in nodes(root):
        if isinstance(node, Group) and node.noise is not None and owner in node.noise.owners:
            each = node.noise.epsilon / len(numbers(node))
            out.append(Spent("laplace", 1 / each, len(numbers(node))))
            out += [Spent(DELTA, node.noise.delta)] if node.noise.delta else []
    return out


# What can have noise -----------------------------------------------------------------------------------------------


def reasons(root: Node, policies: Mapping[str, OwnerPolicy], to: str) -> list[tuple[str, str]]:
    """Owner and reason, of every table that could not be shown with noise."""
    mine = asking(policies, to)
    out: list[tuple[str, str]] = []
    for scan in [n for n in nodes(root) if isinstance(n, Scan) and n.owner in mine]:
        groups = [n for n in nodes(root) if isinstance(n, Group) and _is_lowest(n, scan)]
        if not groups or _shown_beside(root, scan):
            out.append((scan.owner, f"rows of `{scan.table}` are shown with noise only: count, sum or average them."))
        for node in groups:
            out += [(scan.owner, reason) for reason in _reasons(node, scan, mine[scan.owner])]
    return list(dict.fromkeys(out))


def _is_lowest(node: Group, scan: Scan) -> bool:
    inside = nodes(node.input)
    return any(n is scan for n in inside) and not any(isinstance(n, Group) for n in inside)


def _shown_beside(root: Node, scan: Scan) -> bool:
    """Whether rows of the scan reach the result on a way that has no lowest GROUP BY."""
    if root is scan:
        return True
    return not (isinstance(root, Group) and _is_lowest(root, scan)) and any(
        _shown_beside(child, scan) for child in root.inputs
    )


def _scans(node: Group) -> list[Scan]:
    return [n for n in nodes(node.input) if isinstance(n, Scan)]


def _reasons(node: Group, scan: Scan, policy: OwnerPolicy) -> list[str]:
    out = []
    wrong = [n for n in nodes(node.input) if not isinstance(n, Scan | Constants | Filter | Project | Lookup | Union)]
    if wrong or not _once(node.input, scan):
        out.append(
            f"the query can repeat rows of `{scan.table}`, so that nobody knows how much one of them changes. Let it "
            "be the table whose rows are counted, and join others by a column that is their `key`; no window or LIMIT "
            "below a GROUP BY."
        )
        return out
    if node.k:
        out.append("groups of fewer than k units are left out by exact counts: `k` and `epsilon` exclude each other.")
    if node.keys and not policy.delta:
        out.append("GROUP BY shows which groups there are: that needs `delta` in the policy, beside `epsilon`.")
    for a in node.aggregates:
        if a.fn not in POSSIBLE or a.distinct:
            name = a.fn + " distinct" * a.distinct
            out.append(f"{name} has no bounded sensitivity here: with noise there are count, count_if, sum and avg.")
        elif a.fn not in COUNTS and _range(node, a) is None:
            out.append(
                f"{a.fn} needs a range of what is summed: a column of `{scan.table}` or another table itself, with "
                "`ranges` in its owner's policy; expressions have none."
            )
    return out


def _once(node: Node, scan: Scan) -> bool:
    """Whether a row of the scan is in one row of the relation at most, and in no other row's values."""
    match node:
        case Scan():
            return node is scan
        case Filter() | Project():
            return _once(node.input, scan)
        case Lookup():
            return _once(node.probe, scan) and not any(n is scan for n in nodes(node.table))
        case Union():
            having = [p for p in node.parts if any(n is scan for n in nodes(p))]
            return len(having) == 1 and _once(having[0], scan)
    return False


def _range(node: Group, a: Aggregate) -> tuple[float, float] | None:
    """The stated range of what is summed, in the machine's numbers."""
    found = _base(node.input, str(a.column))
    type_ = node.input[str(a.column)].type
    if not found or type_.kind not in ("int", "decimal", "float"):
        return None
    ends = [scan.ranges[column] for scan, column in found]
    return min(e[0] for e in ends) * 10**type_.scale, max(e[1] for e in ends) * 10**type_.scale


def _base(node: Node, name: str) -> list[tuple[Scan, str]]:
    """The scans' columns that a field is, unchanged; nothing if it is computed."""
    match node:
        case Scan():
            columns = [c for c in node.ranges if node.items.get(name, "").lower() == quoted(c).lower()]
            return [(node, c) for c in columns]
        case Filter():
            return _base(node.input, name)
        case Project():
            e = node.items.get(name)
            if e is None:
                return _base(node.input, name) if node.keep else []
            return _base(node.input, e.value) if e.op == "col" else []
        case Lookup():
            return _base(node.probe if name in node.probe.names else node.table, name)
        case Union():
            found = [_base(p, name) for p in node.parts if name in p.names]
            return [one for some in found for one in some] if all(found) else []
    return []


# On the machine ---------------------------------------------------------------------------------------------------


def numbers(node: Group) -> list[Number]:
    """What gets noise: epsilon is shared by them equally."""
    out: list[Number] = [ROWS] if node.keys else []
    for a in node.aggregates:
        if a.fn not in COUNTS:
            out.append(("sum", a.column))
        if a.fn != "sum":
            out.append(_count_of(node, a))
    return list(dict.fromkeys(out)) or [ROWS]


def _count_of(node: Group, a: Aggregate) -> Number:
    if a.fn == "count_if":
        return (a.fn, a.column)
    return ("count", a.column) if a.column is not None and node.input[a.column].nullable else ROWS


def noisy_group(rows: Rows, node: Group) -> Rows:
    """As `groups.group`, of clipped columns, with noise in every number, of groups above the threshold."""
    noise: Noise = node.noise
    rows = _clipped(rows, noise)
    asked = {n: _exact(node, n, f"{n[0]} {n[1]}") for n in numbers(node)}
    found = group(rows, node.keys, list(asked.values()))
    exact = {n: found[a.field.name].value for n, a in asked.items()}
    noisy, kept = _noisy(exact, noise, bool(node.keys), {c: max(abs(low), abs(high)) for c, low, high in noise.ranges})
    there = found.valid if kept is None else kept if found.valid is None else kept & found.valid
    ends = {c: rows.count * max(abs(low), abs(high)) for c, low, high in noise.ranges}
    columns = {k: found[k] for k in node.keys}
    for a in node.aggregates:
        columns[a.field.name] = _result(node, a, noisy, rows, ends)
    return Rows(columns, there, found.count)


def _exact(node: Group, number: Number, name: str) -> Aggregate:
    fn, column = number
    if fn in COUNTS:
        return Aggregate(Field(name, integer(0, node.input.bound), False), fn, column)
    type_ = next(a.field.type for a in node.aggregates if a.column == column and a.fn in ("sum", "avg"))
    return Aggregate(Field(name, type_, False), "sum", column)


def _clipped(rows: Rows, noise: Noise) -> Rows:
    changed = {}
    for column, low, high in noise.ranges:
        v = rows[column]
        whole = v.type.kind == "float"
        x = jnp.clip(v.value, low if whole else int(low), high if whole else int(high))
        changed[column] = nulled(Vec(v.type, (x,), v.valid), v.valid)
    return rows.with_columns(changed)


def _noisy(
    exact: Mapping[Number, Array], noise: Noise, grouped: bool, sizes: Mapping[str, float]
) -> tuple[dict[Number, Array], Array | None]:
    """All numbers with noise, and which groups are shown."""
    each, kept = noise.epsilon / len(exact), None
    out: dict[Number, Array] = {}
    for number, x in exact.items():
        if number == ROWS and grouped:
            # The budget counts all of a unit's rows, which `groups` is told of, too.
            kept, shown = dp.groups(x, noise.contributions * each, noise.delta, noise.contributions)
            out[number] = shown.astype(x.dtype)
        else:
            out[number] = dp.laplace(x, sizes[str(number[1])] if number[0] == "sum" else 1.0, each)
    return out, kept


def _result(node: Group, a: Aggregate, noisy: Mapping[Number, Array], rows: Rows, ends: Mapping[str, float]) -> Vec:
    """The aggregate of noisy numbers, within what its type holds; never NULL."""
    there = jnp.ones(next(iter(noisy.values())).shape, jnp.bool_) if a.field.nullable else None
    if a.fn in COUNTS:
        return Vec(a.field.type, (jnp.clip(noisy[_count_of(node, a)], 0, rows.count),), there)
    total, type_ = noisy[("sum", a.column)], rows[str(a.column)].type
    if type_.kind != "float":
        end = int(ends[str(a.column)])
        total = jnp.clip(total, -end, end)
    if a.fn == "sum":
        if type_.kind != "float":
            total = jnp.clip(total, a.field.type.lo, a.field.type.hi)
        return Vec(a.field.type, (total,), there)
    count = jnp.clip(noisy[_count_of(node, a)], 1, rows.count)
    found = mean(a, total, count, type_, rows.count, False)
    return Vec(found.type, found.words, there)
