"""Searches over a flow's parameters: a grid, at random, by halving, or as Optuna proposes; results as table and plot.

Each trial is a run of the flow with other parameters, so that nodes that trials have in common run once; several run
beside each other (`trials.py`). Every party proposes the same: searches draw from a public seed, and from scores that
all know. With `reveal="best"` scores stay secret: they are compared on the machine, and all learn which trial is best
and what it scores, of the others nothing.
"""

from __future__ import annotations

import math
import random
import re
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm import context as contexts
from spuvm.flow.graph import Flow
from spuvm.flow.kinds import Report
from spuvm.flow.run import NodeFailed, Run, ready, run
from spuvm.flow.trial_workers import ENGINES, Outcome
from spuvm.flow.trials import Beside, beside
from spuvm.ml.machine import default_device
from spuvm.ml.report.curves import curve_svg
from spuvm.objects import SPUObject
from spuvm.runtime.errors import ConfigError, InputError, LinkError

INSTALL = "this search needs a package that is missing: pip install 'spuvm[tuning]'"
MOST_WORKERS = 1000
KEPT = 3  # of candidates, halving keeps one in so many


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `log`: their logarithms are alike likely; `whole`: integers."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ConfigError(f"a range goes up, and if logarithmic from above 0, got {self.low} to {self.high}.")

    def draw(self, r: random.Random) -> float | int:
        """One number."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        x = r.uniform(low, high)
        x = math.exp(x) if self.log else x
        return min(max(round(x), math.ceil(self.low)), math.floor(self.high)) if self.whole else x


Space = Mapping[str, Sequence[Any] | Range]


@dataclass
class Trial:
    """Parameters, and the score that they came to; None if it is secret, or the trial failed."""

    number: int
    parameters: Mapping[str, Any]
    score: float | None = None
    state: str = "done"
    seconds: float = 0.0
    why: str = ""


@dataclass
class Tuning:
    """What a search found.

    Attributes:
        best: the trial with the best score.
    """

    score: str
    maximize: bool
    trials: list[Trial] = field(default_factory=list)
    best: Trial | None = None

    def table(self) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Heads and rows: trials with their parameters and scores."""
        names = list(dict.fromkeys(k for t in self.trials for k in t.parameters))
        heads = ("trial", *names, self.score, "state", "seconds")
        rows = [
            (t.number, *(t.parameters.get(n) for n in names), t.score, t.state, round(t.seconds, 2))
            for t in self.trials
        ]
        return heads, rows

    def plot(self) -> str:
        """Scores by trial, and the best so far (SVG); empty if scores are secret."""
        known = [(t.number, t.score) for t in self.trials if t.score is not None]
        if len(known) < 2:
            return ""
        x, y = [float(n) for n, _ in known], [s for _, s in known]
        best = (np.maximum if self.maximize else np.minimum).accumulate(y)
        return curve_svg({"score": (x, y), "best so far": (x, list(map(float, best)))}, self.score)

    def better(self, a: float, b: float) -> bool:
        """Whether the score a is better than b."""
        return a > b if self.maximize else a < b


