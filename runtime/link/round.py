"""A round under way: what a party sends is put piece by piece, what it receives is awaited as it is needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Move = Callable[[dict[int, list[memoryview]], dict[int, list[memoryview]]], None]


class Exchange(ABC):
    """Made by `Link.begin`, which was told the sizes of all messages."""

    @abstractmethod
    def put(self, peer: int, array: Any, nbytes: int) -> None:
        """Send the first bytes of an array, after what was put before; JAX may still be computing it."""

    @abstractmethod
    def wait(self, peer: int, nbytes: int) -> None:
        """Until so many bytes of the peer's message have arrived."""

    @abstractmethod
    def finish(self) -> None:
        """Until everything has arrived, and left but for what may be sent later: see `Link.settle`."""


class AtOnce(Exchange):
    """For transports that move a round as a whole: when its last piece is put, else when it is first awaited."""

    def __init__(self, outgoing: Mapping[int, int], incoming: Mapping[int, Sequence[memoryview]], move: Move) -> None:
        self._sends: dict[int, list[memoryview]] = {peer: [] for peer in outgoing}
        self._receives = {peer: list(views) for peer, views in incoming.items()}
        self._missing = sum(outgoing.values())
        self._move = move
        self._moved = False

    def put(self, peer: int, array: Any, nbytes: int) -> None:
        self._sends[peer].append(leading(array, nbytes))
        self._missing -= nbytes
        if not self._missing:
            self.finish()

    def wait(self, peer: int, nbytes: int) -> None:
        self.finish()

    def finish(self) -> None:
        if not self._moved:
            assert not self._missing, "a message is incomplete"
            self._moved = True
            self._move(self._sends, self._receives)


class Renamed(Exchange):
    """An exchange whose peers go by other ranks: `ranks[peer]` beneath."""

    def __init__(self, exchange: Exchange, ranks: Sequence[int]) -> None:
        self._exchange = exchange
        self._ranks = ranks

    def put(self, peer: int, array: Any, nbytes: int) -> None:
        self._exchange.put(self._ranks[peer], array, nbytes)

    def wait(self, peer: int, nbytes: int) -> None:
        self._exchange.wait(self._ranks[peer], nbytes)

    def finish(self) -> None:
        self._exchange.finish()


def leading(array: Any, nbytes: int) -> memoryview:
    """The first bytes of an array, of NumPy or JAX; waits until they are computed."""
    view: memoryview = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return view[:nbytes]
