"""Circuits chosen for links: the same results, fewer rounds or fewer bytes, and a part of what parties agree on."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

import spuvm as spu
from spuvm.commands import cli
from spuvm.compiler.lower import weigh
from spuvm.compiler.uncollected import uncollected
from spuvm.runtime.config import OPTIMIZE, Config
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.link.cluster import load_cluster
from spuvm.vm import make_config

rng = np.random.default_rng(7)
TIES = rng.integers(-2, 3, (7, 5)).astype(np.float32) / 2

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "max and min": lambda x: (jnp.max(x, 1), jnp.min(x, 0)),
    "the first of equal ones": lambda x: (jnp.argmax(x, 1), jnp.argmin(x, 0)),
    "sorts": lambda x: (jnp.sort(x, 1), jnp.argsort(x, 0, descending=True)),
    "two keys": lambda x: jax.lax.sort((x[:, 0], x[:, 1], jnp.arange(7)), num_keys=2),
    "whole numbers": lambda x: (jnp.max((4 * x).astype(jnp.int32), 1), jnp.argmin((4 * x).astype(jnp.int8), 0)),
    "running": lambda x: (jax.lax.cummax(x, 0), jax.lax.cummin(x, 1, reverse=True)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_give_the_same(name: str) -> None:
    want = jax.tree.map(np.asarray, FUNCTIONS[name](TIES))
    for optimize in OPTIMIZE[1:]:
        for got, wanted in zip(
            jax.tree.leaves(spu.reveal(spu.jit(FUNCTIONS[name], optimize=optimize)(TIES))),
            jax.tree.leaves(want),
            strict=True,
        ):
            assert got.dtype == wanted.dtype
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("protocol", ["semi2k", "rep4"])
def test_other_protocols(protocol: str) -> None:
    def f(x: Any) -> Any:
        return jnp.max(x, 1), jnp.argmin(x, 1), jnp.sort(x[:, 0])

    for got, want in zip(spu.reveal(spu.jit(f, protocol=protocol, optimize="latency")(TIES)), f(TIES)):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("n", [1, 3, 9])
def test_groups_of_any_size(n: int) -> None:
    x = rng.integers(0, 4, (n, 2)).astype(np.int32)

    def f(x: Any) -> Any:
        return jnp.max(x, 0), jnp.argmin(x, 0)

    for got, want in zip(spu.reveal(spu.jit(f, optimize="latency")(x)), f(x)):
        np.testing.assert_array_equal(got, want)


def sent(fn: Callable[..., Any], optimize: str, *args: Any) -> tuple[int, int]:
    cost = spu.jit(fn, optimize=optimize).cost(*args)
    return cost.rounds, int(cost.bytes_sent.max())


def test_fewer_rounds_of_more_bytes() -> None:
    few, usual = sent(jnp.argmin, "latency", TIES), sent(jnp.argmin, "auto", TIES)
    assert few[0] < usual[0] / 3
    assert few[1] > usual[1]
    sorts = [sent(jnp.sort, o, TIES) for o in ("latency", "auto")]
    assert sorts[0][0] < sorts[1][0]


def test_on_narrow_links_wide_arrays_take_few_bytes_and_small_ones_few_rounds() -> None:
    """A circuit is chosen by size: what rounds cost is the same for all, what bytes cost grows."""
    wide = jax.ShapeDtypeStruct((33, 4000), np.float32)

    def running(x: Any) -> Any:
        return jax.lax.cummax(x, 0)

    few, usual = sent(running, "bandwidth", wide), sent(running, "auto", wide)
    assert few[1] < 0.6 * usual[1]
    assert few[0] > usual[0]
    assert sent(running, "bandwidth", TIES[:4])[0] <= sent(running, "auto", TIES[:4])[0]


def test_scans_of_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that wide arrays take, on small ones: all lengths."""
    monkeypatch.setitem(weigh.TRADES, "bandwidth", weigh.Trade(0.0, 1.0))
    for n in (3, 4, 7, 8):
        x = rng.integers(-9, 9, (n, 2)).astype(np.float32)
        got = spu.reveal(spu.jit(lambda x: (jax.lax.cummax(x, 0), jnp.cumprod(x[:3], 0)), optimize="bandwidth")(x))
        np.testing.assert_array_equal(got[0], np.maximum.accumulate(x))
        np.testing.assert_allclose(got[1], np.cumprod(x[:3], 0), atol=1e-3)


def test_parties_agree_on_it(tmp_path: Path) -> None:
    configs = [make_config("aby3", 64, None, None, None, optimize=o) for o in OPTIMIZE]
    assert len({c.digest for c in configs}) == 3
    assert "optimize" not in configs[0].settings  # the hash of a program that says nothing of it stays
    texts = [spu.jit(lambda x: x + 1, optimize=o).compile(TIES).text for o in OPTIMIZE]
    assert len(set(texts)) == 3
    path = tmp_path / "f.spux"
    path.write_text(texts[1])
    assert spu.load(path).config.optimize == "latency"
    with pytest.raises(ConfigError, match=r"`optimize` must be one of auto, latency, bandwidth, got 'speed'"):
        Config(optimize="speed")


def test_in_cluster_files_and_definitions(tmp_path: Path) -> None:
    made = CliRunner().invoke(
        cli, ["certificates", str(tmp_path / "keys"), "--parties", "a,b,c", "--optimize", "latency"]
    )
    assert made.exit_code == 0, made.output
    file = tmp_path / "keys" / "cluster.toml"
    assert load_cluster(file).config.optimize == "latency"
    file.write_text(file.read_text().replace('"latency"', "3"))
    with pytest.raises(ConfigError, match=r"`optimize` in .* must be of type str"):
        load_cluster(file)
    spu.init(parties=["alice", "bob", "carol"], address="local")
    definition: dict[str, Any] = spu.utils.testing.cluster_def(["alice", "bob", "carol"])
    assert spu.SPU(definition, optimize="bandwidth").vm.config.optimize == "bandwidth"
    definition["runtime_config"]["optimize"] = "latency"
    assert spu.SPU(definition).vm.config.optimize == "latency"
    spu.shutdown()


def test_the_command_shows_the_difference(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("def f(x):\n    return x.max()\n")
    rounds = {}
    for optimize in OPTIMIZE:
        arguments = ["cost", f"{tmp_path / 'f.py'}:f", "--arg", "f32[16]", "--optimize", optimize, "--json"]
        ran = CliRunner().invoke(cli, arguments)
        assert ran.exit_code == 0, ran.output
        rounds[optimize] = json.loads(ran.stdout)["rounds"]
    assert rounds["latency"] < rounds["auto"]


def test_large_arrays_keep_a_short_text() -> None:
    """Which pairs are compared is a constant of the program: never more than of a small group."""
    for fn in (jnp.max, jnp.argmin, jnp.sort):
        program = spu.jit(fn, optimize="latency").compile(jax.ShapeDtypeStruct((3000,), np.float32))
        assert len(program.text) < 500_000


def test_cycles_are_collected_after_compiling() -> None:
    with uncollected():
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), uncollected():
        raise ZeroDivisionError
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
