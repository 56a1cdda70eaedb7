"""Arguments and results that may be NaN: leaves as users have them, and numbers and bools as programs take them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from spuvm.compiler.compile import Program
from spuvm.compiler.ir.dtypes import is_key
from spuvm.compiler.lower.missing import SUFFIX, validities
from spuvm.compiler.lower.prints import PRINTED, texts
from spuvm.objects import Marked, SPUObject
from spuvm.runtime.errors import UnsupportedError


def may_be_nan(leaf: Any) -> bool:
    """Whether an argument comes with a bool for each of its numbers. Integers and bools never do."""
    if isinstance(leaf, SPUObject):
        return leaf.valid is not None
    return isinstance(leaf, Marked) and leaf.missing and np.dtype(leaf.dtype).kind not in "iubc"


def positions(leaves: Sequence[Any]) -> tuple[int, ...]:
    return tuple(i for i, leaf in enumerate(leaves) if may_be_nan(leaf))


def apart(leaves: Sequence[Any]) -> list[Any]:
    """Numbers, and behind all of them what says of each argument that may be NaN where it is a number."""
    return [*map(_numbers, leaves), *(_validity(x) for x in leaves if may_be_nan(x))]


def _numbers(leaf: Any) -> Any:
    """0 stands for NaN; random keys are words."""
    if isinstance(leaf, Marked) and is_key(leaf.value):
        return dataclasses.replace(leaf, value=np.asarray(jax.random.key_data(leaf.value)))
    if isinstance(leaf, jax.Array) and is_key(leaf):
        return np.asarray(jax.random.key_data(leaf))
    if not isinstance(leaf, Marked) or not may_be_nan(leaf) or isinstance(leaf.value, jax.ShapeDtypeStruct):
        return leaf
    array = np.asarray(leaf.value)
    return dataclasses.replace(leaf, value=np.where(np.isnan(array), np.zeros_like(array), array), missing=False)


def _validity(leaf: Any) -> Any:
    if isinstance(leaf, SPUObject):
        return leaf.valid
    unknown = isinstance(leaf.value, jax.ShapeDtypeStruct)  # another party has the value
    struct: Any = jax.ShapeDtypeStruct
    value = struct(leaf.shape, np.bool_) if unknown else ~np.isnan(np.asarray(leaf.value))
    return Marked(value, leaf.visibility, leaf.identity and leaf.identity + SUFFIX)


def together(program: Program, results: Sequence[SPUObject]) -> list[SPUObject]:
    """A program's results: those that may be NaN with what says where they are numbers. What it prints is printed."""
    names = program.module.outputs
    valid = validities(names)
    found = [
        (name, dataclasses.replace(x, valid=results[valid[i]]) if i in valid else x)
        for i, (name, x) in enumerate(zip(names, results))
        if i not in valid.values()
    ]
    printed = [(name, x) for name, x in found if name.startswith(PRINTED) and x.parts[0] is not None]
    for text in texts([name for name, _ in printed], [x.known_value() for _, x in printed]):
        print(text)
    return [x for name, x in found if not name.startswith(PRINTED)]


def with_nan(program: Program, values: Mapping[int, Any]) -> dict[int, Any]:
    """Results in the clear by position: NaN where they are no numbers, as far as this is known here."""
    gone = {i: values[at] for i, at in validities(program.module.outputs).items() if i in values and at in values}
    return {i: np.where(gone[i], x, np.asarray(np.nan, x.dtype)) if i in gone else x for i, x in values.items()}


def numbers_only(program: Program) -> Program:
    """UnsupportedError if a result may be NaN, where what says so would be lost."""
    outputs = program.module.outputs
    for i in validities(outputs):
        raise UnsupportedError(
            f"result `{outputs[i]}` may be NaN, which is kept by `spu.jit` and devices alone: fill it in "
            "(`jnp.nan_to_num`), or return `jnp.isnan(x)` beside it."
        )
    return program
