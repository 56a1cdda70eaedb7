"""Different transformers for different columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from spuvm.data import Column
from spuvm.devices import SPU
from spuvm.ml.common.estimator import VERSION, clone, of_tree
from spuvm.ml.common.labels import features_of
from spuvm.ml.common.table import Table, table_of
from spuvm.ml.common.transformers import Transformer, named_labels
from spuvm.ml.machine import Machine, Reveal
from spuvm.runtime.errors import ConfigError, InputError

KINDS = {"numbers": ("float", "int"), "categories": ("category",), "bools": ("bool",)}


@dataclass(eq=False, kw_only=True, repr=False)
class ColumnTransformer(Transformer):
    """What each transformer makes of its columns, side by side.

        ColumnTransformer([("scale", StandardScaler(), "numbers"), ("code", OneHotEncoder(), ["city"])])

    Args:
        transformers: (name, transformer, columns): names of columns, or "numbers", "categories", "bools" for all such;
            in place of a transformer "drop" or "passthrough".
        remainder: what becomes of the other columns: "drop" or "passthrough".
    """

    transformers: Sequence[tuple[str, Any, Any]] = field(default=(), kw_only=False)
    remainder: str = "drop"
    chosen: list[tuple[str, Any, tuple[str, ...]]] = field(default_factory=list, init=False)
    takes_missing = True

    def _check(self) -> None:
        if not self.transformers:
            raise ConfigError("`transformers` of ColumnTransformer are missing: give (name, transformer, columns).")
        if self.remainder not in ("drop", "passthrough"):
            raise ConfigError(f"`remainder` must be 'drop' or 'passthrough', got {self.remainder!r}.")
        for name, step, _ in self.transformers:
            if not isinstance(step, Transformer) and step not in ("drop", "passthrough"):
                raise ConfigError(f"`{name}` of ColumnTransformer must be a transformer, 'drop' or 'passthrough'.")

    def clone(self) -> Self:
        """The same transformers and parameters, nothing learned."""
        steps = [(n, step if isinstance(step, str) else clone(step), c) for n, step, c in self.transformers]
        return type(self)(steps, remainder=self.remainder, device=self.device)

    def fit(self, data: Any, y: Any = None, *, label: Any = None) -> Self:
        """Fit each transformer with its columns."""
        y = label if y is None else y
        labels, machine = named_labels(data, y), self._machine(data, y)
        table = table_of(machine, features_of(data, y), missing=True)
        self.chosen = self._choose(table)
        for _, step, names in self.chosen:
            if isinstance(step, Transformer):
                step.device = step.device or self.device
                step.fit(table[names], labels)
        self.kept = machine
        return self

    def _choose(self, table: Table) -> list[tuple[str, Any, tuple[str, ...]]]:
        out, used = [], set()
        for name, step, wanted in self.transformers:
            if isinstance(wanted, str) and wanted in KINDS:
                names = tuple(c.name for c in table.columns if c.type in KINDS[wanted])
            else:
                names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
                table[names]  # they exist
            used |= set(names)
            if step != "drop" and names:
                out.append((name, step, names))
        rest = tuple(n for n in table.names if n not in used)
        if self.remainder == "passthrough" and rest:
            out.append(("remainder", "passthrough", rest))
        if not out:
            raise InputError("ColumnTransformer leaves no column.")
        return out

    def transform(self, data: Any) -> Table:
        """The transformed columns side by side."""
        if not self.chosen:
            raise InputError("ColumnTransformer has learned nothing yet: call `fit`, or `spuvm.ml.load`.")
        table = table_of(self._machine(data), data, missing=True)
        parts = [table[n] if isinstance(s, str) else s.transform(table[n]) for _, s, n in self.chosen]
        blocks = tuple(b for p in parts for b in p.blocks)
        return replace(table, blocks=_by_owner(parts[0].machine, blocks), frame=None)

    def get_feature_names_out(self) -> tuple[str, ...]:
        """Names of the columns that `transform` gives."""
        parts = [names if isinstance(s, str) else s.get_feature_names_out() for _, s, names in self.chosen]
        return tuple(n for p in parts for n in p)

    @property
    def reveals(self) -> tuple[Reveal, ...]:
        """What all transformers have shown."""
        return tuple(r for _, s, _ in self.chosen if not isinstance(s, str) for r in s.reveals)

    def _fitted(self) -> Any:
        steps = [s for _, s, _ in self.chosen if not isinstance(s, str)]
        if not steps:
            raise InputError("ColumnTransformer has learned nothing: call `fit`.")
        return steps[0]._fitted()

    def to_tree(self) -> dict[str, Any]:
        """What `spuvm.save_shares` takes."""
        steps = [s if isinstance(s, str) else s.to_tree() for _, s, _ in self.chosen]
        chosen = json.dumps([[name, list(names)] for name, _, names in self.chosen])
        kind = "spuvm.ml.ColumnTransformer"
        return {"kind": kind, "version": VERSION, "remainder": self.remainder, "chosen": chosen, "steps": steps}

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any], device: SPU) -> ColumnTransformer:
        """The inverse of `to_tree`."""
        steps = [s if isinstance(s, str) else of_tree(s, device) for s in tree["steps"]]
        chosen = [(name, s, tuple(names)) for (name, names), s in zip(json.loads(tree["chosen"]), steps)]
        out = cls(chosen, remainder=tree["remainder"], device=device)
        out.chosen = chosen
        return out

    def _learned(self, machine: Machine, table: Table, labels: Any) -> Any:
        raise AssertionError("`fit` has its own")

    def _transformed(self, table: Table) -> Table:
        raise AssertionError("`transform` has its own")


def make_column_transformer(*pairs: tuple[Any, Any], remainder: str = "drop") -> ColumnTransformer:
    """A column transformer of (transformer, columns), named by their classes."""
    steps = [(f"{type(step).__name__.lower()}-{i}", step, columns) for i, (step, columns) in enumerate(pairs)]
    return ColumnTransformer(steps, remainder=remainder)


def _by_owner(machine: Machine, blocks: Sequence[Any]) -> tuple[Any, ...]:
    """One block for each owner; secret ones stay as they are."""
    out: dict[Any, Any] = {}
    for i, block in enumerate(blocks):
        key = block.owner or i
        out[key] = _joined(out[key], block) if key in out else block
    return tuple(out.values())


def _joined(one: Any, other: Any) -> Any:
    columns: tuple[Column, ...] = one.columns + other.columns
    value = one.local(_beside, other.value)
    return replace(one, columns=columns, value=value, categories=one.categories or other.categories)


def _beside(x: Any, y: Any) -> Any:
    return np.concatenate([x, y], axis=1)
