"""`spuvm cost`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from spuvm.commands.cost_page import page
from spuvm.commands.options import function_options
from spuvm.commands.programs import Options, program_of
from spuvm.commands.results import INEXACT, cost_tables
from spuvm.commands.terminal import console, say
from spuvm.compiler.compile import Program
from spuvm.runtime.errors import InputError


@click.command()
@click.argument("target", metavar="FILE.spux|FILE.py:FUNCTION")
@function_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--link", metavar="DELAY,WIDTH", help="Seconds over such links, like 25ms,100Mbit.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write it as a page (a new .html).")
@click.option("--leaks", is_flag=True, help="Print what each party learns, and prove that all else says nothing.")
def cost(target: str, as_json: bool, link: str | None, report: Path | None, leaks: bool, **options: Any) -> None:
    """What a program costs, exactly, without running it.

    Rounds and bytes per party, and where they go: by operation and by source line. Independent
    operations share their rounds, so the rounds of single rows may sum to more than the program's.

    With `--link`, what one run takes: computing is measured here, one party's part alone and on zeros; the rest is
    counted. The delay is that of a message one way.

    \b
      spuvm cost train.spux
      spuvm cost train.spux --link 25ms,100Mbit
      spuvm cost train.spux --link 25ms,100Mbit --report cost.html
      spuvm cost train.spux --leaks
      spuvm cost model.py:predict --arg 'f32[1000,30]@alice' --arg 'f32[30]@bob' --json
    """
    if report is not None and report.exists():
        raise InputError(f"{report} is there already: give a new file.")
    program = program_of(target, Options(**options))
    if leaks:
        return leakage(program, as_json)
    result = program.cost
    taken = None if link is None else result.seconds(link)
    if report is not None:
        report.write_text(page(program, taken))
        say(f"wrote {report}")
    if as_json:
        seconds = {} if taken is None else {"seconds": {**asdict(taken), "total": taken.total}}
        click.echo(json.dumps({"program": program.hash, **result.as_dict(), **seconds}, indent=2))
        return
    out = console()
    out.print(f"{program!r}: {result.rounds:,} rounds")
    if taken is not None:
        out.print(str(taken))
    if not result.exact:
        out.print(INEXACT)
    for table in cost_tables(result):
        out.print(table)


def leakage(program: Program, as_json: bool) -> None:
    """Exit status 1 if something is not proved."""
    learns = program.learns
    if as_json:
        click.echo(json.dumps({"program": program.hash, **learns.as_dict()}, indent=2))
    else:
        say(str(learns))
    if learns.refused:
        raise SystemExit(1)
