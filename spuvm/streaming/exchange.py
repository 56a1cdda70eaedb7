"""What parties tell each other openly about a run: numbers of rows, types, which blocks are finished."""

from __future__ import annotations

import numpy as np

from spuvm.runtime.link.link import Link
from spuvm.vm import VM


def tell_all(link: Link | None, body: bytes) -> list[bytes]:
    """What every party says, by rank."""
    if link is None:
        return [body]
    sizes = {p: np.zeros(8, np.uint8) for p in link.peers}
    size = memoryview(len(body).to_bytes(8, "big"))
    link.exchange({p: [size] for p in link.peers}, {p: [x] for p, x in sizes.items()})
    heard = {p: np.zeros(int.from_bytes(x.tobytes(), "big"), np.uint8) for p, x in sizes.items()}
    link.exchange({p: [memoryview(body)] for p in link.peers}, {p: [x] for p, x in heard.items()})
    said = {p: x.tobytes() for p, x in heard.items()} | {link.rank: body}
    return [said[rank] for rank in sorted(said)]


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
