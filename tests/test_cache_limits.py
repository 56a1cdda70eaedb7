"""The cache on disk lets go what was not used for long, and `spuvm cache` shows and clears it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner

from spuvm.commands.group import cli
from spuvm.compiler.cache import disk
from spuvm.compiler.cache.limits import LOOKED, PAUSE, due, limit, shrink
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.settings import switch


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SPUVM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(disk, "_writes", count(1))  # of this process: none of a test's is one that looks
    disk.folder.cache_clear()
    found = disk.folder()
    assert found is not None
    yield found
    disk.folder.cache_clear()


def test_what_was_used_longest_ago_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPUVM_CACHE_MB", "1")
    for i in range(12):
        disk.write(f"{i}.code", bytes(100_000))
        os.utime(folder / f"{i}.code", (1000 + i, 1000 + i))
    assert disk.read("0.code") == bytes(100_000)  # used again
    shrink(folder)
    left = {p.name for p in folder.iterdir()}
    assert "0.code" in left and "11.code" in left and "1.code" not in left
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 0.8 * 2**20


def test_stale_versions_go_and_strangers_stay(folder: Path) -> None:
    old, recent, stranger = (folder.parent / name for name in ("0" * 24, "1" * 24, "notes"))
    for other in (old, recent, stranger):
        other.mkdir()
        (other / "x").write_bytes(b"x")
    os.utime(old / "x", (1000, 1000))
    os.utime(stranger / "x", (1000, 1000))
    shrink(folder)
    assert not old.exists() and recent.exists() and stranger.exists() and folder.exists()


def test_the_limit_is_that_of_all_versions_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPUVM_CACHE_MB", "1")
    other = folder.parent / ("1" * 24)
    other.mkdir()
    now = time.time()
    for i in range(8):
        disk.write(f"{i}.code", bytes(100_000))
        (other / f"{i}.code").write_bytes(bytes(100_000))
        for version, age in ((folder, 10), (other, 20)):
            os.utime(version / f"{i}.code", (now - age, now - age))
    shrink(folder)
    assert len(list(folder.iterdir())) + len(list(other.iterdir())) <= 8
    assert len(list(folder.iterdir())) > len(list(other.iterdir()))


def test_a_folder_that_cannot_be_used_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file in its place, one that others may write to, one that a full disk holds: each serves on."""
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name, why in (("file", "File exists|Not a directory"), ("open", "others may write to"), ("full", "No space")):
        caplog.clear()
        monkeypatch.setattr(disk, "warned", False)
        monkeypatch.setenv("SPUVM_CACHE_DIR", str(tmp_path / name))
        if name == "full":
            monkeypatch.setattr(disk, "_replace", _no_space)
        disk.folder.cache_clear()
        for _ in range(3):
            disk.write("a.code", b"one")
        assert disk.read("a.code") is None
        (said,) = caplog.messages
        assert "spuvm keeps nothing on disk" in said and re.search(why, said), said
        if name != "full":
            assert re.search(why, CliRunner().invoke(cli, ["cache", "show"]).output)
    disk.folder.cache_clear()


def _no_space(path: Path, content: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_is_no_file_is_not_there(folder: Path) -> None:
    """A pipe, which reading would wait for, a link, a folder."""
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/dev/zero")
    (folder / "folder").mkdir()
    for name in ("pipe", "link", "folder"):
        assert disk.read(name) is None
    for name in ("pipe", "link"):
        disk.write(name, b"one")
        assert disk.read(name) == b"one"


def test_a_folder_that_was_cleared_meanwhile_is_made_again(folder: Path) -> None:
    shutil.rmtree(folder.parent)
    disk.write("a.code", b"one")
    assert disk.read("a.code") == b"one"


@pytest.mark.parametrize("variable", ["SPUVM_CACHE", "SPUVM_NATIVE", "SPUVM_KEEP_MEMORY"])
def test_switches_are_on_or_off(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for given, on in (("", True), ("1", True), ("0", False)):
        monkeypatch.setenv(variable, given)
        assert switch(variable) == on
    monkeypatch.setenv(variable, "off")
    with pytest.raises(ConfigError, match=f"`{variable}` must be 1 .* or 0 .*, got 'off'"):
        switch(variable)


def test_a_limit_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPUVM_CACHE_MB", "much")
    with pytest.raises(ConfigError, match="`SPUVM_CACHE_MB` must be a number of megabytes, got 'much'"):
        limit()


def test_the_command_shows_and_clears(folder: Path) -> None:
    disk.write("a.code", bytes(3 << 20))
    (folder.parent / "notes").mkdir()
    shown = CliRunner().invoke(cli, ["cache", "show"])
    assert shown.exit_code == 0 and "3.0 MB of 2,048" in shown.output and "bytecode" in shown.output
    cleared = CliRunner().invoke(cli, ["cache", "clear"])
    assert cleared.exit_code == 0 and "removed 3.0 MB" in cleared.output
    assert not folder.exists() and (folder.parent / "notes").exists()


def test_no_cache_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPUVM_CACHE", "0")
    disk.folder.cache_clear()
    assert "there is no cache: SPUVM_CACHE is 0" in CliRunner().invoke(cli, ["cache", "show"]).output
    disk.folder.cache_clear()


def test_processes_that_begin_look_at_most_every_ten_minutes(tmp_path: Path) -> None:
    assert due(tmp_path)
    assert not due(tmp_path)
    then = time.time() - 2 * PAUSE
    os.utime(tmp_path / LOOKED, (then, then))
    assert due(tmp_path)
    assert not due(tmp_path)


def test_an_entry_under_the_name_of_another_is_not_there(folder: Path) -> None:
    disk.write("a.code", b"one")
    assert disk.read("a.code") == b"one"
    (folder / "a.code").rename(folder / "b.code")
    assert disk.read("b.code") is None
