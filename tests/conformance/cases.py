"""The table: every primitive that has a rule, and those that are refused."""

from __future__ import annotations

from conformance.cases_arrays import INDEXED, PRODUCTS, REDUCTIONS, SHAPES, WINDOWS
from conformance.cases_elementwise import ARITHMETIC, FUNCTIONS, LOGIC
from conformance.cases_programs import CONTROL, LINALG, REFUSED
from conformance.cases_tables import TABLES
from conformance.table import Case

CASES: tuple[Case, ...] = (
    *ARITHMETIC,
    *FUNCTIONS,
    *LOGIC,
    *SHAPES,
    *REDUCTIONS,
    *PRODUCTS,
    *WINDOWS,
    *INDEXED,
    *TABLES,
    *LINALG,
    *CONTROL,
    *REFUSED,
)

# Names of primitives that are shown by the case of another: other spellings of a call, and parts of rules.
SAME_AS = {
    **dict.fromkeys(("pjit", "call", "closed_call", "core_call", "composite"), "jit"),
    **dict.fromkeys(("remat", "remat2"), "checkpoint"),
    "add_any": "add",
    **dict.fromkeys(("spu_masked", "spu_bound", "spu_printed"), "copy"),
    "debug_print": "debug_callback",
    "threefry2x32": "random_bits",
    "copy_p": "copy",
    **dict.fromkeys(("name", "pvary", "sharding_constraint"), "copy"),
    "spu_arc": "atan",
    "spu_erf_inv_ratio": "erf_inv",
    "spu_erfc_tail": "erfc",
    "spu_lgamma_near": "lgamma",
    "spu_digamma_near": "digamma",
    **dict.fromkeys(("spu_random_bits", "spu_random_uniform"), "random_bits"),  # nothing to compare a draw with
    **dict.fromkeys(("spu_laplace", "spu_gaussian", "spu_rows_shuffle"), "random_bits"),
    **dict.fromkeys(("spu_norm", "spu_over", "spu_over_root", "spu_unit"), "qr"),
}
