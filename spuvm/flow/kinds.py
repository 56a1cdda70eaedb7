"""What travels on a flow's edges: kinds of values, which types of components' arguments name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from spuvm.data import Frame
from spuvm.devices import PYUObject
from spuvm.objects import SPUObject

Cell = float | int | str | None


@dataclass(frozen=True)
class Kind:
    """A kind of values: `holds` says whether a value is one."""

    name: str
    help: str
    holds: Callable[[Any], bool]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Report:
    """Public findings: numbers by name, tables (column names, and rows), and curves (x, y by name)."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Cell]]]] = field(default_factory=dict)
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        tables = {k: [list(names), [list(r) for r in rows]] for k, (names, rows) in self.tables.items()}
        curves = {k: [list(map(float, x)), list(map(float, y))] for k, (x, y) in self.curves.items()}
        return {"numbers": {k: float(v) for k, v in self.numbers.items()}, "tables": tables, "curves": curves}

    @classmethod
    def of_dict(cls, x: Mapping[str, Any]) -> Report:
        """The inverse of `as_dict`."""
        tables = {k: (tuple(names), tuple(map(tuple, rows))) for k, (names, rows) in x["tables"].items()}
        curves = {k: (tuple(a), tuple(b)) for k, (a, b) in x["curves"].items()}
        return cls(dict(x["numbers"]), tables, curves)


@dataclass(frozen=True)
class Written:
    """A file among a party's results. What it holds, and its digest, only the party knows."""

    party: str
    name: str
    digest: PYUObject


def _table(x: Any) -> bool:
    return isinstance(x, PYUObject)


def _frame(x: Any) -> bool:
    return isinstance(x, Frame) or hasattr(x, "blocks")


def _model(x: Any) -> bool:
    return hasattr(x, "to_tree")


def _predictions(x: Any) -> bool:
    return isinstance(x, PYUObject | SPUObject)


def _number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


TABLE = Kind("table", "rows of one party, which it alone sees", _table)
FRAME = Kind("frame", "columns of several parties, rows in one order; some may be secret", _frame)
MODEL = Kind("model", "what an estimator has learned, secret", _model)
PREDICTIONS = Kind("predictions", "one or more numbers a row, secret or at one party", _predictions)
REPORT = Kind("report", "findings that all parties see", lambda x: isinstance(x, Report))
NUMBER = Kind("number", "a public number", _number)
FILE = Kind("file", "a file among one party's results", lambda x: isinstance(x, Written))
KINDS = {k.name: k for k in (TABLE, FRAME, MODEL, PREDICTIONS, REPORT, NUMBER, FILE)}

# Annotations of components' arguments and results.
PartyTable = Annotated[PYUObject, TABLE]
Rows = Annotated[Any, FRAME]
Model = Annotated[Any, MODEL]
Predictions = Annotated[Any, PREDICTIONS]
Findings = Annotated[Report, REPORT]
Number = Annotated[float, NUMBER]
File = Annotated[Written, FILE]
