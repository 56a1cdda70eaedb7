"""Proofs of products among three parties with replicated sharings, before anything is revealed: one may deviate.

Party i holds components i and i + 1 of x, y and z. In a semi-honest product a party that deviates adds an error to its
own component of z, and knows it. All products since the last proof are proved at once, by random combinations over an
extension S of their ring R that has many elements of which any two differ by a unit (`ring/extension.py`): a Galois
ring of degree d = 48 for words (Abspoel, Dalskov, Escudero and Nof, ACNS 2021), GF(2^64) for bits, d = 64.

Element by element, z = x y, as an inner product that is folded (Boneh, Boyle, Corrigan-Gibbs, Gilboa and Ishai, CRYPTO
2019; Goyal and Song, CRYPTO 2020; cross terms as Bootle, Cerulli, Chaidos, Groth and Petit, EUROCRYPT 2016). The
products lie in rows l of n places w:

1. The parties tell each other that they have all they were sent, and only now open a coin: weights r_w of S. Random
   a_w of S are shared. T_lm = sum_w r_w x_lw y_mw and c_m = sum_w a_w y_mw are made, as products are: one element each.
2. T_ll - sum_w r_w z_lw must be a sharing of zero for each l: each party confirms to the next (`checks.py`) what its
   components leave for the third. If T is right, a wrong z passes with 2^-d.
3. Told again that all is there, they open a second coin: weights g_l, h_m. With X_w = sum_l g_l x_lw and Y_w = sum_m
   h_m y_mw, u_w = r_w X_w - a_w is opened, and sum_w u_w Y_w + sum_m h_m c_m - sum_lm g_l h_m T_lm must be zero.
   With errors E of T and e of c that is sum_m h_m (e_m - sum_l g_l E_lm). Of E and e take those with the fewest
   factors of 2 and all modulo one more: a bilinear form over the field of 2^d elements that is not zero, which
   vanishes with 2 / 2^d at most. So a wrong product passes with 3 / 2^d, below 2^-46.

Matrix products z = x y of [m, n] results, over the Galois ring: Freivalds's random combination makes one inner
product of each, and a second one with the same right factor is sacrificed for it (Damgard et al., CRYPTO 2012; Lindell
and Nof, CCS 2017):
1. By the first coin, weights g: y' = y g. A random vector a is shared, and c = <a, y'> made, as a product is.
2. By the second, weights h, once c is there: w = h x - a is opened, and <w, y'> + c - h z g must be zero. Let z be
   x y + E, and c too large by d: the check asks for h E g = d, which holds with 2 / 2^48 at most, as above.

What is opened is masked by words used once. What fails depends on the deviation alone, not on what is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.engine.random import BLOCK_BYTES, Stream, aligned_empty
from spuvm.runtime.link.link import Link
from spuvm.runtime.machine.checks import Checks, deviation
from spuvm.runtime.machine.claims import COIN_BYTES, PARTIES, Claim, batches, groups_of, table_of
from spuvm.runtime.ring.extension import DEGREE, Extension, Field, Galois, Weights

Array = NDArray[Any]
Pair = tuple[Array, Array]  # a party's two components
Opened = tuple[Array, Array, Array]  # and the one that it was told


class Drawn:
    """Pseudorandom bytes under a key, one after another."""

    def __init__(self, key: bytes) -> None:
        self._stream, self._used = Stream(key), 0

    def draw(self, nbytes: int) -> Array:
        out = aligned_empty(nbytes)
        self._stream.fill(out, self._used)
        self._used += -(-nbytes // BLOCK_BYTES)
        return out


class Proofs:
    """One party's products since the last proof, and how they are proved.

    `random(component, nbytes)` are fresh pseudorandom bytes that the holders of a component share.
    """

    def __init__(self, link: Link, random: Callable[[int, int], Array], checks: Checks) -> None:
        self.rank = link.rank
        self.next, self.previous = (self.rank + 1) % PARTIES, (self.rank - 1) % PARTIES
        self._link, self._bytes, self._checks = link, random, checks
        self._claims: list[tuple[Claim, list[Array]]] = []

    def add(self, claim: Claim, components: Sequence[Array]) -> None:
        """x, y and z, two components each."""
        self._claims.append((claim, [np.ascontiguousarray(c) for c in components]))

    def prove(self) -> None:
        """Raises DeviationError at the latest in the comparison of tags that has to follow."""
        if not self._claims:
            return
        claims, self._claims = self._claims, []
        with np.errstate(over="ignore"):
            words = {key: _words(claims, *key) for key in groups_of(c for c, _ in claims)}
            dots = [_Dot(self, *arrays) for claim, arrays in claims if claim.how == "dot"]
            del claims
            cut = {key: batches(len(found[0])) for key, found in words.items()}
            for i in range(max((len(b) for b in cut.values()), default=1 if dots else 0)):
                groups = [
                    _Words(self, *key, [_part(x, sizes, i) for x in words[key]])
                    for key, sizes in cut.items()
                    if i < len(sizes)
                ]
                self._batch([*groups, *(dots if i == 0 else [])])

    def _batch(self, proved: Sequence[_Words | _Dot]) -> None:
        self._checks.compare(PARTIES)
        coin = self._coin()
        for p, received in zip(proved, self.sent([p.met(coin) for p in proved])):
            p.made(received)
        self._checks.compare(PARTIES)
        coin = self._coin()
        masked = [p.masked(coin) for p in proved]
        for p, opened in zip(proved, self._confirmed(masked, self.sent([second for _, second in masked]))):
            p.check(opened)

    # What parties tell each other ----------------------------------------------------------------------

    def sent(self, arrays: Sequence[Array]) -> list[Array]:
        """Each party's arrays at the one before it."""
        out = [np.empty_like(a) for a in arrays]
        self._link.exchange(
            {self.previous: [np.ascontiguousarray(a) for a in arrays]},
            {self.next: out},
        )
        return out

    def _confirmed(self, pairs: Sequence[Pair], received: Sequence[Array]) -> Iterator[Opened]:
        """Openings: two components, and the one that a party lacks. Who also knows that confirms it."""
        for (first, _), got in zip(pairs, received):
            self._checks.record(self.next, True, first)
            self._checks.record(self.previous, False, got)
        return iter([(*pair, got) for pair, got in zip(pairs, received)])

    def is_zero(self, over: Extension, x: Pair) -> None:
        """The three components make up zero: what a party's two leave for the third, it confirms to the next one."""
        both = over.add(*x)
        self._checks.record(self.next, True, over.subtract(np.zeros_like(both), both))
        self._checks.record(self.previous, False, x[1])

    def _coin(self) -> Drawn:
        """16 bytes that nobody knew before. Each party is told the part that it lacks by both who have it."""
        first, second = (self._bytes(c, COIN_BYTES) for c in (self.rank, self.next))
        got = [np.empty(COIN_BYTES, np.uint8) for _ in range(2)]
        self._link.exchange(
            {self.previous: [second], self.next: [first]}, {self.next: [got[0]], self.previous: [got[1]]}
        )
        if (got[0] != got[1]).any():
            raise deviation("two parties tell this one different parts of a coin")
        return Drawn(bytes(first ^ second ^ got[0]))

    # Sharings that nobody sends anything for ------------------------------------------------------------------

    def uniform(self, shape: tuple[int, ...], dtype: Any) -> Pair:
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        first, second = (self._bytes(c, nbytes).view(dtype).reshape(shape) for c in (self.rank, self.next))
        return first, second


