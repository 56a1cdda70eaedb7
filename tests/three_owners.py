"""Three simulated parties, of whom two have a feature each and the third labels; ledgers in the test's own folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spuvm as spu
from spuvm.dp import Budget

PARTIES = ("alice", "bob", "carol")


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ledgers keep their newest entry."""
    monkeypatch.setenv("SPUVM_STATE_DIR", str(tmp_path / "state"))


def budgets(folder: Path, epsilon: float, **more: Any) -> dict[str, Budget]:
    return {p: Budget(epsilon, path=folder / p, **more) for p in PARTIES}


def frame(x: np.ndarray, y: np.ndarray, **more: Any) -> Any:
    """Features x [rows, 2], of which alice has `a` and bob has `b`; carol has `y`, and `more`."""
    ids = np.arange(len(y))
    carol = {"id": ids, "y": y, **more}
    sources = {"alice": {"id": ids, "a": x[:, 0]}, "bob": {"id": ids, "b": x[:, 1]}, "carol": carol}
    return spu.data.vertical(sources, "id", missing=False)
