"""Training that goes on from a model: the same bins, more trees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import jax

from spuvm.data import Column, Frame
from spuvm.devices import PYU
from spuvm.ml.machine import Machine
from spuvm.ml.model import Model
from spuvm.ml.parameters import Parameters
from spuvm.runtime.errors import ConfigError, InputError

EQUAL = ("objective", "num_class", "quantile_alpha", "huber_slope", "max_depth", "max_leaves", "reveal_splits_to_owner")
UNITLESS = ("binary:", "multi:", "rank:")  # objectives of labels that have no unit


def check(model: Model, p: Parameters, data: Frame, label: Column) -> None:
    """Refuse parameters and data that the model's trees do not go with.

    Raises:
        ConfigError: for parameters that must be the model's.
        InputError: for another kind of frame, or labels that another party holds.
    """
    for name in EQUAL:
        mine, its = getattr(p, name), getattr(model.parameters, name)
        if mine != its:
            raise ConfigError(f"`{name}` is {mine!r}, that of `xgb_model` {its!r}: trees of both cannot be added up.")
    if data.kind != model.bins.kind:
        raise InputError(f"`xgb_model` was trained on a {model.bins.kind} frame, this one is {data.kind}.")
    if p.objective.startswith(UNITLESS):
        return
    if data.kind != "vertical":
        raise ConfigError(f"`xgb_model` of {p.objective!r} goes on with a vertical frame alone: train a new model.")
    if label.party != model.label.party:
        raise InputError(f"{label.where} holds labels that {model.label.party} held in training: bring them there.")


def known_unit(model: Model, machine: Machine) -> Any:
    """What the label holder is told of a regression's labels, which it knew: base score and unit, at it."""
    if model.parameters.objective.startswith(UNITLESS):
        return None
    party = str(model.label.party)
    shown = [machine.to(x, party, "base score and unit of labels") for x in (model.base, model.up, model.down)]
    return PYU(party)(lambda base, up, down: {"base": base, "unit": float(up) * float(down)})(*shown)


def begun(model: Model, machine: Machine, exponent: int, p: Parameters) -> Model:
    """The model on this machine, its gains times 2^exponent; what follows does not change the one that was given."""
    trees = list(model.trees)
    if exponent != model.exponent:
        function = times(2.0 ** (exponent - model.exponent))
        trees = [replace(t, gains=machine.run(function, t.gains, what="training")) for t in trees]
    return replace(model, machine=machine, trees=trees, parameters=p, exponent=exponent)


@cache
def times(factor: float) -> Callable[[jax.Array], jax.Array]:
    """A function that multiplies."""
    return lambda x: x * factor
