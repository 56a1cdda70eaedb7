"""A message, cut into frames as they go over a connection (`link/tls/stream.py`), and frames into TLS records."""

from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Any

from spuvm.runtime.link.link import size
from spuvm.runtime.link.round import leading
from spuvm.runtime.link.tls.channel import RECORD_BYTES

FRAME_BYTES = 4 << 20


def in_frames(views: list[memoryview]) -> Iterator[list[memoryview]]:
    """Cut a message into frames of at most FRAME_BYTES; an empty one makes one empty frame."""
    frame: list[memoryview] = []
    room = FRAME_BYTES
    for view in views:
        while len(view):
            if room == 0:
                yield frame
                frame, room = [], FRAME_BYTES
            piece = view[:room]
            frame.append(piece)
            room -= len(piece)
            view = view[len(piece) :]
    yield frame


def in_frames_as_put(total: int, pieces: "SimpleQueue[tuple[Any, int] | None]") -> Iterator[list[memoryview]]:
    """Frames of a message whose pieces come one after another; it ends early at None."""
    while total > 0 and (piece := pieces.get()) is not None:
        views = [leading(*piece)]
        while not pieces.empty() and size(views) < FRAME_BYTES // 2 and (piece := pieces.get()) is not None:
            views.append(leading(*piece))
        total -= size(views)
        yield from in_frames(views)


def in_records(pieces: Iterable[memoryview]) -> Iterator[memoryview]:
    """Join small pieces, so that each does not cost a TLS record of its own; large ones are not copied."""
    joined = bytearray()
    for piece in pieces:
        if len(piece) < RECORD_BYTES:
            joined += piece
        if joined and (len(piece) >= RECORD_BYTES or len(joined) >= 2 * RECORD_BYTES):
            yield memoryview(joined)
            joined = bytearray()
        if len(piece) >= RECORD_BYTES:
            yield piece
    if joined:
        yield memoryview(joined)
