"""`spuvm psi run`: files to files, over TLS, killed and gone on with; bad input."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

import spuvm as spu
from spuvm.cli import run as spuvm
from spuvm.network import make_run_folder
from spuvm.psi.bulk import run
from spuvm.psi.bulk.exchange import Asked, Here
from spuvm.psi.bulk.folder import RunFolder
from spuvm.psi.bulk.layout import layout_of
from spuvm.psi.bulk.run import intersect_files
from spuvm.psi.bulk.scratch import OnDisk
from spuvm.psi.bulk.source import Source
from spuvm.psi.places import here
from spuvm.runtime.errors import DataError, InputError
from spuvm.streaming.sealed import read_arrays, write_arrays

pytestmark = pytest.mark.usefixtures("preloaded")

PARTIES = ("alice", "bob", "carol")
ROWS = 3000
LIMIT = 240.0  # seconds, of what takes five where nothing else runs


def tables(rows: int = ROWS) -> tuple[pa.Table, pa.Table]:
    """Half of the rows of one have their key in the other; some have none."""
    rng = np.random.default_rng(rows)
    ids = rng.permutation(2 * rows)
    gaps = [None if i % 50 == 0 else int(x) for i, x in enumerate(ids[:rows])]
    second = rng.permutation(ids[rows // 2 : rows // 2 + rows])
    return pa.table({"id": pa.array(gaps), "x": ids[:rows] / 7}), pa.table({"no": second.astype("int32"), "y": second})


def matching(table: pa.Table, key: str, other: pa.Table, other_key: str) -> pa.Table:
    known = set(other[other_key].to_pylist()) - {None}
    return table.filter(pa.array([x in known for x in table[key].to_pylist()]))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    a, b = tables()
    pq.write_table(a, tmp_path / "a.parquet", row_group_size=700)
    pc.write_csv(b, tmp_path / "b.csv")
    return tmp_path


def expected(folder: Path) -> pa.Table:
    a, b = tables()
    return matching(a, "id", b, "no")


@pytest.mark.parametrize("bucket_rows", [1 << 20, 100, 10])
def test_files_to_files(files: Path, bucket_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    line = "psi run alice=a.parquet:id bob=b.csv:no --output alice=m.parquet --output bob=n.csv --mode helper"
    assert spuvm([*line.split(), "--scratch", "0.001", "--bucket-rows", str(bucket_rows)]) == 0
    assert pq.read_table("m.parquet").equals(expected(files))
    assert pc.read_csv("n.csv")["y"].to_pylist() == matching(tables()[1], "no", tables()[0], "id")["y"].to_pylist()
    assert sorted(p.name for p in files.iterdir()) == ["a.parquet", "b.csv", "m.parquet", "n.csv"]


@pytest.mark.parametrize("how", [["--mode", "helper"], ["--mode", "ecdh"], ["--how", "left", "--mode", "oblivious"]])
def test_run_again_a_join_is_done(files: Path, how: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is matched again, nothing is counted, and nothing of another's is taken for it."""
    to = ["--output", f"alice={files}/m.parquet"] + (["--output", f"bob={files}/n.csv"] if "left" not in how else [])
    line = ["psi", "run", f"alice={files}/a.parquet:id", f"bob={files}/b.csv:no", *to, *how, "--quiet"]
    line += ["--duplicates", "first", "--most-runs", "1", "--ledger", str(files / "ledger")]
    names = sorted(p.name for p in files.iterdir())
    assert spuvm(line) == 0
    made = {p: p.stat().st_mtime_ns for p in (files / "m.parquet", files / "n.csv") if p.exists()}
    assert spuvm(line) == 0
    assert "m.parquet is there already, of this very run: nothing is left to do" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in made} == made
    assert sorted(p.name for p in files.iterdir()) == sorted([*names, *(p.name for p in made), "ledger"])
    os.utime(files / "b.csv")
    assert spuvm([*line, "--most-runs", "9"]) == 2
    assert "m.parquet is there already" in capsys.readouterr().err


