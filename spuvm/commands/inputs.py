"""Inputs from files: as types to compile for, and as arrays for a program."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spuvm.commands.options import Input
from spuvm.commands.programs import Leaf, nearest, visibility
from spuvm.commands.results import who
from spuvm.compiler.compile import Program
from spuvm.compiler.lower.missing import SUFFIX
from spuvm.data import tables
from spuvm.data.tables import Table
from spuvm.runtime.errors import InputError, VisibilityError
from spuvm.runtime.protocols.registered import rank_names


def by_name(inputs: Sequence[Input]) -> dict[str, Input]:
    """The inputs by name; InputError if one is given twice."""
    found: dict[str, Input] = {}
    for x in inputs:
        if x.name in found:
            raise InputError(f"`--input`: `{x.name}` is given twice.")
        found[x.name] = x
    return found


def read(source: Input, missing: bool = False) -> Table:
    """The input's file, or its number as if it were one; with `missing`, NaN for empty cells."""
    if source.path is None:
        return Table(Path(source.name), (), (np.asarray(source.number),))
    return tables.read(source.path, source.columns, missing)


def leaf_of(source: Input, table: Table, x64: bool, missing: bool = False) -> Leaf:
    """The type that the table has by itself, a float if cells may be missing. A number without an owner is public."""
    struct: Any = jax.ShapeDtypeStruct
    dtype = np.dtype(np.float64 if x64 else np.float32) if missing else table.dtype(x64)
    if source.path is None:
        return Leaf(struct((), dtype, weak_type=True), source.who or "public")
    return Leaf(struct(table.shape, dtype), source.who or "secret")


def arrays(
    program: Program, inputs: Mapping[str, Input], read_already: Mapping[str, Table], party: str | None = None
) -> list[np.ndarray | None]:
    """The program's arguments in order; at a party, None for those of others.

    Raises InputError for names that the program does not have, missing ones, other owners, and data
    that do not fit.
    """
    module = program.module
    mine = None
    if party is not None:
        rank = rank_names(program.config).index(party)
        mine = {n for n, v in zip(module.inputs, module.body.params) if v.type.visibility in ("public", rank)}
        for name, value in zip(module.inputs, module.body.params):
            if value.type.is_secret:
                raise VisibilityError(unowned(name))
    check_names(program, inputs, mine)
    out: list[np.ndarray | None] = []
    for name, dtype, value in zip(module.inputs, module.input_dtypes, module.body.params):
        if mine is not None and name not in mine:
            out.append(None)
            continue
        given = name.removesuffix(SUFFIX)
        missing = name != given or name + SUFFIX in module.inputs
        table = read_already.get(given) or read(inputs[given], missing)
        if missing:
            table = table.numbers() if name != given else table.filled()
        out.append(table.array(jax.numpy.dtype(dtype), value.type.shape, given))
    return out


def check_names(program: Program, inputs: Mapping[str, Input], needed: Collection[str] | None = None) -> None:
    """Refuse inputs that the program does not have or whose owner is another, and missing ones.

    `needed` are the inputs that are to be given here, all of them if not said.
    """
    module, parties = program.module, program.config.members
    needed = module.inputs if needed is None else needed
    for name, source in inputs.items():
        if name not in module.inputs or name.endswith(SUFFIX):
            near = nearest(name, module.inputs)
            raise InputError(f"`--input`: the program has no input `{name}`{near}. It takes: {signature(program)}.")
        type_ = module.body.params[module.inputs.index(name)].type
        if source.who is not None and visibility(source.who, program.config) != type_.visibility:
            raise InputError(f"`--input`: `{name}` is {who(type_, parties)} in the program, not `@{source.who}`.")
        if name not in needed:
            assert isinstance(type_.visibility, int)
            owner = parties[type_.visibility]
            raise InputError(f"`--input`: `{name}` belongs to {owner}: only {owner} gives it.")
    for name in module.inputs:
        if name in needed and name not in inputs and not name.endswith(SUFFIX):
            raise InputError(f"`--input {name}=...` is missing. The program takes: {signature(program)}.")


def unowned(name: str) -> str:
    return (
        f"input `{name}` is secret and belongs to nobody, so no party can bring it: compile the program with "
        f"an owner, like `--arg '{name}=f32[...]@alice'` or `--input {name}=data.csv@alice`."
    )


def signature(program: Program) -> str:
    """The inputs in words: names, types, who knows them."""
    module = program.module
    return ", ".join(
        f"{name} {dtype}[{','.join(map(str, value.type.shape))}] {who(value.type, program.config.members)}"
        + (", cells may be missing" if name + SUFFIX in module.inputs else "")
        for name, dtype, value in zip(module.inputs, module.input_dtypes, module.body.params)
        if not name.endswith(SUFFIX)
    )
