"""Write scikit-learn's breast-cancer data as the Parquet files of three hospitals.

Alice has measured the mean of ten features of each patient's cells, bob their standard error, carol
their worst value; carol also knows the diagnosis. All three know the patients' ids and keep their
rows sorted by id, as `train.py` requires. The ids are drawn at random, once and for all: the order
of the rows says nothing about the diagnosis.

    python examples/hospitals/prepare.py            writes examples/hospitals/data/*.parquet
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_breast_cancer

DATA = Path(__file__).parent / "data"
PARTIES = ("alice", "bob", "carol")
FEATURES = 10
SEED = 569


def tables() -> dict[str, pa.Table]:
    """The three tables by party: `id`, ten feature columns, and at carol `malignant` (0 or 1)."""
    source = load_breast_cancer()
    ids = np.random.default_rng(SEED).choice(np.arange(1_000_000, 10_000_000), len(source.data), replace=False)
    order = np.argsort(ids)
    out = {}
    for i, party in enumerate(PARTIES):
        columns = {"id": ids[order]}
        for j in range(FEATURES * i, FEATURES * (i + 1)):
            columns[str(source.feature_names[j]).replace(" ", "_")] = source.data[order, j]
        if party == "carol":
            columns["malignant"] = 1 - source.target[order]
        out[party] = pa.table(columns)
    return out


def write(folder: Path) -> None:
    """Write `<party>.parquet` for each party."""
    folder.mkdir(parents=True, exist_ok=True)
    for party, table in tables().items():
        pq.write_table(table, folder / f"{party}.parquet")
        label = ", malignant" if "malignant" in table.column_names else ""
        print(f"wrote {folder / party}.parquet: {table.num_rows} rows of id, {FEATURES} features{label}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder to write to (default: %(default)s)")
    write(parser.parse_args().data)
