"""A result that cannot be written where it should be is kept elsewhere, before anybody says that it is done."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parties import run_threads

import spuvm as spu
from spuvm.compiler.compile import compile_function
from spuvm.data import targets
from spuvm.data.tables import read, write
from spuvm.runtime.config import Config
from spuvm.runtime.errors import InputError, SaveError
from spuvm.runtime.link.memory_link import memory_links
from spuvm.runtime.machine.session import Session
from spuvm.vm import VM

PARTIES = ("alice", "bob", "carol")
ROW = jax.ShapeDtypeStruct((2,), jnp.float32)


def full(where: Path, path: Path) -> None:
    if path.parent == where:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    write(path, np.arange(3.0))


def test_what_does_not_fit_is_kept_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_places", lambda: [tmp_path / "none", tmp_path])
    error = targets.saved_or_kept(tmp_path / "r.csv", partial(full, tmp_path))
    (kept,) = tmp_path.glob("spuvm-kept-*/r.csv")
    assert f"Nothing is lost: the result is in {kept}" in str(error)
    assert "No space left" in str(error)
    assert kept.parent.stat().st_mode & 0o77 == 0
    assert read(kept).columns[0].tolist() == [0, 1, 2]
    assert targets.saved_or_kept(tmp_path / "s.csv", partial(full, tmp_path / "other")) is None


def test_what_fits_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_places", lambda: [tmp_path])

    def nowhere(path: Path) -> None:
        raise InputError("no room")

    with pytest.raises(InputError, match="no room"):
        targets.saved_or_kept(tmp_path / "r.csv", nowhere)
    assert os.listdir(tmp_path) == []


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine whose disks are all full Python finds none: the other places are tried all the same."""

    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    assert targets.temporary() == []
    assert Path.cwd() in targets._places()


def test_shares_are_saved_once_more(tmp_path: Path) -> None:
    """Bob's folder is a file: nobody replaces anything, all hear of it, and nothing is computed again."""
    config = Config(parties=PARTIES)
    (tmp_path / "file").write_text("x")
    links = memory_links(PARTIES)
    x = np.array([1.5, -2.0], np.float32)

    def party(rank: int) -> Any:
        with links[rank] as link:
            vm = VM(Session(config, rank, link))
            program = compile_function(lambda v, w: v + w, [ROW, ROW], [0, 1], config)
            tree = {"w": vm.run(program, [x if rank == i else None for i in range(2)])[0]}
            good = {PARTIES[rank]: tmp_path / PARTIES[rank]}
            bad = {PARTIES[rank]: tmp_path / "file" / "x"} if rank == 1 else good
            with pytest.raises(SaveError) as first:
                spu.save_shares(tree, bad)
            nothing = not list(tmp_path.rglob("*.share"))
            spu.save_shares(tree, good)
            return first.value.here, str(first.value), nothing, vm.reveal([spu.load_shares(good, vm)["w"]])[0].tolist()

    results = run_threads([partial(party, rank) for rank in range(3)], 120)
    assert [r[0] for r in results] == [False, True, False], results
    assert all("save again" in r[1] and r[2] for r in results)
    assert all(np.allclose(r[3], [3, -4], atol=1e-4) for r in results)
    assert "file" not in results[0][1]
