"""`spuvm protocols`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from spuvm.bench import protocols as compared
from spuvm.bench.operations import ALL, Sizes


def _names(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...]:
    names = compared.OPERATIONS + compared.PROGRAMS if text is None else tuple(n.strip() for n in text.split(","))
    unknown = [n for n in names if n not in ALL]
    if unknown:
        raise click.BadParameter(f"unknown: {', '.join(unknown)}. There are {', '.join(ALL)}.")
    return names


@click.command()
@click.option("--ops", callback=_names, metavar="NAME,NAME", help="Operations and programs to compare.")
@click.option(
    "--size", default=1_000_000, show_default=True, type=click.IntRange(1), help="Elements of most operations."
)
@click.option("--matrix", default=512, show_default=True, type=click.IntRange(1), help="Rows and columns of a matrix.")
@click.option(
    "--sort-size", default=100_000, show_default=True, type=click.IntRange(1), help="Elements that are sorted."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write the page of the documentation."
)
def protocols(
    ops: tuple[str, ...], size: int, matrix: int, sort_size: int, as_json: bool, markdown: Path | None
) -> None:
    """Which protocol to choose: parties, trust, and what operations cost under each, without running them.

    \b
      spuvm protocols
      spuvm protocols --ops multiply,less --size 1000
    """
    sizes = Sizes(size, matrix, sort_size)
    if not as_json and markdown is None:
        for t in compared.trusted():
            click.echo(f"{t.protocol}: computing parties: {t.parties}; {t.held_against}")
            if t.chosen:
                click.echo(f"    spu.SPU takes it for {t.chosen} parties if nobody says which")
        networks = "".join(f"{'s at ' + n.name:>24}" for n in compared.NETWORKS)
        click.echo(
            f"\nOf {size:,} elements; matrices {matrix} x {matrix}; sorting {sort_size:,}; all parties' bytes.\n"
        )
        click.echo(f"{'':20} {'protocol':16} {'rounds':>8} {'MB':>12}{networks}")
    table = []
    for r in compared.rows(ops, sizes):
        table.append(r)
        if not as_json and markdown is None:
            seconds = "".join(f"{s:24,.3f}" for s in r.seconds)
            click.echo(f"{r.what:20} {r.protocol:16} {r.rounds:8,} {r.bytes_sent / 1e6:12,.3f}{seconds}")
    if as_json:
        click.echo(json.dumps(compared.as_dict(table), indent=2))
    if markdown is not None:
        markdown.write_text(compared.markdown(table, sizes))
