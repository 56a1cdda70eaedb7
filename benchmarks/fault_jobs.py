"""What three parties run while faults strike them (`faults.py`): small programs, and how their results are judged."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import spuvm as spu
from spuvm import cli
from spuvm.ml import Sgb, load
from spuvm.network import party_command

PARTIES = ("alice", "bob", "carol")
HOSPITALS = Path(__file__).parent.parent / "examples" / "hospitals"

PROGRAM = """
import jax.numpy as jnp
import spuvm as spu
from jax import lax

def program(x, y):
    total = lax.fori_loop(0, 400, lambda _, t: jnp.where(t > y, x, t + x * y * 0.01), x)
    return spu.reveal(total, to="carol")
"""

# Each party runs these with its name, the cluster file, the folder of inputs and where the result goes.
HEAD = """
import sys
import jax.numpy as jnp
import numpy as np
import spuvm as spu

me, config, inputs, output = sys.argv[1:]
spu.init(party=me, config=config)
print("connected", flush=True)
"""

SCRIPT = """
alice, bob, carol = map(spu.PYU, ("alice", "bob", "carol"))
dev = spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"]))
x, y = alice(lambda: np.float32([1, 2, 3]))(), bob(lambda: np.float32([9, 8, 7]))()
step = dev(lambda t, x, y: jnp.where(t > y, x, t + x * y * 0.01))
t = dev(lambda x: x)(x)
for _ in range(60):
    t = step(t, x, y)
carol(lambda v: np.save(output, v))(t.to(carol))
spu.shutdown()
"""

STREAM = """
sources = {"x": f"{inputs}/x.parquet:x@alice", "y": f"{inputs}/y.parquet:y@bob"}
rows = spu.stream(sources, rows_per_block=40, progress=False)
rows.map(lambda x, y: {"p": x * y, "less": x < y}).to_parquet(output, "carol")
spu.shutdown()
"""

BOOSTING = """
from spuvm.ml import Sgb
table = spu.data.vertical({p: f"{inputs}/{p}.csv" for p in ("alice", "bob", "carol")}, key="name")
model = Sgb(n_estimators=2, max_depth=2, max_bin=4)
model.fit(table, label="ill")
model.save({p: f"{output}/{p}" for p in ("alice", "bob", "carol")})
spu.shutdown()
"""

X, Y = np.array([1, 2, 3], np.float32), np.array([9, 8, 7], np.float32)
ROWS = 800


@dataclass(frozen=True)
class Job:
    """`commands` of a party, given the cluster file, the inputs' folder and where results go; `judge` of these two.

    `judge` says whether the result is right, None if there is none. A job that `resumes` is run once more after an
    error, undisturbed: then it must be right.
    """

    output: str
    command: Callable[[str, Path, Path, Path], list[str]]
    judge: Callable[[Path, Path], bool | None]
    resumes: bool = False


def prepare(folder: Path, jobs: Collection[str]) -> None:
    """The jobs' inputs."""
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", Y)
    (folder / "p.py").write_text(PROGRAM)
    arguments = ["--arg", "f32[3]@alice", "--arg", "f32[3]@bob", "-o", str(folder / "p.spux")]
    assert cli.run(["compile", f"{folder}/p.py:program", *arguments]) == 0
    for name, script in (("script", SCRIPT), ("stream", STREAM), ("boosting", BOOSTING)):
        (folder / f"{name}.py").write_text(HEAD + script)
    rng = np.random.default_rng(5)
    for name in "xy":
        pq.write_table(pa.table({name: rng.uniform(-4, 4, ROWS).astype(np.float32)}), folder / f"{name}.parquet")
    features = rng.normal(size=(60, 3)).round(2)
    columns = {"alice": {"a": features[:, 0]}, "bob": {"b": features[:, 1]}}
    columns["carol"] = {"c": features[:, 2], "ill": (features.sum(axis=1) > 0).astype(int)}
    for party, mine in columns.items():
        pd.DataFrame({"name": [f"p{i}" for i in range(60)], **mine}).to_csv(folder / f"{party}.csv", index=False)
    if "demo" in jobs and not (HOSPITALS / "data" / "carol.parquet").exists():
        subprocess.run([sys.executable, str(HOSPITALS / "prepare.py")], check=True)


