"""Any form of data as one: columns of the same rows, in blocks that one party knows or nobody.

    frames of `spuvm.data`      vertical: a block for each owner; horizontal: one secret block of all rows
    an object of a PYU          a block that its party knows; a list of them: side by side
    an SPUObject, a traced array inside a jitted function: a secret block, of columns whose sums are below 2^44
    NumPy arrays, pandas frames, lists of numbers: of the first party of a simulation

Estimators take any of them, and a `Table`, which transformers give, is taken like the frame that it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm import context as contexts
from spuvm.data import Column, Frame
from spuvm.data.schema import listed, nearest
from spuvm.devices import PYU, PYUObject, fetch
from spuvm.ml.common import units
from spuvm.ml.machine import Machine
from spuvm.objects import SPUObject, Tabular
from spuvm.psi.shared import SharedTable
from spuvm.runtime.errors import DataError, InputError


@dataclass(frozen=True, eq=False)
class Block:
    """Some columns of all rows.

    Attributes:
        value: at the owner float64 [rows, n], NaN where missing; if nobody owns it, a secret float [rows, n].
        owner: who knows it; None if it is secret.
        power: of secret numbers: they are value 2^power, secret int32 [n]; None for 0.
        categories: at the owner, by column, what its codes mean.
    """

    columns: tuple[Column, ...]
    value: Any
    owner: str | None = None
    power: Any = None
    categories: PYUObject | None = None

    def local(self, function: Callable[..., Any], *args: Any) -> PYUObject:
        """Run NumPy on an owned block, where it is."""
        return PYU(str(self.owner))(function)(self.value, *args)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)


@dataclass(frozen=True, eq=False)
class Table(Tabular):
    """Blocks side by side. A function on an SPU takes it as a dictionary of arrays [rows], like a frame.

    Attributes:
        rows: their number.
        kind: "vertical", "horizontal", or "arrays".
        frame: the frame that it was made of, if no transformer has been at it.
    """

    machine: Machine
    rows: int
    blocks: tuple[Block, ...]
    kind: str
    frame: Frame | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(c for b in self.blocks for c in b.columns)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, len(self.columns)

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, names: str | Sequence[str]) -> Any:
        """A table of the columns named, in the order of the table's blocks; of one name, its column."""
        if isinstance(names, str):
            return self.column(names)
        for name in names:
            if name not in self.names:
                raise InputError(f"there is no column `{name}`{nearest(name, self.names)}: {listed(self.names)}.")
        blocks = [self._some(b, tuple(i for i, c in enumerate(b.columns) if c.name in names)) for b in self.blocks]
        return replace(self, blocks=tuple(b for b in blocks if b.columns), frame=None)

    def column(self, name: str) -> Any:
        """The values of one column, [rows]: an object of its owner, or secret."""
        for block in self.blocks:
            if name in block.names:
                at = block.names.index(name)
                if block.owner:
                    return block.local(partial(_column_at, at=at))
                (plain,) = without_powers(replace(self, blocks=(block,)), "columns").blocks
                return self.machine.run(_columns, plain.value, np.int64(at), what="columns")
        raise InputError(f"there is no column `{name}`{nearest(name, self.names)}: {listed(self.names)}.")

    def arguments(self, device: Any) -> dict[str, Any]:
        """The columns by name, what is missing NaN."""
        held = {c.name: self.column(c.name) for c in self.columns}
        for column in self.columns:
            if isinstance(held[column.name], PYUObject):
                held[column.name].missing = column.missing
        return held

    def drop(self, *names: str) -> Table:
        """All columns but these."""
        kept: Table = self[[n for n in self.names if n not in names]]
        return kept

    def take(self, rows: Any) -> Table:
        """The rows at these public positions."""
        at = np.asarray(rows, np.int64)
        blocks = [
            replace(b, value=b.local(lambda x: x[at]) if b.owner else self.machine.run(_rows, b.value, at, what="rows"))
            for b in self.blocks
        ]
        return replace(self, rows=len(at), blocks=tuple(blocks), frame=None)

    def _some(self, block: Block, at: tuple[int, ...]) -> Block:
        if len(at) == len(block.columns):
            return block
        columns, index = tuple(block.columns[i] for i in at), np.array(at, np.int64)
        if block.owner:
            return replace(block, columns=columns, value=block.local(lambda x: x[:, index]))
        power = None if block.power is None else self.machine.run(_entries, block.power, index, what="columns")
        value = self.machine.run(_columns, block.value, index, what="columns")
        return replace(block, columns=columns, value=value, power=power)

    def __repr__(self) -> str:
        held = ", ".join(f"{b.owner or 'secret'} ({len(b.columns)})" for b in self.blocks)
        return f"<table: {self.rows:,} rows, {len(self.columns)} columns: {held}>"


