"""A model's parts on disk: the same predictions from other objects, and parts that do not belong are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spuvm as spu
from spuvm.data import Column
from spuvm.ml import Sgb, load
from spuvm.ml.vertical import pack, unpack
from spuvm.runtime.errors import InputError

PARTIES = ("alice", "bob", "carol")


@pytest.fixture
def parties() -> Iterator[tuple[str, ...]]:
    spu.init(parties=PARTIES, address="local")
    yield PARTIES
    spu.shutdown()


def trained(seed: int = 0, **parameters: Any) -> tuple[Sgb, Any]:
    """Labels at carol; a private category at alice, infinite edges (fewer values than bins) at bob."""
    r = np.random.default_rng(seed)
    a, b, w = r.normal(size=60), r.integers(0, 3, 60).astype(float), r.choice(["x", "y", "z"], 60)
    ids = np.arange(60)
    label = a + b + (w == "y") > 1
    sources = {"alice": {"id": ids, "a": a, "w": w}, "bob": {"id": ids, "b": b}, "carol": {"id": ids, "label": label}}
    frame = spu.data.vertical(sources, "id", missing=False)
    return Sgb(n_estimators=2, max_depth=2, max_bin=6, **parameters).fit(frame, "label"), frame


def folders(root: Path) -> dict[str, Path]:
    return {p: root / p for p in PARTIES}


@pytest.mark.parametrize("known", [False, True])
def test_a_loaded_model_predicts_the_same_bits(parties: Any, tmp_path: Path, known: bool) -> None:
    model, frame = trained(reveal_splits_to_owner=known)
    before = spu.reveal(model.predict_margin(frame))
    seen = model.predict_proba(frame, to="carol").value
    model.save(folders(tmp_path))
    assert sorted(p.name for p in tmp_path.glob("*/*")) == ["model.share"] * 3
    loaded = load(folders(tmp_path))
    assert np.array_equal(before, spu.reveal(loaded.predict_margin(frame)))
    assert np.array_equal(seen, loaded.predict_proba(frame, to="carol").value)
    assert loaded.get_params() == model.get_params() | {"device": loaded.device}
    assert loaded.reveal().trees == model.reveal().trees
    assert loaded.feature_importance("total_gain") == model.feature_importance("total_gain")


def test_parts_that_are_damaged_or_of_another_model_are_refused(parties: Any, tmp_path: Path) -> None:
    model, _ = trained()
    model.save(folders(tmp_path / "one"))
    model.save(folders(tmp_path / "two"))
    mixed = {**folders(tmp_path / "one"), "bob": tmp_path / "two" / "bob"}
    with pytest.raises(InputError, match="belongs to other shares"):
        load(mixed)
    swapped = {**folders(tmp_path / "one"), "bob": tmp_path / "one" / "carol"}
    with pytest.raises(InputError, match="is the part of carol, not of bob"):
        load(swapped)
    part = tmp_path / "one" / "carol" / "model.share"
    content = bytearray(part.read_bytes())
    content[-5] ^= 1
    part.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        load(folders(tmp_path / "one"))


def test_what_an_owner_alone_knows_is_kept_exactly() -> None:
    columns = (Column("a", "alice", "float", False), Column("w", "alice", "category", False, None))
    edges = [np.array([-1e30, 1e-30, np.inf], np.float32), np.array([2, 0, 1, -1], np.float32)]
    kept, categories = unpack(pack(edges, {"w": ("ä", "b", "c")}), columns, 4)
    assert all(np.array_equal(x, y) for x, y in zip(kept, edges, strict=True))
    assert categories == {"w": ("ä", "b", "c")}
    assert len(pack(edges, {"w": ("x",)})) == len(pack(edges, {"w": ("ä", "b", "c")}))
