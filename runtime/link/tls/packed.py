"""Frames that compress are compressed, if the sender's cluster file says so (`compress = true`).

Shares and masked values are random, and no byte of them can be saved: a sample from the middle of each frame says
whether it is worth trying. Tables that move in the open from party to party are what gets smaller. How much smaller
depends on what is in them, and whoever watches the line sees how many bytes pass: so it is off unless it is asked for.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from spuvm.runtime.link.link import size

SMALLEST = 1 << 12  # bytes of a frame that are worth it
SAMPLE = 1 << 10
WORTH = 0.9  # of its length, at most
LEVEL = 1  # quick: what does not compress well is not worth waiting for
LENGTH = struct.Struct("<I")  # of what is in the frame, before the zlib stream


def pack(frame: Sequence[memoryview]) -> bytes | None:
    """The payload of a compressed frame; None if that is not worth it."""
    total = size(list(frame))
    if total < SMALLEST or not _promises(frame):
        return None
    packer = zlib.compressobj(LEVEL)
    packed = b"".join([LENGTH.pack(total), *(packer.compress(view) for view in frame), packer.flush()])
    return packed if len(packed) < WORTH * total else None


def _promises(frame: Sequence[memoryview]) -> bool:
    longest = max(frame, key=len)
    middle = max(0, len(longest) - SAMPLE) // 2
    sample = longest[middle : middle + SAMPLE]
    return len(zlib.compress(sample, LEVEL)) < WORTH * len(sample)


def unpack(payload: bytes | bytearray, most: int) -> bytes:
    """What was packed. ValueError if it is nothing of the kind, or says that it is longer than `most`."""
    if len(payload) < LENGTH.size:
        raise ValueError("it is cut short")
    (length,) = LENGTH.unpack_from(payload)
    if not 0 < length <= most:
        raise ValueError("it is too long")
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(memoryview(payload)[LENGTH.size :], length + 1)
    except zlib.error as error:
        raise ValueError("it is not zlib's") from error
    if len(data) != length or not unpacker.eof or unpacker.unused_data:
        raise ValueError("it has another length")
    return data
