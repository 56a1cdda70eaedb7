"""What `spu.init` set up: the parties, in a networked run which one this process is, and how a script ends.

A script that ends says so to all (`shutdown`, or Python's exit): a party that is done while another still calls is an
error at both, as scripts that differ are anywhere else.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spuvm.runtime.config import Config
from spuvm.runtime.engine.device import found
from spuvm.runtime.errors import ConfigError, LinkError, SpuError
from spuvm.runtime.legible import legible
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.link import Link
from spuvm.runtime.link.parties import Cluster
from spuvm.runtime.link.reranked_link import renumbered
from spuvm.runtime.link.tls.connect import connect
from spuvm.runtime.machine.session import Session, abort_on_error
from spuvm.runtime.protocols.registered import has_dealer
from spuvm.vm import VM

END = "end of the script"
FAILED = "its script ended with an error of its own: see its own messages"


@dataclass
class Context:
    """The parties by rank, and in a networked run which of them this process is, and what its operator said."""

    parties: tuple[str, ...]
    party: str | None = None
    link: Link | None = None
    config: Config | None = None
    file: Path | None = None
    dealer: str | None = None
    protocols: tuple[str, ...] | None = None  # that the cluster file allows; None: any
    machines: dict[Config, VM] = field(default_factory=dict)
    device: str | None = None  # that this process's stages run on, see `init`
    made: dict[str, int] = field(default_factory=dict)  # objects of each party so far
    worker: bool = False  # in a session of its own, of which the file does not tell: once lost, it is not made again

    def machine(self, config: Config, kind: Callable[[Session], VM] = VM, stored: Path | None = None) -> VM:
        """The machine of a configuration; ConfigError if the operator does not allow its protocol or truncation."""
        if config not in self.machines:
            self._check_protocol(config.protocol)
            if self.config is not None and self.config.exact and not config.exact:
                raise ConfigError(
                    f'the script asks for truncation = "{config.truncation}", and {self.file} says "exact": use that, '
                    "or have every party's operator change the file."
                )
            if self.party is None or self.link is None:
                self.machines[config] = kind(Session(config, device=self.device, stored=stored))
            else:
                names = (*config.members, *(p for p in self.parties if p not in config.members))
                link = renumbered(self.link, names)
                self.machines[config] = kind(Session(config, link.rank, link, device=self.device, stored=stored))
        vm = self.machines[config]
        if stored not in (None, vm.session.stored):
            raise ConfigError(
                f"`stored` is {str(stored)!r} now, and an SPU of this configuration was made with "
                f"{str(vm.session.stored)!r}: it is said once, at the first."
            )
        return vm

    def _check_protocol(self, protocol: str) -> None:
        if self.protocols is not None and protocol not in self.protocols:
            raise ConfigError(
                f"the script asks for protocol {protocol}, and {self.file} allows {', '.join(self.protocols)}: use "
                "that, or have every party's operator add it to the file's `protocols`."
            )

    def others(self, parties: tuple[str, ...], protocol: str) -> tuple[str, ...]:
        """Who takes part beside the computing parties; without the dealer, if it is one of the session's."""
        rest = tuple(p for p in self.parties if p not in parties)
        if self.party is None:
            return rest
        self._check_protocol(protocol)
        if has_dealer(protocol):
            dealer = self.dealer or (rest[-1] if rest else None)
            if dealer not in rest:
                raise ConfigError(
                    f"protocol {protocol} needs a dealer that is none of the parties {', '.join(parties)}: add it to "
                    "the cluster file, and set `dealer` to its name."
                )
            return tuple(p for p in rest if p != dealer)
        if self.dealer is not None:
            raise ConfigError(
                f"the cluster file names {self.dealer} as dealer, but protocol {protocol} has none: leave it out, or "
                "use a protocol that has."
            )
        return rest

    def number(self, party: str) -> int:
        """Of the party's next object: scripts that do the same number their objects alike."""
        self.made[party] = self.made.get(party, 0) + 1
        return self.made[party]

    def propose(self, what: str, value: str) -> None:
        """What all parties' scripts have to say alike before anything else moves; nothing in a simulation."""
        if self.link is not None:
            with abort_on_error(self.link):
                self.link.propose({what: value.encode()}, note=f"{what}: {value}")


_context: Context | None = None


