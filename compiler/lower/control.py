"""Rules of calls, branches, loops and `reveal`.

Who sees a predicate decides its form: known at compile time, the branch is chosen now; public, the
parties branch together; secret, all branches run and a select keeps one. Loops run a number of
times that is known now or public when it matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex
from jax.interpreters import partial_eval

from spuvm.compiler.front.private_jax import JAX_FILES
from spuvm.compiler.ir.module import Type, Value, join
from spuvm.compiler.lower import (
    bits,
    eigen,
    exponential_integrals,
    linalg,
    matrix_exponential,
    normal_tails,
    randomness,
    refused,
    regions,
    search,
)
from spuvm.compiler.lower.context import Context, Operand, Rule, Undefined
from spuvm.compiler.lower.logic import pick
from spuvm.runtime.errors import UnsupportedError, VisibilityError

MAX_KNOWN_TRIPS = 1_000_000

Call = Callable[[Context, Sequence[Operand], Any], list[Operand] | None]
CALLS: dict[str, Call] = {
    **search.CALLS,
    **linalg.CALLS,
    **eigen.CALLS,
    **bits.CALLS,
    **normal_tails.CALLS,
    **exponential_integrals.CALLS,
    **matrix_exponential.CALLS,
    **refused.CALLS,
}

# primitive -> the parameter that holds its jaxpr
INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "call": "call_jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "composite": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def inline(parameter: str) -> Rule:
    def rule(ctx: Context, *args: Operand, **params: Any) -> list[Operand]:
        inner = params[parameter]
        closed = inner if isinstance(inner, jex.ClosedJaxpr) else jex.ClosedJaxpr(inner, ())
        if parameter == "jaxpr" and "prevent_cse" in params:
            randomness.refuse_recomputed(closed.jaxpr)
        own = own_rule(params, closed.jaxpr)
        some = any(isinstance(x, Value) for x in args) and not any(isinstance(x, Undefined) for x in args)
        if own is not None and some:
            results: list[Operand] | None = own(ctx, args, closed)
            if results is not None:
                return results
        return ctx.inline(closed, args)

    return rule


def own_rule(params: Mapping[str, Any], jaxpr: Any) -> Call | None:
    """The rule of a function that is traced as a call, if it is one of JAX's own: its name alone may be a user's."""
    written = jaxpr.debug_info
    if not (written.func_filename or "").startswith(JAX_FILES):
        return None
    return CALLS.get(params.get("name") or written.func_name)


def reveal(ctx: Context, x: Operand, *, to: str | int | None) -> Operand:
    if not isinstance(x, Value):
        return x
    who = "public" if to is None else _rank(ctx, to)
    if x.type.visibility in ("public", who):
        return x
    if ctx.branch_of_secret:
        raise VisibilityError(
            "a value is revealed in a branch whose condition is secret: both branches run, so it would be "
            "revealed whether or not the condition holds. Reveal it outside of the branch."
        )
    return ctx.b.op("reveal", x, to=who)


def bounded(ctx: Context, x: Operand, *, limit: float) -> Operand:
    """x itself, another reading of it that remembers what the user states."""

    def stated(v: Value) -> Value:
        if v.type.kind != "fxp":
            return v
        out = ctx.b.op("bitcast", v, to=v.type.element)
        ctx.b.region.ops[-1].stated = math.log2(limit)
        return out

    return ctx.map(stated, x)


def masked(ctx: Context, x: Operand) -> Operand:
    """A private value masked, one of a party that does not compute shared; what all know or none knows as it is."""
    if not isinstance(x, Value) or not isinstance(x.type.visibility, int):
        return x
    if x.type.visibility >= ctx.config.world_size:
        return ctx.map(lambda v: ctx.b.op("share", v, to="secret"), x)
    return ctx.map(lambda v: v if v.type.masked else ctx.b.op("mask", v), x)


def _rank(ctx: Context, to: str | int) -> int:
    parties = ctx.config.members
    if isinstance(to, str) and to in parties:
        return parties.index(to)
    if isinstance(to, int) and 0 <= to < len(parties):
        return to
    raise VisibilityError(f"`to` is {to!r}, which is no party: the parties are {', '.join(parties)}.")


# branches --------------------------------------------------------------------------------------------


def cond(ctx: Context, index: Operand, *operands: Operand, branches: Any, **_: Any) -> list[Operand]:
    if not isinstance(index, Value):
        return ctx.run(branches[min(max(int(index), 0), len(branches) - 1)], operands)
    if index.type.is_public:
        return _public_cond(ctx, index, operands, branches)
    outer, ctx.branch_of_secret = ctx.branch_of_secret, True
    try:
        results = [ctx.run(branch, operands) for branch in branches]
    finally:
        ctx.branch_of_secret = outer
    return [_picked(ctx, index, list(cases)) for cases in zip(*results)]


def _picked(ctx: Context, index: Value, cases: list[Operand]) -> Operand:
    first = cases[0]
    if all(c is first or _same_known(c, first) for c in cases):
        return first
    return pick(ctx, index, [ctx.value(c) for c in cases])


def _same_known(x: Operand, y: Operand) -> bool:
    return not isinstance(x, Value) and not isinstance(y, Value) and regions.equal(x, y)


def _public_cond(ctx: Context, index: Value, operands: Sequence[Operand], branches: Any) -> list[Operand]:
    lowered = [regions.lower_body(ctx, branch, [regions.slot(x) for x in operands]) for branch in branches]
    results: list[Operand] = []
    types: dict[int, Type] = {}
    for j, cases in enumerate(zip(*(r for _, r in lowered))):
        if all(_same_known(c, cases[0]) for c in cases):
            results.append(cases[0])
        else:
            types[j] = regions.typed(ctx, ctx.outs[j], join(*map(regions.visibility, cases)))
            results.append(None)
    for region, outs in lowered:
        with ctx.b.inside(region):
            region.results = [regions.shown(ctx, outs[j], t) for j, t in types.items()]
    made = ctx.b.ops("cond", [index, *regions.values(operands)], [r for r, _ in lowered])
    for j, value in zip(types, made):
        results[j] = value
    return results


# loops -----------------------------------------------------------------------------------------------


def scan(ctx: Context, *args: Operand, jaxpr: Any, length: int, reverse: bool, **params: Any) -> list[Operand]:
    k, c = params["num_consts"], params["num_carry"]
    return loop(ctx, jaxpr, args[:k], args[k : k + c], args[k + c :], int(length), bool(reverse))


def loop(
    ctx: Context,
    body: Any,
    consts: Sequence[Operand],
    init: Sequence[Operand],
    xs: Sequence[Operand],
    trips: int,
    reverse: bool,
) -> list[Operand]:
    """`body` maps consts, carry and one row of xs to a new carry and a row of ys."""
    if trips == 0:
        empty = [np.zeros(a.shape, a.dtype) for a in ctx.outs[len(init) :]]
        return [*init, *empty]
    if trips == 1:
        return _once(ctx, body, consts, init, xs)
    before = [regions.slot(x) for x in consts]
    rows = [regions.row_slot(ctx, x) for x in xs]
    state = [regions.slot(x) for x in init]
    while True:
        region, results = regions.lower_body(ctx, body, [*before, *state, *rows])
        after = [regions.merge(ctx, s, r) for s, r in zip(state, results)]
        if regions.fixed(state, after):
            break
        state = after
    carried = [j for j, s in enumerate(state) if isinstance(s, Type)]
    stacked = [j for j in range(len(init), len(results)) if isinstance(results[j], Value)]
    with ctx.b.inside(region):
        region.results = [regions.shown(ctx, results[j], state[j]) for j in carried]
        region.results += [results[j] for j in stacked]
    constants = regions.values(consts)
    operands = constants + [regions.shown(ctx, init[j], state[j]) for j in carried]
    operands += [ctx.value(x) for x, row in zip(xs, rows) if isinstance(row, Type)]
    attrs = {"trips": trips, "carries": len(carried), "constants": len(constants), "reverse": reverse}
    made = ctx.b.ops("loop", operands, [region], **attrs)
    out = [
        *state,
        *(None if isinstance(y, Value) else regions.repeated(y, trips) for y in results[len(init) :]),
    ]
    for j, value in zip([*carried, *stacked], made):
        out[j] = value
    return out


def _once(
    ctx: Context, body: Any, consts: Sequence[Operand], init: Sequence[Operand], xs: Sequence[Operand]
) -> list[Operand]:
    """A loop of a single iteration is its body."""
    rows = [ctx.b.reshape(x, x.shape[1:]) if isinstance(x, Value) else x[0] for x in xs]
    out = ctx.run(body, [*consts, *init, *rows])
    ys = [ctx.b.reshape(y, (1, *y.shape)) if isinstance(y, Value) else y[None] for y in out[len(init) :]]
    return [*out[: len(init)], *ys]


def while_(
    ctx: Context, *args: Operand, cond_jaxpr: Any, body_jaxpr: Any, cond_nconsts: int, body_nconsts: int
) -> list[Operand]:
    if cond_jaxpr.out_avals[0].shape:
        cond_jaxpr, body_jaxpr = _of_many(cond_jaxpr, body_jaxpr, cond_nconsts, body_nconsts)
        args = (*args[:cond_nconsts], *args)
        body_nconsts += cond_nconsts
    first, second = args[:cond_nconsts], args[cond_nconsts : cond_nconsts + body_nconsts]
    init = args[cond_nconsts + body_nconsts :]
    trips = _known_trips(cond_jaxpr, body_jaxpr, first, second, init)
    if trips is not None:
        return loop(ctx, body_jaxpr, second, init, [], trips, False)
    return _public_while(ctx, cond_jaxpr, body_jaxpr, first, second, init)


def _of_many(cond: Any, body: Any, of_cond: int, of_body: int) -> tuple[Any, Any]:
    """Loops side by side, as `vmap` makes them: they run while any goes on, and those that have ended keep their state.

    The body takes the condition's constants before its own.
    """
    test, step = jex.jaxpr_as_fun(cond), jex.jaxpr_as_fun(body)

    def going(*operands: Any) -> Any:
        return jnp.any(test(*operands)[0])

    def advance(*operands: Any) -> Any:
        first, second, state = operands[:of_cond], operands[of_cond : of_cond + of_body], operands[of_cond + of_body :]
        (more,) = test(*first, *state)
        after = step(*second, *state)
        return [jnp.where(_spread(more, new), new, old) for new, old in zip(after, state)]

    constants, state = cond.in_avals[:of_cond], cond.in_avals[of_cond:]
    return jax.make_jaxpr(going)(*constants, *state), jax.make_jaxpr(advance)(
        *constants, *body.in_avals[:of_body], *state
    )


def _spread(more: Any, x: Any) -> Any:
    """The condition of each loop for all elements of its state; the loops are the first axes."""
    return lax.broadcast_in_dim(more, x.shape, tuple(range(more.ndim)))


def _public_while(
    ctx: Context,
    cond_jaxpr: Any,
    body_jaxpr: Any,
    first: Sequence[Operand],
    second: Sequence[Operand],
    init: Sequence[Operand],
) -> list[Operand]:
    state = [regions.slot(x) for x in init]
    while True:
        body, results = regions.lower_body(ctx, body_jaxpr, [*map(regions.slot, second), *state])
        after = [regions.merge(ctx, s, r) for s, r in zip(state, results)]
        if regions.fixed(state, after):
            break
        state = after
    condition, (predicate,) = regions.lower_body(ctx, cond_jaxpr, [*map(regions.slot, first), *state])
    _require_public(predicate)
    carried = [j for j, s in enumerate(state) if isinstance(s, Type)]
    with ctx.b.inside(condition):
        condition.results = [ctx.value(predicate)]
    with ctx.b.inside(body):
        body.results = [regions.shown(ctx, results[j], state[j]) for j in carried]
    a, b = regions.values(first), regions.values(second)
    operands = [*a, *b, *(regions.shown(ctx, init[j], state[j]) for j in carried)]
    made = ctx.b.ops("while", operands, [condition, body], condition_constants=len(a), body_constants=len(b))
    out: list[Operand] = list(state)
    for j, value in zip(carried, made):
        out[j] = value
    return out


def _require_public(predicate: Operand) -> None:
    who = regions.visibility(predicate)
    if who == "public":
        return
    name = "secret" if who == "secret" else f"known to rank {who} alone"
    raise VisibilityError(
        f"the loop's condition is {name}, and how often a loop runs is seen by all: run it a fixed number of "
        "times (lax.fori_loop, with jnp.where for the part that depends on the condition), or make the "
        "condition public with spu.reveal."
    )


def _known_trips(
    cond_jaxpr: Any,
    body_jaxpr: Any,
    first: Sequence[Operand],
    second: Sequence[Operand],
    init: Sequence[Operand],
) -> int | None:
    """How often the loop runs, if its condition depends on known values only."""
    test, test_uses = partial_eval.dce_jaxpr(cond_jaxpr.jaxpr, [True])
    needed = [bool(u) for u in test_uses[len(first) :]]
    while True:
        step, step_uses = partial_eval.dce_jaxpr(body_jaxpr.jaxpr, needed)
        wider = [a or bool(u) for a, u in zip(needed, step_uses[len(second) :])]
        if wider == needed:
            break
        needed = wider
    used = [x for x, u in zip([*first, *second], [*test_uses[: len(first)], *step_uses[: len(second)]]) if u]
    carry = [x for x, n in zip(init, needed) if n]
    if any(isinstance(x, Value) for x in [*used, *carry]):
        return None
    return _count(
        jex.jaxpr_as_fun(jex.ClosedJaxpr(test, cond_jaxpr.consts)),
        jex.jaxpr_as_fun(jex.ClosedJaxpr(step, body_jaxpr.consts)),
        [x for x, u in zip(first, test_uses) if u],
        [x for x, u in zip(second, step_uses) if u],
        carry,
        [bool(u) for u, n in zip(test_uses[len(first) :], needed) if n],
        [bool(u) for u, n in zip(step_uses[len(second) :], needed) if n],
    )


def _count(
    test: Any, step: Any, first: Any, second: Any, carry: Any, test_takes: list[bool], step_takes: list[bool]
) -> int:
    def going(state: Any) -> Any:
        n, values = state
        (more,) = test(*first, *(v for v, t in zip(values, test_takes) if t))
        return more & (n < MAX_KNOWN_TRIPS)

    def advance(state: Any) -> Any:
        n, values = state
        return n + 1, tuple(step(*second, *(v for v, t in zip(values, step_takes) if t)))

    with jax.ensure_compile_time_eval(), jax.default_device(jax.devices("cpu")[0]):
        n, _ = lax.while_loop(going, advance, (np.int32(0), tuple(carry)))
    if int(n) >= MAX_KNOWN_TRIPS:
        raise UnsupportedError(f"the loop runs {MAX_KNOWN_TRIPS} times or more, or for ever.")
    return int(n)


RULES: dict[str, Rule] = {
    **{name: inline(parameter) for name, parameter in INLINED.items()},
    "spu_reveal": reveal,
    "spu_masked": masked,
    "spu_bound": bounded,
    "cond": cond,
    "scan": scan,
    "while": while_,
}
