"""What runs at one party: local steps as the user's own JAX, the delta as words, evaluation. Its state stays there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.fed.examples import total_of
from spuvm.fed.plan import Plan
from spuvm.fed.private import EXAMPLE, Private, clipped
from spuvm.fed.sources import Rows, Source, source
from spuvm.fed.steps import compiled_step, compiled_sum, cut, holed, joined
from spuvm.fed.words import METRIC_BITS, digits, limit, quantised
from spuvm.runtime.errors import InputError

LOG = logging.getLogger("spuvm.fed")
NAN, RANGE = "nan", "range"


@dataclass(eq=False)
class Worker:
    """One party. `leaves` are its model's: the shared ones as training started, and its personal ones."""

    plan: Plan
    party: str
    data: Source
    eval_data: Source
    weight: float = 1.0
    leaves: list[Any] = field(default_factory=list)
    optimizer_state: Any = None
    control: np.ndarray | None = None
    delta: np.ndarray | None = None
    waiting: np.ndarray | None = None  # of updates, what was not added yet
    update: np.ndarray | None = None  # of this round with what waits, if updates are compressed
    flags: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    key: Any = None

    def __post_init__(self) -> None:
        plan = self.plan
        self.leaves = list(plan.layout.leaves)
        at = plan.parties.index(self.party)
        self.key = jax.random.key(plan.seed + at if plan.seed is not None else int(_random().integers(1 << 31)))
        if plan.strategy.control:
            self.control = np.zeros(plan.layout.size, plan.layout.dtype)

    @property
    def rows(self) -> int:
        return self.data.a_round if self.plan.weighted else 1

    # a round

    def train(self, vector: np.ndarray, control: np.ndarray | None) -> None:
        """Local steps from the global parameters; keeps the weighted delta for `words`, or the update to compress."""
        layout = self.plan.layout
        start = layout.placed(vector, self.leaves)
        if self.plan.private is not None and self.plan.private.unit == EXAMPLE:
            return self._sum_examples(start, self.plan.private)
        trained = [start[i] for i in layout.trained]
        step = compiled_step(self.plan)
        state = self.optimizer_state if self.plan.keep_optimizer else None
        if state is None:
            state = self.plan.optimizer.init(holed(layout, trained))
        drift: list[Any] = [jnp.zeros(())] * len(layout.shared)
        if control is not None and self.control is not None:
            drift = cut(layout, control - self.control)
        anchor, slopes = trained, [jnp.zeros(())] * len(layout.shared)
        for _ in range(self.plan.local_steps):
            key = jax.random.fold_in(self.key, self.steps)
            trained, state, slopes = step(trained, state, self.data.batch(), anchor, drift, slopes, key)
            self.steps += 1
        self._keep(start, trained, state, slopes, control is not None)

    def _sum_examples(self, start: list[Any], private: Private) -> None:
        """The clipped gradients of a secret sample; keeps their negative sum."""
        layout = self.plan.layout
        some, rows = self.data.sampled(private.sampling)
        key = jax.random.fold_in(self.key, self.steps)
        self.delta = -total_of(
            compiled_sum(self.plan, private.clip), layout, [start[i] for i in layout.trained], some, rows, key
        )
        self.steps += 1

    def _keep(
        self,
        start: list[Any],
        trained: list[Any],
        state: Any,
        slopes: list[Any],
        controlled: bool,
    ) -> None:
        layout = self.plan.layout
        after = list(start)
        for i, leaf in zip(layout.trained, trained, strict=True):
            after[i] = np.asarray(leaf)
        delta = layout.change(after, start)
        if self.plan.private is not None:
            self.delta = clipped(delta, self.plan.private.clip)
            if np.isfinite(delta).all():
                self.leaves, self.optimizer_state = layout.placed_as_before(after), state
            return
        if controlled and self.control is not None:
            mean = joined(layout, slopes) / layout.dtype.type(self.plan.local_steps)
            delta = np.concatenate([delta, mean - self.control])
        compress, largest = self.plan.compress, _largest(delta)
        if compress is not None:
            delta = delta if self.waiting is None else self.waiting + delta
            largest = compress.largest(layout, delta) if np.isfinite(delta).all() else np.nan
        self.flags = _flags(largest, self.weight, self.plan)
        if any(self.flags.values()):
            LOG.warning("%s: this party's update is left out: %s", self.party, _said(self.flags))
            self.delta, self.update = np.zeros_like(delta), None
            return
        self.leaves, self.optimizer_state = layout.placed_as_before(after), state
        if controlled and self.control is not None:
            self.control = self.control + delta[layout.size :]
        if compress is not None:
            self.update = delta
            return
        delta *= delta.dtype.type(self.weight)  # in place: it may be all that memory has room for
        self.delta = delta

    def compressed(self, number: int, public: Any) -> None:
        """Keeps for `words` what this party adds of its update in one addition; nothing of a bad one."""
        layout, compress = self.plan.layout, self.plan.compress
        assert compress is not None
        update = np.zeros(layout.size, layout.dtype) if self.update is None else self.update
        message = compress.message(layout, number, public, update)
        self.delta = message * message.dtype.type(self.weight)

    def settle(self, public: Any) -> None:
        """Keep what is left of the update, once the mean is known. Nothing becomes of a bad one."""
        assert self.plan.compress is not None
        if self.update is not None:
            self.waiting = self.plan.compress.left(self.plan.layout, public, self.update)
        self.update = None

    def words(self, start: int, stop: int) -> np.ndarray:
        """Units of the delta at these positions: int32[stop - start]. At its end the delta is forgotten."""
        assert self.delta is not None
        out = quantised(self.delta[start:stop], self.plan.bits, self.plan.room)
        if stop == len(self.delta):
            self.delta = None
        return out

    def reals(self) -> np.ndarray:
        """The delta as it is, unweighted: for rules that weigh by themselves."""
        delta, self.delta = self.delta, None
        assert delta is not None
        return np.asarray(delta / delta.dtype.type(self.weight), np.float32)

    def head(self, metrics: Sequence[float] | None, count: int) -> np.ndarray:
        """Exact numbers that are added with the delta: the weight, what is wrong, metrics times rows and rows."""
        good = not any(self.flags.values())
        weight = round(self.weight * (1 << METRIC_BITS)) if good else 0
        rows = self.eval_data.a_round if metrics is not None else 0
        scaled = [_unit(m, rows) for m in metrics or [0.0] * count]
        bad = sum(s is None for s in scaled)
        values = [weight, self.flags.get(NAN, 0), self.flags.get(RANGE, 0), bad, rows, *(s or 0 for s in scaled)]
        return digits(values)

    # evaluation

    def evaluate(self, vector: np.ndarray) -> dict[str, float]:
        """The mean of each metric over the party's rows, with its own personal layers."""
        layout, function = self.plan.layout, self.plan.evaluate
        assert function is not None
        model = layout.model(layout.placed(vector, self.leaves))
        sums: dict[str, float] = {}
        rows = 0
        for batch, count in self.eval_data.chunks():
            for name, value in _named(function(model, batch)).items():
                sums[name] = sums.get(name, 0.0) + value * count
            rows += count
        return {name: value / rows for name, value in sorted(sums.items())}

    def model(self, vector: np.ndarray) -> Any:
        return self.plan.layout.model(self.plan.layout.placed(vector, self.leaves))

    # checkpoints

    def state(self) -> dict[str, Any]:
        """What is to be kept of this party: arrays by name."""
        out = {f"personal{i}": np.asarray(self.leaves[i]) for i in self.plan.layout.personal}
        if self.control is not None:
            out["control"] = self.control
        if self.waiting is not None:
            out["waiting"] = self.waiting
        if self.plan.keep_optimizer and self.optimizer_state is not None:
            leaves = jax.tree.leaves(self.optimizer_state)
            out |= {f"optimizer{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
        out["steps"] = np.asarray(self.steps)
        out["key"] = np.asarray(jax.random.key_data(self.key))
        return out

    def restore(self, kept: dict[str, Any]) -> None:
        for i in self.plan.layout.personal:
            self.leaves[i] = kept[f"personal{i}"]
        if self.control is not None:
            self.control = kept["control"]
        self.waiting = kept.get("waiting")
        if self.plan.keep_optimizer and "optimizer0" in kept:
            start = [self.leaves[i] for i in self.plan.layout.trained]
            like, tree = jax.tree.flatten(self.plan.optimizer.init(holed(self.plan.layout, start)))
            self.optimizer_state = jax.tree.unflatten(tree, [kept[f"optimizer{i}"] for i in range(len(like))])
        self.steps = int(kept["steps"])
        self.key = jax.random.wrap_key_data(kept["key"])


def worker(plan: Plan, party: str, data: Any, eval_data: Any) -> Worker:
    """A party's worker; DataError for data that nothing can be trained on."""
    at = plan.parties.index(party)
    rng = np.random.default_rng(None if plan.seed is None else [plan.seed, at])
    found = source(data, plan.batch_size, plan.local_steps, rng)
    other = found if eval_data is None else source(eval_data, None, 1, rng)
    return Worker(plan, party, found, other)


def described(source_: Source) -> str:
    """The form of a batch, without how many rows there are."""
    arrays = source_.arrays if isinstance(source_, Rows) else source_.first
    found, _ = jax.tree_util.tree_flatten_with_path(arrays)
    shown = [f"{jax.tree_util.keystr(p)} {x.dtype}[{','.join(['rows', *map(str, x.shape[1:])])}]" for p, x in found]
    return ", ".join(shown)


# What may be wrong with an update


def _largest(delta: np.ndarray) -> float:
    return float(np.maximum(delta.max(), -delta.min())) if delta.size else 0.0


def _flags(largest: float, weight: float, plan: Plan) -> dict[str, int]:
    if not np.isfinite(largest):
        return {NAN: 1, RANGE: 0}
    return {NAN: 0, RANGE: int(largest * weight > limit(len(plan.parties), plan.bits))}


def _said(flags: dict[str, int]) -> str:
    return "it has NaN or infinite numbers" if flags[NAN] else "it is beyond what the words hold"


def _named(found: Any) -> dict[str, float]:
    named = found if isinstance(found, dict) else {"metric": found}
    for name, value in named.items():
        if np.size(value) != 1 or np.asarray(value).dtype.kind not in "biuf":
            raise InputError(f"`eval` must return numbers, means over the batch; `{name}` has shape {np.shape(value)}.")
    return {str(name): float(np.asarray(value).reshape(())) for name, value in named.items()}


def _unit(metric: float, rows: int) -> int | None:
    """A metric times rows in units of 2^-30; None if it is no number, or too large for a sum."""
    if not np.isfinite(metric) or abs(metric) * rows >= 1 << 60 - METRIC_BITS - 15:
        return None
    return round(metric * rows * (1 << METRIC_BITS))


def _random() -> np.random.Generator:
    return np.random.default_rng()
