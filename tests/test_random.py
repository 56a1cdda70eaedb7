"""AES-128-CTR against its standards, and the native kernels against OpenSSL."""

import ctypes
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from spuvm.runtime.engine import random
from spuvm.runtime.engine.random import Stream
from spuvm.runtime.ring import native

KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
LEVELS = range(1 + (lib.spuvm_aes_level() if (lib := native.library()) is not None else 0))


def stream(key: bytes, level: int, monkeypatch: pytest.MonkeyPatch) -> Stream:
    """A stream at one instruction set: 0 is OpenSSL, the others those of this processor."""
    with monkeypatch.context() as patch:
        if level == 0:
            patch.setattr(native, "library", lambda: None)
        made = Stream(key)
    made._level = level
    return made


def keystream(made: Stream, first_block: int, nbytes: int) -> bytes:
    out = np.full(nbytes, 0xA5, np.uint8)
    made.fill(out, first_block)
    return out.tobytes()


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_fips_197(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # FIPS-197 C.1: AES(key, block) is the keystream at the counter that equals the block.
    made = stream(bytes(range(16)), level, monkeypatch)
    block = int("00112233445566778899aabbccddeeff", 16)
    assert keystream(made, block, 16).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


def test_sp_800_38a(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # SP 800-38A F.5.1, CTR-AES128: the output blocks.
    made = stream(KEY, level, monkeypatch)
    expected = (
        "ec8cdf7398607cb0f2d21675ea9ea1e4362b7c3c6773516318a077d7fc5073ae"
        "6a2cc3787889374fbeb4c81b17ba6c44e89c399ff0f198c6d40a31db156cabfe"
    )
    assert keystream(made, int("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 16), 64).hex() == expected


@pytest.mark.parametrize("nbytes", [0, 1, 15, 16, 17, 127, 128, 129, 511, 512, 513, 5000, (1 << 18) + 33])
def test_any_length_at_every_level(nbytes: int, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = keystream(stream(KEY, 0, monkeypatch), 3, 1 << 19)
    assert keystream(stream(KEY, level, monkeypatch), 3, nbytes) == whole[:nbytes]


@pytest.mark.parametrize("edge", [1 << 32, 1 << 64, 1 << 96, 1 << 127])
@pytest.mark.parametrize("before", [0, 1, 3, 7, 8, 31, 40])
def test_counter_carries(edge: int, before: int, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, one_by_one = stream(KEY, level, monkeypatch), stream(KEY, 0, monkeypatch)
    start = edge - before
    expected = b"".join(keystream(one_by_one, start + i, 16) for i in range(80))
    assert keystream(made, start, 80 * 16) == expected


def test_unaligned_targets_and_nothing_beyond_them(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stream(KEY, level, monkeypatch)
    expected = keystream(made, 9, 1000)
    for offset in (1, 7, 33):
        memory = np.full(1200, 0xA5, np.uint8)
        made.fill(memory[offset : offset + 1000], 9)
        assert memory[offset : offset + 1000].tobytes() == expected
        assert (memory[:offset] == 0xA5).all()
        assert (memory[offset + 1000 :] == 0xA5).all()


def test_refuses_counters_beyond_128_bits(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stream(KEY, level, monkeypatch)
    last = (1 << 128) - 1
    assert len(keystream(made, last, 16)) == 16
    for first_block, nbytes in ((last, 17), (last + 1, 1), (-1, 16)):
        with pytest.raises(ValueError, match="128 bits"):
            keystream(made, first_block, nbytes)


def test_refuses_targets_it_cannot_write(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stream(KEY, level, monkeypatch)
    read_only = np.zeros(64, np.uint8)
    read_only.flags.writeable = False
    for out in (read_only, np.zeros(64, np.uint8)[::2]):
        with pytest.raises((TypeError, ValueError, BufferError)):
            made.fill(out, 0)


def test_threads_share_a_stream(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stream(KEY, level, monkeypatch)
    outs: list[NDArray[np.uint8]] = [np.zeros(1 << 18, np.uint8) for _ in range(4)]
    threads = [threading.Thread(target=made.fill, args=(out, i << 14)) for i, out in enumerate(outs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert b"".join(out.tobytes() for out in outs) == keystream(made, 0, 1 << 20)


def test_keys() -> None:
    assert len(random.new_key()) == 16
    assert random.new_key() != random.new_key()
    with pytest.raises(ValueError, match="15 bytes"):
        Stream(bytes(15))


def test_derived_keys_follow_rfc_5869() -> None:
    # RFC 5869 A.3: SHA-256, no salt, no info; the first 16 bytes of its output.
    assert random.derive_key(b"\x0b" * 22, "").hex() == "8da4e775a563c18f715f802a063c5a31"
    assert random.derive_key(b"s", "a") != random.derive_key(b"s", "b")


@pytest.mark.parametrize("nbytes", [1, 63, 64, 1000, 1 << 20])
def test_aligned_empty(nbytes: int) -> None:
    memory = random.aligned_empty(nbytes)
    assert memory.dtype == np.uint8
    assert memory.shape == (nbytes,)
    assert memory.ctypes.data % 64 == 0
    assert memory.flags.c_contiguous


@pytest.mark.skipif(len(LEVELS) == 1, reason="no native AES here")
def test_native_key_schedule_is_that_of_fips_197() -> None:
    lib = native.library()
    assert lib is not None
    schedule = ctypes.create_string_buffer(176)
    lib.spuvm_aes_expand(KEY, ctypes.addressof(schedule))
    assert schedule.raw[160:].hex() == "d014f9a8c9ee2589e13f0cc8b6630ca6"  # A.1, round 10
