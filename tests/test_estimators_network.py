"""Three processes over TLS train, save and predict; three others load the parts and see the same bits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from spuvm.network import make_run_folder, run_parties
from spuvm.runtime.config import Config

pytestmark = pytest.mark.usefixtures("preloaded")

PARTIES = ("alice", "bob", "carol")
SCRIPT = """
import sys
import numpy as np
import spuvm as spu
from spuvm import ml

party, config, folder, job = sys.argv[1:]
spu.init(party=party, config=config)
r = np.random.default_rng(0)
x, ids = r.normal(size=(40, 4)), np.arange(40)
own = {"alice": {"a": x[:, 0], "b": 1000 * x[:, 1]}, "bob": {"c": x[:, 2]}, "carol": {"y": (x @ [2, -1, 1, 0] > 0) + 0}}
frame = spu.data.vertical({p: {"id": ids, **own[p]} if p == party else None for p in own}, "id", missing=False)
folders = {party: f"{folder}/{party}"}
if job == "train":
    model = ml.make_pipeline(ml.StandardScaler(), ml.LogisticRegression(inference=False)).fit(frame, label="y")
    model.save(folders)
else:
    model = ml.load(folders)
seen = model.predict_proba(frame, to="carol")
if party == "carol":
    np.save(f"{folder}/{job}.npy", seen.value)
spu.shutdown()
"""


def test_a_pipeline_trained_by_three_processes_is_loaded_by_three_others(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    for job in ("train", "load"):
        config = make_run_folder(tmp_path / job, Config("aby3", 64, 18, PARTIES))
        arguments = [str(tmp_path), job]
        commands = {p: [sys.executable, str(tmp_path / "script.py"), p, str(config), *arguments] for p in PARTIES}
        run_parties(commands, timeout=240)
    one, other = (np.load(tmp_path / f"{job}.npy") for job in ("train", "load"))
    assert np.array_equal(one, other) and one.shape == (40, 2)
    assert sorted(p.parent.name for p in tmp_path.glob("*/model.share")) == list(PARTIES)
