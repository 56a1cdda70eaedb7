"""Training of neural nets as they are: a function of parameters, an optax optimiser, batches; checkpoints as shares."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.devices import PYU, SPU, PYUObject
from spuvm.ml.common.table import here
from spuvm.ml.composition.splits import rows_of, take
from spuvm.ml.machine import Machine, Reveal, default_device
from spuvm.objects import SPUObject
from spuvm.runtime.errors import ConfigError, InputError

Apply = Callable[..., jax.Array]
Loss = Callable[[jax.Array, jax.Array], jax.Array]
NAME = "checkpoint"


def cross_entropy(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean of -ln softmax(outputs)[label], outputs f32[rows, k], labels int32[rows] or one-hot f32[rows, k]."""
    if labels.ndim == 1:
        labels = (labels[:, None] == jnp.arange(outputs.shape[1])).astype(outputs.dtype)
    return _softmax_loss(outputs, labels)


@jax.custom_vjp
def _softmax_loss(outputs: jax.Array, hot: jax.Array) -> jax.Array:
    return jnp.mean(jax.nn.logsumexp(outputs, axis=1) - jnp.sum(outputs * hot, axis=1))


def _softmax_forward(outputs: jax.Array, hot: jax.Array) -> Any:
    return _softmax_loss(outputs, hot), (outputs, hot)


def _softmax_backward(kept: Any, slope: jax.Array) -> Any:
    """The gradient needs no logarithm: a loss that nobody looks at is then never computed."""
    outputs, hot = kept
    return slope * (jax.nn.softmax(outputs, axis=1) - hot) / outputs.shape[0], jnp.zeros_like(hot)


_softmax_loss.defvjp(_softmax_forward, _softmax_backward)


