"""Products of matrices by ring-LWE: how they are cut into ciphertexts, and what that costs. Both parties know it.

Cheetah's encoding (Huang, Lu, Hong and Ding, USENIX Security 2022, section 3): of X [m, k] encrypted and Y [k, n], cut
into blocks of `rows`, `inner` and `columns`, x_ij is coefficient i inner columns + inner - 1 - j of a polynomial, y_jl
coefficient l inner + j of another, and of their product coefficient (i columns + l) inner + inner - 1 is sum_j
x_ij y_jl; no other term falls on a coefficient of that form, around X^DEGREE neither. For the cross terms of A B with
shared A and B each party encrypts its share of one factor, whichever is less, and multiplies the other's by its own
share of the second: equal messages both ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from spuvm.runtime.engine.correlated import Family, Kind
from spuvm.runtime.lattice.words import CHOICES, DEGREE, SEED, TERMS, packed_bytes

CELLS = 64  # ciphertexts at a time, which bounds the memory
RESULTS = 64  # ciphertexts that come back at a time
PRODUCTS = 2048  # products of ciphertexts between two messages, which bounds the time: a second, 40 by NumPy


class Layout(NamedTuple):
    """How X [m, k] times Y [k, n] is cut. `turned`: X is the second factor's transpose, Y the first one's."""

    width: int
    turned: bool
    m: int
    k: int
    n: int
    rows: int
    inner: int
    columns: int

    @property
    def deep(self) -> int:
        """Blocks of k that a ciphertext that comes back is the sum of, at most."""
        return max(1, min(CELLS, TERMS // (self.inner * self.columns)))

    @property
    def cells(self) -> int:
        """Ciphertexts of X."""
        return _up(self.m, self.rows) * _up(self.k, self.inner)

    @property
    def results(self) -> int:
        """Ciphertexts that come back."""
        return _up(self.m, self.rows) * _up(self.n, self.columns) * _up(_up(self.k, self.inner), self.deep)

    @property
    def sent(self) -> int:
        """About how many bytes a party sends; `offline` counts what is joined in a message."""
        primes, kept = CHOICES[self.width]
        wanted = self.m * self.n * _up(_up(self.k, self.inner), self.deep)
        return packed_bytes(self.cells * primes * DEGREE) + packed_bytes(kept * (self.results * DEGREE + wanted))


class Block(NamedTuple):
    """Numbers of a matrix, and of blocks of its rows, and of k: from `first` on `cells` of them."""

    matrix: int
    row: int
    first: int
    cells: int


class Result(NamedTuple):
    """What comes back of a block, for columns number `column`."""

    block: Block
    column: int


def layout_of(family: Family) -> Layout | None:
    """The cheapest, or None if the extension's transfers are cheaper, or there is none."""
    return _layout(family) if family.kind is Kind.DOT and family.width in CHOICES else None


@cache
def _layout(family: Family) -> Layout | None:
    g, m, k, n = family.parameters
    if not g * m * k * n:
        return None
    straight, turned = _layouts(family.width, False, m, k, n), _layouts(family.width, True, n, k, m)
    best = min([*straight, *turned], key=lambda x: (x.sent, x))
    return best if 2 * best.sent < bytes_by_transfers(family) // g else None


def _layouts(width: int, turned: bool, m: int, k: int, n: int) -> Iterator[Layout]:
    for inner in _cuts(k):
        for columns in _cuts(n):
            if (rows := min(m, DEGREE // (inner * columns))) and inner * columns <= TERMS:
                yield Layout(width, turned, m, k, n, rows, inner, columns)


def _cuts(size: int) -> set[int]:
    """Lengths to cut into: powers of two, and equal pieces."""
    powers = [1 << i for i in range(DEGREE.bit_length())]
    return {x for x in {*(min(size, p) for p in powers), *(_up(size, p) for p in powers)} if x <= DEGREE}


def bytes_by_transfers(family: Family) -> int:
    """Of both parties, for one unit, by the extension alone: columns, and corrections of whole bytes."""
    g, m, k, n = family.parameters
    w = family.width
    return g * w * k * (m + n) * 16 + 2 * g * m * k * n * sum(_up(w - b, 8) for b in range(w))


def batches(x: Layout, matrices: int) -> list[tuple[list[Block], list[list[Result]]]]:
    """For so many: blocks that are encrypted at once, and of what comes back what is sent at once."""
    out: list[list[Block]] = []
    held = CELLS
    for block in _blocks(x, matrices):
        if held + block.cells > CELLS:
            out.append([])
            held = 0
        out[-1].append(block)
        held += block.cells
    return [(made, _results(x, made)) for made in out]


def _blocks(x: Layout, matrices: int) -> Iterator[Block]:
    whole = _up(x.k, x.inner)
    for matrix in range(matrices):
        for row in range(_up(x.m, x.rows)):
            for first in range(0, whole, x.deep):
                yield Block(matrix, row, first, min(x.deep, whole - first))


def _results(x: Layout, blocks: list[Block]) -> list[list[Result]]:
    found = [Result(block, column) for block in blocks for column in range(_up(x.n, x.columns))]
    step = max(1, min(RESULTS, PRODUCTS // max(block.cells for block in blocks)))
    return [found[at : at + step] for at in range(0, len(found), step)]


def bytes_of_cells(x: Layout, blocks: list[Block]) -> int:
    """Of the ciphertexts of a batch."""
    return SEED + packed_bytes(sum(b.cells for b in blocks) * CHOICES[x.width][0] * DEGREE)


def bytes_of_results(x: Layout, results: list[Result]) -> int:
    """Of a message that comes back."""
    return packed_bytes(CHOICES[x.width][1] * sum(DEGREE + len(rows_of(x, r)) * len(columns_of(x, r)) for r in results))


def rows_of(x: Layout, result: Result) -> range:
    first = result.block.row * x.rows
    return range(first, min(first + x.rows, x.m))


def columns_of(x: Layout, result: Result) -> range:
    first = result.column * x.columns
    return range(first, min(first + x.columns, x.n))


def offline(family: Family, units: int) -> tuple[int, int]:
    """Rounds, and bytes that each party sends, for so many units of a family that has a layout."""
    x = layout_of(family)
    assert x is not None
    rounds = sent = 0
    for blocks, pieces in batches(x, units * family.parameters[0]):
        rounds += 1 + len(pieces)
        sent += bytes_of_cells(x, blocks) + sum(bytes_of_results(x, piece) for piece in pieces)
    return rounds, sent


def _up(a: int, b: int) -> int:
    return -(-a // b)
