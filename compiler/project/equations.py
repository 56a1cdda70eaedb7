"""The equations of a traced kernel, one after another: calls are inlined, constants are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend import core as jex

from spuvm.compiler.expand.choreography import Ranks
from spuvm.compiler.project.record import Recorded, Value
from spuvm.compiler.project.stage_function import Known
from spuvm.runtime.engine.correlated import ranks
from spuvm.runtime.engine.primitives import confirm_p, random_p, send_p

Atom = Any  # a jaxpr variable or literal
INLINED = {"pjit", "jit", "closed_call", "custom_jvp_call"}


def is_variable(atom: Atom) -> bool:
    return not isinstance(atom, jex.Literal | Known)


def equations_of(jaxpr: Any, rename: dict[Any, Atom]) -> Iterator[tuple[Any, Sequence[Atom], Sequence[Any]]]:
    """The equations in order, calls of named sub-functions inlined, variables renamed to match."""

    def resolve(atom: Atom) -> Atom:
        return atom if isinstance(atom, jex.Literal) else rename.get(atom, atom)

    for eqn in jaxpr.eqns:
        ins = [resolve(a) for a in eqn.invars] if rename else eqn.invars
        if eqn.primitive.name in INLINED:
            closed = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
            inner: dict[Any, Atom] = dict(zip(closed.jaxpr.invars, ins))
            inner |= {v: Known(c) for v, c in zip(closed.jaxpr.constvars, closed.consts)}
            yield from equations_of(closed.jaxpr, inner)
            for var, out in zip(eqn.outvars, closed.jaxpr.outvars):
                rename[var] = out if isinstance(out, jex.Literal) else inner.get(out, out)
        elif isinstance(eqn, Recorded):
            yield eqn, ins, eqn.outvars
        else:
            outs = [Value(v.aval) for v in eqn.outvars]  # JAX shares the jaxpr of a function called twice
            rename.update(zip(eqn.outvars, outs))
            yield eqn, ins, outs


def named_ranks(equation: tuple[Any, Sequence[Atom], Sequence[Any]]) -> Ranks:
    """The ranks that a `send` or `random` names: a dealer holds no component, but takes part."""
    eqn = equation[0]
    if eqn.primitive is send_p:
        return frozenset({eqn.params["src"], eqn.params["dst"]})
    if eqn.primitive is confirm_p:
        return frozenset({eqn.params["by"], eqn.params["to"]})
    return ranks(eqn.params["holders"]) if eqn.primitive is random_p else frozenset()


def bind_equation(eqn: Any, arguments: Sequence[Any]) -> Any:
    """Apply a jaxpr equation; JAX before 0.9 hands sub-functions over separately."""
    bound = eqn.primitive.get_bind_params(eqn.params)
    subfuns, params = bound if isinstance(bound, tuple) else ((), bound)
    return eqn.primitive.bind(*subfuns, *arguments, **params)


def constant(atom: Atom) -> Known:
    return Known(atom.val) if isinstance(atom, jex.Literal) else atom
