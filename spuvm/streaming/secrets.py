"""Columns that are secrets of a machine already, such as a joined table's: a pass takes their shares by blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from spuvm.objects import SPUObject, components_for
from spuvm.runtime.errors import InputError
from spuvm.runtime.machine.components import aligned
from spuvm.streaming.block import Column, Part
from spuvm.vm import VM


@dataclass(frozen=True, eq=False)
class Secrets:
    """Columns by name, [rows, ...] each, all secrets of one machine."""

    columns: Mapping[str, SPUObject]

    @property
    def vm(self) -> VM:
        return next(iter(self.columns.values())).vm

    @property
    def rows(self) -> int:
        return int(next(iter(self.columns.values())).shape[0])

    @property
    def part(self) -> Part:
        """The columns as a block sees them."""
        return {n: Column(x.type.visibility, np.dtype(x.dtype).name, x.shape[1:]) for n, x in self.columns.items()}

    @property
    def digest(self) -> str:
        """Of the shares that this party holds: a run that goes on must find the same."""
        found = hashlib.sha256()
        for name, x in sorted(self.columns.items()):
            found.update(f"{name} {x.type} ".encode())
            for c in x.components:
                found.update(b"-" if c is None else np.ascontiguousarray(c).view(np.uint8).data)
        return found.hexdigest()

    def block(self, start: int, stop: int, types: Mapping[str, Any]) -> list[Any]:
        """The components of some rows, in the order of the columns' names.

        Args:
            types: by column, its type in the block's program.
        """
        out: list[Any] = []
        for name, type_ in types.items():
            x = self.columns[name]
            if x.type.with_(shape=()) != type_.with_(shape=()):
                raise InputError(
                    f"`sources`: `{name}` has a scale of its own, {x.type.with_(shape=())}, where blocks have "
                    f"{type_.with_(shape=())}: streams take the machine's usual scale."
                )
            parts = tuple(None if c is None else aligned(np.asarray(c)[start:stop]) for c in x.components)
            cut = SPUObject(parts, x.type.with_(shape=(stop - start, *x.type.shape[1:])), x.dtype, x.vm)
            out += components_for(cut, type_, name, x.vm)
        return out


def checked(columns: Mapping[str, Any]) -> Secrets:
    """InputError unless these are secrets of one machine with as many rows each, of types that blocks can have."""
    found = dict(columns)
    for name, x in found.items():
        if not isinstance(x, SPUObject):
            raise InputError(f"`sources`: `{name}` is a `{type(x).__name__}`, others are secrets: share it first.")
        if not x.shape or np.dtype(x.dtype).kind == "c" or x.valid is not None:
            raise InputError(f"`sources`: `{name}` must be an array [rows, ...] of real numbers, none NaN.")
        if jax.dtypes.canonicalize_dtype(x.dtype) != x.dtype:
            raise InputError(f"`sources`: `{name}` is {np.dtype(x.dtype).name}: switch jax_enable_x64 on for it.")
    if len({id(x.vm) for x in found.values()}) > 1:
        raise InputError("`sources` are secrets of several machines: use one SPU for all.")
    rows = {n: x.shape[0] for n, x in found.items()}
    if len(set(rows.values())) > 1:
        raise InputError(f"`sources` differ in rows: {', '.join(f'`{n}` has {r:,}' for n, r in rows.items())}.")
    return Secrets(found)
