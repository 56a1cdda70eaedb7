"""`spuvm dealer`."""

from __future__ import annotations

from pathlib import Path

import click

from spuvm.commands.options import timeout_option
from spuvm.commands.part import taking_part
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.link.cluster import load_cluster


@click.command()
@click.argument("target", metavar="FILE.spux")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), required=True, help="The cluster file (TOML)."
)
@timeout_option(otherwise="the cluster file's")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write rounds, bytes and seconds to a JSON file."
)
@click.option("--quiet", is_flag=True, help="No progress and no table.")
def dealer(target: str, config_file: Path, timeout: float | None, report: Path | None, quiet: bool) -> None:
    """Be the dealer of parties that run a program under SEMI2K.

    The dealer makes the correlated randomness (triples, shared bits, truncation pairs) with which the
    parties multiply and compare. Start it once for each run, on a machine of its own, with the program
    and the cluster file that the parties have, before or after them: `dealer` in that file says which
    of [parties.*] it is, and each party is started with `spuvm party`.

    \b
      spuvm dealer --config cluster.toml train.spux

    What it learns: the program, that is shapes, constants and loops, and the way that public control
    takes at run time. It has no inputs, is sent no value, shared or opened, and sees no result.
    What it must not do: show what it makes to a party, or be run by one. Any party that has a pact
    with the dealer can compute the secrets of all others.

    What it sends: nothing to all parties but one, who share a seed with it, and one message a round to
    the last. It does not wait for the parties, but runs ahead of them by at most `dealer_ahead_mb` MiB (64)
    at either end. If it fails, or a party does, all stop and say why.
    """  # fmt: skip
    cluster = load_cluster(config_file)
    if cluster.dealer is None:
        raise ConfigError(
            f"{config_file} names no dealer: protocol {cluster.config.protocol!r} has none. Start the parties alone, "
            "or use a protocol that has, such as semi2k, and set `dealer` to one of [parties.*]."
        )
    with taking_part(target, config_file, cluster, cluster.dealer) as part:
        part.prepare()
    ran = part.run([None] * len(part.program.module.inputs), timeout, quiet)
    part.report(ran, report)
    if not quiet:
        part.show(ran)
