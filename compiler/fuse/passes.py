"""How a block goes through a loop's operations: in one pass or several, each over all elements of the block.

Within a pass a value is a vector in a processor's register; between passes it lies in the block's scratch memory,
which stays in the first-level cache. A pass of words of one width fills its vectors; with all widths in one pass,
bytes leave most of their lanes unused, but nothing goes through memory. Counting vector operations decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from spuvm.compiler.fuse.values import Lacking, Made, Operation
from spuvm.runtime.engine.code import UNIT

VECTOR = 512  # bits: processors with less take two or four steps for it
MIXED = 16  # lanes of a pass of several widths
SCRATCH = 24 << 10  # bytes of a block: half of a first-level cache
BLOCKS = (64, 32, 16, 8, 4)  # units at a time

Key = Callable[[Operation], Hashable]


class Pass(NamedTuple):
    """`steps` are operations in order, for `elements` of each unit, `lanes` at a time. `draws` come before them."""

    elements: int
    lanes: int
    steps: tuple[int, ...]
    draws: tuple[int, ...]


@dataclass(frozen=True)
class Passes:
    """`slots`: the place in the scratch memory of a unit of each value that more than one pass uses."""

    operations: Sequence[Operation]
    passes: tuple[Pass, ...]
    slots: dict[int, int]
    scratch: int  # bytes of a unit

    @property
    def block(self) -> int:
        """Units at a time."""
        return next((b for b in BLOCKS if b * self.scratch <= SCRATCH), BLOCKS[-1])

    @property
    def cost(self) -> float:
        """Vector operations and moves of a unit."""
        total = 0.0
        for p in self.passes:
            moved = {r.number for n in p.steps for r in self.operations[n].reads if isinstance(r, Made)} - {*p.steps}
            widths = [_bits(self.operations[n]) for n in p.steps]
            widths += [self.operations[n].width for n in (*moved, *(n for n in p.steps if n in self.slots))]
            total += sum(p.elements / p.lanes * max(1, p.lanes * w / VECTOR) for w in widths)
        return total


def _bits(o: Operation) -> int:
    return max(o.bits, o.width)


def best(operations: Sequence[Operation]) -> Passes:
    """By width, or all in one; words that are read in another number (packed bits) part passes in any case.

    Raises Lacking if there is nothing to do but to draw.
    """
    if all(o.is_draw for o in operations):
        raise Lacking("nothing but draws")
    ways = [
        _passes(operations, lambda o: o.elements, lambda _: MIXED),
        _passes(operations, lambda o: (o.elements, _bits(o)), lambda bits: VECTOR // bits),
    ]
    return min(ways, key=lambda way: way.cost)


def _passes(operations: Sequence[Operation], key: Key, lanes: Callable[[int], int]) -> Passes:
    groups = _groups(operations, key)
    at = {n: g for g, group in enumerate(groups) for n in group}
    last: dict[int, int] = {}
    first: dict[int, int] = {}
    for g, group in enumerate(groups):
        for read in (r for n in group for r in operations[n].reads if isinstance(r, Made)):
            last[read.number] = g
            first.setdefault(read.number, g)
    draws = [n for n, o in enumerate(operations) if o.is_draw]
    for n in draws:
        at[n] = first.get(n, 0)
    made = []
    for g, group in enumerate(groups):
        elements = operations[group[0]].elements
        widest = max(_bits(operations[n]) for n in group)
        mine = tuple(n for n in draws if at[n] == g)
        made.append(Pass(elements, min(elements, lanes(widest)), tuple(group), mine))
    slots, scratch = _slots(operations, at, last, len(groups))
    return Passes(operations, tuple(made), slots, scratch)


def _groups(operations: Sequence[Operation], key: Key) -> list[list[int]]:
    """Operations of equal keys together, in as few groups as a greedy choice finds; draws are no operations here."""
    waits = [0] * len(operations)
    users: defaultdict[int, list[int]] = defaultdict(list)
    for n, o in enumerate(operations):
        for needed in {r.number for r in o.reads if isinstance(r, Made)}:
            if not operations[needed].is_draw:
                waits[n] += 1
                users[needed].append(n)
    ready = [n for n, o in enumerate(operations) if not waits[n] and not o.is_draw]
    groups = []
    while ready:
        choices = [
            _reach(ready, operations, key, of, waits, users) for of in dict.fromkeys(key(operations[n]) for n in ready)
        ]
        group = max(choices, key=lambda c: sum(_bits(operations[n]) for n in c))
        taken = {*group}
        ready = [n for n in ready if n not in taken]
        for n in group:
            for user in users[n]:
                waits[user] -= 1
                if not waits[user] and user not in taken:
                    ready.append(user)
        groups.append(sorted(group))
    return groups


def _reach(
    ready: Sequence[int],
    operations: Sequence[Operation],
    key: Key,
    of: Hashable,
    waits: Sequence[int],
    users: dict[int, list[int]],
) -> list[int]:
    """All operations of one key that can be done now, one after another."""
    found = [n for n in ready if key(operations[n]) == of]
    left: dict[int, int] = {}
    for n in found:
        for user in users[n]:
            left[user] = left.get(user, waits[user]) - 1
            if not left[user] and key(operations[user]) == of:
                found.append(user)
    return found


def _slots(
    operations: Sequence[Operation], at: dict[int, int], last: dict[int, int], groups: int
) -> tuple[dict[int, int], int]:
    """Places of what passes hand on, and of what is drawn; what goes to an array is read there."""
    slots: dict[int, int] = {}
    free: defaultdict[int, list[int]] = defaultdict(list)
    ends: defaultdict[int, list[int]] = defaultdict(list)
    total = 0
    for g in range(groups):
        for n in sorted(n for n in at if at[n] == g):
            o = operations[n]
            if o.kept or not (o.is_draw or last.get(n, g) > g):
                continue
            size = o.elements * o.width // 8
            if free[size]:
                slots[n] = free[size].pop()
            else:
                slots[n], total = total, total + size
            ends[last.get(n, g)].append(n)
        for n in ends[g]:
            free[operations[n].elements * operations[n].width // 8].append(slots[n])
    return slots, total


assert UNIT % MIXED == 0, "units are whole vectors"
