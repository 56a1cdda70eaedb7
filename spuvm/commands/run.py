"""`spuvm run`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from spuvm.checking import check_traced
from spuvm.commands import inputs as given
from spuvm.commands.options import Input, InputType, Output, OutputType, device_option, function_options, timeout_option
from spuvm.commands.programs import Options, is_saved, program_of
from spuvm.commands.results import (
    INEXACT,
    Ran,
    differences,
    match_outputs,
    predicted_table,
    profile_table,
    run_table,
    show,
    write_outputs,
)
from spuvm.commands.terminal import console, say
from spuvm.commands.together import run_together
from spuvm.compiler.compile import Program
from spuvm.compiler.cost import Cost
from spuvm.compiler.lower.missing import SUFFIX
from spuvm.compiler.seconds import Speed
from spuvm.data.tables import Table
from spuvm.missing import with_nan
from spuvm.network import dealer_command, make_run_folder, party_command
from spuvm.profiling import merged, read, rows
from spuvm.runtime.errors import InputError, SpuError, VisibilityError
from spuvm.runtime.machine.session import check_stored
from spuvm.runtime.protocols.registered import rank_names
from spuvm.runtime.scratch import Scratch
from spuvm.shaping import shaped
from spuvm.vm import simulator

PARTED = 4  # exit status


@click.command()
@click.argument("target", metavar="FILE.spux|FILE.py:FUNCTION")
@click.option(
    "--input",
    "inputs",
    type=InputType(),
    multiple=True,
    help="An argument's data: a .csv, .parquet or .npy file, with columns to use (`:age,bmi`) or to leave out "
    "(`:-id`), or a number. After `@`: its owner, `public`, or `secret`.",
)
@click.option(
    "--output",
    "outputs",
    type=OutputType(),
    multiple=True,
    help="A file for a result that is revealed. Its columns can be named as for an input.",
)
@function_options
@click.option(
    "--check",
    is_flag=True,
    help="Run nothing among parties: compute in the clear, beside float64, and say where the two part, and why. "
    f"Exit status {PARTED} if a result does.",
)
@click.option("--network", is_flag=True, help="Run each party as a process of its own, over TLS.")
@timeout_option(60.0)
@device_option
@click.option("--link", metavar="DELAY,WIDTH", help="With --network: over links like 25ms,100Mbit, shaped here.")
@click.option(
    "--profile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --network: print where the time went, and write a trace (.json) for ui.perfetto.dev.",
)
@click.option(
    "--stored",
    type=click.Path(file_okay=False, path_type=Path),
    help="With --network: two parties take randomness made ahead from this folder (protocol semi2k_ot).",
)
@click.option(
    "--prepare",
    type=click.IntRange(min=1),
    metavar="RUNS",
    help="With --stored: make it for so many runs, and run nothing.",
)
@click.option("--force", is_flag=True, help="Replace output files.")
@click.option("--quiet", is_flag=True, help="No progress and no table.")
def run(
    target: str,
    inputs: tuple[Input, ...],
    outputs: tuple[Output, ...],
    check: bool,
    network: bool,
    timeout: float,
    device: str | None,
    link: str | None,
    profile: Path | None,
    stored: Path | None,
    prepare: int | None,
    force: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Run a program on this machine: simulated, or with every party as a process.

    Simulated, one process computes all parties' shares; with `--network` each party is a process
    that gets its own inputs only, over TLS with certificates made for the run. Both exchange the same
    messages. Results that the program reveals are printed, or written with `--output`. With `--check` all inputs
    are read by this one process, which tells whether fixed point is precise and wide enough for them.

    \b
      spuvm run stats.py:mean --input x=a.csv:age@alice --input y=b.csv:age@bob --reveal all
      spuvm run train.spux --input x=a.parquet:-id --input y=c.parquet:label \\
                --output risk=risk.csv --network

    A function is compiled for what the files hold: whole numbers become int32, others float32, one
    named column a vector, several a matrix [rows, columns]. `--arg 'x=f32[569]@alice'` says otherwise.
    """  # fmt: skip
    named = given.by_name(inputs)
    program, tables = _compiled(target, named, Options(**options))
    if check:
        return _check(program, named, tables)
    if link is not None and not network:
        raise InputError("`--link` shapes the links of processes: give `--network`, too; `spuvm cost --link` predicts.")
    if profile is not None and not network:
        raise InputError("`--profile` shows processes: give `--network`, too; `spuvm cost` counts without running.")
    if stored is not None and not network:
        raise InputError("`--stored` is for processes: give `--network`, too; in a simulation nothing is made ahead.")
    if prepare is not None and (stored is None or outputs):
        raise InputError("`--prepare` takes `--stored FOLDER`, and no outputs: it runs nothing.")
    if prepare is not None and (profile is not None or device is not None):
        raise InputError("`--prepare` runs no program: `--profile` and `--device` say nothing of it.")
    check_stored(program.config, stored)
    wanted = match_outputs(program, outputs, force)
    speed = None if link is None else Speed.parse(link)
    if stored is not None and prepare is not None:
        return _prepared(program, stored, prepare, timeout, speed)
    networked = partial(_networked, speed=speed, profile=profile, device=device, stored=stored)
    runner = networked if network else _simulated
    start = time.perf_counter()
    values, ran, cost = runner(program, named, tables, timeout, quiet)
    seconds = time.perf_counter() - start
    lines = write_outputs(program, values, wanted, force)
    show(program, values, wanted)
    if quiet:
        return
    for line in lines:
        say(line)
    _report(cost, ran, seconds)


