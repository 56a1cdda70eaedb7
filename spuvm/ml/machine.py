"""The SPU as learning uses it: functions of static arguments, and a record of what is revealed and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

import spuvm as spu
from spuvm import context as contexts
from spuvm.compiler.compile import Program
from spuvm.compiler.ir.module import Region
from spuvm.devices import SPU, PYUObject
from spuvm.vm import VM


@dataclass(frozen=True)
class Reveal:
    """Something that a program, or a request, showed.

    Attributes:
        what: in words.
        to: a party, or "all parties".
        shape: of the values.
        times: how often.
    """

    what: str
    to: str
    shape: tuple[int, ...]
    times: int = 1

    def __str__(self) -> str:
        dims = ",".join(map(str, self.shape))
        return f"{self.what} [{dims}] to {self.to}" + (f", {self.times} times" if self.times > 1 else "")


@dataclass(eq=False)
class Machine:
    """An SPU, and the reveals and programs of all that it ran."""

    spu: SPU
    _counts: dict[tuple[str, str, tuple[int, ...]], int] = field(default_factory=dict)
    _ran: list[tuple[str, Program]] = field(default_factory=list)

    @property
    def members(self) -> tuple[str, ...]:
        """The parties that compute, and then those that only bring data or see results."""
        return self.spu.vm.config.members

    @property
    def reveals(self) -> tuple[Reveal, ...]:
        return tuple(Reveal(*key, times) for key, times in self._counts.items())

    @property
    def costs(self) -> tuple[tuple[str, int, float], ...]:
        """Of what ran, by its name: rounds, and megabytes that all parties sent; of loops that stop early, one trip."""
        out: dict[str, tuple[int, float]] = {}
        for what, program in self._ran:
            rounds, sent = out.get(what, (0, 0.0))
            out[what] = rounds + program.cost.rounds, sent + float(program.cost.bytes_sent.sum()) / 1e6
        return tuple((what, *cost) for what, cost in out.items())

    def run(self, function: Callable[..., Any], *args: Any, what: str, shows: str | None = None) -> Any:
        """Run a JAX function; `shows`, or else `what`, names its reveals, which its compiled program tells."""
        call = self.spu(function)
        program = call.compile(*args)
        for to, shape in _reveals(program.module.body):
            self.note(shows or what, "all parties" if isinstance(to, str) else self.members[to], shape)
        self._ran.append((what, program))
        return call(*args)

    def add(self, other: Machine) -> None:
        """What another machine ran and revealed counts here, too."""
        for key, times in other._counts.items():
            self._counts[key] = self._counts.get(key, 0) + times
        self._ran += other._ran

    def share(self, x: PYUObject) -> Any:
        """The arrays of a party as secrets, shared once."""
        return x.to(self.spu)

    def matrix(self, x: PYUObject) -> Any:
        """A party's array in the form in which its products with secrets are cheap; made once."""
        return self.spu(spu.masked)(x)

    def reveal(self, x: Any, what: str) -> Any:
        """To all parties."""
        for leaf in jax.tree.leaves(x):
            self.note(what, "all parties", leaf.shape)
        return spu.reveal(x)

    def to(self, x: Any, party: str, what: str) -> Any:
        """To one party: a PYUObject there."""
        self.note(what, party, x.shape)
        return x.to(party)

    def note(self, what: str, to: str, shape: tuple[int, ...]) -> None:
        """Remember that something was shown."""
        key = (what, to, tuple(shape))
        self._counts[key] = self._counts.get(key, 0) + 1


class Inside(Machine):
    """In place of a machine inside a jitted function: its operations are that function's own."""

    def __init__(self) -> None:
        self._counts = {}
        self._ran = []

    def run(self, function: Callable[..., Any], *args: Any, what: str, shows: str | None = None) -> Any:
        """The function, called."""
        return function(*args)

    def share(self, x: Any) -> Any:
        """The same: what a function is given is on the machine already."""
        return x

    def reveal(self, x: Any, what: str) -> Any:
        """Public from here on."""
        return spu.reveal(x)


def _reveals(region: Region) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """Receiver (a rank, or "public") and shape of every reveal of a program."""
    for op in region.ops:
        if op.name == "reveal":
            yield op.attrs["to"], op.output.shape
        for inner in op.regions:
            yield from _reveals(inner)


SIMULATED = ("alice", "bob", "carol")  # where `spu.init` was not called
_LAST: list[tuple[VM, SPU]] = []  # the default device keeps what it compiled


def default_device() -> SPU:
    """The SPU among the parties that the cluster file says compute; in a simulation, among the first three.

    Before `spu.init`, three parties are simulated in this process from here on.
    """
    context = contexts.current()
    if context is None:
        spu.init(parties=SIMULATED, address="local")
        context = contexts.here()
    device = SPU(spu.utils.testing.cluster_def(context.config.parties if context.config else context.parties[:3]))
    for vm, known in _LAST:
        if vm is device.vm:
            return known
    _LAST[:] = [(device.vm, device)]
    return device


def is_inside(*values: Any) -> bool:
    """Whether any value is traced: we are inside a jitted function."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def plain(x: Any) -> np.ndarray:
    """A revealed array in double precision."""
    return np.asarray(x, np.float64)
