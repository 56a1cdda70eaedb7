"""Exact truncations: the floor, under every protocol and ring, and nothing more told by many of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from machine import TRUNCATIONS, both, edges_of, module, random_words, simulated, type_of, words
from test_own_protocol import ASTRA

import spuvm as spu
from spuvm import cli
from spuvm.compiler.compile import Program
from spuvm.compiler.front.trace import reveal
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Module
from spuvm.context import Context
from spuvm.runtime.config import Config
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.protocols.protocol import Protocol
from spuvm.runtime.protocols.registered import PROTOCOLS
from spuvm.runtime.ring.elements import signed

PROTOCOL_SIZES = [("aby3", 3), ("semi2k", 2), ("semi2k", 3), ("rep4", 4), ("ref2k", 1)]


def exact(made: Module) -> Module:
    return replace(made, config={**made.config, "truncation": "exact"})


def protocol(name: str, n: int) -> Protocol:
    return PROTOCOLS[name].build(n, 0)


def inside(ring: int) -> Any:
    """Edges of the domain |x| < 2^(k-2) and of what is dropped, and numbers within it."""
    edges = [x for x in edges_of(ring) if -(2 ** (ring - 2)) < x < 2 ** (ring - 2)]
    dropped = [s * 2**b + d for b in TRUNCATIONS[ring] for s in (1, -1) for d in (-1, 0, 1)]
    drawn = [int(x) // 8 for x in signed(random_words(np.random.default_rng(ring), 40, ring))[20:]]
    return words([*edges, *dropped, *drawn], ring)


@pytest.mark.parametrize("ring", [32, 64, 128])
@pytest.mark.parametrize(("name", "n"), PROTOCOL_SIZES)
def test_it_is_the_floor(name: str, n: int, ring: int) -> None:
    """Of every number of bits for which kernels differ; the same as the plain evaluator's, bit for bit."""
    x, bits = inside(ring), TRUNCATIONS[ring]
    most = f"fxp{ring - 3}"
    made = exact(module(lambda b, x: [b.trunc(x, k) for k in bits], type_of(most, x.shape), ring=ring))
    for got, want, k in zip(simulated(made, protocol(name, n), [x]), evaluate(made.body, [x], ring=ring), bits):
        np.testing.assert_array_equal(got, want)
        assert [int(v) for v in signed(got)] == [int(v) >> k for v in signed(x)]


@pytest.mark.parametrize(("name", "n"), PROTOCOL_SIZES[:4])
def test_products_by_parties_and_simulated(name: str, n: int) -> None:
    """Of secrets, squares, a private and a secret, sums of them, conversions: equal shares and costs, equal values."""
    t, mine = type_of("fxp18", (9,)), type_of("fxp18", (9,), 0)

    def build(b: Any, x: Any, y: Any, z: Any) -> list[Any]:
        sums = b.trunc(b.add(b.mul_raw(x, y), b.mul_raw(z, y)), 18)
        dot = b.trunc(b.op("dot", x, y, dims=(((0,), (0,)), ((), ()))), 18)
        return [b.trunc(b.mul_raw(*p), 18) for p in ((x, y), (x, x), (z, y))] + [
            sums,
            dot,
            b.op("convert", x, to="fxp4"),
        ]

    rng = np.random.default_rng(2)
    raws = [words([int(v) for v in rng.integers(-(2**22), 2**22, 9)]) for _ in range(3)]
    made = exact(module(build, t, t, mine))
    for got, want in zip(both(made, protocol(name, n), raws), evaluate(made.body, raws), strict=True):
        np.testing.assert_array_equal(got, want)


def test_many_of_one_value_tell_no_more_than_one() -> None:
    """The attack on results that are rounded by chance: their mean has the dropped bits. Here all are equal."""
    x = np.full(4096, 0.7, np.float32)

    def product(**how: Any) -> Any:
        return np.unique(spu.reveal(spu.jit(lambda x: x * x, **how)(x)), return_counts=True)

    values, counts = product()
    units = round(0.7 * 2**18) ** 2 / 2**18
    assert abs((values.astype(float) * counts).sum() / 4096 * 2**18 - units) < 0.1
    assert 0.1 < units % 1 < 0.9
    assert len(values) == 2
    assert len(product(truncation="exact")[0]) == 1


