"""`spuvm certificates`."""

from __future__ import annotations

from pathlib import Path

import click

from spuvm.commands.options import NamesType, machine_options, make_config, timeout_option
from spuvm.commands.terminal import say
from spuvm.network import make_run_folder
from spuvm.runtime.errors import InputError
from spuvm.runtime.protocols.registered import rank_names


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--parties", type=NamesType(), required=True, help="Names by rank, like alice,bob,carol.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where all of them listen.")
@click.option("--ports", help="Their ports, like 9101,9102,9103.  [default: free ones]")
@timeout_option(60.0)
@machine_options
def certificates(
    folder: Path,
    parties: tuple[str, ...],
    host: str,
    ports: str | None,
    timeout: float,
    protocol: str | None,
    ring: int | None,
    fxp: int | None,
    truncation: str | None,
    optimize: str | None,
) -> None:
    """Make an authority, certificates, keys and cluster.toml for parties on one machine, to try things out.

    Parties that distrust each other each make their own key, have only the certificate signed by
    an authority that all accept, and copy cluster.toml: its text says which files each needs. A
    protocol with a dealer has one party more, of that name, with the last of the ports.

    \b
      spuvm certificates keys --parties alice,bob,carol --ports 9101,9102,9103
      spuvm party --config keys/cluster.toml --as alice train.spux --input x=a.csv
    """
    config = make_config(protocol, ring, fxp, parties, None, truncation=truncation, optimize=optimize)
    names = rank_names(config)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: give a new folder, so that no key is overwritten.")
    numbers = None
    if ports is not None:
        try:
            numbers = [int(p) for p in ports.split(",")]
        except ValueError:
            raise InputError(f"`--ports` must be numbers with commas between, got {ports!r}.") from None
        if len(numbers) != len(names):
            raise InputError(f"`--ports` has {len(numbers)} ports for {len(names)} parties: {', '.join(names)}.")
    path = make_run_folder(folder, config, host, numbers, timeout)
    say(f"wrote {path} and, for each of {', '.join(names)}, a certificate and a key")
