"""The lowering rules of all families in one table, and what to say where there is none."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from spuvm.compiler.lower import (
    bits,
    composed,
    control,
    conv,
    derived,
    eigen,
    elementwise,
    gamma,
    index,
    linalg,
    logic,
    matrix_products,
    normal_tails,
    randomness,
    reduce,
    scatter,
    shape,
    sort,
    window,
)
from spuvm.compiler.lower.context import Rule


def merge(*families: Mapping[str, Rule]) -> dict[str, Rule]:
    """One table from several; a primitive with two rules is an error."""
    table: dict[str, Rule] = {}
    for family in families:
        twice = table.keys() & family.keys()
        if twice:
            raise ValueError(f"primitives registered twice: {sorted(twice)}")
        table.update(family)
    return table


RULES = merge(
    elementwise.RULES,
    logic.RULES,
    composed.RULES,
    gamma.RULES,
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
    randomness.RULES,
    index.RULES,
    scatter.RULES,
    control.RULES,
)

# Calls that are lowered where they stand.
INLINED = frozenset(control.INLINED)

# Primitives whose rule runs even if all operands are known.
UNFOLDED = INLINED | {*randomness.NAMES, "spu_reveal", "spu_masked"}

PRINTED = "Secret values cannot be printed: reveal and return them."

# primitive -> what to do instead
ADVICE = {
    "nextafter": "Neighbouring floats have no meaning in fixed point: add a small constant.",
    "random_bits": "A secret random key cannot be used: make the key from a constant inside the function.",
    "random_seed": "The seed must be a constant of the function (or a static argument).",
    "random_wrap": "The key must be a constant of the function (or a static argument).",
    "threefry2x32": "The key must be a constant of the function (or a static argument).",
    "debug_callback": PRINTED,
    "debug_print": PRINTED,
    "pure_callback": "Python callbacks cannot run on secret values: compute outside, or in JAX.",
    "io_callback": "Python callbacks cannot run on secret values: compute outside, or in JAX.",
    **dict.fromkeys(
        ("eig", "schur", "hessenberg"),
        "Eigenvalues of a general matrix may be complex, and how many steps they take depends on the data: use "
        "eigh if the matrix is symmetric, or a fixed number of power iterations.",
    ),
    **dict.fromkeys(
        ("igamma", "igammac", "regularized_incomplete_beta", "random_gamma_grad"),
        "Its series runs until it converges, which depends on the data: sum a fixed number of terms, from lgamma "
        "and exp, or integrate the density with jnp.trapezoid on a fixed grid.",
    ),
    **dict.fromkeys(
        ("bessel_i0e", "bessel_i1e", "bessel_jn"),
        "Bessel functions have no approximation here: use a polynomial for the range of your data.",
    ),
    **dict.fromkeys(
        ("polygamma", "zeta"),
        "Of the derivatives of lgamma only digamma is there: for its slope, take the difference of two of its values.",
    ),
    "tridiagonal_solve": "Use jnp.linalg.solve on the whole matrix.",
    "cholesky_update": "Use jnp.linalg.cholesky on the updated matrix.",
    "ragged_dot_general": "Use a dot_general for each group.",
}


def nearest(name: str) -> str:
    """Advice for a primitive without a rule: written advice, or the supported names most like it."""
    if name in ADVICE:
        return ADVICE[name]
    close = difflib.get_close_matches(name, RULES, n=3)
    if not close:
        return "Compose it from supported operations, or compute it in the clear at the owner of its data."
    return f"The nearest supported: {', '.join(f'`{c}`' for c in close)}."
