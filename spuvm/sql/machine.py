"""A plan as a JAX function: in, the scans' columns; out, the columns of the result. One rule for each relation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from spuvm.sql import functions, tallies
from spuvm.sql.columns import Array, Vec, both, chosen, dtype, joined, literal, nulled, truth, written
from spuvm.sql.expanding import expand
from spuvm.sql.groups import group
from spuvm.sql.lookups import as_in, lookup, marked, without_nulls
from spuvm.sql.matching import keys_beside, sides_of, steps
from spuvm.sql.noise import noisy_group
from spuvm.sql.ordering import Part, parts, sorted_vecs
from spuvm.sql.plan import (
    Aggregate,
    Constants,
    Expand,
    Expr,
    Filter,
    Group,
    Lookup,
    Node,
    Project,
    Scan,
    Sort,
    Union,
    Window,
    nodes,
)
from spuvm.sql.relation import Rows
from spuvm.sql.selecting import found_of
from spuvm.sql.types import BOOL, Type, raw
from spuvm.sql.windows import window


@dataclass(frozen=True)
class ScanInput:
    """What a scan gives to the machine, by field: words and, if it can be NULL, validity; which rows are there; and the
    words of dictionaries, by name."""

    words: Mapping[str, tuple[Array, ...]]
    valid: Mapping[str, Array]
    there: Array | None
    dictionaries: Mapping[str, tuple[Array, ...]]


@dataclass(eq=False)
class Run:
    """One evaluation of a plan. `matched`: of lookups by owners' keys, what was selected before (see `matching`);
    `counts`: of scans that come in blocks, the rows of this one; `limits`: whether stated bounds held, one bit for
    each."""

    inputs: Mapping[str, ScanInput]
    matched: Mapping[str, Any] = field(default_factory=dict)
    frac: int = 0
    done: dict[int, Rows] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    limits: list[Array] = field(default_factory=list)

    def rows(self, node: Node) -> Rows:
        if id(node) not in self.done:
            self.done[id(node)] = RULES[type(node)](self, node)
        return self.done[id(node)]

    # Expressions --------------------------------------------------------------------------------------------------

    def value(self, e: Expr, rows: Rows) -> Vec:
        """An expression of a relation's columns."""
        if e.op == "col":
            return rows[e.value]
        if e.op == "lit":
            return literal(e.type, None if e.value is None else raw(e.value, e.type), rows.count)
        args = [self.value(a, rows) for a in e.args]
        if e.op == "words":
            return self.spelled(args[0], e.value)
        return functions.apply(e.op, args, e.type, e.value, e.nullable)

    def spelled(self, codes: Vec, dictionary: str) -> Vec:
        """The words of text by code: looked up in the owner's dictionary."""
        words = next(i.dictionaries[dictionary] for i in self.inputs.values() if dictionary in i.dictionaries)
        size = int(words[0].shape[0])
        names = [f"word {k}" for k in range(len(words))]
        plain = Type("int", 0, codes.type.hi)
        known = {n: Vec(Type("text"), (w,)) for n, w in zip(names, words)}
        table = Rows({"code": Vec(plain, (jnp.arange(size),)), **known}, None, size)
        probe = Rows({"code": Vec(plain, codes.words)}, codes.valid, codes.rows)
        found = lookup(probe, table, [("code", "code")], names)
        return Vec(Type("text", words=len(words)), tuple(v.value for v in found.columns), codes.valid)


# Relations ------------------------------------------------------------------------------------------------------


def _scan(run: Run, node: Scan) -> Rows:
    given = run.inputs[node.name]
    columns = {
        f.name: Vec(f.type, tuple(w.astype(dtype(f.type)) for w in given.words[f.name]), given.valid.get(f.name))
        for f in node.fields
    }
    return Rows(columns, given.there, run.counts.get(node.name, node.bound))


def _constants(run: Run, node: Constants) -> Rows:
    return Rows({f.name: written(node.cells[f.name], f.type) for f in node.fields}, None, node.bound)


def _filter(run: Run, node: Filter) -> Rows:
    rows = run.rows(node.input)
    return rows.where(truth(run.value(node.predicate, rows)))


def _project(run: Run, node: Project) -> Rows:
    rows = run.rows(node.input)
    new = {n: run.value(e, rows) for n, e in node.items.items()}
    return Rows({**rows.columns, **new} if node.keep else new, rows.valid, rows.count)


def run_of(given: Any) -> Run:
    """An evaluation of what `Database` gives: {"scans": ..., "matched": ..., "frac": the machine's fraction bits}."""
    return Run({n: ScanInput(**tree) for n, tree in given["scans"].items()}, given["matched"], given["frac"])


def _lookup(run: Run, node: Lookup) -> Rows:
    if node.matching in run.matched:
        return _by_keys(run, node)
    probe, table = run.rows(node.probe), run.rows(node.table)
    if not node.pairs:
        return _beside(probe, table, node)
    if node.kind == "mark":
        return probe.with_columns({node.mark: marked(probe, table, node.pairs, node.null_aware)})
    names = [f.name for f in node.table.fields]
    keys = {b: a for a, b in node.pairs if table[b].type == probe[a].type} if node.kind == "inner" else {}
    found = lookup(probe, table, node.pairs, [n for n in names if n not in keys])
    columns = dict(zip([n for n in names if n not in keys], found.columns))
    columns |= {b: Vec(probe[a].type, probe[a].words) for b, a in keys.items()}
    if node.kind == "inner":
        columns = {n: Vec(v.type, v.words, v.valid if table[n].valid is not None else None) for n, v in columns.items()}
        return probe.with_columns(columns).where(found.matched)
    return probe.with_columns(columns)


