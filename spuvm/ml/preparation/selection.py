"""Selection of columns: those that vary, and those that say most of the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.data import Column
from spuvm.devices import PYU, fetch
from spuvm.ml.common import distributions, rules, units
from spuvm.ml.common.by_column import ByColumn, learn
from spuvm.ml.common.estimator import CLASSES, Fitted
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import matrix, refuse_categories, scales, standard
from spuvm.ml.common.table import Block, Table
from spuvm.ml.common.transformers import Transformer
from spuvm.ml.linear.model import LinearModel
from spuvm.ml.machine import Inside, Machine
from spuvm.ml.preparation.scores import SCORES, Score
from spuvm.runtime.errors import ConfigError, DataError, InputError

KEPT = "which columns are kept"  # a bit a column


@dataclass(eq=False, kw_only=True, repr=False)
class Selector(Transformer):
    """Keeps some columns, each where it was. Which they are becomes public: tables have names of columns."""

    def _machine(self, *given: Any) -> Machine:
        machine = super()._machine(*given)
        if isinstance(machine, Inside):
            raise ConfigError("columns cannot be selected inside a jitted function: which they are becomes public.")
        return machine

    def get_support(self, indices: bool = False) -> np.ndarray:
        """Which columns of training are kept: bool [n], or their positions."""
        known = self._fitted().facts
        if "kept" not in known:
            raise ConfigError(f"{self!r} keeps which columns it chose secret.")
        kept = np.array(known["kept"], bool)
        return np.flatnonzero(kept) if indices else kept

    def get_feature_names_out(self) -> tuple[str, ...]:
        """Names of the columns that are kept."""
        columns = self._known().columns
        return tuple(c.name for c, kept in zip(columns, self.get_support()) if kept)

    def _known(self) -> ByColumn:
        known = self._fitted().columns
        assert known is not None
        return known

    def _transformed(self, table: Table) -> Table:
        some: Table = table[list(self.get_feature_names_out())]
        return some


@dataclass(eq=False, kw_only=True, repr=False)
class VarianceThreshold(Selector):
    """Columns whose variance is above a threshold; owners find it of theirs.

    Revealed: one bit a column, whether it is kept.

    Args:
        threshold: 0 leaves out columns that are the same in all rows.
    """

    threshold: float = field(default=0.0, kw_only=False)
    checks: ClassVar[Mapping[str, Rule]] = {"threshold": rules.NOT_NEGATIVE}

    def _learned(self, machine: Machine, table: Table, labels: Any) -> Fitted:
        limit = float(self.threshold)
        known = learn(table, partial(_varies, limit=limit), _nothing, "VarianceThreshold")
        kept: list[bool] = []
        for known_block, block in zip(known.blocks, table.blocks):
            if block.owner:
                kept += [bool(k) for k in fetch(PYU(block.owner)(_kept)(known_block.state))]
                machine.note(KEPT, "all parties", (len(block.columns),))
                continue
            power = block.power if block.power is not None else np.zeros(len(block.columns), np.int32)
            found = machine.run(_secretly_varies(limit), block.value, power, what="VarianceThreshold")
            kept += [bool(k) for k in np.asarray(machine.reveal(found, KEPT))]
        if not any(kept):
            raise DataError(f"no column has a variance above {limit:g}: nothing is left.")
        return Fitted(machine, known, {}, {"kept": kept})


def _varies(x: np.ndarray, limit: float) -> dict[str, np.ndarray]:
    """Whether an owner's columns vary; a constant one may have a variance of rounding."""
    flat = np.ptp(x, axis=0) == 0
    return {"kept": ~flat & (x.var(axis=0) > limit)}


