"""Streams in one process that simulates all parties: what they compute, what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import streams
from streams import BLOCK, ROWS, START, Stop, finished, moments, run_until, stream, together

import spuvm as spu
from spuvm.runtime.errors import EncodingError, InputError
from spuvm.streaming.held import held

data, rows = streams.data, streams.rows  # fixtures

# What they compute -------------------------------------------------------------------------------------


def test_a_fold_that_combines(rows: spu.Stream, data: Any) -> None:
    out = rows.fold(moments, START, together)
    assert out["xy"].visibility == "secret"
    shown = spu.reveal(out)
    assert shown["rows"] == ROWS
    assert abs(shown["xy"] - np.dot(data["x"].astype(float), data["y"])) < 0.02
    assert abs(shown["top"] - data["y"].max()) < 1e-5


def test_a_fold_in_order(rows: spu.Stream, data: Any) -> None:
    def last(t: Any, x: Any, y: Any) -> Any:
        return t * 0.5 + jnp.mean(x * y)

    want, product = 1.0, data["x"].astype(float) * data["y"]
    for start in range(0, ROWS, BLOCK):
        want = want * 0.5 + product[start : start + BLOCK].mean()
    assert abs(float(spu.reveal(rows.fold(last, 1.0))) - want) < 1e-3


def test_rows_go_to_one_party(rows: spu.Stream, data: Any, tmp_path: Path) -> None:
    rows.map(lambda x, y, n: {"less": x < y, "n2": n + n, "p": x * y}).to_parquet("out.parquet", "carol")
    table = pq.read_table("out.parquet")
    assert {f.name: str(f.type) for f in table.schema} == {"less": "bool", "n2": "int32", "p": "float"}
    assert pq.ParquetFile("out.parquet").num_row_groups == 4
    assert np.array_equal(table["less"].to_numpy(), data["x"] < data["y"])
    assert np.array_equal(table["n2"].to_numpy(), 2 * data["n"])
    assert np.abs(table["p"].to_numpy() - data["x"] * data["y"]).max() < 1e-4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "b.parquet", "out.parquet"]


def test_filtered_rows(rows: spu.Stream, data: Any) -> None:
    keep = (data["x"] < data["y"]) & (data["n"] > 0)
    kept = (
        rows.filter(lambda x, y: x < y).filter(lambda n: n > 0).map(lambda x, n: {"n": n, "m": jnp.stack([x, -x], 1)})
    )
    kept.to_parquet("out.parquet", "bob")
    table = pq.read_table("out.parquet")
    assert np.array_equal(table["n"].to_numpy(), data["n"][keep])
    assert np.abs(table["m1"].to_numpy() + data["x"][keep]).max() < 1e-5
    assert kept.count().visibility == "secret"
    assert spu.reveal(kept.count()) == keep.sum()
    assert spu.reveal(rows.count()) == ROWS


def test_a_filter_that_shows_which_rows_are_kept(rows: spu.Stream, data: Any) -> None:
    shown = rows.filter(lambda x, y: x < y, reveal=True)
    keep = data["x"] < data["y"]
    assert shown.count().visibility == "public"
    assert spu.reveal(shown.count()) == keep.sum()
    shown.map(lambda x: {"x": x}).to_parquet("out.parquet", "bob")
    assert np.abs(pq.read_table("out.parquet")["x"].to_numpy() - data["x"][keep]).max() < 1e-5


def test_a_filter_that_shows_how_many_are_kept(rows: spu.Stream, data: Any) -> None:
    """The rows kept come out in their order, as full blocks."""
    shown = rows.filter(lambda x, y: x < y, reveal="count")
    keep = data["x"] < data["y"]
    assert shown.count().visibility == "public"
    assert spu.reveal(shown.count()) == keep.sum()
    mean = shown.fold(lambda t, x, n: (t[0] + jnp.sum(x), t[1] + len(n)), (0.0, 0))
    assert [round(float(v), 2) for v in spu.reveal(mean)] == [round(float(data["x"][keep].sum()), 2), keep.sum()]
    again = keep & (data["n"] > 0) & (data["y"] > 1)
    wide = shown.map(lambda x, y, n: {"n": n, "m": jnp.stack([x, y], 1)}).filter(lambda n: n > 0)
    wide.filter(lambda m: m[:, 1] > 1, reveal="count").to_parquet("out.parquet", "bob", folder="run")
    table = pq.read_table("out.parquet")
    assert np.array_equal(table["n"].to_numpy(), data["n"][again])
    assert np.abs(table["m1"].to_numpy() - data["y"][again]).max() < 1e-5
    assert not Path("run").exists()
    shown.to_parquet("out.parquet", "bob", force=True)
    assert [pq.ParquetFile("out.parquet").metadata.row_group(i).num_rows for i in range(2)] == [300, keep.sum() - 300]


def test_a_filter_that_shows_that_none_is_kept(rows: spu.Stream, data: Any) -> None:
    none = rows.filter(lambda x, y: x < y - 100, reveal="count")
    assert spu.reveal(none.count()) == 0
    assert spu.reveal(none.fold(lambda t, x, y: t + jnp.dot(x, y), 1.5, jnp.add)) == 1.5
    groups = spu.reveal(none.map(lambda x, n: {"x": x, "k": n % 5}).group_by("k", 5).agg(**AGGREGATED))
    assert {n: set(x.tolist()) for n, x in groups.items()} == {"rows": {0}, "total": {0}, "high": {-(2.0**40)}}
    none.map(lambda x, y: {"less": x < y}).to_parquet("out.parquet", "bob")
    table = pq.read_table("out.parquet")
    assert (table.num_rows, str(table.schema.field("less").type)) == (0, "bool")


AGGREGATED: dict[str, Any] = {"rows": "count", "total": ("x", "sum"), "high": ("x", "max")}


def test_a_filtered_stream_goes_on(rows: spu.Stream, data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four blocks of the first pass, two of the second: none that is finished runs again."""
    kept = rows.filter(lambda x, y: x < y, reveal="count").map(lambda x: {"x": x})
    seen: list[list[int]] = []
    for stop, error in ((2, True), (1, True), (-1, False)):
        with monkeypatch.context() as patch:
            seen.append(run_until(patch, stop, Stop()))
            if error:
                with pytest.raises(Stop):
                    kept.to_parquet("out.parquet", "bob")
            else:
                kept.to_parquet("out.parquet", "bob")
    assert seen == [[0, 1], [2, 3, 0], [1]]
    assert np.abs(pq.read_table("out.parquet")["x"].to_numpy() - data["x"][data["x"] < data["y"]]).max() < 1e-5
    assert not Path("out.parquet.run").exists()


