"""`spuvm stream`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import jax

import spuvm as spu
from spuvm.commands.options import USUAL_PARTIES, NamesType, make_config, timeout_option
from spuvm.commands.programs import is_saved, load_function, visibility
from spuvm.commands.terminal import console, say
from spuvm.commands.together import run_together
from spuvm.network import make_run_folder
from spuvm.objects import SPUObject
from spuvm.runtime.config import TRUNCATIONS
from spuvm.runtime.errors import InputError
from spuvm.runtime.protocols.registered import PROTOCOLS, rank_names, usual_parties
from spuvm.runtime.scratch import Scratch
from spuvm.streaming.folder import Folders
from spuvm.streaming.sources import NAME, Source
from spuvm.streaming.stream import ROWS_PER_BLOCK, Stream
from spuvm.streaming.workers import ENGINES

OUTPUT = re.compile(rf"(.+\.parquet)@({NAME})", re.IGNORECASE)
THE_STREAM = "stream"  # the parameter of a function that takes the stream itself


@click.command()
@click.argument("target", metavar="FILE.py:FUNCTION")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="NAME=FILE[:COLUMNS]@PARTY",
    help="Where a column comes from: a .parquet, .arrow, .feather, .csv or .npy file, or a pattern of such. A name "
    "given again is for a party that holds other rows.",
)
@click.option(
    "--output",
    metavar="FILE.parquet@PARTY",
    help="The file for the rows, and the party that may see and writes them.",
)
@click.option("--reveal", metavar="PARTY", help="Reveal what the rows were folded to: to a party, or to `all`.")
@click.option(
    "--rows-per-block",
    type=click.IntRange(1),
    default=ROWS_PER_BLOCK,
    show_default=True,
    help="Rows in memory at once.",
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes of each party.")
@click.option("--engine", type=click.Choice(ENGINES), default="local", show_default=True, help="Where the workers run.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where finished blocks are kept until all are.  [default: OUTPUT.run; of folds, nowhere]",
)
@click.option("--network", is_flag=True, help="Run each party as a process of this machine, over TLS.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="The cluster file: be one party of it.")
@click.option("--as", "me", metavar="PARTY", help="Who this process is.")
@timeout_option(60.0)
@click.option("--protocol", type=click.Choice(sorted(PROTOCOLS)), help="[default: aby3]")
@click.option("--fxp", type=int, help="Fraction bits of fixed point.  [default: 18]")
@click.option("--truncation", type=click.Choice(TRUNCATIONS), help="`exact`: always down.  [default: probabilistic]")
@click.option("--parties", type=NamesType(), help="Names by rank.  [default: alice,bob,carol]")
@click.option("--x64", is_flag=True, help="Trace with 64-bit numbers, as with JAX_ENABLE_X64.")
@click.option("--force", is_flag=True, help="Replace the output file.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--progress", is_flag=True, help="Progress even where stderr is no terminal.")
@click.option("--no-results", is_flag=True, hidden=True)
def stream(target: str, **options: Any) -> None:
    """Run a function over the rows of tables that no memory holds, a block at a time.

    FUNCTION takes columns by the names of its parameters, as arrays [rows], and gives new ones, which
    `--output` writes. Or it has one parameter, `stream`, a `spu.Stream`, and returns another or
    what it folded:

    \b
      def score(age, bmi):                 # one of these
          return {"risk": 0.1 * age + 0.3 * bmi}

    \b
      def total(stream):                   # or one of these
          return stream.fold(lambda t, age: t + jnp.sum(age), 0.0, jnp.add)

    \b
      spuvm stream score.py:score --input age='a-*.parquet:age@alice' --input bmi=b.csv:bmi@bob \\
                --output risk.parquet@carol [--network]

    Row i of one input belongs to row i of the others; inputs given several times are for parties that
    hold different rows. The same command goes on where an interrupted one ended (a fold: with `--folder`).
    Parties on several machines give the same command each, with `--config cluster.toml --as alice`.
    """  # fmt: skip
    if options["config_file"] is not None or options["me"] is not None:
        if options["config_file"] is None or options["me"] is None or options["network"]:
            raise InputError("`--config` and `--as` go together, without `--network`.")
        spu.init(party=options["me"], config=options["config_file"], timeout=options["timeout"])
        return _run(target, options)
    _check_function(target)
    parties = _parties(options, _sources(options["inputs"]))
    if options["network"]:
        return _network(parties, target, options)
    spu.init(parties=parties, address="local")
    return _run(target, options)


def _run(target: str, options: Mapping[str, Any]) -> None:
    """Be one party, or all in a simulation."""
    try:
        with jax.enable_x64(True) if options["x64"] else nullcontext():
            device = _device(options) if options["config_file"] is None else None
            show = False if options["quiet"] else True if options["progress"] else None
            rows = spu.stream(
                _sources(options["inputs"]),
                rows_per_block=options["rows_per_block"],
                device=device,
                workers=options["workers"],
                engine=options["engine"],
                progress=show,
            )
            folders = Folders(options["folder"]) if options["folder"] is not None else None
            rows = Stream(replace(rows.plan, options=replace(rows.plan.options, folders=folders)))
            result = _apply(target, rows)
            if isinstance(result, Stream):
                _write(result, options)
            else:
                _show(result, rows, options)
            if folders is not None:
                folders.remove()
    finally:
        spu.shutdown()


def _check_function(target: str) -> None:
    if is_saved(target):
        raise InputError(f"{target} is compiled for one shape: give the function, as in `file.py:fn`.")


def _apply(target: str, rows: Stream) -> Any:
    _check_function(target)
    function = load_function(target)
    try:
        takes = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        takes = []
    return function(rows) if takes == [THE_STREAM] else rows.map(function)


def _write(result: Stream, options: Mapping[str, Any]) -> None:
    if options["output"] is None:
        raise InputError("`--output FILE.parquet@PARTY` is missing: who may see the rows?")
    path, party = _output(options["output"])
    if options["reveal"] is not None:
        raise InputError("`--reveal` is for what was folded: rows are revealed to the party of `--output`.")
    result.to_parquet(path, party, folder=options["folder"], force=options["force"])
    if not options["quiet"] and options["me"] in (None, party):
        say(f"wrote {path}")


def _output(text: str) -> tuple[str, str]:
    match = OUTPUT.fullmatch(text)
    if match is None:
        raise InputError(f"`--output` is {text!r}: write it like 'out.parquet@carol', a file and who may see it.")
    return match[1], match[2]


def _show(result: Any, rows: Stream, options: Mapping[str, Any]) -> None:
    """Print what was folded, as far as this party may see it."""
    if options["output"] is not None:
        raise InputError("`--output` is for rows: the function gives none.")
    who = options["reveal"]
    leaves = jax.tree_util.tree_leaves_with_path(result, is_leaf=lambda x: isinstance(x, SPUObject))
    objects = [x for _, x in leaves if isinstance(x, SPUObject)]
    shown: list[Any] = []
    if who == "all":
        shown = list(rows.vm.reveal(objects))
    elif who is not None:
        rank = visibility(who, rows.vm.config)
        opened = rows.vm.convert(objects, "reveal", rank)
        shown = [None if x.parts[0] is None else x.known_value() for x in opened]
    if options["no_results"]:
        return
    values = iter(shown)
    for path, leaf in leaves:
        name = "out" + jax.tree_util.keystr(path)
        if not isinstance(leaf, SPUObject):
            console().print(f"{name}: {leaf}")
            continue
        value = next(values, None)
        text = "stays secret: reveal it with `--reveal`" if who is None else "not known here"
        console().print(f"{name} {leaf.dtype.name}{list(leaf.shape)}: {text if value is None else value}")


# The parties ------------------------------------------------------------------------------------------


def _sources(inputs: Sequence[str]) -> list[dict[str, Source]]:
    """The parts: the first occurrence of each name is the first part's, and so on."""
    parts: list[dict[str, Source]] = []
    for text in inputs:
        name, equals, rest = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise InputError(f"`--input` is {text!r}: write it like 'age=data.parquet:age@alice'.")
        name = name.strip()
        part = next((p for p in parts if name not in p), None)
        if part is None:
            parts.append(part := {})
        part[name] = Source.parse(rest, name)
    for part in parts:
        if set(part) != set(parts[0]):
            raise InputError(
                f"`--input`: {', '.join(sorted(set(parts[0]) - set(part)))} is given fewer times than others."
            )
    return parts


