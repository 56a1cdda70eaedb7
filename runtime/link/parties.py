"""The parties of a session as its cluster file names them (`link/cluster.py` reads it): addresses, keys, limits."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from spuvm.runtime.config import Config
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.link.trust import meeting
from spuvm.runtime.located import is_file

DEFAULT_AHEAD_MB = 64
RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(kbit|Mbit|Gbit)")
RATE_UNITS = {"kbit": 125.0, "Mbit": 125e3, "Gbit": 125e6}  # bytes a second
HOST = re.compile(r"[\w.-]{1,253}")
LEAST_RATE = 8_000.0
SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,79}")


@dataclass(frozen=True)
class Address:
    """A host and a TCP port."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Party:
    """One entry of the file. `address`: None if nobody can reach it; `listen`: None if it does not listen.

    Where `listen` is a path, connections are handed over there. `rate`: bytes a second that each peer sends it at most.
    """

    name: str
    address: Address | None
    listen: Address | Path | None
    certificate: Path | None = None
    key: Path | None = None
    fingerprint: str | None = None
    rate: float | None = None


@dataclass(frozen=True)
class Cluster:
    """A loaded cluster file; `parties` by rank, `dealer` the name of the last of them if there is one.

    `config.parties` are the computing parties, `config.others` those that are neither in `compute` nor the dealer.
    """

    parties: tuple[Party, ...]
    ca: Path
    timeout_seconds: float
    config: Config
    dealer: str | None = None
    ahead: int = DEFAULT_AHEAD_MB << 20  # bytes
    protocols: tuple[str, ...] = ()  # that a script may ask for, `config.protocol` among them
    crl: Path | None = None
    grace_seconds: float = 0.0
    relay: Address | None = None
    session: str | None = None
    compress: bool = False  # what this party sends, where that makes it shorter
    shared_rates: Path | None = None  # a folder in which this party's sessions count together what they send
    counts: Path | None = None  # a file to which each session of this party adds what it exchanged

    @property
    def meeting(self) -> str:
        """By which name this session is known where connections of several meet: one that outsiders cannot guess."""
        if self.session is not None:
            return self.session
        return meeting(self.ca, self.names)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(party.name for party in self.parties)

    def rank(self, party: str) -> int:
        if party not in self.names:
            raise ConfigError(f"`{party}` is not in the cluster file: its parties are {', '.join(self.names)}.")
        return self.names.index(party)

    def on_host_of(self, party: str) -> int:
        """How many parties have the host of `party` in their addresses, with itself."""
        hosts = [p.address.host if p.address is not None else p.name for p in self.parties]
        return hosts.count(hosts[self.rank(party)])

    def where(self, party: str) -> str:
        """In words, where a party is reached."""
        address = self.parties[self.rank(party)].address
        return "its own connections" if address is None else str(address)

    def credentials(self, party: str) -> tuple[Path, Path]:
        """The certificate and key files of `party`, checked: only that party itself needs them."""
        entry = self.parties[self.rank(party)]
        if entry.certificate is None or entry.key is None:
            raise ConfigError(
                f"[parties.{party}] needs `certificate` and `key` where {party} runs: paths of PEM files."
            )
        for name, path in (("certificate", entry.certificate), ("key", entry.key)):
            if not is_file(path):
                raise ConfigError(f"`{name}` of {party}: there is no file {path}.")
        mode = entry.key.stat().st_mode & 0o777
        if mode & 0o077:
            raise ConfigError(
                f"`key` of {party}: others can read {entry.key} (mode {mode:o}): run `chmod 600 {entry.key}`."
            )
        return entry.certificate, entry.key


def party_name(name: str, where: str) -> str:
    """The name, if a party can have it."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", name):
        raise ConfigError(f"{where}: a party's name has 1 to 63 ASCII letters, digits, `_`, `-` and `.`, got {name!r}.")
    return name


def parse_address(text: str, key: str, where: str) -> Address:
    """`host:port`, the host of IPv6 in brackets."""
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not _is_host(host) or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ConfigError(f"`{key}` of {where} must be `host:port` with a port of 1 to 65535, got {text!r:.100}.")
    return Address(host, int(port))


def _is_host(host: str) -> bool:
    """A name, or an address of IPv4 or IPv6."""
    try:
        return HOST.fullmatch(host) is not None or bool(ipaddress.IPv6Address(host))
    except ValueError:
        return False


def parse_rate(text: object, where: str) -> float:
    """Bytes a second of a text like `50Mbit` (a second)."""
    found = RATE.fullmatch(text) if isinstance(text, str) else None
    rate = 0.0 if found is None else float(found[1]) * RATE_UNITS[found[2]]
    if not LEAST_RATE <= rate <= 1e12:
        units = ", ".join(RATE_UNITS)
        raise ConfigError(
            f"`rate` of {where} must be so much a second, like '50Mbit' ({units}; 64kbit at least), got {text!r:.60}."
        )
    return rate
