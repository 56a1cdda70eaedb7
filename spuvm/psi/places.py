"""One script for all parties of a join: who computes what, messages from one to another, randomness in common.

The script is the same at every party, which runs its own part of it; a simulation runs all parts. It
decides by public sizes alone, so everybody knows the shape of every message before it comes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from spuvm.context import everyone
from spuvm.psi.forms import fits
from spuvm.runtime.engine.random import Stream, derive_key, new_key, permutations
from spuvm.runtime.errors import PeerMismatchError
from spuvm.runtime.link.link import Link
from spuvm.runtime.machine.session import abort_on_error

BLOCK_BYTES = 16  # of a keystream


class Malformed:
    """What is no JSON."""


@dataclass(frozen=True, eq=False)
class Held:
    """A value at one party or several; `value` is None where this process is none of them."""

    parties: frozenset[str]
    value: Any

    def __repr__(self) -> str:
        return f"<held by {', '.join(sorted(self.parties))}>"


@dataclass(frozen=True)
class Move:
    """A message: an array at `source`, of this shape and dtype, for `target`."""

    array: Held
    source: str
    target: str
    shape: tuple[int, ...]
    dtype: Any


class Places:
    """The parties of a session, and this process's place among them."""

    def __init__(self, parties: Sequence[str], link: Link | None = None) -> None:
        self.parties = tuple(parties)
        self.link = link
        self.me = None if link is None else self.parties[link.rank]
        self._streams: dict[tuple[str, ...], Stream] = {}
        self._secrets: dict[tuple[str, ...], bytes] = {}  # of a simulation, and a party's own
        self._used: dict[tuple[str, ...], int] = {}
        self._number = _numbered(link)

    def is_here(self, *parties: str) -> bool:
        """Whether this process is one of them, or simulates them."""
        return self.me is None or self.me in parties

    def run(self, party: str, function: Callable[..., Any], *args: Any) -> Held:
        """`function(*args)` at the party, with the values that it holds; anything else is passed as it is."""
        for x in args:
            assert not isinstance(x, Held) or party in x.parties, f"{x} is not at {party}"
        if not self.is_here(party):
            return Held(frozenset({party}), None)
        values = [x.value if isinstance(x, Held) else x for x in args]
        with abort_on_error(self.link):
            return Held(frozenset({party}), function(*values))

    def move(self, *moves: Move) -> list[Held]:
        """Messages that do not depend on each other, in one round; what each target then holds."""
        out: list[Held] = []
        sends: dict[int, list[Any]] = {}
        receives: dict[int, list[Any]] = {}
        for m in moves:
            assert m.source in m.array.parties and m.source != m.target
            target = frozenset({m.target})
            if self.link is None:
                out.append(Held(target, m.array.value))
            elif self.me == m.target:
                into = np.empty(m.shape, m.dtype)
                receives.setdefault(self.parties.index(m.source), []).append(into)
                out.append(Held(target, into))
            else:
                if self.me == m.source:
                    value = np.ascontiguousarray(m.array.value, m.dtype)
                    assert value.shape == tuple(m.shape), f"a message of {value.shape} in place of {m.shape}"
                    sends.setdefault(self.parties.index(m.target), []).append(value)
                out.append(Held(target, None))
        if self.link is not None and (sends or receives):
            with abort_on_error(self.link):
                self.link.exchange(sends, receives)
        return out

    def tell(self, party: str, said: Held, form: Any) -> Any:
        """What the party says to all: anything that JSON can write, of this form (see `forms`; or what tells it).

        PeerMismatchError at every other party if it is not.
        """
        mine = json.dumps(said.value).encode() if self.link is None or self.me == party else None
        with abort_on_error(self.link):
            body = mine if self.link is None else self.link.broadcast(self.parties.index(party), mine)
            try:
                value = json.loads(body or b"")
            except (ValueError, RecursionError):
                value = Malformed
            if not (form(value) if callable(form) and not isinstance(form, type) else fits(form, value)):
                raise PeerMismatchError(f"{party} says something in a join that this version does not know.")
            return value

    def agree(self, what: str, value: Any) -> None:
        """That all parties' scripts say the same. PeerMismatchError at every party if they do not."""
        if self.link is not None:
            self.link.agree(what, json.dumps(value, sort_keys=True).encode())

    # Randomness in common ---------------------------------------------------------------------------------

    def key(self, holders: Iterable[str], label: str) -> Held:
        """16 bytes that exactly these parties know, of this session; the same for the same label."""
        names = tuple(sorted(set(holders), key=self.parties.index))
        if not self.is_here(*names):
            return Held(frozenset(names), None)
        if self.link is None or len(names) == 1:
            secret = self._secrets.setdefault(names, new_key())
        else:
            with abort_on_error(self.link):
                secret = self.link.session_key(self.parties.index(p) for p in names)
        return Held(frozenset(names), derive_key(secret, f"spuvm join {self._number} {','.join(names)} {label}"))

    def random(self, holders: Iterable[str], shape: Sequence[int], dtype: Any) -> Held:
        """Random elements that exactly these parties know; never the same twice."""
        return self._drawn(
            holders, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize, _shaped, shape, dtype
        )

    def permutation(self, holders: Iterable[str], n: int) -> Held:
        """int64[n]: a random order that exactly these parties know."""
        return self._drawn(holders, 16 * n, lambda raw: permutations(raw, (1, n))[0])

    def _drawn(self, holders: Iterable[str], nbytes: int, form: Callable[..., Any], *args: Any) -> Held:
        names = tuple(sorted(set(holders), key=self.parties.index))
        if not self.is_here(*names):
            return Held(frozenset(names), None)
        if names not in self._streams:
            self._streams[names] = Stream(self.key(names, "words").value)
        raw = np.empty(nbytes, np.uint8)
        first = self._used.get(names, 0)
        self._streams[names].fill(raw, first)
        self._used[names] = first + -(-nbytes // BLOCK_BYTES)
        return Held(frozenset(names), form(raw, *args))


def here() -> Places:
    """The parties that `spu.init` named. ConfigError before it."""
    parties, link = everyone()
    return Places(parties, link)


def _numbered(link: Link | None) -> int:
    """Joins over one link count up, so that no two of them derive the same keys."""
    if link is None:
        return 0
    count = _JOINS[link.base] = _JOINS.get(link.base, 0) + 1
    link.agree("number of the join", str(count).encode())
    return count


_JOINS: WeakKeyDictionary[Link, int] = WeakKeyDictionary()


def _shaped(raw: np.ndarray, shape: Sequence[int], dtype: Any) -> np.ndarray:
    out: np.ndarray = raw.view(dtype).reshape(shape)
    return out
