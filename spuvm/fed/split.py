"""Split learning: columns at several parties, a tower at each, and a top that joins what the towers say about a row.

    model = spu.fed.split(towers={"alice": (apply, params), "bob": (apply, params)}, top=(apply, params), loss=loss,
                          optimizer=optax.sgd(0.1), data={"alice": x, "bob": z}, labels={"carol": y}, at="machine")

At the label holder the towers' outputs are shown to it, and each tower is sent the gradient of its own. On the
machine nobody sees outputs, labels or the top; each tower's party alone is shown its gradient. A gradient tells of
labels by its direction and its norm: `protect="max_norm"` gives all rows of a batch the norm of the largest, on
average, by noise along each row's own gradient (Li and others, "Label leakage and protection in two-party split
learning", ICLR 2022). It hides norms, and is no proof. (Gupta and Raskar, 2018; Vepakomma and others, 2018.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.context import abort_everyone_on_error, here
from spuvm.devices import PYU, SPU, PYUObject
from spuvm.fed.meeting import given, said
from spuvm.fed.sources import Rows, source
from spuvm.ml.machine import default_device
from spuvm.runtime.errors import ConfigError, InputError, PublicError

MACHINE = "machine"
PROTECTIONS = (None, "max_norm")
Net = tuple[Callable[..., Any], Any]  # apply(params, inputs) and its parameters


@dataclass(eq=False)
class Tower:
    """At one party: its rows, its net, and the optimiser's state."""

    apply: Callable[..., Any]
    params: Any
    optimizer: Any
    rows: Rows
    state: Any = None

    def __post_init__(self) -> None:
        self.state = self.optimizer.init(self.params)
        apply = self.apply
        self.forward = jax.jit(apply)
        self.backward = jax.jit(lambda p, x, g: jax.vjp(lambda q: apply(q, x), p)[1](g)[0])

    def say(self, at: Sequence[int]) -> Any:
        return np.asarray(self.forward(self.params, self._of(at)), np.float32)

    def hear(self, at: Sequence[int], slopes: Any) -> None:
        found = self.backward(self.params, self._of(at), jnp.asarray(slopes))
        self.params, self.state = _stepped(self.optimizer, self.params, self.state, found)

    def _of(self, at: Sequence[int]) -> Any:
        return jax.tree.map(lambda x: x[np.asarray(at)], self.rows.arrays)


@dataclass(eq=False)
class Top:
    """At the label holder."""

    step: Callable[..., Any]
    params: Any
    state: Any
    labels: Any

    def learn(self, at: Sequence[int], *outputs: Any) -> list[Any]:
        labels = self.labels[np.asarray(at)]
        drawn = np.random.default_rng().standard_normal(len(at)).astype(np.float32)
        self.params, self.state, slopes = self.step(self.params, self.state, labels, drawn, *outputs)
        return [np.asarray(s) for s in slopes]


@dataclass(frozen=True, eq=False)
class SplitModel:
    """Towers at their parties, a top at its own (a `Top` there) or on the machine (secret parameters)."""

    towers: Mapping[str, PYUObject]
    top: Any
    apply: Callable[..., Any]
    at: str
    device: SPU | None
    learns: tuple[str, ...]

    def predict(self, data: Mapping[str, Any], to: str) -> PYUObject:
        """Outputs [rows, ...] of new rows, at the party `to` alone."""
        if set(data) != set(self.towers):
            raise InputError(f"`data` must have rows of {', '.join(self.towers)}.")
        loaded = {p: given(p, lambda x: _loaded(x).arrays, data[p]) for p in self.towers}
        said_ = [PYU(p)(_outputs)(self.towers[p], loaded[p]) for p in self.towers]
        apply = self.apply
        if self.device is not None:
            found = self.device(_joined(apply))(self.top, *said_)
            return found.to(PYU(to))  # type: ignore[no-any-return]
        there = [x.to(PYU(self.at)) for x in said_]
        out = PYU(self.at)(lambda top, *zs: np.asarray(apply(top.params, jnp.concatenate(zs, 1))))(self.top, *there)
        return out.to(PYU(to))  # type: ignore[no-any-return]


