"""`spuvm component`: what flows are made of."""

from __future__ import annotations

import json
from pathlib import Path

import click

from spuvm.commands.flow_options import assigned, catalog_of, outcome
from spuvm.commands.terminal import console
from spuvm.flow import find, known
from spuvm.flow.components import Component
from spuvm.flow.files import of_dict
from spuvm.runtime.errors import ConfigError


@click.group()
def component() -> None:
    """List, show and run components of flows.

    \b
      spuvm component list
      spuvm component show sgb
      spuvm component run read --set party=alice --set table=a.parquet
    """


@component.command(name="list")
@click.argument("word", required=False)
def list_(word: str | None) -> None:
    """List all components, or those with WORD in their name or text."""
    found = [c for c in known().values() if word is None or word in c.name or word.lower() in c.help.lower()]
    if not found:
        raise ConfigError(f"no component has {word!r} in its name or text: `spuvm component list` shows all.")
    width = max(len(c.name) for c in found)
    for c in found:
        console().print(f"{c.name:{width}}  {c.help.partition(chr(10))[0]}")


@component.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(name: str, as_json: bool) -> None:
    """Show a component's inputs, outputs and parameters."""
    from spuvm.flow.components import described

    c = find(name)
    if as_json:
        console().print(json.dumps(described(c), indent=1))
        return
    for line in lines(c):
        console().print(line)


def lines(c: Component) -> list[str]:
    """A component's description."""
    out = [c.name, f"  {c.help}", ""]
    out += [f"input   {p.name}: {p.kind}{' ...' * p.many}{' (may be left out)' * p.optional}" for p in c.inputs]
    out += [f"output  {p.name}: {p.kind}" for p in c.outputs]
    for p in c.parameters:
        default = "" if p.required else f" [{p.default!r}]"
        out.append(f"        {p.name}{default}: {p.want}{'; ' + p.help if p.help else ''}")
    return out


@component.command()
@click.argument("name")
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="A parameter, as in TOML.")
@click.option("--parties", default="alice,bob,carol", show_default=True)
@click.option("--table", "tables", multiple=True, metavar="NAME=FILE@PARTY")
@click.option("--state", type=click.Path(path_type=Path), help="Where results are kept.  [default: flows]")
def run(name: str, given: tuple[str, ...], parties: str, tables: tuple[str, ...], state: Path | None) -> None:
    """Run a component that takes no inputs, simulated, and show what it gives."""
    import spuvm as spu
    from spuvm.flow import run as run_flow

    c = find(name)
    if c.inputs:
        takes = ", ".join(f"`{p.name}`" for p in c.inputs)
        raise ConfigError(f"component `{name}` takes {takes} of other nodes: put it into a flow, `spuvm flow run`.")
    body = {"name": name, "nodes": {name: {"component": name, **dict(map(assigned, given))}}}
    spu.init(parties=parties.split(","), address="local")
    made = run_flow(of_dict(body), state=state or "flows", tables=catalog_of(tables, None))
    outcome(made)
