"""What is computed of one block of rows: the steps of a stream as one JAX function, compiled by shape.

A block is the same rows of every column. Of a stream with several parts (parties that hold
different rows of the same columns) it is one piece of each part. All blocks but the last have the
same shape; the last is compiled for just the rows it has, so that no function ever sees padding.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp

from spuvm.compiler.front.trace import reveal
from spuvm.compiler.ir.module import Visibility
from spuvm.runtime.errors import InputError

MASK = "mask"  # the argument that tells a function which rows are kept
Columns = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A function of columns by name: new columns (`map`), or which rows to keep (`filter`)."""

    kind: Literal["map", "filter"]
    function: Callable[..., Any]
    reveal: bool | Literal["count"] = False  # of a filter, to all parties: which rows are kept, or how many


Steps = tuple[Step, ...]


def passes(steps: Steps) -> list[Steps]:
    """The steps up to each filter whose count is revealed, and the rest: what follows one gets fewer rows."""
    ends = [i + 1 for i, step in enumerate(steps) if step.reveal == "count"]
    return [steps[a:b] for a, b in zip([0, *ends], [*ends, len(steps)])]


@dataclass(frozen=True)
class Column:
    """A source's column as a block sees it: [rows, *width] of `dtype`, known to the party `owner`, or secret."""

    owner: Visibility
    dtype: str
    width: tuple[int, ...]


Part = Mapping[str, Column]
Counts = tuple[int, ...]  # rows of each part


def call(function: Callable[..., Any], columns: Columns, mask: Any, *first: Any) -> Any:
    """The function, its arguments (after `first`) being the columns that its parameters name."""
    known = columns if mask is None else {**columns, MASK: mask}
    name = getattr(function, "__name__", "function")
    try:
        parameters = list(inspect.signature(function).parameters.values())[len(first) :]
    except (TypeError, ValueError):
        raise InputError(f"`{name}`: its arguments are not known: wrap it in a function.") from None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return function(*first, **known)
    wanted = [p.name for p in parameters if p.name in known or p.default is p.empty]
    for missing in (n for n in wanted if n not in known):
        hint = ": there is a `mask` after a `filter` only" if missing == MASK else ""
        raise InputError(f"`{name}` takes `{missing}`, the columns are {', '.join(columns)}{hint}.")
    arguments = [known[n] for n in wanted]
    positional = [p for p in parameters if p.kind is p.POSITIONAL_ONLY]
    if positional:
        return function(*first, *arguments)
    return function(*first, **dict(zip(wanted, arguments)))


def named(function: Callable[..., Any], columns: Sequence[str]) -> set[str]:
    """The columns that a function takes."""
    parameters = inspect.signature(function).parameters.values()
    everything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return set(columns) if everything else {p.name for p in parameters} & set(columns)


def takes_mask(function: Callable[..., Any]) -> bool:
    """Whether a function can tell rows that are kept from others."""
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == MASK or p.kind is p.VAR_KEYWORD for p in parameters)


def through(steps: Sequence[Step], columns: Columns) -> tuple[Columns, Any]:
    """The columns after all steps, and which rows are kept: a bool [rows], or None for all."""
    mask = None
    rows = _rows(columns)
    for step in steps:
        out = call(step.function, columns, mask)
        if step.kind == "filter":
            keep = _checked_mask(step.function, out, rows)
            keep = reveal(keep) if step.reveal is True else keep
            mask = keep if mask is None else mask & keep
        else:
            columns = _checked_columns(step.function, out, rows)
    return columns, mask


def _rows(columns: Columns) -> int:
    return int(next(iter(columns.values())).shape[0])


def _checked_mask(function: Callable[..., Any], out: Any, rows: int) -> Any:
    keep = jnp.asarray(out)
    if keep.dtype != jnp.bool_ or keep.shape != (rows,):
        raise InputError(
            f"`filter`: `{function.__name__}` gives {keep.dtype}{list(keep.shape)}, it must give a bool for each of "
            f"the block's {rows} rows."
        )
    return keep


def _checked_columns(function: Callable[..., Any], out: Any, rows: int) -> Columns:
    named = dict(out) if isinstance(out, Mapping) else {"out": out}
    if not named or not all(isinstance(n, str) and n != MASK for n in named):
        raise InputError(f"`map`: `{function.__name__}` must give columns by name, none of them `{MASK}`.")
    for name, value in named.items():
        loose = isinstance(value, list | tuple | dict | None)
        if loose or jnp.shape(value)[:1] != (rows,):
            what = type(value).__name__ if loose else f"shape {jnp.shape(value)}"
            raise InputError(
                f"`map`: `{function.__name__}` gives `{name}` as {what}; a column has an element for each of the "
                f"block's {rows} rows. To aggregate rows use `fold` or `group_by`."
            )
    return {name: jnp.asarray(value) for name, value in named.items()}