def split(
    towers: Mapping[str, Net],
    top: Net,
    *,
    loss: Callable[[Any, Any], Any],
    optimizer: Any,
    data: Mapping[str, Any],
    labels: Mapping[str, Any],
    at: str = MACHINE,
    epochs: int = 1,
    batch_size: int = 32,
    protect: str | None = None,
    seed: int = 0,
    device: SPU | None = None,
) -> SplitModel:
    """Train towers and a top on the same rows, in the same order, at all parties (`spu.psi.join` brings them there).

    Args:
        towers: by party, `apply(params, x)` -> f32[rows, k] and its parameters.
        top: `apply(params, outputs)`, of the towers' outputs side by side in the order of `towers`.
        loss: `loss(outputs, labels)`, the mean over a batch.
        data: by party, arrays [rows, ...] or what `train` takes. labels: of one party, an array [rows, ...].
        at: "machine", or the label holder's name: where the top is.
        protect: of gradients that are shown: None, or "max_norm".
        seed: of the order of rows, which all know.

    Raises ConfigError, InputError; PublicError if the parties have different numbers of rows.
    """
    with abort_everyone_on_error():
        holder = _checked(towers, data, labels, at, protect, epochs, batch_size, optimizer)
    workers = {p: given(p, _tower(net, optimizer), data[p]) for p, net in towers.items()}
    answers = given(holder, _labels, labels[holder])
    rows = _rows(workers, answers, holder)
    if batch_size > rows:
        raise PublicError(f"`batch_size` is {batch_size}, and there are {rows} rows: give a smaller one.")
    step = _learner(top[0], loss, optimizer, protect)
    machine = (device or default_device()) if at == MACHINE else None
    session: _OnMachine | _AtHolder = (
        _OnMachine(machine, step, top, optimizer, answers)
        if machine
        else _AtHolder(holder, step, top, optimizer, answers)
    )
    rng = np.random.RandomState(seed)
    for _ in range(epochs):
        order = rng.permutation(rows)
        for start in range(0, rows - batch_size + 1, batch_size):
            some = order[start : start + batch_size].tolist()
            outputs = {p: PYU(p)(lambda w, some=some: w.say(some))(workers[p]) for p in towers}
            slopes = session.learn(some, outputs)
            for p in towers:
                PYU(p)(lambda w, g, some=some: w.hear(some, g))(workers[p], slopes[p])
    return SplitModel(workers, session.top, top[0], at, machine, _learns(towers, holder, at, protect))


# where the top is


@dataclass(eq=False)
class _AtHolder:
    holder: str
    step: Any
    net: Net
    optimizer: Any
    answers: PYUObject

    def __post_init__(self) -> None:
        step, optimizer, start = jax.jit(self.step), self.optimizer, self.net[1]
        self.top = PYU(self.holder)(lambda y: Top(step, start, optimizer.init(start), y))(self.answers)

    def learn(self, some: Sequence[int], outputs: Mapping[str, PYUObject]) -> dict[str, PYUObject]:
        home = PYU(self.holder)
        there = [x.to(home) for x in outputs.values()]
        found = home(lambda top, *zs: top.learn(some, *zs))(self.top, *there)
        return {p: home(lambda f, i=i: f[i])(found).to(PYU(p)) for i, p in enumerate(outputs)}


@dataclass(eq=False)
class _OnMachine:
    device: SPU
    step: Any
    net: Net
    optimizer: Any
    answers: PYUObject

    def __post_init__(self) -> None:
        self.top = self.net[1]
        self.state = self.optimizer.init(self.top)
        step = self.step
        self.run = self.device(lambda p, s, y, *zs: step(p, s, y, None, *zs))

    def learn(self, some: Sequence[int], outputs: Mapping[str, PYUObject]) -> dict[str, PYUObject]:
        labels = self.answers.device(lambda y: y[np.asarray(some)])(self.answers)
        self.top, self.state, slopes = self.run(self.top, self.state, labels, *outputs.values())
        return {p: g.to(PYU(p)) for p, g in zip(outputs, slopes, strict=True)}


def _learner(apply: Any, loss: Any, optimizer: Any, protect: str | None) -> Callable[..., Any]:
    """(params, state, labels, normal numbers or None: the machine's, outputs) -> params, state, gradients."""

    def step(params: Any, state: Any, labels: Any, drawn: Any, *outputs: Any) -> Any:
        def objective(p: Any, zs: Any) -> Any:
            return loss(apply(p, jnp.concatenate(zs, axis=1)), labels)

        found, slopes = jax.grad(objective, (0, 1))(params, list(outputs))
        params, state = _stepped(optimizer, params, state, found)
        if protect is not None:
            drawn = spu.random.normal(labels.shape[:1]) if drawn is None else drawn
            slopes = _same_norms(slopes, drawn)
        return params, state, slopes

    return step


