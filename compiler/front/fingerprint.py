"""A name for what a traced function compiles to: equal for equal programs, in any process of this machine.

It covers the equations with their source lines, constants, names, visibilities and configuration. The
version of the compiler and of JAX is the cache folder's (see `diskcache`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from spuvm.compiler.front.trace import Traced, location_of
from spuvm.compiler.ir.dtypes import is_key
from spuvm.compiler.ir.module import Visibility
from spuvm.runtime.config import Config

ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def fingerprint(
    traced: Traced,
    visibilities: Sequence[Visibility],
    config: Config,
    masked: Collection[int] = (),
    finer: Sequence[int] = (),
    bounds: Sequence[float | None] = (),
    keeps_scales: bool = False,
    guard: bool = False,
    missing: Collection[int] = (),
    ranges: object = None,
) -> str:
    """Hexadecimal SHA-256 of all that `lower` sees."""
    writer = _Writer()
    names = traced.name, traced.inputs, traced.outputs, str(traced.location)
    given = tuple(visibilities), sorted(masked), tuple(finer), tuple(bounds), sorted(missing)
    writer.text(repr((names, traced.x64, config, *given, keeps_scales, guard, ranges)))
    writer.value(traced.jaxpr)
    return writer.digest.hexdigest()


class _Writer:
    """Writes values into a digest, each with its type and length before it."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.seen: dict[int, int] = {}  # a jaxpr that occurs again is written as its number
        self.kept: list[Any] = []  # so that no id is used twice

    def text(self, text: str) -> None:
        content = text.encode()
        self.digest.update(b"%d " % len(content) + content)

    def value(self, x: Any) -> None:
        """A constant, or a parameter of an equation."""
        if isinstance(x, jex.ClosedJaxpr):
            self.text("closed")
            self.jaxpr(x.jaxpr)
            self.value(tuple(x.consts))
        elif isinstance(x, jex.Jaxpr):
            self.jaxpr(x)
        elif isinstance(x, np.ndarray | jax.Array):
            array = np.asarray(jax.random.key_data(x) if is_key(x) else x)
            self.text(f"array {getattr(x, 'dtype', '')} {array.dtype} {array.shape}")
            self.digest.update(np.ascontiguousarray(array).tobytes())
        elif isinstance(x, tuple | list) and not hasattr(x, "_fields"):
            self.text(f"sequence {len(x)}")
            for item in x:
                self.value(item)
        elif isinstance(x, Mapping):
            self.text(f"mapping {len(x)}")
            for key, item in x.items():
                self.text(repr(key))
                self.value(item)
        else:  # numbers, names, dimension numbers; of a function, its name: what it does is in the jaxprs
            self.text(ADDRESS.sub("", f"{type(x).__name__} {x!r}"))

    def jaxpr(self, jaxpr: Any) -> None:
        if id(jaxpr) in self.seen:
            self.text(f"jaxpr {self.seen[id(jaxpr)]}")
            return
        self.seen[id(jaxpr)] = len(self.seen)
        self.kept.append(jaxpr)
        numbers: dict[Any, int] = {}
        for variable in (*jaxpr.constvars, *jaxpr.invars):
            self.define(variable, numbers)
        for eqn in jaxpr.eqns:
            self.text(f"{eqn.primitive.name} {location_of(eqn, jaxpr)}")
            for operand in eqn.invars:
                self.read(operand, numbers)
            self.value(eqn.params)
            for variable in eqn.outvars:
                self.define(variable, numbers)
        self.text("results")
        for result in jaxpr.outvars:
            self.read(result, numbers)

    def define(self, variable: Any, numbers: dict[Any, int]) -> None:
        numbers[variable] = len(numbers)
        self.text(variable.aval.str_short())

    def read(self, operand: Any, numbers: dict[Any, int]) -> None:
        if isinstance(operand, jex.Literal):
            self.value(np.asarray(operand.val, getattr(operand.aval, "dtype", None)))
        else:
            self.text(str(numbers[operand]))
