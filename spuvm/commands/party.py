"""`spuvm party`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from spuvm.commands import inputs as given
from spuvm.commands.options import Input, InputType, Output, OutputType
from spuvm.commands.results import (
    Ran,
    console,
    differences,
    match_outputs,
    run_table,
    say,
    show,
    write_outputs,
)
from spuvm.compiler.compile import Program, load
from spuvm.objects import SPUObject
from spuvm.runtime.cluster import Cluster, load_cluster
from spuvm.runtime.errors import ConfigError, InputError
from spuvm.runtime.link import Link
from spuvm.runtime.program import Round, Task
from spuvm.runtime.protocols import rank_names
from spuvm.runtime.session import Session
from spuvm.runtime.tls_link import connect, decline
from spuvm.tables import replacing
from spuvm.vm import VM


@click.command()
@click.argument("target", metavar="FILE.spux")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), required=True, help="The cluster file (TOML)."
)
@click.option("--as", "me", metavar="PARTY", required=True, help="Who this process is.")
@click.option(
    "--input",
    "inputs",
    type=InputType(),
    multiple=True,
    help="Data of an argument that this party owns, or that is public.",
)
@click.option(
    "--output", "outputs", type=OutputType(), multiple=True, help="A file for a result that this party may see."
)
@click.option(
    "--timeout", metavar="SECONDS", type=click.FloatRange(0.1), help="Limit of any wait.  [default: the cluster file's]"
)
@click.option("--force", is_flag=True, help="Replace output files.")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write rounds, bytes and seconds to a JSON file."
)
@click.option("--no-results", is_flag=True, help="Do not print results.")
@click.option("--quiet", is_flag=True, help="No progress and no table.")
def party(
    target: str,
    config_file: Path,
    me: str,
    inputs: tuple[Input, ...],
    outputs: tuple[Output, ...],
    timeout: float | None,
    force: bool,
    report: Path | None,
    no_results: bool,
    quiet: bool,
) -> None:
    """Be one of the parties that run a program together.

    Start it once for each party, on its own machine, with the same program and the same cluster
    file, in any order: parties wait for each other. They compare the program's hash and the
    configuration before any data leaves. If one fails, all stop and say why.

    \b
      spuvm party --config cluster.toml --as alice train.spux --input x=a.csv:-id
      spuvm party --config cluster.toml --as carol train.spux --input y=c.csv:label --output risk=risk.csv

    The cluster file lists the parties' names, addresses and certificates: `spuvm certificates`
    makes one to try out.
    """  # fmt: skip
    cluster = load_cluster(config_file)
    rank = cluster.rank(me)
    try:
        program = load(target)
        _check_config(program, cluster, config_file)
        values = given.arrays(program, given.by_name(inputs), {}, me)
        wanted = match_outputs(program, outputs, force)
        _check_mine(program, wanted, me)
        program.party(rank).prepare()  # compiles, so that nobody waits for that in mid-run
        rounds = int(program.cost.party_rounds[rank])
    except BaseException as error:
        # Peers learn that this party does not come, not what its files hold.
        decline(cluster, me, f"{type(error).__name__}: its program, configuration or files cannot be used")
        raise
    if not quiet:
        say(f"program {program.hash[:16]}: waiting for {', '.join(n for n in cluster.names if n != me)}")
    with connect(cluster, me, timeout) as link:
        if not quiet:
            say(f"connected: {rounds:,} rounds")
        objects, seconds = _run(program, link, values, quiet)
        ran = Ran(
            me,
            link.counters.rounds,
            sum(link.counters.bytes_sent.values()),
            sum(link.counters.bytes_received.values()),
            seconds,
        )
    held = rank < len(program.config.members)  # a dealer sees no result
    known = {i: x.known_value() for i, x in enumerate(objects) if held and x.type.visibility in (rank, "public")}
    lines = write_outputs(program, known, wanted, force)
    _report(program, ran, report)
    if not no_results:
        show(program, known, wanted)
    if not quiet and not no_results:
        for line in lines:
            say(line)
        console(stderr=True).print(run_table(program.cost, [ran]))
        note = differences(program.cost, [ran])
        if note:
            say(note)


def _check_config(program: Program, cluster: Cluster, path: Path) -> None:
    ours, theirs = asdict(cluster.config), asdict(program.config)
    for key, name in (
        ("parties", "parties"), ("others", "other parties"), ("protocol", "protocol"), ("ring_bits", "ring"),
        ("fxp_fraction_bits", "fxp_fraction_bits"),
    ):  # fmt: skip
        if ours[key] != theirs[key]:
            raise ConfigError(
                f"the program was compiled with {name} = {_plain(theirs[key])}, {path} has {_plain(ours[key])}: "
                f"correct the file, or compile again."
            )


def _plain(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _check_mine(program: Program, wanted: dict[int, Output], me: str) -> None:
    for index in wanted:
        who = program.module.body.results[index].type.visibility
        if isinstance(who, int) and program.config.members[who] != me:
            owner = program.config.members[who]
            raise InputError(
                f"`--output`: result `{program.module.outputs[index]}` is revealed to {owner} alone: {owner} writes it."
            )


def _run(
    program: Program, link: Link, values: Sequence[np.ndarray | None], quiet: bool
) -> tuple[list[SPUObject], float]:
    """The parties agree on everything, run, and agree that all of them came to the end."""
    with _progress(program, link.rank, quiet) as listener:
        vm = VM(Session(program.config, link.rank, link, listener=listener))
        start = time.perf_counter()
        objects = vm.run(program, values)
        for x in objects:
            x.block_until_ready()
        link.agree("end of the run", b"")
        return objects, time.perf_counter() - start


class _Rounds:
    """Moves a progress bar on with every exchange."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("round", total=total)

    def did_run(self, task: Task) -> None: ...

    def did_exchange(self, round_: Round) -> None:
        self._progress.advance(self._task)


@contextmanager
def _progress(program: Program, rank: int, quiet: bool) -> Iterator[_Rounds | None]:
    err = console(stderr=True)
    if quiet or not err.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description} {task.completed:,.0f} of {task.total:,.0f}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        yield _Rounds(progress, int(program.cost.party_rounds[rank]))


def _report(program: Program, ran: Ran, path: Path | None) -> None:
    if path is None:
        return
    rank = rank_names(program.config).index(ran.party)
    predicted = {"rounds": int(program.cost.party_rounds[rank]), "bytes_sent": int(program.cost.bytes_sent[rank])}
    body = {"program": program.hash, "ran": asdict(ran), "predicted": {**predicted, "exact": program.cost.exact}}
    with replacing(path, force=True) as temporary:
        temporary.write_text(json.dumps(body, indent=2) + "\n")
