"""The protocols by name: one line each, here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from spuvm.runtime.config import Config
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.protocols.aby3.malicious import NAME as ABY3_MALICIOUS
from spuvm.runtime.protocols.aby3.malicious import aby3_malicious
from spuvm.runtime.protocols.aby3.protocol import aby3
from spuvm.runtime.protocols.dealt import semi2k, semi2k_first_party_unsafe
from spuvm.runtime.protocols.oblivious import semi2k_ot
from spuvm.runtime.protocols.protocol import Protocol
from spuvm.runtime.protocols.ref2k import ref2k
from spuvm.runtime.protocols.rep4 import rep4


class Registered(NamedTuple):
    """`build(n, others)`: the protocol among n computing parties, with so many others; `parties`: its usual n."""

    build: Callable[[int, int], Protocol]
    parties: int


PROTOCOLS: dict[str, Registered] = {
    "aby3": Registered(aby3, 3),
    ABY3_MALICIOUS: Registered(aby3_malicious, 3),
    "ref2k": Registered(ref2k, 1),
    "rep4": Registered(rep4, 4),
    "semi2k": Registered(semi2k, 2),
    "semi2k_ot": Registered(semi2k_ot, 2),
    "semi2k_first_party_unsafe": Registered(semi2k_first_party_unsafe, 2),
}


SOUND = {2: "semi2k_ot", 3: "aby3", 4: "rep4"}


BY_OBLIVIOUS_TRANSFER = {"semi2k": "semi2k_ot"}


def _known(name: str) -> str:
    """The name, if there is a protocol of it. ConfigError if not."""
    if name not in PROTOCOLS:
        raise ConfigError(f"`protocol` must be one of {sorted(PROTOCOLS)}, got {name!r}.")
    return name


def prepared_by(protocol: str, preprocessing: str | None) -> str:
    """The protocol with its correlated randomness from a "dealer" or by "ot". ConfigError if it takes none."""
    if preprocessing is None:
        return protocol
    dealt = {v: k for k, v in BY_OBLIVIOUS_TRANSFER.items()} | {k: k for k in BY_OBLIVIOUS_TRANSFER}
    made = {"dealer": dealt, "ot": BY_OBLIVIOUS_TRANSFER | {v: v for v in BY_OBLIVIOUS_TRANSFER.values()}}
    if preprocessing not in made:
        raise ConfigError(f"`preprocessing` must be 'dealer' or 'ot', got {preprocessing!r}.")
    if _known(protocol) not in made[preprocessing]:
        raise ConfigError(f"`preprocessing` is SEMI2K's: protocol {protocol!r} has no choice of it.")
    return made[preprocessing][protocol]


SEMI_HONEST, MALICIOUS = "semi-honest", "malicious"
AGAINST_DEVIATION = {"aby3": ABY3_MALICIOUS, ABY3_MALICIOUS: ABY3_MALICIOUS, "rep4": "rep4"}


def secured(protocol: str, security: str | None) -> str:
    """The protocol in its form that holds against a party that deviates ("malicious"). ConfigError if it has none."""
    if security is None or (security == SEMI_HONEST and protocol != ABY3_MALICIOUS):
        return protocol
    if security == SEMI_HONEST:
        return "aby3"
    if security != MALICIOUS:
        raise ConfigError(f"`security` must be '{SEMI_HONEST}' or '{MALICIOUS}', got {security!r}.")
    if _known(protocol) not in AGAINST_DEVIATION:
        raise ConfigError(
            f"`protocol` {protocol!r} does not hold against parties that deviate: `security` 'malicious' is for 'aby3' "
            "(three parties) and 'rep4' (four)."
        )
    return AGAINST_DEVIATION[protocol]


def sound_default(n: int) -> str:
    """The protocol for n computing parties if nobody names one. ConfigError for one party."""
    if n < 2:
        raise ConfigError(
            f"{n} computing party: secret sharing needs two or more. `protocol` 'ref2k' computes "
            "in the clear, if that is meant."
        )
    return SOUND.get(n, "semi2k")


def usual_parties(name: str) -> int:
    """How many parties compute if nobody says."""
    return PROTOCOLS[name].parties if name in PROTOCOLS else 3


@cache
def _built(build: Callable[[int, int], Protocol], world_size: int, others: int) -> Protocol:
    return build(world_size, others)


def _protocol(name: str, world_size: int, others: int) -> Protocol:
    return _built(PROTOCOLS[_known(name)].build, world_size, others)


def protocol_of(config: Config) -> Protocol:
    """The protocol that a configuration names, for its number of parties."""
    protocol = _protocol(config.protocol, config.world_size, len(config.others))
    if protocol.world_size != config.world_size:
        others = "Others can take part without computing: see `others` of Config, `compute` in the cluster file."
        raise ConfigError(
            f"`protocol` {config.protocol!r} runs among {protocol.world_size} parties, got {config.world_size}: "
            f"{', '.join(config.parties)}. {'It has no others.' if protocol.verified else others}"
        )
    if config.ring_bits == 128 and (protocol.proved or config.protocol in BY_OBLIVIOUS_TRANSFER.values()):
        raise ConfigError(f"`protocol` {config.protocol!r} has rings of 32 and 64 bits, got `ring` 128: use 64.")
    return protocol


def has_dealer(name: str) -> bool:
    """Whether a protocol has a dealer, a process beside the parties."""
    return _protocol(name, usual_parties(name), 0).dealer is not None


def rank_names(config: Config) -> tuple[str, ...]:
    """Who takes part, by rank: the parties, others, then the protocol's dealer if it has one."""
    return config.members if protocol_of(config).dealer is None else (*config.members, "dealer")
