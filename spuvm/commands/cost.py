"""`spuvm cost`."""

from __future__ import annotations

import json
from typing import Any

import click

from spuvm.commands.options import function_options
from spuvm.commands.programs import Options, program_of
from spuvm.commands.results import INEXACT, console, cost_tables, say
from spuvm.compiler.compile import Program


@click.command()
@click.argument("target", metavar="FILE.spux|FILE.py:FUNCTION")
@function_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--leaks", is_flag=True, help="Print what each party learns, and prove that all else says nothing.")
def cost(target: str, as_json: bool, leaks: bool, **options: Any) -> None:
    """What a program costs, exactly, without running it.

    Rounds and bytes per party, and where they go: by operation and by source line. Independent
    operations share their rounds, so the rounds of single rows may sum to more than the program's.

    \b
      spuvm cost train.spux
      spuvm cost train.spux --leaks
      spuvm cost model.py:predict --arg 'f32[1000,30]@alice' --arg 'f32[30]@bob' --json
    """
    program = program_of(target, Options(**options))
    if leaks:
        return leakage(program, as_json)
    result = program.cost
    if as_json:
        click.echo(json.dumps({"program": program.hash, **result.as_dict()}, indent=2))
        return
    out = console()
    out.print(f"{program!r}: {result.rounds:,} rounds")
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
