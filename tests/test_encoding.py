"""Between the user's arrays, ring elements and components."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from spuvm.runtime.engine.random import Stream
from spuvm.runtime.errors import EncodingError
from spuvm.runtime.protocols.algebra import Summands
from spuvm.runtime.protocols.sharings import reconstruct, split
from spuvm.runtime.ring.encodings import decode, encode

THREE = Summands(3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("frac", [1, 18, 28])
def test_floats(dtype: Any, frac: int) -> None:
    x = np.array([0, 1, -1, 0.5, -2.25, 100.75, 1e-3, -1e-3]).astype(dtype)
    raw = encode(x, frac)
    assert raw.dtype == np.uint64
    back = decode(raw, "fxp", frac, dtype)
    assert back.dtype == dtype
    assert (np.abs(back.astype(float) - x.astype(float)) <= 2.0 ** -(frac + 1) + np.abs(x.astype(float)) / 100).all()
    np.testing.assert_array_equal(raw.view(np.int64), np.rint(x.astype(np.float64) * 2.0**frac).astype(np.int64))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_integers(dtype: str) -> None:
    info = np.iinfo(dtype)
    x = np.array([info.min, info.max, 0, 1], dtype)
    raw = encode(x, 18)
    assert [int(v) for v in raw] == [int(v) % 2**64 for v in x]
    back = decode(raw, "int", 0, dtype)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, x)


def test_bools() -> None:
    raw = encode(np.array([True, False]), 18)
    assert raw.dtype == np.uint8
    assert raw.tolist() == [1, 0]
    assert decode(raw, "bool", 0, np.bool_).tolist() == [True, False]


def test_scalars_stay_scalars() -> None:
    assert encode(1.5, 18).shape == ()
    assert decode(encode(1.5, 18), "fxp", 18, np.float32) == np.float32(1.5)
    assert isinstance(decode(encode(1.5, 18), "fxp", 18, np.float32), np.float32)
    assert encode(np.zeros((0, 3)), 18).shape == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused(bad: float) -> None:
    with pytest.raises(EncodingError, match=r"`income` has 2 of 3 elements that are NaN or infinite"):
        encode(np.array([1.0, bad, bad]), 18, "income")


@pytest.mark.parametrize("frac", [1, 18, 28])
def test_what_is_too_large_is_refused_with_the_limit(frac: int) -> None:
    limit = 2.0 ** (62 - frac)
    fits = np.nextafter(limit, 0)
    assert decode(encode(np.array([fits, -fits]), frac), "fxp", frac, np.float64).tolist() == [fits, -fits]
    for bad in (limit, -limit, 1e300):
        with pytest.raises(EncodingError, match="below") as caught:
            encode(np.array([0.0, bad]), frac, "x")
        assert f"{limit:.6g}" in str(caught.value)
        assert "1e+300" not in str(caught.value)


def test_no_secret_is_in_the_message() -> None:
    with pytest.raises(EncodingError) as caught:
        encode(np.array([123456.789, np.nan]), 18, "x")
    assert "123456" not in str(caught.value)


# Components ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["a", "b"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5)])
def test_components_combine_to_the_value(kind: str, count: int, shape: tuple[int, ...]) -> None:
    raw = np.random.default_rng(0).integers(0, 2**64 - 1, shape, np.uint64)
    parts, used = split(Summands(count), kind, raw, Stream(bytes(16)), 5)
    assert len(parts) == count
    assert used == (count - 1) * -(-raw.nbytes // 16)
    np.testing.assert_array_equal(reconstruct(Summands(count), kind, parts), raw)
    assert all(p.shape == shape for p in parts)


def test_components_of_bools_are_bools() -> None:
    raw = np.random.default_rng(0).integers(0, 2, 1000, np.uint8)
    parts, _ = split(THREE, "b", raw, Stream(bytes(16)), 0)
    assert all(set(np.unique(p)) == {0, 1} for p in parts)
    np.testing.assert_array_equal(reconstruct(THREE, "b", parts), raw)


@pytest.mark.parametrize("kind", ["a", "b"])
def test_any_two_components_say_nothing(kind: str) -> None:
    """Of a constant: every bit of every component, and of sums of two of them, is a fair coin."""
    n = 4096
    parts, _ = split(THREE, kind, np.full(n, 42, np.uint64), Stream(b"k" * 16), 0)
    pairs = [parts[i] + parts[j] if kind == "a" else parts[i] ^ parts[j] for i, j in ((0, 1), (0, 2), (1, 2))]
    for words in [*parts, *pairs]:
        ones = np.unpackbits(words.view(np.uint8).reshape(n, 8), axis=1).sum(0)
        assert (np.abs(ones - n / 2) < 6 * np.sqrt(n) / 2).all()


def test_used_blocks_do_not_overlap() -> None:
    """Two values shared one after another have different masks; so have the components of one."""
    stream = Stream(b"k" * 16)
    first, used = split(THREE, "a", np.zeros(3, np.uint64), stream, 0)
    second, _ = split(THREE, "a", np.zeros(3, np.uint64), stream, used)
    masks = [p.tobytes() for p in (*first[1:], *second[1:])]
    assert len(set(masks)) == 4
