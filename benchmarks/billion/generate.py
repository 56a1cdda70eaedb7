"""Inputs of the benchmarks: Parquet files made by a generator that is a function of seed and block.

    python benchmarks/billion/generate.py --data FOLDER columns 1000000 [--seed 1]

`columns`: x, y, z of alice, bob and carol, normal, correlated. `features`: five columns of alice and
five of bob. `stations`: station (0 to 399) and temperature, a third of the rows at each of three
parties. Beside the files `FOLDER/KIND-ROWS/truth.json` has what the benchmarks must find, computed in
float64 on the way. What is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BLOCK = 1 << 20  # rows of a row group
PARTIES = ("alice", "bob", "carol")
STATIONS = 400
EDGES = tuple(float(x) for x in np.linspace(-3.5, 3.5, 15))  # of the histogram of x + y

Columns = dict[str, dict[str, np.ndarray]]  # by party and name


def columns(rng: np.random.Generator, rows: int) -> Columns:
    x, u, v = (rng.standard_normal(rows, np.float32) for _ in range(3))
    y = np.float32(0.6) * x + np.float32(0.8) * u
    z = np.float32(0.25) - np.float32(0.5) * y + v
    return {"alice": {"x": x}, "bob": {"y": y}, "carol": {"z": z}}


def features(rng: np.random.Generator, rows: int) -> Columns:
    return {p: {f"{p[0]}{i}": rng.standard_normal(rows, np.float32) for i in range(5)} for p in PARTIES[:2]}


def stations(rng: np.random.Generator, rows: int) -> Columns:
    out = {}
    for p in PARTIES:
        station = rng.integers(0, STATIONS, rows, np.int16)
        t = rng.standard_normal(rows, np.float32) * np.float32(9) + (station % 41).astype(np.float32) - np.float32(8)
        out[p] = {"station": station, "t": t}
    return out


# What is true of a block: numbers that add up over blocks ------------------------------------------------


def columns_truth(made: Columns) -> dict[str, Any]:
    x, y, z = made["alice"]["x"], made["bob"]["y"], made["carol"]["z"]
    wide = np.stack([x, y, z]).astype(np.float64)
    below = [(x + y < e).sum() for e in np.asarray(EDGES, np.float32)]
    return {
        "rows": np.asarray(len(x)),
        "sums": wide.sum(1),
        "products": wide @ wide.T,
        "less": np.asarray((x < y).sum()),
        "xyz": np.asarray((wide[0] * wide[1]) @ wide[2]),
        "selected": np.where(x < y, wide[0], wide[2]).sum(),
        "below": np.asarray(below),
    }


def features_truth(made: Columns) -> dict[str, Any]:
    matrix = np.stack([c for p in ("alice", "bob") for c in made[p].values()], 1).astype(np.float64)
    return {"rows": np.asarray(len(matrix)), "risk": (1 / (1 + np.exp(-(matrix @ WEIGHTS - 0.5)))).sum()}


WEIGHTS = np.array([0.5, -0.25, 0.125, 0.75, -0.5, 0.25, 1.0, -0.75, 0.375, -0.125])
WARM = 0.0  # degrees: what `filter` keeps is above


def stations_truth(made: Columns) -> dict[str, Any]:
    count, total = np.zeros(STATIONS, np.int64), np.zeros(STATIONS)
    low, high = np.full(STATIONS, np.inf), np.full(STATIONS, -np.inf)
    for c in made.values():
        keep = c["t"] > WARM
        key, t = c["station"][keep], c["t"][keep].astype(np.float64)
        count += np.bincount(key, minlength=STATIONS)
        total += np.bincount(key, t, STATIONS)
        np.minimum.at(low, key, t)
        np.maximum.at(high, key, t)
    return {"count": count, "total": total, "low": low, "high": high}


KINDS: dict[str, tuple[Callable[..., Columns], Callable[[Columns], dict[str, Any]], int]] = {
    "columns": (columns, columns_truth, 1),
    "features": (features, features_truth, 1),
    "stations": (stations, stations_truth, len(PARTIES)),
}
MERGE: dict[str, Any] = {"low": np.minimum, "high": np.maximum}


def generate(kind: str, rows: int, data: Path, seed: int = 1) -> Path:
    """The folder with the files of `rows` rows in all, made if it is not there."""
    folder = data / f"{kind}-{rows}"
    if (folder / "truth.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    make, true_of, parts = KINDS[kind]
    truth: dict[str, Any] = {}
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for block, start in enumerate(range(0, rows // parts, BLOCK)):
            rng = np.random.Generator(np.random.SFC64([seed, block]))
            made = make(rng, min(BLOCK, rows // parts - start))
            for party, named in made.items():
                table = pa.table(named)
                if party not in files:
                    path = folder / f"{party}.parquet"
                    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
                    files[party] = stack.enter_context(pq.ParquetWriter(path, table.schema, **options))
                files[party].write_table(table)
            for name, value in true_of(made).items():
                truth[name] = MERGE.get(name, np.add)(truth[name], value) if name in truth else value
    (folder / "truth.json").write_text(json.dumps({n: np.asarray(v).tolist() for n, v in truth.items()}))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("rows", type=int)
    parser.add_argument("--data", type=Path, required=True, help="where the files go")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(generate(given.kind, given.rows, given.data, given.seed))


if __name__ == "__main__":
    main()