def squared_error(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean squared difference of outputs f32[rows] or [rows, 1] and labels f32[rows]."""
    return jnp.mean((outputs.reshape(labels.shape) - labels) ** 2)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "squared_error": squared_error}


@dataclass(eq=False)
class Trainer:
    """Trains what JAX differentiates: flax's `model.apply`, a function of an equinox model's arrays, any function.

        trainer = Trainer(model.apply, optax.sgd(0.1), model.init(key, x0))     # parameters start public
        trainer.fit(images, labels, epochs=2, batch_size=64)                    # objects of alice and of bob
        trainer.save({p: f"net/{p}" for p in parties});  trainer.predict(new, to="carol")

    Parameters, gradients and the optimiser's state are secret from the first step on. Revealed are the scores of
    `validation`, and what is asked for.

    Args:
        apply: parameters, inputs [rows, ...] -> outputs [rows, k].
        optimizer: with optax's `init` and `update`.
        params: where training starts: a pytree of arrays, or of SPUObjects.
        loss: "cross_entropy", "squared_error", or a function of outputs and labels.
        device: the SPU to compute on; of all parties if not given.
        frozen: what `apply` takes between parameters and inputs and is not trained: an object of the party that owns
            it, which it does not leave but as shares (see `lora`). Not in checkpoints.
    """

    apply: Apply
    optimizer: Any
    params: Any
    loss: str | Loss = "cross_entropy"
    device: SPU | None = None
    frozen: Any = None
    state: Any = field(default=None, init=False)
    steps: int = field(default=0, init=False)
    history: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if isinstance(self.loss, str) and self.loss not in LOSSES:
            raise ConfigError(f"`loss` must be one of {', '.join(LOSSES)}, or a function, got {self.loss!r}.")
        if not (hasattr(self.optimizer, "init") and hasattr(self.optimizer, "update")):
            raise ConfigError("`optimizer` must have `init` and `update`, as optax's have.")
        if not all(isinstance(x, PYUObject | SPUObject) for x in jax.tree.leaves(self.frozen, is_leaf=_is_object)):
            raise ConfigError(
                "`frozen` has arrays, which are nobody's: give an object of its owner, `PYU(owner)(load)(path)`."
            )
        self.machine = Machine(self.device or default_device())
        self._step = self._stepped()
        self._measure = self._measured()

    # Training

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *,
        batches: Iterable[tuple[Any, Any]] | None = None,
        epochs: int = 1,
        batch_size: int = 64,
        random_state: int = 0,
        validation: tuple[Any, Any] | None = None,
        patience: int | None = None,
    ) -> Self:
        """Take a step for each batch.

        Args:
            x, y: inputs and labels of all rows: objects of PYUs or of the SPU; arrays in a simulation.
            batches: in place of x and y, pairs of them, all of one shape: of a stream, of a generator. One pass.
            epochs: passes over x and y, in an order drawn by `random_state`; rows that fill no batch are left out.
            validation: inputs and labels whose loss is revealed after each epoch.
            patience: stop when the loss has not improved for so many epochs.

        Raises:
            InputError: for neither data nor batches, or fewer rows than a batch has.
        """
        if (batches is None) == (x is None):
            raise InputError("give either `x` and `y`, or `batches`.")
        if patience is not None and validation is None:
            raise ConfigError("`patience` needs `validation`, whose loss can stop improving.")
        best, since = float("inf"), 0
        for epoch in range(1 if batches is not None else epochs):
            for some in batches if batches is not None else _cut(x, y, batch_size, random_state + epoch):
                self.step(*some)
            if validation is None:
                continue
            self.history.append(self.score(*validation))
            best, since = (self.history[-1], 0) if self.history[-1] < best else (best, since + 1)
            if patience is not None and since >= patience:
                break
        return self

    def step(self, x: Any, y: Any) -> None:
        """One step of the optimiser for one batch."""
        if self.state is None:
            self.state = self.machine.run(self.optimizer.init, self.params, what="training")
        operands = *self._fixed(), self._owned(x), self._owned(y)
        self.params, self.state = self.machine.run(self._step, self.params, self.state, *operands, what="training")
        self.steps += 1

    def score(self, x: Any, y: Any) -> float:
        """The loss, revealed to all parties."""
        found = self.machine.run(
            self._measure, self.params, *self._fixed(), self._owned(x), self._owned(y), what="loss"
        )
        return float(spu.reveal(found))

    def predict(self, x: Any, to: str | None = None) -> Any:
        """Outputs [rows, k]; secret, or shown to the party `to`."""
        out = self.machine.run(self.apply, self.params, *self._fixed(), self._owned(x), what="prediction")
        return out if to is None else self.machine.to(out, to, "prediction")

    def _stepped(self) -> Callable[..., Any]:
        loss = LOSSES[self.loss] if isinstance(self.loss, str) else self.loss
        apply, optimizer = self.apply, self.optimizer

        def step(params: Any, state: Any, *given: Any) -> Any:
            *inputs, y = given
            slopes = jax.grad(lambda p: loss(apply(p, *inputs), y))(params)
            changes, after = optimizer.update(slopes, state, params)
            return jax.tree.map(lambda p, c: p + c, params, changes), after

        return step

    def _measured(self) -> Callable[..., Any]:
        loss = LOSSES[self.loss] if isinstance(self.loss, str) else self.loss
        apply = self.apply
        return lambda params, *given: spu.reveal(loss(apply(params, *given[:-1]), given[-1]))

    def _fixed(self) -> tuple[Any, ...]:
        return () if self.frozen is None else (self.frozen,)

    def _owned(self, x: Any) -> Any:
        if isinstance(x, PYUObject | SPUObject):
            return x
        value = np.asarray(x)
        return PYU(here(self.machine, "x"))(lambda: value)()

    @property
    def reveals(self) -> tuple[Reveal, ...]:
        """What training and predictions have shown, to whom."""
        return self.machine.reveals

    # Checkpoints

    def save(self, folders: Mapping[str, str | Path]) -> None:
        """Write parameters and the optimiser's state: to each party's folder a part that says nothing by itself.

        Raises:
            InputError: before the first step, and for a folder that cannot be written.
        """
        if self.state is None:
            raise InputError("there is nothing secret yet: take a step first.")
        leaves = jax.tree.leaves((self.params, self.state), is_leaf=_is_object)
        facts = json.dumps({"steps": self.steps, "history": self.history})
        spu.save_shares({"kind": "spuvm.ml.Trainer", "facts": facts, "leaves": list(leaves)}, folders, NAME)

    def restore(self, folders: Mapping[str, str | Path]) -> Self:
        """Go on where `save` was called: the parameters and the optimiser must have the same shapes.

        Raises:
            InputError: for parts that are missing, damaged, or of another model.
        """
        tree = spu.load_shares(folders, self.machine.spu, NAME)
        if not isinstance(tree, dict) or tree.get("kind") != "spuvm.ml.Trainer":
            raise InputError("`folders` have shares that are no checkpoint of a `Trainer`.")
        want = jax.eval_shape(
            lambda p: (p, self.optimizer.init(p)), jax.tree.map(_shape, self.params, is_leaf=_is_object)
        )
        shapes = [tuple(leaf.shape) for leaf in jax.tree.leaves(want)]
        if shapes != [tuple(leaf.shape) for leaf in tree["leaves"]]:
            raise InputError("the checkpoint is of a model or an optimiser with other shapes.")
        self.params, self.state = jax.tree.unflatten(jax.tree.structure(want), tree["leaves"])
        facts = json.loads(tree["facts"])
        self.steps, self.history = facts["steps"], facts["history"]
        return self


def _is_object(x: Any) -> bool:
    return isinstance(x, SPUObject | PYUObject)


def _shape(x: Any) -> Any:
    return jax.ShapeDtypeStruct(tuple(x.shape), x.dtype)


def _cut(x: Any, y: Any, size: int, seed: int) -> Iterator[tuple[Any, Any]]:
    rows = rows_of(x)
    if rows < size:
        raise InputError(f"there are {rows} rows, `batch_size` is {size}: use a smaller one.")
    order = np.random.RandomState(seed % (1 << 32)).permutation(rows)
    for start in range(0, rows - size + 1, size):
        at = order[start : start + size]
        yield take(x, at), take(y, at)
