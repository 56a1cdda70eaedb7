"""`spuvm psi run`."""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

import spuvm as spu
from spuvm.commands.options import USUAL_PARTIES, NamesType, timeout_option
from spuvm.commands.terminal import say
from spuvm.commands.together import run_together
from spuvm.data.files import FORMATS, table_writer
from spuvm.data.targets import check_target
from spuvm.devices import PYU, PYUObject
from spuvm.network import make_run_folder
from spuvm.psi.again import Known, is_done, signature
from spuvm.psi.bulk.crew import Crew
from spuvm.psi.bulk.exchange import Asked
from spuvm.psi.bulk.layout import BUCKET_ROWS, SCRATCH_BYTES
from spuvm.psi.bulk.run import intersect_files
from spuvm.psi.bulk.source import Source
from spuvm.psi.forms import BROUGHT
from spuvm.psi.guard import Guard
from spuvm.psi.keys import GUESSABLE
from spuvm.psi.kinds import KINDS
from spuvm.psi.learns import learned
from spuvm.psi.places import Places, here
from spuvm.psi.plan import MODES
from spuvm.psi.tables import DUPLICATES
from spuvm.runtime.errors import ConfigError, InputError
from spuvm.runtime.scratch import Scratch
from spuvm.streaming import finished
from spuvm.streaming.workers import ENGINES

TABLE = re.compile(rf"([A-Za-z0-9][\w.-]*)=(.+?(?:{'|'.join(map(re.escape, FORMATS))}))(?::(.+))?", re.IGNORECASE)
COMPUTING = 3
PATIENCE = 300.0  # seconds: sorting a bucket of the largest table takes a while
INTERSECT = "intersect"
OF_TABLES = ("key", "how", "mode", "duplicates", "scratch", "timeout", "bucket_rows", "least_rows", "most_runs")
PASSED_ON = (*OF_TABLES, "workers", "engine")  # by `--network`, to each party's own command


@click.group()
def psi() -> None:
    """Find the rows that several parties' tables have in common, without showing the others.

    \b
      spuvm psi run alice=a.parquet:id bob=b.csv:id --output alice=both.parquet --network
    """  # fmt: skip


