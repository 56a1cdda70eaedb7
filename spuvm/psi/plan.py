"""What is joined, by whom and how: everything that all parties know before anything is computed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from spuvm.devices import SPU, PYUObject, default_machine
from spuvm.psi.forms import is_table
from spuvm.psi.guard import Guard
from spuvm.psi.keys import GUESSABLE
from spuvm.psi.learns import learned
from spuvm.psi.places import Held, Places, here
from spuvm.psi.raw import RawColumn, common
from spuvm.psi.tables import DUPLICATES, Field, Wanted, load
from spuvm.runtime.errors import ConfigError, InputError
from spuvm.runtime.machine.session import abort_on_error
from spuvm.vm import VM

OUTPUTS = ("shared", "all", "owners", "count", "sum")  # or a party
MODES = ("helper", "oblivious", "ecdh")
log = logging.getLogger("spuvm.psi")

Names = str | Sequence[str]
Key = Names | Mapping[str, Names]


@dataclass(frozen=True, eq=False)
class Plan:
    """A join that may begin.

    Attributes:
        owners: of the tables, the first one's first.
        helper: who owns none, in helper mode.
        how: the kind of join; output: who sees what ("shared", a party, "all", "count", ...).
        wanted: what is asked of each owner's table.
        tables: each owner's `Table`, at the owner.
        said: what each owner announced of it.
        shown: the key columns' names in the result.
        kept: by party, a folder for what serves the next query, too (`ecdh.py`).
    """

    places: Places
    machine: VM | None
    owners: tuple[str, ...]
    mode: str
    helper: str | None
    how: str
    output: str
    wanted: Mapping[str, Wanted]
    tables: Mapping[str, Held]
    said: Mapping[str, Any]
    shown: tuple[str, ...]
    kept: Mapping[str, Any] = field(default_factory=dict)

    @property
    def vm(self) -> VM:
        """The machine that holds shares. ConfigError if the session has none."""
        if self.machine is None:
            raise ConfigError("this join needs a virtual machine: give `device=SPU(...)`.")
        return self.machine

    def rows(self, party: str) -> int:
        """Of the party's table."""
        return int(self.said[party]["rows"])

    @property
    def learns(self) -> tuple[str, ...]:
        """Who learns what, a line each."""
        return learned(self.owners, self.mode, self.helper, self.output)

    def fields(self, party: str) -> list[Field]:
        """The party's columns that come into a sharing, without the key's; names that several have get the party's."""
        mine = self.said[party]["columns"]
        taken = {n for p in self.owners if p != party for n, *_ in self.said[p]["columns"]} | set(self.shown)
        first = self.owners.index(party) == 0
        out = []
        for name, dtype, raw in mine:
            if dtype is None:
                raise InputError(
                    f"column `{name}` of {party} has a type that no sharing holds: convert it, or leave it out: "
                    f"drop=['{name}']."
                )
            shown = name if name not in taken or (first and name not in self.shown) else f"{name}_{party}"
            out.append(Field(name, shown, dtype, None if raw is None else RawColumn(shown, *raw)))
        return out

    def key_fields(self, party: str, alone: bool) -> list[Field]:
        """The party's key columns; unless they stand alone, text has codes of its own, and a name of its own.

        Key columns that all see are in one form, whoever's they are.
        """
        out = []
        for i, (name, shown) in enumerate(zip(self.wanted[party].key, self.shown)):
            _, dtype, raw = self.said[party]["keys"][i]
            if name in self.wanted[party].drop:
                continue
            if raw is not None:
                forms = [RawColumn(shown, *self.said[p]["keys"][i][2]) for p in self.owners]
                out.append(Field(name, shown, dtype, common(forms)))
            elif dtype is not None:
                out.append(Field(name, shown if alone or dtype != "category" else f"{shown}_{party}", dtype))
        return out