def _words(claims: list[tuple[Claim, list[Array]]], how: str, bits: int) -> list[Array]:
    """All components of one kind, one after another; conjunctions as words of 64 bits, the last filled with zeros."""
    chosen = [arrays for claim, arrays in claims if claim.how == how and (how == "and" or claim.bits == bits)]
    out = []
    for i in range(6):
        joined = np.concatenate([a[i].reshape(-1).view(np.uint8) for a in chosen])
        missing = -len(joined) % (bits // 8)
        out.append((np.pad(joined, (0, missing)) if missing else joined).view(f"uint{bits}"))
    return out


def _part(x: Array, sizes: Sequence[int], i: int) -> Array:
    start = sum(sizes[:i])
    return x[start : start + sizes[i]]


class _Words:
    """A batch of products of words, in rows."""

    def __init__(self, proofs: Proofs, how: str, bits: int, components: list[Array]) -> None:
        self._p = proofs
        self._over: Extension = Field() if how == "and" else Galois(components[0].dtype)
        table = table_of(how, bits, count := len(components[0]))
        self._rows, self._n = table.rows, table.n
        missing = self._rows * self._n - count
        full = [(np.pad(c, (0, missing)) if missing else c).reshape(self._rows, self._n) for c in components]
        self._x, self._y, self._z = ((full[i], full[i + 1]) for i in (0, 2, 4))

    def met(self, coin: Drawn) -> Array:
        """Step 1: this party's summands of T and, in a last row, of c."""
        over = self._over
        self._weights = _weights(over, coin, self._n)
        self._a = self._p.uniform((self._n, *over.inner), over.dtype)
        mask = self._p.uniform((self._rows + 1, self._rows, *over.element), over.dtype)
        own = over.crossed(self._x, self._y, self._weights, self._a)
        self._mine = np.asarray(over.add(own, over.subtract(*mask)))
        return self._mine

    def made(self, received: Array) -> None:
        """Step 2."""
        self._table = (self._mine, received)
        diagonal = np.arange(self._rows)
        first, second = (
            self._over.subtract(table[diagonal, diagonal], self._over.weighed(z, self._weights))
            for table, z in zip(self._table, self._z)
        )
        self._p.is_zero(self._over, (first, second))

    def masked(self, coin: Drawn) -> Pair:
        """Step 3: what is opened."""
        self._left, self._right = (_weights(self._over, coin, self._rows) for _ in range(2))
        first, second = (
            self._over.masked(self._over.folded(x, self._left), self._weights, a) for x, a in zip(self._x, self._a)
        )
        return first, second

    def check(self, opened: Opened) -> None:
        over = self._over
        u = _sum(over.add, *opened)
        first, second = (
            over.subtract(over.product(u, over.folded(y, self._right)), over.combined(table, self._left, self._right))
            for y, table in zip(self._y, self._table)
        )
        self._p.is_zero(over, (first, second))


def _weights(over: Extension, coin: Drawn, count: int) -> Weights:
    return over.weights(coin.draw(8 * count).view(np.uint64))


def _sum(add: np.ufunc, x: Array, y: Array, z: Array) -> Array:
    """Into z: what was received is not needed again."""
    return np.asarray(add(add(x, y), z, out=z))


class _Dot:
    """A batch of matrix products x [g, m, k], y [g, k, n], z [g, m, n]."""

    def __init__(self, proofs: Proofs, *components: Array) -> None:
        self._p, self._over = proofs, Galois(components[0].dtype)
        self._x, self._y, self._z = ((components[i], components[i + 1]) for i in (0, 2, 4))

    def met(self, coin: Drawn) -> Array:
        """Step 1: this party's summand of c."""
        g, _, n = self._y[0].shape
        weights = _weights(self._over, coin, g * n).reshape(g, n)
        self._right, self._product = (
            (self._times(v[0], weights), self._times(v[1], weights)) for v in (self._y, self._z)
        )
        self._a = self._p.uniform(self._right[0].shape, self._right[0].dtype)
        x, y = self._a, self._right
        mask = self._p.uniform((DEGREE,), x[0].dtype)
        times = self._over.product
        self._mine = np.asarray(times(x[0], y[0] + y[1]) + times(x[1], y[0]) + mask[0] - mask[1])
        return self._mine

    def _times(self, x: Array, weights: Weights) -> Array:
        """[g, m, n] times [g, n] -> [g m, 48]."""
        out = np.empty((*x.shape[:2], DEGREE), x.dtype)
        for v, w, to in zip(x, weights, out):
            to[...] = self._over.folded(v.T, w)
        return out.reshape(-1, DEGREE)

    def made(self, received: Array) -> None:
        self._c = (self._mine, received)

    def masked(self, coin: Drawn) -> Pair:
        """Step 2: w."""
        g, m, _ = self._x[0].shape
        self._h = _weights(self._over, coin, g * m)
        turned = (x.transpose(0, 2, 1) for x in self._x)
        first, second = (self._times(x, self._h.reshape(g, m)) - a for x, a in zip(turned, self._a))
        return first, second

    def check(self, opened: Opened) -> None:
        over = self._over
        w, nothing = _sum(np.add, *opened), np.zeros_like(self._product[0])
        weighed = (over.masked(z, self._h, nothing) for z in self._product)
        first, second = (
            over.product(w, right) + c - z.sum(0, dtype=z.dtype) for right, c, z in zip(self._right, self._c, weighed)
        )
        self._p.is_zero(over, (first, second))