def table_of(machine: Machine, data: Any, *, missing: bool = False) -> Table:
    """What an estimator is given, as a table.

    Args:
        missing: whether cells may be missing; else their owner refuses.

    Raises:
        InputError: for what is no table of numbers, has no rows, or misses cells.
    """
    if isinstance(data, Table):
        return data
    if isinstance(data, Frame):
        return _of_frame(machine, data, missing)
    if isinstance(data, SharedTable):
        raise InputError(
            "rows of a joined table that nobody sees may not be there: predictors (`fit(table, label)`) and `describe` "
            "take it as it is, this does not. Join with `match='inner'` to a frame, or compute with its `columns` and "
            "`valid`."
        )
    parts = list(data) if _several(data) else [data]
    blocks: list[Block] = []
    rows = start = 0
    for part in parts:
        block, rows_here = _block(machine, part, start)
        if blocks and rows_here != rows:
            raise InputError(f"the parts of `X` have {rows} and {rows_here} rows: bring the same rows.")
        rows, start = rows_here, start + len(block.columns)
        blocks.append(block)
    if not missing:
        blocks = [_complete(b) for b in blocks]
    return Table(machine, rows, tuple(blocks), "arrays")


def secret(table: Table, what: str) -> Any:
    """All columns as they are, one secret array [rows, n]; powers are left to the caller: see `without_powers`."""
    return table.machine.run(side_by_side, [_given(b) for b in table.blocks], what=what)


def without_powers(table: Table, what: str) -> Table:
    """The table with secret columns as they are, not as multiples of powers of two."""
    run = table.machine.run
    blocks = [
        b if b.power is None else replace(b, value=run(units.times_power, b.value, b.power, what=what), power=None)
        for b in table.blocks
    ]
    return replace(table, blocks=tuple(blocks))


def side_by_side(parts: Sequence[jax.Array]) -> jax.Array:
    """Arrays [rows, n] of several parties as one."""
    return jnp.concatenate([jnp.asarray(p, jnp.float32) for p in parts], axis=1)


def _given(block: Block) -> Any:
    return block.local(lambda x: np.asarray(x, np.float32)) if block.owner else block.value


# Frames ------------------------------------------------------------------------------------------------------


def _of_frame(machine: Machine, frame: Frame, missing: bool) -> Table:
    if not frame.columns:
        raise InputError("the frame has no columns left: there are no features.")
    if frame.kind == "horizontal":
        return Table(machine, frame.rows, (_joined(machine, frame),), "horizontal", frame)
    owners = [p for p in frame.parties if frame.columns_of(p)]
    blocks = [Block(frame.schema.of(o), frame.at(o), o, categories=frame.categories(o)) for o in owners]
    if not missing:
        blocks = [_complete(b) for b in blocks]
    return Table(machine, frame.rows, tuple(blocks), "vertical", frame)


def _joined(machine: Machine, frame: Frame) -> Block:
    """All parties' rows, brought to the largest party's powers of two; which these are stays secret."""
    columns = frame.schema.columns
    parts = [machine.share(PYU(p)(_shareable(columns, p))(frame.at(p))) for p in frame.parties]
    joined = machine.run(_join, parts, what="table")
    return Block(columns, joined["value"], power=joined["power"])


