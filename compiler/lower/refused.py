"""Functions that JAX composes of supported primitives, in a form that fixed point does not carry: refused by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from spuvm.compiler.lower.context import Context, Operand
from spuvm.runtime.errors import UnsupportedError

_RATIONAL = "JAX's form of it has quotients of polynomials whose coefficients fixed point does not hold"
_OF_DATA = "use a polynomial for the range of your data"

# name of a function that JAX calls -> why there is none on secret values, and what to write instead
REASONS: dict[str, str] = {
    **{name: f"{_RATIONAL} ({name.strip('_')}): {_OF_DATA}." for name in ("fresnel", "sici", "_dawsn")},
    "bessel_jn": f"this Bessel function has no approximation here (bessel_jn): {_OF_DATA}.",
}


def _refused(reason: str) -> Callable[[Context, Sequence[Operand], Any], None]:
    def rule(ctx: Context, args: Sequence[Operand], closed: Any) -> None:
        raise UnsupportedError(reason)

    return rule


CALLS = {name: _refused(reason) for name, reason in REASONS.items()}
