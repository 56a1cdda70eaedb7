"""How the examples of learning run: simulated, as one party, or all parties as processes of this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import spuvm as spu
from spuvm.network import Scratch, make_run_folder, run_parties


def run(script: str, about: str, parties: Sequence[str], steps: Callable[..., None], rows: int | None = None) -> int:
    """Run `steps` of a script, which are told the party of this process; None in a simulation. With `rows`, how many
    rows there are is an option, and they are told that, too.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--network", action="store_true", help="all parties as local processes over mutual TLS")
    how.add_argument("--as", dest="party", choices=parties, help="be this party; needs --config")
    parser.add_argument("--config", help="the cluster file: `spuvm certificates` makes one")
    if rows is not None:
        parser.add_argument("--rows", type=int, default=rows, help=f"how many there are; {rows:,} if not given")
    options = parser.parse_args()
    said = () if rows is None else (options.rows,)
    if bool(options.party) != bool(options.config):
        parser.error("--as and --config belong together")
    if options.network:
        return network(script, parties, said)
    spu.init(**({"party": options.party, "config": options.config} if options.party else {"parties": parties}))
    try:
        steps(options.party, *said)
    finally:
        spu.shutdown()
    return 0


def network(script: str, parties: Sequence[str], said: Sequence[int] = ()) -> int:
    """All parties as processes, with certificates made for this run."""
    width = max(map(len, parties))

    def show(party: str, stream: str, line: str) -> None:
        print(f"{party:>{width}} | {line}", file=getattr(sys, stream), flush=True)

    with Scratch() as folder:
        config = make_run_folder(folder, spu.Config(parties=tuple(parties)), timeout=300)
        more = [f"--rows={rows}" for rows in said]
        own = {p: [sys.executable, script, "--as", p, "--config", str(config), *more] for p in parties}
        run_parties(own, on_line=show)
    return 0


def own(tables: Mapping[str, Any], party: str | None) -> dict[str, Any]:
    """Each party's table where it is: in a process of one party the others' are not there."""
    return {p: t if party in (None, p) else None for p, t in tables.items()}