def _program(party: str, config: Path, inputs: Path, output: Path) -> list[str]:
    mine = {"alice": ["--input", f"x={inputs}/x.npy"], "bob": ["--input", f"y={inputs}/y.npy"]}
    mine["carol"] = ["--output", str(output)]
    return party_command(str(inputs / "p.spux"), "--config", str(config), "--as", party, *mine[party])


def _script(name: str) -> Callable[[str, Path, Path, Path], list[str]]:
    return lambda party, config, inputs, output: [
        sys.executable, str(inputs / f"{name}.py"), party, str(config), str(inputs), str(output),
    ]  # fmt: skip


def _demo(party: str, config: Path, inputs: Path, output: Path) -> list[str]:
    return [
        sys.executable,
        str(HOSPITALS / "train.py"),
        "--as",
        party,
        "--config",
        str(config),
        "--output",
        str(output),
    ]


def _array(trips: int) -> Callable[[Path, Path], bool | None]:
    def judge(inputs: Path, output: Path) -> bool | None:
        return truth(np.load(output), trips) if output.exists() else None

    return judge


def truth(got: np.ndarray, trips: int) -> bool:
    """Of the loops; no sum comes near its threshold, where truncation could decide."""
    t = X
    for _ in range(trips):
        t = np.where(t > Y, X, t + X * Y * 0.01)
    return bool(np.allclose(got, t, atol=0.01))


def _rows(inputs: Path, output: Path) -> bool | None:
    if not output.exists():
        return None
    x, y = (pq.read_table(inputs / f"{n}.parquet")[n].to_numpy() for n in "xy")
    got = pq.read_table(output)
    return bool(np.array_equal(got["less"].to_numpy(), x < y) and np.abs(got["p"].to_numpy() - x * y).max() < 1e-4)


@cache
def _hospitals() -> tuple[Any, np.ndarray]:
    """What JAX in the clear predicts."""
    spec = importlib.util.spec_from_file_location("hospitals_train", HOSPITALS / "train.py")
    assert spec is not None and spec.loader is not None
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    tables = [pq.read_table(HOSPITALS / "data" / f"{p}.parquet") for p in PARTIES]
    return train, np.asarray(train.predict(*map(train.features, tables), train.labels(tables[2])))


def _predictions(inputs: Path, output: Path) -> bool | None:
    if not output.exists():
        return None
    got = pq.read_table(output)["probability"].to_numpy()
    return bool(np.abs(got - _hospitals()[1]).max() < 0.01)


def _model(inputs: Path, output: Path) -> bool | None:
    """Whether the saved model predicts as one that was trained here; None if a part is missing."""
    if not all((output / p).is_dir() for p in PARTIES):
        return None
    return bool(np.abs(_probabilities(load({p: output / p for p in PARTIES}), inputs) - _trained(inputs)).max() < 1e-3)


@cache
def _trained(inputs: Path) -> np.ndarray:
    return _probabilities(Sgb(n_estimators=2, max_depth=2, max_bin=4).fit(_table(inputs), label="ill"), inputs)


def _probabilities(model: Any, inputs: Path) -> np.ndarray:
    return np.asarray(spu.reveal(model.predict_proba(_table(inputs).drop("ill"), to="carol")))


@cache
def _table(inputs: Path) -> Any:
    spu.init(parties=PARTIES, address="local")
    return spu.data.vertical({p: inputs / f"{p}.csv" for p in PARTIES}, key="name")


JOBS = {
    "program": Job("result.npy", _program, _array(400)),
    "script": Job("result.npy", _script("script"), _array(60)),
    "demo": Job("predictions.parquet", _demo, _predictions),
    "stream": Job("rows.parquet", _script("stream"), _rows, resumes=True),
    "boosting": Job("model", _script("boosting"), _model),
}