def test_one_receiver_has_written_and_the_other_is_ended(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"psi run alice={files}/a.parquet:id bob={files}/b.csv:no --mode helper --quiet --bucket-rows 1000"
    line += f" --output alice={files}/m.parquet --output bob={files}/n.csv --folder {files}/run"
    plain = run._write

    def write(here: Here, *more: object) -> None:
        if here.source.path.name == "b.csv":
            raise Stop
        plain(here, *more)  # type: ignore[arg-type]
        list(here.work)

    with monkeypatch.context() as patch:
        patch.setattr(run, "_write", write)
        assert spuvm(line.split()) == 1
    before = (files / "m.parquet").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "remove", stopped)
        assert spuvm(line.split()) == 1
    assert (files / "run" / "bob" / "run.json").exists()
    assert spuvm(line.split()) == 0
    assert (files / "m.parquet").stat().st_mtime_ns == before
    assert pq.read_table(files / "m.parquet").equals(expected(files))
    assert not (files / "run").exists() or not list((files / "run").iterdir())


def test_joined_rows_by_a_curve_are_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        f"psi run alice={files}/a.parquet:id bob={files}/b.csv:no --how left --mode ecdh --output alice={files}/m.csv"
    )
    assert spuvm(line.split()) == 2
    assert "joined rows need a third party" in capsys.readouterr().err


def stopped(self: RunFolder) -> None:
    if self.path.name == "bob":
        raise Stop
    shutil.rmtree(self.path)


def test_a_command_that_probes_is_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"psi run alice={files}/a.parquet:id bob={files}/b.csv:no --output alice={files}/m.csv --mode helper --quiet"
    assert spuvm([*line.split(), "--least-rows", "3001"]) == 2
    assert "matches with tables of 3,001 rows or more" in capsys.readouterr().err
    again = [*line.split(), "--force", "--most-runs", "1", "--ledger", str(files / "ledger")]
    assert [spuvm(again), spuvm(again)] == [0, 2]
    assert "allows no more" in capsys.readouterr().err


def test_layouts_follow_from_sizes() -> None:
    assert (layout_of([10]).buckets, layout_of([10]).passes) == (1, 1)
    large = layout_of([10**9, 5])
    assert (large.buckets, large.passes) == (1024, 2)
    assert large.peak(10**9) == 8 * 10**9
    assert [b for p in range(2) for b in large.of_pass(p)] == list(range(1024))


def asked(**options: object) -> Asked:
    return Asked(("alice", "bob"), "carol", {"alice": ("id",), "bob": ("no",)}, {}, ("alice",), **options)  # type: ignore[arg-type]


class Stop(Exception):
    """In place of a kill."""


