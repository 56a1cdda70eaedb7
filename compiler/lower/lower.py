"""Jaxpr -> MPC IR: one rule per primitive, applied equation by equation (see `Context.run`).

Booleans and integers keep their types, every float becomes fixed point with the program's number
of fraction bits. What is known at compile time is computed by JAX on the host.

Integers narrower than the ring are computed modulo the ring; the first pass (passes/wrap.py) wraps them
to their type wherever that makes a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import jax

from spuvm.compiler.front.trace import Traced
from spuvm.compiler.ir import ops
from spuvm.compiler.ir.module import Module, Region, Value, Visibility
from spuvm.compiler.lower.complex_numbers import without_complex
from spuvm.compiler.lower.context import Context, Lowered, at
from spuvm.compiler.lower.keys import without_keys
from spuvm.compiler.lower.logarithms import without_small_probabilities
from spuvm.compiler.lower.missing import without_missing
from spuvm.compiler.lower.prints import with_prints
from spuvm.compiler.lower.registry import INLINED, RULES, UNFOLDED
from spuvm.runtime.config import Config
from spuvm.runtime.errors import InputError, UnsupportedError


def lower(
    traced: Traced,
    visibilities: Sequence[Visibility],
    config: Config,
    did_lower: Callable[[Lowered], None] | None = None,
    masked: Collection[int] = (),
    missing: Collection[int] = (),
    price: Callable[[Module], tuple[int, int]] | None = None,
) -> Module:
    """The IR of a traced function, each input leaf with its visibility; those at `masked` come in masked.

    Those at `missing` may be NaN (see lower/missing.py). `did_lower` hears of every equation. `price` counts rounds and
    bytes of a piece of IR, for a configuration that is optimised for some links (see lower/weigh.py).
    """
    if len(visibilities) != len(traced.inputs):
        raise InputError(f"{len(visibilities)} visibilities for {len(traced.inputs)} inputs {traced.inputs}.")
    context = Context(config, RULES, UNFOLDED, INLINED, did_lower, price)
    context.b.location = traced.location
    with jax.enable_x64(traced.x64):
        traced = without_missing(without_keys(with_prints(traced)), missing)
        visibilities = [*visibilities, *(visibilities[i] for i in sorted(missing))]
        region = _body(traced, visibilities, context, masked)
    module = Module(
        name=traced.name,
        body=region,
        inputs=traced.inputs,
        outputs=traced.outputs,
        input_dtypes=tuple(str(a.dtype) for a in traced.in_avals),
        output_dtypes=tuple(str(a.dtype) for a in traced.out_avals),
        config=config.settings,
    )
    ops.check(module)
    return module


def _body(traced: Traced, visibilities: Sequence[Visibility], context: Context, masked: Collection[int]) -> Region:
    types = []
    jaxpr = without_small_probabilities(without_complex(traced.jaxpr))
    for i, (name, aval, who) in enumerate(zip(traced.inputs, jaxpr.in_avals, visibilities)):
        try:
            element = context.element(aval.dtype)
        except UnsupportedError as e:
            raise UnsupportedError(at(traced.location, f"input `{name}`: {e}")) from None
        known_to = _rank(who, context)
        types.append(ops.parse_element(element).with_(shape=aval.shape, visibility=known_to, masked=i in masked))
    with context.region(types) as region:
        results = context.run(jaxpr, list(region.params))
        for name, x, aval in zip(traced.outputs, results, jaxpr.out_avals):
            region.results.append(_result(context, name, x, aval))
    return region  # type: ignore[no-any-return]


def _rank(who: Visibility, context: Context) -> Visibility:
    size = len(context.config.members)
    if isinstance(who, int) and not 0 <= who < size:
        raise InputError(f"an input belongs to rank {who}, but there are {size} parties.")
    return who


def _result(context: Context, name: str, x: Value, aval: object) -> Value:
    try:
        return context.value(x)
    except (InputError, UnsupportedError) as e:
        raise type(e)(at(context.b.location, f"result `{name}`: {e}")) from None
