"""Cuckoo hashing: every key has three places, one in each third of a table, and is in one of them.

Three hash functions and 1.27 n places or more fail with probability below 2^-40 (B. Pinkas, T. Schneider, M. Zohner:
Scalable private set intersection based on OT extension, TOPS 2018, table 4). Of few keys the likeliest failure is that
four have the same three places, with probability 820 n^4 / places^9: `places_for` keeps that below 2^-41, too.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from spuvm.runtime.errors import InputError

FUNCTIONS = 3
EXPANSION = 1.27
ROUNDS = 400
FAILURE = 2.0**-41


def places_for(keys: int) -> int:
    """How many places a table for so many keys has; a multiple of three."""
    few = (820.0 * max(keys, 4) ** 4 / FAILURE) ** (1 / 9)
    return 3 * -(-int(np.ceil(max(EXPANSION * keys, few))) // 3)


def places_of(words: np.ndarray, places: int) -> np.ndarray:
    """int64[3, n]: the places of keys, of which `words` uint64[3, n] are independent hashes."""
    third = places // FUNCTIONS
    drawn = ((words >> np.uint64(32)) * np.uint64(third)) >> np.uint64(32)
    found: np.ndarray = drawn.astype(np.int64) + third * np.arange(FUNCTIONS)[:, None]
    return found


def placed(places: np.ndarray, size: int) -> np.ndarray:
    """int64[n]: where each key goes, all different.

    Keys walk at random: all that have no place yet try the next of theirs, and who is there has to leave. What is left
    in the end is placed by moving others along a shortest path.

    Raises:
        InputError: if there is no way to place all.
    """
    count = places.shape[1]
    table = np.full(size, -1, np.int64)
    choice = np.zeros(count, np.int8)
    pending = np.arange(count)
    for _ in range(ROUNDS):
        if not pending.size:
            break
        target = places[choice[pending], pending]
        before = table[target]
        table[target] = pending  # of several the last
        lost = pending[table[target] != pending]
        gone = np.unique(before[before >= 0])
        pending = np.concatenate([lost, gone])
        choice[pending] = (choice[pending] + 1) % FUNCTIONS
    for key in pending:
        _augment(int(key), places, table)
    there = np.flatnonzero(table >= 0)
    out = np.empty(count, np.int64)
    out[table[there]] = there
    return out


def _augment(key: int, places: np.ndarray, table: np.ndarray) -> None:
    """Place one key more, breadth first."""
    came: dict[int, tuple[int, int] | None] = {}  # place -> (key that would move in, place it leaves)
    queue: deque[tuple[int, int | None]] = deque([(key, None)])
    while queue:
        mover, left = queue.popleft()
        for place in map(int, places[:, mover]):
            if place in came:
                continue
            came[place] = (mover, -1 if left is None else left)
            if table[place] < 0:
                at: int = place
                while at >= 0:
                    step = came[at]
                    assert step is not None
                    table[at], at = step[0], step[1]
                return
            queue.append((int(table[place]), place))
    raise InputError(
        "the keys cannot be placed under the seed that was drawn, which happens with probability below 2^-40: "
        "run the join again."
    )
