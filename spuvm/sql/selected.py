"""Names that a SELECT gives to what it selects, where no column has them: each use becomes the expression itself."""

from __future__ import annotations

from typing import Any

from sqlglot import exp

from spuvm.runtime.errors import InputError
from spuvm.sql.scope import PARTS, Scope

USES = ("expressions", "where", "having", "qualify", "order")


def name_columns(select: exp.Select, scope: Scope) -> None:
    """Write the expressions out, in place; what is ordered by a name alone stays.

    Raises:
        InputError: for a name of an aggregate or a window in WHERE.
    """
    given = {e.alias.lower(): e.this.copy() for e in select.expressions if isinstance(e, exp.Alias)}
    for _ in range(len(given)):  # a name may stand for others
        found = [n for use in USES for n in _columns(select, use) if n.name.lower() in given]
        free = [n for n in found if scope.find(n.name, None) is None and not _is_of(n, select)]
        if not free:
            return
        if sum(sum(1 for _ in given[name.name.lower()].walk()) for name in free) > PARTS:
            raise InputError("names of what is selected stand for each other too often: compute one in a subquery.")
        for name in free:
            _write_out(name, given[name.name.lower()], select)


def _columns(select: exp.Select, use: str) -> list[exp.Column]:
    """Names without a table that belong to this SELECT, not to one inside."""
    clause: Any = select.args.get(use)
    tops = clause if isinstance(clause, list) else [] if clause is None else [clause]
    found = [c for top in tops for c in top.find_all(exp.Column) if not c.table and not isinstance(c.this, exp.Star)]
    mine = [c for c in found if c.find_ancestor(exp.Select) is select]
    return [c for c in mine if not isinstance(c.parent, exp.Ordered) or c.find_ancestor(exp.Window)]


def _is_of(name: exp.Column, select: exp.Select) -> bool:
    """Whether a name stands in the very expression that it names."""
    alias = name.find_ancestor(exp.Alias, exp.Select)
    return alias is not None and alias is not select and alias.alias.lower() == name.name.lower()


def _write_out(name: exp.Column, said: Any, select: exp.Select) -> None:
    if name.find_ancestor(exp.Where, exp.Select) is not select and said.find(exp.AggFunc, exp.Window):
        raise InputError(
            f"`{name.sql('duckdb')}` in WHERE is {said.sql('duckdb')}, which is known only after it: use "
            f"{'QUALIFY' if said.find(exp.Window) else 'HAVING'}."
        )
    new: Any = exp.paren(said.copy()) if not isinstance(said, exp.Column) else said.copy()
    if name.parent is select:
        new = exp.alias_(new, name.name, quoted=True)
    name.replace(new)
