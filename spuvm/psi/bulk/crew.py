"""Several workers for each party of a large run: each has some of a pass's buckets matched, in a session of its own.

Tags are in files of the owners' folders then, and so are the workers' jobs; where workers are on other machines (Ray),
all of them see these folders, the helper's, too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spuvm.context import whereabouts
from spuvm.psi.bulk.exchange import Asked, Here
from spuvm.psi.bulk.worker import job, work
from spuvm.psi.places import Held, Places
from spuvm.runtime.errors import ConfigError, InputError
from spuvm.runtime.machine.session import abort_on_error
from spuvm.runtime.scratch import Scratch
from spuvm.streaming.workers import ENGINES, Home, Kind, at_home, divided, run_jobs

OF_BUCKETS = Kind("spuvm.psi.bulk", work)


@dataclass(frozen=True)
class Crew:
    """Of one party: how many workers (all have as many), where they run (see `ENGINES`), and, of a party without a
    table, the folder of their jobs; a temporary one of this machine if not given."""

    count: int = 1
    engine: str = "local"
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or self.engine not in ENGINES:
            raise InputError(
                f"`workers` must be 1 or more and `engine` one of {', '.join(ENGINES)}, got {self.count} and "
                f"{self.engine!r}."
            )


ALONE = Crew()


def by_workers(
    places: Places,
    asked: Asked,
    here: Mapping[str, Held],
    todo: Sequence[int],
    number: int,
    start: int,
    crew: Crew,
    advance: Callable[[int], None] | None,
) -> None:
    """As `exchange.matched`, by the crew."""
    mine = {p: h.value for p, h in here.items() if h.value is not None}
    home = _home(places)
    with _folder(mine, crew) as folder, abort_on_error(places.link):
        jobs = [
            {**job(places, asked, mine, number, start, some), "engine": crew.engine, **at_home(home)}
            for some in divided(todo, crew.count)
        ]
        run_jobs(OF_BUCKETS, folder, jobs, places.link, crew.engine, _Finished(mine, start, advance))
    places.agree("end of the pass", number)


def _home(places: Places) -> Home | None:
    """How to be this party in another process; None in a simulation."""
    if places.link is None:
        return None
    if (found := whereabouts()) is None:
        raise ConfigError("`workers` need a cluster file: `spuvm psi run --config`, or one.")
    party, cluster = found
    return Home(party, str(cluster), places.link.timeout)


@contextmanager
def _folder(mine: Mapping[str, Here], crew: Crew) -> Iterator[Path]:
    """Where this process's jobs are: in an owner's own folder, or in one of a party without a table."""
    if mine:
        yield next(iter(mine.values())).folder.path
        return
    if crew.folder is None:
        with Scratch() as path:
            yield path
        return
    crew.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix="spuvm-", dir=crew.folder) as name:
        yield Path(name)


class _Finished:
    """Tells the progress of buckets that are in the owners' folders."""

    def __init__(self, mine: Mapping[str, Here], start: int, advance: Callable[[int], None] | None) -> None:
        self._mine, self._start, self._advance = mine, start, advance
        self._seen = {p: h.folder.finished() for p, h in mine.items()} if advance is not None else {}

    def __call__(self) -> None:
        for party, seen in self._seen.items():
            here = self._mine[party]
            for bucket in here.folder.finished() - seen:
                seen.add(bucket)
                if self._advance is not None:
                    self._advance(here.counts[bucket - self._start])
