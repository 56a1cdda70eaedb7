"""The file of a service: who it is, where it and its peers are, what data it has, and its limits.

    party = "alice"
    listen = "0.0.0.0:9443"              # where peers reach this one, its jobs too; not if it only connects outwards
    page = "127.0.0.1:8443"              # where this party's people do
    state = "state"                      # a folder of its own
    policy = "policy.toml"
    ca = "ca.crt"                        # the authority's certificate, or those of all parties, one after another
    certificate = "alice.crt"
    key = "alice.key"
    sql_policy = "sql.toml"              # optional: what queries may use of this party's tables
    crl = "ca.crl"                       # optional: certificates that were taken back
    relay = "relay.example.com:9700"     # optional: where two meet of whom neither can be reached (`spuvm relay`)
    compress = true                      # optional: what jobs send in the open, where it compresses

    [services]                           # every party, this one too, by rank: where its service is reached
    alice = "alice.example.com:9443"
    bob = "bob.example.com:9443"
    carol = "outward"                    # nobody can reach carol: she dials all others

    [fingerprints]                       # optional with an authority: of the parties' keys (`spuvm keys show`)
    bob = "sha256:..."

    [rates]                              # optional: what all jobs together send a peer in a second at most
    carol = "50Mbit"

    [data]                               # this party's catalogue: what jobs may name
    patients = "/data/patients.parquet"

    [limits]                             # all optional
    parallel = 2                         # jobs at once
    job_seconds = 3600
    job_memory_mb = 8192                 # of all processes of a job
    job_cores = 4                        # that a job may use; all, if not given
    grace_seconds = 20                   # how long a job's lost connection may be taken up again
    silence_seconds = 60                 # how long a job waits for a peer
    wait_seconds = 86400                 # how long a job waits for approval
    open_jobs = 20                       # of one asking party
    restarts = 3                         # how often a job that was interrupted runs again

    [oidc]                               # optional: people log in by a provider of identities (`service/oidc.py`)
    issuer = "https://login.example.com"
    client_id = "spuvm"
    redirect = "https://spuvm.example.com:8443/login/callback"

    [retention]                          # optional: what is erased by itself; for ever, if a line is not there
    results_days = 30                    # all that a job left: results, what it printed, shares that it kept
    models_days = 365                    # models, and checkpoints of flows, since they were last written

Paths are relative to the file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spuvm.policy import fields
from spuvm.policy.fields import Field
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.link.parties import Address, parse_address, parse_rate, party_name
from spuvm.runtime.link.trust import check_trust, parse_fingerprint
from spuvm.runtime.located import is_file, located
from spuvm.service import oidc
from spuvm.service.oidc import Oidc

OUTWARD = "outward"
LIMITS = {
    "parallel": Field(fields.whole(1, 64), 2),
    "job_seconds": Field(fields.seconds, 3600.0),
    "job_memory_mb": Field(fields.whole(256, 1 << 20), 8192),
    "job_cores": Field(fields.whole(1, 4096), None),
    "grace_seconds": Field(fields.seconds, 20.0),
    "silence_seconds": Field(fields.seconds, 60.0),
    "wait_seconds": Field(fields.seconds, 86400.0),
    "open_jobs": Field(fields.whole(1, 100_000), 20),
    "restarts": Field(fields.whole(0, 1000), 3),
}
FILE = {
    "party": Field(fields.text),
    "listen": Field(fields.text, None),
    "page": Field(fields.text, "127.0.0.1:8443"),
    "state": Field(fields.text),
    "policy": Field(fields.text),
    "ca": Field(fields.text),
    "certificate": Field(fields.text),
    "key": Field(fields.text),
    "crl": Field(fields.text, None),
    "relay": Field(fields.text, None),
    "sql_policy": Field(fields.text, None),
    "compress": Field(fields.flag, False),
    "services": Field(fields.table_of(fields.text)),
    "fingerprints": Field(fields.table_of(fields.text), {}),
    "rates": Field(fields.table_of(fields.text), {}),
    "data": Field(fields.table_of(fields.text), {}),
    "limits": Field(lambda value: value, {}),
    "oidc": Field(lambda value: value, None),
    "retention": Field(lambda value: value, {}),
}
RETENTION = {
    "results_days": Field(fields.days, None),
    "models_days": Field(fields.days, None),
}


@dataclass(frozen=True)
class Limits:
    parallel: int
    job_seconds: float
    job_memory_mb: int
    job_cores: int | None
    grace_seconds: float
    silence_seconds: float
    wait_seconds: float
    open_jobs: int
    restarts: int


@dataclass(frozen=True)
class Retention:
    """In days; None: for ever."""

    results_days: float | None
    models_days: float | None


@dataclass(frozen=True)
class Settings:
    party: str
    listen: Address | None
    page: Address
    state: Path
    policy: Path
    ca: Path
    certificate: Path
    key: Path
    crl: Path | None
    relay: Address | None
    sql_policy: Path | None
    services: Mapping[str, Address | None]
    fingerprints: Mapping[str, str]
    rates: Mapping[str, str]
    compress: bool
    data: Mapping[str, Path]
    limits: Limits
    retention: Retention
    oidc: Oidc | None

    @property
    def peers(self) -> tuple[str, ...]:
        return tuple(name for name in self.services if name != self.party)


def load(path: str | Path) -> Settings:
    """Read and check the file of a service; what it names must be there."""
    with located(path):
        return _load(Path(path))


def _load(path: Path) -> Settings:
    values = fields.read(fields.load(path), FILE, str(path))
    services = {
        party_name(name, f"[services] in {path}"): _reached(name, where, f"[services] in {path}")
        for name, where in values["services"].items()
    }
    if values["party"] not in services or len(services) < 2:
        raise ConfigError(
            f"{path}: [services] must name all parties, `{values['party']}` too: it has {list(services)}."
        )
    relay = None if values["relay"] is None else parse_address(values["relay"], "relay", str(path))
    hidden = [name for name, at in services.items() if at is None]
    if len(hidden) > 1 and relay is None:
        raise ConfigError(f"{path}: {hidden[0]} and {hidden[1]} only connect outwards: set `relay`, where they meet.")
    listens = values["listen"] is not None
    if listens is (services[values["party"]] is None):
        due = "and it lacks `listen`" if not listens else "so it has no `listen`: leave it out"
        where = "connects outwards alone" if listens else "is reached at an address"
        raise ConfigError(f"{path}: [services] says that {values['party']} {where}, {due}.")
    files: dict[str, Any] = {name: path.parent / values[name] for name in ("policy", "ca", "certificate", "key")}
    files |= {name: path.parent / values[name] if values[name] else None for name in ("crl", "sql_policy")}
    for name, file in files.items():
        if file is not None and not is_file(file):
            raise ConfigError(f"{path}: `{name}`: there is no file {file}.")
    pins = _fingerprints(values["fingerprints"], services, path)
    _check_rates(values["rates"], [name for name in services if name != values["party"]], path)
    check_trust(path.parent / values["ca"], files["crl"], {n: pins.get(n) for n in services}, str(path))
    return Settings(
        party=values["party"],
        listen=parse_address(values["listen"], "listen", str(path)) if listens else None,
        relay=relay,
        page=parse_address(values["page"], "page", str(path)),
        state=path.parent / values["state"],
        services=services,
        fingerprints=pins,
        rates=values["rates"],
        compress=values["compress"],
        data={name: path.parent / file for name, file in values["data"].items()},
        retention=Retention(**fields.read(values["retention"], RETENTION, f"[retention] in {path}")),
        oidc=None if values["oidc"] is None else oidc.read(values["oidc"], path),
        limits=Limits(**fields.read(values["limits"], LIMITS, f"[limits] in {path}")),
        **files,
    )


def _fingerprints(table: Mapping[str, str], services: Collection[str], path: Path) -> dict[str, str]:
    pins = {name: parse_fingerprint(pin, f"{name} in {path}") for name, pin in table.items()}
    if unknown := pins.keys() - set(services):
        raise ConfigError(f"{path}: [fingerprints] names {min(unknown)}, and [services] does not: {list(services)}.")
    return pins


def _check_rates(table: Mapping[str, str], peers: Collection[str], path: Path) -> None:
    for name, rate in table.items():
        parse_rate(rate, f"[rates] in {path}, {name}")
        if name not in peers:
            raise ConfigError(f"{path}: [rates] names {name}, which is no peer: {', '.join(peers)} are.")


def _reached(name: str, where: str, file: str) -> Address | None:
    """The address of a service; None if it only connects outwards."""
    return None if where == OUTWARD else parse_address(where, name, file)
