"""Products to be proved (`machine/proofs.py`): in which batches, in how many rounds, with how many bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from spuvm.runtime.ring.galois import DEGREE

Shapes = tuple[tuple[int, ...], ...]

PARTIES = 3
SECURITY = 40  # bits
MOST_COLUMNS = 10
BATCH = 1 << 20  # from here on two columns do; larger ones are cut
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


@cache
def table_of(products: int) -> tuple[int, int]:
    """Columns t and products N, filled up with zeros, with (N + 1)^t >= 2^40 and as few triples as possible."""
    least = ((t, max(products, math.ceil(2 ** (SECURITY / t)))) for t in range(2, MOST_COLUMNS + 1))
    return min(least, key=lambda made: made[0] * made[1])


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
    inner = [c.shapes[0][0] * c.shapes[0][2] * c.bits // 8 for c in dots]
    cut = {key: batches(n) for key, n in groups.items()}
    for i in range(max((len(b) for b in cut.values()), default=1 if dots else 0)):
        now = {key: sizes[i] for key, sizes in cut.items() if i < len(sizes)}
        with_dots = dots if i == 0 else []
        tables = [(*table_of(n), bits // 8) for (_, bits), n in now.items()]
        made = sum(t * (n + 1) * nbytes for t, n, nbytes in tables)
        opened = sum(t * (2 * n + 3) * nbytes for t, n, nbytes in tables)
        if made:
            yield "words", made
        yield "compare", 0
        yield "coin", COIN_BYTES
        yield "words", opened + sum(DEGREE * c.bits // 8 for c in with_dots)
        if with_dots:
            yield "compare", 0
            yield "coin", COIN_BYTES
            yield "words", DEGREE * sum(inner)
