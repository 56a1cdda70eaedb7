"""Stages on a device that is named: the same bits on the CPU and on a second device; one that is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

import spuvm as spu
from spuvm.bench.command import bench
from spuvm.commands import cli
from spuvm.runtime.engine import device, tier
from spuvm.runtime.engine.interpreter import Interpreted
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.machine.program import tasks_of
from spuvm.runtime.ring import arithmetic, native
from spuvm.runtime.ring.limbs import BY_LIMBS, limbs_for, matmul_by_limbs
from spuvm.vm import make_config, simulator

pytestmark = pytest.mark.usefixtures("preloaded")

rng = np.random.default_rng(0)
by_limbs = jax.jit(matmul_by_limbs, static_argnums=2)  # compiled as one, as in a stage


@pytest.mark.parametrize(("kind", "dtype"), list(product(BY_LIMBS, (np.uint32, np.uint64))))
def test_products_by_limbs_have_the_bits_of_the_ring(kind: str, dtype: type) -> None:
    """At the limits, too: all ones, the greatest and least with a sign."""
    high = np.iinfo(dtype).max
    edges: Any = np.array([high, high // 2 + 1, 0x80, 0x7F80 % (high + 1), 0, 1], dtype)
    for shape, other in (((2, 3, 37), (2, 37, 5)), ((3, 2, 0), (3, 0, 2))):
        x, y = (rng.integers(0, high, s, dtype, endpoint=True) for s in (shape, other))
        x.reshape(-1)[::5] = np.resize(edges, x.reshape(-1)[::5].size)
        y.reshape(-1)[::3] = high
        with jax.enable_x64(True):
            got = np.asarray(by_limbs(x, y, kind))
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, np.einsum("bij,bjk->bik", x, y, dtype=dtype))


@pytest.mark.parametrize(("kind", "farthest"), [("int8", 0x7F7F7F7F7F7F7F80), ("float64", 2**64 - 1)])
def test_products_deeper_than_a_sum_is_exact(kind: str, farthest: int) -> None:
    """All digits as far from zero as they get, at the very depth that is said to be exact, and beyond it."""
    depth = BY_LIMBS[kind].depth + 3
    x, y = np.full((1, 1, depth), farthest, np.uint64), np.full((1, depth, 1), farthest, np.uint64)
    with jax.enable_x64(True):
        got = np.asarray(by_limbs(x, y, kind))
    assert int(got[0, 0, 0]) == depth * farthest**2 % 2**64


def test_what_matrix_units_multiply() -> None:
    assert [limbs_for(p) for p in ("gpu", "cuda", "rocm", "tpu")] == ["float64"] * 3 + ["int8"]


def work(x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
    return x @ y, jnp.where(x < y.T, x, y.T).sum()


def test_a_named_device_gives_what_the_engine_gives() -> None:
    x, y = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    want = spu.reveal(spu.jit(work, truncation="exact")(x, y))
    on_cpu = spu.jit(work, device="cpu", truncation="exact")
    got = spu.reveal(on_cpu(x, y))
    found = [s.load() for t in tasks_of(on_cpu.compile(x, y).party(None).block) for s in t.stages.values()]
    assert any(isinstance(f, Interpreted) for f in found) == (tier.current() != "xla")
    with device.on("cpu"):
        found = [s.load() for t in tasks_of(on_cpu.compile(x, y).party(None).block) for s in t.stages.values()]
    assert not any(isinstance(f, Interpreted) for f in found)
    assert on_cpu.vm.session.device == "cpu"
    for a, b in zip(got, want):
        np.testing.assert_array_equal(a, b)


SECOND = """
import jax, numpy as np, jax.numpy as jnp
import spuvm as spu
spu.init(parties=["alice", "bob", "carol"], address="local", device="cpu:1")
dev = spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"]))
x = np.arange(12, dtype=np.float32).reshape(3, 4) / 8 - 0.5
f = dev(lambda a, b: ((a @ b.T), jnp.maximum(a, 0).sum(1), jax.lax.fori_loop(0, 2, lambda i, v: v * v, a[0])))
for trip in range(2):
    out = f(spu.PYU("alice")(lambda: x)().to(dev), spu.PYU("bob")(lambda: 2 * x)().to(dev))
