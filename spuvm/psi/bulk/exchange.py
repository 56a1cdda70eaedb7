"""Buckets of tags on their way: owners send theirs, sorted, the helper finds equal ones and tells whom it may tell.

Security: that of `helper.py`; see `run.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from spuvm.psi.bulk.folder import RunFolder
from spuvm.psi.bulk.layout import BUCKET_ROWS, SCRATCH_BYTES
from spuvm.psi.bulk.scratch import InMemory, OnDisk
from spuvm.psi.bulk.source import Source
from spuvm.psi.helper import find
from spuvm.psi.places import Held, Move, Places
from spuvm.psi.tags import order, starts_of_groups
from spuvm.runtime.errors import DataError


@dataclass(frozen=True)
class Asked:
    """What every party's command says.

    Attributes:
        key: the key columns of each owner.
        to: the owners that learn which of their rows match, and write them.
        duplicates: "refuse" or "first"; scratch: bytes of tags on an owner's disk at once.
    """

    owners: tuple[str, ...]
    helper: str
    key: Mapping[str, tuple[str, ...]]
    types: Mapping[str, Mapping[str, str]]
    to: tuple[str, ...]
    duplicates: str = "refuse"
    scratch: int = SCRATCH_BYTES
    bucket_rows: int = BUCKET_ROWS

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Asked:
        """As it was."""
        key = {p: tuple(names) for p, names in said["key"].items()}
        return cls(**{**said, "owners": tuple(said["owners"]), "to": tuple(said["to"]), "key": key})


@dataclass(eq=False)
class Here:
    """What an owner's process has of a run.

    Attributes:
        sent: of the last bucket's tags, the rows of the bucket.
        counts: of the pass, the rows of each bucket.
        work: what it reads or writes by itself; gives the rows of each batch.
    """

    source: Source
    folder: RunFolder
    output: Path | None
    scratch: InMemory | OnDisk = field(default_factory=InMemory)
    sent: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: list[int] = field(default_factory=list)
    work: Iterator[int] = field(default_factory=lambda: iter(()))


def matched(
    places: Places,
    asked: Asked,
    here: Mapping[str, Held],
    todo: Sequence[int],
    start: int,
    advance: Callable[[int], None] | None,
) -> None:
    """Have these buckets matched, of a pass whose first is `start`."""
    counts = {p: places.run(p, _counts, here[p], [b - start for b in todo]) for p in asked.owners}
    moves = [Move(counts[p], p, asked.helper, (len(todo),), np.int64) for p in asked.owners]
    told = dict(zip(asked.owners, places.move(*moves)))
    key = places.key(asked.owners, "tags")
    found: dict[str, Held] = {}
    for i in range(len(todo) + 1):
        found = _step(places, asked, here, todo, i, told, key, found, advance)


def _counts(here: Here, buckets: Sequence[int]) -> np.ndarray:
    return np.array([here.counts[b] for b in buckets], np.int64)


def _step(
    places: Places,
    asked: Asked,
    here: Mapping[str, Held],
    todo: Sequence[int],
    i: int,
    told: Mapping[str, Held],
    key: Held,
    found: Mapping[str, Held],
    advance: Callable[[int], None] | None,
) -> dict[str, Held]:
    """Send a bucket's tags, hear of the one before what matches: one round. The helper looks, owners sort the next."""
    owners, helper = asked.owners, asked.helper
    sending = i < len(todo)
    ready = {p: places.run(p, _ready, here[p], todo[i], key, asked) for p in owners} if sending else {}
    moves = []
    for p in owners if sending else ():
        mine = places.run(p, lambda r: r.tags, ready[p])
        size = len(mine.value) if mine.value is not None else 0
        if told[p].value is not None:
            size = int(told[p].value[i])
        moves.append(Move(mine, p, helper, (size, 2), np.uint64))
    for p in asked.to if found else ():
        size = _size(here, told, p, i - 1)
        moves.append(Move(found[p], helper, p, (-(-size // 8),), np.uint8))
    heard = places.move(*moves)
    if found:
        bits = dict(zip(asked.to, heard[len(moves) - len(asked.to) :]))
        for p in owners:
            places.run(p, _kept, here[p], todo[i - 1], bits.get(p))
            if advance is not None and places.is_here(p):
                advance(len(here[p].value.sent) * (1 if places.me is None else len(owners)))
    for p in owners if sending else ():
        places.run(p, _sent, here[p], ready[p])
    return _matched(places, asked, dict(zip(owners, heard[: len(owners)]))) if sending else {}


def _matched(places: Places, asked: Asked, got: Mapping[str, Held]) -> dict[str, Held]:
    """At the helper: for each receiver a bit of each tag, packed, whether all other owners sent it."""
    found = places.run(asked.helper, lambda *t: _all_have(dict(zip(asked.owners, t)), asked.to), *got.values())
    return {p: places.run(asked.helper, lambda f, p=p: f[p], found) for p in asked.to}


def _all_have(got: Mapping[str, np.ndarray], to: Sequence[str]) -> dict[str, np.ndarray]:
    out = {}
    for p in to:
        bits = np.ones(len(got[p]), bool)
        for other, tags in got.items():
            if other != p:
                bits &= find(got[p], tags) >= 0 if len(tags) and len(got[p]) else False
        out[p] = np.packbits(bits)
    return out


# At an owner --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ready:
    """A bucket's tags as they are sent, and of each the row of the bucket that it is of."""

    tags: np.ndarray
    at: np.ndarray


def _ready(here: Here, bucket: int, key: bytes, asked: Asked) -> Ready:
    """The bucket under the session's key, sorted."""
    tags = _encrypted(here.scratch.take(bucket), key)
    by = order(tags)
    tags = tags[by]
    if len(tags):
        new = starts_of_groups(tags)
        if not new.all():
            if asked.duplicates == "refuse":
                raise DataError(
                    f"{here.source.path} has rows with the same key ({', '.join(here.source.key)}): keep one row for "
                    "each, or say duplicates='first'."
                )
            # A repeated key is sent again as a tag that nobody has: its number says nothing then.
            tags = tags.copy()
            tags[~new] = np.frombuffer(secrets.token_bytes(16 * int((~new).sum())), np.uint64).reshape(-1, 2)
            again = order(tags)
            tags, by = tags[again], by[again]
    return Ready(tags, by)


def _encrypted(tags: np.ndarray, key: bytes) -> np.ndarray:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    out = np.empty((len(tags) + 1, 2), np.uint64)
    plain = np.ascontiguousarray(tags).reshape(-1).view(np.uint8)
    encryptor.update_into(plain.data, out.reshape(-1).view(np.uint8).data)
    return out[:-1]


def _sent(here: Here, ready: Ready) -> None:
    here.sent = ready.at


def _kept(here: Here, bucket: int, bits: np.ndarray | None) -> None:
    """Store which rows of the bucket match; who is told nothing stores that it is over."""
    at = here.sent
    found = np.zeros(len(at), bool)
    if bits is not None:
        found[at] = np.unpackbits(bits, count=len(at)).astype(bool)
    here.folder.keep(bucket, found)


def _size(here: Mapping[str, Held], told: Mapping[str, Held], party: str, i: int) -> int:
    """Tags that an owner sent of a bucket, as far as this process knows."""
    if told[party].value is not None:
        return int(told[party].value[i])
    return len(here[party].value.sent) if here[party].value is not None else 0
