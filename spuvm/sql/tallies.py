"""Group by keys of few values that all know: totals of each combination of values, without a sort.

Which values a key may have follows from its type (a bool, a number of a narrow range, a code of a small dictionary) or
is declared (`values` of a table's column). Each row says by comparisons for equality which combination it is of, as a
vector of one 1 and zeros; a group's total is the inner product of that with a column, which sends one number for all
rows. So memory beside the rows is that of the combinations, and rows can come a block at a time (see `blocks`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from spuvm.sql.columns import Array, Vec, both, chosen, literal, number
from spuvm.sql.groups import ORDERED, RULES, SPREADS, Groups, Sorted, family, masked
from spuvm.sql.plan import Aggregate, Filter, Group, Lookup, Node, Project, Scan, Sort, Union, Window, nodes
from spuvm.sql.relation import Rows
from spuvm.sql.types import WORD, Type, words_of

NOBODY = ""  # the owner of shares
MOST = 64  # combinations of values
KNOWN = Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]]  # by (owner, table), by quoted column: its texts
Totals = dict[str, Array]


# Which groups ---------------------------------------------------------------------------------------------------


def choose(root: Node, known: KNOWN) -> None:
    """Give the groups of a plan whose keys have few values these values, where totals cost less than a sort, and their
    bounds to the relations above."""
    for node in nodes(root):
        if isinstance(node, Group) and node.keys and node.noise is None and additive(node):
            cells = [_cells(node.input, key, known) for key in node.keys]
            if all(cells) and _size(cells) <= MOST and _cheaper(node, cells):
                node.cells = tuple((key, some) for key, some in zip(node.keys, cells) if some)
                node.bound = _size(cells)
        elif isinstance(node, Union):
            node.bound = sum(p.bound for p in node.parts)
        elif isinstance(node, Filter | Project | Sort | Window | Lookup | Group):
            node.bound = min(node.bound, node.inputs[0].bound)


def additive(node: Group) -> bool:
    """Whether totals of parts of the rows, added, are those of all."""
    return not any(a.fn in ORDERED or a.fn == "any" or a.distinct for a in node.aggregates)


def declared(node: Node) -> bool:
    """Whether it reads texts that nobody can see, and takes them for those that are declared: then rows are counted."""
    return isinstance(node, Group) and any(
        scan.owner == NOBODY
        for key, _ in node.cells
        if node.input[key].type.kind == "text" and not node.input[key].type.is_integer
        for scan, _ in origins(node.input, key)
    )


def _size(cells: Sequence[Any]) -> int:
    return int(np.prod([len(some) for some in cells]))


def _cheaper(node: Group, cells: Sequence[Any]) -> bool:
    """By bytes of a row, of all parties: comparisons, and a bit as a number for each combination; or a sort."""
    columns = {a.column for a in node.aggregates if a.column}
    floats = sum(node.input[c].type.kind == "float" or _in_fractions(node, c) for c in columns)
    compared = sum(len(some) * node.input[key].type.parts for key, some in zip(node.keys, cells))
    mine = 95 * compared + _size(cells) * (28 + 48 * floats)
    return mine < 1100 + 90 * (len(columns) + len(node.keys)) + 40 * node.input.bound.bit_length()


def _in_fractions(node: Group, column: str) -> bool:
    """Whether an integer is summed with fraction bits."""
    return any(a.column == column and a.fn in SPREADS for a in node.aggregates)


def _cells(node: Node, key: str, known: KNOWN) -> tuple[Any, ...] | None:
    """The values of a key, as the machine's numbers (of text, words); None if they are not known, or many."""
    field = node[key]
    type_, null = field.type, (None,) * field.nullable
    if type_.kind == "bool":
        return (0, 1, *null)
    if type_.is_integer:
        return (*range(type_.lo, type_.hi + 1), *null) if type_.hi - type_.lo < MOST else None
    if type_.kind != "text":
        return None
    texts = {_texts(scan, column, known) for scan, column in origins(node, key)}
    if not texts or () in texts or sum(map(len, texts)) > MOST:
        return None
    most = WORD * type_.words  # bytes: no cell has more
    every = sorted(t for t in set(itertools.chain(*texts)) if len(t.encode()) <= most)
    if not every:
        return None
    return (*(tuple(int(w) for w in words) for words in words_of(every, type_.words)), *null)


def _texts(scan: Scan, column: str, known: KNOWN) -> tuple[str, ...]:
    return known.get((scan.owner, scan.table), {}).get(column, ())


def origins(node: Node, name: str) -> list[tuple[Scan, str]]:
    """The scans' columns that a field is, unchanged; nothing if it is computed somewhere."""
    match node:
        case Scan():
            return [(node, node.items[name])]
        case Filter() | Sort() | Window() if name in node.input.names:
            return origins(node.input, name)
        case Project():
            e = node.items.get(name)
            if e is None:
                return origins(node.input, name) if node.keep else []
            return origins(node.input, e.value) if e.op == "col" else []
        case Lookup() if name != node.mark:
            return origins(node.probe if name in node.probe.names else node.table, name)
        case Union():
            found = [origins(p, name) if name in p.names else [] for p in node.parts]
            return [one for some in found for one in some] if all(found) else []
    return []