def test_a_run_goes_on_where_it_ended(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spu.init(parties=PARTIES, address="local")
    paths = {"alice": files / "a.parquet", "bob": files / "b.csv"}
    folders = {p: files / p for p in paths}
    kept: list[int] = []
    keep = RunFolder.keep

    def stopping(self: RunFolder, bucket: int, bits: np.ndarray) -> None:
        if len(kept) == stop:
            raise Stop
        kept.append(bucket)
        keep(self, bucket, bits)

    monkeypatch.setattr(RunFolder, "keep", stopping)
    for stop in (0, 7, 18, -1):  # noqa: B007
        try:
            intersect_files(here(), asked(bucket_rows=100), paths, {"alice": files / "m.parquet"}, folders)
        except Stop:
            assert not (files / "m.parquet").exists()
    assert pq.read_table(files / "m.parquet").equals(expected(files))
    repeated = len(kept) - 2 * layout_of([ROWS], bucket_rows=100).buckets
    assert 0 <= repeated <= 2  # a bucket that one of two owners had kept
    assert not list(files.glob("*/*"))
    spu.shutdown()


def test_workers_of_each_party(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one process began several end, and they give the same; an owner's word is what is wrong with its file."""
    kept: list[int] = []
    keep = RunFolder.keep

    def stopping(self: RunFolder, bucket: int, bits: np.ndarray) -> None:
        if len(kept) == 5:
            raise Stop
        kept.append(bucket)
        keep(self, bucket, bits)

    line = f"psi run alice={files}/a.parquet:id bob={files}/b.csv:no --mode helper --quiet --bucket-rows 400".split()
    line += ["--output", f"alice={files}/m.parquet", "--folder", f"{files}/run"]
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "keep", stopping)
        assert spuvm(line) == 1
    assert spuvm([*line, "--workers", "2"]) == 0
    assert pq.read_table(files / "m.parquet").equals(expected(files))
    assert not (files / "run").exists() or not list((files / "run").iterdir())


def test_a_worker_says_what_is_wrong(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "c.csv").write_text("no\n" + "".join(f"{i}\n" for i in (*range(300), 7)))
    line = f"psi run alice={files}/a.parquet:id bob={files}/c.csv:no --mode helper --quiet --bucket-rows 1000".split()
    assert spuvm([*line, "--output", f"alice={files}/m.parquet", "--workers", "2"]) == 2
    assert "c.csv has rows with the same key (no): keep one row for each" in capsys.readouterr().err
    assert spuvm([*line, "--output", f"alice={files}/m.parquet", "--workers", "2", "--mode", "oblivious"]) == 2
    assert "`--workers` match large files by a helper" in capsys.readouterr().err


ON_TWO_NODES = """
import sys, ray
from ray.cluster_utils import Cluster
from spuvm.cli import run

room = {"num_cpus": 1, "object_store_memory": 100_000_000}  # so that each of two workers has a node
cluster = Cluster(initialize_head=True, head_node_args={**room, "include_dashboard": False})
try:
    cluster.add_node(**room)
    ray.init(address=cluster.address, log_to_driver=False)
    status = run(sys.argv[1:])
finally:
    ray.shutdown()
    cluster.shutdown()
sys.exit(status)
"""


def test_workers_on_a_ray_cluster_of_two_nodes(files: Path) -> None:
    """In a process of its own: Ray leaves some of its behind."""
    pytest.importorskip("ray")
    line = f"psi run alice={files}/a.parquet:id bob={files}/b.csv:no --mode helper --quiet --bucket-rows 1000"
    line += f" --output alice={files}/m.parquet --workers 2 --engine ray"
    environment = {**os.environ, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    subprocess.run([sys.executable, "-c", ON_TWO_NODES, *line.split()], env=environment, check=True, timeout=2 * LIMIT)
    assert pq.read_table(files / "m.parquet").equals(expected(files))


@pytest.mark.parametrize(("name", "change"), [("b.csv", "touched"), ("a.parquet", "touched"), ("b.csv", "gone")])
def test_a_file_that_changes_while_it_is_read(
    files: Path, name: str, change: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of who writes nothing, and while rows are written: no output is of two files."""
    of_batch = Source.tags_of

    def changing(self: Source, batch: object, keys: object, row: int) -> np.ndarray:
        found = of_batch(self, batch, keys, row)  # type: ignore[arg-type]
        writes = name == "a.parquet"  # cut first, then read again to be written
        if self.path.name == name and (not writes or any(files.glob("run/alice/bits-*"))) and (files / name).exists():
            (files / name).unlink() if change == "gone" else os.utime(files / name)
        return found

    line = f"psi run alice={files}/a.parquet:id bob={files}/b.csv:no --output alice={files}/m.parquet --mode helper"
    monkeypatch.setattr(Source, "tags_of", changing)
    assert spuvm([*line.split(), "--quiet", "--folder", f"{files}/run"]) == 2
    assert f"{name} {'cannot be read any more' if change == 'gone' else 'was changed while'}" in capsys.readouterr().err
    assert not (files / "m.parquet").exists()


def flip(path: Path) -> None:
    """One bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_tags_on_disk_are_those_that_were_written(tmp_path: Path) -> None:
    scratch, tags = OnDisk(tmp_path / "tags-0"), np.arange(20, dtype=np.uint64).reshape(10, 2)
    with scratch.writing([0, 1]):
        scratch.add(0, tags[:4])
        scratch.add(0, tags[4:])
    assert np.array_equal(scratch.take(0), tags)
    assert scratch.take(1).shape == (0, 2)
    flip(scratch.path(0))
    with pytest.raises(InputError, match=r"tags-000000 is damaged.*pass-0\.json"):
        scratch.take(0)


def test_arrays_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    write_arrays(tmp_path / "x.npz", a=np.arange(5), name="n")
    found = read_arrays(tmp_path / "x.npz")
    assert found["a"].tolist() == [0, 1, 2, 3, 4]
    assert str(found["name"]) == "n"
    size = (tmp_path / "x.npz").stat().st_size
    for at in (0, 40, size // 2, size - 40, size - 1):
        content = bytearray((tmp_path / "x.npz").read_bytes())
        content[at] ^= 128
        (tmp_path / "y.npz").write_bytes(content)
        with pytest.raises(InputError, match="is damaged"):
            read_arrays(tmp_path / "y.npz")
    (tmp_path / "y.npz").write_bytes(b"")
    with pytest.raises(InputError, match="is damaged"):
        read_arrays(tmp_path / "y.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: os.utime(f / "a.parquet"), "belongs to another run: the files"),
        (lambda f: (f / "alice" / "run.json").write_text("{"), "is damaged"),
        (lambda f: flip(f / "alice" / "run.json"), "is damaged"),
        (lambda f: flip(next((f / "alice").glob("bits-*"))), "is damaged"),
    ],
)
def test_a_run_refuses_to_go_on_with_something_else(
    files: Path, change: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spu.init(parties=PARTIES, address="local")
    paths = {"alice": files / "a.parquet", "bob": files / "b.csv"}
    folders = {p: files / p for p in paths}

    def stop(*_: object) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("spuvm.psi.bulk.run._write", stop)
        with pytest.raises(Stop):
            intersect_files(here(), asked(), paths, {"alice": files / "m.parquet"}, folders)
    assert callable(change)
    change(files)
    with pytest.raises(InputError, match=message):
        intersect_files(here(), asked(), paths, {"alice": files / "m.parquet"}, folders)
    spu.shutdown()


def test_bad_files_are_refused(files: Path) -> None:
    spu.init(parties=PARTIES, address="local")
    paths = {"alice": files / "a.parquet", "bob": files / "b.csv"}
    pq.write_table(pa.table({"id": [1, 2, 1]}), files / "twice.parquet")
    out = {"alice": files / "m.parquet"}
    with pytest.raises(DataError, match="rows with the same key"):
        intersect_files(here(), asked(), {**paths, "alice": files / "twice.parquet"}, out, {})
    pq.write_table(pa.table({"id": ["a"]}), files / "text.parquet")
    with pytest.raises(InputError, match="holds text at alice, and `no` int at bob"):
        intersect_files(here(), asked(), {**paths, "alice": files / "text.parquet"}, out, {})
    pq.write_table(pa.table({"x": [1]}), files / "none.parquet")
    with pytest.raises(InputError, match="no key column `id`"):
        intersect_files(here(), asked(), {**paths, "alice": files / "none.parquet"}, out, {})
    (files / "m.parquet").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        intersect_files(here(), asked(), paths, out, {})
    assert (files / "m.parquet").read_text() == "mine"
    spu.shutdown()


def test_processes_that_are_killed_go_on(files: Path) -> None:
    """Three processes over TLS, one of them killed twice: the same output, byte for byte."""
    cluster = make_run_folder(files / "keys", spu.Config(parties=PARTIES), timeout=120)
    common = ["--config", str(cluster), "--mode", "helper", "--bucket-rows", "40", "--quiet"]
    own = {
        "alice": ["a=a.parquet:id", "--output", "m.parquet"],
        "bob": ["b=b.csv:no", "--folder", "bob.run"],
        "carol": [],
    }

    def start() -> dict[str, subprocess.Popen[bytes]]:
        line = [sys.executable, "-m", "spuvm", "psi", "run"]
        commands = {p: [*line, *own[p], "--as", p, *common] for p in PARTIES}
        return {p: subprocess.Popen(c, cwd=files, stderr=subprocess.DEVNULL) for p, c in commands.items()}

    for victim in ("bob", "carol"):
        running = start()
        deadline = time.monotonic() + LIMIT
        before = len(list(files.glob("m.parquet.run/bits-*")))
        while len(list(files.glob("m.parquet.run/bits-*"))) < before + 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        running[victim].send_signal(signal.SIGKILL)
        assert [p.wait(LIMIT) != 0 for p in running.values()] == [True] * 3
        assert not (files / "m.parquet").exists() and before + 3 <= len(list(files.glob("m.parquet.run/bits-*")))
    assert [p.wait(LIMIT) for p in start().values()] == [0, 0, 0]
    assert pq.read_table(files / "m.parquet").equals(expected(files))