def planned(
    files: Mapping[str, Any],
    key: Key,
    how: str,
    output: str,
    *,
    columns: Names | Mapping[str, Names] | None = None,
    drop: Names | Mapping[str, Names] = (),
    types: Mapping[str, str] | None = None,
    missing: bool = True,
    duplicates: str = "refuse",
    many: Sequence[int] = (),
    raw: bool = False,
    mode: str | None = None,
    helper: str | None = None,
    device: SPU | VM | None = None,
    kept: Mapping[str, Any] | None = None,
    normalize: Mapping[str, Sequence[str]] | None = None,
    guard: Mapping[str, Guard] | None = None,
) -> Plan:
    """Read every owner's table, agree on what is asked, and choose the mode.

    Args:
        many: which of the owners, by position, may have a key in several rows.
        others: see `spuvm.psi.joining`.
    """
    places = here()
    owners = tuple(files) if isinstance(files, Mapping) else ()
    if len(owners) < 2:
        raise InputError("`files` must map two parties or more to their tables: {'alice': 'a.parquet', 'bob': ...}.")
    unknown = [p for p in owners if p not in places.parties]
    if unknown:
        raise ConfigError(f"`files` names {unknown[0]}: the parties are {', '.join(places.parties)}.")
    if output not in (*OUTPUTS, *places.parties):
        raise ConfigError(f"`output` must be 'shared', 'all' or one of {', '.join(places.parties)}, got {output!r}.")
    if duplicates not in DUPLICATES:
        raise InputError(f"`duplicates` must be one of {', '.join(DUPLICATES)}, got {duplicates!r}.")
    keys = {p: _names("key", key[p] if isinstance(key, Mapping) else key) for p in owners}
    if not all(keys.values()) or len({len(k) for k in keys.values()}) > 1:
        raise InputError("`key` must name the same number of columns at every party, one at least.")
    wanted = {
        p: Wanted(
            keys[p],
            None if columns is None else _of(columns, p, "columns"),
            _of(drop, p, "drop"),
            _typed(types, keys, p),
            missing,
            "any" if i in many and duplicates == "refuse" else duplicates,
            raw,
            {n: tuple(steps) for n, steps in _typed(normalize, keys, p, "normalize").items()},
        )
        for i, p in enumerate(owners)
    }
    asked = [owners, how, output, mode, helper, {p: w.__dict__ for p, w in wanted.items()}]
    places.agree("join", asked)
    with abort_on_error(places.link):
        tables = {p: places.run(p, load, _source(files[p]), p, wanted[p]) for p in owners}
        form = partial(is_table, keys=len(keys[owners[0]]), raw=raw)
        said = {
            p: places.tell(p, places.run(p, lambda t, p=p: t.announced(wanted[p]), tables[p]), form) for p in owners
        }
        _check_kinds(said, keys)
        _check_dropped(said, wanted)
        for p, limits in (guard or {}).items():
            places.run(p, limits.admit, p, {q: s["rows"] for q, s in said.items()})
        machine = _machine(device)
        mode, helper = _mode(mode, helper, owners, said, machine, places, output)
        if mode == "ecdh" and raw:
            raise ConfigError(
                "mode 'ecdh' tells a party which of its own rows match, as `intersect` does: joined rows "
                "need a third party and mode='oblivious' or 'helper'."
            )
        shown = keys[owners[0]]
        plan = Plan(places, machine, owners, mode, helper, how, output, wanted, tables, said, shown, kept or {})
        for party in owners:
            if places.is_here(party):
                for note in tables[party].value.notes:
                    log.warning("%s", note)
        for line in plan.learns:
            log.info("%s", line)
    return plan


def _source(source: Any) -> Any:
    return source.value if isinstance(source, PYUObject) else source


def _machine(device: SPU | VM | None) -> VM | None:
    if device is not None:
        return device.vm if isinstance(device, SPU) else device
    try:
        return default_machine()
    except ConfigError:
        return None


def _names(what: str, value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(n, str) for n in names):
        raise InputError(f"`{what}` must be names of columns, got {value!r}.")
    return names


def _of(value: Any, party: str, what: str) -> tuple[str, ...]:
    """A party's part of names that are for all, or by party."""
    return _names(what, value.get(party, ()) if isinstance(value, Mapping) else value)


def _typed(
    types: Mapping[str, Any] | None, keys: Mapping[str, tuple[str, ...]], party: str, what: str = "types"
) -> dict[str, Any]:
    """What is declared by the names that the first owner's key has, for another's columns of the same place."""
    first = next(iter(keys.values()))
    out = {}
    for name, kind in (types or {}).items():
        if name not in first:
            raise InputError(f"`{what}` names `{name}`, which is no key column: they are {', '.join(first)}.")
        out[keys[party][first.index(name)]] = kind
    return out


def _check_kinds(said: Mapping[str, Any], keys: Mapping[str, tuple[str, ...]]) -> None:
    first, *others = said
    for party in others:
        for i, (a, b) in enumerate(zip(said[first]["kinds"], said[party]["kinds"])):
            if a != b:
                raise InputError(
                    f"key column `{keys[first][i]}` holds {a} at {first}, and `{keys[party][i]}` {b} at {party}: say "
                    f"what it is: types={{'{keys[first][i]}': '{b if a == 'int' else a}'}}."
                )


def _check_dropped(said: Mapping[str, Any], wanted: Mapping[str, Wanted]) -> None:
    """That what is left out was somewhere: a slip of the pen must not let a column in."""
    there = {n for s in said.values() for n in s["dropped"]}
    for name in (n for w in wanted.values() for n in w.drop):
        if name not in there:
            raise InputError(f"`drop` names `{name}`, which no party has: leave it out of `drop`.")


def _mode(
    mode: str | None,
    helper: str | None,
    owners: tuple[str, ...],
    said: Mapping[str, Any],
    vm: VM | None,
    places: Places,
    output: str,
) -> tuple[str, str | None]:
    """The mode, as asked for or by what is there; who helps, in helper mode."""
    if mode is not None and mode not in MODES:
        raise InputError(f"`mode` must be one of {', '.join(MODES)}, got {mode!r}.")
    members = vm.config.members if vm is not None else places.parties
    free = [p for p in members if p not in owners]
    if helper is not None and helper not in free:
        raise ConfigError(
            f"`helper` must be a party that brings no table ({', '.join(free) or 'none'}), got {helper!r}."
        )
    obliviously = vm is not None and vm.config.world_size >= 3 and len(places.parties) >= 3
    if mode is None:
        guessable = all(k in GUESSABLE for k in said[owners[0]]["kinds"])
        if free and (not guessable or helper is not None or not obliviously):
            mode = "helper"
        else:
            mode = "oblivious" if obliviously else "ecdh"
    if mode == "helper" and not free:
        raise ConfigError("helper mode needs a party that brings no table: add one, or use mode='oblivious'.")
    if mode == "oblivious" and not obliviously:
        raise ConfigError("oblivious mode needs three computing parties: use mode='helper' or 'ecdh'.")
    if mode == "ecdh" and output in ("shared", "sum"):
        raise ConfigError(
            "two parties alone cannot share or add up what matches: add a third party that brings no table."
        )
    return mode, (helper or free[0]) if mode == "helper" else None