def texts(root: Node, known: KNOWN) -> list[tuple[str, ...]]:
    """Of each field, the texts that it may be, if all know them."""
    found = [[_texts(scan, column, known) for scan, column in origins(root, f.name)] for f in root.fields]
    return [tuple(sorted(set(itertools.chain(*some)))) if some and all(some) else () for some in found]


# Totals -----------------------------------------------------------------------------------------------------------


def totals(rows: Rows, node: Group) -> Totals:
    """Of each number that the aggregates are made of, its total [combinations], and how many rows are `there` at all.
    Those of parts of the rows are added."""
    flags = _combinations(rows, node.cells)
    every = replace(rows, valid=None)
    sums = _collected(every, node.aggregates)
    ones = number(flags)
    out = {_label(k): _totalled(flags, ones, x) for k, x in sums.items() if k != ("rows",)}
    out[_label(("rows",))] = jnp.sum(ones, 1)
    return {**out, "there": jnp.sum(rows.ones, keepdims=True)}


def _combinations(rows: Rows, cells: Sequence[tuple[str, tuple[Any, ...]]]) -> Array:
    """bool[combinations, rows]: of which one each row is; of none, one that is not there."""
    out = rows.there[None]
    for key, values in cells:
        each = _equal(rows[key], values)
        out = (out[:, None] & each[None]).reshape(-1, rows.count)
    return out


def _equal(v: Vec, values: tuple[Any, ...]) -> Array:
    """bool[values, rows]: whether the row has that value; None is NULL."""
    plain = [value for value in values if value is not None]
    if v.type.kind == "bool":
        each = jnp.stack([~v.value, v.value])
    else:
        written = np.array([value if isinstance(value, tuple) else (value,) for value in plain], np.int64)
        tests = [word[None] == jnp.asarray(written[:, i])[:, None] for i, word in enumerate(v.words)]
        each = tests[0]
        for test in tests[1:]:
            each = each & test
    each = each if v.valid is None else each & v.valid[None]
    if len(plain) == len(values):
        return each
    return jnp.concatenate([each, (jnp.zeros(v.rows, jnp.bool_) if v.valid is None else ~v.valid)[None]])


def _collected(rows: Rows, aggregates: Sequence[Aggregate]) -> dict[tuple[Any, ...], Array]:
    s = Sorted(rows, rows.ones, rows.there, rows.there, rows.there)
    sums: dict[tuple[Any, ...], Array] = {("rows",): s.there}
    for a in aggregates:
        RULES[family(a)].collect(a, s, sums, {})
    return sums


def _totalled(flags: Array, ones: Array, x: Array) -> Array:
    if x.dtype == jnp.float64:  # a product of numbers with fraction bits would have half of their range
        return jnp.stack([jnp.sum(chosen(flag, x)) for flag in flags])
    return jnp.dot(ones, x)


def _label(key: tuple[Any, ...]) -> str:
    return " ".join(map(str, key))


# What follows from them ---------------------------------------------------------------------------------------------


def grouped(found: Totals, node: Group) -> tuple[Rows, Array | None]:
    """One row for each combination that has rows (without keys, one row), and whether no row was of none of them, if
    that has to be seen."""
    types = {f.name: Vec(f.type, ()) for f in node.input.fields}
    rows = Rows(types, None, node.input.bound)
    counts = found[_label(("rows",))]
    valid = counts != 0 if node.keys else jnp.ones(1, jnp.bool_)
    named = _Named(found)
    groups = Groups(Sorted(rows, valid, valid, valid, valid), named, {}, valid)
    columns = dict(zip(node.keys, _keys(node)))
    for a in node.aggregates:
        columns[a.field.name] = masked(RULES[family(a)].result(a, groups), a.field.type)
    fits = jnp.sum(counts) == found["there"][0] if declared(node) else None
    return Rows(columns, valid if node.keys else None, node.bound), fits


class _Named(dict[tuple[Any, ...], Array]):
    """Totals by what they are of."""

    def __init__(self, found: Totals) -> None:
        super().__init__()
        self.found = found

    def __missing__(self, key: tuple[Any, ...]) -> Array:
        return self.found[_label(key)]

    def get(self, key: tuple[Any, ...], default: Any = None) -> Any:
        return self.found.get(_label(key), default)


def _keys(node: Group) -> list[Vec]:
    """The keys' columns [combinations], which all know."""
    out = []
    combinations = list(itertools.product(*(values for _, values in node.cells)))
    for i, (key, _) in enumerate(node.cells):
        field, cells = node.input[key], [c[i] for c in combinations]
        out.append(_written(field.type, cells, field.nullable))
    return out


def _written(type_: Type, cells: Sequence[Any], nullable: bool) -> Vec:
    zero = literal(type_, None, 1)
    empty = tuple([0] * type_.parts)
    raw = [empty if c is None else c if isinstance(c, tuple) else (c,) for c in cells]
    words = tuple(jnp.asarray(np.array([r[i] for r in raw]), w.dtype) for i, w in enumerate(zero.words))
    return Vec(type_, words, both(jnp.asarray([c is not None for c in cells])) if nullable else None)


def added(x: Totals, y: Totals) -> Totals:
    """Of two parts of the rows."""
    return {k: x[k] + y[k] for k in x}
