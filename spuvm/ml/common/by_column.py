"""What is learned of columns one by one (means, edges, categories): at their owner, or on secrets.

An owner's part never leaves it; of secret columns it is secret. The same numbers are applied to later rows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from spuvm.data import Column
from spuvm.data.schema import nearest
from spuvm.devices import PYU, PYUObject
from spuvm.ml.common import units
from spuvm.ml.common.table import Block, Table
from spuvm.ml.machine import Machine
from spuvm.runtime.errors import DataError, InputError

LEAST_BYTES = 1024  # of what an owner stores: its length, rounded up to a power of two, is public
State = Mapping[str, Any]
Learn = Callable[..., dict[str, Any]]  # of columns [rows, n]
Apply = Callable[[Any, State], Any]  # of columns and what was learned: columns [rows, m]


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a block: `state` at its owner, or arrays on the machine; the rest as of `Block`."""

    columns: tuple[Column, ...]
    owner: str | None
    state: Any
    power: Any = None
    categories: PYUObject | None = None


@dataclass(frozen=True, eq=False)
class ByColumn:
    """What is known of all columns of a table.

    Attributes:
        kind: of the table.
        blocks: in its order.
    """

    machine: Machine
    kind: str
    blocks: tuple[Known, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(c for b in self.blocks for c in b.columns)

    def match(self, table: Table) -> Table:
        """The columns known, in their order and coded as they were.

        Raises:
            InputError: for columns that are absent, another's, of another type or number, or, found by their
                owner, with categories that were not there.
        """
        if table.kind != self.kind:
            raise InputError(f"this was trained on {_article(self.kind)}, and given {_article(table.kind)}.")
        if self.kind == "arrays" and len(table.columns) != len(self.columns):
            raise InputError(f"`X` has {len(table.columns)} columns, this was trained on {len(self.columns)}.")
        _check(self.columns, table)
        have = {b.owner: b for b in table.blocks}
        if len(have) < len(table.blocks):  # several secret blocks of arrays
            pairs = list(zip(self.blocks, table.blocks))
        else:
            pairs = [(known, have[known.owner]) for known in self.blocks]
        return replace(table, blocks=tuple(self._matched(known, block) for known, block in pairs))

    def _matched(self, known: Known, block: Block) -> Block:
        at = np.array([block.names.index(c.name) for c in known.columns], np.int64)
        if block.owner is None:
            if not np.array_equal(at, np.arange(len(block.columns))):
                block = replace(block, value=self.machine.run(_columns, block.value, at, what="columns"))
                if block.power is not None:
                    block = replace(block, power=self.machine.run(_entries, block.power, at, what="columns"))
            if block.power is not None and known.power is not None:
                value = self.machine.run(_to_power, block.value, block.power, known.power, what="columns")
                block = replace(block, value=value, power=known.power)
            return replace(block, columns=known.columns)
        value = block.local(lambda x: x[:, at])
        if known.categories is not None and any(c.type == "category" for c in known.columns):
            value = PYU(block.owner)(recoded)(value, known.columns, block.categories, known.categories)
        return replace(block, columns=known.columns, value=value, categories=known.categories)

    def apply(
        self,
        table: Table,
        at_owner: Apply,
        on_secrets: Apply,
        what: str,
        columns: Callable[[Column], Sequence[Column]] | None = None,
        keeps_power: bool = False,
    ) -> Table:
        """The table with each block replaced by what the functions make of it.

        Args:
            table: one that matches.
            columns: what becomes of a column; it stays as it is if not given.
            keeps_power: whether results on secrets are in the units of the operands, not plain numbers.
        """
        out = []
        for known, block in zip(self.blocks, table.blocks):
            if block.owner:
                value = PYU(block.owner)(at_owner)(block.value, known.state)
            else:
                value = self.machine.run(on_secrets, block.value, known.state, what=what)
            made = known.columns if columns is None else tuple(c for k in known.columns for c in columns(k))
            out.append(Block(made, value, block.owner, block.power if keeps_power else None, block.categories))
        return replace(table, blocks=tuple(out), frame=None)

    # Storing

    def to_store(self) -> list[dict[str, Any]]:
        """What `spuvm.save_shares` takes."""
        out = []
        for b in self.blocks:
            state = b.state if b.owner is None else self._private(b.owner, PYU(b.owner)(packed)(b.state, b.categories))
            columns = json.dumps([c.to_json() for c in b.columns])
            out.append({"columns": columns, "owner": b.owner, "state": state, "power": b.power})
        return out

    def _private(self, owner: str, x: PYUObject) -> Any:
        return self.machine.spu(_same)(x)

    @classmethod
    def stored(cls, machine: Machine, kind: str, blocks: Sequence[Mapping[str, Any]]) -> ByColumn:
        """The inverse of `to_store`."""
        return cls(machine, kind, tuple(_known(b) for b in blocks))


def learn(
    table: Table,
    at_owner: Learn,
    on_secrets: Learn,
    what: str,
    with_columns: bool = False,
    with_power: bool = False,
) -> ByColumn:
    """What the functions learn of each block.

    Args:
        with_columns: at the owner they are told which these are.
        with_power: on secrets they are given the columns' powers of two as well.
    """
    blocks = []
    for b in table.blocks:
        more = (b.columns,) if with_columns else ()
        if b.owner:
            state = b.local(at_owner, *more)
        else:
            power = np.zeros(len(b.columns), np.int32) if b.power is None else b.power
            state = table.machine.run(on_secrets, b.value, *((power,) if with_power else ()), what=what)
        blocks.append(Known(b.columns, b.owner, state, b.power, b.categories))
    return ByColumn(table.machine, table.kind, tuple(blocks))


def recoded(
    x: np.ndarray, columns: Sequence[Column], now: Mapping[str, Sequence[str]], then: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """An owner's columns [rows, n] with the codes that categories had in training."""
    out = np.array(x, np.float64)
    for i, column in enumerate(columns):
        if column.type != "category" or tuple(now[column.name]) == tuple(then[column.name]):
            continue
        known = {c: j for j, c in enumerate(then[column.name])}
        table = np.array([*(known.get(c, -1) for c in now[column.name]), np.nan])
        code = np.where(np.isnan(out[:, i]), len(now[column.name]), out[:, i]).astype(np.int64)
        out[:, i] = table[code]
        if (out[:, i] == -1).any():
            raise DataError(f"{column.where} has a category that was not there in training: map it, or train anew.")
    return out


def packed(state: State, categories: Mapping[str, Sequence[str]] | None) -> np.ndarray:
    """What an owner knows as int32 [n]: NumPy's .npz, padded."""
    file = io.BytesIO()
    text = np.frombuffer(json.dumps(categories or {}).encode(), np.uint8)
    arrays: dict[str, Any] = {f"state_{k}": np.asarray(v) for k, v in state.items()}
    np.savez(file, **arrays, categories=text)
    data = file.getvalue()
    length = LEAST_BYTES
    while length < len(data) + 8:
        length *= 2
    out: np.ndarray = np.frombuffer(len(data).to_bytes(8, "little") + data.ljust(length - 8, b"\0"), np.int32)
    return out


def unpacked(x: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """The inverse of `packed`."""
    data = np.ascontiguousarray(x, np.int32).tobytes()
    size = int.from_bytes(data[:8], "little")
    with np.load(io.BytesIO(data[8 : 8 + size]), allow_pickle=False) as arrays:
        state = {k.removeprefix("state_"): arrays[k] for k in arrays.files if k.startswith("state_")}
        return state, json.loads(arrays["categories"].tobytes().decode())


def _known(b: Mapping[str, Any]) -> Known:
    columns = tuple(Column.from_json(c) for c in json.loads(b["columns"]))
    if b["owner"] is None:
        return Known(columns, None, b["state"], b["power"])
    device = PYU(b["owner"])
    both = device(unpacked)(PYUObject(device, b["state"].known_value() if device.is_here else None))
    return Known(columns, b["owner"], device(_first)(both), None, device(_second)(both))


def _check(columns: Sequence[Column], table: Table) -> None:
    have = {c.name: c for c in table.columns}
    for want in columns:
        if want.name not in have:
            raise InputError(f"{want.where} of training is missing{nearest(want.name, list(have))}.")
        column = have[want.name]
        if column.party != want.party:
            raise InputError(f"{want.where} of training is here at {column.party or 'all'}: bring it from there.")
        if ("category" in (column.type, want.type)) and column.type != want.type:
            raise InputError(f"{want.where} was {want.type} in training, here it is {column.type}: convert it.")
        if want.categories != column.categories:
            raise InputError(f"{want.where} has other public categories than in training: give the same ones.")


def _article(kind: str) -> str:
    return "arrays" if kind == "arrays" else f"a {kind} frame"


def _to_power(x: jax.Array, power: jax.Array, wanted: jax.Array) -> jax.Array:
    return units.times_power(x, power - wanted)


def _columns(x: jax.Array, at: jax.Array) -> jax.Array:
    return x[:, at]


def _entries(x: jax.Array, at: jax.Array) -> jax.Array:
    return x[at]


def _first(x: Any) -> Any:
    return x[0]


def _second(x: Any) -> Any:
    return x[1]


def _same(x: Any) -> Any:
    return x
