"""Complex numbers as pairs of real ones: a jaxpr without them, before it is lowered.

A complex input or result becomes a real array with a last axis of two. Equations are evaluated on pairs and
traced anew, each at its own source line; a jaxpr without complex numbers stays as it is. The rules are in
lower/complex_rules.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core as jex

from spuvm.compiler.ir.dtypes import is_key_dtype, kind_of
from spuvm.compiler.ir.module import Location
from spuvm.compiler.lower.advice import ADVICE
from spuvm.compiler.lower.complex_rules import PARTWISE, RULES, Pair, pair_of, real_dtype
from spuvm.compiler.lower.evaluation import INLINED, bind, evaluate, struct_of
from spuvm.compiler.lower.jaxprs import bodies
from spuvm.runtime.errors import UnsupportedError


class _NoRuleError(UnsupportedError):
    """To be raised again at the innermost equation that has a line of the user's."""


def without_complex(closed: jex.ClosedJaxpr) -> jex.ClosedJaxpr:
    """The same function on real arrays."""
    if not uses_complex(closed.jaxpr):
        return closed
    avals = closed.in_avals

    def real(*args: Any) -> list[Any]:
        given = [Pair(x[..., 0], x[..., 1]) if is_complex(a) else x for x, a in zip(args, avals)]
        outs = _on_pairs(closed, given)
        return [jnp.stack([x.re, x.im], -1) if isinstance(x, Pair) else x for x in outs]

    traced: jex.ClosedJaxpr = jax.make_jaxpr(real)(*map(_real_struct, avals))
    return traced


def _real_struct(aval: Any) -> Any:
    if not is_complex(aval):
        return struct_of(aval)
    struct: Any = jax.ShapeDtypeStruct
    return struct((*aval.shape, 2), real_dtype(aval.dtype))


def is_complex(aval: Any) -> bool:
    dtype = getattr(aval, "dtype", None)
    return dtype is not None and not is_key_dtype(dtype) and kind_of(dtype) == "c"


def uses_complex(jaxpr: Any) -> bool:
    """Whether a complex number occurs in a jaxpr, or in one that it calls."""
    values = [*jaxpr.invars, *jaxpr.constvars, *jaxpr.outvars]
    return any(is_complex(v.aval) for v in values) or any(map(_touches_complex, jaxpr.eqns))


def _touches_complex(eqn: Any) -> bool:
    if any(is_complex(v.aval) for v in [*eqn.invars, *eqn.outvars]):
        return True
    return any(uses_complex(inner) for inner in bodies(eqn.params))


# evaluation on pairs -----------------------------------------------------------------------------------------


def _on_pairs(closed: Any, args: Sequence[Any]) -> list[Any]:
    """The results of a jaxpr; complex operands and results are pairs."""
    return evaluate(closed, args, _at_its_line, pair_of)


def _at_its_line(eqn: Any, args: list[Any], location: Location | None) -> list[Any]:
    try:
        return _equation(eqn, args)
    except _NoRuleError as e:
        if location is None:
            raise
        raise UnsupportedError(f"{location}: {e}") from None


def _equation(eqn: Any, args: list[Any]) -> list[Any]:
    name = eqn.primitive.name
    if not _touches_complex(eqn):
        return bind(eqn, args, eqn.params)
    if name in CONTROL:
        return CONTROL[name](args, eqn.params)
    if name in RULES:
        out = RULES[name](*args, out=eqn.outvars[0].aval, **eqn.params)
        return list(out) if eqn.primitive.multiple_results else [out]
    if name in PARTWISE:
        return _partwise(eqn, args)
    inner = next((eqn.params[k] for k in INLINED if k in eqn.params), None)
    if inner is not None:
        return _on_pairs(inner, args)
    advice = ADVICE.get(name, "Use their real and imaginary parts.")
    raise _NoRuleError(f"`{name}`: not for complex numbers. {advice}")


def _partwise(eqn: Any, args: list[Any]) -> list[Any]:
    """A rearrangement, of real and imaginary parts alike; indices are neither."""
    results = []
    for part in (0, 1):
        params = {k: _real_parameter(v, part) for k, v in eqn.params.items()}
        results.append(bind(eqn, [x[part] if isinstance(x, Pair) else x for x in args], params))
    return [Pair(re, im) for re, im in zip(*results)]


def _real_parameter(x: Any, part: int) -> Any:
    """A dtype, a fill value or a combining jaxpr (which JAX's own rules do not look at) of the real parts."""
    if isinstance(x, complex):
        return (x.real, x.imag)[part]
    return x


# control -----------------------------------------------------------------------------------------------------


def _cond(args: list[Any], params: dict[str, Any]) -> list[Any]:
    index, *operands = args
    branches = [lambda *xs, branch=branch: _on_pairs(branch, xs) for branch in params["branches"]]
    out: list[Any] = lax.switch(index, branches, *operands)
    return out


def _scan(args: list[Any], params: dict[str, Any]) -> list[Any]:
    k, c = params["num_consts"], params["num_carry"]

    def body(carry: Any, row: Any) -> Any:
        out = _on_pairs(params["jaxpr"], [*args[:k], *carry, *row])
        return out[:c], out[c:]

    carry, rows = lax.scan(body, args[k : k + c], args[k + c :], int(params["length"]), bool(params["reverse"]))
    return [*carry, *rows]


def _while(args: list[Any], params: dict[str, Any]) -> list[Any]:
    a, b = params["cond_nconsts"], params["body_nconsts"]
    first, second, init = args[:a], args[a : a + b], args[a + b :]
    out: list[Any] = lax.while_loop(
        lambda carry: _on_pairs(params["cond_jaxpr"], [*first, *carry])[0],
        lambda carry: _on_pairs(params["body_jaxpr"], [*second, *carry]),
        init,
    )
    return out


CONTROL = {"cond": _cond, "scan": _scan, "while": _while}