@psi.command()
@click.argument("tables", metavar="[NAME=FILE[:KEY,...]]...", nargs=-1)
@click.option(
    "--output", "outputs", multiple=True, metavar="[PARTY=]FILE", help="Where a party that may see rows writes them."
)
@click.option("--key", metavar="COLUMN,...", help="The key columns, where a table does not name its own.")
@click.option(
    "--type", "types", multiple=True, metavar="COLUMN=TYPE", help="What a key column is: text, int, date, decimal, ..."
)
@click.option(
    "--how",
    type=click.Choice((INTERSECT, *KINDS)),
    default=INTERSECT,
    show_default=True,
    help="A party's own rows that all have, or joined rows.",
)
@click.option("--mode", type=click.Choice(MODES), help="Who finds what matches.  [default: by parties and keys]")
@click.option(
    "--duplicates", type=click.Choice(DUPLICATES), default="refuse", show_default=True, help="Keys in several rows."
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where an interrupted run is kept.  [default: OUTPUT.run]",
)
@click.option("--scratch", metavar="GB", type=click.FloatRange(0.001), help="Disk for one owner's tags.  [default: 12]")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes of each party.")
@click.option("--engine", type=click.Choice(ENGINES), default="local", show_default=True, help="Where the workers run.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="The cluster file, to be one party.")
@click.option("--as", "me", metavar="PARTY", help="Who this process is.")
@click.option("--network", is_flag=True, help="Run each party as a process of its own, over TLS.")
@timeout_option(otherwise="as in --config, or 300")
@click.option("--force", is_flag=True, help="Replace output files.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--least-rows", type=click.IntRange(1), help="Refuse to match with a smaller table.")
@click.option("--most-runs", type=click.IntRange(1), help="Refuse to match oftener with the same parties, in 30 days.")
@click.option("--ledger", type=click.Path(dir_okay=False), help="Where runs are written down, for `--most-runs`.")
@click.option("--receivers", type=NamesType(), help="Go on only if these alone get rows.")
@click.option("--bucket-rows", type=click.IntRange(1), default=BUCKET_ROWS, hidden=True)
@click.option("--progress", is_flag=True, help="Progress even where stderr is no terminal.")
def run(tables: tuple[str, ...], outputs: tuple[str, ...], **options: Any) -> None:
    """Match tables by key. Before anything is computed, it says who will learn what.

    \b
    Each party by itself; one that brings no table helps:
      spuvm psi run --config cluster.toml --as alice ids=a.parquet:id --output matched.parquet
      spuvm psi run --config cluster.toml --as bob ids=b.csv:id
      spuvm psi run --config cluster.toml --as carol
    All on one machine, simulated or as processes:
      spuvm psi run alice=a.parquet:id bob=b.csv:id --output alice=matched.parquet [--network]

    Started again after it was killed, at any party, it goes on with what is not finished.
    """  # fmt: skip
    if (options["config_file"] is None) != (options["me"] is None):
        raise click.UsageError("`--config` and `--as` belong together.")
    if options["me"] is not None:
        if options["network"]:
            raise click.UsageError("`--network` runs all parties: leave out `--as` and `--config`.")
        return _be(tables, outputs, options)
    named = [_table(t, options["key"]) for t in tables]
    if len(named) < 2 or len({n for n, *_ in named}) < len(named):
        raise InputError("give two parties' tables or more, one for each: alice=a.parquet:id bob=b.csv:id.")
    owners = [n for n, *_ in named]
    spare = [p for p in USUAL_PARTIES if p not in owners]
    parties = (*owners, *spare)[: max(COMPUTING, len(owners))]
    to = dict(_output(o, None) for o in outputs)
    unknown = [p for p in to if p not in parties]
    if unknown:
        raise InputError(f"`--output` names {unknown[0]}: the parties are {', '.join(parties)}.")
    if options["network"]:
        return _processes(dict(zip(owners, tables)), to, parties, options)
    spu.init(parties=parties, address="local")
    try:
        _run(here(), {n: (path, key) for n, path, key in named}, to, options)
    finally:
        spu.shutdown()


# What is asked ----------------------------------------------------------------------------------------------


def _table(text: str, key: str | None) -> tuple[str, str, tuple[str, ...]]:
    match = TABLE.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text!r} is not like 'ids=data.parquet:id': a name, a file, and its key columns.")
    columns = match[3] or key
    if not columns:
        raise InputError(f"{text!r} names no key columns: add them, as in '{match[2]}:id', or give `--key`.")
    return match[1], match[2], tuple(c.strip() for c in columns.split(","))


def _output(text: str, me: str | None) -> tuple[str, str]:
    party, equals, path = text.partition("=")
    if not equals:
        if me is None:
            raise InputError(f"`--output` is {text!r}: say whose it is, as in alice={text}.")
        return me, text
    return party, path


def _types(options: Mapping[str, Any]) -> dict[str, str]:
    out = {}
    for text in options["types"]:
        name, equals, kind = text.partition("=")
        if not equals:
            raise InputError(f"`--type` is {text!r}: write it like 'id=text'.")
        out[name] = kind
    return out


# Parties ----------------------------------------------------------------------------------------------------


def _be(tables: Sequence[str], outputs: Sequence[str], options: Mapping[str, Any]) -> None:
    me = options["me"]
    if len(tables) > 1 or len(outputs) > 1:
        raise InputError(f"{me} brings one table and writes one file at most, got {len(tables)} and {len(outputs)}.")
    mine = {str(me): _table(tables[0], options["key"])[1:]} if tables else {}
    to = dict(_output(o, me) for o in outputs)
    if any(p != me for p in to):
        raise InputError(f"`--output` of another party: {me} writes its own alone.")
    for path in to.values():
        if finished.made(Path(path)) is None:  # what a run has made is looked at with the others
            check_target(path, options["force"])
    spu.init(party=me, config=options["config_file"], timeout=options["timeout"])
    try:
        _run(here(), mine, to, options)
    finally:
        spu.shutdown()