def tune(
    flow: Flow,
    space: Space,
    score: str,
    *,
    method: str = "grid",
    trials: int = 20,
    maximize: bool = True,
    reveal: str = "each",
    seed: int = 0,
    patience: int | None = None,
    seconds: float | None = None,
    resource: tuple[str, Sequence[Any]] | None = None,
    workers: int = 1,
    engine: str = "local",
    told: Callable[[Trial], None] | None = None,
    **options: Any,
) -> Tuning:
    """Search for parameters with the best score.

    Args:
        space: by NODE.PARAMETER, values to try, or a `Range`.
        score: an output of the flow: a number, or a report's number ("quality.auc"); with `reveal="best"` a secret
            score (component `secret_score`).
        method: "grid" (all combinations), "random", "halving", or "optuna" (its TPE sampler).
        trials: how many at most; a grid has all.
        reveal: "each" trial's score, or of the "best" alone.
        patience: end after so many trials without a better score.
        seconds: begin no second trial after so long; of a simulation only.
        workers: trials that run at once, each in a process of its own with its part of the cores. They are begun and
            judged in batches, so that the search is the same again whoever is faster.
        engine: where workers are: "local", processes of this machine; "ray", actors of each party's Ray cluster, whose
            machines all see the folder `state`.
        resource: of halving, a parameter and values that cost more and more: all candidates get the first, the best
            third of them the second, and so on.
        options: of `run`: state, tables, grants, ...; not `name` and `resume`, as each trial is a run of its own.

    Raises:
        ConfigError: for parameters, methods and scores that there are not.
        NodeFailed: if every trial fails, or a link breaks.
        LinkError: if a worker ends, or loses its peers.
    """
    found = Tuning(score, maximize)
    search = _Search(flow, space, score, found, reveal, seed, patience, seconds, told, options, workers)
    search.check(method, trials, resource, engine)
    ready(flow)
    with beside(workers, engine, options) if workers > 1 else nullcontext() as search.beside:
        if method == "halving":
            assert resource is not None
            return search.halve(trials, *resource)
        return search.run(PROPOSERS[method](search, trials))


