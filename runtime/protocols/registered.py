"""The protocols by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from spuvm.runtime.config import Config
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.protocols.aby3.protocol import ABY3
from spuvm.runtime.protocols.guests import with_others
from spuvm.runtime.protocols.protocol import Protocol
from spuvm.runtime.protocols.ref2k import ref2k
from spuvm.runtime.protocols.semi2k import semi2k, semi2k_first_party_unsafe

# By the number of computing parties, and of others.
PROTOCOLS: dict[str, Callable[[int, int], Protocol]] = {
    "aby3": lambda n, others: ABY3,
    "ref2k": lambda n, others: ref2k(n),
    "semi2k": semi2k,
    "semi2k_first_party_unsafe": semi2k_first_party_unsafe,
}
DEFAULT_PARTIES = {"aby3": 3, "ref2k": 1, "semi2k": 2, "semi2k_first_party_unsafe": 2}


@cache
def _protocol(name: str, world_size: int, others: int) -> Protocol:
    if name not in PROTOCOLS:
        raise ConfigError(f"`protocol` must be one of {sorted(PROTOCOLS)}, got {name!r}.")
    return with_others(PROTOCOLS[name](world_size, others), others)


def protocol_of(config: Config) -> Protocol:
    """The protocol that a configuration names, for its number of parties."""
    protocol = _protocol(config.protocol, config.world_size, len(config.others))
    if protocol.world_size != config.world_size:
        raise ConfigError(
            f"`protocol` {config.protocol!r} runs among {protocol.world_size} parties, "
            f"got {config.world_size}: {', '.join(config.parties)}. Others can take part without computing: "
            "see `others` of Config, `compute` in the cluster file."
        )
    return protocol


def has_dealer(name: str) -> bool:
    """Whether a protocol has a dealer, a process beside the parties."""
    return _protocol(name, DEFAULT_PARTIES.get(name, 0), 0).dealer is not None


def rank_names(config: Config) -> tuple[str, ...]:
    """Who takes part, by rank: the parties, others, then the protocol's dealer if it has one."""
    return config.members if protocol_of(config).dealer is None else (*config.members, "dealer")