def _by_keys(run: Run, node: Lookup) -> Rows:
    """As `_lookup`, where the owners' keys were compared."""
    probe, sides = run.rows(node.probe), sides_of(node)
    assert sides is not None
    matched, columns = found_of(sides, run.matched[node.matching], without_nulls(probe, ()), run.frac)
    if node.kind == "mark":
        flag = Vec(BOOL, (matched,))
        if node.null_aware:
            flag = as_in(matched, probe, run.rows(node.table), node.pairs)
        return probe.with_columns({node.mark: flag})
    rows = Rows(columns, None, probe.count)
    for project, wanted in steps(node)[0]:
        kept = rows.columns if project.keep else {}
        made = {n: run.value(e, rows) for n, e in project.items.items() if n in wanted}
        rows = Rows({**kept, **made}, None, probe.count)
    there = {n: v for n, v in rows.columns.items() if n in node.table.names}
    if node.kind == "inner":
        keys = {b: _key_of(probe[a], node.table[b].type, matched) for b, a in keys_beside(node).items()}
        return probe.with_columns({**there, **keys}).where(matched)
    return probe.with_columns({n: nulled(v, both(matched, v.valid)) for n, v in there.items()})


def _key_of(key: Vec, type_: Type, matched: Array) -> Vec:
    """The base's key as the table's; where nothing matches, it may be beyond the table's range."""
    if key.type == type_:
        return Vec(type_, key.words)
    return Vec(type_, tuple(chosen(matched, w) for w in key.words))


def _beside(probe: Rows, table: Rows, node: Lookup) -> Rows:
    """Without keys: every row beside the one row of the table; or whether the table has rows."""
    if node.kind == "mark":
        some = jnp.broadcast_to(jnp.any(table.there), (probe.count,))
        from_table = Vec(BOOL, (some,))
        return probe.with_columns({node.mark: from_table})
    spread = {n: v.map(lambda x: jnp.broadcast_to(x[:1], (probe.count,))) for n, v in table.columns.items()}
    there = None if table.valid is None else jnp.broadcast_to(table.valid[:1], (probe.count,))
    return probe.with_columns({n: nulled(v, both(v.valid, there)) for n, v in spread.items()})


def _expand(run: Run, node: Expand) -> Rows:
    rows, fits = expand(run.rows(node.left), run.rows(node.right), node.pairs, node.bound, node.limited)
    if fits is not None:
        run.limits.append(fits)
    return rows


def _group(run: Run, node: Group) -> Rows:
    rows = run.rows(node.input)
    if node.noise is not None:
        return noisy_group(rows, node)
    if node.cells:
        found, fits = tallies.grouped(tallies.totals(rows, node), node)
        run.limits += [] if fits is None else [fits]
        return found
    follow = [Aggregate(node[k], "any", k) for k in node.keys if k not in node.by]
    return group(rows, node.by, (*node.aggregates, *follow))


def _window(run: Run, node: Window) -> Rows:
    return window(run.rows(node.input), node.partition, node.order, node.items)


def _sort(run: Run, node: Sort) -> Rows:
    rows = run.rows(node.input)
    absent = [] if rows.valid is None else [Part(1 - rows.ones, 1)]
    by = [p for k in node.keys for p in parts(rows[k.column], k.descending, k.nulls_first)]
    names = list(rows.columns)
    flags = [] if rows.valid is None else [rows.valid]
    if not node.keys and node.offset == 0 and node.limit is not None and node.limit >= rows.count:
        return rows
    vecs, extra = sorted_vecs([*absent, *by], rows.vecs(names), flags)
    out = Rows(dict(zip(names, vecs)), extra[0] if extra else None, rows.count)
    if node.limit == 0:
        return out.first(1).where(jnp.zeros(1, jnp.bool_))
    end = rows.count if node.limit is None else min(rows.count, node.offset + node.limit)
    if node.offset >= end:
        return out.first(1).where(jnp.zeros(1, jnp.bool_))
    return out.first(end, node.offset)


def _union(run: Run, node: Union) -> Rows:
    tables = [run.rows(p) for p in node.parts]
    columns = {}
    for f in node.fields:
        pieces = [t[f.name] if f.name in t.columns else literal(f.type, None, t.count) for t in tables]
        columns[f.name] = joined(pieces, f.type)
    count = sum(t.count for t in tables)
    valid = None if all(t.valid is None for t in tables) else jnp.concatenate([t.there for t in tables])
    return Rows(columns, valid, count)


RULES: dict[type[Node], Callable[[Run, Any], Rows]] = {
    Scan: _scan,
    Constants: _constants,
    Filter: _filter,
    Project: _project,
    Lookup: _lookup,
    Expand: _expand,
    Group: _group,
    Window: _window,
    Sort: _sort,
    Union: _union,
}


def dictionaries(root: Node) -> set[str]:
    """The names of the dictionaries that a plan looks words up in."""
    return set().union(*map(dictionaries_of, nodes(root)))


def dictionaries_of(node: Node) -> set[str]:
    """Those of one relation."""
    exprs = [node.predicate] if isinstance(node, Filter) else node.items.values() if isinstance(node, Project) else ()
    return {x.value for e in exprs for x in e.walk() if x.op == "words"}
