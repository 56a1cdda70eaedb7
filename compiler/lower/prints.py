"""`jax.debug.print` of what is public: what is printed becomes a result of the program, which is printed after its run.

The text of a program says so, `output %7 "print 0 [\"loss {}\", 0]" float32`: the call's number, its format, and which
of the format's places it is. Within loops, and branches that are chosen at run time, there is no such place.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from spuvm.compiler.front.trace import Traced
from spuvm.compiler.ir.dtypes import is_key
from spuvm.compiler.ir.module import Value
from spuvm.compiler.lower.complex_numbers import INLINED, bind, source_of
from spuvm.compiler.lower.context import Context, Operand, Rule, bodies, dtype_of
from spuvm.runtime.errors import UnsupportedError, VisibilityError

PRINTED = "print "
NAME = "debug_print"

printed_p: Any = jex.Primitive("spu_printed")
printed_p.def_impl(lambda x: x)
printed_p.def_abstract_eval(lambda x: x)


def with_prints(traced: Traced) -> Traced:
    """The same function, with what it prints behind its results."""
    closed = traced.jaxpr
    if not _prints(closed.jaxpr):
        return traced
    names: list[str] = []

    def function(*args: Any) -> list[Any]:
        printed: list[tuple[str, Any]] = []
        outs = _evaluate(closed, args, printed)
        names[:] = [name for name, _ in printed]
        return [*outs, *(x for _, x in printed)]

    structs = [
        jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=getattr(a, "weak_type", False)) for a in closed.in_avals
    ]
    again = jax.make_jaxpr(function)(*structs)
    return dataclasses.replace(traced, jaxpr=again, outputs=(*traced.outputs, *names))


def _prints(jaxpr: Any) -> bool:
    """Whether it prints outside of loops and branches."""
    return any(e.primitive.name == NAME or (_is_call(e) and any(map(_prints, bodies(e.params)))) for e in jaxpr.eqns)


def _is_call(eqn: Any) -> bool:
    return eqn.primitive.name not in ("cond", "scan", "while") and any(k in eqn.params for k in INLINED)


def _evaluate(closed: Any, args: Sequence[Any], printed: list[tuple[str, Any]]) -> list[Any]:
    jaxpr, consts = (closed.jaxpr, closed.consts) if isinstance(closed, jex.ClosedJaxpr) else (closed, ())
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, (c if is_key(c) else np.asarray(c) for c in consts)))
    env.update(zip(jaxpr.invars, args))

    def read(v: Any) -> Any:
        return np.asarray(v.val, dtype_of(v.aval)) if isinstance(v, jex.Literal) else env[v]

    for eqn in jaxpr.eqns:
        operands = [read(v) for v in eqn.invars]
        with source_of(eqn):
            if eqn.primitive.name == NAME:
                _note(eqn, operands, printed)
            elif _is_call(eqn) and any(map(_prints, bodies(eqn.params))):
                body = next(eqn.params[k] for k in INLINED if k in eqn.params)
                env.update(zip(eqn.outvars, _evaluate(body, operands, printed)))
            else:
                env.update(zip(eqn.outvars, bind(eqn, operands, eqn.params)))
    return [read(v) for v in jaxpr.outvars]


def _note(eqn: Any, operands: Sequence[Any], printed: list[tuple[str, Any]]) -> None:
    number = len({name.split()[1] for name, _ in printed})
    filled = list(operands)
    for i, x in eqn.params.get("static_args", ()):
        filled.insert(i, x)
    args, kwargs = jax.tree.unflatten(eqn.params["in_tree"], filled)
    if not args and not kwargs:
        args = (True,)  # words alone
    for place, x in (*enumerate(args), *kwargs.items()):
        if len(jax.tree.leaves(x)) != 1 or not hasattr(jax.numpy.asarray(x), "shape"):
            raise UnsupportedError("`jax.debug.print` of a tree: print its arrays one by one.")
        name = f"{PRINTED}{number} {json.dumps([eqn.params['fmt'], place])}"
        printed.append((name, printed_p.bind(jax.numpy.asarray(x))))


def texts(names: Sequence[str], values: Sequence[Any]) -> list[str]:
    """What results named so print."""
    calls: dict[str, tuple[str, dict[Any, Any]]] = {}
    for name, value in zip(names, values):
        number, body = name.removeprefix(PRINTED).split(" ", 1)
        text, place = json.loads(body)
        calls.setdefault(number, (text, {}))[1][place] = value
    out = []
    for text, given in calls.values():
        positional = [given[i] for i in range(len(given)) if i in given]
        out.append(text.format(*positional, **{k: v for k, v in given.items() if isinstance(k, str)}))
    return out


def _printed(ctx: Context, x: Operand) -> Operand:
    if isinstance(x, Value) and not x.type.is_public:
        who = "secret" if x.type.is_secret else "a party's own"
        raise VisibilityError(
            f"`jax.debug.print` of a value that is {who}: `spu.reveal` it first, which shows it to all, or return it."
        )
    return x


def _inside(ctx: Context, *xs: Operand, **_: Any) -> Sequence[Operand]:
    for x in xs:
        _printed(ctx, x)
    raise UnsupportedError(
        "`jax.debug.print` within a loop or a branch: return what is to be printed (of `lax.scan`, as one of its `ys`)."
    )


RULES: dict[str, Rule] = {"spu_printed": _printed, NAME: _inside}
