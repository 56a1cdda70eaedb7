"""What came with the package is found by a first call; damaged, or of another version, it is no harm."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spuvm.compiler.cache import disk, shipped
from spuvm.compiler.cache.recent import Recent
from spuvm.compiler.compile import compile_function
from spuvm.compiler.project import executables, kernels
from spuvm.runtime.config import Config
from spuvm.runtime.engine import interpreter, tier
from spuvm.runtime.engine.random import new_key
from spuvm.runtime.machine.executor import Executor, Streams

pytestmark = pytest.mark.skipif(interpreter.library() is None, reason="needs the native library")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the archive is, which has what one program needs; each cache is new."""
    file = tmp_path / "kernels.zip"
    monkeypatch.setattr(shipped, "FILE", tmp_path / "none.zip")
    with tier.use("native"), patch.object(executables, "_INTERPRETED", Recent()):
        run(tmp_path / "first", monkeypatch)
        folder = disk.folder()
        assert folder is not None
        names = [p.name for p in folder.iterdir() if p.suffix in shipped.KINDS]
        shipped.write(file, {name: disk.read(name) or b"" for name in names})
        monkeypatch.setattr(shipped, "FILE", file)
        yield file
    disk.folder.cache_clear()
    shipped._archive.cache_clear()
    kernels.plan.cache_clear()


def run(cache: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many stages a new process with an empty cache makes; the result is right."""
    monkeypatch.setenv("SPUVM_CACHE_DIR", str(cache))
    executables._INTERPRETED.clear()
    for kept in (disk.folder, shipped._archive, kernels.plan):
        kept.cache_clear()
    before = executables.assembled_count
    x = jax.ShapeDtypeStruct((3,), jnp.float32)
    program = compile_function(lambda x: jnp.where(x > 2, x, -x), [x], ["secret"], Config(protocol="aby3"))
    components = [np.array([v, v, v], np.uint64) << np.uint64(18) for v in (1, 2, 3)]
    components[0][1] = 0
    components[1][1] = 0
    components[2][1] = 1 << 18
    out = Executor(Streams(lambda holders: new_key(), None)).run(program.party(None), components)
    found = np.sum([np.asarray(c) for c in out], axis=0)[:3].astype(np.int64) / 2**18
    assert found.tolist() == [6, -1, 6]
    return executables.assembled_count - before


def test_a_first_call_traces_and_makes_nothing(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shipped.there()
    with patch.object(kernels, "analyse", side_effect=AssertionError("traced a kernel")):
        assert run(tmp_path / "second", monkeypatch) == 0


def test_what_is_damaged_or_of_another_version_is_made_anew(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = archive.read_bytes()
    for number, bad in enumerate((whole[: len(whole) // 2], b"", whole[:60] + bytes(400) + whole[460:])):
        archive.write_bytes(bad)
        assert run(tmp_path / f"damaged{number}", monkeypatch) > 0
    archive.write_bytes(whole)
    with patch.object(shipped, "code_digest", lambda: "another"):
        assert run(tmp_path / "version", monkeypatch) > 0
        assert not shipped.there()


def test_damage_of_any_byte_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths, methods, flags and places in the archive as well as contents: what is read is right, or nothing is."""
    file, content = tmp_path / "kernels.zip", bytes(range(40))
    monkeypatch.setattr(shipped, "FILE", file)
    shipped.write(file, {"a.plan": content, "b.code": b"another"})
    whole = file.read_bytes()
    try:
        for at in range(len(whole)):
            for bits in (0x01, 0x80, 0xFF):
                file.write_bytes(whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :])
                shipped._archive.cache_clear()
                assert shipped.read("a.plan") in (content, None), (at, bits)
    finally:
        shipped._archive.cache_clear()
