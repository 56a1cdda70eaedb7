"""The cluster file: who the parties are, where they listen, and how they prove who they are.

    ca = "ca.crt"                       # the authority that signs all parties' certificates, or all their own
    crl = "ca.crl"                      # optional: the certificates that the authority took back
    timeout_seconds = 60                # optional, as are the next seven
    grace_seconds = 20                  # how long a lost connection may be taken up again; not at all if not given
    protocol = "aby3"                   # if not given: "semi2k_ot" if two compute, else "aby3"
    protocols = ["aby3"]                # that scripts may ask for; `protocol` alone if not given
    ring = 64
    fxp_fraction_bits = 18
    truncation = "probabilistic"        # or "exact": scripts may then ask for nothing else
    optimize = "auto"                   # or "latency", "bandwidth": circuits of fewer rounds, or of fewer bytes
    dealer = "dave"                     # for protocols with a dealer: which of [parties.*] it is
    dealer_ahead_mb = 64                # optional: how far it runs ahead of the parties, at each end
    compute = ["alice", "bob", "carol"] # optional: those that compute, if not all parties do
    relay = "relay.example.com:9700"    # optional: where two parties meet of whom neither can be reached
    session = "trial-7"                 # optional: of several sessions at the same addresses, which this one is
    compress = true                     # optional: what this party sends, where it compresses (`link/tls/packed.py`)
    shared_rates = "rates"              # optional: a folder in which this party's sessions share the `rate`s below
    counts = "counts.jsonl"             # optional: a file to which each session of this party adds what it exchanged

    [parties.alice]                     # parties in the order of their ranks
    address = "alice.example.com:9101"  # where peers reach it
    listen = "0.0.0.0:9101"             # optional: where it listens, if that differs
    certificate = "alice.crt"           # these two are needed by alice alone
    key = "alice.key"
    fingerprint = "sha256:..."          # optional: of alice's public key, whoever signed her certificate
    rate = "50Mbit"                     # optional: how much each peer sends her in a second at most

    [parties.bob]
    outward = true                      # nobody can reach bob: he has no address, and dials all others

Three that trust no authority put their own certificates, one after another, into the file `ca`, and each other's
fingerprints into the entries: a party is then who has that key. A key file may have a passphrase, which comes from
the environment (SPUVM_KEY_PASSPHRASE).

Paths are relative to the file. All parties may use the same file: of the certificates and keys
a party reads only its own. The dealer is listed like a party, anywhere; it has the last rank, gives
out correlated randomness, and has neither inputs nor results. It does not wait for the parties: up to
`dealer_ahead_mb` MiB of what it made wait to be sent, and as much waits at the party that it is sent
to. Parties that `compute` leaves out bring values and are shown results.

A party that listens at `listen = "unix:/run/spuvm/door"` takes connections that another process of its machine
accepted, and hands over there: that one serves several sessions at one port, and knows them by `session`.
"""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from spuvm.runtime.config import DEFAULT_FRACTION_BITS, OPTIMIZE, TRUNCATIONS, Config
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.link.link import DEFAULT_TIMEOUT
from spuvm.runtime.link.parties import (
    DEFAULT_AHEAD_MB,
    SESSION,
    Address,
    Cluster,
    Party,
    parse_address,
    parse_rate,
    party_name,
)
from spuvm.runtime.link.trust import check_trust, parse_fingerprint
from spuvm.runtime.located import is_file, located
from spuvm.runtime.protocols.registered import PROTOCOLS, has_dealer, protocol_of, sound_default

CLUSTER_KEYS = (
    "ca", "crl", "timeout_seconds", "grace_seconds", "protocol", "protocols", "ring", "fxp_fraction_bits", "truncation",
    "optimize", "dealer", "dealer_ahead_mb", "compute", "relay", "session", "compress", "shared_rates", "counts",
    "parties",
)  # fmt: skip
PARTY_KEYS = ("address", "outward", "listen", "certificate", "key", "fingerprint", "rate")
UNIX = "unix:"


def load_cluster(path: str | Path) -> Cluster:
    """Read and check a cluster file. Certificates and keys are checked when a party uses its own."""
    with located(path):
        return _load(Path(path))


