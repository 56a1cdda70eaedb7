"""Several workers for each party: worker j of every party forms a session of its own over some of the blocks.

A worker is a process of this machine, or a task on the party's Ray cluster. It gets its job from
the run's folder, and leaves there what its blocks gave, so that it does not matter who computed
a block. Workers find each other through the parties' main session: each writes down where it
listens, the parties tell each other, and each worker reads where its peers are.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from spuvm.network import PartiesFailed, run_parties
from spuvm.runtime.errors import ConfigError, InputError, LinkError, SpuError
from spuvm.runtime.link.link import Link
from spuvm.streaming.exchange import gather
from spuvm.streaming.job import Progress, Runner, describe
from spuvm.streaming.sealed import sealed, write_whole
from spuvm.streaming.worker import work

START_SECONDS = 120.0  # for a worker to start and say where it listens
ANSWER_SECONDS = 10.0  # for a Ray cluster to answer
POLL = 0.05


@dataclass(frozen=True)
class Home:
    """How this process came to be its party: what a worker needs to be it, too."""

    party: str
    cluster: str  # the path of the cluster file
    timeout: float


@dataclass(frozen=True)
class Kind:
    """What a worker is: `python -m module FOLDER NUMBER` as a process, `work(folder, number)` as a task."""

    module: str
    work: Callable[[Path, int], None]


OF_STREAMS = Kind("spuvm.streaming", work)


def run_workers(
    runner: Runner, todo: Sequence[int], count: int, engine: str, home: Home | None, progress: Progress | None
) -> None:
    """Run blocks by `count` workers. Raises LinkError, with a worker's own words, if one fails."""
    jobs = [_job(runner, mine, home, engine) for mine in divided(todo, count)]
    run_jobs(OF_STREAMS, runner.folder.path, jobs, runner.link, engine, _Finished(runner, progress))


def divided(todo: Sequence[int], count: int) -> list[list[int]]:
    """What each of so many workers does, or of fewer if there is not so much."""
    count = min(count, len(todo))
    share, rest = divmod(len(todo), count)
    starts = [j * share + min(j, rest) for j in range(count + 1)]
    return [list(todo[a:b]) for a, b in pairwise(starts)]


def at_home(home: Home | None) -> dict[str, Any]:
    """What a job says of the party that its worker is."""
    return {} if home is None else {"party": home.party, "cluster": home.cluster, "timeout": home.timeout}


def run_jobs(
    kind: Kind,
    folder: Path,
    jobs: Sequence[Mapping[str, Any]],
    link: Link | None,
    engine: str,
    finished: Callable[[], None],
) -> None:
    """Run a worker for each job, all at once; those of all parties meet. `finished` is called now and then.

    Raises:
        LinkError, InputError: with a worker's own words, if one fails.
    """
    for left in folder.glob("worker-*.json"):
        left.unlink()
    for j, job in enumerate(jobs):
        write_whole(folder / f"worker-{j}.json", sealed(job))

    def introduce(_: Any = None) -> None:
        if link is not None:
            _introduce(folder, link, len(jobs))

    ENGINES[engine](kind, folder, len(jobs), introduce, finished)
    finished()
    for path in folder.glob("worker-*.json"):
        path.unlink()


def _job(runner: Runner, todo: Sequence[int], home: Home | None, engine: str) -> dict[str, Any]:
    return describe(runner.job) | {"todo": list(todo), "engine": engine} | at_home(home)


def _introduce(folder: Path, link: Link, count: int) -> None:
    """Wait until all workers of this party listen, and tell each where its peers do."""
    mine = [_awaited(folder / f"worker-{j}-at.json") for j in range(count)]
    said = [json.loads(x) for x in gather(link, json.dumps(mine).encode())]
    for j in range(count):
        peers = {name: said[rank][j] for rank, name in enumerate(link.parties)}
        write_whole(folder / f"worker-{j}-peers.json", json.dumps(peers).encode())


def _awaited(path: Path) -> Any:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if path.exists():
            return json.loads(path.read_text())
        time.sleep(POLL)
    raise LinkError(f"a worker did not start within {START_SECONDS:g} s: {path.name} is missing in {path.parent}.")


