"""One party's side of products of matrices by ring-LWE, semi-honest: sharings of the cross terms (`matrices.py`).

1. Each party encrypts its share of one factor under its own key, and sends that (semantically secure).
2. Each multiplies what it got by its share of the other factor, hides all but the result behind an encryption of its
   own, and the result behind a mask; sends that back.
3. Each decrypts the product less the other's mask, and adds its own mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.cores import allowed
from spuvm.runtime.errors import PeerMismatchError
from spuvm.runtime.lattice.sampling import Random
from spuvm.runtime.lattice.words import (
    DEGREE,
    SEED,
    Keeper,
    Other,
    halves,
    packed,
    packed_bytes,
    parameters,
    signed_residues,
    unpacked,
)
from spuvm.runtime.oblivious.matrices import (
    Block,
    Layout,
    Result,
    batches,
    bytes_of_cells,
    bytes_of_results,
    columns_of,
    rows_of,
)
from spuvm.runtime.ring import transform as tf
from spuvm.runtime.ring.transform import Basis, Words

Values = NDArray[np.uint64]
Swap = Callable[[bytes, int], bytes]  # says a body, hears one of that size
Cells = dict[Block, list[Words]]  # [2, primes, DEGREE] each, as values


class Products:
    """A party, with a key for words of one width; both come to each call alike."""

    def __init__(self, width: int, swap: Swap) -> None:
        self.p, self.swap, self.random = parameters(width), swap, Random()
        self.keeper = Keeper(self.p, self.random)
        seed, b = self.keeper.public()
        heard = swap(seed + packed(b), SEED + packed_bytes(b.size))
        self.other = Other(self.p, heard[:SEED], _residues(heard[SEED:], b.size, self.p.q).reshape(b.shape))

    def crossed(self, layout: Layout, x: Values, y: Values) -> Values:
        """This party's X [matrices, m, k] and Y [matrices, k, n] -> its share of X Y' + X' Y [matrices, m, n].

        PeerMismatchError: the other's message has no ciphertexts.
        """
        total = np.zeros((len(x), layout.m, layout.n), np.uint64)
        for blocks, pieces in batches(layout, len(x)):
            cells = self._exchanged(layout, blocks, x)
            for results in pieces:
                said, masks = zip(*self._products(layout, results, cells, y))
                heard = self.swap(packed(np.concatenate(said)), bytes_of_results(layout, results))
                for result, mask, found in zip(results, masks, self._decrypted(layout, results, heard)):
                    rows, columns = rows_of(layout, result), columns_of(layout, result)
                    part = total[result.block.matrix, rows.start : rows.stop, columns.start : columns.stop]
                    part += (mask + found).reshape(part.shape)
        return total

    def _exchanged(self, layout: Layout, blocks: list[Block], x: Values) -> Cells:
        """The other's ciphertexts, for those of this party's X."""
        seed = self.random.words(SEED // 8).tobytes()
        mine = np.concatenate([_polynomials(layout, block, x) for block in blocks])
        said = packed(self.keeper.encrypt(mine, seed))
        heard = self.swap(seed + said, bytes_of_cells(layout, blocks))
        primes = len(self.p.q.primes)
        c0 = _residues(heard[SEED:], len(mine) * primes * DEGREE, self.p.q).reshape(len(mine), primes, DEGREE)
        whole = (np.stack(pair) for pair in zip(c0, halves(heard[:SEED], len(mine), self.p)))
        return {block: [next(whole) for _ in range(block.cells)] for block in blocks}

    def _products(
        self, layout: Layout, results: list[Result], cells: Cells, y: Values
    ) -> Iterator[tuple[Words, Values]]:
        """Of each result what is sent, flat, and this party's mask."""

        def one(result: Result) -> tuple[Words, Values]:
            total = np.zeros((2, len(self.p.q.primes), DEGREE), np.uint64)
            for cell, factor in zip(cells[result.block], self._factors(layout, result, y)):
                tf.multiply(cell, factor, self.p.q, onto=total)
            c0, c1, mask = self.other.masked(total, _places(layout, result), Random())
            return np.concatenate([c1.reshape(-1), c0.reshape(-1)]), mask

        if (threads := min(allowed(), len(results))) < 2:
            yield from map(one, results)
            return
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(one, results)

    def _factors(self, layout: Layout, result: Result, y: Values) -> Iterator[Words]:
        """This party's Y for each block of k, as values [primes, DEGREE]."""
        block, columns = result.block, columns_of(layout, result)
        for number in range(block.first, block.first + block.cells):
            first = number * layout.inner
            piece = y[block.matrix, first : first + layout.inner, columns.start : columns.stop]
            out = np.zeros((1, len(self.p.q.primes), layout.columns, layout.inner), np.uint64)
            out[0, :, : piece.shape[1], : piece.shape[0]] = signed_residues(piece.T, self.p).transpose(1, 0, 2)
            whole = np.zeros((1, len(self.p.q.primes), DEGREE), np.uint64)
            whole[..., : layout.columns * layout.inner] = out.reshape(1, len(self.p.q.primes), -1)
            yield tf.forward(whole, self.p.q)[0]

    def _decrypted(self, layout: Layout, results: list[Result], heard: bytes) -> Iterator[Values]:
        kept = len(self.p.kept.primes)
        counts = [len(rows_of(layout, r)) * len(columns_of(layout, r)) for r in results]
        flat = unpacked(heard, kept * sum(DEGREE + count for count in counts))
        at = 0
        for result, count in zip(results, counts):
            c1, c0 = (v.reshape(kept, -1) for v in np.split(flat[at : at + kept * (DEGREE + count)], [kept * DEGREE]))
            _checked(c1, self.p.kept)
            _checked(c0, self.p.kept)
            at += kept * (DEGREE + count)
            yield self.keeper.decrypt(c0, c1, _places(layout, result))


def _polynomials(layout: Layout, block: Block, x: Values) -> Values:
    """The coefficients of a block's cells [cells, DEGREE]."""
    step, rows = layout.inner * layout.columns, x[block.matrix, block.row * layout.rows :][: layout.rows]
    out = np.zeros((block.cells, layout.rows, step), np.uint64)
    for to, number in zip(out, range(block.first, block.first + block.cells)):
        piece = rows[:, number * layout.inner : (number + 1) * layout.inner]
        at = layout.inner - 1 - np.arange(piece.shape[1])
        to[: len(piece), at] = piece
    whole = np.zeros((block.cells, DEGREE), np.uint64)
    whole[:, : layout.rows * step] = out.reshape(block.cells, -1)
    return whole


def _places(layout: Layout, result: Result) -> NDArray[np.int64]:
    """The coefficients of a result, row by row."""
    rows, columns = (np.arange(len(r)) for r in (rows_of(layout, result), columns_of(layout, result)))
    places: NDArray[np.int64] = (rows[:, None] * layout.columns + columns) * layout.inner + layout.inner - 1
    return places.reshape(-1)


def _residues(body: bytes, count: int, basis: Basis) -> Words:
    """Residues [..., primes, DEGREE] of a message, flat."""
    words = unpacked(body, count)
    _checked(words.reshape(-1, len(basis.primes), DEGREE), basis)
    return words


def _checked(words: Words, basis: Basis) -> None:
    if (words >= basis.p).any():
        raise PeerMismatchError(
            "the peer sent what are no ciphertexts of ring-LWE: it does not follow the protocol. Run the same version "
            "of spuvm at both."
        )
