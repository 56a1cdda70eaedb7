"""Correlated streams: randomness of two parties that belongs together, position by position.

A kernel draws its party's component of correlated randomness as it draws a word of its own: from a stream. Such a
stream's name is (party, -1 - kind, -1 - component, -1 - width, and -1 - p for each parameter); of one kind, all
components are drawn in equal pieces of one dtype, so that equal positions belong together. Who makes them is the
session's affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from spuvm.runtime.engine.primitives import random_p

Holders = tuple[int, ...]
BLOCK = 16  # bytes of a position


class Kind(IntEnum):
    """What belongs together; operands are each party's own random words, results follow from both parties'."""

    MUL = 0  # a, b; c = a b
    AND = 1  # a, b; c = a & b, all by exclusive or; parameter, if not all matter: low bits
    SQUARE = 2  # a; c = a^2
    BIT = 3  # the lowest bit of a; c = that bit
    WORD = 4  # a, by exclusive or; c = a
    TRUNC = 5  # a, by exclusive or; r = a, h = (a mod 2^(k-1)) >> bits, t = a >> (k-1); parameter: bits
    DOT = 6  # a [g, m, k], b [g, k, n]; c = a b; parameters: g, m, k, n


OPERANDS = {Kind.MUL: 2, Kind.AND: 2, Kind.SQUARE: 1, Kind.BIT: 1, Kind.WORD: 1, Kind.TRUNC: 1, Kind.DOT: 2}
RESULTS = {kind: 3 if kind is Kind.TRUNC else 1 for kind in Kind}


class Family(NamedTuple):
    """All streams that belong together: `width` bits a word."""

    kind: Kind
    width: int
    parameters: tuple[int, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"u{self.width // 8}")

    def holders(self, party: int, component: int) -> Holders:
        return (party, *(-1 - v for v in (self.kind, component, self.width, *self.parameters)))

    @property
    def components(self) -> int:
        return OPERANDS[self.kind] + RESULTS[self.kind]

    @property
    def units(self) -> tuple[int, ...]:
        """Words of one unit of each component: matrices come whole, all else word by word."""
        if self.kind is not Kind.DOT:
            return (1,) * self.components
        g, m, k, n = self.parameters
        return g * m * k, g * k * n, g * m * n

    def unit_blocks(self, component: int) -> int:
        """Positions of a unit of matrices, in whole cache lines as they are drawn."""
        return -(-self.units[component] * self.width // 8 // 64) * 4

    def unit_bytes(self, component: int) -> int:
        """Of a unit as it is drawn."""
        return self.unit_blocks(component) * BLOCK if self.kind is Kind.DOT else self.width // 8

    def draws(self, units: int) -> dict[Holders, int]:
        """Positions of all streams that so many units are; whole positions, where a unit is a word."""
        return {
            self.holders(party, c): units * self.unit_bytes(c) // BLOCK
            for party in (0, 1)
            for c in range(self.components)
        }


def is_correlated(holders: Holders) -> bool:
    return len(holders) > 1 and min(holders) < 0


def ranks(holders: Iterable[int]) -> frozenset[int]:
    """The parties among the holders of a stream."""
    return frozenset(h for h in holders if h >= 0)


def family_of(holders: Holders) -> tuple[Family, int, int]:
    """Of a correlated stream's name: its family, party and component."""
    party, *rest = holders
    kind, component, width, *parameters = (-1 - v for v in rest)
    return Family(Kind(kind), width, tuple(parameters)), party, component


def families(draws: Mapping[Holders, int]) -> dict[Family, int]:
    """The families that are drawn from, and how many positions of their first operand."""
    found = {}
    for holders, n in draws.items():
        if is_correlated(holders):
            family, party, component = family_of(holders)
            if party == component == 0:
                found[family] = n
    return found


def words(family: Family, positions: int) -> int:
    """How many words (of matrices: units) so many positions of the first operand are."""
    if family.kind is Kind.DOT:
        return positions // family.unit_blocks(0)
    return positions * BLOCK * 8 // family.width


def draw(family: Family, party: int, component: int, shape: Iterable[int]) -> Any:
    """A party's component of fresh correlated randomness."""
    holders = family.holders(party, component)
    return random_p.bind(holders=holders, shape=tuple(shape), dtype=family.dtype.name)