def _parties(options: Mapping[str, Any], parts: Sequence[Mapping[str, Source]]) -> tuple[str, ...]:
    if options["parties"] is not None:
        return tuple(options["parties"])
    count = usual_parties(options["protocol"] or "aby3")
    owners = list(dict.fromkeys(s.party for part in parts for s in part.values()))
    if options["output"] is not None:
        owners = list(dict.fromkeys([*owners, _output(options["output"])[1]]))
    more = [n for n in USUAL_PARTIES if n not in owners][: max(0, count - len(owners))]
    return tuple(sorted([*owners, *more]))


def _device(options: Mapping[str, Any]) -> spu.SPU:
    parties = _parties(options, _sources(options["inputs"]))
    runtime = {"protocol": options["protocol"] or "aby3"} | (
        {"fxp_fraction_bits": options["fxp"]} if options["fxp"] else {}
    )
    return spu.SPU(spu.utils.testing.cluster_def(parties, runtime), truncation=options["truncation"])


def _network(parties: tuple[str, ...], target: str, options: Mapping[str, Any]) -> None:
    """Each party is this command with `--config` and `--as`."""
    config = make_config(options["protocol"], None, options["fxp"], parties, None, truncation=options["truncation"])
    with Scratch() as folder:
        cluster = make_run_folder(folder, config, timeout=options["timeout"])
        everyone = rank_names(config)
        speaker = options["reveal"] if options["reveal"] in parties else everyone[0]
        commands = {p: _party(p, p == speaker, target, cluster, options) for p in everyone}
        run_together(commands, _relay)


def _party(party: str, speaks: bool, target: str, cluster: Path, options: Mapping[str, Any]) -> list[str]:
    out = [sys.executable, "-m", "spuvm", "stream", target, "--config", str(cluster), "--as", party]
    for text in options["inputs"]:
        out += ["--input", text]
    for key in ("output", "reveal", "rows_per_block", "workers", "engine", "folder", "timeout", "truncation"):
        if options[key] is not None:
            out += [f"--{key.replace('_', '-')}", str(options[key])]
    out += [f"--{key}" for key in ("x64", "force") if options[key]]
    if not speaks:
        out.append("--no-results")
    out.append("--progress" if speaks and not options["quiet"] else "--quiet")
    if (click.get_current_context().obj or {}).get("debug"):
        out.append("--debug")
    return out


def _relay(party: str, kind: str, line: str) -> None:
    click.echo(line if kind == "stdout" else f"{party}: {line}", err=kind != "stdout")
