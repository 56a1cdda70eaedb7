"""Every kernel of every protocol: what it computes, and what its rounds and bytes are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from machine import (
    Case,
    Raw,
    both,
    cases,
    interpret,
    kernel_choreography,
    predicted_cost,
    random_operands,
    shapes_of,
    signed,
    simulated,
    split,
    traced,
    words,
)

from spuvm.compiler.project.schedule import reference_plan
from spuvm.runtime.config import Config
from spuvm.runtime.errors import ConfigError
from spuvm.runtime.protocols.aby3.protocol import ABY3
from spuvm.runtime.protocols.protocol import Kernel, Protocol, table
from spuvm.runtime.protocols.ref2k import ref2k
from spuvm.runtime.protocols.registered import protocol_of
from spuvm.runtime.protocols.sharings import reconstruct

REF2K = ref2k(3)


def _place(x: Raw) -> Raw:
    return np.asarray(np.log2(x & np.uint64(2**63 - 1)).astype(np.uint64))


def _prefix_or(x: Raw) -> Raw:
    for step in (1, 2, 4, 8, 16, 32):
        x = x | (x >> np.uint64(step))
    return x


def _floor(x: Raw, bits: int) -> Raw:
    return np.asarray(signed(x) >> np.int64(bits))


def _exp2(y: Raw, *bits: Raw, factors: tuple[int, ...], tops: tuple[int, ...]) -> Raw:
    power = np.exp2(signed(y) * 2.0**-57)
    return np.asarray(sum(b * (f * power + 2.0**32 * t) for b, f, t in zip(bits, factors, tops)))


def _harmonics(x: Raw, weights: tuple[tuple[int, int], ...], step: int, frac: int) -> Raw:
    angles = [(1 + i * step) * signed(x) * (2 * np.pi * 2.0**-64) for i in range(len(weights))]
    terms = [a * np.sin(m) + b * np.cos(m) for m, (a, b) in zip(angles, weights)]
    return np.asarray(np.sum(terms, axis=0) * 2.0 ** (frac - 40))


def _below(x: Raw, *limits: Raw) -> Raw:
    return np.asarray(sum((x - y) >> np.uint64(63) << np.uint64(i) for i, y in enumerate(limits)))


# What a kernel computes on values; a truncation may be one more than that.
MEANING: dict[str, Callable[..., Any]] = {
    "product_aa": lambda x, y: x * y,
    "dot_aa": lambda x, y, dims: np.matmul(x, y),
    "mask_v": lambda x, owner, ring: x,
    "product_vma": lambda x, m, y, owner: x * y,
    "dot_vma": lambda x, m, y, owner, dims: np.matmul(x, y),
    "dot_avm": lambda y, x, m, owner, dims: np.matmul(y, x),
    "mul_vma": lambda x, m, y, owner: x * y,
    "mul_trunc_vma": lambda x, m, y, owner, bits: _floor(x * y, bits),
    "reshare_d": lambda x: x,
    "mul_aa": lambda x, y: x * y,
    "trunc_d": _floor,
    "trunc_a": _floor,
    "mul_trunc_aa": lambda x, y, bits: _floor(x * y, bits),
    "and_bb": lambda x, y, bits: x & y,
    "msb_a": lambda x: x >> np.uint64(63),
    **dict.fromkeys(("below_app", "below_appp", "below_apppp"), _below),
    "eqz_a": lambda x: x == 0,
    "a2b": lambda x: x,
    "b2a": lambda x: x,
    "bit2a": lambda x, ring: x,
    "prefix_or_b": _prefix_or,
    "exp2_ab": _exp2,
    "exp2_abb": _exp2,
    "harmonics_a": _harmonics,
    "scaled_aa": lambda x, y: signed(x) * np.exp2(signed(y) * 2.0**-57),
    "power_b": lambda x: (np.where(x >> np.uint64(63), -1, 1) << (62 - _place(x).view(np.int64))).view(np.uint64),
    "position_b": lambda x: _place(x) << np.uint64(56),
    "share_v": lambda x, owner: x,
    "share_vb": lambda x, owner, bits: x,
    "reveal_a": lambda x: x,
    "reveal_b": lambda x, bits: x,
    "reveal_a_to": lambda x, owner: x,
    "reveal_b_to": lambda x, owner, bits: x,
}
TRUNCATING = {"trunc_d", "trunc_a", "mul_trunc_aa", "mul_trunc_vma"}


def _bits_of_harmonics(weights: object, step: int, frac: int) -> list[int]:
    return [2 * (64 + 48 + 40 + 32) + 48, 65, 65] if frac == 18 else [2 * (64 + 64 + 48 + 40), 64, 64]


def _bits_of_trunc(bits: int, owner: int = 0) -> list[int]:
    """A word, and of bits + 1 bits as many as the wire has sizes for."""
    return [64 + next(n for n in (16, 20, 24, 32, 64) if n > bits)] * 3


# ABY3: rounds, and the bits per element that each party sends (of a parameter `bits`, if it has one).
COST: dict[str, tuple[int, Callable[..., list[int]]]] = {
    "product_aa": (0, lambda: [0, 0, 0]),
    "dot_aa": (0, lambda dims: [0, 0, 0]),
    "mask_v": (1, lambda owner, ring: [ring * (i == owner) for i in range(3)]),
    "product_vma": (0, lambda owner: [0, 0, 0]),
    "dot_vma": (0, lambda owner, dims: [0, 0, 0]),
    "dot_avm": (0, lambda owner, dims: [0, 0, 0]),
    "mul_vma": (1, lambda owner: [64] * 3),
    "mul_trunc_vma": (2, _bits_of_trunc),
    "reshare_d": (1, lambda: [64] * 3),
    "mul_aa": (1, lambda: [64] * 3),
    "trunc_d": (2, _bits_of_trunc),
    "trunc_a": (2, _bits_of_trunc),
    "mul_trunc_aa": (2, _bits_of_trunc),
    "and_bb": (1, lambda bits: [bits] * 3),
    "msb_a": (7, lambda: [157, 125, 125]),
    **{f"below_a{'p' * n}": (6, lambda n=n: [61 * n, 240 + 29 * n, 61 * n]) for n in (2, 3, 4)},
    "eqz_a": (7, lambda: [64 + 63, 63, 63]),
    "a2b": (8, lambda: [64 + 32 + 4 * 32 + 16 + 32] * 3),
    "b2a": (8, lambda: [480, 448, 480]),
    "bit2a": (2, lambda ring: [ring] * 3),
    "prefix_or_b": (6, lambda: [6 * 32] * 3),
    "exp2_ab": (2, lambda factors, tops: [2 * 128, 64, 64]),
    "exp2_abb": (2, lambda factors, tops: [3 * 128 + 32, 64, 64]),
    "harmonics_a": (3, _bits_of_harmonics),
    "scaled_aa": (2, lambda: [384, 64, 64]),
    "power_b": (3, lambda: [256, 129, 129]),
    "position_b": (2, lambda: [48, 8, 8]),
    "share_v": (1, lambda owner: [64 * (i == owner) for i in range(3)]),
    "share_vb": (1, lambda owner, bits: [bits * (i == owner) for i in range(3)]),
    "reveal_a": (1, lambda: [64] * 3),
    "reveal_b": (1, lambda bits: [bits] * 3),
    "reveal_a_to": (1, lambda owner: [64 * (i == (owner + 2) % 3) for i in range(3)]),
    "reveal_b_to": (1, lambda owner, bits: [bits * (i == (owner + 2) % 3) for i in range(3)]),
}


def _fits(protocol: Protocol, case: Case) -> bool:
    return int(dict(case.params).get("owner", 0)) < protocol.world_size


PROTOCOLS = (ABY3, REF2K, ref2k(1))
ALL = [pytest.param(p, c, id=f"{p.name}{p.world_size}-{c}") for p in PROTOCOLS for c in cases(p) if _fits(p, c)]
# One choice of parameters for each kernel, and the bools: what is compiled and run as parties.
RUN = {
    str(c): c for c in cases(ABY3) if dict(c.params).get("bits", 18) in (1, 18) and dict(c.params).get("owner", 1) == 1
}


def assert_right(case: Case, operands: list[Raw], got: Raw) -> None:
    with np.errstate(over="ignore"):
        want = MEANING[case.kernel.name](*operands, **dict(case.params))
    if case.kernel.name in ("exp2_ab", "exp2_abb"):
        y, *bits = operands
        power = np.exp2(signed(y) * 2.0**-57)
        inside = (power >= 0.5) & (power < 2.0**61)
        assert (abs(signed(got) - want) <= 2 + 4e-7 * power)[inside].all()
        assert (signed(got) == want)[inside & ~np.any(bits, axis=0)].all()
        return
    if case.kernel.name == "harmonics_a":
        error = abs(signed(got) - want) * 2.0 ** -dict(case.params)["frac"]
        assert error.max(initial=0) < 1.3 * 2.0**-18
        return
    if case.kernel.name == "scaled_aa":
        inside = (abs(signed(operands[0])) < 2.0**62) & (signed(operands[1]) >= -23 << 57) & (abs(want) < 2.0**61.9)
        assert (abs(signed(got) - want) <= 1 + 1.2e-6 * abs(want))[inside].all()
        return
    if case.kernel.name not in TRUNCATING:
        np.testing.assert_array_equal(got, want)
        return
    bits = dict(case.params)["bits"]
    x = operands[0] if len(operands) == 1 else operands[0] * operands[-1]
    valid = (signed(x) >= -(2**62)) & (signed(x) < 2**62)
    error = (signed(got) - want)[valid]
    assert error.size == 0 or (error.min() >= 0 and error.max() <= 1)
    exact = (x & np.uint64(2**bits - 1))[valid] == 0
    assert not error[exact].any()


def test_every_kernel_has_a_meaning() -> None:
    for protocol in PROTOCOLS:
        assert set(protocol.kernels) == set(MEANING)
    assert set(COST) == set(ABY3.kernels)


@pytest.mark.parametrize(("protocol", "case"), ALL)
def test_meaning(protocol: Protocol, case: Case) -> None:
    """The kernel over all components, sends and randoms taken literally, against integers."""
    shapes = shapes_of(case, 96)
    operands = random_operands(case, shapes)
    rng = np.random.default_rng(2)
    components = []
    for kind, x in zip(case.kernel.inputs, operands):
        components += split(x, kind, protocol.algebra, rng, case.width)

    def draw(holders: Any, shape: Any, dtype: Any) -> Raw:
        return np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)

    with jax.enable_x64(True):
        closed = traced(case, protocol, shapes)
        out = interpret(closed.jaxpr, closed.consts, components, draw, [])
    assert_right(case, operands, reconstruct(protocol.algebra, case.kernel.output, out))


@pytest.mark.parametrize("case", [pytest.param(c, id=str(c)) for c in cases(ABY3)])
def test_rounds_and_bytes(case: Case) -> None:
    """What the analysis of a kernel says is what the table above says."""
    choreography = kernel_choreography(case, ABY3, shapes_of(case, 1000))
    rounds, bits = COST[case.kernel.name]
    rounds -= dict(case.params).get("frac") == 57  # of harmonics that are not lowered
    predicted = predicted_cost(choreography)
    (call,) = choreography.block.steps
    assert reference_plan(call).rounds == rounds  # type: ignore[arg-type]
    assert predicted.rounds == rounds
    assert predicted.bytes_sent.tolist() == [-(-1000 * b // 8) for b in bits(**dict(case.params))]


@pytest.mark.parametrize("name", RUN)
def test_as_parties(name: str) -> None:
    """Compiled, simulated and as three parties: the same shares, the right values, the predicted cost."""
    case = RUN[name]
    for n in (0, 1, 63, 64) if case.kernel.elementwise else (16,):
        shapes = shapes_of(case, n)
        operands = random_operands(case, shapes, seed=n)
        (got,) = both(kernel_choreography(case, ABY3, shapes), ABY3, operands, case.width)
        assert_right(case, operands, got)


@pytest.mark.parametrize("name", [n for n, c in RUN.items() if c.kernel.elementwise])
def test_sizes(name: str) -> None:
    """Blocks of every canonical length, and their remainders."""
    for n in (65, 1000, 175_000):
        shapes = shapes_of(RUN[name], n)
        operands = random_operands(RUN[name], shapes, seed=n)
        (got,) = simulated(kernel_choreography(RUN[name], ABY3, shapes), ABY3, operands, RUN[name].width)
        assert got.shape == (n,)
        assert_right(RUN[name], operands, got)


@pytest.mark.parametrize("name", ["mul_trunc_aa-bits=18", "and_bb-bits=1", "reveal_b-bits=1", "share_v-owner=1"])
def test_blocks_as_parties(name: str) -> None:
    """Messages of several blocks, the last of them partly filled and, for bools, not whole bytes."""
    case = RUN[name]
    shapes = shapes_of(case, 175_001)
    operands = random_operands(case, shapes)
    (got,) = both(kernel_choreography(case, ABY3, shapes), ABY3, operands, case.width)
    assert_right(case, operands, got)


@pytest.mark.parametrize("name", ["mul_aa", "and_bb-bits=1", "mul_trunc_aa-bits=18"])
@pytest.mark.parametrize("scalar", [0, 1])
def test_scalar_operand(name: str, scalar: int) -> None:
    """A scalar applies to all elements."""
    case = RUN[name]
    shapes = shapes_of(case, 70)
    shapes[scalar] = ()
    operands = random_operands(case, shapes, seed=5)
    operands[scalar] = operands[scalar] | operands[scalar].dtype.type(1)
    (got,) = both(kernel_choreography(case, ABY3, shapes), ABY3, operands, case.width)
    assert got.shape == (70,)
    assert_right(case, operands, got)


@pytest.mark.parametrize("bits", [1, 18, 31, 32, 45])
def test_truncation_is_within_one_unit_and_unbiased(bits: int) -> None:
    """A million values of |x| < 2^62: floor or floor + 1, the latter as often as the fraction says."""
    n = 2**20 if bits == 18 else 2**16
    (case,) = [c for c in cases(ABY3) if c.kernel.name == "trunc_d" and dict(c.params)["bits"] == bits]
    x = np.random.default_rng(bits).integers(-(2**62), 2**62, n).astype(np.uint64)
    edges = words([0, 1, -1, 2**62 - 1, -(2**62), 2**62 - 2**bits, 2**bits - 1, -(2**bits), 1 - 2**bits])
    x[: len(edges)] = edges
    (got,) = simulated(kernel_choreography(case, ABY3, [(n,)]), ABY3, [x])
    up = signed(got) - _floor(x, bits)
    assert up.min() >= 0
    assert up.max() <= 1
    fraction = (x & np.uint64(2**bits - 1)).astype(np.float64) / 2.0**bits
    assert not up[fraction == 0].any()
    for low in np.arange(0, 1, 0.125):
        chosen = (fraction >= low) & (fraction < low + 0.125)
        expected, spread = fraction[chosen], np.sqrt((fraction * (1 - fraction))[chosen].sum() + 1)
        assert abs((up[chosen] - expected).sum()) < 6 * spread


def test_small_values_truncate_right_too() -> None:
    """What programs truncate is mostly small: two parties shifting their own shares would fail here too."""
    (case,) = [c for c in cases(ABY3) if str(c) == "trunc_d-bits=18"]
    x = np.random.default_rng(0).integers(-(2**20), 2**20, 2**16).astype(np.uint64)
    (got,) = simulated(kernel_choreography(case, ABY3, [(2**16,)]), ABY3, [x])
    assert set((signed(got) - _floor(x, 18)).tolist()) == {0, 1}


def test_a_name_given_twice_is_refused() -> None:
    kernel = Kernel("mul_aa", lambda x, y: x, "aa", "a")
    with pytest.raises(ValueError, match="`mul_aa` is registered twice"):
        table(kernel, kernel)


def test_protocols_by_name() -> None:
    assert protocol_of(Config()) is ABY3
    assert protocol_of(Config(protocol="ref2k", parties=("a", "b"))).world_size == 2
    with pytest.raises(ConfigError, match="must be one of"):
        protocol_of(Config(protocol="bgw"))
    with pytest.raises(ConfigError, match="runs among 3 parties, got 2"):
        protocol_of(Config(parties=("a", "b")))
