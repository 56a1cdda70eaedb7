"""How much one row can change each value of a function: followed from clipping through sums, counts, linear maps.

Every value of the jaxpr is one of: `Public`, which no row changes; `Rows`, an array whose first axis are the rows, with
bounds of its elements and of a row's norms; `Total`, which a row that is there or not changes by at most so much. What
comes out of a mechanism is public. What cannot be followed has no bound, and whoever adds noise to it must state one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from spuvm.compiler.lower.jaxprs import bodies
from spuvm.dp.known import INF, UNKNOWN, Known, Public, Rows
from spuvm.dp.rules import RULES


def follow(
    jaxpr: Any, known: Sequence[Known], found: Callable[[Any, Known], Known], constants: Sequence[Any]
) -> list[Known]:
    """What is known of a jaxpr's results; `found` is asked at each mechanism and `spu.reveal`."""
    env: dict[Any, Known] = dict(zip(jaxpr.invars, known, strict=True))
    env |= {v: Public(np.asarray(c)) for v, c in zip(jaxpr.constvars, constants, strict=True)}

    def read(atom: Any) -> Known:
        return Public(np.asarray(atom.val)) if isinstance(atom, jax.extend.core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        ins = [read(a) for a in eqn.invars]
        env.update(zip(eqn.outvars, _equation(eqn, ins, found), strict=True))
    return [read(v) for v in jaxpr.outvars]


REVEAL = "spu_reveal"
ASKED = ("spu_laplace", "spu_gaussian", REVEAL)
CHOOSE = ("max", "min", "clamp", "select_n")  # among numbers that their type holds
CALLS = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call")


def _equation(eqn: Any, ins: list[Known], found: Callable[[Any, Known], Known]) -> list[Known]:
    name = eqn.primitive.name
    if name in ASKED:
        return [found(eqn, ins[0])]
    if name not in ("dot_general", "transpose"):
        ins = [UNKNOWN if isinstance(k, Rows) and k.turned else k for k in ins]
    inner = [] if name in RULES else list(bodies(eqn.params))
    if name in CALLS and len(inner) >= 1 and len(inner[0].invars) == len(ins):
        closed = next((v for v in eqn.params.values() if hasattr(v, "consts")), None)
        return follow(inner[0], ins, found, closed.consts if closed is not None else ())
    if inner:
        return _loop(eqn, inner, ins, found)
    if all(isinstance(k, Public) for k in ins):
        return (
            [Public(_constant(eqn, ins)) for _ in eqn.outvars]
            if len(eqn.outvars) == 1
            else [Public()] * len(eqn.outvars)
        )
    rule = RULES.get(name)
    if rule is None or len(eqn.outvars) != 1:
        return [UNKNOWN] * len(eqn.outvars)
    known = rule(eqn, ins)
    return [known if name in CHOOSE else _held(known, eqn.outvars[0].aval)]


def _held(known: Known, aval: Any) -> Known:
    """Rows of whole numbers that their type does not hold wrap around: they may be anything."""
    if not isinstance(known, Rows) or aval.dtype.kind not in "iu":
        return known
    info = np.iinfo(aval.dtype)
    if info.min <= known.low and known.high <= info.max:
        return known
    return Rows(-INF, INF, INF, INF, known.alike, known.turned)


def _loop(eqn: Any, inner: Sequence[Any], ins: list[Known], found: Callable[[Any, Known], Known]) -> list[Known]:
    """Control flow is not followed: what goes in has no bound inside, and mechanisms there are the caller's word."""
    public = all(isinstance(k, Public) for k in ins)
    inside = [Public() if public else UNKNOWN]
    outs = [follow(b, inside * len(b.invars), found, [0] * len(b.constvars)) for b in inner]
    if eqn.primitive.name == "scan" and eqn.params["length"] > 0 and len(outs[0]) == len(eqn.outvars):
        return [k if isinstance(k, Public) else UNKNOWN for k in outs[0]]  # what the last trip leaves
    return [Public() if public else UNKNOWN] * len(eqn.outvars)


def _constant(eqn: Any, ins: Sequence[Any]) -> Any:
    """The value of an operation on small constants, as far as that is easily had."""
    if math.prod(eqn.outvars[0].aval.shape) > 65536 or any(k.value is None for k in ins):
        return None
    try:
        with jax.ensure_compile_time_eval():
            return np.asarray(eqn.primitive.bind(*(k.value for k in ins), **eqn.params))
    except Exception:
        return None
