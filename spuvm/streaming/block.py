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

from spuvm.compiler.trace import reveal
from spuvm.runtime.errors import InputError

MASK = "mask"  # the argument that tells a function which rows are kept
Columns = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A function of columns by name: new columns (`map`), or which rows to keep (`filter`)."""

    kind: Literal["map", "filter"]
    function: Callable[..., Any]
    shown: bool = False  # of a filter: to all parties


@dataclass(frozen=True)
class Column:
    """A source's column as a block sees it: [rows, *width] of `dtype`, known to the party `owner`."""

    owner: int
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
            keep = reveal(keep) if step.shown else keep
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


def _over(mask: Any, x: Any) -> Any:
    return mask.reshape(mask.shape + (1,) * (x.ndim - 1))


@dataclass(frozen=True)
class Fold:
    """`state = function(state, **columns)`, over pieces in order; with `combine` each block on its own."""

    function: Callable[..., Any]
    init: Any
    combine: Callable[[Any, Any], Any] | None = None

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
