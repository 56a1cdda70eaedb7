"""Flows for tests: cheap components, and a credit flow over three parties' small tables."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np

import spuvm as spu
from spuvm.flow import Flow, find
from spuvm.flow.kinds import Findings, Number, PartyTable, Report
from spuvm.flow.parameters import Party
from spuvm.ml.common.rules import between

PARTIES = ("alice", "bob", "carol")
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


def credit_tables(rows: int = 60) -> dict[str, dict[str, Any]]:
    """Three parties' tables: ids that not all have, numbers, a text, a label."""
    g = np.random.default_rng(5)
    x = g.normal(size=(rows, 3))
    bad = (x.sum(axis=1) + g.normal(size=rows) / 4 > 0).astype(int)
    a, b, c = (np.sort(g.permutation(rows)[: rows - k]) for k in (2, 3, 1))
    return {
        "alice": {"loans": {"id": a, "income": x[a, 0], "age": 20.0 + a % 41}},
        "bob": {"bills": {"id": b, "debt": x[b, 1]}},
        "carol": {"labels": {"id": c, "late": x[c, 2], "bad": bad[c]}},
    }


def credit(trees: int = 1) -> Flow:
    """Read, match, split, bin, boost, evaluate, and a score card."""
    tables = [find("read")(party=p, table=t, name=t) for p, own in credit_tables(8).items() for t in own]
    rows = find("match")(*tables, key="id")
    train, test = find("split")(rows, test_size=0.3)
    binned = find("bin")(train, label="bad", n_bins=4)
    model = find("sgb")(binned.data, label="bad", n_estimators=trees, max_depth=2, max_bin=4, name="boost")
    quality = find("evaluate")(model, find("transform")(binned.model, test), label="bad")
    card = find("score_card")(train, label="bad", n_bins=3)
    points = find("score_card_table")(card)
    return Flow("credit", parties=PARTIES, quality=quality, points=points)
