"""Numbers that may be NaN as pairs: a function without NaN, before it is lowered.

NaN marks what is missing: `where(m, x, nan)`, an input with missing entries. Such a value becomes a pair of a number
and a bool that says whether it is one, as secret as what it comes from. Equations are evaluated on pairs and traced
anew, each at its own source line; a function in which nothing is NaN stays as it is. What operations do to pairs is in
lower/missing_rules.py. A result that may be NaN becomes two: the number, 0 where there is none, and the bool.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend import core as jex

from spuvm.compiler.front.trace import Traced
from spuvm.compiler.ir.module import Location
from spuvm.compiler.lower.context import dtype_of, is_special
from spuvm.compiler.lower.control import own_rule
from spuvm.compiler.lower.evaluation import INLINED, bind, evaluate, struct_of
from spuvm.compiler.lower.folded import constant_of, fold
from spuvm.compiler.lower.jaxprs import bodies, draws
from spuvm.compiler.lower.missing_rules import RULES, Facts, Maybe, constant, is_known, paired, shown
from spuvm.runtime.errors import UnsupportedError

SUFFIX = " is a number"  # what the name of a validity has after that of its value
FILL = "numbers that may be NaN: fill them in before (`jnp.nan_to_num(x)`, `jnp.where(jnp.isnan(x), 0, x)`)."
LOGICAL = ("and", "or", "not")


def without_missing(traced: Traced, missing: Collection[int] = ()) -> Traced:
    """The same function on numbers; inputs at `missing` have a bool each, behind all inputs, and so have results."""
    closed = traced.jaxpr
    if not missing and not _mentions(closed, []):
        return traced
    where = sorted(missing)
    names: list[str] = []

    def numbers(*args: Any) -> list[Any]:
        given = list(args[: len(closed.in_avals)])
        for i, valid in zip(where, args[len(given) :]):
            given[i] = Maybe(given[i], valid)
        outs = [constant(x) for x in _Evaluation().run(closed, given)]
        names[:] = [name for name, x in zip(traced.outputs, outs) if isinstance(x, Maybe)]
        return [shown(x) if isinstance(x, Maybe) else x for x in outs] + [x.valid for x in outs if isinstance(x, Maybe)]

    validity = [jax.ShapeDtypeStruct(closed.in_avals[i].shape, np.bool_) for i in where]
    again = jax.make_jaxpr(numbers)(*map(struct_of, closed.in_avals), *validity)
    inputs = (*traced.inputs, *(traced.inputs[i] + SUFFIX for i in where))
    return dataclasses.replace(
        traced, jaxpr=again, inputs=inputs, outputs=(*traced.outputs, *(name + SUFFIX for name in names))
    )


def validities(names: Sequence[str]) -> dict[int, int]:
    """By position of a result that may be NaN, the position of what says whether it is a number."""
    first = {name: i for i, name in reversed(list(enumerate(names)))}
    return {
        first[name.removesuffix(SUFFIX)]: i
        for i, name in enumerate(names)
        if name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in first
    }


def _mentions(closed: Any, calls: list[Any]) -> bool:
    """Whether NaN is written in a jaxpr, other than where JAX's special functions say it beyond their domain."""
    jaxpr = getattr(closed, "jaxpr", closed)
    return any(map(_is_nan, getattr(closed, "consts", ()))) or any(_says_nan(e, [*calls, e]) for e in jaxpr.eqns)


def _says_nan(eqn: Any, calls: list[Any]) -> bool:
    if any(isinstance(v, jex.Literal) and _is_nan(v.val) for v in eqn.invars) and not is_special(calls):
        return True
    return not _is_ours(eqn) and any(_mentions(x, calls) for x in _inner(eqn))


def _inner(eqn: Any) -> list[Any]:
    """The jaxprs among an equation's parameters, with their constants."""
    found = (one for v in eqn.params.values() for one in (v if isinstance(v, tuple | list) else (v,)))
    return [x for x in found if hasattr(getattr(x, "jaxpr", x), "eqns")]


def _is_ours(eqn: Any) -> bool:
    """A call of a function of JAX's that has a rule of its own."""
    inner = next(bodies(eqn.params), None)
    return inner is not None and own_rule(eqn.params, inner) is not None


def _is_nan(x: Any) -> bool:
    return isinstance(constant(constant_of(x)), Maybe)


