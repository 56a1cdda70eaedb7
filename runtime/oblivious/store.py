"""Correlated randomness made ahead: chunks in a party's folder, each used once, in step with the other party's.

A folder holds `made` (whose it is, and a number that both parties drew), `ledger` (the next chunk of each family),
`lock`, and chunks `FAMILY.NUMBER`: a SHA-256, then each component's words. A chunk is taken whole: read, the ledger
moved on, the file overwritten and removed, all of it on the disk, and only then is a word of it used. When a session
begins both parties say where their ledgers stand. They differ by what was being taken when one was ended, or else one
of the folders is older than the runs that used it, and nothing of it is used.

What was restored or copied is noticed by the party itself, too: a ledger names an empty file, made with it and gone
with it, by its number on the disk and the time of its making.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from spuvm.runtime.engine.correlated import Family, Kind
from spuvm.runtime.errors import InputError, PeerMismatchError
from spuvm.runtime.scratch import Scratch

FORMAT = 1
CHUNK_BYTES = 8 << 20  # of all components of a chunk at most, which bounds the memory that making them takes
DIGEST = 32
LONGEST = 1 << 24  # of what a peer says of its ledger
Bytes = NDArray[np.uint8]
Swap = Callable[[bytes, int], bytes]  # says a body, hears one of that size
Names = tuple[str, str]  # this party, and the other


@dataclass
class Ledger:
    """The next chunk of each family by its name, and what it was `before` the last ones were taken."""

    next: dict[str, int] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)


class Store:
    """A party's folder, open in one process; use `opened`. `identity`: the number that both parties drew."""

    def __init__(self, folder: Path, lock: _Lock, identity: str, ledger: Ledger, end: dict[str, int]) -> None:
        self.folder, self.identity, self.ledger = folder, identity, ledger
        self._lock, self._end = lock, end
        self._held: dict[Family, list[list[Bytes]]] = {}  # what was taken and not used: components of each chunk

    def take(self, wanted: Mapping[Family, int]) -> dict[Family, list[Bytes]]:
        """The components of so many units of each family, or of as many as there are. InputError: a damaged chunk."""
        self._spend({f: chunks for f, n in sorted(wanted.items()) if (chunks := self._needed(f, n))})
        return {family: self._used(family, n) for family, n in wanted.items()}

    def put(self, family: Family, components: Sequence[Bytes]) -> None:
        """Keep a chunk: in both parties' folders the same number."""
        name = family_name(family)
        number = self._end.get(name, self.ledger.next.get(name, 0))
        path, body = self.folder / f"{name}.{number}", b"".join(c.tobytes() for c in components)
        _written(path, self._digest(path, body) + body)
        self._end[name] = number + 1

    def _digest(self, path: Path, body: bytes) -> bytes:
        return hashlib.sha256(f"{self.identity} {path.name} ".encode() + body).digest()

    def close(self) -> None:
        """Let go of the folder; what was taken is gone."""
        self._held.clear()
        self._lock.close()

    def _needed(self, family: Family, units: int) -> list[int]:
        """The chunks to be opened for so many units."""
        name = family_name(family)
        first, end = self.ledger.next.get(name, 0), self._end.get(name, 0)
        there = sum(chunk[0].nbytes // family.unit_bytes(0) for chunk in self._held.get(family, ()))
        number = first
        while there < units and number < end:
            there += self._size(family, self.folder / f"{name}.{number}")
            number += 1
        return list(range(first, number))

    def _size(self, family: Family, path: Path) -> int:
        try:
            return (path.stat().st_size - DIGEST) // sum(map(family.unit_bytes, range(family.components)))
        except OSError:
            raise InputError(f"{path} is missing: {ANEW}") from None

    def _spend(self, chunks: Mapping[Family, list[int]]) -> None:
        if not chunks:
            return
        paths = {f: [self.folder / f"{family_name(f)}.{n}" for n in numbers] for f, numbers in chunks.items()}
        read = {f: [self._read(f, path) for path in found] for f, found in paths.items()}
        moved = {family_name(f): numbers[-1] + 1 for f, numbers in chunks.items()}
        self.settle(Ledger(self.ledger.next | moved, self.ledger.next))
        for f, found in paths.items():
            for path in found:
                _destroyed(path)
            self._held.setdefault(f, []).extend(read[f])
        _flushed(self.folder)

    def _read(self, family: Family, path: Path) -> list[Bytes]:
        try:
            raw = path.read_bytes()
        except OSError:
            raise InputError(f"{path} cannot be read: {ANEW}") from None
        units, rest = divmod(len(raw) - DIGEST, sum(map(family.unit_bytes, range(family.components))))
        if rest or self._digest(path, raw[DIGEST:]) != raw[:DIGEST]:
            raise InputError(f"{path} is damaged: {ANEW}")
        out, at = [], DIGEST
        for c in range(family.components):
            out.append(np.frombuffer(raw, np.uint8, units * family.unit_bytes(c), at))
            at += out[-1].nbytes
        return out

    def _used(self, family: Family, units: int) -> list[Bytes]:
        parts: list[list[Bytes]] = [[] for _ in range(family.components)]
        held = self._held.get(family, [])
        while units and held:
            n = min(units, held[0][0].nbytes // family.unit_bytes(0))
            cut = [n * family.unit_bytes(c) for c in range(family.components)]
            for part, words, size in zip(parts, held[0], cut):
                part.append(words[:size])
            held[0] = [words[size:] for words, size in zip(held[0], cut)]
            if not held[0][0].nbytes:
                held.pop(0)
            units -= n
        return [np.concatenate(part) if part else np.empty(0, np.uint8) for part in parts]

    def settle(self, ledger: Ledger) -> None:
        """Write down where both parties stand."""
        mark = self.folder / f"{MARK}{secrets.token_hex(8)}"
        try:
            mark.touch(0o600)
            body = {"next": ledger.next, "before": ledger.before, "mark": [mark.name, *(_place(mark) or ())]}
            _written(self.folder / LEDGER, json.dumps(body).encode())
            for old in self.folder.glob(f"{MARK}*"):
                if old != mark:
                    old.unlink()
        except OSError as error:
            raise _cannot(self.folder, error) from None
        self.ledger = ledger

    def drop(self, end: Mapping[str, int]) -> None:
        """Destroy what one party alone has: chunks before `ledger.next`, and from `end` on."""
        for name, number, path in _chunks(self.folder):
            if not self.ledger.next.get(name, 0) <= number < end.get(name, 0):
                _destroyed(path)
        _flushed(self.folder)
        self._end = {name: max(n, self.ledger.next.get(name, 0)) for name, n in end.items()}


LEDGER, MADE, LOCK, MARK = "ledger", "made", "lock", "mark-"
ANEW = "remove the folder, at both parties, and make randomness anew."


def opened(folder: Path | None, names: Names, first: bool, swap: Swap) -> Store:
    """A party's folder (None: one that goes with the process), after both have said where they stand.

    Args:
        names: this party's and the other's.
        first: whether this party is the first of the two.

    Raises:
        InputError: the folder is another party's, damaged, a copy, in use, or cannot be written.
        PeerMismatchError: the other's does not belong to it, or one of the two was restored.
    """
    temporary = Scratch() if folder is None else None
    path = temporary.path / "made" if temporary is not None else folder
    assert path is not None
    lock = _locked(path)
    lock.temporary = temporary
    try:
        return _in_step(path, lock, names, first, swap)
    except BaseException:
        lock.close()
        raise


def _in_step(path: Path, lock: _Lock, names: Names, first: bool, swap: Swap) -> Store:
    identity = _identity(path, names)
    ledger = _ledger(path) if identity else Ledger()
    ends = _ends(path, ledger)
    stands = {"next": ledger.next, "before": ledger.before, "end": ends}
    mine: dict[str, Any] = {"id": identity, "drawn": secrets.token_hex(16), **stands}
    theirs = _said(json.dumps(mine).encode(), names[1], swap)
    _compared(mine, theirs, names)
    if not identity or identity != theirs["id"]:
        drawn = [mine["drawn"], theirs["drawn"]] if first else [theirs["drawn"], mine["drawn"]]
        identity = hashlib.sha256("".join(map(str, drawn)).encode()).hexdigest()
        _written(path / MADE, json.dumps({"format": FORMAT, "parties": names, "id": identity}).encode())
    store = Store(path, lock, identity, ledger, ends)
    agreed = _latest(mine["next"], theirs["next"])
    store.settle(ledger if agreed == ledger.next else Ledger(agreed, ledger.next))
    store.drop({name: min(n, theirs["end"].get(name, 0)) for name, n in ends.items()})
    return store


def family_name(family: Family) -> str:
    """As files are called: mul-64, trunc-64-18, dot-64-1-3-4-5."""
    return "-".join([family.kind.name.lower(), *map(str, (family.width, *family.parameters))])


def chunk_units(family: Family, wanted: int) -> int:
    """Units of a chunk for runs that want so many each: whole cache lines."""
    most = max(1, CHUNK_BYTES // sum(map(family.unit_bytes, range(family.components))))
    if family.kind is Kind.DOT:
        return min(most, wanted)
    return min(most // 64, -(-wanted // 64)) * 64


def _latest(*ledgers: Mapping[str, int]) -> dict[str, int]:
    return {name: max(x.get(name, 0) for x in ledgers) for name in sorted(set().union(*ledgers))}


def _compared(mine: dict[str, Any], theirs: dict[str, Any], names: Names) -> None:
    """PeerMismatchError if the two do not belong together. A folder in which nothing was made is begun again."""
    if mine["id"] != theirs["id"] and any(x["next"] or x["end"] for x in (mine, theirs)):
        if mine["id"] and theirs["id"]:
            raise PeerMismatchError(f"the stored randomness of {' and '.join(names)} was not made together: {ANEW}")
        none, some = names[:: 1 if theirs["id"] else -1]
        raise PeerMismatchError(f"{some} has stored randomness, {none} none that belongs to it: {ANEW}")
    agreed = _latest(mine["next"], theirs["next"])
    for one, other in ((mine, theirs), (theirs, mine)):
        ahead = _latest(one["next"]) == agreed
        if ahead and other["next"] in (one["next"], one["before"]):
            return  # the same, or the other was ended while both took their next chunks
    behind = [
        name
        for name, x in zip(names, (mine, theirs))
        if any(x["next"].get(family, 0) < n for family, n in agreed.items())
    ]
    raise PeerMismatchError(
        f"the stored randomness of {' and '.join(behind)} was used up further than its folder says: a backup or a copy "
        f"was put back. Nothing of it was used again: {ANEW}"
    )


def _said(body: bytes, peer: str, swap: Swap) -> dict[str, Any]:
    size = int.from_bytes(swap(len(body).to_bytes(8, "little"), 8), "little")
    wrong = PeerMismatchError(f"{peer} says of its stored randomness what cannot be: it runs another version.")
    if size > LONGEST:
        raise wrong
    try:
        said = json.loads(swap(body, size))
    except (ValueError, RecursionError):
        raise wrong from None
    found = said if isinstance(said, dict) else {}
    counts, identity = map(found.get, ("next", "before", "end")), found.get("id")
    named = _is_hex(found.get("drawn"), 32) and (identity == "" or _is_hex(identity, 64))
    if not named or not all(map(_is_numbers, counts)):
        raise wrong
    return found


def _is_numbers(x: Any) -> bool:
    return isinstance(x, dict) and all(type(n) is int and 0 <= n < 1 << 60 for n in x.values())


def _is_hex(x: Any, digits: int) -> bool:
    return isinstance(x, str) and len(x) == digits and set(x) <= set("0123456789abcdef")


# Files ------------------------------------------------------------------------------------------------------------


class _Lock:
    """Of a folder, while this object lives; the folder may be one that goes with it."""

    def __init__(self, path: Path) -> None:
        self.temporary: Scratch | None = None
        descriptor = os.open(path / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        self._release = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise InputError(f"the stored randomness in {path} is in use by another session: one at a time.") from None

    def close(self) -> None:
        self._release()
        if self.temporary is not None:
            self.temporary.close()


def _locked(path: Path) -> _Lock:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _Lock(path)
        for left in path.glob(".*.tmp"):  # of a process that was killed while it wrote
            _destroyed(left)
        return lock
    except OSError as error:
        raise _cannot(path, error) from None


def _cannot(path: Path, error: OSError) -> InputError:
    return InputError(f"randomness cannot be stored in {path}: {error.strerror or error}.")


def _identity(path: Path, names: Names) -> str:
    """What both parties drew when the folder was begun; nothing if it was not."""
    if not (path / MADE).exists():
        return "" if not _chunks(path) and not (path / LEDGER).exists() else _damaged(path / MADE)
    made = _loaded(path / MADE)
    if made.get("format") != FORMAT:
        raise InputError(f"{path} holds randomness of another version of spuvm: {ANEW}")
    parties, identity = made.get("parties"), made.get("id")
    if not isinstance(parties, list) or len(parties) != 2 or not _is_hex(identity, 64):
        _damaged(path / MADE)
    if parties != list(names):
        raise InputError(
            f"{path} holds randomness of {parties[0]} with {parties[1]}, and this is {names[0]} with {names[1]}: name "
            "another folder."
        )
    return str(identity)


def _place(file: Path) -> list[int] | None:
    """What tells a file from its copies: its number on the disk, and when that was last written to."""
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_ino, found.st_ctime_ns]


def _ledger(path: Path) -> Ledger:
    if not (path / LEDGER).exists():
        return Ledger() if not _chunks(path) else _damaged(path / LEDGER)
    found = _loaded(path / LEDGER)
    counts, mark = [found.get("next"), found.get("before")], found.get("mark")
    if not all(map(_is_numbers, counts)) or not isinstance(mark, list) or not mark:
        _damaged(path / LEDGER)
    name, *place = mark
    if not str(name).startswith(MARK) or place != _place(path / str(name)):
        raise InputError(
            f"the stored randomness in {path} was copied, or put back from a backup: what it holds may have been used. "
            f"Remove{ANEW.removeprefix('remove')}"
        )
    return Ledger(*counts)  # type: ignore[arg-type]  # dictionaries, as was just seen


def _damaged(file: Path) -> NoReturn:
    raise InputError(f"{file} is missing or damaged: {ANEW}")


def _loaded(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else _damaged(file)


def _chunks(path: Path) -> list[tuple[str, int, Path]]:
    """Family, number and file of each chunk there."""
    found = [(p.stem, p.suffix[1:], p) for p in path.iterdir()]
    return [(name, int(number), p) for name, number, p in found if number.isdecimal()]


def _ends(path: Path, ledger: Ledger) -> dict[str, int]:
    """The number after the last chunk of each family; what is missing among them is found when it is read."""
    ends: dict[str, int] = dict(ledger.next)
    for name, number, _ in _chunks(path):
        ends[name] = max(ends.get(name, 0), number + 1)
    return ends


def _written(path: Path, body: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(body)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
        _flushed(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _cannot(path.parent, error) from None


def _destroyed(path: Path) -> None:
    """Overwritten, and removed. InputError if that cannot be."""
    try:
        with suppress(FileNotFoundError), path.open("r+b") as out:
            out.write(bytes(path.stat().st_size))
            out.flush()
            os.fsync(out.fileno())
            path.unlink()
    except OSError as error:
        raise InputError(f"{path} cannot be destroyed before it is used: {error.strerror or error}.") from None


def _flushed(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
