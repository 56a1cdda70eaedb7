"""Products of columns, of several owners too: the result is secret."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import combinations, combinations_with_replacement
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from spuvm.data import Column
from spuvm.ml.common import rules
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import matrix, scales, standard
from spuvm.ml.common.table import Block, Table
from spuvm.ml.common.transformers import Transformer
from spuvm.ml.machine import Machine


@dataclass(eq=False, kw_only=True, repr=False)
class PolynomialFeatures(Transformer):
    """The columns, and all products of up to `degree` of them.

    Args:
        interaction_only: no column twice in a product.
    """

    degree: int = field(default=2, kw_only=False)
    interaction_only: bool = False
    checks: ClassVar[dict[str, Rule]] = {"degree": rules.whole(1, 4), "interaction_only": rules.FLAG}

    def _learned(self, machine: Machine, table: Table, labels: Any) -> Fitted:
        return Fitted(machine, standard(table, 0.0, centred=False), {})

    def _transformed(self, table: Table) -> Table:
        learned = self._fitted()
        known = learned.columns
        assert known is not None
        run = _products(len(known.columns), self.degree, self.interaction_only)
        operands = matrix(known, table), scales(known)["power"]
        value, power = learned.machine.run(run, *operands, what="PolynomialFeatures")
        columns = tuple(Column(name, None, "float", False) for name in self.get_feature_names_out())
        return Table(learned.machine, table.rows, (Block(columns, value, power=power),), table.kind)

    def get_feature_names_out(self) -> tuple[str, ...]:
        """Names of the columns that `transform` gives: those of a product's factors, with `*`."""
        names = self._feature_names()
        return tuple("*".join(names[i] for i in t) for t in _terms(len(names), *self._shape()))

    def _shape(self) -> tuple[int, bool]:
        return self.degree, self.interaction_only


def _terms(count: int, degree: int, distinct: bool) -> list[tuple[int, ...]]:
    choose = combinations if distinct else combinations_with_replacement
    return [t for d in range(1, degree + 1) for t in choose(range(count), d)]


@cache
def _products(count: int, degree: int, distinct: bool) -> Any:
    terms = _terms(count, degree, distinct)

    def run(z: jax.Array, power: jax.Array) -> tuple[jax.Array, jax.Array]:
        values: dict[tuple[int, ...], jax.Array] = {}
        for t in terms:  # one factor at a time
            values[t] = z[:, t[0]] if len(t) == 1 else values[t[:-1]] * z[:, t[-1]]
        powers = [sum((power[i] for i in t[1:]), power[t[0]]) for t in terms]
        return jnp.stack([values[t] for t in terms], axis=1), jnp.stack(powers)

    return run
