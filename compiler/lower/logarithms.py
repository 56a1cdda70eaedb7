"""Logarithms of exponentials, sigmoids and their quotients, as differences: a jaxpr without small probabilities.

ln softmax(x), ln sigmoid(x), ln(1 - p), ln(p + 1e-7), ln clip(p, 1e-7, 1) and what `jax.grad` makes of them, (y / p) p,
lose what is below a unit of p, 2^-18, where float32 has 1e-38. So a jaxpr that takes logarithms is evaluated with the
products that its numbers are (lower/monomials.py, lower/logarithm_rules.py), and traced anew: ln (e^a / s) = a - ln s,
ln logistic(x) = -softplus(-x), (y / p) (p (1 - p)) = y (1 - p). So is one that divides one number by a sum, as
gradients of quotients of sums do: the sum is made before. Where nothing of the kind occurs it stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from spuvm.compiler.front.private_jax import JAX_FILES, SPECIAL_FUNCTIONS
from spuvm.compiler.ir.module import Location
from spuvm.compiler.lower.control import own_rule
from spuvm.compiler.lower.evaluation import INLINED, bind, evaluate, struct_of
from spuvm.compiler.lower.folded import fold
from spuvm.compiler.lower.jaxprs import bodies, draws
from spuvm.compiler.lower.known_numbers import Known
from spuvm.compiler.lower.logarithm_rules import RULES
from spuvm.compiler.lower.monomials import Form, value_of

BODIES = {"scan": ("jaxpr",), "while": ("cond_jaxpr", "body_jaxpr"), "cond": ("branches",)}


def without_small_probabilities(closed: Any) -> Any:
    """The same function of real numbers, of a jaxpr or a closed one."""
    logarithms = _mentions(closed, "log", "log1p") and _mentions(closed, "exp", "logistic")
    if not logarithms and not _divides_by_one(closed):
        return closed
    evaluation = _Evaluation()
    given = closed if isinstance(closed, jex.ClosedJaxpr) else jex.ClosedJaxpr(closed, ())
    again = jax.make_jaxpr(lambda *args: [value_of(x) for x in evaluation.run(given, args)])(
        *map(struct_of, given.in_avals)
    )
    if not evaluation.known.changes:
        return closed
    again = _once(again)
    return again if isinstance(closed, jex.ClosedJaxpr) or again.consts else again.jaxpr


def _once(closed: jex.ClosedJaxpr) -> jex.ClosedJaxpr:
    """Equal equations once: what atoms are computed by is wherever it was wanted."""
    seen: dict[Any, tuple[list[Any], list[Any]]] = {}

    def name_of(x: Any) -> Any:
        return (x.dtype.str, x.shape, x.tobytes()) if isinstance(x, np.ndarray) and x.size <= 1 else id(x)

    def equation(eqn: Any, args: list[Any], line: Location | None) -> list[Any]:
        if eqn.effects or any(True for _ in bodies(eqn.params)) or eqn.primitive.name.startswith("spu_"):
            return bind(eqn, args, eqn.params)
        key = (eqn.primitive.name, repr(eqn.params), *map(name_of, args))
        if key not in seen:
            seen[key] = (bind(eqn, args, eqn.params), args)  # operands stay, so that no other gets their names
        return seen[key][0]

    return jax.make_jaxpr(lambda *args: evaluate(closed, args, equation))(*map(struct_of, closed.in_avals))


def _mentions(closed: Any, *names: str) -> bool:
    """Whether one of these primitives occurs in a jaxpr, or in one that it calls."""
    jaxpr = getattr(closed, "jaxpr", closed)
    return any(
        e.primitive.name in names or any(_mentions(inner, *names) for inner in bodies(e.params)) for e in jaxpr.eqns
    )


def _divides_by_one(closed: Any) -> bool:
    """Whether one number is divided by another, as where gradients of quotients of sums begin."""
    jaxpr = getattr(closed, "jaxpr", closed)
    names = {e.primitive.name for e in jaxpr.eqns}
    if not names.isdisjoint(("reduce_sum", "dot_general")) and any(_is_quotient(e) for e in jaxpr.eqns):
        return True
    return any(_divides_by_one(inner) for e in jaxpr.eqns for inner in bodies(e.params))


def _is_quotient(eqn: Any) -> bool:
    if eqn.primitive.name != "div":
        return False
    below = eqn.invars[-1]
    return not isinstance(below, jex.Literal) and bool(below.aval.size == 1)


class _Evaluation:
    """`known` is of all numbers of one trace."""

    def __init__(self) -> None:
        self.known = Known()

    def run(self, closed: Any, args: Sequence[Any]) -> list[Any]:
        return evaluate(closed, args, self._equation)

    def _equation(self, eqn: Any, args: list[Any], line: Location | None) -> list[Any]:
        name, numbers = eqn.primitive.name, [value_of(x) for x in args]
        if name in BODIES:
            found = {k: self._of_bodies(eqn.params[k]) for k in BODIES[name]}
            return bind(eqn, numbers, {**eqn.params, **found})
        body = next((eqn.params[k] for k in INLINED if k in eqn.params), None)
        if body is not None:
            return self.run(body, args) if self._opens(eqn, body, args) else bind(eqn, numbers, eqn.params)
        known = all(isinstance(x, np.ndarray) for x in numbers)
        if known and not draws(eqn.params) and not name.startswith("spu_") and not eqn.effects:
            return fold(eqn, numbers)
        outs = bind(eqn, numbers, eqn.params)
        self.known.note(eqn, numbers, outs)
        rule = RULES.get(name)
        form = rule(self.known, eqn, outs[0], *args) if rule and eqn.outvars[0].aval.dtype.kind in "fb" else None
        return outs if form is None else [form]

    def _of_bodies(self, found: Any) -> Any:
        if isinstance(found, tuple):
            return tuple(map(self._of_bodies, found))
        again = without_small_probabilities(found)
        self.known.changes += again is not found
        return again

    def _opens(self, eqn: Any, body: Any, args: list[Any]) -> bool:
        """Whether a call is evaluated where it stands: not what has a rule of its own, or is a special function."""
        inner = getattr(body, "jaxpr", body)
        if own_rule(eqn.params, inner) is not None or ("prevent_cse" in eqn.params and draws(eqn.params)):
            return False  # what `jax.checkpoint` computes again draws other numbers, and is refused
        if (inner.debug_info.func_filename or "").startswith(SPECIAL_FUNCTIONS):
            return False
        forms = any(isinstance(x, Form) for x in args)
        ours = not (inner.debug_info.func_filename or "").startswith(JAX_FILES)
        return forms or ours or _mentions(inner, "exp", "logistic", "log", "log1p", "div")
