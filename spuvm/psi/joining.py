"""Joins to shares: one owner's rows, in an order that says nothing, beside what others have of the same keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.devices import PYU, PYUObject
from spuvm.objects import SPUObject
from spuvm.psi.bounds import checked_bound
from spuvm.psi.helper import Helper
from spuvm.psi.oblivious import Oblivious
from spuvm.psi.places import Held
from spuvm.psi.plan import Plan
from spuvm.psi.shared import SharedTable
from spuvm.psi.sharing import machine_function, secrets_of, typed, unpacked, words_dtype
from spuvm.psi.tables import Field, as_words
from spuvm.runtime.errors import InputError


class Matching(Protocol):
    """What a mode offers: rows of one owner, in an order that it fixes, beside those of another."""

    def order(self, party: str) -> Held:
        """At the party, int64[rows]: its rows in the order of the output."""
        ...

    def matched(self, base: str, other: str) -> SPUObject:
        """bool[rows of base], secret: whether `other` has the row's key."""
        ...

    def probe(
        self, base: str, other: str, words: Held, numbers: int, bits: int
    ) -> tuple[list[SPUObject], list[SPUObject]]:
        """So many numbers and bits of `other`, [rows of base] each; 0 where nothing matches."""
        ...


MATCHINGS: dict[str, Any] = {"helper": Helper, "oblivious": Oblivious}


@dataclass(frozen=True, eq=False)
class Piece:
    """An owner's columns beside some rows: by name, and which cells are there."""

    columns: dict[str, SPUObject]
    present: dict[str, SPUObject]
    matched: SPUObject


def to_shares(plan: Plan, bound: int | None = None) -> SharedTable:
    """The joined table as secrets; `plan.how` says which rows it has. `bound`: of an inner join whose keys are repeated
    on both sides."""
    if plan.how == "inner" and len(plan.owners) == 2 and not any(plan.said[p]["unique"] for p in plan.owners):
        return _of_pairs(plan, bound)
    matching: Matching = MATCHINGS[plan.mode](plan)
    base, *others = _order(plan)
    two_parts = plan.how in ("full", "union")
    brought = {p: _brought(plan, p, _fields(plan, p, p == base)) for p in plan.owners}
    pieces = [_own(plan, matching, base, brought[base])]
    if plan.how in ("semi", "anti", "union"):
        matched = {p: matching.matched(base, p) for p in others}
    else:
        pieces += [_probed(plan, matching, base, p, brought[p]) for p in others]
        matched = {p: piece.matched for p, piece in zip(others, pieces[1:])}
    valid = _valid(plan, pieces[0].matched, list(matched.values()))
    rows = plan.rows(base)
    texts = [brought[base]] if plan.how in ("semi", "anti", "union") else list(brought.values())
    if two_parts:
        (other,) = others
        own = _brought(plan, other, _fields(plan, other, True, second=True))
        rest = _own(plan, matching, other, own)
        pieces, valid, matched = _stacked(plan, pieces, rest, base, other, matched, matching)
        rows += plan.rows(other)
        texts.append(own)
    columns = _in_order(plan, {n: x for piece in pieces for n, x in piece.columns.items()}, brought)
    present = {n: x for piece in pieces for n, x in piece.present.items()}
    if plan.how == "union":  # a row without a key is none; text has a column of its own for each owner
        names = [dict.fromkeys((a.shown, b.shown)) for a, b in zip(brought[base].fields, own.fields)]
        valid = _one(plan, all_of, valid, *(_one(plan, any_of, *(present[n] for n in some)) for some in names))
    return SharedTable(plan.vm, rows, columns, valid, present, matched, _categories(texts), plan.learns)


def _order(plan: Plan) -> tuple[str, ...]:
    """Whose rows the result has, then the others; of an inner join of two: who has repeated keys, or fewer rows."""
    first, second, *more = plan.owners
    if plan.how == "right":
        return second, first
    if plan.how != "inner" or more:
        return plan.owners
    single = {p: plan.said[p]["unique"] for p in plan.owners}
    fewer = single[first] and plan.rows(second) < plan.rows(first)
    return (second, first) if not single[second] or fewer else plan.owners


