"""What parties tell each other openly about a run: numbers of rows, types, which blocks are finished."""

from __future__ import annotations

from spuvm.runtime.link.link import Link
from spuvm.vm import VM


def gather(link: Link | None, body: bytes, size: int | None = None, *, counted: bool = True) -> list[bytes]:
    """What every party says, by rank; see `Link.gather`."""
    return [body] if link is None else link.gather(body, size, counted=counted)


def agree(vm: VM, what: str, value: bytes = b"") -> None:
    """Check that all parties say the same."""
    if vm.session.link is not None:
        vm.session.link.agree(what, value)


def my_name(vm: VM) -> str:
    """The name of this party's folder within the run's: several parties may share a disk."""
    link = vm.session.link
    return "simulated" if link is None else link.parties[link.rank]


def is_me(vm: VM, party: str) -> bool:
    """Whether this process is the party, or simulates it."""
    return vm.session.party in (None, vm.config.parties.index(party))
