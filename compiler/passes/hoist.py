"""What a loop computes anew in each iteration from constants only is computed once, before it."""

from __future__ import annotations

from spuvm.compiler.ir.module import Op, Region, Value

# Not worth a value kept through the loop, unless something that is depends on them.
CHEAP = frozenset({"const", "broadcast", "reshape", "slice", "bitcast", "neg", "add", "sub", "shift_left", "share"})


def hoist(region: Region) -> None:
    out: list[Op] = []
    for op in region.ops:
        out += _moved_before(op) if op.name == "loop" else []
        out.append(op)
    region.ops = out


def _moved_before(loop: Op) -> list[Op]:
    """Move operations out of the body; what the rest of it reads of them becomes a constant of the loop."""
    (body,) = loop.regions
    k = loop.attrs["constants"]
    moving = _worthwhile(body, body.params[:k])
    if not moving:
        return []
    outside = dict(zip(body.params[:k], loop.inputs[:k]))
    made = []
    for op in body.ops:
        if op in moving:
            made.append(Op(op.name, [outside[v] for v in op.inputs], [], op.attrs, location=op.location))
            made[-1].outputs = [Value(v.type) for v in op.outputs]
            outside.update(zip(op.outputs, made[-1].outputs))
    body.ops = [op for op in body.ops if op not in moving or _is_free(op)]
    read = {v for op in body.ops for v in op.inputs} | set(body.results)
    defined = {v for op in body.ops for v in op.outputs}
    new = [v for v in outside if v in read and v not in defined and v not in body.params]
    body.params = [*body.params[:k], *new, *body.params[k:]]
    loop.inputs = [*loop.inputs[:k], *(outside[v] for v in new), *loop.inputs[k:]]
    loop.attrs = {**loop.attrs, "constants": k + len(new)}
    return made


def _is_free(op: Op) -> bool:
    """Constants stay in the body too, for its other operations; dead code otherwise."""
    return op.name == "const"


def _worthwhile(body: Region, constants: list[Value]) -> set[Op]:
    """The operations to move: costly ones that depend on the loop's constants only, and what they need."""
    free: set[Value] = set()
    fixed = set(constants)
    for op in body.ops:
        if op.name == "random":  # another value in each iteration
            continue
        if not op.regions and free.issuperset(op.inputs):
            free.update(op.outputs)
        elif not op.regions and all(v in free or v in fixed for v in op.inputs):
            fixed.update(op.outputs)
    needed: set[Value] = set()
    moving: set[Op] = set()
    for op in reversed(body.ops):
        costly = op.name not in CHEAP and op.outputs[0] in fixed
        if costly or any(v in needed for v in op.outputs):
            moving.add(op)
            needed.update(op.inputs)
    return moving
