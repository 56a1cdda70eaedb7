"""Proofs of products among three parties with replicated sharings, before anything is revealed: one may deviate.

Party i holds components i and i + 1 of x, y and z. In a semi-honest product a party that deviates adds an error to its
own component of z, and knows it. All products since the last proof are proved at once.

Element by element (`mul` modulo 2^k, `and` of bits), after Furukawa, Lindell, Nof and Weinstein (EUROCRYPT 2017) and
Araki et al. (S&P 2017, "on-demand" with shuffled triples):

1. t columns of N + 1 random triples c = a b are made, as products are. The parties then tell each other that they have
   all they were sent, and only now open a coin that shuffles each column.
2. The first of each column is opened and must be right. Product j is compared with number j of all others: x - a and
   y - b are opened, and z - (x - a)(y - b) - (x - a) b - (y - b) a - c must be a sharing of zero: each party confirms
   to the next (`checks.py`) what its components leave for the third.
3. With m of N products wrong, each column must have wrong triples at just their places, of C(N + 1, m) >= N + 1
   choices. So a deviation passes with probability (N + 1)^-t <= 2^-40. Small batches are filled up with zeros.

Matrix products z = x y of [m, n] results, over the Galois ring Z_2^k[X] / (X^41 + X^3 + 1), in which a random element
catches a wrong word but with 2^-41 (Abspoel, Dalskov, Escudero and Nof, ACNS 2021): Freivalds's random combination
makes one inner product of each, and a second one with the same right factor is sacrificed for it (Damgard et al.,
CRYPTO 2012; Lindell and Nof, CCS 2017):
1. A coin g: y' = y g. A random vector a is shared, and c = <a, y'> made, as a product is.
2. A second coin h, once c is there: w = h x - a is opened, and <w, y'> + c - h z g must be zero. Let z be x y + E, 2^j
   the highest power of two in all of E, and c too large by d: the check asks for h E g = d. E g / 2^j is a unit in some
   place but with probability 2^-41, and then h E g has 2^(41 (k - j)) values, all as likely.

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
from spuvm.runtime.ring.galois import DEGREE, inner
from spuvm.runtime.ring.triples import BITS, SPARE, SUMS, Order, Ring, left, masked, order_of, summand

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
                    _Words(self, BITS if key[0] == "and" else SUMS, [_part(x, sizes, i) for x in words[key]])
                    for key, sizes in cut.items()
                    if i < len(sizes)
                ]
                self._batch(groups, dots if i == 0 else [])

    def _batch(self, groups: list[_Words], dots: list[_Dot]) -> None:
        if groups:
            for g, c in zip(groups, self.sent([g.triples() for g in groups])):
                g.made(c)
        self._checks.compare(PARTIES)
        coin = self._coin()
        opening = [x for g in groups for x in g.masked(coin)]
        received = self.sent([*(second for _, second in opening), *(d.combined(coin) for d in dots)])
        opened = self._confirmed(opening, received[: len(opening)])
        for g in groups:
            g.check(opened)
        for d, c in zip(dots, received[len(opening) :]):
            d.made(c)
        if dots:
            self._checks.compare(PARTIES)
            coin = self._coin()
            masked = [d.masked(coin) for d in dots]
            opened = self._confirmed(masked, self.sent([second for _, second in masked]))
            for d in dots:
                d.check(next(opened))

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

    def is_zero(self, ring: Ring, x: Pair) -> None:
        """The three components make up zero: what a party's two leave for the third, it confirms to the next one."""
        both = ring.add(*x)
        self._checks.record(self.next, True, ring.subtract(np.zeros_like(both), both))
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
    """A batch of products of words, and the triples that they are compared with, column by column."""

    def __init__(self, proofs: Proofs, ring: Ring, components: list[Array]) -> None:
        self._p, self._ring = proofs, ring
        count, self._dtype = len(components[0]), components[0].dtype
        self._t, self._n = table_of(count)
        full = [np.pad(c, (0, self._n - count)) if count < self._n else c for c in components]
        self._x, self._y, self._z = ((full[i], full[i + 1]) for i in (0, 2, 4))

    def triples(self) -> Array:
        """Step 1: this party's summand of c."""
        shape = (self._t, self._n + 1)
        self._a, self._b, mask = (self._p.uniform(shape, self._dtype) for _ in range(3))
        self._mine = summand(self._ring, self._a, self._b, mask)
        return self._mine

    def made(self, received: Array) -> None:
        self._c = (self._mine, received)

    def masked(self, coin: Drawn) -> list[Pair]:
        """Step 2: what is opened: the first triple of each column, and x - a and y - b with the others."""
        self._orders = [_order(coin, self._n + 1) for _ in range(self._t)]
        firsts = [int(order[0]) for order in self._orders]
        tests = [tuple(v[range(self._t), firsts] for v in pair) for pair in (self._a, self._b, self._c)]
        differences = [
            tuple(self._masked(v, u) for v, u in zip(x, a)) for x, a in ((self._x, self._a), (self._y, self._b))
        ]
        return [(first, second) for first, second in (*tests, *differences)]

    def _masked(self, x: Array, a: Array) -> Array:
        out = np.empty((self._t, self._n), self._dtype)
        for row, column, order in zip(out, a, self._orders):
            masked(self._ring, x, column, order[1:], row)
        return out

    def check(self, opened: Iterator[Opened]) -> None:
        add, times = self._ring.add, self._ring.multiply
        a, b, c, d, e = (_sum(add, *next(opened)) for _ in range(5))
        if (times(a, b) != c).any():
            raise deviation("a random product that was opened is wrong")
        for t, order in enumerate(self._orders):
            first, second = (self._left(i, t, (d[t], e[t]), order[1:]) for i in range(2))
            self._p.is_zero(self._ring, (first, second))

    def _left(self, i: int, t: int, opened: Pair, order: Order) -> Array:
        """Of component i of this party's; what is public belongs to component 0."""
        triple = self._a[i][t], self._b[i][t], self._c[i][t]
        return left(self._ring, self._z[i], opened, triple, order, (self._p.rank + i) % PARTIES == 0)


