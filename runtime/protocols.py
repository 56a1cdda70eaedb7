"""The protocols by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from spuvm.runtime.aby3 import ABY3
from spuvm.runtime.config import Config
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.protocol import Protocol
from spuvm.runtime.ref2k import ref2k

PROTOCOLS: dict[str, Callable[[int], Protocol]] = {"aby3": lambda n: ABY3, "ref2k": ref2k}
DEFAULT_PARTIES = {"aby3": 3, "ref2k": 1}


@cache
def _protocol(name: str, world_size: int) -> Protocol:
    return PROTOCOLS[name](world_size)


def protocol_of(config: Config) -> Protocol:
    """The protocol that a configuration names, for its number of parties."""
    if config.protocol not in PROTOCOLS:
        raise ConfigError(f"`protocol` must be one of {sorted(PROTOCOLS)}, got {config.protocol!r}.")
    protocol = _protocol(config.protocol, config.world_size)
    if protocol.world_size != config.world_size:
        raise ConfigError(
            f"`protocol` {config.protocol!r} runs among {protocol.world_size} parties, "
            f"got {config.world_size}: {', '.join(config.parties)}."
        )
    return protocol