@pytest.mark.parametrize(("name", "n"), PROTOCOL_SIZES[:4])
def test_every_message_is_proved_to_say_nothing(name: str, n: int) -> None:
    f = spu.jit(lambda x, y: reveal(x * y), protocol=name, world_size=n, truncation="exact")
    x = np.ones(2, np.float32)
    learns = f.compile(x, x).learns
    assert learns.refused == ()
    assert {item.kind for item in learns.learned} == {"reveal"}


def test_functions_are_equal_from_run_to_run() -> None:
    """None is computed by a kernel that rounds by chance; what they give is what the plain evaluator gives."""
    x = np.linspace(-3, 3, 40, dtype=np.float32)

    def fn(x: Any) -> Any:
        return jnp.exp(x), jnp.sin(x), 1 / (x + 7), jnp.sqrt(x + 4)

    f = spu.jit(fn, truncation="exact")
    program = f.compile(x)
    kernels = {s.spec.name for s in program.choreography.block.steps if hasattr(s, "spec")}
    assert kernels.isdisjoint({"exp2_ab", "exp2_abb", "harmonics_a", "scaled_aa", "mul_trunc_aa", "mul_trunc_vma"})
    first, second = (spu.reveal(f(x)) for _ in range(2))
    raw = evaluate(program.module.body, [np.round(x.astype(np.float64) * 2**18).astype(np.int64).view(np.uint64)])
    for a, b, clear, out in zip(first, second, raw, fn(x), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, (signed(clear) * 2.0**-18).astype(np.float32))
        np.testing.assert_allclose(a, out, rtol=1e-4, atol=1e-4)


def test_low_bits_of_a_protocol_of_its_own() -> None:
    """The algebra's part: what is its components' last bits are a boolean sharing of the value's."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**63, 50).astype(np.uint64)
    for algebra in (ASTRA.algebra, *(protocol(*p).algebra for p in PROTOCOL_SIZES)):
        with np.errstate(over="ignore"):
            parts = algebra.split("a", x, lambda: rng.integers(0, 2**63, 50).astype(np.uint64))
            bits = algebra.reconstruct("b", algebra.low_bit(parts))
        np.testing.assert_array_equal(np.asarray(bits), (x & np.uint64(1)).astype(np.uint8))


# What is agreed -------------------------------------------------------------------------------------------


def test_it_is_part_of_what_parties_agree_on() -> None:
    usual, other = Config(), Config(truncation="exact")
    assert "truncation" not in usual.settings
    assert usual.digest != other.digest
    x = np.ones(2, np.float32)
    programs = [spu.jit(lambda x: x * x, truncation=t).compile(x) for t in ("probabilistic", "exact")]
    assert programs[0].hash != programs[1].hash
    again = Program(programs[1].module)
    assert again.config.exact
    with pytest.raises(ConfigError, match="`truncation` must be one of probabilistic, exact, got 'nearest'"):
        spu.jit(lambda x: x, truncation="nearest")


def test_devices_and_the_operators_file(tmp_path: Path) -> None:
    spu.init(parties=("a", "b", "c"), address="local")
    definition = spu.utils.testing.cluster_def(["a", "b", "c"])
    assert not spu.SPU(definition).vm.config.exact
    assert spu.SPU(definition, truncation="exact").vm.config.exact
    asked = spu.utils.testing.cluster_def(["a", "b", "c"], {"truncation": "exact"})
    assert spu.SPU(asked).vm.config.exact
    spu.shutdown()
    assert cli.run(["certificates", str(tmp_path / "k"), "--parties", "a,b,c", "--truncation", "exact"]) == 0
    file = tmp_path / "k" / "cluster.toml"
    cluster = load_cluster(file)
    assert cluster.config.exact
    context = Context(cluster.names, "a", None, cluster.config, file, None, cluster.protocols)
    with pytest.raises(ConfigError, match=r'asks for truncation = "probabilistic", and .* says "exact"'):
        context.machine(Config(parties=cluster.names))
    file.write_text(re.sub('truncation = "exact"', 'truncation = "rough"', file.read_text()))
    with pytest.raises(ConfigError, match="`truncation` must be one of"):
        load_cluster(file)
