"""Compiled programs on disk: the same program is found again, another is not, and damage is no harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spuvm.compiler import compile as pipeline
from spuvm.compiler.cache import disk, shipped
from spuvm.compiler.cache.recent import Recent
from spuvm.compiler.compile import Program, compile_function
from spuvm.compiler.front.fingerprint import fingerprint
from spuvm.compiler.front.trace import trace
from spuvm.compiler.project import executables, kernels
from spuvm.runtime.config import Config
from spuvm.runtime.engine import tier
from spuvm.runtime.engine.random import new_key
from spuvm.runtime.machine.executor import Executor, Streams

X = jax.ShapeDtypeStruct((3,), jnp.float32)
TABLE = np.array([1.0, 2.0, 3.0], np.float32)
CONFIG = Config(protocol="aby3")


@pytest.fixture(params=["native", "xla"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache; the stages that this process has loaded count as not loaded."""
    if request.param == "native" and tier.current() != "native":
        pytest.skip("needs the vector engine")
    monkeypatch.setenv("SPUVM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(shipped, "FILE", tmp_path / "none.zip")
    disk.folder.cache_clear()
    loaded = [patch.object(executables, name, Recent[str, Any]()) for name in ("_LOADED", "_INTERPRETED")]
    with tier.use(request.param), loaded[0], loaded[1]:
        folder = disk.folder()
        assert folder is not None
        yield folder
    disk.folder.cache_clear()


def function(x: Any) -> Any:
    return jnp.where(x > 0, x * TABLE, jnp.sum(x))


def program(fn: Callable[..., Any] = function) -> Program:
    return compile_function(fn, [X], ["secret"], CONFIG)


def again(fn: Callable[..., Any] = function) -> Program:
    """As another process would: nothing but tracing is done anew."""
    executables._LOADED.clear()
    executables._INTERPRETED.clear()
    with patch.object(pipeline, "lower", side_effect=AssertionError("lowered again")):
        return program(fn)


def made() -> int:
    """Stages that this process compiled or assembled."""
    return executables.compiled_count + executables.assembled_count


def result(compiled: Program) -> Any:
    components = [np.array([v, v, v], np.uint64) << np.uint64(18) for v in (1, 2, 3)]
    out = Executor(Streams(lambda holders: new_key(), None)).run(compiled.party(None), components)
    return np.sum([np.asarray(c) for c in out], axis=0)[:3]  # a sum of components is the value


def test_another_process_only_traces(cache: Path) -> None:
    first = program()
    expected, party = result(first), first.party(1)
    before = made()
    second = again()
    assert second.hash == first.hash
    assert second.text == first.text
    with patch.object(pipeline, "project", side_effect=AssertionError("projected again")):
        np.testing.assert_allclose(result(second).astype(np.int64), expected.astype(np.int64), atol=3)
    assert made() == before
    assert len(second.party(1).block.steps) == len(party.block.steps)


def test_a_missing_stage_is_compiled_anew(cache: Path) -> None:
    expected = result(program())
    stages = [p for p in cache.iterdir() if p.suffix == (".code" if tier.current() == "native" else ".stage")]
    assert stages
    for path in stages:
        path.unlink()
    before = made()
    np.testing.assert_allclose(result(again()).astype(np.int64), expected.astype(np.int64), atol=3)
    assert made() > before


@pytest.mark.parametrize("cache", ["xla"], indirect=True)
def test_stages_of_parties_that_do_the_same_are_compiled_once(cache: Path) -> None:
    compiled = program()
    for rank in range(3):
        compiled.party(rank).prepare()
    names = [p for p in cache.glob("*.*.*") if p.suffix != ".plan"]
    stages = {(disk.read(p.name) or b"").decode() for p in names}
    assert {p.name for p in cache.glob("*.stage")} == stages
    assert len(stages) < len(names)


def flipped(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]


@pytest.mark.parametrize("damage", [lambda x: b"", lambda x: x[:-9], flipped, lambda x: b"{}", lambda x: x[32:]])
def test_a_damaged_entry_is_not_there_and_is_replaced(cache: Path, damage: Callable[[bytes], bytes]) -> None:
    """Nor is one of another form: `x[32:]` is what was written before entries had checksums."""
    first = program()
    expected = result(first)
    entries = list(cache.iterdir())
    for path in entries:
        path.write_bytes(damage(path.read_bytes()))
        assert disk.read(path.name) is None
    executables._LOADED.clear()
    executables._INTERPRETED.clear()
    kernels.plan.cache_clear()
    second = program()
    assert second.hash == first.hash
    np.testing.assert_allclose(result(second).astype(np.int64), expected.astype(np.int64), atol=3)
    assert all(disk.read(path.name) is not None for path in entries)


def test_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPUVM_CACHE", "0")
    disk.folder.cache_clear()
    try:
        assert program().hash == program().hash
    finally:
        disk.folder.cache_clear()


def name(fn: Callable[..., Any], x: Any = X, who: Any = "secret", config: Config = CONFIG) -> str:
    return fingerprint(trace(fn, [x]), [who], config)


def test_fingerprints_tell_programs_apart() -> None:
    def scaled(by: float) -> Callable[..., Any]:
        return lambda x: x * by

    def with_table(table: Any) -> Callable[..., Any]:
        return lambda x: x + table

    def looped(n: int) -> Callable[..., Any]:
        return lambda x: jax.lax.fori_loop(0, n, lambda i, c: jax.nn.relu(c) + 1, x)

    names = [
        name(scaled(2.0)),
        name(scaled(3.0)),
        name(scaled(2.0), jax.ShapeDtypeStruct((4,), jnp.float32)),
        name(scaled(2.0), jax.ShapeDtypeStruct((3,), jnp.int32)),
        name(scaled(2.0), who="public"),
        name(scaled(2.0), who=1),
        name(scaled(2.0), config=Config(protocol="ref2k", parties=("a",))),
        name(with_table(TABLE)),
        name(with_table(np.array([1.0, 2.0, 4.0], np.float32))),
        name(with_table(jnp.asarray(TABLE).at[0].set(5))),
        name(looped(2)),
        name(looped(3)),
        name(lambda x: x * 2.0),  # another line of the same file
    ]
    assert len(set(names)) == len(names)
    assert name(looped(3)) == name(looped(3))
