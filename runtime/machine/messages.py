"""The messages of a straight piece: each block leaves when it is computed, and is awaited when it is read.

So blocks are on the wire while others are computed, and a round begins where the one before has
delivered its first block. What is sent, and the order of its bytes, is fixed by the program.
"""

from __future__ import annotations

from collections import deque
from itertools import accumulate

from spuvm.runtime.link.link import Link
from spuvm.runtime.link.round import Exchange
from spuvm.runtime.machine.components import Array, Blocked, Component, blocks, incoming, whole
from spuvm.runtime.machine.program import Piece, Round, partition


class Transfers:
    """`env` holds the registers; those that are received are put there when their round begins."""

    def __init__(self, link: Link | None, env: dict[int, Component]) -> None:
        self._link = link
        self._env = env
        self._exchanges: list[Exchange] = []
        self._leaving: dict[int, deque[Piece]] = {}  # by peer, what is not put yet
        self._passing: frozenset[int] = frozenset()
        self._awaited: dict[int, tuple[Exchange, int, list[int]]] = {}  # by register: the end of each block

    def begin(self, round_: Round) -> None:
        """To be called before the tasks of a round with messages."""
        assert self._link is not None
        assert not any(self._leaving.values()), "a message of the round before is incomplete"
        views, ends = {}, {}
        for peer, arriving in round_.arriving.items():
            parts = {}
            for m in round_.receives[peer]:
                self._env[m.register], parts[m.register] = incoming(m)
            views[peer] = [parts[p.message.register][p.block or 0] for p in arriving]
            ends[peer] = list(accumulate(p.nbytes for p in arriving))
        totals = {peer: sum(p.nbytes for p in leaving) for peer, leaving in round_.leaving.items()}
        exchange = self._link.begin(totals, views)
        self._exchanges.append(exchange)
        for peer, arriving in round_.arriving.items():
            for piece, end in zip(arriving, ends[peer]):
                self._awaited.setdefault(piece.message.register, (exchange, peer, []))[2].append(end)
        self._passing = round_.passing
        self._leaving = {peer: deque(p for p in leaving if p.nbytes) for peer, leaving in round_.leaving.items()}

    def send(self) -> None:
        """Send what has been computed and is due."""
        for peer, leaving in self._leaving.items():
            while leaving and (array := self._computed(leaving[0])) is not None:
                piece = leaving.popleft()
                self._exchanges[-1].put(peer, array, piece.nbytes)
                self._let_go(piece)

    def _let_go(self, piece: Piece) -> None:
        """What was put is the exchange's to keep, if nobody else reads it."""
        register, block = piece.message.register, piece.block
        if register in self._passing:
            value = self._env[register]
            if block is not None and isinstance(value, Blocked):
                value.blocks[block] = None
            elif block is None:
                self._env[register] = Blocked([], 0)

    def _computed(self, piece: Piece) -> Array | None:
        message, block = piece.message, piece.block
        value = self._env.get(message.register)
        if value is None:
            return None
        self.wait(message.register, -1 if block is None else block)  # what was received is passed on
        if block is None or message.size is None:
            unfinished = isinstance(value, Blocked) and len(value.blocks) < len(partition(value.size))
            return None if unfinished else whole(value, message.shape)
        if not isinstance(value, Blocked):
            value = self._env[message.register] = Blocked(blocks(value, message.size), message.size)
        return value.blocks[block] if block < len(value.blocks) else None

    def awaits(self, register: int) -> bool:
        return register in self._awaited

    def wait(self, register: int, block: int = -1) -> None:
        """Until a block of a register that is received has arrived; all of them if not given."""
        if register in self._awaited:
            exchange, peer, ends = self._awaited[register]
            exchange.wait(peer, ends[block] if len(ends) > 1 else ends[0])  # what is sent whole is awaited whole

    def finish(self) -> None:
        """Until everything has arrived."""
        for exchange in self._exchanges:
            exchange.finish()
        self._exchanges.clear()
        self._awaited.clear()