def _processes(
    tables: Mapping[str, str], to: Mapping[str, str], parties: Sequence[str], options: Mapping[str, Any]
) -> None:
    with Scratch() as folder:
        config = spu.Config(parties=tuple(parties[:COMPUTING]), others=tuple(parties[COMPUTING:]))
        cluster = make_run_folder(folder, config, timeout=options["timeout"] or PATIENCE)
        commands = {p: _command(p, tables.get(p), to.get(p), cluster, p == parties[0], options) for p in parties}
        run_together(commands, _relay)


def _command(
    party: str, table: str | None, output: str | None, cluster: Path, speaks: bool, options: Mapping[str, Any]
) -> list[str]:
    line = [sys.executable, "-m", "spuvm", "psi", "run", "--config", str(cluster), "--as", party]
    line += [table] if table else []
    line += ["--output", output] if output else []
    for name in PASSED_ON:
        line += [f"--{name.replace('_', '-')}", str(options[name])] if options[name] is not None else []
    line += ["--folder", str(options["folder"] / party)] if options["folder"] else []
    for text in options["types"]:
        line += ["--type", text]
    line += ["--ledger", f"{options['ledger']}.{party}"] if options["ledger"] and table else []
    line += ["--force"] if options["force"] else []
    return [*line, *(["--progress"] if speaks and not options["quiet"] else ["--quiet"])]


def _relay(party: str, stream: str, line: str) -> None:
    click.echo(f"{party}: {line}", err=stream == "stderr")


# The run ----------------------------------------------------------------------------------------------------


def _run(
    places: Places, tables: Mapping[str, tuple[str, tuple[str, ...]]], to: Mapping[str, str], options: Mapping[str, Any]
) -> None:
    """Find out who brings what, say who learns what, and run."""
    types = _types(options)
    said = {p: places.tell(p, places.run(p, _brought, p, tables, to, types), BROUGHT) for p in places.parties}
    owners = tuple(p for p, s in said.items() if s["key"])
    receivers = tuple(p for p, s in said.items() if s["output"])
    known = _known(places, owners, receivers, tables, to, types, options)
    if receivers and owners and is_done(places, known, to, options["force"]):
        for party in receivers:
            if places.is_here(party):
                say(f"{to[party]} is there already, of this very run: nothing is left to do")
        return
    guard = Guard(options["least_rows"] or 0, options["most_runs"], ledger=options["ledger"])
    for party in owners:
        places.run(party, guard.admit, party, {p: said[p]["rows"] for p in owners})
    if len(owners) < 2:
        raise InputError(f"two parties or more must bring a table, got {', '.join(owners) or 'none'}.")
    if not receivers:
        raise InputError("nobody gives `--output`: who may see the rows?")
    if options["receivers"] is not None and set(receivers) != set(options["receivers"]):
        raise InputError(
            f"{', '.join(receivers)} would get rows, and `--receivers` says {', '.join(options['receivers'])}: "
            "the parties have not agreed."
        )
    mode, helper = _mode(options["mode"], owners, said, places)
    output = "owners" if options["how"] == INTERSECT else receivers[0] if len(receivers) == 1 else "all"
    if not options["quiet"]:
        for line in learned(owners, mode, helper, output, receivers):
            say(line)
    if options["how"] == INTERSECT and mode == "helper":
        assert helper is not None
        return _bulk(places, owners, receivers, helper, said, tables, to, types, options, known)
    if options["workers"] > 1:
        raise InputError(
            "`--workers` match large files by a helper: say `--how intersect --mode helper`, or leave it out."
        )
    for party in receivers:
        places.run(party, check_target, to.get(party), options["force"])
    files = {p: tables[p][0] if p in tables else None for p in owners}
    key = {p: tuple(said[p]["key"]) for p in owners}
    shared = {"types": types or None, "duplicates": options["duplicates"], "mode": mode, "helper": helper}
    if options["how"] != INTERSECT:
        found = spu.psi.join(files, key, options["how"], output, **shared)
        made = {p: PYUObject(PYU(p), found) for p in receivers} if output == "all" else {output: found}
    elif receivers == owners:
        made = spu.psi.intersect(files, key, "owners", **shared)
    else:
        made = {p: spu.psi.intersect(files, key, p, **shared) for p in receivers}
    whole = signature(places, known, places.tell(owners[0], places.run(owners[0], secrets.token_hex, 16), str))
    for party, rows in made.items():
        if places.is_here(party):
            _write(rows.value, to[party], options, whole)