def _compiled(target: str, named: Mapping[str, Input], options: Options) -> tuple[Program, dict[str, Table]]:
    """The program, and the tables that were read to know what to compile for."""
    if is_saved(target):
        return program_of(target, options), {}
    unknown = set(options.missing) - named.keys()
    if unknown:
        raise InputError(f"`--missing`: there is no `--input {min(unknown)}=...`.")
    tables = {name: given.read(x, name in options.missing) for name, x in named.items()}
    described = {a.name for a in options.arguments}
    leaves = {
        n: given.leaf_of(named[n], t, options.x64, n in options.missing)
        for n, t in tables.items()
        if n not in described
    }
    _refuse_single_rows({n: tables[n] for n in leaves})
    try:
        return program_of(target, options, leaves), tables
    except SpuError as error:
        rows = {n: t.rows for n, t in tables.items() if t.rows is not None}
        if len(set(rows.values())) > 1:
            counts = ", ".join(f"`{n}` {r}" for n, r in rows.items())
            raise type(error)(f"{error} Note that the inputs differ in rows: {counts}.") from error
        raise


def _refuse_single_rows(tables: Mapping[str, Table]) -> None:
    """A column of one row beside longer ones would be repeated without a word: hardly what is meant."""
    rows = {n: t.rows for n, t in tables.items() if t.rows is not None}
    for name, table in tables.items():
        if table.shape == (1,) and max(rows.values()) > 1:
            counts = ", ".join(f"`{n}` {r}" for n, r in rows.items())
            raise InputError(
                f"the inputs differ in rows: {counts}. Give a single value as a number (`{name}=0.5`), or say that "
                f"one row is meant: `--arg '{name}=f32[1]'`."
            )


def _check(program: Program, named: Mapping[str, Input], tables: Mapping[str, Table]) -> None:
    if program.traced is None:
        raise InputError("`--check` needs the function: a compiled program is no longer what JAX can compute.")
    values = given.arrays(program, named, tables)
    owners = [p.type.visibility for p in program.module.body.params]
    report = check_traced(program.traced, values, owners, program.config)
    click.echo(str(report))
    if not report.ok:
        raise click.exceptions.Exit(PARTED)


Ended = tuple[dict[int, Any], list[Ran], Cost]


def _simulated(
    program: Program, named: Mapping[str, Input], tables: Mapping[str, Table], timeout: float, quiet: bool
) -> Ended:
    values = given.arrays(program, named, tables)
    objects = simulator(program.config).run(program, values)
    known = {i: x.known_value() for i, x in enumerate(objects) if not x.type.is_secret}
    return with_nan(program, known), [], program.cost


def _networked(
    program: Program,
    named: Mapping[str, Input],
    tables: Mapping[str, Table],
    timeout: float,
    quiet: bool,
    speed: Speed | None = None,
    profile: Path | None = None,
    device: str | None = None,
    stored: Path | None = None,
) -> Ended:
    """Each party is `spuvm party`; what it may see comes back as .npy files in the run's folder."""
    module, parties = program.module, rank_names(program.config)
    if len(parties) < 2:
        raise InputError("`--network` needs two parties or more: leave it out.")
    for name, value in zip(module.inputs, module.body.params):
        if value.type.is_secret:
            raise VisibilityError(given.unowned(name))
    given.check_names(program, named)  # the data are checked by the party that reads them
    with _folder(program, timeout, speed) as (folder, files):
        commands = {p: _party(p, program, named, folder, files[p], timeout, quiet) for p in parties}
        traces = {p: folder / f"{p}.trace.json" for p in program.config.members}
        for party in program.config.members:
            commands[party] += ["--device", device] if device is not None else []
            commands[party] += ["--stored", str(stored)] if stored is not None else []
        for party, trace in traces.items() if profile is not None else ():
            commands[party] += ["--profile", str(trace)]
        run_together(commands, _relay)
        if profile is not None:
            _profiled(program, {p: read(trace) for p, trace in traces.items()}, profile)
        values = {
            i: np.load(folder / f"{i}.npy") for i in range(len(module.outputs)) if (folder / f"{i}.npy").is_file()
        }
        told = [json.loads((folder / f"{p}.json").read_text()) for p in parties]
    ran = [Ran(**t["ran"]) for t in told]
    return values, ran, program.cost if stored is None else _after(program.cost, [t["predicted"] for t in told])


