"""The native library: optional, switchable, and of the same bits at every instruction set."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spuvm.runtime.ring import native

needs_native = pytest.mark.skipif(native.library() is None, reason="the native library is not built")


def _python(code: str, **environment: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PROBE = """
import jax, numpy as np
from spuvm.runtime.engine import random
from spuvm.runtime.ring import arithmetic, native
with jax.enable_x64(True):
    x = np.arange(48 * 48, dtype=np.uint64).reshape(48, 48) * np.uint64(0x9E3779B97F4A7C15)
    z = np.asarray(jax.jit(arithmetic.matmul)(x, x))
    text = jax.jit(arithmetic.matmul).lower(x, x).as_text()
out = random.aligned_empty(1001)
random.Stream(bytes(16)).fill(out, 5)
print(native.features(), "ffi" if native.MATMUL_TARGET in text else "xla", hash((z.tobytes(), out.tobytes())))
"""


@needs_native
def test_switched_off_by_the_environment_with_the_same_bits() -> None:
    on = _python(PROBE, SPUVM_NATIVE="1", PYTHONHASHSEED="1").split()
    off = _python(PROBE, SPUVM_NATIVE="0", PYTHONHASHSEED="1").split()
    assert off[:3] == ["aes=openssl", "matmul=xla", "xla"]
    assert on[1] != "matmul=xla"
    assert on[2] == "ffi"
    assert on[3] == off[3]


def test_importing_does_not_load_or_register() -> None:
    imports = "import spuvm.runtime.engine.random, spuvm.runtime.ring.arithmetic; from spuvm.runtime.ring import native"
    assert _python(f"{imports}; print(native.library.cache_info().currsize)") == "0"


def test_a_library_that_does_not_load_is_reported_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "warned", False)
    broken = tmp_path / "_native.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(native, "_find", lambda folder: broken)
    monkeypatch.delenv("SPUVM_NATIVE", raising=False)
    with pytest.warns(RuntimeWarning, match="without its native kernels"):
        assert native.library.__wrapped__() is None
    assert native.warned


@needs_native
def test_a_library_that_is_cut_off_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process would end where it reads what is missing."""
    found = native._find(Path(native.__file__).parent)
    assert found is not None
    content = found.read_bytes()
    if not content.startswith(b"\x7fELF"):
        pytest.skip("a file of another kind")
    native._check_whole(found)
    monkeypatch.setattr(native, "warned", False)
    monkeypatch.delenv("SPUVM_NATIVE", raising=False)
    for length in (80, len(content) // 3, len(content) - 1):
        cut = tmp_path / f"{length}.so"
        cut.write_bytes(content[:length])
        monkeypatch.setattr(native, "_find", lambda folder, cut=cut: cut)
        with pytest.warns(RuntimeWarning, match="it is cut off. With a C"):
            assert native.library.__wrapped__() is None


class Old:
    """A library of before there was a digest."""


def test_a_library_of_other_sources_is_reported_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is given may have another form than it reads."""
    found = native._find(Path(native.__file__).parent)
    if found is None or not hasattr(ctypes.CDLL(str(found)), "spuvm_sources"):
        pytest.skip("no library here")
    monkeypatch.setattr(native, "warned", False)
    monkeypatch.delenv("SPUVM_NATIVE", raising=False)
    assert native.library.__wrapped__() is not None
    for name, other in (("digest", lambda: "0" * 64), ("_declare", lambda lib: Old())):
        with monkeypatch.context() as patched:
            patched.setattr(native, name, other)
            with pytest.warns(RuntimeWarning, match="built from other sources"):
                assert native.library.__wrapped__() is None
    monkeypatch.setattr(native, "digest", lambda: None)  # as in a wheel
    assert native.library.__wrapped__() is not None


def test_finds_only_names_of_this_interpreter(tmp_path: Path) -> None:
    (tmp_path / "_native.cpython-27-vax.so").touch()
    assert native._find(tmp_path) is None
    (tmp_path / "_native.abi3.so").touch()
    assert native._find(tmp_path) == tmp_path / "_native.abi3.so"


def test_registers_once() -> None:
    assert native.register() is native.register() is (native.library() is not None)


@needs_native
def test_features_name_the_instruction_sets() -> None:
    aes, matmul = native.features().split()
    assert aes in {"aes=openssl", "aes=aes", "aes=vaes"}
    assert matmul in {"matmul=plain", "matmul=avx2", "matmul=avx512"}