def _same_norms(slopes: list[Any], drawn: Any) -> list[Any]:
    """Each row's gradients, of all towers together, times 1 + sqrt(largest / own - 1) times a normal number."""
    rows = slopes[0].shape[0]
    squares = sum(jnp.sum((g * rows) ** 2, axis=1) for g in slopes)  # times rows: near 1, where fixed point is exact
    largest = jnp.max(squares)
    ratio = largest / jnp.maximum(squares, largest / MOST_RATIO + TINY)
    factor = 1 + jnp.sqrt(jnp.maximum(ratio - 1, 0.0)) * drawn
    return [g * factor[:, None] for g in slopes]


MOST_RATIO, TINY = 1024.0, 1e-4


def _stepped(optimizer: Any, params: Any, state: Any, slopes: Any) -> Any:
    changes, state = optimizer.update(slopes, state, params)
    return jax.tree.map(lambda p, c: p + c, params, changes), state


# before the first step


def _checked(
    towers: Mapping[str, Net], data: Mapping[str, Any], labels: Mapping[str, Any], at: str, protect: str | None,
    epochs: int, batch_size: int, optimizer: Any,
) -> str:  # fmt: skip
    """The label holder."""
    if not towers or set(towers) != set(data):
        raise ConfigError("`towers` and `data` must name the same parties.")
    if len(labels) != 1:
        raise ConfigError(f"`labels` must be of one party, {{party: array}}; got {len(labels)}.")
    (holder,) = labels
    missing = [p for p in (*towers, holder) if p not in here().parties]
    if missing:
        raise ConfigError(f"`init` does not know {', '.join(missing)}: it knows {', '.join(here().parties)}.")
    if at not in (MACHINE, holder):
        raise ConfigError(f"`at` must be 'machine' or {holder!r}, who has the labels; got {at!r}.")
    if protect not in PROTECTIONS:
        raise ConfigError(f"`protect` must be None or 'max_norm', got {protect!r}.")
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"`{name}` must be a whole number, 1 or more, got {value!r}.")
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise ConfigError("`optimizer` must have `init` and `update`, as optax's have.")
    return holder


def _tower(net: Net, optimizer: Any) -> Callable[[Any], Tower]:
    return lambda x: Tower(net[0], net[1], optimizer, _loaded(x))


def _loaded(data: Any) -> Rows:
    found = source(data, None, 1, np.random.default_rng())
    if not isinstance(found, Rows):
        raise InputError("split learning takes arrays, tables or files, no iterators: rows must be in common.")
    return found


def _labels(data: Any) -> Any:
    (only,) = jax.tree.leaves(_loaded(data).arrays)
    return only


def _outputs(tower: Tower, arrays: Any) -> Any:
    return np.asarray(tower.forward(tower.params, arrays), np.float32)


def _rows(workers: Mapping[str, PYUObject], answers: PYUObject, holder: str) -> int:
    counts = said(tuple(workers), "rows", int, lambda w: w.rows.rows, workers)
    counts |= {"the labels": said((holder,), "labels", int, len, {holder: answers})[holder]}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{p} {n:,}" for p, n in counts.items())
        raise PublicError(f"the parties have different numbers of rows ({shown}): match them first (`spu.psi.join`).")
    return int(next(iter(counts.values())))


def _joined(apply: Callable[..., Any]) -> Callable[..., Any]:
    return lambda params, *outputs: apply(params, jnp.concatenate(outputs, axis=1))


def _learns(towers: Mapping[str, Net], holder: str, at: str, protect: str | None) -> tuple[str, ...]:
    how = ", with the norm of the largest of its batch" if protect else ""
    out = ["all parties: the nets' forms, how many rows there are, their order in batches"]
    out += [f"{p}: the gradient of its tower's output for each row{how}" for p in towers]
    if at != MACHINE:
        out.append(f"{holder}: the outputs of all towers for each row, the top")
    return tuple(out)