def _load(path: Path) -> Cluster:
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The cluster file {path} cannot be read: {error}.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        hint = " (a party may appear only once)" if "twice" in str(error) or "overwrite" in str(error) else ""
        raise ConfigError(f"The cluster file {path} is not valid TOML: {error}{hint}.") from None
    _refuse_unknown(table, CLUSTER_KEYS, f"{path}")
    ca = path.parent / _text(table, "ca", f"{path}")
    crl = path.parent / _text(table, "crl", f"{path}") if "crl" in table else None
    for key, file in (("ca", ca), ("crl", crl)):
        if file is not None and not is_file(file):
            raise ConfigError(f"`{key}` in {path}: there is no file {file}.")
    timeout = table.get("timeout_seconds", DEFAULT_TIMEOUT)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < 1e7:
        raise ConfigError(f"`timeout_seconds` in {path} must be a positive number of seconds, got {timeout!r}.")
    grace = table.get("grace_seconds", 0)
    if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace < 1e7:
        raise ConfigError(f"`grace_seconds` in {path} must be a number of seconds, 0 or more, got {grace!r}.")
    dealer = _text(table, "dealer", f"{path}") if "dealer" in table else None
    parties = _parties(table.get("parties"), path)
    relay = parse_address(_text(table, "relay", f"{path}"), "relay", f"{path}") if "relay" in table else None
    _check_meetings(parties, relay, path)
    check_trust(ca, crl, {party.name: party.fingerprint for party in parties}, f"{path}")
    parties = _computing_first(_dealer_last(parties, dealer, path), _compute(table, dealer, path))
    names = tuple(party.name for party in parties if party.name != dealer)
    count = len(table.get("compute", names))
    config = replace(_config(table, names[:count], path), others=names[count:])
    _check_dealer(config, dealer, path)
    protocols = _protocols(table, config.protocol, path)
    return Cluster(
        *(parties, ca, float(timeout), config, dealer, _ahead(table, dealer, path), protocols, crl, float(grace)),
        relay=relay,
        session=_session(table, path),
        compress=_compress(table, path),
        shared_rates=path.parent / _text(table, "shared_rates", f"{path}") if "shared_rates" in table else None,
        counts=path.parent / _text(table, "counts", f"{path}") if "counts" in table else None,
    )


def _compress(table: dict[str, Any], path: Path) -> bool:
    compress = table.get("compress", False)
    if not isinstance(compress, bool):
        raise ConfigError(f"`compress` in {path} must be true or false, got {compress!r}.")
    return compress


def _session(table: dict[str, Any], path: Path) -> str | None:
    if "session" not in table:
        return None
    session = _text(table, "session", f"{path}")
    if not SESSION.fullmatch(session):
        raise ConfigError(
            f"`session` in {path} must have 1 to 80 ASCII letters, digits, `-` and `.`, and begin with one of the "
            f"first two, got {session!r:.100}."
        )
    return session


def _check_meetings(parties: tuple[Party, ...], relay: Address | None, path: Path) -> None:
    hidden = [p.name for p in parties if p.address is None]
    if len(hidden) > 1 and relay is None:
        raise ConfigError(
            f"{hidden[0]} and {hidden[1]} in {path} only connect outwards, so they cannot meet: set `relay` to the "
            "address of a relay (`spuvm relay`), or give one of them an `address`."
        )


def _protocols(table: dict[str, Any], usual: str, path: Path) -> tuple[str, ...]:
    protocols = table.get("protocols", [usual])
    if not isinstance(protocols, list) or not all(isinstance(p, str) and p in PROTOCOLS for p in protocols):
        known = ", ".join(PROTOCOLS)
        raise ConfigError(f"`protocols` in {path} must be a list of names among {known}, got {protocols!r}.")
    if usual not in protocols:
        raise ConfigError(f"`protocols` in {path} must have the file's own `protocol`, {usual}: got {protocols!r}.")
    return tuple(protocols)


def _ahead(table: dict[str, Any], dealer: str | None, path: Path) -> int:
    ahead = table.get("dealer_ahead_mb", DEFAULT_AHEAD_MB)
    if isinstance(ahead, bool) or not isinstance(ahead, int) or not 0 <= ahead <= 1 << 20:
        raise ConfigError(f"`dealer_ahead_mb` in {path} must be a number of MiB, 0 or more, got {ahead!r}.")
    if dealer is None and "dealer_ahead_mb" in table:
        raise ConfigError(f"`dealer_ahead_mb` in {path} is for a dealer: set `dealer`, or leave it out.")
    return ahead << 20


def _parties(entries: Any, path: Path) -> tuple[Party, ...]:
    if not isinstance(entries, dict) or len(entries) < 2:
        raise ConfigError(f"{path} needs at least two parties: add a table [parties.NAME] for each.")
    parties = tuple(_party(name, entry, path) for name, entry in entries.items())
    for attribute in ("address", "certificate", "key", "fingerprint"):
        seen: dict[Any, str] = {}
        for party in parties:
            value = getattr(party, attribute)
            if value is not None and value in seen:
                raise ConfigError(
                    f"{seen[value]} and {party.name} have the same `{attribute}` {value} in {path}: "
                    "each party needs its own."
                )
            seen[value] = party.name
    return parties


