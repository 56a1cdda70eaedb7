"""One local step: the gradient of the user's loss, what the strategy adds to it, the user's optimiser. Plain JAX."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.fed.examples import clipped_sum
from spuvm.fed.layout import Layout
from spuvm.fed.plan import Plan
from spuvm.runtime.errors import InputError


@functools.lru_cache(maxsize=4)
def compiled_step(plan: Plan) -> Callable[..., Any]:
    """A local step of a training: compiled once in a process, whichever parties are in it."""
    return jax.jit(stepped(plan, plan.layout.leaves))


@functools.lru_cache(maxsize=4)
def compiled_sum(plan: Plan, clip: float) -> Callable[..., Any]:
    """The same of clipped gradients."""
    return clipped_sum(objective_of(plan, plan.layout.leaves), clip)


def stepped(plan: Plan, start: Sequence[Any]) -> Callable[..., Any]:
    """One step for one batch. Lists of leaves: `trained` in the layout's order; `drift`, `slopes` of shared ones."""
    layout = plan.layout
    inside = [layout.trained.index(i) for i in layout.shared]
    objective = objective_of(plan, start)

    def step(trained: Any, state: Any, batch: Any, anchor: Any, drift: Any, slopes: Any, key: Any) -> Any:
        found = jax.grad(objective)(trained, batch, key)
        slopes = [s + found[i] for s, i in zip(slopes, inside, strict=True)]
        for i, d in zip(inside, drift, strict=True):
            found[i] = found[i] + plan.strategy.proximal * (trained[i] - anchor[i]) + d
        changes, state = plan.optimizer.update(holed(layout, found), state, holed(layout, trained))
        moved = [(p + c).astype(p.dtype) for p, c in zip(trained, jax.tree.leaves(changes), strict=True)]
        return moved, state, slopes

    return step


def objective_of(plan: Plan, start: Sequence[Any]) -> Callable[..., Any]:
    """The loss of a list of trained leaves, a batch, and a key that it may not want."""
    keyed = takes_key(plan.loss)

    def objective(trained: Any, batch: Any, key: Any) -> Any:
        leaves = list(start)
        for i, leaf in zip(plan.layout.trained, trained, strict=True):
            leaves[i] = leaf
        value = plan.loss(plan.layout.model(leaves), batch, *([key] if keyed else []))
        if jnp.shape(value) != ():
            raise InputError(f"`loss` must return one number, the mean over the batch; got shape {jnp.shape(value)}.")
        return value

    return objective


def holed(layout: Layout, trained: Sequence[Any]) -> Any:
    """The model's tree with None in place of what is not trained: what optimisers are given."""
    leaves: list[Any] = [None] * len(layout.leaves)
    for i, leaf in zip(layout.trained, trained, strict=True):
        leaves[i] = leaf
    return jax.tree.unflatten(layout.tree, leaves)


def takes_key(function: Callable[..., Any]) -> bool:
    """Whether a loss wants a random key as third argument."""
    try:
        kinds = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    except (TypeError, ValueError):
        return False
    return len([p for p in kinds if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]) >= 3


def cut(layout: Layout, vector: np.ndarray) -> list[np.ndarray]:
    placed = layout.placed(vector, layout.leaves)
    return [placed[i] for i in layout.shared]


def joined(layout: Layout, leaves: Sequence[Any]) -> np.ndarray:
    whole = list(layout.leaves)
    for i, leaf in zip(layout.shared, leaves, strict=True):
        whole[i] = np.asarray(leaf)
    return layout.vector(whole)
