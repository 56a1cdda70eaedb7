"""Draws that a run of the tests repeats: the operating system's randomness stands for a generator seeded by the test.

Masks round by chance, noise is drawn, keys are made: so a test that passes has passed for one drawing. With the seed
that the run names, it passes always; `--seed random` or another number shows how near the edge its bounds lie.
Child processes draw from the operating system.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256, Hash

from spuvm.runtime.engine.random import Stream
from spuvm.runtime.machine import session as sessions
from spuvm.runtime.machine.executor import Streams

_urandom = os.urandom
_lock = threading.Lock()
_what = ""  # the seed and the name of what draws
_drawn: Any = None  # the cipher that draws; None: the operating system
_simulated: WeakValueDictionary[int, sessions.Session] = WeakValueDictionary()


def _draw(count: int) -> bytes:
    with _lock:
        return _urandom(count) if _drawn is None else bytes(_drawn.update(bytes(count)))


def install() -> None:
    """From here on draws are those of `drawing`, inside it, and so are the simulator's masks."""
    os.urandom = random._urandom = _draw  # type: ignore[attr-defined]
    made = sessions.Session.__post_init__

    def post_init(self: sessions.Session) -> None:
        made(self)
        if self.link is None and self.keys is None:
            _simulated[id(self)] = self
            _key(self)

    sessions.Session.__post_init__ = post_init  # type: ignore[method-assign]


def _cipher(what: str) -> Any:
    digest = Hash(SHA256())
    digest.update(what.encode())
    return Cipher(AES(digest.finalize()), CTR(bytes(16))).encryptor()


def _key(session: sessions.Session) -> None:
    """Its masks are those of the test alone, whichever test made it and whatever it has drawn."""

    def key(holders: object) -> bytes:
        return bytes(_cipher(f"{_what} {session.config.digest} {holders}").update(bytes(16)))

    session._streams = Streams(key, session.party)
    session._input_stream, session._input_blocks = Stream(key("inputs")), 0


@contextmanager
def drawing(seed: str, name: str) -> Iterator[None]:
    """What is drawn inside is the same each time for this seed and name."""
    global _drawn, _what
    before = _drawn, _what
    _what = f"{seed} {name}"
    _drawn = _cipher(_what)
    try:
        yield
    finally:
        _drawn, _what = before


def key_anew() -> None:
    for session in list(_simulated.values()):
        _key(session)
