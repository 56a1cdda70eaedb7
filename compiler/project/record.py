"""What projection reads of a traced kernel: equations between values and constants, as in a jaxpr."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from spuvm.compiler.project.stage_function import Known


class Value:
    """A value, by identity."""

    __slots__ = ("aval",)

    def __init__(self, aval: Any) -> None:
        self.aval = aval


class Recorded(NamedTuple):
    """An equation; constants stand where they are read."""

    primitive: Any
    params: dict[str, Any]
    invars: Sequence[Value | Known]
    outvars: Sequence[Value]


class Record(NamedTuple):
    invars: Sequence[Value]
    eqns: Sequence[Recorded]
    outvars: Sequence[Value | Known]
    constvars: tuple[()] = ()
