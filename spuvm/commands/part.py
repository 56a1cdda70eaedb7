"""What `spuvm party` and `spuvm dealer` have in common: taking part in one run of a program."""

from __future__ import annotations

import json
import string
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from spuvm.commands.results import Ran, differences, run_table
from spuvm.commands.terminal import console, say
from spuvm.compiler.compile import Program, load
from spuvm.compiler.cost import Cost
from spuvm.data.targets import replacing
from spuvm.objects import SPUObject
from spuvm.profiling import Profile
from spuvm.runtime.errors import ConfigError, InputError
from spuvm.runtime.link.link import Link
from spuvm.runtime.link.parties import Cluster
from spuvm.runtime.link.tls.connect import connect, decline
from spuvm.runtime.machine.program import Round, Task
from spuvm.runtime.machine.session import Session, check_stored
from spuvm.runtime.protocols.registered import protocol_of, rank_names
from spuvm.vm import VM

SHORTEST = 16  # digits of a hash that somebody expects: 64 bits


@dataclass
class Part:
    """One process's part in a program; made by `taking_part`."""

    program: Program
    cluster: Cluster
    me: str
    profile: Profile | None = None  # that listens, if somebody asked
    stored: Path | None = None  # where randomness made ahead is
    cost: Cost = field(init=False)  # as predicted; what is stored is known when it has run

    def __post_init__(self) -> None:
        self.cost = self.program.cost

    @property
    def rank(self) -> int:
        return self.cluster.rank(self.me)

    @property
    def rounds(self) -> int:
        """As predicted."""
        return int(self.program.cost.party_rounds[self.rank])

    def keep(self, stored: Path | None) -> None:
        """Take randomness made ahead from a folder. ConfigError if the program's protocol makes none."""
        check_stored(self.program.config, stored)
        self.stored = stored

    def prepare(self) -> None:
        """Compile, so that nobody waits for that in mid-run."""
        self.program.party(self.rank).prepare()

    def run(
        self,
        values: Sequence[np.ndarray | None],
        timeout: float | None,
        quiet: bool,
        keep: Callable[[list[SPUObject]], None] = lambda _: None,
    ) -> Ran:
        """Connect with the others, agree on everything, run, and agree that all of them came to the end.

        `keep` is called before that with the results: nobody is done before everybody's are safe.
        """
        protocol = protocol_of(self.program.config)
        if "UNSAFE" in protocol.security:
            say(f"protocol {protocol.name}: {protocol.security}")
        if not quiet:
            others = ", ".join(n for n in self.cluster.names if n != self.me)
            say(f"program {self.program.hash[:16]}: waiting for {others}")
        with connect(self.cluster, self.me, timeout) as link:
            if not quiet:
                say(f"connected: {self.rounds:,} rounds")
            seconds = self._run(link, values, quiet, keep)
            sent, received = (sum(c.values()) for c in (link.counters.bytes_sent, link.counters.bytes_received))
            return Ran(self.me, link.counters.rounds, sent, received, seconds)

    def make_ahead(self, runs: int, timeout: float | None) -> str:
        """Make randomness for so many runs, and store it; says what that was."""
        with connect(self.cluster, self.me, timeout) as link:
            vm = VM(Session(self.program.config, link.rank, link, stored=self.stored))
            start = time.perf_counter()
            made = vm.prepare(self.program, runs)
            link.agree("end of what is made ahead", b"")
            seconds = time.perf_counter() - start
        sent = ", ".join(f"{n:,} by {p}" for p, n in zip(self.program.config.parties, made.bytes_sent))
        return f"randomness for {runs} runs: {made.rounds:,} rounds, {seconds:.1f} s; bytes sent: {sent}"

    def _run(
        self, link: Link, values: Sequence[np.ndarray | None], quiet: bool, keep: Callable[[list[SPUObject]], None]
    ) -> float:
        with self._progress(quiet) as listener:
            vm = VM(Session(self.program.config, link.rank, link, listener=listener, stored=self.stored))
            if self.profile is not None:
                self.profile.begin(lambda: link.waited)
            start = time.perf_counter()
            objects = vm.run(self.program, values)
            for x in objects:
                x.block_until_ready()
            seconds = time.perf_counter() - start
            if self.stored is not None:
                self.cost = self.program.cost.after(*vm.session.within)
            keep(objects)
            link.agree("end of the run", b"")
            return seconds

    @contextmanager
    def _progress(self, quiet: bool) -> Iterator[_Rounds | Profile | None]:
        err = console(stderr=True)
        if self.profile is not None:
            yield self.profile
            return
        if quiet or not err.is_terminal:
            yield None
            return
        columns = (
            TextColumn("{task.description} {task.completed:,.0f} of {task.total:,.0f}"),
            BarColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=err, transient=True) as progress:
            yield _Rounds(progress, self.rounds)

    def show(self, ran: Ran) -> None:
        """Rounds, bytes and seconds, beside what was predicted."""
        console(stderr=True).print(run_table(self.cost, [ran]))
        note = differences(self.cost, [ran])
        if note:
            say(note)

    def report(self, ran: Ran, path: Path | None) -> None:
        """The same as JSON."""
        if path is None:
            return
        cost = self.cost
        rank = rank_names(self.program.config).index(ran.party)
        predicted = {"rounds": int(cost.party_rounds[rank]), "bytes_sent": int(cost.bytes_sent[rank])}
        body = {"program": self.program.hash, "ran": asdict(ran), "predicted": {**predicted, "exact": cost.exact}}
        with replacing(path, force=True) as temporary:
            temporary.write_text(json.dumps(body, indent=2) + "\n")


@contextmanager
def taking_part(
    target: str, config_file: Path, cluster: Cluster, me: str, expected: str | None = None
) -> Iterator[Part]:
    """Load a compiled program for the cluster of a file; its hash must begin as `expected`.

    If that or the block fails, the peers learn that `me` does not come, and not what its files hold.
    """
    cluster.rank(me)
    try:
        program = load(target)
        _check_hash(program, target, expected)
        _check_config(program, cluster, config_file)
        yield Part(program, cluster, me)
    except BaseException:
        decline(cluster, me, "its program, configuration or files cannot be used")
        raise


def _check_hash(program: Program, target: str, expected: str | None) -> None:
    if expected is None:
        return
    if len(expected) < SHORTEST or not all(c in string.hexdigits for c in expected):
        raise InputError(f"`--expect-hash` must be {SHORTEST} to 64 hexadecimal digits, got {expected!r}.")
    if not program.hash.startswith(expected.lower()):
        raise InputError(
            f"{target} has the hash {program.hash}, `--expect-hash` says {expected}: it is not the program that you "
            "reviewed."
        )


def _check_config(program: Program, cluster: Cluster, path: Path) -> None:
    ours, theirs = asdict(cluster.config), asdict(program.config)
    for key, name in (
        ("parties", "parties"), ("others", "other parties"), ("protocol", "protocol"), ("ring_bits", "ring"),
        ("fxp_fraction_bits", "fxp_fraction_bits"), ("truncation", "truncation"),
    ):  # fmt: skip
        if ours[key] != theirs[key]:
            raise ConfigError(
                f"the program was compiled with {name} = {_plain(theirs[key])}, {path} has {_plain(ours[key])}: "
                f"correct the file, or compile again."
            )


def _plain(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


class _Rounds:
    """Moves a progress bar on with every exchange."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("round", total=total)

    def did_run(self, task: Task) -> None: ...

    def did_exchange(self, round_: Round) -> None:
        self._progress.advance(self._task)
