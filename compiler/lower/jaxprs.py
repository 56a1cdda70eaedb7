"""What a jaxpr consists of: the equations that count, and the bodies within them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jax.extend import core as jex


def live_equations(jaxpr: Any) -> list[Any]:
    """The equations whose results are used, in order."""
    used = {v for v in jaxpr.outvars if not isinstance(v, jex.Literal)}
    live = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(v in used for v in eqn.outvars):
            live.append(eqn)
            used.update(v for v in eqn.invars if not isinstance(v, jex.Literal))
    return live[::-1]


def draws(params: Mapping[str, Any]) -> bool:
    """Whether a body of an equation draws random values: then it is not computed on the host."""
    return any(e.primitive.name.startswith("spu_random") or draws(e.params) for b in bodies(params) for e in b.eqns)


def bodies(params: Mapping[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(one, "jaxpr", one)
            if hasattr(inner, "eqns"):
                yield inner
