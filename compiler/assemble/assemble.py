"""A stage -> bytecode. One loop over its equations; the rule of each primitive is in a table.

What the engine lacks, floating point above all, raises `Unsupported`: the stage is then XLA's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core as jex

from spuvm.compiler.assemble import elementwise, keyed, shapes
from spuvm.compiler.assemble.builder import Builder
from spuvm.compiler.assemble.finish import finished
from spuvm.compiler.assemble.values import Constant, Placed, Unsupported, Value, strides_of, word
from spuvm.runtime.engine.check import check
from spuvm.runtime.engine.code import UNIT, VIEW, Call, Code, Port

RULES = {**elementwise.RULES, **shapes.RULES, **keyed.RULES}
INLINED = {"pjit", "jit", "closed_call", "custom_jvp_call"}
LARGEST_CONSTANT = 1 << 24  # bytes


def assemble(jaxpr: Any, consts: Sequence[Any], streams: Sequence[bool], *, scales: bool = False) -> Code:
    """The code of a jaxpr and its constants; `streams` says which arguments are drawn from a keystream.

    With `scales` it was traced for one unit of elements, and the code is for any number of units.
    """
    builder = Builder(scales)
    ports: dict[bool, list[Port]] = {False: [], True: []}
    arguments: list[Value] = []
    for var, is_stream in zip(jaxpr.invars, streams, strict=True):
        dtype, shape = np.dtype(var.aval.dtype), tuple(var.aval.shape)
        word(dtype)
        number = len(ports[is_stream])
        ports[is_stream].append(Port(dtype.name, shape))
        argument = builder.array("stream" if is_stream else "input", number, shape, dtype)
        uniform = scales and shape == ()
        arguments.append(Placed(argument.array, 0, shape, (0,) * len(shape) if uniform else argument.strides, dtype))
    results = _run(builder, jaxpr, consts, arguments)
    code = finished(builder, ports[False], ports[True], [_settled(builder, v) for v in results])
    if scales:
        _check_scales(code)
    check(code)
    return code


def _settled(b: Builder, value: Value) -> Value:
    """The value, drawn if it is a stream's."""
    if isinstance(value, Placed) and b.arrays[value.array].source == "stream":
        return b.draw(value)
    return value


def _run(b: Builder, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Value]) -> list[Value]:
    env: dict[Any, Value] = dict(zip(jaxpr.invars, arguments))
    env |= {v: _known(b, np.asarray(c)) for v, c in zip(jaxpr.constvars, consts)}

    def read(atom: Any) -> Value:
        if not isinstance(atom, jex.Literal):
            return env[atom]
        return _known(b, np.asarray(atom.val, np.dtype(atom.aval.dtype)))  # type: ignore[attr-defined]

    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        operands = [read(a) for a in eqn.invars]
        if name in INLINED:
            inner = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
            values = _run(b, inner.jaxpr, inner.consts, operands)
        elif name in RULES:
            values = RULES[name](b, [_settled(b, v) for v in operands], [v.aval for v in eqn.outvars], eqn.params)
        else:
            raise Unsupported(f"`{name}`")
        env.update(zip(eqn.outvars, values))
    return [read(v) for v in jaxpr.outvars]


def _known(b: Builder, value: np.ndarray) -> Value:
    word(value.dtype)
    if value.size and np.all(value == value.flat[0]):
        return Constant(value.flat[0], value.shape)
    if value.size > 1 and value.nbytes > LARGEST_CONSTANT:
        raise Unsupported("large constants")
    found = b.constant(value)
    return Placed(found.array, 0, value.shape, strides_of(value.shape, value.dtype), value.dtype)


def _check_scales(code: Code) -> None:
    """Only element-wise code says the same of any number of elements."""
    for segment in code.segments:
        if isinstance(segment, Call) or any(i.operation == VIEW for i in segment.code):
            raise Unsupported("elements that move within a block")
    for port in (*code.inputs, *code.outputs, *code.streams):
        if port.shape != () and int(np.prod(port.shape)) * np.dtype(port.dtype).itemsize * 8 % UNIT:
            raise Unsupported("parts of a unit")
    if any(p.shape == () for p in (*code.outputs, *code.streams)):
        raise Unsupported("single results of a block")
    constants = [a for a in code.arrays if a.source == "constant"]
    if any(a.bytes > 8 for a in constants):
        raise Unsupported("constants that differ within a block")
