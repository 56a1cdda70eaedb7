"""Who watches what a script runs and shows: a listener of the current thread or task, such as a flow's node."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from spuvm.compiler.compile import Program


class Watcher(Protocol):
    """What is told."""

    def ran(self, program: Program) -> None:
        """A program is about to run, with all that it reveals."""

    def shown(self, what: str, to: str) -> None:
        """A party hands an object of its own to `to` (a party, or "all parties"), in the clear."""


WATCHER: ContextVar[Watcher | None] = ContextVar("spuvm watcher", default=None)
