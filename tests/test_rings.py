"""Rings of 32 and 128 bits: every kernel of every protocol, and what is built of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machine import (
    Case,
    both,
    cases,
    interpret,
    kernel_choreography,
    predicted_cost,
    random_operands,
    shapes_of,
    signed,
    split,
    traced,
    words,
)

from spuvm.runtime.engine.random import Stream
from spuvm.runtime.errors import EncodingError
from spuvm.runtime.protocols.aby3.protocol import ABY3
from spuvm.runtime.protocols.dealt import semi2k
from spuvm.runtime.protocols.protocol import Protocol
from spuvm.runtime.protocols.ref2k import ref2k
from spuvm.runtime.protocols.sharings import reconstruct
from spuvm.runtime.protocols.sharings import split as split_input
from spuvm.runtime.ring import arithmetic, in_the_clear
from spuvm.runtime.ring import bits as bt
from spuvm.runtime.ring.elements import WIDE, Word, joined, limbs
from spuvm.runtime.ring.elements import words as ring_words
from spuvm.runtime.ring.encodings import decode, encode, scaled

RINGS = (32, 128)
PROTOCOLS = (ABY3, ref2k(1), semi2k(2), semi2k(3))
Integers = Any  # object arrays of Python's integers


def integers(raw: Any) -> Integers:
    return np.asarray(signed(raw), object)


def _wrapped(x: Integers, k: int) -> Integers:
    return (np.asarray(x, object) + 2 ** (k - 1)) % 2**k - 2 ** (k - 1)


def _or_above(x: Integers, k: int) -> Integers:
    x, step = x % 2**k, 1
    while step < k:
        x, step = x | (x >> step), 2 * step
    return x


# What a kernel computes on signed integers modulo 2^k; a truncation may be one more. `exp2_ab` is for 64 bits alone.
MEANING: dict[str, Callable[..., Any]] = {
    "product_aa": lambda k, x, y: x * y,
    "dot_aa": lambda k, x, y, dims: x @ y,
    "reshare_d": lambda k, x: x,
    "mul_aa": lambda k, x, y: x * y,
    "square_d": lambda k, x: x * x,
    "square_a": lambda k, x: x * x,
    "square_trunc_a": lambda k, x, bits: _wrapped(x * x, k) >> bits,
    "mask_v": lambda k, x, owner, ring: x,
    "product_vma": lambda k, x, m, y, owner: x * y,
    "mul_vma": lambda k, x, m, y, owner: x * y,
    "mul_trunc_vma": lambda k, x, m, y, owner, bits: _wrapped(x * y, k) >> bits,
    "dot_vma": lambda k, x, m, y, owner, dims: x @ y,
    "dot_avm": lambda k, x, y, m, owner, dims: x @ y,
    "trunc_d": lambda k, x, bits: x >> bits,
    "trunc_a": lambda k, x, bits: x >> bits,
    "mul_trunc_aa": lambda k, x, y, bits: _wrapped(x * y, k) >> bits,
    "and_bb": lambda k, x, y, bits: x & y,
    "msb_a": lambda k, x: x < 0,
    **dict.fromkeys(("below_app", "below_appp", "below_apppp"), lambda k, x, *limits: _below(k, x, *limits)),
    "eqz_a": lambda k, x: x == 0,
    "a2b": lambda k, x: x,
    "b2a": lambda k, x: x,
    "bit2a": lambda k, x, ring: x,
    "prefix_or_b": lambda k, x: _or_above(x, k),
    **dict.fromkeys(("keyed_below_app", "keyed_below_appp", "keyed_below_apppp"), lambda k, *x: _below(k, *x)),
    "keyed_msb_a": lambda k, x: x < 0,
    "keyed_eqz_a": lambda k, x: x == 0,
    "share_v": lambda k, x, owner: x,
    "share_vb": lambda k, x, owner, bits: x,
    "reveal_a": lambda k, x: x,
    "reveal_b": lambda k, x, bits: x,
    "reveal_a_to": lambda k, x, owner: x,
    "reveal_b_to": lambda k, x, owner, bits: x,
}


def _below(k: int, x: Any, *limits: Any) -> Any:
    return sum((_wrapped(x - y, k) < 0).astype(int) << i for i, y in enumerate(limits))


def _fits(protocol: Protocol, case: Case) -> bool:
    return case.kernel.name in MEANING and int(dict(case.params).get("owner", 0)) < protocol.world_size


def assert_right(case: Case, operands: list[Any], got: Any) -> None:
    k, xs = case.ring, [integers(x) for x in operands]
    want = _wrapped(np.asarray(MEANING[case.kernel.name](k, *xs, **dict(case.params)), object) + 0, k)
    got = integers(got)
    if "trunc" not in case.kernel.name:
        assert (_wrapped(got, k) == want).all()
        return
    x = xs[0] if "mul" not in case.kernel.name and "square" not in case.kernel.name else _wrapped(xs[0] * xs[-1], k)
    valid = (x >= -(2 ** (k - 2))) & (x < 2 ** (k - 2))
    error = (got - want)[valid.astype(bool)]
    assert set(error.tolist()) <= {0, 1}
    assert not error[(x % 2 ** dict(case.params)["bits"] == 0)[valid.astype(bool)].astype(bool)].any()


@pytest.mark.parametrize("k", RINGS)
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: f"{p.name}{p.world_size}")
def test_meaning(protocol: Protocol, k: int) -> None:
    """Each kernel over all components, sends and randoms taken literally, against integers."""
    rng = np.random.default_rng(2)

    def draw(holders: Any, shape: Any, dtype: Any) -> Any:
        return np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)

    for case in cases(protocol, k):
        if not _fits(protocol, case):
            continue
        operands = random_operands(case, shapes_of(case, 96))
        owner = dict(case.params).get("owner")
        slots = []
        for kind, x in zip(case.kernel.inputs, operands):
            slots += split(x, kind, protocol.algebra, rng, case.width)
        with jax.enable_x64(True):
            closed = traced(case, protocol, shapes_of(case, 96))
            out = [np.asarray(x) for x in interpret(closed.jaxpr, closed.consts, slots, draw, [])]
        count = len(out) // len(protocol.components(case.kernel.output, owner))
        assert_right(case, operands, reconstruct(protocol.algebra, case.kernel.output, out, count))


@pytest.mark.parametrize("k", RINGS)
def test_rounds_and_bytes(k: int) -> None:
    """ABY3 in a ring of k bits: rounds grow with log k, bytes with k."""
    levels = k.bit_length() - 1
    short = {1: 16, 8: 16, 20: 24, 26: 32, 40: 64, 63: 64}  # the bits sent of a word of one bit more than is cut off
    want: dict[str, tuple[int, int]] = {
        "mul_aa": (1, k),
        "msb_a": (1 + levels, 0),
        "a2b": (2 + levels, 2 * k + (levels - 2) * k // 2 + k // 4),
        "prefix_or_b": (levels, levels * k // 2),
        "bit2a": (2, k),
        "reveal_a": (1, k),
    }
    for case in cases(ABY3, k):
        if case.kernel.name not in MEANING:
            continue
        name, bits = case.kernel.name, dict(case.params).get("bits")
        predicted = predicted_cost(kernel_choreography(case, ABY3, shapes_of(case, 1000)))
        if name in want:
            assert predicted.rounds == want[name][0], name
            if name not in ("msb_a", "a2b"):
                assert predicted.bytes_sent.tolist() == [1000 * want[name][1] // 8] * 3, name
        elif name == "trunc_d" and bits in short:
            assert predicted.bytes_sent.tolist() == [125 * (k + min(short[bits], k))] * 3
        elif name == "and_bb" and (k, bits) != (128, 64):  # words of 64 bits there are halves of a component
            assert predicted.bytes_sent.tolist() == [125 * bits] * 3  # type: ignore[operator]


@pytest.mark.parametrize("k", RINGS)
def test_as_parties(k: int) -> None:
    """Compiled, simulated and as parties: the same shares, the right values, the predicted cost."""
    run = ["mul_trunc_aa-bits=", "msb_a", "dot_aa", f"bit2a-ring={k}"]
    for case in cases(ABY3, k):
        if not any(str(case).startswith(name) for name in run):
            continue
        run = [name for name in run if not str(case).startswith(name)]  # one choice of parameters each
        shapes = shapes_of(case, 72)
        operands = random_operands(case, shapes, seed=3)
        (got,) = both(kernel_choreography(case, ABY3, shapes), ABY3, operands, case.width)
        assert_right(case, operands, got)
    assert not run


# Words of two limbs ------------------------------------------------------------------------------------


EDGES = [s * 2**e + d for e in (0, 1, 31, 32, 33, 63, 64, 65, 96, 126, 127) for s in (1, -1) for d in (-1, 0, 1)]


def pairs() -> tuple[Integers, Integers]:
    x, y = np.meshgrid(np.array(EDGES, object), np.array(EDGES, object))
    return _wrapped(x.ravel(), 128), _wrapped(y.ravel(), 128)


def as_word(x: Integers) -> Word:
    return Word(*map(jnp.asarray, limbs(ring_words(x, 128))))


def from_word(x: Any) -> Integers:
    return integers(joined([np.asarray(x.low), np.asarray(x.high)])) if isinstance(x, Word) else np.asarray(x)


@pytest.mark.parametrize(
    ("function", "meaning"),
    [
        (lambda x, y: x + y, lambda x, y: x + y),
        (lambda x, y: x - y, lambda x, y: x - y),
        (lambda x, y: x * y, lambda x, y: x * y),
        (lambda x, y: -x, lambda x, y: -x),
        (lambda x, y: ~x, lambda x, y: ~x),
        (lambda x, y: x & y, lambda x, y: x & y),
        (lambda x, y: x | y, lambda x, y: x | y),
        (lambda x, y: x ^ y, lambda x, y: x ^ y),
        (lambda x, y: x == y, lambda x, y: x == y),
        (lambda x, y: x != y, lambda x, y: x != y),
        (lambda x, y: in_the_clear.less(x, y, signed=True), lambda x, y: x < y),
        (lambda x, y: in_the_clear.less(x, y, signed=False), lambda x, y: x % 2**128 < y % 2**128),
        (lambda x, y: in_the_clear.toward_zero(x, bits=26), lambda x, y: np.where(x < 0, -(-x >> 26), x >> 26)),
        (lambda x, y: in_the_clear.truncate(x, bits=40), lambda x, y: _wrapped(x + 2**39, 128) >> 40),
        (lambda x, y: in_the_clear.wrap(x, bits=64, signed=False), lambda x, y: x % 2**64),
        (lambda x, y: in_the_clear.wrap(x, bits=16, signed=True), lambda x, y: _wrapped(x, 16)),
        (lambda x, y: in_the_clear.prefix_or(x), lambda x, y: _or_above(x, 128)),
        (lambda x, y: bt.parity(x, 5 << 62), lambda x, y: ((x >> 62) + (x >> 64)) % 2),
        (lambda x, y: bt.cast(bt.cast(x, 16), 128), lambda x, y: x % 2**16),
    ],
)
def test_words(function: Any, meaning: Any) -> None:
    x, y = pairs()
    with jax.enable_x64(True):
        got = from_word(jax.jit(function)(as_word(x), as_word(y)))
    assert (_wrapped(got.astype(object) + 0, 128) == _wrapped(meaning(x, y) + 0, 128)).all()


@pytest.mark.parametrize("signed_", [True, False])
def test_long_division(signed_: bool) -> None:
    x, y = pairs()
    if not signed_:
        x, y = x % 2**127, y % 2**127
    x, y = x[y != 0], y[y != 0]
    with jax.enable_x64(True):
        got = from_word(in_the_clear.integer_division(as_word(x), as_word(y), signed=signed_))
        by_zero = from_word(in_the_clear.integer_division(as_word(x), as_word(0 * y), signed=signed_))
    assert (got == _wrapped(x // y, 128)).all()
    assert (by_zero == -1).all()


def test_shifts_of_words() -> None:
    x, _ = pairs()
    with jax.enable_x64(True):
        for n in (0, 1, 31, 63, 64, 65, 100, 127):
            assert (from_word(bt.shift_left(as_word(x), n)) == _wrapped(x << n, 128)).all()
            assert (from_word(bt.shift_right(as_word(x), n)) == _wrapped(x % 2**128 >> n, 128)).all()
            assert (from_word(in_the_clear.shift_right_arithmetic(as_word(x), bits=n)) == x >> n).all()


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 40, 1), (2, 0, 3), (5, 300, 2)])
def test_products_and_sums_of_words(shape: tuple[int, int, int]) -> None:
    m, n, p = shape
    rng = np.random.default_rng(m)
    x, y = (
        integers(np.frombuffer(rng.bytes(16 * a * b), WIDE).reshape(a, b)) if a * b else np.zeros((a, b), object)
        for a, b in ((m, n), (n, p))
    )
    with jax.enable_x64(True):
        got = from_word(arithmetic.matmul(as_word(x), as_word(y)))
        total = from_word(arithmetic.linear(lambda a: jnp.sum(a, 1), as_word(x)))
        moved = from_word(arithmetic.moved(lambda a: a.T, as_word(x)))
    assert (got == _wrapped(np.asarray(x @ y, object) + np.zeros((m, p), object), 128)).all()
    assert (total == _wrapped(x.sum(1) + 0, 128)).all()
    assert (moved == x.T).all()


# Between arrays and ring elements ----------------------------------------------------------------------


@pytest.mark.parametrize(("k", "frac"), [(32, 8), (32, 12), (128, 26), (128, 60), (128, 1)])
def test_reals(k: int, frac: int) -> None:
    limit = 2.0 ** (k - 2 - frac)
    rng = np.random.default_rng(frac)
    real = np.concatenate(
        [rng.normal(size=200), rng.uniform(-limit, limit, 200), [0, -(2.0**-frac), limit * (1 - 2**-20)]]
    )
    raw = encode(real, frac, ring_bits=k)
    exact = np.array([round(float(v) * 2**frac) if abs(v) < 2**52 else int(v) * 2**frac for v in real], object)
    if k == 128:
        assert (integers(raw) == exact).all()
    back = decode(raw, "fxp", frac, np.float64)
    assert np.abs(back - real).max() <= np.maximum(2.0 ** -(frac + 1), np.abs(real) * 0).max()
    if k == 128 and frac == 60:
        assert (back[np.abs(real) > 1] == real[np.abs(real) > 1]).all()
    with pytest.raises(EncodingError, match="fraction bits"):
        encode(np.array([limit]), frac, ring_bits=k)


def test_scaled_is_exact() -> None:
    real = np.array([2.0**60 + 256, -(2.0**60) - 256, 2.0**-40, -1.0, 3.5])
    assert integers(scaled(real, 40, 128)).tolist() == [int(v * 2**40) if abs(v) < 1e4 else int(v) << 40 for v in real]


@pytest.mark.parametrize("k", RINGS)
def test_integers(k: int) -> None:
    dtypes = ("int8", "uint16", "int32", "uint32") if k == 32 else ("int8", "uint32", "int64", "uint64")
    for dtype in dtypes:
        info = np.iinfo(dtype)
        x = np.array([info.min, info.max, 0, 1], dtype)
        raw = encode(x, 8, ring_bits=k)
        np.testing.assert_array_equal(decode(raw, "int", 0, dtype), x)
        if k == 128:
            assert integers(raw).tolist() == x.tolist()


@pytest.mark.parametrize("kind", ["a", "b"])
def test_inputs_split_and_combine(kind: str) -> None:
    raw = words(EDGES, 128)
    parts, used = split_input(ABY3.algebra, kind, raw, Stream(b"k" * 16), 0)
    assert len(parts) == 6
    assert used == 2 * len(EDGES)
    assert (reconstruct(ABY3.algebra, kind, parts, 2) == raw).all()
