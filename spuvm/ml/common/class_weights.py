"""`class_weight`: how much rows of a class count, stated, or so that all classes count the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from spuvm.ml.common.predictors import Classifier, Given
from spuvm.ml.common.rules import Rule
from spuvm.ml.machine import Machine
from spuvm.runtime.errors import ConfigError, PublicError

BALANCED = "balanced"
MOST = 1e4
LEAST = 0.25  # weight of all rows of a class that counts


def _weighs(x: Any) -> bool:
    if not isinstance(x, Mapping):
        return isinstance(x, str) and x == BALANCED
    numbers = all(isinstance(w, int | float) and not isinstance(w, bool) and 0 < w <= MOST for w in x.values())
    return bool(x) and numbers and all(str(k).isdecimal() for k in x)


CLASS_WEIGHT_RULE = Rule(
    lambda x: x is None or _weighs(x), 'None, "balanced", or numbers above 0 by class, {0: 1.0, 1: 5.0}'
)


@dataclass(eq=False, kw_only=True, repr=False)
class WeightedClassifier(Classifier):
    """A classifier whose rows count by their class.

    Args:
        class_weight: numbers by class (1 for those not named), or "balanced": rows / (classes * rows of the class), so
            that all classes count the same, whatever `sample_weight` says. How many rows a class has stays secret.
    """

    class_weight: str | Mapping[int, float] | None = None

    def _given(self, machine: Machine, data: Any, y: Any, weight: Any) -> Given:
        given = super()._given(machine, data, y, weight)
        if self.class_weight is None:
            return given
        if getattr(self, "dp", None) is not None:
            raise ConfigError("`class_weight` and `dp` exclude each other: weights would undo what bounds a row.")
        run = by_class(given.labels.classes, self._stated(given.labels.classes))
        return replace(given, weight=machine.run(run, given.labels.values, given.weight, what="weights"))

    @classmethod
    def _read_parameters(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        read = super()._read_parameters(parameters)
        if isinstance(read.get("class_weight"), Mapping):  # JSON has text for keys
            read["class_weight"] = {int(k): w for k, w in read["class_weight"].items()}
        return read

    def _stated(self, classes: int) -> tuple[float, ...] | None:
        if not isinstance(self.class_weight, Mapping):
            return None
        named = {int(k): float(w) for k, w in self.class_weight.items()}
        unknown = sorted(named.keys() - set(range(classes)))
        if unknown:
            raise PublicError(
                f"`class_weight` has class {unknown[0]}, of {classes} classes: they are 0 to {classes - 1}."
            )
        return tuple(named.get(k, 1.0) for k in range(classes))


@cache
def by_class(classes: int, stated: tuple[float, ...] | None) -> Any:
    """A function of codes and weights (or None) [rows]: weights [rows]."""

    def run(y: jax.Array, weight: jax.Array | None) -> jax.Array:
        member = jnp.stack([1 - y, y], axis=1) if classes == 2 else (y[:, None] == jnp.arange(classes)).astype(y.dtype)
        factors = jnp.asarray(stated, y.dtype) if stated else _balanced(member, weight)
        own = member @ factors
        return own if weight is None else own * weight

    return run


def _balanced(member: jax.Array, weight: jax.Array | None) -> jax.Array:
    """All rows' weight, by the number of classes and the weight of one's own; of a class without rows 0."""
    counts = jnp.sum(member, axis=0) if weight is None else weight @ member
    total = member.shape[0] if weight is None else jnp.sum(weight)
    return jnp.where(counts > LEAST, total / jnp.maximum(counts, LEAST) / member.shape[1], 0.0)
