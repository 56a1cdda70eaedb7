"""The passes on the IR, one visible tuple. Each changes the module in place; the checker runs after each.

Integers, truncation, loops and dead code have files of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from spuvm.compiler.ir import ops
from spuvm.compiler.ir.in_the_clear import evaluate
from spuvm.compiler.ir.module import Module, Op, Region, Value
from spuvm.compiler.ir.ops import RULES, with_results
from spuvm.compiler.passes.choose import choose_functions
from spuvm.compiler.passes.dead_code import dead_code
from spuvm.compiler.passes.guard import guard
from spuvm.compiler.passes.hoist import hoist
from spuvm.compiler.passes.scales import choose_scales
from spuvm.compiler.passes.selection import selection
from spuvm.compiler.passes.truncation import merge_truncations
from spuvm.compiler.passes.verdicts import judge
from spuvm.compiler.passes.wrap import wrap_integers

Pass = Callable[[Module], None]
Made = dict[Value, Op]  # value -> the operation of the same region that defines it

MAX_FOLDED = 4096  # elements
COMMUTATIVE = frozenset({"add", "mul", "equal", "and", "or", "xor"})


def run_passes(module: Module) -> Module:
    """Improve `module`, in place; the same module is returned."""
    for apply in PASSES:
        apply(module)
        ops.check(module)
    return module


def everywhere(apply: Callable[[Region], None]) -> Pass:
    """A pass on regions as one on the whole module."""

    def run(module: Module) -> None:
        for region in regions(module.body):
            apply(region)

    return run


def regions(region: Region) -> list[Region]:
    """A region and all within it, the innermost first."""
    inner = [r for op in region.ops for body in op.regions for r in regions(body)]
    return [*inner, region]


def built(name: str, inputs: list[Value], like: Op, outputs: list[Value] | None = None, **attrs: Any) -> Op:
    """A new operation at the source line of `like`, with given results or fresh ones."""
    op = Op(name, inputs, outputs or [], attrs, location=like.location)
    return with_results(op) if outputs is None else op


def replace(region: Region, visit: Callable[[Op, Made], Value | None]) -> None:
    """Visit the operations in order; where `visit` names a value, it stands for the operation's result."""
    same: dict[Value, Value] = {}
    made: Made = {}
    kept = []
    for op in region.ops:
        op.inputs = [same.get(v, v) for v in op.inputs]
        value = visit(op, made)
        if value is not None:
            same[op.output] = value
            continue
        kept.append(op)
        made.update((v, op) for v in op.outputs)
    region.ops = kept
    region.results = [same.get(v, v) for v in region.results]


# Common subexpressions -----------------------------------------------------------------------------------


def common_subexpressions(region: Region) -> None:
    """The same operation on the same values is done once; constants too."""
    seen: dict[Any, Value] = {}

    def visit(op: Op, made: Made) -> Value | None:
        if op.regions or len(op.outputs) != 1:
            return None
        inputs = tuple(sorted(op.inputs, key=id)) if op.name in COMMUTATIVE else tuple(op.inputs)
        key = (op.name, inputs, _frozen(op.attrs))
        if key in seen:
            return seen[key]
        seen[key] = op.output
        return None

    replace(region, visit)


def _frozen(x: Any) -> Any:
    if isinstance(x, dict):
        return tuple((k, _frozen(v)) for k, v in sorted(x.items()))
    if isinstance(x, np.ndarray):
        return (x.shape, x.tobytes())
    return tuple(map(_frozen, x)) if isinstance(x, list | tuple) else x


# Simplification ------------------------------------------------------------------------------------------


def simplify(region: Region) -> None:
    """Rearrangements of rearrangements, double negation, no-ops, operations on constants."""

    def visit(op: Op, made: Made) -> Value | None:
        rule = SIMPLER.get(op.name)
        value = rule(op, made) if rule else None
        if value is not None and value.type == op.output.type:
            return value
        _fold(op, made)
        return None

    replace(region, visit)


def _fold(op: Op, made: Made) -> None:
    """Turn an operation on constants into a constant. Broadcasts stay: they are smaller."""
    inputs = [made.get(v) for v in op.inputs]
    if op.regions or not inputs or op.name == "broadcast" or len(op.outputs) != 1:
        return
    out = op.output.type
    if not out.is_public or out.size > MAX_FOLDED:
        return
    constants = [i for i in inputs if i is not None and i.name == "const"]
    if len(constants) == len(inputs):
        ring = 8 * constants[0].attrs["data"].dtype.itemsize
        (data,) = evaluate(Region([], [*dict.fromkeys(constants), op], op.outputs), [], ring=ring)
        op.name, op.inputs, op.attrs = "const", [], {"data": data, "to": out.element}


def _inner(op: Op, made: Made) -> Op | None:
    """The definition of the first operand, if it is the same kind of operation."""
    inner = made.get(op.inputs[0])
    return inner if inner is not None and inner.name == op.name else None


def _retyped(op: Op, made: Made) -> Value | None:
    """bitcast, reshape: only the last of a chain matters."""
    inner = _inner(op, made)
    if inner is not None:
        op.inputs = inner.inputs
    return op.inputs[0]


def _twice(op: Op, made: Made) -> Value | None:
    """not, neg: twice is nothing."""
    inner = _inner(op, made)
    return inner.inputs[0] if inner is not None else None


def _transposed(op: Op, made: Made) -> Value | None:
    inner = _inner(op, made)
    if inner is not None:
        op.attrs = {"perm": tuple(inner.attrs["perm"][d] for d in op.attrs["perm"])}
        op.inputs = inner.inputs
    identity = list(op.attrs["perm"]) == list(range(len(op.attrs["perm"])))
    return op.inputs[0] if identity else None


