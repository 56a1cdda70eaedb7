"""For tests of flows: parties in this process, and a flow of six numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flows import LOST, PARTIES, RAN, added, both, constant

import spuvm as spu
from spuvm.flow import Flow


@pytest.fixture(autouse=True)
def parties() -> Iterator[None]:
    RAN.clear()
    LOST.clear()
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def small() -> Flow:
    a, b = constant(value=2.0, name="a", tag="a"), constant(value=3.0, name="b", tag="b")
    c = added(a, b, by=1.0, name="c", tag="c")
    d = both(c, width=2.0, name="d", tag="d")
    return Flow("small", high=added(d.high, a, name="e", tag="e"), low=added(d.low, b, name="f", tag="f"))
