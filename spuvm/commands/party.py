"""`spuvm party`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from spuvm.commands import inputs as given
from spuvm.commands.keeping import keep_outputs
from spuvm.commands.options import Input, InputType, Output, OutputType, device_option, timeout_option
from spuvm.commands.part import taking_part
from spuvm.commands.results import match_outputs, show
from spuvm.commands.reveals import reveals
from spuvm.commands.terminal import say
from spuvm.compiler.compile import Program
from spuvm.missing import with_nan
from spuvm.objects import SPUObject
from spuvm.profiling import Profile
from spuvm.runtime.errors import ConfigError, InputError
from spuvm.runtime.link.cluster import load_cluster


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
@timeout_option(otherwise="the cluster file's")
@device_option
@click.option("--expect-hash", metavar="SHA256", help="Run nothing but the program that has this hash.")
@click.option("--force", is_flag=True, help="Replace output files.")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write rounds, bytes and seconds to a JSON file."
)
@click.option(
    "--profile", type=click.Path(dir_okay=False, path_type=Path), help="Write where the time went: a Perfetto trace."
)
@click.option(
    "--stored",
    type=click.Path(file_okay=False, path_type=Path),
    help="Take randomness of two parties from this folder (`preprocessing` 'ot').",
)
@click.option(
    "--prepare",
    type=click.IntRange(min=1),
    metavar="RUNS",
    help="Make it for so many runs, store it, and run nothing.",
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
    device: str | None,
    expect_hash: str | None,
    force: bool,
    report: Path | None,
    profile: Path | None,
    stored: Path | None,
    prepare: int | None,
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

    Two parties alone can make the randomness of a program ahead, and each take it from its folder later:

    \b
      spuvm party --config cluster.toml --as alice train.spux --stored randomness --prepare 10
      spuvm party --config cluster.toml --as alice train.spux --stored randomness --input x=a.csv

    The cluster file lists the parties' names, addresses and certificates: `spuvm certificates`
    makes one to try out.
    """  # fmt: skip
    cluster = load_cluster(config_file)
    if me == cluster.dealer:
        raise ConfigError(f"`--as`: {me} is the dealer of {config_file}, not a party: start it with `spuvm dealer`.")
    if prepare is not None and (stored is None or inputs or outputs):
        raise InputError("`--prepare` takes `--stored FOLDER`, and neither inputs nor outputs: it runs nothing.")
    if prepare is not None and (profile is not None or device is not None or report is not None):
        raise InputError("`--prepare` runs no program: `--profile`, `--device` and `--report` say nothing of it.")
    with taking_part(target, config_file, cluster, me, expect_hash) as part:
        part.keep(stored)
        if prepare is not None:
            say(part.make_ahead(prepare, timeout))
            return
        values = given.arrays(part.program, given.by_name(inputs), {}, me)
        wanted = match_outputs(part.program, outputs, force)
        _check_mine(part.program, wanted, me)
        part.prepare()
    program, rank = part.program, part.rank
    if not quiet:
        for line in reveals(program):
            say(line)
    known: dict[int, Any] = {}
    lines: list[str] = []
    unwritten: list[InputError] = []

    def keep(objects: Sequence[SPUObject]) -> None:
        mine = {i: x.known_value() for i, x in enumerate(objects) if x.type.visibility in (rank, "public")}
        known.update(with_nan(program, mine))
        written, error = keep_outputs(program, known, wanted, force)
        lines.extend(written)
        unwritten.extend([error] if error is not None else [])

    if profile is not None:
        part.profile = Profile(me)
    ran = part.run(values, timeout, quiet, keep)
    part.report(ran, report)
    if profile is not None and part.profile is not None:
        part.profile.write(profile)
    if not no_results:
        show(program, known, wanted)
    if unwritten:
        raise unwritten[0]
    if not quiet and not no_results:
        for line in lines:
            say(line)
        part.show(ran)


def _check_mine(program: Program, wanted: dict[int, Output], me: str) -> None:
    for index in wanted:
        who = program.module.body.results[index].type.visibility
        if isinstance(who, int) and program.config.members[who] != me:
            owner = program.config.members[who]
            raise InputError(
                f"`--output`: result `{program.module.outputs[index]}` is revealed to {owner} alone: {owner} writes it."
            )
