"""Files that later versions must read: a program, shares, models. `python tests/kept/make.py` writes VERSION/.

They are made once, by the release whose version they carry, and never again.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import spuvm as spu
from spuvm.ml import LogisticRegression, Sgb

PARTIES = ("alice", "bob", "carol")
ROWS = 24


def data() -> dict[str, dict[str, Any]]:
    """Two tables of the same rows, with a label at bob."""
    ids = np.arange(ROWS)
    a, b = (ids * 7 % ROWS) / 4.0, (ids * 5 % ROWS) / 3.0
    return {"alice": {"id": ids, "a": a}, "bob": {"id": ids, "b": b, "y": (a + b > 6).astype(int)}}


def function(x: Any, y: Any) -> Any:
    """What the program computes."""
    return spu.reveal(jnp.sort(x * y)[:3]), spu.reveal(jnp.mean(jnp.exp(-x)), to="party1")


def main(folder: Path) -> None:
    """Write all of it, and what it must give."""
    for party in PARTIES:
        (folder / party).mkdir(parents=True, exist_ok=True)
    folders = {p: folder / p for p in PARTIES}
    spu.init(parties=PARTIES, address="local")
    x, y = np.linspace(0, 2, 8, dtype=np.float32), np.linspace(3, -1, 8, dtype=np.float32)
    compiled = spu.jit(function).compile(x, y)
    compiled.save(folder / "program.spux")
    device = spu.SPU(spu.utils.testing.cluster_def(PARTIES))
    secret = device(lambda v, w: v + w)(spu.PYU("alice")(lambda: x)(), spu.PYU("bob")(lambda: x)())
    spu.save_shares({"x": secret, "n": 3, "names": ["a", "b"]}, folders, "shares")
    frame = spu.data.vertical(data(), "id")
    expected: dict[str, Any] = {"hash": compiled.hash, "x": (2 * x).tolist()}
    models: dict[str, Any] = {"sgb": Sgb(n_estimators=2, max_depth=2, max_bin=8), "lr": LogisticRegression()}
    for name, model in models.items():
        model.fit(frame, "y")
        for party in PARTIES:
            (folder / name / party).mkdir(parents=True, exist_ok=True)
        model.save({p: folder / name / p for p in PARTIES})
        shown = model.predict_proba(frame.drop("y"), to="alice").value
        expected[name] = np.asarray(shown, np.float64).round(6).tolist()
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main(Path(__file__).parent / importlib.metadata.version("spuvm"))
