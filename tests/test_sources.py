"""What is kept on disk belongs to one version of all sources, in all folders; and the wheel has them all."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from spuvm.compiler.cache import disk
from spuvm.compiler.front.trace import OURS
from spuvm.runtime import sources

ROOT = Path(__file__).resolve().parent.parent


def edit(folder: Path) -> None:
    (folder / "inner" / "b.py").write_text("b = 2\n")


def add(folder: Path) -> None:
    (folder / "inner" / "deeper").mkdir()
    (folder / "inner" / "deeper" / "c.py").write_text("")


def move(folder: Path) -> None:
    (folder / "inner" / "b.py").rename(folder / "b.py")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.py").write_text("a = 1\n")
    (tmp_path / "inner" / "b.py").write_text("b = 1\n")
    return tmp_path


@pytest.mark.parametrize("change", [edit, add, move])
def test_a_change_in_a_folder_below_changes_the_digest(package: Path, change: Callable[[Path], None]) -> None:
    before = sources.digest_of(package)
    assert sources.digest_of(package) == before
    change(package)
    assert sources.digest_of(package) != before


@pytest.mark.parametrize("of", ["jax", "jaxlib"])
def test_so_do_the_versions_of_jax(package: Path, of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sources.digest_of(package)
    monkeypatch.setattr(sources, "version", lambda name: "0.0" if name == of else "1")
    changed = sources.digest_of(package)
    monkeypatch.setattr(sources, "version", lambda name: "1")
    assert len({before, changed, sources.digest_of(package)}) == 3


def test_the_disk_cache_and_the_keys_of_streams_depend_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = disk._version()
    monkeypatch.setattr(disk, "code_digest", lambda: "another")
    assert disk._version() != before


def test_all_sources_are_found() -> None:
    for name in ("compiler", "runtime"):
        found = {f.relative_to(ROOT / name) for f in sources.sources(sources.FOLDERS[name])}
        listed = subprocess.run(["git", "ls-files", name], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert found >= {Path(f).relative_to(name) for f in listed.split() if f.endswith(".py") and (ROOT / f).exists()}


def test_lines_of_the_compilers_folders_are_not_the_users() -> None:
    assert all(str(sources.FOLDERS["compiler"] / inner).startswith(OURS[0]) for inner in ("front/trace.py", "cost.py"))


def test_the_wheel_has_every_module(tmp_path: Path) -> None:
    """Built, unpacked elsewhere, and all of it imported from there."""
    script = "import sys\nfrom setuptools import build_meta\nbuild_meta.build_wheel(sys.argv[1])"
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True, capture_output=True)
    environment = {"SPUVM_BUILD_NATIVE": "no", "PATH": "/usr/bin:/bin"}
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=copy, check=True, capture_output=True, env=environment
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    modules = [
        ".".join(f.relative_to(tmp_path / "installed").with_suffix("").parts).removesuffix(".__init__")
        for f in (tmp_path / "installed").rglob("*.py")
    ]
    listed = subprocess.run(
        ["git", "ls-files", "spuvm", "compiler", "runtime", "examples/hospitals"],
        cwd=copy,
        capture_output=True,
        text=True,
    )
    assert len(modules) == sum(f.endswith(".py") for f in listed.stdout.split())
    skipped = {"spuvm.__main__", "spuvm.bench.peer_worker"}  # scripts, the second for another environment
    check = f"import importlib, sys; sys.path.insert(0, {str(tmp_path / 'installed')!r})\n"
    check += (
        f"for m in {sorted(set(modules) - skipped)!r}: importlib.import_module(m)\nimport spuvm; print(spuvm.__file__)"
    )
    ran = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.startswith(str(tmp_path / "installed")), ran.stderr
