"""The SPU as learning uses it: functions of static arguments, and a record of what is revealed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax

import spuvm as spu
from spuvm.compiler.ir.module import Region
from spuvm.devices import SPU, PYUObject


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
    """An SPU and the reveals of all that it ran."""

    spu: SPU
    _counts: dict[tuple[str, str, tuple[int, ...]], int] = field(default_factory=dict)

    @property
    def members(self) -> tuple[str, ...]:
        """The parties that compute, and then those that only bring data or see results."""
        return self.spu.vm.config.members

    @property
    def reveals(self) -> tuple[Reveal, ...]:
        return tuple(Reveal(*key, times) for key, times in self._counts.items())

    def run(self, function: Callable[..., Any], *args: Any, what: str) -> Any:
        """Run a JAX function; `what` names its reveals, which its compiled program tells."""
        call = self.spu(function)
        for to, shape in _reveals(call.compile(*args).module.body):  # type: ignore[attr-defined]
            self._note(what, "all parties" if isinstance(to, str) else self.members[to], shape)
        return call(*args)

    def share(self, x: PYUObject) -> Any:
        """The arrays of a party as secrets, shared once."""
        return x.to(self.spu)

    def matrix(self, x: PYUObject) -> Any:
        """A party's array in the form in which its products with secrets are cheap; made once."""
        return self.spu(spu.masked)(x)

    def reveal(self, x: Any, what: str) -> Any:
        """To all parties."""
        for leaf in jax.tree.leaves(x):
            self._note(what, "all parties", leaf.shape)
        return spu.reveal(x)

    def to(self, x: Any, party: str, what: str) -> Any:
        """To one party: a PYUObject there."""
        self._note(what, party, x.shape)
        return x.to(party)

    def _note(self, what: str, to: str, shape: tuple[int, ...]) -> None:
        key = (what, to, tuple(shape))
        self._counts[key] = self._counts.get(key, 0) + 1


def _reveals(region: Region) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """Receiver (a rank, or "public") and shape of every reveal of a program."""
    for op in region.ops:
        if op.name == "reveal":
            yield op.attrs["to"], op.output.shape
        for inner in op.regions:
            yield from _reveals(inner)
