"""Temporary folders: those of processes that are gone are removed, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spuvm.runtime.errors import ConfigError
from spuvm.runtime.scratch import LOCK, Scratch, _prefix, sweep


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def left(place: Path, name: str = "gone") -> Path:
    """A folder as a process leaves it that was killed."""
    folder = place / f"{_prefix()}{name}"
    (folder / "keys" / "deeper").mkdir(parents=True)
    (folder / "keys" / "deeper" / "alice.key").write_text("secret")
    (folder / LOCK).touch()
    return folder


def test_a_folder_is_its_owners_alone_and_goes_with_its_process(place: Path) -> None:
    with Scratch() as path:
        assert path.parent == place
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "0.npy").touch()
    held = Scratch()
    assert list(place.iterdir()) == [held.path]
    del held
    assert not list(place.iterdir())


def test_what_a_killed_process_left_goes_at_the_next_start(place: Path) -> None:
    left(place)
    (place / f"{_prefix()}empty").mkdir()  # killed before it had a lock
    with Scratch() as mine, Scratch() as other:
        assert {*place.iterdir()} == {mine, other}


def test_what_is_left_of_one_that_is_killed_while_it_removes_goes_at_the_next_start(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    held = Scratch()
    (held.path / "keys").mkdir()
    with monkeypatch.context() as m:
        m.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            held.close()
    assert {p.name for p in held.path.iterdir()} == {"keys", LOCK}
    sweep()
    assert not list(place.iterdir())


def test_a_copy_of_a_process_removes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Scratch()
    path = held.path
    with monkeypatch.context() as m:
        m.setattr(os, "getpid", lambda: -1)
        held.close()
    assert list(place.iterdir()) == [path]
    sweep()
    assert not list(place.iterdir())


def test_links_lead_nowhere(place: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").touch()
    (precious / LOCK).touch()
    (place / f"{_prefix()}link").symlink_to(precious)
    folder = left(place)
    (folder / "inside").symlink_to(precious)
    (folder / "keys" / "deeper" / "inside").symlink_to(precious / "data")
    sweep()
    assert not folder.exists()
    assert (place / f"{_prefix()}link").is_symlink()
    assert {p.name for p in precious.iterdir()} == {"data", LOCK}


def test_what_is_not_surely_left_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strange = left(place, "strange")
    (strange / LOCK).unlink()
    os.mkfifo(strange / LOCK)
    no_lock = left(place, "no lock")
    (no_lock / LOCK).unlink()
    elsewhere = place / "spuvm-kept-x1y2"
    elsewhere.mkdir()
    folder = left(place)
    with monkeypatch.context() as others:
        others.setattr(os, "getuid", lambda: os.geteuid() + 1)
        sweep()
    assert folder.exists()
    sweep()
    assert not folder.exists()
    assert strange.exists() and no_lock.exists() and elsewhere.exists()


def test_a_folder_that_is_taken_for_one_that_was_left_is_made_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    plain = os.open

    def late(path: object, *args: int, **more: int | None) -> int:
        if str(path).endswith(f"/{LOCK}") and not calls:
            calls.append(path)
            sweep()  # another process, between the folder and its lock
        return plain(path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", late)
    with Scratch() as path:
        assert calls and list(place.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(place: Path) -> None:
    place.rmdir()
    with pytest.raises(ConfigError, match=r"no temporary folder can be made: No such file.* TMPDIR"):
        Scratch()