@dataclass
class _Search:
    flow: Flow
    space: Space
    score: str
    found: Tuning
    reveal: str
    seed: int
    patience: int | None
    seconds: float | None
    told: Callable[[Trial], None] | None
    options: Mapping[str, Any]
    workers: int = 1
    beside: Beside | None = None
    secret: list[tuple[Trial, SPUObject]] = field(default_factory=list)

    def check(self, method: str, trials: int, resource: Any, engine: str) -> None:
        """That the search can be made."""
        if engine not in ENGINES:
            raise ConfigError(f"`engine` must be one of {', '.join(ENGINES)}, got {engine!r}.")
        if type(self.workers) is not int or not 1 <= self.workers <= MOST_WORKERS:
            raise ConfigError(f"`workers` must be a whole number from 1 to {MOST_WORKERS}, got {self.workers!r:.60}.")
        if taken := sorted({"name", "resume"} & self.options.keys()):
            raise ConfigError(f"`{taken[0]}` is of one run, and a search makes many: leave it out.")
        methods = (*PROPOSERS, "halving")
        if method not in methods:
            raise ConfigError(f"`method` must be one of {', '.join(methods)}, got {method!r}.")
        if self.reveal not in ("each", "best"):
            raise ConfigError(f"`reveal` must be 'each' or 'best', got {self.reveal!r}.")
        if self.reveal == "best" and (method in ("optuna", "halving") or self.patience is not None):
            raise ConfigError(
                "scores that stay secret guide no search: use `method` 'grid' or 'random', no `patience`."
            )
        if method == "halving" and (not resource or len(resource[1]) < 2):
            raise ConfigError("`method='halving'` needs `resource`: a parameter, and two or more values of it.")
        if not self.space or trials < 1:
            raise ConfigError("`space` and `trials` must not be empty.")
        context = contexts.current()
        if self.seconds is not None and context is not None and context.party is not None:
            raise ConfigError("`seconds` is of a simulation: over a network parties' clocks differ; limit `trials`.")
        for key, values in self.space.items():
            sample = values.draw(random.Random(0)) if isinstance(values, Range) else None
            for value in [sample] if sample is not None else list(values):  # type: ignore[arg-type]
                self.flow.set(**{key: value})
        name = self.score.partition(".")[0]
        if name not in self.flow.outputs:
            raise ConfigError(f"`score` names output `{name}`: the flow has {', '.join(self.flow.outputs)}.")

    def run(self, proposals: Iterator[list[Mapping[str, Any]]]) -> Tuning:
        """Try what is proposed until there is nothing more, or a limit is reached."""
        began, since = time.monotonic(), 0
        for batch in proposals:
            if self.found.trials and self.seconds is not None and time.monotonic() - began > self.seconds:
                break
            for trial in self.tried(batch):
                since = 0 if trial is self.found.best else since + 1
            if self.patience is not None and since >= self.patience:
                break
        return self.end()

    def tried(self, batch: Sequence[Mapping[str, Any]]) -> Iterator[Trial]:
        """Each trial of a batch, in order, when it has been judged; with workers all have run before the first is."""
        ran: Sequence[Outcome | None] = [None] * len(batch)
        if self.beside is not None and len(batch) > 1:
            ran = self.beside.run([self.flow.set(**parameters) for parameters in batch])
        for parameters, outcome in zip(batch, ran):
            yield self.trial(parameters, outcome)

    def trial(self, parameters: Mapping[str, Any], ran: Outcome | None = None) -> Trial:
        """One run of the flow; what a worker has run is taken from there."""
        trial, start = Trial(len(self.found.trials) + 1, dict(parameters)), time.perf_counter()
        self.found.trials.append(trial)
        if ran is not None and ran.state == "lost":
            raise LinkError(f"trial {trial.number}: {ran.why}")
        try:
            if ran is not None and ran.state == "failed":
                trial.state, trial.why = "failed", ran.why
            else:
                options = self.options if ran is None else {**self.options, "fresh": False}
                self._note(trial, _score(run(self.flow.set(**parameters), **options), self.score))
        except NodeFailed as error:
            if isinstance(error.cause, LinkError):
                raise
            trial.state, trial.why = "failed", str(error)
        trial.seconds = time.perf_counter() - start if ran is None else ran.seconds
        if self.told is not None:
            self.told(trial)
        return trial

    def _note(self, trial: Trial, value: Any) -> None:
        if self.reveal == "best":
            if not isinstance(value, SPUObject):
                raise ConfigError(f"`score` {self.score} is public: give a `secret_score`, or `reveal='each'`.")
            self.secret.append((trial, value))
            return
        trial.score = float(spu.reveal(value)) if isinstance(value, SPUObject) else float(value)
        best = self.found.best
        if best is None or best.score is None or self.found.better(trial.score, best.score):
            self.found.best = trial

    def end(self) -> Tuning:
        """The result; of secret scores the best one is shown."""
        if self.secret:
            sign = 1.0 if self.found.maximize else -1.0
            which, value = default_device()(_best)([x for _, x in self.secret], sign)
            self.found.best = self.secret[int(spu.reveal(which))][0]
            self.found.best.score = float(spu.reveal(value))
        if self.found.best is None:
            why = next((t.why for t in self.found.trials if t.why), "there was none")
            raise InputError(f"no trial of {len(self.found.trials)} came to its end: {why}")
        return self.found

    def halve(self, trials: int, parameter: str, values: Sequence[Any]) -> Tuning:
        """Successive halving (Jamieson and Talwalkar 2016): more for those that did best with less."""
        left = [p for batch in PROPOSERS["random"](self, trials) for p in batch]
        for i, value in enumerate(values):
            batches = in_batches([{**p, parameter: value} for p in left], self.workers)
            tried = [trial for batch in batches for trial in self.tried(batch)]
            ranked = sorted((t for t in tried if t.score is not None), key=lambda t: t.score or 0.0)
            ranked = ranked[::-1] if self.found.maximize else ranked
            if not ranked:
                break
            self.found.best = ranked[0]
            if i + 1 < len(values):
                left = [left[tried.index(t)] for t in ranked[: max(1, len(ranked) // KEPT)]]
        return self.end()


def _best(scores: Sequence[Any], sign: float) -> Any:
    every = jnp.stack([jnp.reshape(s, ()) for s in scores]) * sign
    which = jnp.argmax(every)
    return spu.reveal(which), spu.reveal(jnp.max(every) * sign)


def _score(made: Run, score: str) -> Any:
    output, _, name = score.partition(".")
    value = made[output]
    if isinstance(value, Report):
        if name not in value.numbers:
            known = ", ".join(f"{output}.{n}" for n in value.numbers)
            raise ConfigError(f"`score` {score!r} is no number of the report: there are {known or 'none'}.")
        return value.numbers[name]
    return value


# Proposers: batches of what may be tried at once ------------------------------------------------------------


def in_batches(proposals: Iterable[Mapping[str, Any]], size: int) -> Iterator[list[Mapping[str, Any]]]:
    """So many at a time."""
    left = iter(proposals)
    while batch := list(islice(left, size)):
        yield batch


def _grid(search: _Search, trials: int) -> Iterator[list[Mapping[str, Any]]]:
    ranges = [k for k, v in search.space.items() if isinstance(v, Range)]
    if ranges:
        raise ConfigError(f"a grid needs values, and `{ranges[0]}` has a range: list some, or search at random.")
    every = product(*search.space.values())  # type: ignore[arg-type]
    yield from in_batches((dict(zip(search.space, values)) for values in every), search.workers)


def _random(search: _Search, trials: int) -> Iterator[list[Mapping[str, Any]]]:
    yield from in_batches(_draws(search, trials), search.workers)


def _draws(search: _Search, trials: int) -> Iterator[Mapping[str, Any]]:
    r, seen = random.Random(search.seed), set()
    for _ in range(20 * trials):
        drawn = {k: v.draw(r) if isinstance(v, Range) else r.choice(list(v)) for k, v in search.space.items()}
        if repr(drawn) not in seen:
            seen.add(repr(drawn))
            yield drawn
        if len(seen) >= trials:
            return


def _optuna(search: _Search, trials: int) -> Iterator[list[Mapping[str, Any]]]:
    try:
        import optuna
    except ImportError:
        raise InputError(f"{INSTALL}.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction: Any = "maximize" if search.found.maximize else "minimize"
    sampler = optuna.samplers.TPESampler(seed=search.seed, constant_liar=search.workers > 1)
    study = optuna.create_study(direction=direction, sampler=sampler)
    for first in range(0, trials, search.workers):
        asked = [study.ask() for _ in range(min(search.workers, trials - first))]
        yield [{k: _suggested(one, k, v) for k, v in search.space.items()} for one in asked]
        for one, trial in zip(asked, search.found.trials[-len(asked) :]):
            failed = optuna.trial.TrialState.FAIL
            study.tell(one, trial.score, state=failed if trial.score is None else None)


def _suggested(asked: Any, name: str, values: Sequence[Any] | Range) -> Any:
    if not isinstance(values, Range):
        return asked.suggest_categorical(name, list(values))
    if values.whole:
        return asked.suggest_int(name, math.ceil(values.low), math.floor(values.high), log=values.log)
    return asked.suggest_float(name, values.low, values.high, log=values.log)


PROPOSERS: dict[str, Callable[[_Search, int], Iterator[list[Mapping[str, Any]]]]] = {
    "grid": _grid,
    "random": _random,
    "optuna": _optuna,
}


SPAN = re.compile(r"(?P<low>[-+.\de]+)\.\.(?P<high>[-+.\de]+)(?P<log> log)?")


def values_of(text: str) -> tuple[str, Sequence[Any] | Range]:
    """What the command line says to try: "boost.max_depth=1,2,3", "boost.learning_rate=0.01..0.3 log"."""
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise ConfigError(f"`--space` must be NODE.PARAMETER=VALUES, got {text!r:.60}.")
    span = SPAN.fullmatch(values)
    try:
        if span is None:
            return key, tomllib.loads(f"v = [{values}]")["v"]
        low, high = (tomllib.loads(f"v = {span[k]}")["v"] for k in ("low", "high"))
        return key, Range(low, high, span["log"] is not None, isinstance(low, int) and isinstance(high, int))
    except (tomllib.TOMLDecodeError, TypeError):
        raise ConfigError(f"`--space`: {values!r:.60} must be like 1,2,3 or 0.01..0.3, perhaps ` log`.") from None
