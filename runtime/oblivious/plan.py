"""What is made in which batch of transfers, or by ring-LWE, and what it costs: known to both parties before running."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from spuvm.runtime.engine.correlated import Family, Holders, Kind, families, words
from spuvm.runtime.oblivious import matrices
from spuvm.runtime.oblivious.silent import bytes_said

BATCH_ROWS = 1 << 19  # transfers of a batch, which bounds the memory
BATCH_WORDS = 1 << 21  # words that those of matrices move
GROUP_BATCHES = 8  # whose trees are made together, which bounds the time between two messages
GROUP_SAID = 1 << 24  # bytes of their corrections
ROUNDS = 4  # of a group: columns and what choices are, the check's factors, its answer, corrections


class Job(NamedTuple):
    """`rows` transfers of `length` words of `width` bits each."""

    rows: int
    length: int
    width: int

    @property
    def said(self) -> int:
        """Bytes of the corrections: whole bytes a word, bits in eights."""
        count = self.rows * self.length
        return -(-count // 8) if self.width == 1 else count * -(-self.width // 8)


class Chunk(NamedTuple):
    """Some words of a family, or of one unit of matrices some rows of b (and columns of a)."""

    family: Family
    start: int
    size: int
    inner: tuple[int, int] = (0, 0)

    @property
    def jobs(self) -> list[Job]:
        return _jobs(self)

    @property
    def rows(self) -> int:
        return sum(job.rows for job in self.jobs)


def bit_width(family: Family, k: int) -> int:
    """Of the product of both parties' bits number k, in what is made of a word's bits; 0 if it does not matter."""
    w = family.width
    if family.kind is Kind.WORD:
        return w - 1 - k
    bits = family.parameters[0]
    return w - 1 if k == w - 1 else w - 1 - k + (bits if k >= bits else 0)


def significant(family: Family) -> int:
    """Low bits of a word of `AND` that matter."""
    return family.parameters[0] if family.parameters else family.width


def _jobs(chunk: Chunk) -> list[Job]:
    (kind, w, parameters), n = chunk.family, chunk.size
    match kind:
        case Kind.MUL:
            return [Job(n, 1, w - k) for k in range(w) for _ in range(2)]
        case Kind.SQUARE:
            return [Job(n, 1, w - 1 - k) for k in range(w - 1)]
        case Kind.AND:
            return [Job(n * significant(chunk.family), 1, 1)] * 2
        case Kind.BIT:
            return [Job(n, 1, w - 1)]
        case Kind.WORD | Kind.TRUNC:
            return [Job(n, 1, bit_width(chunk.family, k)) for k in range(w) if bit_width(chunk.family, k)]
        case Kind.DOT:
            g, m, _, columns = parameters
            k = chunk.inner[1] - chunk.inner[0]
            return [Job(g * k * columns, m, w - b) if first else Job(g * m * k, columns, w - b)
                    for b in range(w) for first in (True, False)]  # fmt: skip
    raise AssertionError(kind)


def groups(draws: Mapping[Holders, int]) -> list[list[list[Chunk]]]:
    """What the draws of a piece of program need of transfers, in the order in which both parties make it: batches."""
    out: list[list[list[Chunk]]] = []
    said = 0
    for batch in _batches(draws):
        size = said_of(batch)
        if not out or len(out[-1]) == GROUP_BATCHES or said + size > GROUP_SAID:
            out.append([])
            said = 0
        out[-1].append(batch)
        said += size
    return out


def said_of(batch: Sequence[Chunk]) -> int:
    """Bytes of the corrections of a batch."""
    return sum(job.said for chunk in batch for job in chunk.jobs)


def rows_of(batch: Sequence[Chunk]) -> int:
    return sum(chunk.rows for chunk in batch)


def _batches(draws: Mapping[Holders, int]) -> list[list[Chunk]]:
    out: list[list[Chunk]] = []
    rows = BATCH_ROWS
    for family, positions in sorted(families(draws).items()):
        if matrices.layout_of(family) is not None:
            continue
        for chunk in _chunks(family, words(family, positions)):
            if rows + chunk.rows > BATCH_ROWS:
                out.append([])
                rows = 0
            out[-1].append(chunk)
            rows += chunk.rows
    return out


def _chunks(family: Family, count: int) -> Iterator[Chunk]:
    if family.kind is Kind.DOT:
        g, m, k, n = family.parameters
        step = max(1, BATCH_WORDS // max(2 * g * m * n * family.width, 1))
        for unit in range(count):
            for at in range(0, k, step):
                yield Chunk(family, unit, 1, (at, min(at + step, k)))
        return
    each = max(1, BATCH_ROWS // Chunk(family, 0, 1).rows)
    for at in range(0, count, each):
        yield Chunk(family, at, min(each, count - at))


def ahead(chunk: Mapping[Family, int], wanted: Mapping[Family, int]) -> tuple[int, tuple[int, int]]:
    """Rounds, and bytes that parties 0 and 1 send, to make so many units ahead, in chunks of so many."""
    rounds, sent = 0, [0, 0]
    for family, units in wanted.items():
        chunks = -(-units // chunk[family])
        each, by_party = offline(family.draws(chunk[family]))
        rounds += chunks * each
        sent = [s + chunks * n for s, n in zip(sent, by_party)]
    return rounds, (sent[0], sent[1])


def offline(draws: Mapping[Holders, int]) -> tuple[int, tuple[int, int]]:
    """Rounds, and bytes that parties 0 and 1 send, before a piece of program with these draws."""
    made = groups(draws)
    sent = [0, 0]
    for group in made:
        by_sender, by_receiver = bytes_said([rows_of(batch) for batch in group])
        sent[0] += by_sender + sum(map(said_of, group))
        sent[1] += by_receiver
    rounds = ROUNDS * len(made)
    for family, positions in families(draws).items():
        if matrices.layout_of(family) is not None:
            more, by_each = matrices.offline(family, words(family, positions))
            rounds, sent = rounds + more, [n + by_each for n in sent]
    return rounds, (sent[0], sent[1])
