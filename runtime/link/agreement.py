"""What parties agree on before anything moves: claims, each a topic and the SHA-256 of a value.

A proposal goes to each of those that it is `among` as one frame: for every claim 32 bytes of SHA-256, one byte that
counts its topic's, and the topic. Equal proposals are equal bytes. A value that is such a digest already (`HASHED`:
what commands print, and people compare) stands for itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spuvm.runtime.legible import legible

DIGEST_BYTES = 32
HASHED = ("program", "flow")  # topics whose values are SHA-256 in hexadecimal
HEXADECIMAL = re.compile(rb"[0-9a-f]{64}")
SHOWN = 16  # digits of one, as many as `--expect-hash` takes
AHEAD = 64  # proposals that a party makes before it hears what the others say of the first of them


@dataclass(frozen=True)
class Proposal:
    """`body` is what this party said, `note` what it was about to do: for its own error message."""

    body: bytes
    among: tuple[int, ...]
    note: str = ""

    @property
    def topics(self) -> str:
        return ", ".join(f"`{topic}`" for topic in claims(self.body))


def encoded(values: Mapping[str, bytes]) -> bytes:
    """The frame of these claims, by topic."""
    pieces = []
    for topic, value in values.items():
        name = topic.encode()[:255]
        pieces += [_digest(topic, value), bytes([len(name)]), name]
    return b"".join(pieces)


def _digest(topic: str, value: bytes) -> bytes:
    if topic in HASHED and HEXADECIMAL.fullmatch(value):
        return bytes.fromhex(value.decode())
    return hashlib.sha256(value).digest()


def claims(body: bytes) -> dict[str, bytes]:
    """The digests of a frame by topic; what is malformed has the topic it seems to have."""
    out, at = {}, 0
    while at < len(body):
        digest, count = body[at : at + DIGEST_BYTES], int.from_bytes(body[at + DIGEST_BYTES :][:1], "big")
        at += DIGEST_BYTES + 1
        out[legible(body[at : at + count].decode(errors="replace"))] = digest
        at += count
    return out


def disagreement(said: Mapping[int, bytes], parties: Sequence[str], note: str) -> str:
    """Who differs in what, of proposals that are not all equal; the first topic that is not."""
    by_rank = {rank: claims(body) for rank, body in sorted(said.items())}
    topics = [tuple(c) for c in by_rank.values()]
    if len(set(topics)) > 1:  # the parties are not at the same place of their scripts
        what = " / ".join(f"`{', '.join(t)}`" for t in dict.fromkeys(topics))
        views = {rank: "\0".join(c).encode() for rank, c in by_rank.items()}
        return f"{_who(views, parties)} in what comes next, {what}: {_cure(note)}"
    topic = next(t for t in topics[0] if len({c[t] for c in by_rank.values()}) > 1)
    views = {rank: c[topic] for rank, c in by_rank.items()}
    hashes = ", ".join(f"{name}: {digest.hex()[:SHOWN]}" for name, digest in _groups(views, parties))
    shown = f" (hashes begin {hashes})" if topic in HASHED else ""
    return f"{_who(views, parties)} in `{topic}`{shown}: {_cure(note)}"


def _cure(note: str) -> str:
    return "give every party the same and start again." + (f" Here it was {note}." if note else "")


def _groups(views: Mapping[int, bytes], parties: Sequence[str]) -> list[tuple[str, bytes]]:
    """Those that say the same, the fewest first."""
    groups: dict[bytes, list[str]] = {}
    for rank, view in views.items():
        groups.setdefault(view, []).append(parties[rank])
    return [(" and ".join(names), view) for view, names in sorted(groups.items(), key=lambda g: len(g[1]))]


def _who(views: Mapping[int, bytes], parties: Sequence[str]) -> str:
    names = [name for name, _ in _groups(views, parties)]
    sizes = [name.count(" and ") for name in names]
    if sizes[-1] > sizes[-2]:
        return f"{', '.join(names[:-1])} differs from {names[-1]}"
    return f"{', '.join(names[:-1])} and {names[-1]} differ"
