"""A relation on the machine: columns of one length, and which rows are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import jax.numpy as jnp

from spuvm.sql.columns import Array, Vec, both, number


@dataclass(frozen=True, eq=False)
class Rows:
    """`valid`: bool[rows], or None if all rows are there."""

    columns: Mapping[str, Vec]
    valid: Array | None
    count: int

    def __getitem__(self, name: str) -> Vec:
        return self.columns[name]

    def vecs(self, names: Iterable[str]) -> list[Vec]:
        return [self.columns[n] for n in names]

    def only(self, names: Iterable[str]) -> Rows:
        return replace(self, columns={n: self.columns[n] for n in names})

    def where(self, condition: Array | None) -> Rows:
        """Without the rows where the condition does not hold."""
        return replace(self, valid=both(self.valid, condition))

    def with_columns(self, columns: Mapping[str, Vec]) -> Rows:
        return replace(self, columns={**self.columns, **columns})

    @property
    def there(self) -> Array:
        """Validity as an array."""
        return jnp.ones(self.count, jnp.bool_) if self.valid is None else self.valid

    @property
    def ones(self) -> Array:
        return jnp.ones(self.count, jnp.int64) if self.valid is None else number(self.valid)

    def first(self, count: int, skip: int = 0) -> Rows:
        """Rows skip to count - 1."""
        cut = {n: v.map(lambda x: x[skip:count]) for n, v in self.columns.items()}
        return Rows(cut, None if self.valid is None else self.valid[skip:count], max(0, min(count, self.count) - skip))