def _dealer_last(parties: tuple[Party, ...], dealer: str | None, path: Path) -> tuple[Party, ...]:
    names = [party.name for party in parties]
    if dealer is not None and dealer not in names:
        raise ConfigError(
            f"`dealer` in {path} must be one of {', '.join(names)}, got {dealer!r}: add a table [parties.{dealer}]."
        )
    return tuple(sorted(parties, key=lambda party: party.name == dealer))


def _compute(table: dict[str, Any], dealer: str | None, path: Path) -> list[str]:
    """The setting `compute`, checked against the parties of the file."""
    names = [name for name in table["parties"] if name != dealer]
    compute = table.get("compute", names)
    if not isinstance(compute, list) or not compute or any(c not in names for c in compute):
        raise ConfigError(f"`compute` in {path} must be a list of names among {', '.join(names)}, got {compute!r}.")
    if len(set(compute)) < len(compute):
        raise ConfigError(f"`compute` in {path} names a party twice: {', '.join(compute)}.")
    return compute


def _computing_first(parties: tuple[Party, ...], compute: list[str]) -> tuple[Party, ...]:
    """The computing parties in their order, then others, then the dealer: the order of the ranks."""
    last = len(compute)
    return tuple(sorted(parties, key=lambda p: compute.index(p.name) if p.name in compute else last))


def _check_dealer(config: Config, dealer: str | None, path: Path) -> None:
    needed = has_dealer(config.protocol)
    if needed and dealer is None:
        raise ConfigError(
            f"{path} needs a dealer for protocol {config.protocol!r}: set `dealer` to the name of one of "
            "[parties.*], which colludes with nobody and computes nothing else."
        )
    if dealer is not None and not needed:
        raise ConfigError(
            f"`dealer` in {path} is {dealer!r}, but protocol {config.protocol!r} has none: leave `dealer` out, "
            "or set `protocol` to one that has."
        )
    if needed:
        protocol_of(config)  # refuses too few parties beside the dealer


def _party(name: str, entry: Any, path: Path) -> Party:
    where = f"[parties.{name}] in {path}"
    party_name(name, where)
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} must be a table with {', '.join(PARTY_KEYS)}.")
    _refuse_unknown(entry, PARTY_KEYS, where)
    address = _address(entry, where)
    listen = _listen(_text(entry, "listen", where), where, path) if "listen" in entry else address
    files = {key: path.parent / _text(entry, key, where) for key in ("certificate", "key") if key in entry}
    pin = _text(entry, "fingerprint", where) if "fingerprint" in entry else None
    return Party(
        name,
        address,
        listen,
        **files,
        fingerprint=None if pin is None else parse_fingerprint(pin, where),
        rate=parse_rate(entry["rate"], where) if "rate" in entry else None,
    )


def _address(entry: dict[str, Any], where: str) -> Address | None:
    outward = entry.get("outward", False)
    if not isinstance(outward, bool):
        raise ConfigError(f"`outward` of {where} must be true or false, got {outward!r}.")
    if outward and ("address" in entry or "listen" in entry):
        raise ConfigError(f"{where} only connects outwards: it has neither `address` nor `listen`.")
    if not outward and "address" not in entry:
        raise ConfigError(f"{where} lacks `address`; or set `outward = true`, if nobody can reach it.")
    return None if outward else parse_address(_text(entry, "address", where), "address", where)


def _listen(text: str, where: str, path: Path) -> Address | Path:
    if text.startswith(UNIX):
        return path.parent / text.removeprefix(UNIX)
    return parse_address(text, "listen", where)


def _config(table: dict[str, Any], names: tuple[str, ...], path: Path) -> Config:
    protocol = table.get("protocol", sound_default(2) if len(names) == 2 else "aby3")
    ring = table.get("ring", 64)
    bits = table.get("fxp_fraction_bits", DEFAULT_FRACTION_BITS.get(ring) if isinstance(ring, int) else None)
    truncation = table.get("truncation", TRUNCATIONS[0])
    optimize = table.get("optimize", OPTIMIZE[0])
    for key, value, kind in (
        ("protocol", protocol, str),
        ("ring", ring, int),
        ("fxp_fraction_bits", bits, int),
        ("truncation", truncation, str),
        ("optimize", optimize, str),
    ):
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ConfigError(f"`{key}` in {path} must be of type {kind.__name__}, got {value!r}.")
    return Config(protocol, ring, bits or 0, names, truncation=truncation, optimize=optimize)


def _text(table: dict[str, Any], key: str, where: str) -> str:
    if key not in table:
        raise ConfigError(f"{where} lacks `{key}`.")
    value = table[key]
    if not isinstance(value, str) or not value:
        raise ConfigError(f"`{key}` of {where} must be a text, got {value!r}.")
    return value


def _refuse_unknown(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = [key for key in table if key not in known]
    if unknown:
        raise ConfigError(f"{where} has an unknown key `{unknown[0]}`: known are {', '.join(known)}.")