def _of_pairs(plan: Plan, bound: int | None) -> SharedTable:
    """Every pair of rows with equal keys, by a helper, who sees how often each occurs anyway. All learn whether the
    bound holds.

    Raises:
        InputError: without a bound or a helper, or if there are more pairs; at every party.
    """
    first, second = plan.owners
    if bound is None or plan.mode != "helper":
        raise InputError(
            f"keys are repeated both at {first} and at {second}: the joined rows have no public bound then. State one, "
            "in helper mode: bound=..., mode='helper'; or let one have each key once: duplicates='first', or aggregate "
            "its rows before."
        )
    checked_bound(bound)
    helper = Helper(plan)
    *pointers, fits = helper.pairs(first, second, bound)
    if not fits:
        raise InputError(f"`bound` of {bound:,} rows is too small for the joined rows: give a larger one.")
    brought = [_brought(plan, p, _fields(plan, p, p == first)) for p in plan.owners]
    pieces = []
    for b, at, together in zip(brought, pointers, (True, False)):
        other = second if b.party == first else first
        found = helper.selected(b.party, other, b.words, b.numbers, b.bits, at, bound, True, together)
        pieces.append(_piece(b, *found))
    columns = {n: x for piece in pieces for n, x in piece.columns.items()}
    present = {n: x for piece in pieces for n, x in piece.present.items()}
    learns = (*plan.learns, f"all parties: that at most {bound:,} rows are joined")
    matched = {second: pieces[1].matched}
    return SharedTable(plan.vm, bound, columns, pieces[0].matched, present, matched, _categories(brought), learns)


def _in_order(plan: Plan, columns: dict[str, SPUObject], brought: Mapping[str, Brought]) -> dict[str, SPUObject]:
    """The key's columns, then each owner's as the owners were named, whoever's rows the result has."""
    keys = {n for shown in plan.shown for n in (shown, *(f"{shown}_{p}" for p in plan.owners))}
    at = {f.shown: i for i, p in enumerate(plan.owners) for f in brought[p].fields if f.shown not in keys}
    return dict(sorted(columns.items(), key=lambda item: at.get(item[0].partition("\0")[0], -1)))


def _categories(brought: Sequence[Brought]) -> dict[str, PYUObject]:
    return {n: PYU(b.party)(lambda w, n=n: w.categories[n])(_object(b)) for b in brought for n in b.texts}


@dataclass(frozen=True, eq=False)
class Brought:
    """What an owner brings into the sharing: its columns, and their words at the owner."""

    party: str
    fields: list[Field]
    missing: bool
    words: Held

    @property
    def numbers(self) -> int:
        return sum(len(f.numbers) for f in self.fields)

    @property
    def bits(self) -> int:
        """Bools, whether cells are there, and a bit that is set in every row."""
        return sum(f.is_bool for f in self.fields) + self.missing * len(self.fields) + 1

    @property
    def texts(self) -> list[str]:
        return [f.shown for f in self.fields if f.dtype == "category"]


def _object(brought: Brought) -> PYUObject:
    return PYUObject(PYU(brought.party), brought.words.value)


def _brought(plan: Plan, party: str, fields: list[Field]) -> Brought:
    words_dtype(plan.vm)
    config, missing = plan.vm.config, plan.wanted[party].missing
    words = plan.places.run(
        party, as_words, plan.tables[party], fields, missing, config.fxp_fraction_bits, config.ring_bits
    )
    return Brought(party, fields, missing, words)


def _fields(plan: Plan, party: str, keys: bool, second: bool = False) -> list[Field]:
    """The columns of a party that come into the result, first its key's if `keys`.

    Of a second part's rows text has codes of its own, so its key columns have, too.
    """
    out = [] if plan.how == "union" or (plan.how in ("semi", "anti") and not keys) else plan.fields(party)
    if not keys:
        return out
    return [*plan.key_fields(party, not second), *out]


