"""Products to be proved (`machine/proofs.py`): in which batches, in how many rounds, with how many bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from spuvm.runtime.ring.extension import BITS, DEGREE, MOST_ROWS

Shapes = tuple[tuple[int, ...], ...]

PARTIES = 3
BATCH = 1 << 20  # products: twice as many are cut into parts of so many or more
COIN_BYTES = 16


@dataclass(frozen=True)
class Claim:
    """What a product to be proved needs to be counted: `shapes` of x, y and z."""

    how: str
    shapes: Shapes
    bits: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shapes[2]) * self.bits // 8


@dataclass(frozen=True)
class Table:
    """Products laid out in `rows` of `n`, filled up with zeros; the bytes of what each party sends of them."""

    rows: int
    n: int
    met: int  # of what rows give with each other
    opened: int


@cache
def table_of(how: str, bits: int, products: int) -> Table:
    """The layout with the fewest bytes."""
    element, folded = (8, 8 * BITS) if how == "and" else (DEGREE * bits // 8,) * 2
    made = []
    for rows in (1 << i for i in range(MOST_ROWS.bit_length())):
        n = -(-products // rows)
        made.append(Table(rows, n, rows * (rows + 1) * element, n * folded))
    return min(made, key=lambda t: t.met + t.opened)


def batches(products: int) -> list[int]:
    """Sizes of the batches that so many products are proved in."""
    count = max(products // BATCH, 1)
    return [products // count + (i < products % count) for i in range(count)]


def groups_of(claims: Iterable[Claim]) -> dict[tuple[str, int], int]:
    """Words to be proved: those of conjunctions all as words of 64 bits, the others by their own length."""
    nbytes: dict[tuple[str, int], int] = {}
    for c in claims:
        if c.how != "dot" and c.nbytes:
            key = (c.how, 64 if c.how == "and" else c.bits)
            nbytes[key] = nbytes.get(key, 0) + c.nbytes
    return {(how, bits): -(-n // (bits // 8)) for (how, bits), n in sorted(nbytes.items())}


def steps(claims: Sequence[Claim]) -> Iterator[tuple[str, int]]:
    """The rounds of a proof in order: "words", with the bytes that each party sends to one, "coin" or "compare"."""
    groups = groups_of(claims)
    dots = [c for c in claims if c.how == "dot"]
    cut = {key: batches(n) for key, n in groups.items()}
    for i in range(max((len(b) for b in cut.values()), default=1 if dots else 0)):
        tables = [table_of(*key, sizes[i]) for key, sizes in cut.items() if i < len(sizes)]
        with_dots = dots if i == 0 else []
        inner = [c.shapes[0][0] * c.shapes[0][2] * c.bits // 8 for c in with_dots]
        yield "compare", 0
        yield "coin", COIN_BYTES
        yield "words", sum(t.met for t in tables) + sum(DEGREE * c.bits // 8 for c in with_dots)
        yield "compare", 0
        yield "coin", COIN_BYTES
        yield "words", sum(t.opened for t in tables) + DEGREE * sum(inner)
