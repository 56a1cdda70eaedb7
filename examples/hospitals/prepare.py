"""Write the Wisconsin breast-cancer data as the Parquet files of three hospitals.

Alice has measured the mean of ten features of each patient's cells, bob their standard error, carol
their worst value; carol also knows the diagnosis. All three know the patients' ids and keep their
rows sorted by id, as `train.py` requires. The ids are drawn at random, once and for all: the order
of the rows says nothing about the diagnosis.

`patients.csv.gz` beside this file is the data set as scikit-learn has it (W. Wolberg, O. Mangasarian, N. Street,
W. Street: Breast Cancer Wisconsin (Diagnostic), UCI Machine Learning Repository, CC BY 4.0).

    python examples/hospitals/prepare.py            writes examples/hospitals/data/*.parquet
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DATA = Path(__file__).parent / "data"
SOURCE = Path(__file__).parent / "patients.csv.gz"
PARTIES = ("alice", "bob", "carol")
FEATURES = 10
SEED = 569


def tables() -> dict[str, pa.Table]:
    """The three tables by party: `id`, ten feature columns, and at carol `malignant` (0 or 1)."""
    with gzip.open(SOURCE, "rt") as file:
        *names, _ = file.readline().strip().split(",")
        cells = np.loadtxt(file, delimiter=",")
    ids = np.random.default_rng(SEED).choice(np.arange(1_000_000, 10_000_000), len(cells), replace=False)
    order = np.argsort(ids)
    out = {}
    for i, party in enumerate(PARTIES):
        columns = {"id": ids[order]}
        for j in range(FEATURES * i, FEATURES * (i + 1)):
            columns[names[j]] = cells[order, j]
        if party == "carol":
            columns["malignant"] = 1 - cells[order, -1].astype(np.int64)
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