def init(
    parties: Iterable[str] | None = None,
    address: str | None = None,
    *,
    party: str | None = None,
    config: Any = None,
    timeout: float | None = None,
    device: str | None = None,
) -> None:
    """Set up the devices; call it again to start anew.

    Args:
        parties: names, for a simulation in this process; a set is ordered by name.
        address: "local" for the simulation.
        party: for a networked run, the party that this process is.
        config: for a networked run, the path of the cluster file (TOML).
        timeout: seconds that any wait for a peer may take; the file's if not given.
        device: what this process computes its shares on, by XLA: any device that JAX has here, as "gpu", "gpu:1" or
            "cpu". Without it (and without SPUVM_DEVICE) the vector engine computes, on the processor. Each party may
            choose its own: all give the same bits.

    Raises:
        ConfigError: if the arguments do not describe exactly one of the two, or the device is not there.
        LinkError: if the peers cannot be reached, or are not who they should be.
    """
    global _context
    shutdown()
    if device is not None:
        found(device)
    if party is not None or config is not None:
        if party is None or config is None or parties is not None:
            raise ConfigError("a networked run takes `party` and `config`, a simulation `parties` and address='local'.")
        cluster = load_cluster(config)
        _context = _joined(cluster, party, Path(config).absolute(), connect(cluster, party, timeout))
        _context.device = device
        return
    if parties is None:
        raise ConfigError("`parties` is missing: give the names for a simulation, or `party` and `config`.")
    if address not in (None, "local"):
        raise ConfigError(f"`address` must be 'local', got {address!r}: for a network give `party` and `config`.")
    names = sorted(parties) if isinstance(parties, set | frozenset) else list(parties)
    if len(set(names)) != len(names) or not names or not all(isinstance(n, str) and n for n in names):
        raise ConfigError(f"`parties` must be different, non-empty names, got {names}.")
    _context = Context(tuple(names), device=device)


def join(cluster: Cluster, party: str, file: str, timeout: float | None, device: str | None) -> None:
    """Be a worker of a party in this cluster, which is that of the file but for where its workers are; see `init`."""
    global _context
    shutdown()
    if device is not None:
        found(device)
    _context = _joined(cluster, party, Path(file), connect(cluster, party, timeout))
    _context.device, _context.worker = device, True


def _joined(cluster: Cluster, party: str, file: Path, link: Link) -> Context:
    return Context(cluster.names, party, link, cluster.config, file, cluster.dealer, cluster.protocols)


def shutdown() -> None:
    """End the script's part in a networked run, and forget the devices.

    All parties have to come to this point: it waits for them, as long as any wait may take. While an exception is on
    its way, the others are told that this party stops.

    Raises:
        PeerMismatchError: at every party, if another still calls.
        LinkError: if a party is lost, stops, or does not come to its end in time.
    """
    global _context
    context, _context = _context, None
    if context is None or context.link is None:
        return
    error = sys.exception()
    try:
        with context.link as link:
            if error is not None and not (isinstance(error, SystemExit) and not error.code):
                link.abort(FAILED)
            elif not link.failed:
                link.agree(END, b"", note=END)
    finally:
        for vm in context.machines.values():
            vm.session.close_store()


@contextmanager
def instead(context: Context) -> Iterator[None]:
    """Other devices while the body runs, such as those of a rehearsal; then those that there were."""
    global _context
    before, _context = _context, context
    try:
        yield
    finally:
        _context = before


def here() -> Context:
    """What `init` set up; ConfigError before it."""
    if _context is None:
        raise ConfigError("no devices yet: call `spu.init(parties=[...], address='local')` first.")
    return _context


def current() -> Context | None:
    """What `init` set up; None before it."""
    return _context


def everyone() -> tuple[tuple[str, ...], Link | None]:
    """All parties that `init` named, by rank of the link between them; None of a simulation.

    Raises ConfigError before `init`.
    """
    context = here()
    return context.parties, context.link


def default_parties() -> tuple[str, ...] | None:
    """All parties that `init` named; None before `init`."""
    return None if _context is None else _context.parties


def whereabouts() -> tuple[str, Path] | None:
    """Of a networked run, the party that this process is, and the cluster file."""
    if _context is None or _context.party is None or _context.file is None:
        return None
    return _context.party, _context.file


def abort_everyone_on_error() -> AbstractContextManager[None]:
    """If the block fails here, the other parties stop, too, and learn why; see `session.abort_on_error`."""
    return abort_on_error(here().link)


def agree(what: str, value: bytes) -> None:
    """Check that every party's script says the same; in a simulation there is only one.

    Raises:
        PeerMismatchError: if it does not, at every party.
    """
    link = here().link
    if link is not None:
        link.agree(what, value)


def anyone(flag: bool) -> bool:
    """Whether any party's script says so; in a simulation there is only one."""
    link = here().link
    return (
        flag if link is None else any(said != b"\0" for said in link.gather(b"\1" if flag else b"\0", 1, counted=False))
    )


def _at_exit() -> None:
    """A script that ends without `shutdown`: with an exception, or done as the others should be.

    One that could not reach its peers, or lost them, says so by its status: a service runs it again.
    """
    failed = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    link = None if _context is None else _context.link
    if failed is not None and link is not None:
        link.abort(FAILED)
    if isinstance(failed, LinkError):
        return _exit(failed)
    if failed is not None or link is None:
        return
    try:
        shutdown()
    except SpuError as error:
        print(f"error: {legible(str(error), lines=True)}", file=sys.stderr)
        _exit(error)


def _exit(error: SpuError) -> None:
    """Python has its exit status by now: only this changes it."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(error.exit_status)


atexit.register(_at_exit)
