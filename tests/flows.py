"""Components for tests of flows that cost nothing, and the flows of the examples."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import spuvm as spu
from spuvm.flow.kinds import Findings, Number, PartyTable, Report
from spuvm.flow.parameters import Party
from spuvm.ml.common.rules import between

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "flow" / "credit.py"


def example(name: str) -> Any:
    """A module of `examples/flow`."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLE.with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_CREDIT = example("credit")
PARTIES: tuple[str, ...] = _CREDIT.PARTIES
credit, credit_tables = _CREDIT.credit, _CREDIT.tables
RAN: list[str] = []  # what ran, by what the node was told


class Both(NamedTuple):
    """Two numbers."""

    low: Number
    high: Number


@spu.component(name="test_constant")
def constant(*, value: float, tag: str = "") -> Number:
    """A number."""
    RAN.append(tag)
    return value


@spu.component(name="test_added")
def added(x: Number, y: Number, *, by: Annotated[float, between(-100, 100), "more"] = 0.0, tag: str = "") -> Number:
    """A sum."""
    RAN.append(tag)
    return x + y + by


@spu.component(name="test_both")
def both(x: Number, *, width: float = 1.0, tag: str = "") -> Both:
    """A number less and more something."""
    RAN.append(tag)
    return Both(x - width, x + width)


@spu.component(name="test_reported")
def reported(x: Number) -> Findings:
    """A number in a report."""
    return Report({"x": x}, {"t": (("a", "b"), ((1, "one"), (2, None)))}, {"line": ((0, 1), (0, x))})


@spu.component(name="test_meeting")
def meeting(x: Number, *, number: int, of: int, folder: str) -> Findings:
    """A number, once so many trials have begun."""
    (Path(folder) / str(number)).touch()
    end = time.monotonic() + 600
    while len(list(Path(folder).iterdir())) < of:
        if time.monotonic() > end:
            raise TimeoutError("the others do not come")
        time.sleep(0.02)
    if number == 13:
        raise ValueError("an unlucky number")
    return Report({"number": x + number})


@spu.component(name="test_failing")
def failing(x: Number, *, message: str = "no luck") -> Number:
    """Never a number."""
    raise ValueError(message)


@spu.component(name="test_lost", kept=False)
def lost(x: Number, *, times: int) -> Number:
    """A number, once a link was lost so often."""
    LOST.append(1)
    if len(LOST) <= times:
        raise spu.errors.PeerLostError("bob closed the connection.")
    return x


LOST: list[int] = []


@spu.component(name="test_local", at="party")
def local(*, party: Party, rows: int) -> PartyTable:
    """A table that a party makes."""
    import pyarrow as pa

    RAN.append(party)
    return spu.PYU(party)(lambda: pa.table({"id": list(range(rows))}))()
