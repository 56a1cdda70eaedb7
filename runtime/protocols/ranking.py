"""The order of secret elements from comparisons that are opened: who is compared with whom.

The elements have been shuffled and are all different, so what the comparisons show is the order of a
uniformly random permutation, which says nothing about the inputs (Hamada et al., ICISC 2012). What is
compared depends on what was opened before, all parties know it, and each works it out for itself: in
integers, by sorts of distinct numbers only, and roundings that are never close, so that all get the same.

Every segment of elements whose order among each other is open is split at once: a sample is put in order
by comparing all of its pairs; each other element finds its place in the sample by binary search; what
falls between two neighbours is a segment of the next pass. A pass costs a step for the sample and one
for each level of the search, and three or four passes do for a million elements. Where few ranks are asked
for, two elements of the sample around them are enough (Floyd and Rivest, CACM 1975).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Bits = NDArray[np.uint8]
Compare = Callable[[Indices, Indices], Bits]  # whether the first of each pair precedes the second

ALL_PAIRS = 8  # so many elements are put in order by comparing all pairs
NARROW = 256  # elements from which on two pivots around what is wanted do better than many
CHEAP_PAIRS = 50_000  # so many comparisons cost less than the rounds of the steps that they save
_POSITION_BITS = 40


def ranking(rows: int, length: int, wanted: Sequence[tuple[int, int]], compare: Compare) -> Indices:
    """int64[rows * length]: the indices of each row's elements, in order.

    Element i of row r has the index r * length + i. With `wanted`, half-open ranges of ranks, only
    these ranks hold the right element; the others of the row stand anywhere else.
    """
    order = np.arange(rows * length)
    asked = _asked(length, wanted)
    start, size = length * np.arange(rows), np.full(rows, length)
    while len(start := start[keep := _open(start % length if length else start, size, asked)]):
        start, size = _split(order, start, size[keep], length, asked, compare)
    return order


def _asked(length: int, wanted: Sequence[tuple[int, int]]) -> Indices:
    """How many of the wanted ranks are below each rank."""
    marks = np.ones(length, np.int64)
    if wanted:
        marks[:] = 0
        for low, high in wanted:
            marks[low:high] = 1
    return np.concatenate([[0], np.cumsum(marks)])


def _open(rank: Indices, size: Indices, asked: Indices) -> NDArray[np.bool_]:
    """The segments of several elements with a wanted rank."""
    several: NDArray[np.bool_] = (size > 1) & (asked[rank + size] > asked[rank])
    return several


@dataclass(frozen=True)
class _Segments:
    """Where segments start in the order and how long they are; what is wanted of each, `low` to `high`."""

    start: Indices
    size: Indices
    low: Indices
    high: Indices
    sample: Indices  # so many elements, the first, are put in order
    narrow: NDArray[np.bool_]  # the wanted ranks lie close together: two pivots around them do

    def where(self, mask: NDArray[np.bool_]) -> _Segments:
        return _Segments(*(getattr(self, f.name)[mask] for f in fields(self)))


def _segments(start: Indices, size: Indices, length: int, asked: Indices) -> _Segments:
    """A sample of m costs m^2 / 2 comparisons, and a part 2 / sqrt m of all elements stay between the two pivots.

    That is least for m = (1.6 n)^0.4; (10 n)^0.4 saves steps. Where few segments are left, samples are larger still.
    """
    rank = start % length
    low = np.searchsorted(asked, asked[rank], "right") - 1 - rank
    high = np.searchsorted(asked, asked[rank + size], "left") - rank
    cheap = max(math.sqrt(2 * CHEAP_PAIRS / len(start)), ALL_PAIRS)
    narrow = (4 * (high - low) < size) & (size > max(cheap, NARROW))
    wide = (1 << np.rint(np.log2(2.5 * size) / 2).astype(np.int64)) - 1
    few = np.rint(np.maximum((10 * size) ** 0.4, np.minimum(np.sqrt(2.5 * size), cheap))).astype(np.int64)
    sample = np.where(size <= cheap, size, np.where(narrow, few, wide))
    return _Segments(start, size, low, high, sample, narrow)


def _split(
    order: Indices, start: Indices, size: Indices, length: int, asked: Indices, compare: Compare
) -> tuple[Indices, Indices]:
    """Arrange each segment around the pivots of its sample; the new segments between them."""
    segments = _segments(start, size, length, asked)
    _sort_samples(order, segments.start, segments.sample, compare)
    segments = segments.where(segments.sample < segments.size)
    if not len(segments.start):
        return segments.start, segments.size
    return _arrange(order, segments, *_pivots(segments), compare)


def _sort_samples(order: Indices, start: Indices, sample: Indices, compare: Compare) -> None:
    """Put the first `sample` elements of each segment in order: all pairs in one step."""
    groups = [(int(n), start[sample == n]) for n in np.unique(sample) if n > 1]
    members = [order[at[:, None] + np.arange(n)] for n, at in groups]
    pairs = [np.triu_indices(n, 1) for n, _ in groups]
    first = np.concatenate([m[:, i].reshape(-1) for m, (i, _) in zip(members, pairs)])
    second = np.concatenate([m[:, j].reshape(-1) for m, (_, j) in zip(members, pairs)])
    bits = compare(first, second)[: len(first)]
    used = 0
    for (n, at), m, (i, j) in zip(groups, members, pairs):
        before = bits[used : used + len(at) * len(i)].reshape(len(at), len(i))
        used += before.size
        precedes = np.zeros((len(at), n, n), np.uint8)
        precedes[:, i, j], precedes[:, j, i] = before, 1 - before
        order[at[:, None] + precedes.sum(1, dtype=np.int64)] = m


def _pivots(segments: _Segments) -> tuple[Indices, Indices, Indices]:
    """The places, in its ordered sample, of each segment's pivots, one after another; how many; the first half-width.

    All of the sample, 2^levels - 1; of a narrow one two: twice the standard deviation of a sample's rank to either side
    of what is wanted. That one comes first behind or before which most elements are.
    """
    size, sample, narrow = segments.size, segments.sample, segments.narrow
    margin = np.ceil(np.sqrt(sample)).astype(np.int64)
    low = np.clip(segments.low * sample // size - margin, 0, sample - 2)
    high = np.clip(segments.high * sample // size + margin, low + 1, sample - 1)
    count = np.where(narrow, 2, sample)
    base = np.cumsum(count) - count
    pivots = np.arange(count.sum()) - np.repeat(base, count)
    pivots[base[narrow][:, None] + np.arange(2)] = np.stack([low, high], 1)[narrow]
    upper_first = segments.low + segments.high < size
    return pivots, count, np.where(narrow, 1 + upper_first, (sample + 1) >> 1)


def _arrange(
    order: Indices, segments: _Segments, pivots: Indices, count: Indices, half: Indices, compare: Compare
) -> tuple[Indices, Indices]:
    """Search each element's place among the pivots, and bring what shares a place together."""
    start, size, sample = segments.start, segments.size, segments.sample
    segment = np.repeat(np.arange(len(start)), size)
    within = np.arange(len(segment)) - np.repeat(np.cumsum(size) - size, size)
    where = start[segment] + within
    base = np.cumsum(count) - count
    key = np.empty(len(where), np.int64)
    searched = within >= sample[segment]
    search = _Search(start, pivots, base, half, segments.narrow)
    key[searched] = 2 * search(order, where[searched], segment[searched], compare)
    known = ~searched
    key[known] = _place_in_sample(within[known], segment[known], pivots, base, count, sample)
    key += (2 * (base + np.arange(len(start))))[segment]
    # Composite numbers are distinct: any sort puts them in the same order.
    composite = np.sort(key << _POSITION_BITS | np.arange(len(key)))
    order[where] = order[where[composite & ((1 << _POSITION_BITS) - 1)]]
    return _runs(composite >> _POSITION_BITS, where)