def _own(plan: Plan, matching: Matching, party: str, brought: Brought) -> Piece:
    """An owner's columns in its own rows, in the order of the output."""
    order, places = matching.order(party), plan.places
    numbers = places.run(party, lambda w, o: np.ascontiguousarray(w.numbers[:, o]), brought.words, order)
    count = brought.bits
    bits = places.run(party, lambda w, o: np.stack(unpacked(w.bits[:, o], count)), brought.words, order)
    rows = plan.rows(party)
    raw = secrets_of(plan.vm, {party: numbers}, (brought.numbers, rows), False)
    return _piece(brought, raw, secrets_of(plan.vm, {party: bits}, (count, rows), True))


def _probed(plan: Plan, matching: Matching, base: str, other: str, brought: Brought) -> Piece:
    """An owner's columns beside the rows of another."""
    return _piece(brought, *matching.probe(base, other, brought.words, brought.numbers, brought.bits))


def _piece(brought: Brought, numbers: Sequence[SPUObject], bits: Sequence[SPUObject]) -> Piece:
    words, flags = iter(numbers), iter(bits)
    columns: dict[str, SPUObject] = {}
    for f in brought.fields:
        columns |= {f.shown: next(flags)} if f.is_bool else {n: typed(next(words), f) for n in f.numbers}
    present = {f.shown: next(flags) for f in brought.fields} if brought.missing else {}
    matched = next(flags)
    return Piece(columns, present or {f.shown: matched for f in brought.fields}, matched)


def _valid(plan: Plan, own: SPUObject, matched: Sequence[SPUObject]) -> SPUObject:
    """Which rows are there; `own` is true in all."""
    if plan.how == "anti":
        return _one(plan, none_of, *matched)
    if plan.how in ("inner", "semi"):
        return matched[0] if len(matched) == 1 else _one(plan, all_of, *matched)
    return own


def _stacked(
    plan: Plan,
    pieces: Sequence[Piece],
    rest: Piece,
    base: str,
    other: str,
    matched: Mapping[str, SPUObject],
    matching: Matching,
) -> tuple[list[Piece], SPUObject, dict[str, SPUObject]]:
    """The rows of the base, and below them those of the other owner that nothing in the base matches."""
    found = matching.matched(other, base)
    first = {n: x for piece in pieces for n, x in piece.columns.items()}
    there = {n: x for piece in pieces for n, x in piece.present.items()}
    names = list(dict.fromkeys([*first, *rest.columns]))
    rows = plan.rows(base), plan.rows(other)
    columns = {n: _below(plan, first.get(n), rest.columns.get(n), rows) for n in names}
    present = {n: _below(plan, there.get(n), rest.present.get(n), rows) for n in dict.fromkeys([*there, *rest.present])}
    valid = _one(plan, _rest_of, pieces[0].matched, found)
    has = {
        base: _one(plan, _joined, pieces[0].matched, np.zeros(rows[1], bool)),
        other: _one(plan, _joined, matched[other], np.ones(rows[1], bool)),
    }
    return [Piece(columns, present, valid)], valid, has


def _below(plan: Plan, x: SPUObject | None, y: SPUObject | None, rows: tuple[int, int]) -> SPUObject:
    known = x if x is not None else y
    assert known is not None
    zeros = [np.zeros(n, known.dtype) for n in rows]
    return _one(plan, _joined, zeros[0] if x is None else x, zeros[1] if y is None else y)


def _one(plan: Plan, function: Any, *args: Any) -> SPUObject:
    with jax.enable_x64(True):
        out: SPUObject = machine_function(plan.vm, function)(*args)
    return out


def all_of(*bits: Any) -> Any:
    out = bits[0]
    for x in bits[1:]:
        out = out & x
    return out


def any_of(*bits: Any) -> Any:
    return ~none_of(*bits)


def none_of(*bits: Any) -> Any:
    return all_of(*(~x for x in bits))


def _joined(x: Any, y: Any) -> Any:
    return jnp.concatenate([x, y])


def _rest_of(x: Any, found: Any) -> Any:
    return jnp.concatenate([x, ~found])
