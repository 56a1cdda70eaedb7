"""`spuvm cost`."""

from __future__ import annotations

import json
from typing import Any

import click

from spuvm.commands.options import function_options
from spuvm.commands.programs import Options, program_of
from spuvm.commands.results import INEXACT, console, cost_tables


@click.command()
@click.argument("target", metavar="FILE.spux|FILE.py:FUNCTION")
@function_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def cost(target: str, as_json: bool, **options: Any) -> None:
    """What a program costs, exactly, without running it.

    Rounds and bytes per party, and where they go: by operation and by source line. Independent
    operations share their rounds, so the rounds of single rows may sum to more than the program's.

    \b
      spuvm cost train.spux
      spuvm cost model.py:predict --arg 'f32[1000,30]@alice' --arg 'f32[30]@bob' --json
    """
    program = program_of(target, Options(**options))
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
