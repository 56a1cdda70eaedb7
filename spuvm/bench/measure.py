"""Measuring: each operation simulated and networked, and by the peer right after, on the same inputs."""

from __future__ import annotations

import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.bench import workers
from spuvm.bench.operations import OPERATIONS, Operation, Sizes
from spuvm.bench.workers import BenchmarkError, Workers
from spuvm.runtime.engine.device import VARIABLE
from spuvm.runtime.scratch import Scratch

SIMULATED, NETWORKED, ON_DEVICE = "simulated", "network", "device"
SPAN, MOST = 1.0, 100  # seconds that a system is timed for at least, by at most so many runs more
SEED = 20_000
BILLION = 1e9


@dataclass(frozen=True)
class Plan:
    """What to measure, `repeat` times at least. `patience`: seconds, of any answer; `peer`: a Python that has it.

    `device`: what the simulation of the mode "device" computes on, by XLA."""

    operations: Sequence[str]
    sizes: Sizes
    repeat: int
    modes: Sequence[str]
    patience: float
    peer: Path | None = None
    device: str | None = None


@dataclass
class Timing:
    """Of one system: seconds of each run, or why there are none."""

    seconds: list[float] = field(default_factory=list)
    max_error: float = math.nan
    failure: str | None = None

    @property
    def best(self) -> float:
        return min(self.seconds, default=math.nan)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else math.nan


@dataclass
class Result:
    """One operation in one mode. Bytes are what the party that sends most sends."""

    operation: str
    mode: str
    rows: int
    ours: Timing
    first: float = math.nan  # seconds of the first call, compiling included
    rounds: float = math.nan
    bytes_sent: float = math.nan
    peer: Timing | None = None

    @property
    def ratio(self) -> float:
        """How many times faster than the peer, best against best."""
        return self.peer.best / self.ours.best if self.peer is not None else math.nan

    @property
    def billion(self) -> float:
        """Seconds for a billion rows: the median, scaled by n, or by n log n for what sorts."""
        if OPERATIONS[self.operation].sized_by == "one":
            return math.nan
        scale = BILLION / self.rows
        if OPERATIONS[self.operation].sorts and self.rows > 1:
            scale *= math.log(BILLION) / math.log(self.rows)
        return self.ours.median * scale