parts = [c for o in out for p in o.parts for c in getattr(p, "blocks", [p]) if isinstance(c, jax.Array)]
assert parts
assert all(c.devices() == {jax.devices("cpu")[1]} for c in parts)
for got, want in zip(spu.reveal(out), (2 * x @ x.T, np.maximum(x, 0).sum(1), x[0] ** 4)):
    np.testing.assert_allclose(got, want, atol=1e-3)
print("same")
"""


def test_a_second_device_by_limbs_from_memory_and_disk(tmp_path: Path) -> None:
    """Another device of this machine's has no zero copy and no native product: all goes as it would elsewhere."""
    flags = "--xla_force_host_platform_device_count=2"
    env = {**os.environ, "SPUVM_CACHE_DIR": str(tmp_path), "SPUVM_CACHE": "1", "XLA_FLAGS": flags}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", SECOND], env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "same\n"


def test_the_native_product_has_a_twin_elsewhere() -> None:
    """What a kernel calls for words of 64 and 128 bits, either way round, without the library."""
    x: Any
    y: Any
    x, y = (rng.integers(0, 2**64, s, np.uint64) for s in ((2, 3, 4), (2, 4, 5)))
    with jax.enable_x64(True), arithmetic.by_limbs("int8"):
        (z,) = arithmetic.call_elsewhere(native.MATMUL_TARGET, [x, y, x, y], False, False)
        (turned,) = arithmetic.call_elsewhere(native.MATMUL_TARGET, [x.mT, y.mT], True, True)
        low, high = arithmetic.call_elsewhere(native.WIDE_TARGET, [x, x, y, y], False, False)
    once = np.einsum("bij,bjk->bik", x, y)
    np.testing.assert_array_equal(z, 2 * once)
    np.testing.assert_array_equal(turned, once)
    exact = sum(int(a) * int(b) * (1 + 2**64) ** 2 for a, b in zip(x[0, 0], y[0, :, 0]))
    assert (int(high[0, 0, 0]) << 64) + int(low[0, 0, 0]) == exact % 2**128


@pytest.mark.parametrize("name", ["gpu7", "cpu:99", "cpu:", "cpu:-1", ":0", "rocm:0"])
def test_a_device_that_is_not_here(name: str) -> None:
    with pytest.raises(ConfigError, match=r"`device` '.*' is not here: JAX has cpu:0"):
        spu.jit(work, device=name)
    with pytest.raises(ConfigError, match="is not here"):
        spu.init(parties=["alice"], address="local", device=name)


def test_commands_take_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "f.py"
    program.write_text("def f(x, y):\n    return x + y\n")
    arguments = ["run", f"{program}:f", "--input", "x=2", "--input", "y=3", "--reveal", "all", "--quiet"]
    ran = CliRunner().invoke(cli, [*arguments, "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    assert "5" in ran.output
    assert device.wanted() is None
    for command in ([*arguments, "--device", "nowhere"], ["bench", "--device", "nowhere", "--ops", "less"]):
        refused = CliRunner().invoke(cli, command)
        assert refused.exit_code
        assert "nowhere" in str(refused.output) + str(refused.exception)
    monkeypatch.setenv(device.VARIABLE, "nowhere")
    with pytest.raises(ConfigError, match="nowhere"):
        simulator(make_config("ref2k", 64, None, None, ["one of its own"]))


def test_the_benchmark_tells_both() -> None:
    options = ["--ops", "multiply", "--size", "64", "--repeat", "1", "--no-network", "--device", "cpu"]
    ran = CliRunner().invoke(bench, options)
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.count(" multiply ") == 2
    assert "on the device by XLA" in ran.output
