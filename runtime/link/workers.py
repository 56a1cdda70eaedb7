"""Several workers of each party: worker j of every party forms a session of its own with those of the others.

Each says where it listens (`listening`); the parties tell each other over their main session, and each worker gets a
cluster with the addresses of its peers (`moved`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spuvm.runtime.link.certificates import free_ports
from spuvm.runtime.link.parties import Address, Cluster

ANY = "0.0.0.0"
At = list[Any] | None  # host and port; None: the party's own, which knows sessions apart


def listening(
    cluster: Cluster, me: str, number: int, host: str | None = None
) -> tuple[Cluster, Address | Path | None, At]:
    """The cluster in the session of this number, where the worker listens, and where its peers find it.

    `host`: of the machine that it is on, if that is not its party's.
    """
    if cluster.session is not None or any(p.address is None for p in cluster.parties):
        cluster = replace(cluster, session=f"{cluster.meeting}.w{number}")
    entry = cluster.parties[cluster.rank(me)]
    listen = entry.listen
    if isinstance(listen, Path):
        return cluster, listen.with_name(str(cluster.session)), None
    if listen is None or entry.address is None:
        return cluster, listen, None
    at, here = (entry.address.host, listen.host) if host is None else (host, ANY)
    listen = Address(here, free_ports(1, here)[0])
    return cluster, listen, [at, listen.port]


def moved(cluster: Cluster, peers: Mapping[str, At], me: str, listen: Address | Path | None) -> Cluster:
    """The cluster with the addresses that the workers have."""
    parties = []
    for party in cluster.parties:
        at = peers[party.name]
        address = party.address if at is None else Address(*at)
        parties.append(replace(party, address=address, listen=listen if party.name == me else address))
    return replace(cluster, parties=tuple(parties))
