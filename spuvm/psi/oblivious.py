"""Oblivious mode: one owner looks up its keys in another's hashed table, and nobody learns what it found.

Security: semi-honest, honest majority of three: the two owners and any third party. Parties learn sizes alone.

    1. Each owner commits itself to its keys; then the seed of the hash functions is drawn by all together.
    2. The other owner places its keys by cuckoo hashing (`cuckoo.py`): a table of fingerprints and columns.
    3. The base owner knows the three places where each of its keys could be. An oblivious selection (`selection.py`)
       fetches all three, as shares.
    4. The machine compares three fingerprints with the owner's: at most one is equal. What that place has is the
       result, else zeros: sum_h [e_h] [x_h].

Fingerprints have 64 bits: one is equal by chance with probability 3 n / 2^64, below 2^-40 up to 2.8 million rows; of
larger tables they have 128. P. Mohassel, P. Rindal, M. Rosulek: Fast database joins and PSI for secret shared data,
CCS 2020; as owners know their own keys, no pseudorandom function is computed on shares.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.objects import Marked, SPUObject
from spuvm.psi.cuckoo import FUNCTIONS, placed, places_for, places_of
from spuvm.psi.places import Held
from spuvm.psi.plan import Plan
from spuvm.psi.selection import Asked, Roles, select
from spuvm.psi.sharing import machine_function, secrets_of, unpacked, words_dtype
from spuvm.psi.tables import Table, Words
from spuvm.psi.tags import PUBLIC_KEY, tags

LARGE = int(2**24 / FUNCTIONS / 2)  # rows from which fingerprints have 128 bits


@dataclass(eq=False)
class Oblivious:
    """One join in oblivious mode."""

    plan: Plan
    _seeds: tuple[bytes, bytes, bytes] | None = None
    _hashes: dict[str, Held] = field(default_factory=dict)
    _orders: dict[str, Held] = field(default_factory=dict)

    def order(self, party: str) -> Held:
        """At the party: its rows as they are; at random if somebody sees the result, and so nothing of their order."""
        if party not in self._orders:
            how = np.arange if self.plan.output == "shared" else _shuffled
            self._orders[party] = self.plan.places.run(party, how, self.plan.rows(party))
        return self._orders[party]

    def matched(self, base: str, other: str) -> SPUObject:
        """bool[rows of base]: whether `other` has its key. Secret."""
        words = self.plan.places.run(other, _nothing, self.plan.rows(other), words_dtype(self.plan.vm))
        return self.probe(base, other, words, 0, 1)[1][0]

    def probe(
        self, base: str, other: str, words: Held, numbers: int, bits: int
    ) -> tuple[list[SPUObject], list[SPUObject]]:
        """The columns of `other` beside the rows of `base`: zeros where there is no match."""
        plan, run = self.plan, self.plan.places.run
        dtype = words_dtype(plan.vm)
        rows, size = plan.rows(base), places_for(plan.rows(other))
        limbs = (2 if max(rows, plan.rows(other)) > LARGE else 1) * 8 // np.dtype(dtype).itemsize
        table = run(other, _table, plan.tables[other], self._hashed(other), words, size, limbs, dtype)
        looking = run(base, lambda h, o: h[:, o], self._hashed(base), self.order(base))
        pointers = run(base, lambda h: places_of(h[:FUNCTIONS], size).reshape(-1), looking)
        third = next(p for p in plan.places.parties if p not in (base, other) and p in plan.vm.config.members)
        raw: list[SPUObject] = []
        flags: list[SPUObject] = []
        for kind, count, out in ((0, limbs + numbers, raw), (1, bits, flags)):
            columns = -(-count // 8) if kind else count
            asked = Asked(columns, size, FUNCTIONS * rows)
            matrix = run(other, lambda t, k=kind: t[k], table)
            shares = select(
                plan.places, matrix, pointers, asked, Roles(base, other, third), np.uint8 if kind else dtype
            )
            if kind:
                shares = {p: run(p, lambda x: np.stack(unpacked(x, bits)), s) for p, s in shares.items()}
            out += secrets_of(plan.vm, shares, (count, FUNCTIONS * rows), bool(kind))
        mine = run(base, lambda h: _fingerprints(h, limbs, dtype), looking)
        return self._found(base, mine, raw[:limbs], raw[limbs:], flags)

    def _found(
        self,
        base: str,
        mine: Held,
        fingerprints: list[SPUObject],
        numbers: list[SPUObject],
        bits: list[SPUObject],
    ) -> tuple[list[SPUObject], list[SPUObject]]:
        """Step 4."""
        shape = (len(fingerprints), self.plan.rows(base))
        with jax.enable_x64(True):
            dtype = fingerprints[0].dtype
            known = jax.ShapeDtypeStruct(shape, dtype) if mine.value is None else mine.value.view(dtype)
            function = machine_function(self.plan.vm, _looked_up)
            found, flags = function(Marked(known, base), fingerprints, numbers, bits)
        return list(found), list(flags)

    def _hashed(self, party: str) -> Held:
        """At the party, uint64[5, rows]: three words that say where a key may be, and two of its fingerprint."""
        if self._seeds is None:
            self._seeds = drawn_seeds(self.plan)
        if party not in self._hashes:
            self._hashes[party] = self.plan.places.run(party, _hashed, self.plan.tables[party], self._seeds)
        return self._hashes[party]


def _shuffled(rows: int) -> np.ndarray:
    return np.random.default_rng(secrets.randbits(128)).permutation(rows)


def drawn_seeds(plan: Plan) -> tuple[bytes, bytes, bytes]:
    """Three seeds that all know, drawn after the owners committed themselves to their keys.

    So nobody chooses keys by where they fall.
    """
    places = plan.places
    said = []
    for party in plan.owners:
        commitment = places.run(party, _commitment, plan.tables[party])
        said.append(places.tell(party, commitment, str))
    said += [places.tell(p, places.run(p, secrets.token_hex, 16), str) for p in plan.owners]
    seed = hashlib.sha512("\0".join(["spuvm join seeds", *said]).encode()).digest()
    return seed[:16], seed[16:32], seed[32:48]


def _commitment(table: Table) -> str:
    nonce = secrets.token_bytes(32)
    return hashlib.sha256(nonce + tags(table.keys, PUBLIC_KEY).tobytes()).hexdigest()


def _hashed(table: Table, seeds: tuple[bytes, bytes, bytes]) -> np.ndarray:
    out = np.concatenate([tags(table.keys, seed) for seed in seeds], axis=1).T
    return np.ascontiguousarray(out[:5])


def _fingerprints(hashed: np.ndarray, limbs: int, dtype: Any) -> np.ndarray:
    """[limbs, rows] of the ring's words: the fingerprint, cut into them."""
    words = np.ascontiguousarray(hashed[FUNCTIONS:].T).view(dtype)
    return np.ascontiguousarray(words[:, :limbs].T)