@dataclass(frozen=True)
class _Search:
    """Binary search among the pivots of each segment; of two, the other only if the first leaves it open."""

    start: Indices
    pivots: Indices
    base: Indices
    half: Indices
    narrow: NDArray[np.bool_]

    def __call__(self, order: Indices, where: Indices, segment: Indices, compare: Compare) -> Indices:
        """How many pivots of its segment precede each element: one step a level."""
        place, step = np.zeros(len(where), np.int64), self.half[segment]
        active: Indices | slice = slice(None)
        first = True
        while (step > 0).any():
            if not (step > 0).all():
                active = np.flatnonzero(step)
            at, half = segment[active], step[active]
            pivot = self.start[at] + self.pivots[self.base[at] + place[active] + half - 1]
            bits = compare(order[pivot], order[where[active]])[: len(pivot)]
            place[active] += half * bits
            open_still = (bits == 1) == (half == 1)
            step[active] = np.where(first & self.narrow[at], open_still, half >> 1)
            first = False
        return place


def _place_in_sample(
    within: Indices, segment: Indices, flat: Indices, base: Indices, count: Indices, sample: Indices
) -> Indices:
    """2 p + 1 for pivot p of a segment, 2 p for an element of the sample that p pivots precede."""
    offset = np.cumsum(sample) - sample
    taken = flat + np.repeat(offset, count)
    at = within + offset[segment]
    before = np.searchsorted(taken, at)
    is_pivot = taken[np.minimum(before, len(taken) - 1)] == at
    place: Indices = 2 * (before - base[segment]) + is_pivot
    return place


def _runs(key: Indices, where: Indices) -> tuple[Indices, Indices]:
    """The segments of equal even keys: odd ones are pivots, which stand where they belong."""
    ends = np.append(np.flatnonzero(key[1:] != key[:-1]) + 1, len(key))
    begins = np.concatenate([[0], ends[:-1]])
    between = key[begins] % 2 == 0
    return where[begins[between]], (ends - begins)[between]


def batches(rows: int, length: int, wanted: Sequence[tuple[int, int]]) -> Iterator[int]:
    """How many pairs each step compares, for an example of a shuffle: the estimate of `cost`."""
    values = np.random.default_rng(0).permutation(rows * length)
    sizes: list[int] = []

    def compare(first: Indices, second: Indices) -> Bits:
        sizes.append(len(first))
        return (values[first] < values[second]).astype(np.uint8)

    ranking(rows, length, wanted, compare)
    return iter(sizes)
