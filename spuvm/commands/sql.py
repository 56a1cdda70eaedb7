"""`spuvm sql`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

import spuvm as spu
from spuvm.commands.options import USUAL_PARTIES, NamesType, make_config, timeout_option
from spuvm.commands.terminal import console, say
from spuvm.commands.together import run_together
from spuvm.data.targets import check_target, saved_or_kept
from spuvm.network import make_run_folder
from spuvm.runtime.errors import InputError, SpuError
from spuvm.runtime.protocols.registered import rank_names
from spuvm.runtime.scratch import Scratch
from spuvm.sql import Database, connect

with suppress(ImportError):  # lines can be edited where the system has it
    import readline  # noqa: F401

TABLE = re.compile(r"(\w+)=(.+)@([\w.-]+?)(?::([\w,]+))?")
HELP = (
    "end a query with `;` -- \\d: tables -- \\explain QUERY; -- \\analyze QUERY; -- \\to PARTY -- Ctrl-C: cancel -- "
    "\\q: leave"
)


@click.command()
@click.argument("query", required=False)
@click.option(
    "--table",
    "tables",
    multiple=True,
    required=True,
    metavar="NAME=SOURCE@PARTY[:KEY]",
    help="A table: a .parquet or .csv file, or a database's URL; KEY names columns that are unique. A name given "
    "again is for a party that holds other rows.",
)
@click.option("--policy", type=click.Path(path_type=Path), help="What the owners allow (TOML).")
@click.option("--to", metavar="PARTY", help="Who gets the rows.  [default: `--as`, or the last party]")
@click.option("--explain", is_flag=True, help="Show plan, cost, reveals and verdict: nothing runs.")
@click.option(
    "--analyze", is_flag=True, help="Run it relation by relation: seconds, rounds and bytes of each, and the rows."
)
@click.option("--output", type=click.Path(path_type=Path), help="Write the rows to a .parquet file.")
@click.option("--join-rows", type=click.IntRange(1), help="How many rows a join has at most whose keys repeat.")
@click.option("--network", is_flag=True, help="Run each party as a process of this machine, over TLS.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="The cluster file: be one party of it.")
@click.option("--as", "me", metavar="PARTY", help="Who this process is.")
@timeout_option(60.0)
@click.option("--parties", type=NamesType(), help="Names by rank.  [default: the owners, and alice, bob, carol]")
@click.option("--force", is_flag=True, help="Replace the output file.")
def sql(query: str | None, **options: Any) -> None:
    """Ask in SQL over tables of several parties. Without QUERY, a shell.

    \b
      spuvm sql "select region, sum(amount) from orders o join payments p on o.id = p.order_id group by region" \\
          --table orders=orders.parquet@alice --table payments=payments.csv@bob --policy policy.toml --to carol
      spuvm sql "..." --explain ...          # plan, rounds, bytes, what anybody learns, allowed or not
      spuvm sql "..." --analyze ...          # what each relation took

    Parties on several machines give the same command each, with `--config cluster.toml --as alice`; a table is read
    where its party runs.
    """  # fmt: skip
    if (options["config_file"] is None) != (options["me"] is None) or (options["network"] and options["me"]):
        raise InputError("`--config` and `--as` go together, without `--network`.")
    tables = _tables(options["tables"])
    if options["network"]:
        return _network(query, tables, options)
    try:
        if options["me"] is not None:
            spu.init(party=options["me"], config=options["config_file"], timeout=options["timeout"])
        else:
            spu.init(parties=_parties(tables, options), address="local")
        db = connect(tables, options["policy"])
        if query is not None:
            _answer(db, query, options)
        elif options["me"] is not None:
            raise InputError("the shell is for a simulation: in a network all parties give the same QUERY.")
        else:
            _shell(db, options)
    finally:
        spu.shutdown()


def _tables(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {}
    for text in texts:
        match = TABLE.fullmatch(text)
        if match is None:
            raise InputError(f"`--table` is {text!r}: write it like 'orders=orders.parquet@alice', or '...@alice:id'.")
        name, source, party, key = match.groups()
        if name in out.setdefault(party, {}):
            raise InputError(f"`--table`: {party} has `{name}` twice.")
        out[party][name] = {"source": source, "key": key.split(",")} if key else source
    return out


def _parties(tables: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[str, ...]:
    if options["parties"] is not None:
        return tuple(options["parties"])
    named = list(dict.fromkeys([*tables, *([options["to"]] if options["to"] else [])]))
    return (*named, *[n for n in USUAL_PARTIES if n not in named][: max(0, 3 - len(named))])


def _receiver(db: Database, options: Mapping[str, Any]) -> str:
    return str(options["to"] or options["me"] or db.members[-1])


def _answer(db: Database, query: str, options: Mapping[str, Any]) -> None:
    to, output = _receiver(db, options), options["output"]
    if options["explain"]:
        console().print(str(db.explain(query, to, join_rows=options["join_rows"])))
        return
    if output is not None and options["me"] in (None, to):
        check_target(output, options["force"], (".parquet",))
    if options["analyze"]:
        analysis = db.analyze(query, to, join_rows=options["join_rows"])
        result = analysis.result
        if result.values is not None:
            console().print(str(analysis), soft_wrap=True)
    else:
        result = db.sql(query, to, join_rows=options["join_rows"])
    if result.values is None:
        return
    if output is not None:
        if kept := saved_or_kept(output, lambda path: result.to_parquet(path, options["force"])):
            raise kept
        say(f"wrote {output}")
    else:
        console().print(str(result))


def _shell(db: Database, options: Mapping[str, Any]) -> None:
    """Queries from stdin; an error is shown, and the next one read."""
    state = dict(options) | {"explain": False, "analyze": False, "output": None}
    say(f"rows are for {_receiver(db, state)}; {HELP}")
    terminal, text = sys.stdin.isatty(), ""
    while True:
        try:
            line = input(("...> " if text else "sql> ") if terminal else "")
        except EOFError:
            return
        except KeyboardInterrupt:
            if not terminal:
                raise
            text = ""  # what was begun is forgotten
            say("")
            continue
        word, _, rest = line.strip().partition(" ")
        if not text and word.startswith("\\") and word not in ("\\explain", "\\analyze"):
            if word == "\\q":
                return
            _told(db, word, rest.strip(), state)
            continue
        text += line + "\n" if text or line.strip() else ""
        if text.rstrip().endswith(";"):
            _one(db, text.strip().rstrip(";"), state)
            text = ""


def _told(db: Database, word: str, rest: str, state: dict[str, Any]) -> None:
    """A word to the shell itself."""
    if word == "\\d":
        _show_tables(db)
    elif word == "\\to" and rest in db.members:
        state["to"] = rest
    elif word == "\\to":
        say(f"\\to {rest}: it must be one of {', '.join(db.members)}.")
    else:
        say(HELP)


def _one(db: Database, text: str, state: Mapping[str, Any]) -> None:
    word, _, rest = text.partition(" ")
    asked = {way: word == f"\\{way}" for way in ("explain", "analyze")}
    try:
        _answer(db, rest if any(asked.values()) else text, {**state, **asked})
    except SpuError as error:
        say(str(error))
    except KeyboardInterrupt:
        say("cancelled: nothing was shown")


def _show_tables(db: Database) -> None:
    for table in db.catalog.tables.values():
        columns = ", ".join(f"{c.name} {c.declared.lower()}" for c in table.columns)
        console().print(f"{table.name} ({table.rows:,} rows at {', '.join(table.owners)}): {columns}")


def _network(query: str | None, tables: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Each party is this command with `--config` and `--as`."""
    if query is None:
        raise InputError("`--network` needs a QUERY.")
    config = make_config(None, None, None, _parties(tables, options), None)
    with Scratch() as folder:
        cluster = make_run_folder(folder, config, timeout=options["timeout"])
        to = options["to"] or rank_names(config)[-1]
        commands = {p: _party(p, query, to, cluster, options) for p in rank_names(config)}
        run_together(commands, lambda party, kind, line: _relay(party, kind, line, to))


def _relay(party: str, kind: str, line: str, to: str) -> None:
    if kind == "stdout" and party == to:
        click.echo(line)
    elif kind != "stdout":
        click.echo(f"{party}: {line}", err=True)


def _party(party: str, query: str, to: str, cluster: Path, options: Mapping[str, Any]) -> list[str]:
    out = [sys.executable, "-m", "spuvm", "sql", query, "--config", str(cluster), "--as", party, "--to", to]
    for text in options["tables"]:
        out += ["--table", text]
    for key in ("policy", "join_rows", "timeout"):
        if options[key] is not None:
            out += [f"--{key.replace('_', '-')}", str(options[key])]
    if options["output"] is not None and party == to:
        out += ["--output", str(options["output"])]
    return (
        out + ["--explain"] * options["explain"] + ["--analyze"] * options["analyze"] + ["--force"] * options["force"]
    )
