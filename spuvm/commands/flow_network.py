"""All parties of a flow as processes of this machine, over TLS: each is `spuvm flow run --config ... --as ...`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from spuvm.commands.flow_options import catalog_of
from spuvm.commands.options import USUAL_PARTIES, make_config
from spuvm.commands.together import run_together
from spuvm.flow import Flow
from spuvm.network import make_run_folder
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.protocols.registered import rank_names
from spuvm.runtime.scratch import Scratch


def parties_of(found: Flow) -> tuple[str, ...]:
    if found.parties is not None:
        return found.parties
    owners = dict.fromkeys(found.reads(n).party for n in found.nodes if found.nodes[n].component.reads)
    named = list(owners | dict.fromkeys(n.at for n in found.nodes.values() if n.at))
    return (*named, *[n for n in USUAL_PARTIES if n not in named][: max(0, 3 - len(named))])


def run_network(found: Flow, file: Path, options: Mapping[str, Any]) -> None:
    """Each party is this command with `--config` and `--as`."""
    names = parties_of(found)
    if len(names) != 3:
        raise ConfigError("`--network` runs three parties: give more of them a cluster file, `--config` and `--as`.")
    config = make_config(None, None, None, names, None)
    tables = catalog_of(options["tables"], options["catalog"])
    with Scratch() as folder:
        cluster = make_run_folder(folder, config, timeout=options["timeout"])
        parties = rank_names(config)
        commands = {p: _party(p, found, file, cluster, tables.get(p, {}), options, p == parties[0]) for p in parties}
        run_together(commands, lambda party, kind, line: _relay(party, kind, line, parties[0]))


def _relay(party: str, kind: str, line: str, first: str) -> None:
    if kind == "stdout" and party == first:
        click.echo(line)
    elif kind != "stdout":
        click.echo(f"{party}: {line}", err=True)


def _party(
    party: str,
    found: Flow,
    file: Path,
    cluster: Path,
    tables: Mapping[str, Any],
    options: Mapping[str, Any],
    first: bool,
) -> list[str]:
    out = [sys.executable, "-m", "spuvm", "flow", "run", str(file), "--config", str(cluster), "--as", party]
    out += ["--approve", found.hash, "--state", str(options["state"]), "--timeout", str(options["timeout"])]
    out += ["--retries", str(options["retries"])]
    for name, where in tables.items():
        out += ["--table", f"{name}={where}"]
    for change in options["changes"]:
        out += ["--set", change]
    if options["name"] is not None:
        out += ["--run", options["name"]]
    if options["results"] is not None:
        out += ["--results", str(options["results"] / party)]
    if options["report"] is not None and first:
        out += ["--report", str(options["report"])]
    return out + ["--resume"] * options["resume"] + ["--fresh"] * options["fresh"] + ["--quiet"] * (not first)
