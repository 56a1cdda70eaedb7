"""A party's record: what ran, who allowed it, what was revealed. Hash-chained and signed; no secret value is in it.

Each line is a JSON object with its number, its time, an event, the hash of the line before, its own hash (SHA-256 over
all of that), and the party's ECDSA signature of the hash. A line that is changed, left out or moved breaks the chain;
a record that was cut or restored from a backup is behind the head that its peers remember (`Heads`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from spuvm.runtime.errors import DataError

START = "0" * 64


@dataclass(frozen=True)
class Entry:
    number: int
    time: str
    event: str
    body: Mapping[str, Any]
    previous: str
    hash: str
    signature: str
    party: str = ""


class Record:
    """The record of one party in a file; `append` is on disk when it returns, or nothing is.

    `noted` is called with number and head of each new entry, to keep them elsewhere: it is no entry if that fails.
    """

    def __init__(
        self,
        path: Path,
        party: str,
        key: ec.EllipticCurvePrivateKey,
        noted: Callable[[int, str], None] = lambda number, head: None,
    ) -> None:
        self.path, self.party, self._key, self._noted = Path(path), party, key, noted
        _drop_torn(self.path)
        last = None
        for last in verified(self.path, key.public_key()):  # noqa: B007
            pass
        self.number, self.head = (last.number, last.hash) if last else (0, START)

    def append(self, event: str, **body: Any) -> Entry:
        fields = {
            "number": self.number + 1,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "party": self.party,
            "event": event,
            "body": body,
            "previous": self.head,
        }
        digest = _digest(fields)
        signature = self._key.sign(bytes.fromhex(digest), ec.ECDSA(SHA256())).hex()
        line = json.dumps({**fields, "hash": digest, "signature": signature}, sort_keys=True)
        with _added(self.path, line.encode() + b"\n"):
            self._noted(self.number + 1, digest)
        self.number, self.head = self.number + 1, digest
        return Entry(self.number, str(fields["time"]), event, body, str(fields["previous"]), digest, signature)


@contextmanager
def _added(path: Path, line: bytes) -> Iterator[None]:
    """A line at the end of a file; taken away again if it cannot be written whole (a full disk), or the block fails."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        end = os.fstat(handle).st_size
        try:
            while line:
                line = line[os.write(handle, line) :]
            os.fsync(handle)
            yield
        except BaseException:
            os.ftruncate(handle, end)
            raise
    finally:
        os.close(handle)


def _drop_torn(path: Path) -> None:
    """Take away a last line that has no end: its writer was killed, and nobody was told of it."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        body = file.read()
        end = body.rfind(b"\n") + 1
        if end < len(body):
            file.truncate(end)
            file.flush()
            os.fsync(file.fileno())


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def verified(path: Path, key: ec.EllipticCurvePublicKey) -> Iterator[Entry]:
    """The entries of a record, each checked. Raises DataError at the first line that is not what was written."""
    if not Path(path).exists():
        return
    previous, number = START, 0
    with open(path, "rb") as file:
        for line in file:
            number += 1
            where = f"{path}, line {number}"
            try:
                fields = json.loads(line)
                digest, signature = fields.pop("hash"), bytes.fromhex(fields.pop("signature"))
                if not line.endswith(b"\n"):
                    raise ValueError("it is cut off")
                if fields["number"] != number or fields["previous"] != previous:
                    raise ValueError("a line before it was changed, moved or taken out")
                if _digest(fields) != digest:
                    raise ValueError("it was changed")
                key.verify(signature, bytes.fromhex(digest), ec.ECDSA(SHA256()))
                time, event, body = (fields[name] for name in ("time", "event", "body"))
            except InvalidSignature:
                raise DataError(f"{where}: it is not signed by this party.") from None
            except KeyError as error:
                raise DataError(f"{where}: it lacks {error}.") from None
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                why = error if type(error) is ValueError else "it is no entry of a record"
                raise DataError(f"{where}: {why}.") from None
            yield Entry(number, time, event, body, previous, digest, "", str(fields.get("party")))
            previous = digest


def disagreements(records: Mapping[str, Sequence[Entry]]) -> list[str]:
    """What the records of several parties say differently about the same job: its program, its reveals, its parties,
    and, where nothing was interrupted, how much one sent another."""
    told: dict[str, dict[str, Any]] = {}
    for party, entries in records.items():
        for entry in entries:
            if entry.event == "started":
                told.setdefault(str(entry.body["job"]), {})[party] = {
                    name: entry.body.get(name) for name in ("program", "parties", "reveals")
                }
    found = []
    for job, by_party in told.items():
        first, *rest = by_party.items()
        for party, what in rest:
            found += [f"job {job}: {first[0]} and {party} have another `{k}`" for k in what if what[k] != first[1][k]]
        parties = {p for what in by_party.values() for p in what["parties"] or ()} & records.keys()
        found += [f"job {job}: {party} has no record of it" for party in sorted(parties - by_party.keys())]
    return found + _lost_on_the_way(records)


def _lost_on_the_way(records: Mapping[str, Sequence[Entry]]) -> list[str]:
    """Jobs of which one party says that it sent a peer another number of bytes than this one says that it got."""
    told: dict[tuple[str, str], Mapping[str, Any]] = {}
    for party, entries in records.items():
        interrupted = {e.body["job"] for e in entries if e.event == "interrupted"}
        for e in entries:
            counted = e.body.get("counted") if e.event == "ended" and e.body.get("state") == "done" else None
            if counted and "sent" in counted and e.body["job"] not in interrupted:
                told[str(e.body["job"]), party] = counted
    return [
        f"job {job}: {party} sent {peer} {sent:,} bytes, and {peer} got {got:,}"
        for (job, party), counted in told.items()
        for peer in sorted(records.keys() - {party})
        if (job, peer) in told
        and (sent := counted["sent"].get(peer, 0)) != (got := told[job, peer]["received"].get(party, 0))
    ]


class Heads:
    """How far peers' records have come, as they told: one that is behind what it told before was rolled back."""

    def __init__(self, heads: Mapping[str, tuple[int, str]]) -> None:
        self.heads = dict(heads)

    def hear(self, party: str, number: int, head: str) -> str | None:
        """Remember a head; what is wrong with it, if it goes back."""
        before = self.heads.get(party)
        if before is not None and (number < before[0] or (number == before[0] and head != before[1])):
            return f"the record of {party} has gone back from entry {before[0]} to {number}: it was cut or restored"
        self.heads[party] = (number, head)
        return None
