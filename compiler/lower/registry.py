"""The lowering rules of all families in one table; what to say where there is none is in advice.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spuvm.compiler.lower import (
    bessel,
    bits,
    composed,
    control,
    conv,
    derived,
    eigen,
    elementwise,
    gamma,
    incomplete,
    index,
    linalg,
    logic,
    matrix_products,
    noise,
    normal_tails,
    prints,
    randomness,
    reduce,
    rows,
    scatter,
    shape,
    sort,
    threefry,
    window,
    zeta,
)
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.infinite import MOVING


def merge(*families: Mapping[str, Rule]) -> dict[str, Rule]:
    """One table from several; a primitive with two rules is an error."""
    table: dict[str, Rule] = {}
    for family in families:
        twice = table.keys() & family.keys()
        if twice:
            raise ValueError(f"primitives registered twice: {sorted(twice)}")
        table.update(family)
    return table


def moving(rule: Rule) -> Rule:
    """The rule, with finite stand-ins for infinities among its operands."""

    def moved(ctx: Context, *xs: Operand, **params: Any) -> Any:
        return rule(ctx, *(elementwise.finite(ctx, x) for x in xs), **params)

    return moved


RULES = merge(
    elementwise.RULES,
    logic.RULES,
    composed.RULES,
    gamma.RULES,
    incomplete.RULES,
    zeta.RULES,
    bessel.RULES,
    normal_tails.RULES,
    bits.RULES,
    matrix_products.RULES,
    linalg.RULES,
    eigen.RULES,
    shape.RULES,
    reduce.RULES,
    sort.RULES,
    conv.RULES,
    window.RULES,
    derived.RULES,
    prints.RULES,
    randomness.RULES,
    threefry.RULES,
    noise.RULES,
    rows.RULES,
    index.RULES,
    scatter.RULES,
    control.RULES,
)
RULES.update({name: moving(RULES[name]) for name in MOVING if name in RULES})

# Calls that are lowered where they stand.
INLINED = frozenset(control.INLINED)

# Primitives whose rule runs even if all operands are known.
UNFOLDED = INLINED | {
    *randomness.NAMES,
    *noise.NAMES,
    *rows.NAMES,
    "spu_reveal",
    "spu_masked",
    "spu_bound",
    "debug_print",
}
