"""One round: local steps at those who attend, one secure addition and one reveal, the server's step at every party."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import spuvm as spu
from spuvm.devices import PYU, SPU, PYUObject
from spuvm.fed.aggregates import Rule, total
from spuvm.fed.compressing import Compression
from spuvm.fed.plan import Plan
from spuvm.fed.private import PARTY, shares
from spuvm.fed.strategies import At
from spuvm.fed.words import METRIC_BITS, numbers, real
from spuvm.runtime.errors import InputError

BLOCK = 1 << 21  # parameters that are added at a time: 8 MiB of words a party
HEAD = 5  # numbers before the metrics: weight, NaN, range, bad metrics, rows
STOP, LEAVE_OUT = "stop", "leave out"


@dataclass(eq=False)
class State:
    """What all parties know: the same everywhere."""

    vector: np.ndarray
    server: dict[str, np.ndarray]
    round: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(eq=False)
class Rounds:
    """The parties, the machine that adds, and how."""

    plan: Plan
    workers: Mapping[str, PYUObject]
    adder: SPU
    rule: Rule | None
    ruler: SPU | None
    bad: str
    least: int  # good updates, without which nothing is added
    metrics: tuple[str, ...]
    rows: int | None = None

    def run(self, state: State, parties: Sequence[str]) -> None:
        """A round of these parties; the state is that after it."""
        vector, control = state.vector, state.server.get("control")
        if self.plan.private is not None:
            self.plan.private.spend(state.round, parties)
        measured = {p: self._measured(p, vector) for p in parties}
        for p in parties:
            PYU(p)(lambda w: w.train(vector, control))(self.workers[p])
        heads = {p: self._head(p, measured[p]) for p in parties}
        found = self._ahead(parties, heads)
        good = len(parties) - (found["nan"] + found["range"] if found else 0)
        if found and good < self.least:
            state.history.append(self._entry(found, parties) | {"skipped": 1.0})
        else:
            if self.rule is not None:
                found = self._ruled(state, parties, found)
            elif self.plan.compress is not None:
                found = self._compressed(self.plan.compress, state, parties, heads, found)
            else:
                found = self._added(state, parties, heads, found)
            state.history.append(self._entry(found, parties))
        state.round += 1

    def measure(self, state: State, parties: Sequence[str]) -> None:
        """The metrics of the model as it is, after the last round."""
        heads = {p: self._head(p, self._measured(p, state.vector), only=True) for p in parties}
        shown = spu.reveal(self.adder(total)(*({"head": heads[p]} for p in parties)))
        state.history.append(self._entry(self._found(shown["head"]), parties))

    # messages

    def _measured(self, party: str, vector: np.ndarray) -> PYUObject | None:
        if self.plan.evaluate is None:
            return None
        return PYU(party)(lambda w: w.evaluate(vector))(self.workers[party])

    def _head(self, party: str, measured: PYUObject | None, only: bool = False) -> PYUObject:
        names = self.metrics

        def head(worker: Any, values: Any) -> Any:
            if only:
                worker.flags = {}
            return worker.head(None if values is None else [values[n] for n in names], len(names))

        return PYU(party)(head)(self.workers[party], measured)

    def _ahead(self, parties: Sequence[str], heads: Mapping[str, PYUObject]) -> dict[str, float]:
        """The heads' sum, before anything else is shown, where it decides whether to go on; else nothing."""
        if self.rule is None and self.bad == STOP:
            return {}
        found = self._found(spu.reveal(self.adder(total)(*({"head": heads[p]} for p in parties)))["head"])
        self._check(found)
        return found

    def _added(
        self, state: State, parties: Sequence[str], heads: Mapping[str, PYUObject], found: dict[str, float]
    ) -> dict[str, float]:
        """The parameters' steps, block by block."""
        said = found
        for at, sums, said in self._blocks(len(state.vector) * self.plan.vectors, state, parties, heads, found):
            self._apply(state, at, sums, self._scale(said, parties))
        return said

    def _compressed(
        self,
        how: Compression,
        state: State,
        parties: Sequence[str],
        heads: Mapping[str, PYUObject],
        found: dict[str, float],
    ) -> dict[str, float]:
        """Additions of linear functions of the updates, and between them what all know by then."""
        layout, said = self.plan.layout, found
        public = _told(how, parties[0], how.opened, layout, state.server, state.round)
        for number in range(how.sends):
            for p in parties:
                PYU(p)(lambda w, n=number, known=public: w.compressed(n, known))(self.workers[p])
            mean = np.empty(how.size(layout, number, public), state.vector.dtype)
            for at, sums, now in self._blocks(len(mean), state, parties, heads, said):
                said = now
                mean[at] = sums * sums.dtype.type(self._scale(said, parties))
            if number < how.sends - 1:
                public = _told(how, parties[0], how.heard, layout, number, public, mean)
        if said["weight"]:
            self._step(state, *how.result(layout, state.server, public, mean))
            for p in parties:
                PYU(p)(lambda w, known=public: w.settle(known))(self.workers[p])
        return said

    def _blocks(
        self,
        size: int,
        state: State,
        parties: Sequence[str],
        heads: Mapping[str, PYUObject],
        found: dict[str, float],
    ) -> Iterator[tuple[slice, np.ndarray, dict[str, float]]]:
        """The sum of the parties' words, in blocks, and what the heads say.

        The first block brings the heads along if they are not known: they say by what to divide.
        """
        add = self.adder(total)
        for start in range(0, size, BLOCK):
            stop = min(start + BLOCK, size)
            words = {p: PYU(p)(lambda w, a=start, b=stop: w.words(a, b))(self.workers[p]) for p in parties}
            along = {} if found else {"head": heads}
            mine = [{name: x[p] for name, x in {**along, "body": words}.items()} for p in parties]
            shown = spu.reveal(add(*mine, *self._noise(stop - start)))
            if along:
                found = self._found(shown["head"])
                self._check(found)
            yield slice(start, stop), real(shown["body"], state.vector.dtype, self.plan.bits), found

    def _noise(self, count: int) -> list[dict[str, PYUObject]]:
        """What the computing parties add, in a private training."""
        private, size = self.plan.private, self.plan.layout.size
        return (
            [] if private is None else [{"body": x} for x in shares(private, self.adder, size, self.plan.bits, count)]
        )

    def _scale(self, found: Mapping[str, float], parties: Sequence[str]) -> float:
        """What the sum is multiplied with; of private ones what is known to all beforehand."""
        private = self.plan.private
        if private is None:
            return 1.0 / found["weight"] if found["weight"] else 0.0
        if private.unit == PARTY:
            return 1.0 / len(parties)
        assert self.rows is not None
        return 1.0 / (private.sampling * self.rows)

    def _apply(self, state: State, at: slice, sums: np.ndarray, scale: float) -> None:
        """Blocks may lie across the end of the first vector, the delta; the second is the control variates'."""
        size, of = len(state.vector), sums.dtype.type
        cut = max(0, min(size, at.stop) - at.start)
        if cut and scale:
            self._step(state, slice(at.start, at.start + cut), sums[:cut] * of(scale))
        if cut < len(sums):
            where = slice(max(at.start, size) - size, at.stop - size)
            state.server["control"][where] += sums[cut:] * of(1.0 / len(self.plan.parties))

    def _ruled(self, state: State, parties: Sequence[str], found: dict[str, float]) -> dict[str, float]:
        """A robust rule on secret updates; one that was left out counts as no change at all."""
        assert self.rule is not None and self.ruler is not None
        if len(parties) < self.rule.least:
            raise InputError(f"{self.rule.name} needs {self.rule.least} parties or more, {len(parties)} attend.")
        whole = {p: PYU(p)(lambda w: w.reals())(self.workers[p]) for p in parties}
        size = len(state.vector)
        block = BLOCK // 8 if self.rule.blocks else size
        for start in range(0, size, block):
            some = [PYU(p)(lambda x, a=start: x[a : a + block])(whole[p]) for p in parties]
            shown = np.asarray(spu.reveal(self.ruler(self.rule)(*some))).astype(state.vector.dtype)
            self._step(state, slice(start, min(start + block, size)), shown)
        return found

    def _step(self, state: State, at: At, delta: np.ndarray) -> None:
        state.vector[at] += self.plan.strategy.step(state.server, at, delta)

    # what is said beside the parameters

    def _found(self, sums: Any) -> dict[str, float]:
        weight, nan, beyond, bad, rows, *scaled = numbers(sums)
        unit = 2.0**-METRIC_BITS
        out: dict[str, float] = {"weight": weight * unit, "nan": nan, "range": beyond, "bad": bad}
        if self.metrics:
            out |= {n: (s * unit / rows if rows and not bad else math.nan) for n, s in zip(self.metrics, scaled)}
        return out

    def _check(self, found: Mapping[str, float]) -> None:
        """Raise if an update is bad and that is how it was chosen."""
        if self.bad != STOP or not (found["nan"] or found["range"]):
            return
        what = {"nan": "NaN or infinite numbers", "range": "numbers beyond what the words hold"}
        said = " and ".join(f"{found[k]:.0f} with {text}" for k, text in what.items() if found[k])
        raise InputError(
            f"of {len(self.plan.parties)} parties' updates there are {said}; whose is told to its owner alone, in its "
            "log. Take smaller steps, give fewer `fraction_bits`, or leave such updates out: bad='leave out'."
        )

    def _entry(self, found: Mapping[str, float], parties: Sequence[str]) -> dict[str, float]:
        entry = {"parties": float(len(parties)), "left_out": found["nan"] + found["range"]}
        return entry | {name: found[name] for name in self.metrics}


def _told(how: Compression, party: str, function: Callable[..., Any], *args: Any) -> Any:
    """What all know: computed by everybody, or by one who tells it, where processors may round differently."""
    return PYU(party)(function)(*args).reveal() if how.told else function(*args)