def _known(
    places: Places,
    owners: tuple[str, ...],
    receivers: tuple[str, ...],
    tables: Mapping[str, tuple[str, tuple[str, ...]]],
    to: Mapping[str, str],
    types: Mapping[str, str],
    options: Mapping[str, Any],
) -> Known:
    """By what this very run is recognised when its outputs are there."""
    common = [owners, receivers, types, *(options[n] for n in ("how", "mode", "duplicates", "receivers"))]

    def brought(path: str, key: tuple[str, ...]) -> list[Any]:
        return [common, Source.open(path, key, {n: t for n, t in types.items() if n in key}).fingerprint(), key]

    given = {p: tables.get(p, ("", ())) for p in owners}
    return Known(
        owners, receivers, {p: places.run(p, brought, *given[p]) for p in owners}, _folders(places, owners, to, options)
    )


def _folders(
    places: Places, owners: Sequence[str], to: Mapping[str, str], options: Mapping[str, Any]
) -> dict[str, Path | None]:
    """Where each owner keeps an interrupted run; None: nowhere."""
    if options["folder"] is not None:
        return {p: options["folder"] if places.me else options["folder"] / p for p in owners}
    return {p: Path(f"{to[p]}.run") if p in to else None for p in owners}


def _brought(party: str, tables: Mapping[str, Any], to: Mapping[str, str], types: Mapping[str, str]) -> dict[str, Any]:
    """What a party says of its own command."""
    if party not in tables:
        return {"key": [], "kinds": [], "rows": 0, "output": party in to}
    path, key = tables[party]
    source = Source.open(path, key, {n: t for n, t in types.items() if n in key})
    return {"key": key, "kinds": source.kinds, "rows": source.file.rows, "output": party in to}


def _mode(asked: str | None, owners: Sequence[str], said: Mapping[str, Any], places: Places) -> tuple[str, str | None]:
    """As `planned` chooses it."""
    free = [p for p in places.parties if p not in owners]
    if asked is None:
        guessable = all(k in GUESSABLE for k in said[owners[0]]["kinds"])
        asked = "helper" if free and not guessable else "oblivious" if len(places.parties) >= COMPUTING else "ecdh"
    if asked == "helper" and not free:
        raise ConfigError("helper mode needs a party that brings no table: add one, or use `--mode oblivious`.")
    return asked, free[0] if asked == "helper" else None


def _bulk(
    places: Places,
    owners: tuple[str, ...],
    receivers: tuple[str, ...],
    helper: str,
    said: Mapping[str, Any],
    tables: Mapping[str, Any],
    to: Mapping[str, str],
    types: Mapping[str, str],
    options: Mapping[str, Any],
    known: Known,
) -> None:
    strange = [p for p in receivers if p not in owners]
    if strange:
        raise InputError(f"{strange[0]} brings no table, so none of its rows match: leave out its `--output`.")
    key = {p: tuple(said[p]["key"]) for p in owners}
    scratch = SCRATCH_BYTES if options["scratch"] is None else int(options["scratch"] * 1e9)
    declared = {p: {n: t for n, t in types.items() if n in key[p]} for p in owners}
    asked = Asked(owners, helper, key, declared, receivers, options["duplicates"], scratch, options["bucket_rows"])
    show = False if options["quiet"] else True if options["progress"] else None
    tell = (lambda text: None) if options["quiet"] else say
    crew = Crew(options["workers"], options["engine"], options["folder"])
    paths = {p: t[0] for p, t in tables.items()}
    written = intersect_files(places, asked, paths, to, known.folders, options["force"], show, tell, known, crew)
    for party, count in written.items():
        if places.is_here(party):
            say(f"wrote {to[party]} ({count.value:,} rows)")


def _write(rows: Any, path: str, options: Mapping[str, Any], whole: Callable[[Path], None]) -> None:
    with table_writer(path, rows.schema, options["force"], whole) as writer:
        writer.write(rows)
    say(f"wrote {path} ({rows.num_rows:,} rows)")