class _Evaluation:
    """One function, or one body of it, evaluated on pairs; `calls` are the equations that it is a part of."""

    def __init__(self, facts: Facts | None = None, calls: Sequence[Any] = (), location: Any = "unknown") -> None:
        self.facts = facts or Facts()
        self.calls = list(calls)
        self.location = location

    def run(self, closed: Any, args: Sequence[Any]) -> list[Any]:
        return evaluate(closed, args, self._called)

    def of_body(self) -> _Evaluation:
        """The evaluation of a body of the equation at hand."""
        return _Evaluation(calls=self.calls, location=self.location)

    def _called(self, eqn: Any, args: list[Any], line: Location | None) -> list[Any]:
        self.calls.append(eqn)
        self.location = line or self.location
        outs = self._equation(eqn, args)
        self.calls.pop()
        return outs

    def _equation(self, eqn: Any, args: list[Any]) -> list[Any]:
        name = eqn.primitive.name
        known = all(map(is_known, args))
        touched = any(map(_may_be_nan, args)) or any(_mentions(x, self.calls) for x in _inner(eqn))
        if name in CONTROL:
            return CONTROL[name](self, args, eqn.params) if touched else bind(eqn, args, eqn.params)
        body = next((eqn.params[k] for k in INLINED if k in eqn.params), None)
        if body is not None:
            return self.run(body, args) if touched or known else bind(eqn, args, eqn.params)
        if known and not draws(eqn.params) and not name.startswith("spu_") and not eqn.effects:
            return fold(eqn, args)
        if name == "select_n" and not any(isinstance(x, Maybe) for x in args) and is_special(self.calls):
            args = [_without_nan(x) for x in args]
        out = self._applied(eqn, args)
        if name in LOGICAL and dtype_of(eqn.outvars[0].aval) == np.bool_:
            self.facts.said(name, args, out[0])
        return out

    def _applied(self, eqn: Any, args: list[Any]) -> list[Any]:
        name = eqn.primitive.name
        if name == "div" and self._is_mean:
            (out,) = bind(eqn, args, eqn.params)
            return [paired(out, args[1] != 0)]
        if not any(map(_may_be_nan, args)) and name not in ("eq", "ne"):
            return bind(eqn, args, eqn.params)
        if name not in RULES:
            raise UnsupportedError(f"{self.location}: `{name}`: not for {FILL}")
        out = RULES[name](self.facts, *(args if name == "select_n" else map(constant, args)), eqn=eqn, **eqn.params)
        return list(out) if eqn.primitive.multiple_results else [out]

    @property
    def _is_mean(self) -> bool:
        """Whether the equation at hand is one of `jnp.nanmean`, which divides by how many numbers there are."""
        return len(self.calls) > 1 and self.calls[-2].params.get("name") == "nanmean"


def _may_be_nan(x: Any) -> bool:
    return isinstance(x, Maybe) or (is_known(x) and _is_nan(x))


def _without_nan(x: Any) -> Any:
    """Beyond the domain of JAX's special functions 0 stands for NaN."""
    return constant(x).value if is_known(x) and _is_nan(x) else x


# control -----------------------------------------------------------------------------------------------------


def _as_flagged(x: Any, flag: bool) -> Any:
    """An operand of a body as a pair where one is wanted."""
    x = constant(x)
    if not flag or isinstance(x, Maybe):
        return x
    return Maybe(x, np.ones(np.shape(x), bool))


def _flags(xs: Sequence[Any]) -> list[bool]:
    return [isinstance(constant(x), Maybe) for x in xs]


def _cond(self: _Evaluation, args: list[Any], params: dict[str, Any]) -> list[Any]:
    index, *operands = args
    branches = params["branches"]
    if is_known(index):
        return self.run(branches[min(max(int(index), 0), len(branches) - 1)], operands)
    operands = [*map(constant, operands)]
    flags = [False] * len(branches[0].out_avals)
    for branch in branches:
        jax.eval_shape(lambda *xs, b=branch: _noted(self.of_body().run(b, xs), flags), *operands)

    def run(branch: Any) -> Any:
        return lambda *xs: [_as_flagged(x, f) for x, f in zip(self.of_body().run(branch, xs), flags)]

    return list(lax.switch(index, [run(b) for b in branches], *operands))


def _noted(outs: Sequence[Any], flags: list[bool]) -> list[Any]:
    """Results, of which `flags` notes those that may be NaN."""
    flags[:] = [f or g for f, g in zip(flags, _flags(outs))]
    return [constant(x) for x in outs]


def _carried(init: Sequence[Any], step: Any) -> list[bool]:
    """Which carries of a loop may be NaN; `step` maps carries to carries."""
    flags = _flags(init)
    while True:
        before = list(flags)
        jax.eval_shape(lambda xs: _noted(step(xs), flags), [_as_flagged(x, f) for x, f in zip(init, flags)])
        if flags == before:
            return flags


def _scan(self: _Evaluation, args: list[Any], params: dict[str, Any]) -> list[Any]:
    k, c = params["num_consts"], params["num_carry"]
    consts, init, rows = args[:k], args[k : k + c], [constant(x) for x in args[k + c :]]
    length, reverse = int(params["length"]), bool(params["reverse"])

    def body(carry: Sequence[Any], row: Any) -> list[Any]:
        return self.of_body().run(params["jaxpr"], [*consts, *carry, *row])

    first = jax.tree.map(lambda x: x[0], rows) if length else None
    flags = _carried(init, lambda carry: body(carry, first)[:c]) if length else _flags(init)

    def step(carry: Any, row: Any) -> Any:
        out = body(carry, row)
        return [_as_flagged(x, f) for x, f in zip(out[:c], flags)], [constant(x) for x in out[c:]]

    init = [_as_flagged(x, f) for x, f in zip(init, flags)]
    carry, stacked = lax.scan(step, init, rows, length, reverse)
    return [*carry, *stacked]


def _while(self: _Evaluation, args: list[Any], params: dict[str, Any]) -> list[Any]:
    a, b = params["cond_nconsts"], params["body_nconsts"]
    first, second, init = args[:a], args[a : a + b], args[a + b :]

    def body(carry: Any) -> list[Any]:
        return self.of_body().run(params["body_jaxpr"], [*second, *carry])

    flags = _carried(init, body)
    return list(
        lax.while_loop(
            lambda carry: self.of_body().run(params["cond_jaxpr"], [*first, *carry])[0],
            lambda carry: [_as_flagged(x, f) for x, f in zip(body(carry), flags)],
            [_as_flagged(x, f) for x, f in zip(init, flags)],
        )
    )


CONTROL = {"cond": _cond, "scan": _scan, "while": _while}
