"""What every estimator must do: score as the known one, load what it saved bit for bit, reveal what was asked."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from estimators import CASES, PARTIES, frame, table

import spuvm as spu
from spuvm import ml
from spuvm.runtime.errors import InputError


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def known(case: Any, x: np.ndarray, y: np.ndarray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return case.theirs().fit(x, y)


def predictions(model: Any, data: Any) -> np.ndarray:
    return np.asarray(model.predict(data, to="carol").value)


@pytest.mark.parametrize("name", CASES)
def test_scores_as_the_known_one_and_is_the_same_from_its_parts(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    for at, chosen in enumerate(case.tables):
        x, y = table(chosen)
        data = frame(chosen)
        model, theirs = case.ours().fit(data, label="y"), known(case, x, y)
        assert {r.what for r in model.reveals} <= case.reveals
        assert model.score(data) >= theirs.score(x, y) - case.tolerance
        if case.coefficients is not None:
            off = np.abs(model.reveal().coef - theirs.coef_.reshape(model.reveal().coef.shape)).max()
            assert off <= case.coefficients * np.abs(theirs.coef_).max()
        if at == 0:
            check_parts(model, data, tmp_path)


def check_parts(model: Any, data: Any, folder: Path) -> None:
    """Saved, loaded, equal bits; a flipped byte is refused."""
    folders = {p: folder / p for p in PARTIES}
    before = predictions(model, data)
    model.save(folders)
    loaded = ml.load(folders)
    assert loaded.get_params() == model.get_params()
    assert np.array_equal(before, predictions(loaded, data))
    part = folder / "bob" / "model.share"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        ml.load(folders)
