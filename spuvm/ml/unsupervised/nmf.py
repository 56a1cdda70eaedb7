"""Non-negative factors: columns of numbers from 0 as sums of a few parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.data import Column
from spuvm.devices import PYU
from spuvm.ml.common import rules
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import matrix, scales, standard
from spuvm.ml.common.table import Block, Table
from spuvm.ml.common.units import as_float, number
from spuvm.ml.machine import Machine
from spuvm.ml.unsupervised.base import Unsupervised
from spuvm.ml.unsupervised.space import common
from spuvm.runtime.errors import DataError

LEAST = 2.0**-10  # of a factor's square, by which is divided


@dataclass(eq=False, kw_only=True, repr=False)
class NMF(Unsupervised):
    """X as W H with all entries from 0, the sum of squared errors being small, by a fixed number of steps.

    A step solves for each part with the others fixed (hierarchical alternating least squares: A. Cichocki, A.-H. Phan,
    IEICE Transactions E92-A (2009)). Nothing is revealed. Owners refuse negative cells; secret ones count as 0.

    Args:
        n_components: how many parts.
        max_iter: steps.
        random_state: of the public generator that draws the first parts.
    """

    n_components: int = field(default=2, kw_only=False)
    max_iter: int = 100
    random_state: int = 0
    checks: ClassVar[Mapping[str, Rule]] = {
        "n_components": rules.whole(1, 100),
        "max_iter": rules.COUNT,
        "random_state": rules.SEED,
    }

    def _learn(self, machine: Machine, table: Table) -> Fitted:
        table = not_negative(table, _checked)
        known = standard(table, 0.0, centred=False)
        operands = matrix(known, known.match(table)), scales(known)["power"]
        r = np.random.RandomState(self.random_state)
        parts, weights = (np.abs(r.randn(self.n_components, n)) for n in (len(table.columns), table.rows))
        first = parts.astype(np.float32), weights.T.astype(np.float32)
        found = machine.run(_factors(self.max_iter), *operands, *first, what="training")
        return Fitted(machine, known, found, {"rows": table.rows})

    def transform(self, data: Any) -> Table:
        """How much of each part the rows have, a secret table: W for the H of training."""
        table, learned = not_negative(self._table(data), _checked), self._fitted()
        assert learned.columns is not None
        x, power = matrix(learned.columns, table), scales(learned.columns)["power"]
        value = learned.machine.run(_weights(self.max_iter), x, power, learned.arrays["parts"], what="prediction")
        columns = tuple(Column(f"nmf{i}", None, "float", False) for i in range(self.n_components))
        return Table(learned.machine, table.rows, (Block(columns, value),), table.kind)

    def fit_transform(self, data: Any, y: Any = None) -> Table:
        """`fit`, then `transform` of the same rows."""
        return self.fit(data, y).transform(data)

    @property
    def components_(self) -> np.ndarray:
        """The parts H, float64 [components, n], revealed to all parties."""
        learned, a = self._fitted(), self._fitted().arrays
        both = learned.machine.run(as_float, a["parts"], a["unit"], what="components")
        return number(*learned.machine.reveal(both, "components"))

    @property
    def reconstruction_err_(self) -> float:
        """The root of the sum of squared errors of training, revealed to all parties."""
        learned, a = self._fitted(), self._fitted().arrays
        both = learned.machine.run(as_float, a["error"], a["unit"], what="error")
        found = float(number(*learned.machine.reveal(both, "reconstruction error")))
        return found * float(np.sqrt(learned.facts["rows"]))


Checked = Callable[[np.ndarray, Sequence[Column], str], np.ndarray]


def not_negative(table: Table, checked: Checked) -> Table:
    """The table, whose owners refuse cells that `checked` refuses: of a horizontal frame each its rows'."""
    if table.kind == "horizontal" and table.frame is not None:
        for p in table.frame.parties:
            PYU(p)(checked)(table.frame.at(p), table.columns, p)
    blocks = [replace(b, value=b.local(checked, b.columns, b.owner)) if b.owner else b for b in table.blocks]
    return replace(table, blocks=tuple(blocks))


def refuse_negative(x: np.ndarray, columns: Sequence[Column], party: str, because: str) -> None:
    """DataError at the owner, with the column's name."""
    below = (x < 0).any(axis=0)
    if below.any():
        column = columns[int(np.flatnonzero(below)[0])]
        where = column.where if column.party else f"{column.where} of {party}"
        raise DataError(f"{where} has negative cells: {because}.")


def _checked(x: np.ndarray, columns: Sequence[Column], party: str) -> np.ndarray:
    refuse_negative(x, columns, party, "non-negative factors are of numbers from 0")
    return x


def _improved(w: jax.Array, products: jax.Array, gram: jax.Array) -> jax.Array:
    """Each column of w [rows, k] in turn at its best, given products X H' [rows, k] and the gram matrix H H' [k, k]."""
    inverse = 1 / jnp.maximum(jnp.diag(gram), LEAST)
    for t in range(w.shape[1]):
        better = jax.nn.relu(w[:, t] + (products[:, t] - w @ gram[:, t]) * inverse[t])
        w = w.at[:, t].set(better)
    return w


@cache
def _factors(steps: int) -> Any:
    def run(z: jax.Array, power: jax.Array, parts: jax.Array, weights: jax.Array) -> dict[str, jax.Array]:
        x, unit = common(z, power)
        x = jax.nn.relu(x)
        rows = x.shape[0]
        size = jnp.sqrt(jnp.mean(x) / parts.shape[0])

        def step(_: jax.Array, both: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            w, h = both  # h: [n, k]
            w = _improved(w, x @ h, h.T @ h)
            return w, _improved(h, x.T @ w / rows, w.T @ w / rows)

        w, h = lax.fori_loop(0, steps, step, (weights * size, parts.T * size))
        off = x - w @ h.T
        return {"parts": h.T, "unit": unit, "error": jnp.sqrt(jnp.mean(jnp.sum(off * off, axis=1)))}

    return run


@cache
def _weights(steps: int) -> Any:
    def run(z: jax.Array, power: jax.Array, parts: jax.Array) -> jax.Array:
        x, _ = common(z, power)
        products, gram = jax.nn.relu(x) @ parts.T, parts @ parts.T
        first = jnp.zeros((z.shape[0], parts.shape[0]), jnp.float32)
        out: jax.Array = lax.fori_loop(0, steps, lambda _, w: _improved(w, products, gram), first)
        return out

    return run
