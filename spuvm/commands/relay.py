"""`spuvm relay`: a meeting place for parties that nobody can reach."""

from __future__ import annotations

import logging
import signal
import threading

import click

from spuvm.commands.terminal import say
from spuvm.runtime.link.parties import parse_address
from spuvm.runtime.link.tls.relay import FROM_ONE, JOINED, Relay


@click.command()
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where parties reach it.")
@click.option("--pairs", type=click.IntRange(1), default=JOINED, show_default=True, help="Connections at once.")
@click.option("--from-one", type=click.IntRange(1), default=FROM_ONE, show_default=True, help="Of one address.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning"]), default="info", show_default=True)
def relay(listen: str, pairs: int, from_one: int, log_level: str) -> None:
    """Join the connections of parties of whom neither can be reached, until it is told to stop.

    Their cluster files name it as `relay`. It passes on what is encrypted from party to party, and has no key.

    \b
      spuvm relay --listen 0.0.0.0:9700
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=log_level.upper())
    address, stop = parse_address(listen, "--listen", "`spuvm relay`"), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Relay(address, pairs, from_one):
        say(f"parties meet at {address}")
        while not stop.wait(60):
            pass