def _shareable(columns: tuple[Column, ...], party: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    def encode(x: np.ndarray) -> dict[str, np.ndarray]:
        refuse_missing(x, columns, party)
        codes = np.array([c.type in ("category", "bool") for c in columns])
        power = np.where(codes, 0, units.exponents(x)).astype(np.int32)
        return {"value": (x * 2.0 ** -power.astype(float)).astype(np.float32), "power": power}

    return encode


def _join(parts: Sequence[Mapping[str, jax.Array]]) -> dict[str, jax.Array]:
    power = jnp.max(jnp.stack([p["power"] for p in parts]), axis=0)
    return {
        "value": jnp.concatenate([units.times_power(p["value"], p["power"] - power) for p in parts]),
        "power": power,
    }


def refuse_missing(x: np.ndarray, columns: Sequence[Column], party: str | None) -> None:
    """DataError for cells that are missing, at their owner."""
    gone = np.isnan(np.asarray(x, np.float64)).sum(axis=0)
    if gone.any():
        at = int(np.flatnonzero(gone)[0])
        where = columns[at].where if columns[at].party else f"{columns[at].where} of {party}"
        raise DataError(f"{where} has {int(gone[at])} of {len(x)} cells missing: impute them (`SimpleImputer`).")


def _complete(block: Block) -> Block:
    if block.owner is None:
        return block
    columns, owner = block.columns, block.owner

    def same(x: np.ndarray) -> np.ndarray:
        refuse_missing(x, columns, owner)
        return x

    return replace(block, value=block.local(same))


# Arrays ------------------------------------------------------------------------------------------------------


def _several(data: Any) -> bool:
    """A list of objects, side by side; a list of numbers is an array."""
    return isinstance(data, list | tuple) and bool(data) and all(isinstance(x, PYUObject | SPUObject) for x in data)


def _block(machine: Machine, x: Any, start: int) -> tuple[Block, int]:
    if isinstance(x, SPUObject | jax.core.Tracer):
        if x.ndim != 2:
            raise InputError(f"`X` must have rows and columns, got shape {tuple(x.shape)}: reshape it to [rows, n].")
        return Block(_numbered(start, x.shape[1], None), x), x.shape[0]
    if isinstance(x, PYUObject):
        owner = x.device.party
        x = PYU(owner)(as_matrix)(x)
        rows, count = (int(n) for n in fetch(PYU(owner)(_shape)(x)))
        return Block(_numbered(start, count, owner), x, owner), rows
    names = column_names(x)
    matrix = as_matrix(x.to_numpy() if names else x)
    owner = here(machine, "X")
    columns = _numbered(start, matrix.shape[1], owner, names)
    return Block(columns, PYU(owner)(lambda: matrix)(), owner), len(matrix)


def here(machine: Machine, what: str) -> str:
    """The party to which plain arrays belong: the first of a simulation. In a networked run somebody must own them."""
    context = contexts.current()
    if context is not None and context.party is not None:
        raise InputError(
            f"`{what}` is a plain array, but in a networked run somebody must own it: create it at its owner with "
            "`PYU`, or use a frame."
        )
    return machine.members[0]


def dense(x: Any, what: str) -> Any:
    """What NumPy makes an array of, as it is.

    Raises:
        InputError: for sparse matrices, and complex numbers.
    """
    if hasattr(x, "toarray"):
        raise InputError(f"`{what}` is sparse, but which cells are 0 is secret, too: give `{what}.toarray()`.")
    if np.iscomplexobj(x):
        raise InputError(f"`{what}` has complex numbers: give real and imaginary parts as columns.")
    return x


def is_written(array: np.ndarray) -> bool:
    """Whether cells are text, or times: what NumPy would make numbers of, unasked."""
    if array.dtype.kind == "O":
        return any(isinstance(cell, str | bytes) for cell in array.flat)
    return array.dtype.kind in "USMm"


def column_names(x: Any) -> tuple[str, ...] | None:
    """Those of a pandas frame; None of anything else.

    Raises:
        InputError: for a name that stands twice.
    """
    if not (hasattr(x, "columns") and hasattr(x, "to_numpy")):
        return None
    names = tuple(map(str, x.columns))
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"`X` has two columns `{twice[0]}`: name them differently.")
    return names


def as_matrix(x: Any) -> np.ndarray:
    """Numbers float64 [rows, n].

    Raises:
        InputError: for text, times, sparse matrices, another number of axes, or no rows; infinite numbers, and beyond
            2^60.
    """
    try:
        given = np.asarray(dense(x, "X"))
        matrix = None if is_written(given) else np.asarray(given, np.float64)
    except (TypeError, ValueError):
        matrix = None
    if matrix is None:
        raise InputError("`X` has cells that are no numbers: bring text as a frame, and encode it.")
    if matrix.ndim != 2:
        raise InputError(f"`X` must have rows and columns, got shape {matrix.shape}: reshape it to [rows, n].")
    if 0 in matrix.shape:
        raise InputError(f"`X` has shape {matrix.shape}: there is nothing to compute with.")
    if (np.abs(np.nan_to_num(matrix, nan=0.0, posinf=np.inf, neginf=-np.inf)) > 2.0**units.HIGH).any():
        raise DataError("`X` has infinite numbers, or beyond 2^60: replace or divide them.")
    return matrix


def _shape(x: np.ndarray) -> np.ndarray:
    return np.array(x.shape, np.int64)


@cache
def _numbered(start: int, count: int, owner: str | None, names: tuple[str, ...] | None = None) -> tuple[Column, ...]:
    names = names or tuple(f"x{start + i}" for i in range(count))
    return tuple(Column(name, owner, "float") for name in names)


def _rows(x: jax.Array, at: jax.Array) -> jax.Array:
    return x[at]


def _columns(x: jax.Array, at: jax.Array) -> jax.Array:
    return x[:, at]


def _column_at(x: np.ndarray, at: int) -> np.ndarray:
    return x[:, at]


def _entries(x: jax.Array, at: jax.Array) -> jax.Array:
    return x[at]
