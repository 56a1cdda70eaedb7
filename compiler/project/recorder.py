"""The equations of a kernel: traced by `tracer`, and by `jax.make_jaxpr` what that does not know.

That is a kernel with effects or with derivatives of its own, and every kernel where JAX's classes are not those that
`tracer` stands on. Equations, their order and their results are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax

from spuvm.compiler.project.record import Record

record: Callable[..., Record] | None
try:
    from spuvm.compiler.project.tracer import record as _record

    record = _record
except (ImportError, AttributeError):  # another version of JAX
    record = None

left_to_jax: Counter[str] = Counter()  # kernels by what was lacking


def recorded(function: Callable[..., Sequence[Any]], avals: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """The jaxpr of a function of words that gives a flat tuple, and its constants."""
    try:
        return _recorded(function, avals), ()
    except Exception as lack:  # what is wrong with the kernel itself JAX meets, too
        closed = jax.make_jaxpr(function)(*avals)
        left_to_jax[f"{type(lack).__name__}: {lack}"] += 1
        return closed.jaxpr, closed.consts


def _recorded(function: Callable[..., Sequence[Any]], avals: Sequence[Any]) -> Record:
    if record is None:
        raise NotImplementedError("JAX's tracers are others in this version")
    return record(function, avals)
