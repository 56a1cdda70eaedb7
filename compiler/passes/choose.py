"""Elementary functions become what computes them: for this protocol, this ring, these operands (functions/ways.py)."""

from __future__ import annotations

from spuvm.compiler.functions.ways import WAYS
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.configuration import config_of
from spuvm.compiler.ir.module import Module, Op, Region, Value
from spuvm.compiler.ir.ops import with_results
from spuvm.runtime.errors import SpuError
from spuvm.runtime.protocols.registered import protocol_of

Moved = dict[Region, list[int]]  # where an operation begins now, by where it was; the last: how many there are


def choose_functions(module: Module) -> Moved:
    """In place: what was the result of a function remains the same value."""
    config = config_of(module)
    kernels = protocol_of(config).kernels
    usable = [name for name, kernel in kernels.items() if not (config.exact and kernel.by_chance)]
    b = Builder(config.fxp_fraction_bits, config.ring_bits, usable)
    moved: Moved = {}
    for region in [module.body, *(r for op in module.body.walk() for r in op.regions)]:
        moved[region] = _choose(b, region)
    return moved


def _choose(b: Builder, region: Region) -> list[int]:
    ops, region.ops = region.ops, []
    starts = []
    with b.inside(region):
        for op in ops:
            starts.append(len(region.ops))
            if op.name in WAYS:
                _compute(b, op)
            else:
                region.ops.append(op)
    return [*starts, len(region.ops)]


def _compute(b: Builder, op: Op) -> None:
    """Append what computes the function."""
    start, frac = len(b.region.ops), b.frac
    b.location = op.location
    attrs = {k: v for k, v in op.attrs.items() if k != "to"}
    try:
        if op.output.type.kind == "fxp" and op.name != "remainder":
            b.frac = op.output.type.frac
        result = WAYS[op.name](b, *op.inputs, **attrs)
    except SpuError as e:
        raise type(e)(f"{op.location}: `{op.name}`: {e}") from None
    finally:
        b.frac = frac
    if result.type != op.output.type:
        raise AssertionError(f"`{op.name}` gave {result.type}, should give {op.output.type}")
    _rename(b, start, result, op.output)


def _rename(b: Builder, start: int, result: Value, name: Value) -> None:
    """`name` for `result`, which an operation from `start` on made; else as another reading of it."""
    made = b.region.ops[start:]
    maker = next((op for op in made if result in op.outputs), None)
    if maker is None:
        again = with_results(Op("bitcast", [result], [], {"to": name.type.element}, location=b.location))
        again.outputs = [name]
        b.region.ops.append(again)
        return
    maker.outputs = [name if v is result else v for v in maker.outputs]
    for op in made:
        op.inputs = [name if v is result else v for v in op.inputs]
        for inner in op.regions:
            inner.results = [name if v is result else v for v in inner.results]
