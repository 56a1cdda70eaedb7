"""Is a function private, and whose word is each sensitivity? What is proved, stated, or shown without noise.

print(spu.dp.check(report, table))       # nothing runs
f = spu.dp.private(report)               # fills in the sensitivities that `laplace(x, epsilon=...)` leaves open
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.extend
import numpy as np

from spuvm.compiler.front.private_jax import frames
from spuvm.compiler.lower.noise import ARGMAX, BINS, FIRST, GROUPS
from spuvm.compiler.lower.noise import PROVED as COUNTED
from spuvm.dp.known import INF, UNKNOWN, Known, Public, Total, rows_of
from spuvm.dp.sensitivity import REVEAL, follow
from spuvm.objects import Marked
from spuvm.runtime.errors import InputError
from spuvm.runtime.sources import PACKAGE

PROVED, STATED, LARGER = "proved", "stated", "stated, and less than what could be proved"
SLACK = 1 + 1e-6
OURS = str(PACKAGE) + os.sep


@dataclass(frozen=True)
class Finding:
    """One mechanism. `proved` is infinite where the function could not be followed."""

    mechanism: str
    stated: float | None
    proved: float
    where: str
    by_rows: bool = False  # its sensitivity is that of rows, as `count` has it, not the caller's word

    @property
    def status(self) -> str:
        if self.stated is None or self.proved <= self.stated * SLACK:
            return PROVED if self.proved < INF else STATED
        return STATED if self.proved == INF else LARGER

    def __str__(self) -> str:
        said = "no sensitivity" if self.stated is None else f"sensitivity {self.stated:g}"
        bound = "" if self.proved == INF else f" (at most {self.proved:g})"
        return f"{self.where}: {self.mechanism}, {said}, {self.status}{bound}"


@dataclass(frozen=True)
class Report:
    """What `check` found.

    `leaks`: results, by position, that depend on rows beside what mechanisms put out. `opened`: where `spu.reveal`
    shows such values within the function.
    """

    findings: tuple[Finding, ...]
    leaks: tuple[int, ...]
    opened: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every sensitivity is proved and nothing is shown without noise."""
        return not self.leaks and not self.opened and all(f.status == PROVED for f in self.findings)

    def __str__(self) -> str:
        shown = [f"result {i} is shown without noise" for i in self.leaks]
        return "\n".join([*map(str, self.findings), *shown, *(f"{o}: revealed without noise" for o in self.opened)])


def check(function: Callable[..., Any], *args: Any) -> Report:
    """Follow what one row changes through a function of arguments like these; nothing runs.

    The arrays of the first argument's length are tables, whose rows are the units; `spu.public(x)` is known to all;
    what else there is has no bound.
    """
    with _measuring():
        closed = jax.make_jaxpr(function)(*jax.tree.map(_shape, args))
    findings: list[Finding] = []
    opened: list[str] = []

    def found(eqn: Any, known: Known) -> Known:
        if eqn.primitive.name != REVEAL:
            return _found(findings, eqn, known)
        opened.extend([] if isinstance(known, Public) else [_where(eqn)])
        return known

    outs = follow(closed.jaxpr, _known(args), found, closed.consts)
    return Report(tuple(findings), tuple(i for i, k in enumerate(outs) if not isinstance(k, Public)), tuple(opened))


def _found(findings: list[Finding], eqn: Any, known: Known) -> Known:
    params = eqn.params
    gaussian = eqn.primitive.name == "spu_gaussian"
    total = known if isinstance(known, Total) else Total(0, 0, 0) if isinstance(known, Public) else UNKNOWN
    proved = total.l2 if gaussian else 2 * total.largest if params.get("word") in (ARGMAX, FIRST) else total.l1
    stated = params["sensitivity"]
    if params.get("word") == BINS and proved < INF:  # by how they are made
        proved = stated
    if params.get("word") == GROUPS:  # a unit has so many rows
        proved *= stated
    if gaussian and stated > 0:
        stated -= params["grid"] * math.sqrt(eqn.invars[0].aval.size)
    by_rows = stated > 0 and params.get("word") in (COUNTED, BINS)
    name = eqn.primitive.name.removeprefix("spu_")
    findings.append(Finding(name, stated if stated > 0 else None, proved, _where(eqn), by_rows))
    return Public()


