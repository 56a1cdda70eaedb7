"""What calling a component gives: a node to be, and what stands for its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spuvm.flow.components import Component


@dataclass(frozen=True, eq=False)
class Call:
    """A component with its inputs (`Ref`s, by input) and its parameters."""

    component: Component
    inputs: Mapping[str, tuple[Any, ...]]
    parameters: Mapping[str, Any]
    name: str | None = None
    retries: int = 0


@dataclass(frozen=True, eq=False)
class Ref:
    """An output of a node; other components take it as an input."""

    call: Call
    output: str

    def __repr__(self) -> str:
        return f"<{self.output} of {self.call.name or self.call.component.name}>"
