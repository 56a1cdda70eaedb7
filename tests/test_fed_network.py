"""Three processes over TLS train what one process does that simulates them, to the last bit; a liar ends it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import spuvm as spu
from spuvm.network import run_parties
from spuvm.runtime.link.certificates import make_cluster

pytestmark = pytest.mark.usefixtures("preloaded")

PARTIES = ("alice", "bob", "carol")
LIMIT = 240
SCRIPT = """
import json, sys
import jax, jax.numpy as jnp, numpy as np, optax
import spuvm as spu

PARTIES = ("alice", "bob", "carol")
START = {"w": jnp.zeros(4), "b": jnp.zeros(())}

def rows(n):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return {"x": x, "y": (x @ np.array([1.0, -2.0, 0.5, 3.0]) + 1).astype(np.float32)}

def loss(p, b):
    return jnp.mean((b["x"] @ p["w"] + p["b"] - b["y"]) ** 2)

def go(folder, me=None):
    sizes = dict(zip(PARTIES, (20, 50, 30)))
    data = {p: rows(n) if me in (None, p) else None for p, n in sizes.items()}
    return spu.fed.train(
        loss, START, optax.sgd(0.1), data, rounds=3, local_steps=2, batch_size=8, seed=1, personal="b", eval=loss,
        strategy="scaffold", attend={"bob": lambda r: r != 1}, checkpoint=folder,
    )

if __name__ == "__main__":
    me, config, folder = sys.argv[1:]
    spu.init(party=me, config=config)
    model = go(folder, me)
    print(json.dumps([model.vector.tolist(), list(model.history), float(model.at(me).value["b"])]))
    spu.shutdown()
"""


def test_three_processes_train_what_a_simulation_does(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(SCRIPT)
    config = make_cluster(tmp_path / "keys", PARTIES)
    commands = {p: [sys.executable, str(tmp_path / "job.py"), p, str(config), str(tmp_path / "kept")] for p in PARTIES}
    done = run_parties(commands, timeout=LIMIT)
    found = {p: json.loads(o.stdout) for p, o in done.items()}
    space: dict[str, object] = {"__name__": "job"}
    exec(SCRIPT, space)
    spu.init(parties=PARTIES, address="local")
    model = space["go"](tmp_path / "here")  # type: ignore[operator]
    for p in PARTIES:
        vector, history, own = found[p]
        assert vector == model.vector.tolist()
        assert history == list(model.history)
        assert own == float(spu.reveal(model.at(p))["b"])
        assert (tmp_path / "kept" / p / "round3.npz").exists()
    spu.shutdown()