class _Finished:
    """Tells the progress of blocks that the workers' journals show."""

    def __init__(self, runner: Runner, progress: Progress | None) -> None:
        self._runner, self._progress = runner, progress
        self._seen = set(runner.folder.finished()) if progress is not None else set()

    def __call__(self) -> None:
        if self._progress is None:
            return
        for block in set(self._runner.folder.finished()) - self._seen:
            self._seen.add(block)
            self._progress(sum(self._runner.job.counts(block)))


Introduce = Callable[..., None]


def _local(kind: Kind, folder: Path, count: int, introduce: Introduce, finished: Callable[[], None]) -> None:
    """Processes of this machine."""
    commands = {f"worker {j}": [sys.executable, "-m", kind.module, str(folder), str(j)] for j in range(count)}

    def line(worker: str, stream: str, text: str) -> None:
        if stream == "stdout":
            finished()

    try:
        run_parties(commands, on_line=line, on_start=introduce)
    except PartiesFailed as failed:
        raise _failure(failed) from None


def _failure(failed: PartiesFailed) -> SpuError:
    outcome = next(o for o in failed.outcomes.values() if o.failed)
    words = outcome.stderr.strip().splitlines() or [str(outcome)]
    text = words[-1].removeprefix("error: ")
    kind: type[SpuError] = InputError if outcome.status == InputError.exit_status else LinkError
    return kind(f"{outcome.party}: {text}")


def _ray(kind: Kind, folder: Path, count: int, introduce: Introduce, finished: Callable[[], None]) -> None:
    """Tasks of a Ray cluster."""
    with ray_cluster(count) as ray:
        task = ray.remote(max_retries=0)(_work)
        pending = [task.remote(kind.work, str(folder.absolute()), j) for j in range(count)]
        try:
            introduce()
            while pending:
                done, pending = ray.wait(pending, num_returns=1, timeout=1.0)
                finished()
                for one in done:
                    _raise_words(ray_result(ray, one))
        finally:
            for one in pending:
                ray.cancel(one, force=True)


@contextmanager
def ray_cluster(count: int) -> Iterator[Any]:
    """Ray, with the cluster that this process is connected to, or that RAY_ADDRESS names, or a new local one.

    Raises:
        ConfigError: if there is none, or it has not so many processors.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("`engine` 'ray' needs a package that is missing: pip install 'spuvm[ray]'") from None
    started = not ray.is_initialized()
    if started:
        _check_answers(os.environ.get("RAY_ADDRESS", ""))
        try:
            ray.init(include_dashboard=False, log_to_driver=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"Ray cannot be used: {str(error).strip().partition(chr(10))[0]}") from None
    try:
        _check_room(ray, count)
        yield ray
    finally:
        if started:
            ray.shutdown()


def ray_result(ray: Any, one: Any) -> Any:
    """What a task gave; LinkError if Ray lost it."""
    try:
        return ray.get(one)
    except ray.exceptions.RayError as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise LinkError(f"a worker on Ray failed: {words}") from None


def _check_answers(address: str) -> None:
    """Refuse a cluster's address where nothing listens: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto", "local", or none
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"RAY_ADDRESS is {address}, where no Ray cluster answers ({error.strerror or error}): start one with `ray "
            "start --head`, or unset the variable to have a local one."
        ) from None


def _check_room(ray: Any, count: int) -> None:
    """Workers of one session wait for each other: all must run at the same time."""
    cores = int(ray.cluster_resources().get("CPU", 0))
    if cores < count:
        raise ConfigError(
            f"`workers` is {count}, but the Ray cluster has {cores} CPUs, and all run at once: use fewer."
        )


def _work(work: Callable[[Path, int], None], folder: str, number: int) -> tuple[int, str]:
    """A worker's whole life as a Ray task: exit status and last words."""
    try:
        work(Path(folder), number)
    except SpuError as error:
        return error.exit_status, str(error)
    return 0, ""


def _raise_words(outcome: tuple[int, str]) -> None:
    status, words = outcome
    if status:
        raise (InputError if status == InputError.exit_status else LinkError)(f"worker: {words}")


ENGINES: Mapping[str, Callable[..., None]] = {"local": _local, "ray": _ray}