def expected(operation: Operation, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What JAX gives in the clear, computed with float64 throughout."""
    with jax.enable_x64(True):
        exact = [jnp.asarray(x, jnp.float64) for x in inputs]
        return [np.asarray(leaf) for leaf in jax.tree.leaves(operation.function(*exact))]


def max_error(results: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> float:
    """The largest absolute difference of any element; infinite if a result is not a number."""
    worst = 0.0
    for result, right in zip(results, exact, strict=True):
        difference = np.abs(np.asarray(result, np.float64) - np.asarray(right, np.float64))
        worst = max(worst, float(np.max(np.nan_to_num(difference, nan=np.inf), initial=0.0)))
    return worst


class Bench:
    """Keeps the workers of each system and mode between operations; a failed one is started anew."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.folder = folder
        self.say = say
        self._workers: dict[tuple[str, str], Workers] = {}

    def results(self) -> Iterator[Result]:
        for name in self.plan.operations:
            operation = OPERATIONS[name]
            rows = self.plan.sizes.of(operation.sized_by)
            inputs = [np.asarray(x) for x in operation.inputs(np.random.default_rng(SEED), rows)]
            path = self.folder / f"{name}.npz"
            np.savez(path, *inputs)
            exact = expected(operation, inputs)
            for mode in self.plan.modes:
                self.say(f"{name}, {mode}")
                yield self._result(name, mode, rows, path, exact)
            for leftover in self.folder.glob(f"{name}.npz*"):
                leftover.unlink()

    def close(self) -> None:
        for process in self._workers.values():
            process.close()
        self._workers = {}

    def _result(self, name: str, mode: str, rows: int, path: Path, exact: Sequence[np.ndarray]) -> Result:
        ours, replies = self._timing("spuvm", name, mode, path, exact)
        result = Result(name, mode, rows, ours)
        if replies:
            result.first = max(reply["first"] for reply in replies)
            result.rounds = replies[0]["rounds"]
            result.bytes_sent = max(sent for _, sent in replies[0]["predicted"])
            counted = [reply["counted"] for reply in replies]
            if mode == NETWORKED and replies[0]["exact"] and counted != replies[0]["predicted"]:
                ours.failure = f"(rounds, bytes) by party: {counted} counted, {replies[0]['predicted']} predicted"
        if self.plan.peer is not None and mode != ON_DEVICE:
            result.peer, _ = self._timing("peer", name, mode, path, exact)
        return result

    def _timing(
        self, system: str, name: str, mode: str, path: Path, exact: Sequence[np.ndarray]
    ) -> tuple[Timing, list[dict[str, Any]]]:
        output = self.folder / "output.npz"
        request = {"do": "operation", "op": name, "inputs": str(path), "output": str(output)}
        try:
            process = self._started(system, mode)
            replies = process.ask(request | {"repeat": self.plan.repeat})
            seconds = slowest(replies)
            if more := more_runs(seconds):
                seconds += slowest(process.ask(request | {"repeat": more}))
        except BenchmarkError as failure:
            self._workers.pop((system, mode), None)
            return Timing(failure=str(failure)), []
        with np.load(output) as file:
            error = max_error([file[key] for key in file.files], exact)
        output.unlink()
        return Timing(seconds, error), replies

    def _started(self, system: str, mode: str) -> Workers:
        key = (system, mode)
        if key not in self._workers:
            self._workers[key] = self._start(system, mode)
        return self._workers[key]

    def _start(self, system: str, mode: str) -> Workers:
        patience, peer = self.plan.patience, self.plan.peer
        if system == "spuvm":
            if mode == SIMULATED:
                return workers.simulated(patience)
            if mode == ON_DEVICE:
                return workers.simulated(patience, {VARIABLE: str(self.plan.device)})
            return workers.networked(patience, Path(tempfile.mkdtemp(dir=self.folder)))
        assert peer is not None
        return workers.peer_simulated(peer, patience) if mode == SIMULATED else workers.peer_networked(peer, patience)


def more_runs(seconds: Sequence[float]) -> int:
    """How many runs are missing, after these, of those that `SPAN` has room for."""
    return max(0, min(MOST, int(SPAN / min(seconds)) - len(seconds)))


def slowest(replies: Sequence[dict[str, Any]]) -> list[float]:
    """Seconds of each run, of the party that took longest."""
    return [max(parties) for parties in zip(*(reply["seconds"] for reply in replies))]


@contextmanager
def measuring(plan: Plan, say: Callable[[str], None]) -> Iterator[Iterator[Result]]:
    """The results as they come; at the end no process and no file is left."""
    with ExitStack() as stack:
        folder = stack.enter_context(Scratch())
        bench = Bench(plan, folder, say)
        stack.callback(bench.close)
        yield bench.results()


def first_calls(patience: float, operation: str = "logistic_regression") -> list[dict[str, Any]]:
    """Seconds in two new processes: one with an empty cache on disk, then one that finds it filled."""
    out = []
    with Scratch() as folder:
        path = folder / "inputs.npz"
        rows = Sizes().of(OPERATIONS[operation].sized_by)
        np.savez(path, *OPERATIONS[operation].inputs(np.random.default_rng(SEED), rows))
        request = {"do": "first call", "op": operation, "inputs": str(path)}
        for cache in ("cold", "warm"):
            began = time.perf_counter()
            with workers.simulated(patience, {"SPUVM_CACHE_DIR": f"{folder}/cache", "SPUVM_CACHE": "1"}) as process:
                start = time.perf_counter() - began
                (reply,) = process.ask(request)
            out.append({"cache": cache, "start": start, **reply})
    return out


def machine() -> dict[str, Any]:
    """Where and when it was measured."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(x, 2) for x in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("spuvm", "jax", "jaxlib", "numpy")},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