def _after(cost: Cost, predicted: Sequence[Mapping[str, int]]) -> Cost:
    """As the parties predict it of this run, of which they know what was made ahead."""
    rounds, sent = (np.array([p[name] for p in predicted]) for name in ("rounds", "bytes_sent"))
    return replace(cost, party_rounds=rounds, bytes_sent=sent)


@contextmanager
def _folder(program: Program, timeout: float, speed: Speed | None) -> Iterator[tuple[Path, Mapping[str, Path]]]:
    """A folder with the program, and the cluster files of its parties, while the block runs."""
    parties = rank_names(program.config)
    with Scratch() as folder:
        cluster = make_run_folder(folder, program.config, timeout=timeout)
        program.save(folder / "program.spux")
        with nullcontext(dict.fromkeys(parties, cluster)) if speed is None else shaped(cluster, speed) as files:
            yield folder, files


def _prepared(program: Program, stored: Path, runs: int, timeout: float, speed: Speed | None) -> None:
    """Both parties make randomness for later runs."""
    with _folder(program, timeout, speed) as (folder, files):
        more = ["--timeout", str(timeout), "--stored", str(stored), "--prepare", str(runs)]
        target = str(folder / "program.spux")
        commands = {
            p: party_command(target, "--config", str(files[p]), "--as", p, *more) for p in program.config.members
        }
        run_together(commands, _relay)


def _profiled(program: Program, traces: Mapping[str, list[dict[str, Any]]], path: Path) -> None:
    """One trace of all parties, and a table of each."""
    path.write_text(merged(list(traces.values())))
    for party, events in traces.items():
        console(stderr=True).print(profile_table(party, rows(events, program.cost, party)))
    say(f"wrote {path}: open it at ui.perfetto.dev")


def _party(
    party: str, program: Program, named: Mapping[str, Input], folder: Path, cluster: Path, timeout: float, quiet: bool
) -> list[str]:
    module, parties = program.module, rank_names(program.config)
    rank = parties.index(party)
    dealer = rank == len(program.config.members)
    arguments = [str(folder / "program.spux"), "--config", str(cluster)]
    arguments += ["--timeout", str(timeout), "--report", str(folder / f"{party}.json")]
    arguments += [] if dealer else ["--as", party, "--no-results"]
    for name, source in named.items():
        if not dealer and module.body.params[module.inputs.index(name)].type.visibility in (rank, "public"):
            arguments += ["--input", _text(source)]
    for i, (name, value) in enumerate(zip(module.outputs, module.body.results)):
        writer = 0 if value.type.is_public else value.type.visibility
        if writer == rank and not name.endswith(SUFFIX):
            arguments += ["--output", f"{name}={folder / f'{i}.npy'}"]
    if quiet:
        arguments.append("--quiet")
    if (click.get_current_context().obj or {}).get("debug"):
        arguments.append("--debug")
    return (dealer_command if dealer else party_command)(*arguments)


def _text(source: Input) -> str:
    """The input as `--input` takes it."""
    value = str(source.number).lower() if source.path is None else str(source.path)
    columns = f":{','.join(source.columns)}" if source.columns else ""
    return f"{source.name}={value}{columns}" + (f"@{source.who}" if source.who else "")


def _relay(party: str, stream: str, line: str) -> None:
    click.echo(f"{party}: {line}", err=True)


def _report(cost: Cost, ran: Sequence[Ran], seconds: float) -> None:
    err = console(stderr=True)
    if not ran:
        say(f"simulated in {seconds:.3f} s; over a network:")
        err.print(predicted_table(cost))
        if not cost.exact:
            say(INEXACT)
        return
    err.print(run_table(cost, ran))
    note = differences(cost, ran)
    if note:
        say(note)