def _where(eqn: Any) -> str:
    for frame in frames(eqn):
        if not frame.file_name.startswith(OURS):
            return f"{Path(frame.file_name).name}:{frame.start_line}"
    return "unknown"


def _known(args: Any) -> list[Known]:
    leaves = jax.tree.leaves(args)
    shapes = [np.shape(_shape(x)) for x in leaves]
    rows = next((s[0] for s in shapes if s), None)
    return [_argument(x, s, rows) for x, s in zip(leaves, shapes, strict=True)]


def _argument(x: Any, shape: tuple[int, ...], rows: int | None) -> Known:
    if isinstance(x, Marked) and x.visibility == "public":
        return Public(np.asarray(x.value))
    if not shape or shape[0] != rows:
        return UNKNOWN
    low, high = (0.0, 1.0) if np.dtype(_shape(x).dtype) == np.bool_ else (-INF, INF)
    return rows_of(low, high, math.prod(shape[1:]))


def _shape(x: Any) -> Any:
    if isinstance(x, bool | int | float):
        return x
    return jax.ShapeDtypeStruct(tuple(x.shape), x.dtype) if hasattr(x, "dtype") else np.asarray(x)


# Sensitivities that are left open ----------------------------------------------------------------------------------

_OPEN: ContextVar[Iterator[float] | None] = ContextVar("open sensitivities", default=None)


def open_sensitivity() -> float:
    """Of a mechanism without one: what was proved, or while that is being found a negative number of its own."""
    given = _OPEN.get()
    if given is None:
        raise InputError(
            "`sensitivity` is missing: state it, or let it be proved: `spu.dp.private(function)` and `Budget.reveal` "
            "do that."
        )
    return next(given)


@contextmanager
def _measuring() -> Iterator[None]:
    """Numbers the open ones from here on, if nobody does that already."""
    if _OPEN.get() is not None:
        yield
        return
    with _giving(-float(i + 1) for i in itertools.count()):
        yield


@contextmanager
def _giving(numbers: Iterator[float]) -> Iterator[None]:
    token = _OPEN.set(numbers)
    try:
        yield
    finally:
        _OPEN.reset(token)


def private(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with every sensitivity that it leaves open filled in by what is proved of it.

    Raises InputError, when it is traced, where nothing can be proved: clip the rows first, or state it.
    """

    @functools.wraps(function)
    def filled(*args: Any) -> Any:
        with _giving(iter(_proved(function, args))):
            return function(*args)

    return filled


def _proved(function: Callable[..., Any], args: Any) -> list[float]:
    """Of the open ones, in the order in which the function asks."""
    with _giving(-float(i + 1) for i in itertools.count()):
        closed = jax.make_jaxpr(function)(*jax.tree.map(_shape, args))
    bounds: dict[int, float] = {}

    def found(eqn: Any, known: Known) -> Known:
        if eqn.primitive.name == REVEAL:
            return known
        if eqn.params["sensitivity"] < 0:
            one: list[Finding] = []
            _found(one, eqn, known)
            if one[0].proved == INF:
                raise InputError(
                    f"{one[0].where}: nothing is known of how much a row changes here: clip the rows first "
                    "(`spu.dp.clip`), or state `sensitivity`."
                )
            if one[0].proved == 0:
                raise InputError(
                    f"{one[0].where}: no row changes what gets noise here, so there would be none: pass rows as "
                    "arguments of the function, not as values that it contains, or state `sensitivity`."
                )
            number = int(-eqn.params["sensitivity"]) - 1
            bounds[number] = max(bounds.get(number, 0.0), one[0].proved)
        return Public()

    follow(closed.jaxpr, _known(args), found, closed.consts)
    return [bounds[i] for i in range(len(bounds))]
