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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.objects import Marked, SPUObject
from spuvm.psi.cuckoo import FUNCTIONS, placed, places_for, places_of
from spuvm.psi.keys import Keys
from spuvm.psi.places import Held, Places
from spuvm.psi.plan import Plan
from spuvm.psi.selection import Asked, Roles, Shares, select
from spuvm.psi.sharing import machine_function, secrets_of, typed, unpacked, words_dtype
from spuvm.psi.tables import Field, Table, Words
from spuvm.psi.tags import PUBLIC_KEY, tags
from spuvm.runtime.ring.elements import words as elements

LARGE = int(2**24 / FUNCTIONS / 2)  # rows from which fingerprints have 128 bits
WHOLE = Field("", "", "float64")  # a number that takes all bits of the ring


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
        third = next(p for p in plan.places.parties if p not in (base, other) and p in plan.vm.config.members)
        looked = Looked(Roles(base, other, third), plan.rows(base), plan.rows(other), numbers, bits, dtype)
        table = run(other, looked.table, run(other, _keys, plan.tables[other]), self._hashed(other), words)
        looking = run(base, lambda h, o: h[:, o], self._hashed(base), self.order(base))
        words_of, bits_of = candidates(plan.places, looked, looking, table)
        raw = secrets_of(plan.vm, words_of, (looked.limbs + numbers, FUNCTIONS * looked.rows), False)
        flags = secrets_of(plan.vm, bits_of, (bits, FUNCTIONS * looked.rows), True)
        mine = run(base, looked.fingerprints, looking)
        return self._found(base, mine, raw[: looked.limbs], raw[looked.limbs :], flags)

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
            if self.plan.vm.config.ring_bits == 128:  # as integers they would be cut to 64 bits
                numbers = [typed(x, WHOLE) for x in numbers]
            function = machine_function(self.plan.vm, looked_up)
            found, flags = function(Marked(known, base), fingerprints, numbers, bits)
        return list(found), list(flags)

    def _hashed(self, party: str) -> Held:
        """At the party, uint64[5, rows]: three words that say where a key may be, and two of its fingerprint."""
        if self._seeds is None:
            plan = self.plan
            committed = {p: [plan.places.run(p, _keys, plan.tables[p])] for p in plan.owners}
            self._seeds = drawn_seeds(plan.places, committed)
        if party not in self._hashes:
            keys = self.plan.places.run(party, _keys, self.plan.tables[party])
            self._hashes[party] = self.plan.places.run(party, hashed, keys, self._seeds)
        return self._hashes[party]


def _shuffled(rows: int) -> np.ndarray:
    return np.random.default_rng(secrets.randbits(128)).permutation(rows)


def _keys(table: Table) -> Keys:
    return table.keys


def drawn_seeds(places: Places, keys: Mapping[str, Sequence[Held]]) -> tuple[bytes, bytes, bytes]:
    """Three seeds that all know, drawn after the owners committed themselves to their keys, by owner.

    So nobody chooses keys by where they fall.
    """
    said = []
    for party, mine in keys.items():
        said.append(places.tell(party, places.run(party, _commitment, *mine), str))
    said += [places.tell(p, places.run(p, secrets.token_hex, 16), str) for p in keys]
    seed = hashlib.sha512("\0".join(["spuvm join seeds", *said]).encode()).digest()
    return seed[:16], seed[16:32], seed[32:48]


def _commitment(*keys: Keys) -> str:
    digest = hashlib.sha256(secrets.token_bytes(32))
    for k in keys:
        digest.update(tags(k, PUBLIC_KEY).tobytes())
    return digest.hexdigest()


def hashed(keys: Keys, seeds: tuple[bytes, bytes, bytes]) -> np.ndarray:
    """uint64[5, rows]: three words that say where a key may be, and two of its fingerprint."""
    out = np.concatenate([tags(keys, seed) for seed in seeds], axis=1).T
    return np.ascontiguousarray(out[:5])