def _broadcast(op: Op, made: Made) -> Value | None:
    inner = _inner(op, made)
    if inner is not None:
        dims = tuple(op.attrs["dims"][d] for d in inner.attrs["dims"])
        op.attrs, op.inputs = {"shape": op.attrs["shape"], "dims": dims}, inner.inputs
    return op.inputs[0] if len(op.inputs[0].shape) == len(op.attrs["shape"]) else None


def _revealed(op: Op, made: Made) -> Value | None:
    """Revealing what was shared is revealing what it was; to those who know it, nothing."""
    inner = made.get(op.inputs[0])
    if inner is not None and inner.name == "share":
        op.inputs = inner.inputs
    return op.inputs[0]


def _summed(op: Op, made: Made) -> Value | None:
    """A sum along axes of one element is a reshape."""
    if all(op.inputs[0].shape[a] == 1 for a in op.attrs["axes"]):
        op.name, op.attrs = "reshape", {"shape": op.output.shape}
        return _retyped(op, made)
    return None


def _selected(op: Op, made: Made) -> Value | None:
    _, x, y = op.inputs
    return x if x is y else None


def _summand(op: Op, made: Made) -> Value | None:
    x, y = op.inputs
    if _is_zero(y, made):
        return x
    return y if op.name == "add" and _is_zero(x, made) else None


def _dotted(op: Op, made: Made) -> Value | None:
    """A product with a transposed matrix reads the matrix along its other axis."""
    (xc, yc), (xb, yb) = op.attrs["dims"]
    contracted, batch = [tuple(xc), tuple(yc)], [tuple(xb), tuple(yb)]
    for i, value in enumerate(op.inputs):
        inner = made.get(value)
        free = len(value.shape) - len(contracted[i]) - len(batch[i])
        if inner is not None and inner.name == "transpose" and free <= 1:  # the order of more would change
            perm = inner.attrs["perm"]
            contracted[i], batch[i] = (tuple(perm[d] for d in dims) for dims in (contracted[i], batch[i]))
            op.inputs = [*op.inputs[:i], inner.inputs[0], *op.inputs[i + 1 :]]
    op.attrs = {"dims": (tuple(contracted), tuple(batch))}
    return None


def _is_zero(x: Value, made: Made) -> bool:
    op = made.get(x)
    while op is not None and op.name == "broadcast":
        op = made.get(op.inputs[0])
    return op is not None and op.name == "const" and not op.attrs["data"].reshape(-1).view(np.uint8).any()


# operation -> a value that may stand for it (used if the types agree); may also shorten its operands
SIMPLER: dict[str, Callable[[Op, Made], Value | None]] = {
    "bitcast": _retyped,
    "reshape": _retyped,
    "not": _twice,
    "neg": _twice,
    "transpose": _transposed,
    "broadcast": _broadcast,
    "reveal": _revealed,
    "share": lambda op, made: op.inputs[0],
    "dot": _dotted,
    "sum": _summed,
    "select": _selected,
    "add": _summand,
    "sub": _summand,
}


# Secret conditions ---------------------------------------------------------------------------------------


def inject_before_broadcast(region: Region) -> None:
    """A secret bool that is broadcast before it selects or becomes a number is converted while it is small.

    select(c, x, y) = y + c (x - y) with the integer c.
    """
    made: Made = {}
    out: list[Op] = []
    for op in region.ops:
        made.update((v, op) for v in op.outputs)
        spread = made.get(op.inputs[0]) if op.name in ("select", "convert") else None
        if spread is None or not _grows(spread) or op.output.type.kind == "bool":
            out.append(op)
            continue
        element = op.output.type.element if op.output.type.kind == "int" else "fxp0"
        if op.name == "convert":
            element = op.attrs["to"]
        small = built("convert", spread.inputs, op, to=element)
        wide = built("broadcast", small.outputs, op, op.outputs if op.name == "convert" else None, **spread.attrs)
        out += [small, wide]
        if op.name == "select":
            _, x, y = op.inputs
            change = built("sub", [x, y], op)
            part = built("mul", [change.output, wide.output], op)
            out += [change, part, built("add", [y, part.output], op, op.outputs)]
    region.ops = out


def _grows(op: Op) -> bool:
    if op.name != "broadcast":
        return False
    c, wide = op.inputs[0].type, op.output.type
    return c.kind == "bool" and c.is_secret and wide.size >= 2 * c.size


def one_truncation_per_sum(module: Module) -> None:
    """Not in a guarded program, which checks its sums as they were before functions were chosen."""
    if module.guard:
        return
    for region in regions(module.body):
        merge_truncations(region, module.config["fxp_fraction_bits"], module.config["ring_bits"])


def scales(module: Module) -> None:
    """While functions are operations still, all products are the program's own: their sums are truncated once."""
    choose_scales(module)
    for region in regions(module.body):
        merge_truncations(region, module.config["fxp_fraction_bits"], module.config["ring_bits"], every=True)


def functions(module: Module) -> None:
    choose_functions(module)


PASSES: tuple[Pass, ...] = (
    scales,
    judge,
    guard,
    functions,
    wrap_integers,
    everywhere(simplify),
    everywhere(common_subexpressions),
    everywhere(inject_before_broadcast),
    everywhere(hoist),
    one_truncation_per_sum,
    everywhere(simplify),
    everywhere(common_subexpressions),
    lambda module: dead_code(module.body),
    everywhere(selection),
)

assert SIMPLER.keys() <= RULES.keys()