def _kept(state: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(state["kept"], np.int64)


@cache
def _secretly_varies(limit: float) -> Any:
    root, exponent = np.frexp(np.sqrt(limit))

    def run(x: jax.Array, power: jax.Array) -> jax.Array:
        """Spreads are compared, in the column's own unit: the least that is told from 0 is 2^-10 of its largest."""
        unit = units.secretly_learned(x, jnp.int32(0), 0.0, centred=True)
        z = units.secretly_applied(x, unit["mean"], unit["power"])
        spread = jnp.mean(z * z, axis=0)
        if not limit:
            return spread > 2.0**-12
        wanted = jnp.clip(int(exponent) - (unit["power"] + power), units.LEAST, 6)
        most = units.times_power(jnp.full(spread.shape, root, jnp.float32), wanted)
        return spread > jnp.maximum(most * most, 2.0**-12)

    return run


@dataclass(eq=False, kw_only=True, repr=False)
class SelectKBest(Selector):
    """The k columns with the best scores; scores stay secret until `scores()` asks for them.

    Args:
        score_func: "f_classif" (ANOVA), "f_regression" (a correlation's F), "chi2" (of counts and shares), or
            "mutual_info_classif" (of `n_bins` bins of equally many rows); or scikit-learn's function of that name.
        k: how many, or "all".
        reveal_support: which columns are kept is revealed, one bit a column, and they stay where they are. False:
            nothing is revealed, and the k columns that `transform` gives are secret, whichever they are; that costs a
            product with k columns.
        n_bins: of mutual information.
    """

    score_func: Any = field(default="f_classif", kw_only=False)
    k: Any = 10
    reveal_support: bool = True
    n_bins: int = 8
    n_classes: int | None = None
    needs_labels: ClassVar[bool] = True
    checks: ClassVar[Mapping[str, Rule]] = {
        "score_func": rules.one_of(*SCORES),
        "k": Rule(lambda x: x == "all" or rules.COUNT.holds(x), "a number of columns, or 'all'"),
        "reveal_support": rules.FLAG,
        "n_bins": rules.whole(2, 100),
        "n_classes": rules.optional(rules.whole(2, 1000)),
    }

    def _check(self) -> None:
        if callable(self.score_func):
            self.score_func = getattr(self.score_func, "__name__", repr(self.score_func))
        super()._check()

    def _learned(self, machine: Machine, table: Table, labels: Any) -> Fitted:
        if labels is None:
            raise InputError("`label` is missing: scores are of columns and labels.")
        count = len(table.columns) if self.k == "all" else self.k
        if count > len(table.columns):
            raise InputError(f"`k` of SelectKBest is {count}, but there are {len(table.columns)} columns.")
        refuse_categories(table)
        score = SCORES[self.score_func]
        known = standard(table, 0.0, centred=score.centred)
        found = score.of(machine, known, known.match(table), labels, self.n_classes, self.n_bins)
        chosen = machine.run(_best(count), found["order"], what="SelectKBest")
        facts = {"k": count, "classes": found["classes"], "rows": table.rows}
        if self.reveal_support:
            facts["kept"] = [bool(k) for k in np.asarray(machine.reveal(chosen["kept"], KEPT))]
        arrays = {"value": found["value"], "power": found["power"], "at": chosen["at"]}
        return Fitted(machine, known, arrays, facts)

    def get_feature_names_out(self) -> tuple[str, ...]:
        """Names of the columns that are kept; of secret ones numbers."""
        if self.reveal_support:
            return super().get_feature_names_out()
        return tuple(f"selected_{i}" for i in range(self._fitted().facts["k"]))

    def _transformed(self, table: Table) -> Table:
        if self.reveal_support:
            return super()._transformed(table)
        learned, known = self._fitted(), self._known()
        z, scale = matrix(known, table), scales(known)
        value, power = learned.machine.run(_picked, z, scale, learned.arrays["at"], what="SelectKBest")
        columns = tuple(Column(name, None, "float", False) for name in self.get_feature_names_out())
        return Table(learned.machine, table.rows, (Block(columns, value, power=power),), table.kind)

    def scores(self) -> dict[str, float]:
        """The score of each column, revealed to all parties."""
        learned = self._fitted()
        both = learned.machine.run(units.as_float, learned.arrays["value"], learned.arrays["power"], what="scores")
        shown = units.number(*learned.machine.reveal(both, "scores of columns"))
        return self._named(self._score().final(shown, learned.facts["rows"], learned.facts["classes"]))

    def pvalues(self) -> dict[str, float]:
        """Of each column, how likely so large a score is without a relation: revealed to all parties.

        Raises:
            ConfigError: for mutual information, which has none.
        """
        score, facts = self._score(), self._fitted().facts
        if score.freedom is None:
            raise ConfigError(f"{self.score_func!r} has no p-values.")
        freedom = score.freedom(facts["rows"], facts["classes"])
        tail = distributions.chi2_above if len(freedom) == 1 else distributions.f_above
        return self._named(tail(list(self.scores().values()), *freedom))

    def _named(self, values: np.ndarray) -> dict[str, float]:
        return {c.name: float(v) for c, v in zip(self._known().columns, values)}

    def _score(self) -> Score:
        return SCORES[self.score_func]


@cache
def _best(count: int) -> Any:
    def run(order: jax.Array) -> dict[str, jax.Array]:
        """Of what scores are ordered by [n]: `kept` bool [n], and `at` [n, k], where each column goes."""
        n = order.shape[0]
        above = (order[:, None] > order).astype(jnp.int32)
        earlier = np.arange(n)[:, None] < np.arange(n)
        beats = above + earlier * (1 - above - above.T)  # of equal ones, the first
        kept = jnp.sum(beats, axis=0) < count
        place = jnp.cumsum(kept.astype(jnp.int32)) - 1
        at = kept[:, None] & (place[:, None] == jnp.arange(count))
        return {"kept": kept, "at": at.astype(jnp.int32)}

    return run


def _picked(z: jax.Array, scale: Mapping[str, jax.Array], at: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Columns in units, and where each goes -> those that are kept, and their powers of two."""
    return (z + scale["mean"]) @ at.astype(jnp.float32), jnp.sum(scale["power"][:, None] * at, axis=0)


def _nothing(x: jax.Array) -> dict[str, jax.Array]:
    return {"none": jnp.zeros(1)}


@dataclass(eq=False, kw_only=True, repr=False)
class RFE(Selector):
    """Recursive elimination: a linear model is fitted again and again, each time without the weakest columns.

    Weakest are those with the smallest coefficients of the columns as they are, as scikit-learn has it: scale them
    first. Coefficients stay secret. Revealed: which columns go at each step, one bit a column, and what the model's
    fits reveal.

    Args:
        estimator: a linear model with nothing learned.
        n_features_to_select: how many stay; half of them if not given.
        step: how many go at once.
    """

    estimator: Any = field(default=None, kw_only=False)
    n_features_to_select: int | None = None
    step: int = 1
    needs_labels: ClassVar[bool] = True
    checks: ClassVar[Mapping[str, Rule]] = {
        "estimator": Rule(lambda x: isinstance(x, LinearModel), "a linear model of spuvm.ml"),
        "n_features_to_select": rules.optional(rules.COUNT),
        "step": rules.COUNT,
    }

    def _learned(self, machine: Machine, table: Table, labels: Any) -> Fitted:
        names = list(table.names)
        wanted = self.n_features_to_select or max(1, len(names) // 2)
        if wanted > len(names):
            raise InputError(f"`n_features_to_select` of RFE is {wanted}, but there are {len(names)} columns.")
        known = learn(table, _no_state, _nothing, "RFE")
        left, ranking = list(names), dict.fromkeys(names, 1)
        order: list[list[str]] = []
        while len(left) > wanted:
            gone = self._weakest(machine, table[left], labels, min(self.step, len(left) - wanted))
            order.append([n for n, g in zip(left, gone) if g])
            left = [n for n, g in zip(left, gone) if not g]
        for rank, some in enumerate(reversed(order), 2):
            ranking |= dict.fromkeys(some, rank)
        return Fitted(machine, known, {}, {"kept": [n in left for n in names], "ranking": list(ranking.values())})

    def _weakest(self, machine: Machine, table: Table, labels: Any, count: int) -> np.ndarray:
        model = self.estimator.clone()
        model.device = machine.spu
        learned = model.fit(table, labels)._fitted()
        machine.add(learned.machine)
        found = machine.run(_least(count), learned.arrays["coef"], learned.arrays["scales"]["power"], what="RFE")
        return np.asarray(machine.reveal(found, "which columns go"), bool)

    @property
    def ranking_(self) -> np.ndarray:
        """1 of the columns that are kept; the others in the order in which they went, the first of them last."""
        return np.array(self._fitted().facts["ranking"])

    def _written_parameters(self) -> dict[str, Any]:
        model = self.estimator
        return {**super()._written_parameters(), "estimator": [type(model).__name__, model._written_parameters()]}

    @classmethod
    def _read_parameters(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        name, inner = parameters["estimator"]
        return {**parameters, "estimator": CLASSES[name](**CLASSES[name]._read_parameters(inner))}


def _no_state(x: np.ndarray) -> dict[str, np.ndarray]:
    return {}


@cache
def _least(count: int) -> Any:
    def run(coef: jax.Array, power: jax.Array) -> jax.Array:
        """Which `count` of the coefficients [d] or [d, classes] are the smallest: bool [d]."""
        size = jnp.abs(coef) if coef.ndim == 1 else jnp.sqrt(jnp.sum(coef * coef, axis=1))
        order = jnp.log(jnp.maximum(size, 2.0**-14)) - power.astype(jnp.float32) * np.log(2)
        out: jax.Array = _best(count)(-order)["kept"]
        return out

    return run