def _table(
    table: Table, hashed: np.ndarray, words: Words, size: int, limbs: int, dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The hashed table: fingerprints and numbers [limbs + numbers, size], and bits [bytes, size].

    Places that are free have a random fingerprint, and no bit set. Rows without a key are left out.
    """
    rows = np.flatnonzero(table.keys.present)
    at = placed(places_of(hashed[:FUNCTIONS, rows], size), size)
    raw = secrets.token_bytes(limbs * size * np.dtype(dtype).itemsize)
    numbers = np.zeros((limbs + len(words.numbers), size), dtype)
    numbers[:limbs] = np.frombuffer(raw, dtype).reshape(limbs, size)
    numbers[:limbs, at] = _fingerprints(hashed, limbs, dtype)[:, rows]
    numbers[limbs:, at] = words.numbers[:, rows]
    bits = np.zeros((len(words.bits), size), np.uint8)
    bits[:, at] = words.bits[:, rows]
    return numbers, bits


def _nothing(rows: int, dtype: Any) -> Words:
    """No column but the bit that is set in every row."""
    return Words(np.empty((0, rows), dtype), np.ones((1, rows), np.uint8), {})


def _looked_up(mine: Any, theirs: list[Any], numbers: list[Any], bits: list[Any]) -> Any:
    """mine [limbs, rows]; theirs, numbers and bits lists of [3 rows]: the three candidates of each row."""
    rows = mine.shape[1]
    equal = True
    for own, other in zip(mine, theirs):
        equal = (other.reshape(FUNCTIONS, rows) == own) & equal
    flags = [_either(equal & x.reshape(FUNCTIONS, rows)) for x in bits]
    factor = jnp.asarray(equal).astype(mine.dtype)
    found = [jnp.sum(factor * x.reshape(FUNCTIONS, rows), axis=0, dtype=mine.dtype) for x in numbers]
    return found, flags


def _either(x: Any) -> Any:
    return x[0] ^ x[1] ^ x[2]
