"""Scores of rows held out, after each round of training: the numbers are revealed, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.data import Frame
from spuvm.ml import ranking
from spuvm.ml.boosting import AnyTree, first_margins, margins
from spuvm.ml.machine import Machine
from spuvm.ml.parameters import Parameters
from spuvm.ml.predictions import IN_LABEL_UNITS, LARGER_IS_BETTER, scored
from spuvm.runtime.errors import InputError


@dataclass(eq=False)
class EvaluationSet:
    """One set: its matrices and labels are shared, its margins follow the training."""

    name: str
    machine: Machine
    parameters: Parameters
    matrices: list[Any]
    labels: Any
    prepared: Mapping[str, Any]
    rows: int
    groups: ranking.Groups | None = None
    margin: Any = None
    history: dict[str, list[float]] = field(default_factory=dict)

    def begin(self, margin: Any = None) -> None:
        """Before the first round; `margin`: if a model is trained further, what it says."""
        like = np.zeros((self.rows, 1), np.int8)
        if margin is None:
            margin = self.machine.run(first_margins, self.prepared["base"], like, what="evaluation")
        self.margin = margin
        self.history = {metric: [] for metric in self.parameters.metrics}

    def update(self, tree: AnyTree) -> dict[str, float]:
        """The scores after one more round."""
        self.margin = self.machine.run(margins, self.matrices, [tree], self.margin, what="evaluation")
        p = self.parameters
        if self.groups is not None:
            operands = self.labels, self.margin, self.groups
            shown = [self.machine.run(ranking.score(), *operands, what=f"scores of {self.name}")]
            return self._kept([float(v) for v in spu.reveal(shown)])
        function = scores(p.objective, p.metrics, p.quantile)
        unit = self.prepared["up"], self.prepared["down"]
        shown = self.machine.run(function, self.labels, self.margin, *unit, what=f"scores of {self.name}")
        return self._kept([float(v) for v in spu.reveal(shown)])

    def _kept(self, values: list[float]) -> dict[str, float]:
        for metric, value in zip(self.parameters.metrics, values):
            self.history[metric].append(value)
        return dict(zip(self.parameters.metrics, values))


@cache
def scores(objective: str, metrics: tuple[str, ...], quantile: float | None) -> Callable[..., list[jax.Array]]:
    """A function of labels [rows], margins [rows, K] and units that reveals the scores."""

    def evaluate(labels: jax.Array, margin: jax.Array, up: jax.Array, down: jax.Array) -> list[jax.Array]:
        out = []
        for metric in metrics:
            value = scored(objective, metric, quantile)(labels, margin)
            if metric in IN_LABEL_UNITS:
                value = (value * down) * up.astype(value.dtype)
            out.append(spu.reveal(jnp.asarray(value)))
        return out

    return evaluate


def named(eval_set: Any) -> dict[str, Frame]:
    """The evaluation sets by name; of a sequence they are called validation_0 and on, as XGBoost does."""
    if eval_set is None:
        return {}
    if isinstance(eval_set, Frame):
        eval_set = [eval_set]
    pairs = dict(eval_set) if isinstance(eval_set, Mapping) else {f"validation_{i}": f for i, f in enumerate(eval_set)}
    for name, frame in pairs.items():
        if not isinstance(frame, Frame):
            raise InputError(f"`eval_set` {name} must be a frame, got a `{type(frame).__name__}`.")
    return pairs


@dataclass
class Stopping:
    """Whether the last metric of the last set still improves."""

    rounds: int
    larger: bool
    best: float | None = None
    best_round: int = 0

    def over(self, number: int, value: float) -> bool:
        """Take in the score of a round; whether to stop."""
        if self.best is None or (value > self.best if self.larger else value < self.best):
            self.best, self.best_round = value, number
        return number - self.best_round >= self.rounds


def stopping(parameters: Parameters) -> Stopping | None:
    if parameters.early_stopping_rounds is None:
        return None
    return Stopping(parameters.early_stopping_rounds, parameters.metrics[-1] in LARGER_IS_BETTER)
