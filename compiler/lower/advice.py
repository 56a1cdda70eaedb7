"""What to do instead, where a primitive has no rule."""

from __future__ import annotations

import difflib
from collections.abc import Collection

PRINTED = "Secret values cannot be printed: reveal and return them."

# primitive -> what to do instead
ADVICE = {
    "nextafter": "Neighbouring floats have no meaning in fixed point: add a small constant.",
    "debug_callback": PRINTED,
    "pure_callback": "Python callbacks cannot run on secret values: compute outside, or in JAX.",
    "io_callback": "Python callbacks cannot run on secret values: compute outside, or in JAX.",
    **dict.fromkeys(
        ("eig", "schur", "hessenberg"),
        "Eigenvalues of a general matrix may be complex, and how many steps they take depends on the data: use "
        "eigh if the matrix is symmetric, or a fixed number of power iterations.",
    ),
    **dict.fromkeys(
        ("igamma_grad_a", "random_gamma_grad"),
        "Its series runs until it converges, which depends on the data: take the difference of two values of "
        "`gammainc` whose first arguments are near.",
    ),
    "bessel_jn": "This Bessel function has no approximation here: use a polynomial for the range of your data.",
    "tridiagonal_solve": "Use jnp.linalg.solve on the whole matrix.",
    "cholesky_update": "Use jnp.linalg.cholesky on the updated matrix.",
    "ragged_dot_general": "Use a dot_general for each group.",
}


def nearest(name: str, supported: Collection[str]) -> str:
    """Advice for a primitive without a rule: written advice, or the supported names most like it."""
    if name in ADVICE:
        return ADVICE[name]
    close = difflib.get_close_matches(name, supported, n=3)
    if not close:
        return "Compose it from supported operations, or compute it in the clear at the owner of its data."
    return f"The nearest supported: {', '.join(f'`{c}`' for c in close)}."