def _order(coin: Drawn, count: int) -> Order:
    return order_of(coin.draw(8 * (count + SPARE)).view(np.uint64))


def _sum(add: np.ufunc, x: Array, y: Array, z: Array) -> Array:
    """Into z: what was received is not needed again."""
    return np.asarray(add(add(x, y), z, out=z))


class _Dot:
    """A batch of matrix products x [g, m, k], y [g, k, n], z [g, m, n]."""

    def __init__(self, proofs: Proofs, *components: Array) -> None:
        self._p = proofs
        self._x, self._y, self._z = ((components[i], components[i + 1]) for i in (0, 2, 4))

    def _drawn(self, coin: Drawn, shape: tuple[int, ...]) -> Array:
        raw = coin.draw(math.prod(shape) * DEGREE * self._x[0].itemsize)
        return raw.view(self._x[0].dtype).reshape(*shape, DEGREE)

    def combined(self, coin: Drawn) -> Array:
        """Step 1: this party's summand of c."""
        g = self._drawn(coin, (self._y[0].shape[0], self._y[0].shape[2]))
        self._right = _flat(self._y[0] @ g), _flat(self._y[1] @ g)
        self._product = self._z[0] @ g, self._z[1] @ g
        self._a = self._p.uniform(self._right[0].shape, self._right[0].dtype)
        x, y = self._a, self._right
        mask = self._p.uniform((DEGREE,), x[0].dtype)
        self._mine = np.asarray(inner(x[0], y[0] + y[1]) + inner(x[1], y[0]) + mask[0] - mask[1])
        return self._mine

    def made(self, received: Array) -> None:
        self._c = (self._mine, received)

    def masked(self, coin: Drawn) -> Pair:
        """Step 2: w."""
        self._h = self._drawn(coin, self._x[0].shape[:2])
        first, second = (_flat(x.transpose(0, 2, 1) @ self._h) - a for x, a in zip(self._x, self._a))
        return first, second

    def check(self, opened: tuple[Array, Array, Array]) -> None:
        w = opened[0] + opened[1] + opened[2]
        h = _flat(self._h)
        first, second = (
            inner(w, right) + c - inner(h, _flat(z)) for right, c, z in zip(self._right, self._c, self._product)
        )
        self._p.is_zero(SUMS, (first, second))


def _flat(x: Array) -> Array:
    return x.reshape(-1, DEGREE)