@dataclass(frozen=True)
class Looked:
    """One look-up of a programmer's keys among a sender's: public sizes.

    Attributes:
        rows, among: of the programmer's table, and of the sender's.
        numbers, bits: how many of each the sender's rows have.
        dtype: of words: that of the ring's elements.
    """

    roles: Roles
    rows: int
    among: int
    numbers: int
    bits: int
    dtype: Any

    @property
    def limbs(self) -> int:
        """Words of a fingerprint."""
        words = 2 if max(self.rows, self.among) > LARGE else 1
        return words * 8 // self.bytes

    @property
    def bytes(self) -> int:
        """Of a fingerprint in a word: words of 128 bits have 64 of one, as numbers have."""
        return min(int(np.dtype(self.dtype).itemsize), 8)

    @property
    def size(self) -> int:
        """Places of the sender's hashed table."""
        return places_for(self.among)

    @property
    def asked(self) -> tuple[Asked, Asked]:
        """The selections: of words, and of bits, eight in a byte."""
        pointers = FUNCTIONS * self.rows
        return (
            Asked(self.limbs + self.numbers, self.size, pointers),
            Asked(-(-self.bits // 8), self.size, pointers),
        )

    def fingerprints(self, hashes: np.ndarray) -> np.ndarray:
        """[limbs, rows] of unsigned integers: the fingerprint, cut into words."""
        words = np.ascontiguousarray(hashes[FUNCTIONS:].T).view(f"u{self.bytes}")
        return np.ascontiguousarray(words[:, : self.limbs].T)

    def pointers(self, hashes: np.ndarray) -> np.ndarray:
        """int64[3 rows]: where each key may be."""
        return places_of(hashes[:FUNCTIONS], self.size).reshape(-1)

    def table(self, keys: Keys, hashes: np.ndarray, words: Words) -> tuple[np.ndarray, np.ndarray]:
        """The hashed table: fingerprints and numbers [limbs + numbers, size], and bits [bytes, size].

        Places that are free have a random fingerprint, and no bit set. Rows without a key are left out.
        """
        rows, limbs, size = np.flatnonzero(keys.present), self.limbs, self.size
        at = placed(places_of(hashes[:FUNCTIONS, rows], size), size)
        raw = secrets.token_bytes(limbs * size * self.bytes)
        prints = np.frombuffer(raw, f"u{self.bytes}").reshape(limbs, size).copy()
        prints[:, at] = self.fingerprints(hashes)[:, rows]
        numbers = np.zeros((limbs + len(words.numbers), size), self.dtype)
        numbers[:limbs] = elements(prints.view(f"i{self.bytes}"), 8 * np.dtype(self.dtype).itemsize)
        numbers[limbs:, at] = words.numbers[:, rows]
        bits = np.zeros((len(words.bits), size), np.uint8)
        bits[:, at] = words.bits[:, rows]
        return numbers, bits


def candidates(places: Places, looked: Looked, looking: Held, table: Held) -> tuple[Shares, Shares]:
    """Step 3: what is at the three places of each key, [limbs + numbers, 3 rows] and [bits, 3 rows].

    Args:
        looking: the programmer's hashes, as `hashed` gives them.
        table: the sender's `Looked.table`.
    """
    roles = looked.roles
    pointers = places.run(roles.programmer, looked.pointers, looking)
    out = []
    for kind, asked in enumerate(looked.asked):
        matrix = places.run(roles.sender, lambda t, k=kind: t[k], table)
        out.append(select(places, matrix, pointers, asked, roles, np.uint8 if kind else looked.dtype))
    words, packed = out
    return words, {p: places.run(p, lambda x: np.stack(unpacked(x, looked.bits)), s) for p, s in packed.items()}


def _nothing(rows: int, dtype: Any) -> Words:
    """No column but the bit that is set in every row."""
    return Words(np.empty((0, rows), dtype), np.ones((1, rows), np.uint8), {})


def looked_up(mine: Any, theirs: list[Any], numbers: list[Any], bits: list[Any]) -> Any:
    """mine [limbs, rows]; theirs, numbers and bits lists of [3 rows]: the three candidates of each row."""
    rows = mine.shape[1]
    equal = True
    for own, other in zip(mine, theirs):
        equal = (other.reshape(FUNCTIONS, rows) == own) & equal
    flags = [_either(equal & x.reshape(FUNCTIONS, rows)) for x in bits]
    factor = jnp.asarray(equal).astype(mine.dtype)
    found = []
    for x in numbers:
        three = x.reshape(FUNCTIONS, rows)
        chosen = factor * three if x.dtype == mine.dtype else jnp.where(equal, three, 0)
        found.append(jnp.sum(chosen, axis=0, dtype=x.dtype))
    return found, flags


def _either(x: Any) -> Any:
    return x[0] ^ x[1] ^ x[2]
