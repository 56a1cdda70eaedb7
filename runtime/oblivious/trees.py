"""Trees of pseudorandom blocks of which one party knows all leaves, the other all but one of each tree.

Goldreich, Goldwasser and Micali (1986), punctured: Boneh and Waters, Kiayias et al., Boyle, Goldwasser and Ivan (2013,
2014). For each level the grower sums the left children and the right ones; with that sum which does not hold its path
the other one finds the path's sibling (Boyle et al., CCS 2019, figure 6). Arrays of blocks are uint64 [..., 2].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.oblivious.rows import Words, children

Paths = NDArray[np.uint8]


def grown(roots: Words, depth: int) -> tuple[Words, Words]:
    """Roots [trees, 2] -> leaves [trees, 2^depth, 2], and sums [trees, depth, 2, 2] of each level's sides."""
    trees, level, sums = len(roots), roots[:, None], []
    for _ in range(depth):
        pairs = children(level.reshape(-1, 2)).reshape(trees, -1, 2, 2)
        sums.append(total(pairs))
        level = pairs.reshape(trees, -1, 2)
    return level, np.stack(sums, axis=1)


def punctured(known: Words, paths: Paths) -> Words:
    """Sums [trees, depth, 2] of the sides off the paths [trees, depth] -> leaves, zeros at the paths' ends."""
    trees, depth = paths.shape
    every, at = np.arange(trees), np.zeros(trees, np.int64)
    level = np.zeros((trees, 1, 2), np.uint64)
    for i in range(depth):
        pairs = children(level.reshape(-1, 2)).reshape(trees, -1, 2, 2)
        pairs[every, at] = 0
        other = 1 - paths[:, i].astype(np.int64)
        pairs[every, at, other] = known[:, i] ^ total(pairs)[every, other]
        at = 2 * at + paths[:, i]
        level = pairs.reshape(trees, -1, 2)
    return level


def ends(paths: Paths) -> NDArray[np.int64]:
    """The number of each path's leaf."""
    powers = 1 << np.arange(paths.shape[1] - 1, -1, -1, dtype=np.int64)
    return np.asarray(paths.astype(np.int64) @ powers)


def total(x: Words) -> Words:
    """Exclusively or over the second axis."""
    return np.asarray(np.bitwise_xor.reduce(x, axis=1))