def test_one_process_at_a_time(rows: spu.Stream) -> None:
    with held(Path("run/simulated"), "stream"), pytest.raises(InputError, match="is in use: another process"):
        rows.to_parquet("out.parquet", "carol", folder="run")
    assert not Path("run/simulated").exists()


def test_parties_that_hold_different_rows(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"v": data["y"][:700]}), "c.parquet")
    s = spu.stream([{"v": "a.parquet:x@alice"}, {"v": "c.parquet:v@carol"}], rows_per_block=400)
    total = s.fold(lambda t, v: (t[0] + jnp.sum(v), t[1] + len(v)), (0.0, 0), lambda a, b: (a[0] + b[0], a[1] + b[1]))
    assert spu.reveal(total)[1] == 1700
    assert abs(spu.reveal(total)[0] - data["x"].sum() - data["y"][:700].sum()) < 1e-2
    s.map(lambda v: {"w": v + 1}).to_parquet("out.parquet", "bob")
    blocks = [data["x"][:400], data["y"][:400], data["x"][400:800], data["y"][400:700], data["x"][800:]]
    assert np.abs(pq.read_table("out.parquet")["w"].to_numpy() - np.concatenate(blocks) - 1).max() < 1e-5


@pytest.mark.parametrize("kind", ["arrow", "feather", "csv", "npy", "pattern"])
def test_formats(kind: str, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = pa.table({"x": data["x"], "n": data["n"]})
    match kind:
        case "arrow":
            with pa.ipc.new_file("t.arrow", table.schema) as file:
                file.write_table(table, max_chunksize=170)
        case "feather":
            pa.feather.write_feather(table, "t.feather", compression="lz4", chunksize=170)
        case "csv":
            pa.csv.write_csv(table, "t.csv")
        case "npy":
            np.save("t.npy", data["x"])
        case "pattern":
            for i in range(4):
                pq.write_table(table.slice(250 * i, 250), f"part{i}.parquet")
    source = {"npy": "t.npy@alice", "pattern": "part*.parquet:x@alice"}.get(kind, f"t.{kind}:x@alice")
    stream(x=source, n="").map(lambda x: {"x": x}).to_parquet("out.parquet", "bob")
    assert np.abs(pq.read_table("out.parquet")["x"].to_numpy() - data["x"]).max() < 4e-6


def test_csv_with_fractions_after_whole_numbers(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spuvm.data.formats.csv.CSV_BYTES", 256)
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("x\n" + "1\n" * 500 + "2.5\n" * 500)
    total = stream(x="t.csv:x@alice", n="", y="").fold(lambda t, x: t + jnp.sum(x), 0.0, lambda a, b: a + b)
    assert spu.reveal(total) == 1750.0


def test_files_that_differ_in_layout(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups, order of columns, columns left out, whole numbers in one CSV file and fractions in another."""
    monkeypatch.chdir(tmp_path)
    cells = {"id": np.arange(ROWS).astype(str), "x": data["x"], "n": data["n"]}
    for i, size in enumerate((7, 90, 1000)):
        names = list(cells)[i:] + list(cells)[:i]
        part = pa.table({n: cells[n][400 * i : 400 * i + 400] for n in names})
        pq.write_table(part, f"p{i}.parquet", row_group_size=size)
    Path("c0.csv").write_text("n,x,id\n" + "1,2,a\n" * 400)
    Path("c1.csv").write_text("x,id,n\n" + "0.5,b,3\n" * 600)
    both = stream(200, x="p?.parquet:x@alice", n="p*.parquet:n@alice", y="c?.csv:x@bob")
    both.map(lambda x, n, y: {"x": x, "n": n, "y": y}).to_parquet("out.parquet", "bob")
    table = pq.read_table("out.parquet")
    assert np.abs(table["x"].to_numpy() - data["x"]).max() < 4e-6
    assert np.array_equal(table["n"].to_numpy(), data["n"])
    assert table["y"].to_pylist() == [2.0] * 400 + [0.5] * 600
    left = stream(x="c0.csv:-id@alice", n="", y="c0.csv:x@bob").fold(lambda t, x: t + jnp.sum(x, 0), np.zeros(2))
    assert spu.reveal(left).tolist() == [400.0, 800.0]


# What they refuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ({"y": "b.parquet"}, "write it like 'data.parquet:age,bmi@alice'"),
        ({"y": "b.txt@bob"}, "files end in .csv, .parquet"),
        ({"y": "b.parquet:z@bob"}, "b.parquet has no column `z`"),
        ({"y": "nowhere.parquet:y@bob"}, "there is no such file"),
        ({"y": "broken.parquet:y@bob"}, "broken.parquet cannot be read"),
        ({"y": "text.parquet:y@bob"}, "holds text"),
        (
            {"y": "short.parquet:y@bob"},
            "differ in rows: `x` of alice has 1,000, `n` of alice has 1,000, `y` of bob has 999",
        ),
        ({"y": "b?.parquet:y@bob"}, "same columns and types"),
        ({"y": "numbers.csv@bob"}, "its first line holds numbers"),
        ({"y": "wide.parquet:y@bob"}, "int32 cannot hold .* `--x64`, or the variable JAX_ENABLE_X64=1"),
        ({"y": "empty.parquet:y@bob"}, "cells empty or NaN (the first in row 777)"),
        ({"y": "none.parquet:y@bob"}, "none.parquet has no rows"),
    ],
)
def test_sources_that_do_not_fit(rows: spu.Stream, data: Any, sources: dict[str, Any], words: str) -> None:
    pq.write_table(pa.table({"y": data["y"][:-1]}), "short.parquet")
    pq.write_table(pa.table({"y": ["one"] * ROWS}), "text.parquet")
    if "?" in sources["y"]:
        pq.write_table(pa.table({"y": data["y"]}), "b1.parquet")
        pq.write_table(pa.table({"y": data["n"]}), "b2.parquet")
    pq.write_table(pa.table({"y": data["n"] + (1 << 40)}), "wide.parquet")
    pq.write_table(pa.table({"y": data["y"][:0]}), "none.parquet")
    pq.write_table(
        pa.table({"y": [None if i == 776 else 1.0 for i in range(ROWS)]}), "empty.parquet", row_group_size=70
    )
    Path("numbers.csv").write_text("1.5\n" * 1000)
    Path("broken.parquet").write_bytes(Path("b.parquet").read_bytes()[:-3])
    with pytest.raises(InputError) as error:
        stream(**sources).fold(moments, START, together, folder="run")
    assert words in str(error.value) or re.search(words, str(error.value))
    assert not Path("run").exists() or Path("run/simulated/manifest.json").exists()  # if blocks were begun


def test_a_damaged_block_is_named_and_what_is_finished_stays(rows: spu.Stream, data: Any) -> None:
    good = Path("b.parquet").read_bytes()
    pq.write_table(pa.table({"y": data["y"]}), "b.parquet", row_group_size=100, write_page_checksum=True)
    offset = pq.ParquetFile("b.parquet").metadata.row_group(7).column(0).data_page_offset
    body = bytearray(Path("b.parquet").read_bytes())
    body[offset + 60] ^= 1
    Path("b.parquet").write_bytes(body)
    with pytest.raises(InputError, match=r"b.parquet cannot be read: .*part of `y` from row 601"):
        stream().map(lambda x, y: {"p": x * y}).to_parquet("out.parquet", "carol")
    assert not Path("out.parquet").exists()
    assert set(finished("out.parquet.run/simulated")) == {0, 1}
    Path("b.parquet").write_bytes(good)


def test_numbers_that_are_none(rows: spu.Stream, data: Any) -> None:
    data["y"][512] = np.nan
    pq.write_table(pa.table({"y": data["y"]}), "b.parquet")
    with pytest.raises(EncodingError, match=r"column `y` of b.parquet .*first in row 513"):
        stream().fold(moments, START, together)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda s: s.map(lambda z: z), r"takes `z`, the columns are"),
        (lambda s: s.map(lambda x, mask: x), r"a `mask` after a `filter` only"),
        (lambda s: s.map(lambda x: jnp.sum(x)), r"has an element for each of the block's 300 rows"),
        (lambda s: s.map(lambda x: (x, x)), r"gives `out` as tuple"),
        (lambda s: s.filter(lambda x: x), r"must give a bool"),
        (lambda s: s.filter(lambda x: x > 0, reveal="rows"), r"`reveal` must be False, True .* or 'count'"),
        (lambda s: s.filter(lambda x, y: x < y), r"the stream was filtered, so `moments` must take `mask`"),
    ],
)
def test_functions_that_do_not_fit(rows: spu.Stream, use: Callable[[spu.Stream], spu.Stream], words: str) -> None:
    with pytest.raises(InputError, match=words):
        use(rows).fold(moments, START, together)


def test_a_state_of_another_type(rows: spu.Stream) -> None:
    with pytest.raises(InputError, match="a state of the types and shapes of `init`, got float32"):
        rows.fold(lambda t, x: t + jnp.sum(x), 0)


def test_an_output_that_exists(rows: spu.Stream) -> None:
    Path("out.parquet").write_text("precious")
    with pytest.raises(InputError, match="is there already"):
        rows.to_parquet("out.parquet", "carol")
    assert Path("out.parquet").read_text() == "precious"
    rows.to_parquet("out.parquet", "carol", force=True)
    assert pq.read_table("out.parquet").num_rows == ROWS
