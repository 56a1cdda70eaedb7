"""`jax.debug.print` of what is public: what is printed becomes a result of the program, which is printed after its run.

The text of a program says so, `output %7 "print 0 [\"loss {}\", 0]" float32`: the call's number, its format, and which
of the format's places it is. Within loops, and branches that are chosen at run time, there is no such place.
"""

from __future__ import annotations

import dataclasses
import json
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.extend import core as jex

from spuvm.compiler.front.trace import Traced
from spuvm.compiler.ir.module import Location, Value
from spuvm.compiler.lower.context import Context, Operand, Rule
from spuvm.compiler.lower.evaluation import INLINED, bind, evaluate, struct_of
from spuvm.compiler.lower.jaxprs import bodies
from spuvm.runtime.errors import UnsupportedError, VisibilityError
from spuvm.runtime.legible import legible

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
        outs = _evaluated(closed, args, printed)
        names[:] = [name for name, _ in printed]
        return [*outs, *(x for _, x in printed)]

    again = jax.make_jaxpr(function)(*map(struct_of, closed.in_avals))
    return dataclasses.replace(traced, jaxpr=again, outputs=(*traced.outputs, *names))


def _prints(jaxpr: Any) -> bool:
    """Whether it prints outside of loops and branches."""
    return any(e.primitive.name == NAME or (_is_call(e) and any(map(_prints, bodies(e.params)))) for e in jaxpr.eqns)


def _is_call(eqn: Any) -> bool:
    return eqn.primitive.name not in ("cond", "scan", "while") and any(k in eqn.params for k in INLINED)


def _evaluated(closed: Any, args: Sequence[Any], printed: list[tuple[str, Any]]) -> list[Any]:
    def equation(eqn: Any, operands: list[Any], line: Location | None) -> list[Any]:
        if eqn.primitive.name == NAME:
            _note(eqn, operands, line, printed)
            return []
        if _is_call(eqn) and any(map(_prints, bodies(eqn.params))):
            return _evaluated(next(eqn.params[k] for k in INLINED if k in eqn.params), operands, printed)
        return bind(eqn, operands, eqn.params)

    return evaluate(closed, args, equation)


def _note(eqn: Any, operands: Sequence[Any], line: Location | None, printed: list[tuple[str, Any]]) -> None:
    number = len({name.split()[1] for name, _ in printed})
    for _, field, _, _ in string.Formatter().parse(eqn.params["fmt"]):
        _check_whole(field or "0", f"{line or 'unknown'}: ")
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
        named = {k: v for k, v in given.items() if isinstance(k, str)}
        out.append(legible(_Plain().vformat(text, positional, named), lines=True))
    return out


class _Plain(string.Formatter):
    """Of formats that come with a program, which somebody else may have written: values alone, of no great width."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        _check_whole(field_name)
        return super().get_field(field_name, args, kwargs)

    def format_field(self, value: Any, format_spec: str) -> str:
        if re.search(r"\d{4}", format_spec):
            raise UnsupportedError(
                f"`jax.debug.print` with the format `{legible(format_spec, 80)}`: give a width of at most 999."
            )
        return str(super().format_field(value, format_spec))


def _check_whole(field: str, where: str = "") -> None:
    if not (field.isdigit() or field.isidentifier()):
        raise UnsupportedError(f"{where}`jax.debug.print` of `{legible(field, 80)}`: print values, not parts of them.")


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
