"""Two parties and nobody else: one learns which of its keys the other has, by an oblivious pseudorandom function.

Security: semi-honest, under the one-more gap Diffie-Hellman assumption, hashes modelled as random; a receiver that
deviates learns no more than matches with as many keys as it announced before. The sender learns the receiver's number
of keys, the receiver the sender's. Every point is checked to be one of the group.

    F_b(x) = H'(x, H(x)^b)                                       (2HashDH)

    1. The receiver draws a, and sends H(x)^a of its keys in a random order.
    2. The sender draws b, and sends back each to the power b, and F_b of its own keys, sorted.
    3. The receiver takes the power 1/a and compares F_b(x) with these.

S. Jarecki, A. Kiayias, H. Krawczyk: Round-optimal password-protected secret sharing and T-PAKE in the password-only
model, ASIACRYPT 2014; S. Jarecki, X. Liu: Fast secure computation of set intersection, SCN 2010. What the sender says
of its own keys does not depend on the receiver: with `kept`, it is computed and sent once, and small queries follow.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.psi.curve import BYTES, inverse, messages, outputs, points, random_scalar, times
from spuvm.psi.helper import find
from spuvm.psi.keys import Keys
from spuvm.psi.places import Held, Move
from spuvm.psi.plan import Plan
from spuvm.psi.tables import Table, kept
from spuvm.psi.tags import order, random_tags
from spuvm.runtime.errors import ConfigError
from spuvm.streaming.sealed import read_arrays, write_arrays

SECRET = "spuvm-psi-secret"
KNOWN = "spuvm-psi-known"


@dataclass(frozen=True, eq=False)
class _Blinded:
    """The receiver's keys on their way: the factor, the order they are sent in, and the points."""

    factor: bytes
    order: np.ndarray
    points: np.ndarray


def matches_by_curve(plan: Plan, to: str) -> Held:
    """At `to`, one of two owners: bool[rows], whether the other owner has the row's key."""
    if len(plan.owners) != 2:
        raise ConfigError(f"mode 'ecdh' is for two owners, got {len(plan.owners)}: use mode='helper' or 'oblivious'.")
    (other,) = [p for p in plan.owners if p != to]
    places, count = plan.places, plan.rows(to)
    blinded = places.run(to, _blind, plan.tables[to])
    mine = places.run(to, lambda b: b.points, blinded)
    secret = places.run(other, _secret, plan.tables[other], plan.kept.get(other))
    (asked,) = places.move(Move(mine, to, other, (count, BYTES), np.uint8))
    answered = places.run(other, lambda s, p: times(s[0], p), secret, asked)
    known = places.tell(to, places.run(to, _knows, plan.kept.get(to)), str)
    fresh = places.tell(other, places.run(other, lambda s, k: s[1] != k, secret, known), bool)
    moves = [Move(answered, other, to, (count, BYTES), np.uint8)]
    if fresh:
        own = places.run(other, _own, secret, plan.tables[other], plan.kept.get(other))
        moves.append(Move(own, other, to, (plan.rows(other), 2), np.uint64))
    name = places.tell(other, places.run(other, lambda s: s[1], secret), str)
    got = places.move(*moves)
    theirs = got[1] if fresh else places.run(to, _remembered, plan.kept.get(to))
    if fresh:
        places.run(to, _remember, theirs, name, plan.kept.get(to))
    return places.run(to, _compared, plan.tables[to], blinded, got[0], theirs)


def _blind(table: Table) -> _Blinded:
    factor, by = random_scalar(), np.random.default_rng(secrets.randbits(128)).permutation(table.rows)
    return _Blinded(factor, by, times(factor, points(kept(table.keys, by))))


def _compared(table: Table, blinded: _Blinded, answered: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    keys: Keys = kept(table.keys, blinded.order)
    mine = outputs(keys, times(inverse(blinded.factor), answered))
    by = order(mine)
    found = find(mine[by], theirs) >= 0
    out = np.zeros(table.rows, bool)
    out[blinded.order[by]] = found & keys.present[by]
    return out


# The sender's own keys ----------------------------------------------------------------------------------------


def _secret(table: Table, folder: Any) -> tuple[bytes, str]:
    """The sender's factor, and a name for it and the keys; kept in a folder with them, for these keys alone."""
    if folder is None:
        return random_scalar(), secrets.token_hex(16)
    path, digest = Path(folder) / f"{SECRET}.npz", _digest(table)
    if path.exists():
        stored = read_arrays(path)
        if str(stored["digest"]) == digest:
            return stored["factor"].tobytes(), str(stored["name"])
    factor, name = random_scalar(), secrets.token_hex(16)
    own = _evaluated(table, factor)
    _save(path, factor=np.frombuffer(factor, np.uint8), name=name, digest=digest, own=own)
    return factor, name


def _own(secret: tuple[bytes, str], table: Table, folder: Any) -> np.ndarray:
    if folder is not None:
        return read_arrays(Path(folder) / f"{SECRET}.npz")["own"]
    return _evaluated(table, secret[0])


def _evaluated(table: Table, factor: bytes) -> np.ndarray:
    """F_b of the keys, sorted; of rows without a key random numbers."""
    found: np.ndarray = np.array(outputs(table.keys, times(factor, points(table.keys))))
    missing = np.flatnonzero(~table.keys.present)
    found[missing] = random_tags(len(missing))
    ordered: np.ndarray = found[order(found)]
    return ordered


def _digest(table: Table) -> str:
    found = hashlib.sha256()
    for message in messages(table.keys):
        found.update(hashlib.sha256(message).digest())
    found.update(np.packbits(table.keys.present).tobytes())
    return found.hexdigest()


# What the receiver remembers of them --------------------------------------------------------------------------


def _knows(folder: Any) -> str:
    path = Path(folder) / f"{KNOWN}.npz" if folder is not None else None
    if path is None or not path.exists():
        return ""
    return str(read_arrays(path)["name"])


def _remember(theirs: np.ndarray, name: str, folder: Any) -> None:
    if folder is not None:
        _save(Path(folder) / f"{KNOWN}.npz", name=name, own=theirs)


def _remembered(folder: Any) -> np.ndarray:
    return read_arrays(Path(folder) / f"{KNOWN}.npz")["own"]


def _save(path: Path, **arrays: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_arrays(path, **arrays)
