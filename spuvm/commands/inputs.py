"""Inputs from files: as types to compile for, and as arrays for a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spuvm import tables
from spuvm.commands.options import Input
from spuvm.commands.programs import Leaf, nearest, visibility
from spuvm.commands.results import who
from spuvm.compiler.compile import Program
from spuvm.compiler.ir import Visibility
from spuvm.runtime.errors import InputError, VisibilityError
from spuvm.tables import Table


def by_name(inputs: Sequence[Input]) -> dict[str, Input]:
    """The inputs by name; InputError if one is given twice."""
    found: dict[str, Input] = {}
    for x in inputs:
        if x.name in found:
            raise InputError(f"`--input`: `{x.name}` is given twice.")
        found[x.name] = x
    return found


def read(source: Input) -> Table:
    """The input's file, or its number as if it were one."""
    if source.path is None:
        return Table(Path(source.name), (), (np.asarray(source.number),))
    return tables.read(source.path, source.columns)


def leaf_of(source: Input, table: Table, x64: bool) -> Leaf:
    """The type that the table has by itself. A number is public unless it has an owner."""
    struct: Any = jax.ShapeDtypeStruct
    if source.path is None:
        return Leaf(struct((), table.dtype(x64), weak_type=True), source.who or "public")
    return Leaf(struct(table.shape, table.dtype(x64)), source.who or "secret")


def arrays(
    program: Program, inputs: Mapping[str, Input], read_already: Mapping[str, Table], party: str | None = None
) -> list[np.ndarray | None]:
    """The program's arguments in order; at a party, None for those of others.

    Raises InputError for names that the program does not have, missing ones, other owners, and data
    that do not fit.
    """
    module, parties = program.module, program.config.parties
    for name in inputs:
        if name not in module.inputs:
            near = nearest(name, module.inputs)
            raise InputError(f"`--input`: the program has no input `{name}`{near}. It takes: {signature(program)}.")
    out: list[np.ndarray | None] = []
    for name, dtype, value in zip(module.inputs, module.input_dtypes, module.body.params):
        given = inputs.get(name)
        knows = value.type.visibility
        if given is not None and given.who is not None and visibility(given.who, program.config) != knows:
            raise InputError(f"`--input`: `{name}` is {who(value.type, parties)} in the program, not `@{given.who}`.")
        if party is not None and not _needed_at(party, name, knows, parties, given is not None):
            out.append(None)
            continue
        if given is None:
            raise InputError(f"`--input {name}=...` is missing. The program takes: {signature(program)}.")
        table = read_already.get(name) or read(given)
        out.append(table.array(jax.numpy.dtype(dtype), value.type.shape, name))
    return out


def _needed_at(party: str, name: str, knows: Visibility, parties: Sequence[str], given: bool) -> bool:
    """Whether a party has to bring the input; raises if it brings another's."""
    if knows == "public":
        return True
    if isinstance(knows, int):
        if given and parties[knows] != party:
            raise InputError(f"`--input`: `{name}` belongs to {parties[knows]}: only {parties[knows]} gives it.")
        return parties[knows] == party
    raise VisibilityError(unowned(name))


def unowned(name: str) -> str:
    return (
        f"input `{name}` is secret and belongs to nobody, so no party can bring it: compile the program with "
        f"an owner, like `--arg '{name}=f32[...]@alice'` or `--input {name}=data.csv@alice`."
    )


def signature(program: Program) -> str:
    """The inputs in words: names, types, who knows them."""
    module = program.module
    return ", ".join(
        f"{name} {dtype}[{','.join(map(str, value.type.shape))}] {who(value.type, program.config.parties)}"
        for name, dtype, value in zip(module.inputs, module.input_dtypes, module.body.params)
    )
