"""Files of earlier releases are read: programs, shares and models give what they gave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spuvm as spu
from spuvm import ml
from spuvm.objects import Marked
from spuvm.vm import simulator

KEPT = Path(__file__).parent / "kept"
PARTIES = ("alice", "bob", "carol")
ROWS = 24


@pytest.fixture(params=sorted(p.name for p in KEPT.iterdir() if p.is_dir() and (p / "expected.json").exists()))
def release(request: pytest.FixtureRequest) -> Iterator[tuple[Path, Any]]:
    folder = KEPT / request.param
    spu.init(parties=PARTIES, address="local")
    yield folder, json.loads((folder / "expected.json").read_text())
    spu.shutdown()


def test_files_of_releases_are_read(release: tuple[Path, Any]) -> None:
    folder, expected = release
    program = spu.load(folder / "program.spux")
    assert program.hash == expected["hash"]
    x, y = np.linspace(0, 2, 8, dtype=np.float32), np.linspace(3, -1, 8, dtype=np.float32)
    least, mean = simulator(program.config).run(program, [Marked(x, "secret"), Marked(y, "secret")])
    assert np.allclose(least.known_value(), np.sort(x * y)[:3], atol=1e-4)
    assert float(mean.known_value()) == pytest.approx(float(np.mean(np.exp(-x))), abs=1e-4)
    shares = spu.load_shares({p: folder / p for p in PARTIES})
    assert (shares["n"], shares["names"]) == (3, ["a", "b"])
    assert np.abs(spu.reveal(shares["x"]) - np.array(expected["x"])).max() <= 2.0**-17  # two units of fixed point


def test_models_of_releases_predict_as_they_did(release: tuple[Path, Any]) -> None:
    folder, expected = release
    ids = np.arange(ROWS)
    tables = {"alice": {"id": ids, "a": (ids * 7 % ROWS) / 4.0}, "bob": {"id": ids, "b": (ids * 5 % ROWS) / 3.0}}
    frame = spu.data.vertical(tables, "id")
    for name, atol in (("sgb", 2e-6), ("lr", 2e-4)):
        model = ml.load({p: folder / name / p for p in PARTIES})
        assert np.allclose(model.predict_proba(frame, to="alice").value, expected[name], atol=atol), name