@dataclass(frozen=True)
class WriteRows:
    """Reveal all columns to one party; of a filtered stream, which rows are kept as well."""

    party: str
    in_order = False
    init: Any = ()
    combine: None = None

    def __call__(self, pieces: Sequence[tuple[Columns, Any]], state: Any) -> Any:
        out = []
        for columns, mask in pieces:
            if mask is not None:  # what is dropped stays secret
                columns = {n: jnp.where(_over(mask, x), x, jnp.zeros_like(x)) for n, x in columns.items()}
            out.append(reveal({**columns, **({} if mask is None else {MASK: mask})}, to=self.party))
        return out

    def reads(self, columns: Sequence[str]) -> set[str]:
        """All."""
        return set(columns)

    def of_nothing(self, columns: Columns) -> Any:
        """No part has a row."""
        return []


def _over(mask: Any, x: Any) -> Any:
    return mask.reshape(mask.shape + (1,) * (x.ndim - 1))


@dataclass(frozen=True)
class KeepRows:
    """Of a filter whose count is revealed: the rows that are kept, in their order, before all others.

    The mask is secret, and sorting by it opens nothing but a random permutation. What is behind the
    rows that are kept is dropped by all parties, and none knows which rows that were.
    """

    names: tuple[str, ...]  # of the columns that are still needed
    in_order = False
    init: Any = ()
    combine: None = None

    def __call__(self, pieces: Sequence[tuple[Columns, Any]], state: Any) -> Any:
        drop = ~jnp.concatenate([mask for _, mask in pieces])
        columns = {n: jnp.concatenate([c[n] for c, _ in pieces]) for n in self.names}
        flat = [x for c in columns.values() for x in c.reshape(len(drop), -1).T]
        ordered = iter(jax.lax.sort((drop, *flat), num_keys=1, is_stable=True)[1:])
        first = {
            n: jnp.stack([next(ordered) for _ in range(c.size // len(drop))], 1).reshape(c.shape)
            for n, c in columns.items()
        }
        rows = len(drop) - jnp.sum(drop, dtype=jnp.int32)  # of the bit that the sort converts, too
        return {"columns": first, "rows": reveal(rows)}

    def reads(self, columns: Sequence[str]) -> set[str]:
        """Those that are kept."""
        return set(self.names)

    def of_nothing(self, columns: Columns) -> Any:
        """Nothing: there is no row for another pass."""
        return ()


def columns_read(steps: Sequence[Step], finish: Finish, columns: Sequence[str]) -> tuple[str, ...]:
    """Which of the columns the steps that follow and the end name; one at least, for the number of rows."""
    read: set[str] = set()
    for step in steps:
        read |= named(step.function, columns)
        if step.kind == "map":
            break
    else:
        read |= finish.reads(columns)
    return tuple(sorted(read)) or tuple(columns[:1])


@dataclass(frozen=True)
class Fold:
    """`state = function(state, **columns)`, over pieces in order; with `combine` each block on its own."""

    function: Callable[..., Any]
    init: Any
    combine: Callable[[Any, Any], Any] | None = None
    names: tuple[str, ...] | None = None  # of the columns that matter, if not all that the function takes

    @property
    def in_order(self) -> bool:
        """Whether a block needs the state that the one before left."""
        return self.combine is None

    def __call__(self, pieces: Sequence[tuple[Columns, Any]], state: Any) -> Any:
        if self.combine is None:
            for columns, mask in pieces:
                state = self._step(state, columns, mask)
            return state
        partial = None
        for columns, mask in pieces:
            mine = self._step(jax.tree.map(jnp.asarray, self.init), columns, mask)
            partial = mine if partial is None else self.combine(partial, mine)
        return partial

    def reads(self, columns: Sequence[str]) -> set[str]:
        """Those that the function names."""
        return named(self.function, columns) if self.names is None else set(self.names)

    def of_nothing(self, columns: Columns) -> Any:
        """The state before the first row."""
        return self.init

    def _step(self, state: Any, columns: Columns, mask: Any) -> Any:
        if mask is not None and not takes_mask(self.function):
            raise InputError(
                f"`fold`: the stream was filtered, so `{self.function.__name__}` must take `mask`, a bool [rows], and "
                "leave out the rows where it is false, as in `jnp.sum(x, where=mask)`."
            )
        return call(self.function, columns, mask, state)


class Finish(Protocol):
    """What becomes of the columns: a function of the pieces of a block and of the state before it."""

    @property
    def in_order(self) -> bool:
        """Whether a block needs the state that the one before left."""
        ...

    @property
    def init(self) -> Any:
        """The state before the first block, if `in_order`."""
        ...

    @property
    def combine(self) -> Callable[[Any, Any], Any] | None:
        """How states of blocks are combined, unless `in_order`."""
        ...

    def __call__(self, pieces: Sequence[tuple[Columns, Any]], state: Any) -> Any: ...

    def reads(self, columns: Sequence[str]) -> set[str]:
        """Which of these it needs."""
        ...

    def of_nothing(self, columns: Columns) -> Any:
        """What becomes of no rows, of columns of these dtypes: public numbers."""
        ...
