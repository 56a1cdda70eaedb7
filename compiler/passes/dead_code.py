"""Dead code: operations, results of loops and branches, and operands of bodies that nothing uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spuvm.compiler.ir.module import Op, Region, Value


def dead_code(region: Region) -> None:
    """Keep what the results depend on. Bodies are trimmed to the results in use, then cleaned themselves."""
    used = set(region.results)
    kept = []
    for op in reversed(region.ops):
        if not any(v in used for v in op.outputs):
            continue
        if op.name in TRIM:
            TRIM[op.name](op, used)
        for inner in op.regions:
            dead_code(inner)
        if op.name in TRIM:
            DROP_OPERANDS[op.name](op)
        kept.append(op)
        used.update(op.inputs)
    region.ops = kept[::-1]


def needed(region: Region, results: Sequence[Value]) -> set[Value]:
    """All values that some results of a region depend on."""
    used = set(results)
    for op in reversed(region.ops):
        if any(v in used for v in op.outputs):
            used.update(op.inputs)
    return used


def chosen(xs: Sequence[Value], keep: Sequence[bool]) -> list[Value]:
    return [x for x, k in zip(xs, keep, strict=True) if k]


# results -------------------------------------------------------------------------------------------------


def _trim_cond(op: Op, used: set[Value]) -> None:
    keep = [v in used for v in op.outputs]
    op.outputs = chosen(op.outputs, keep)
    for branch in op.regions:
        branch.results = chosen(branch.results, keep)


def _trim_loop(op: Op, used: set[Value]) -> None:
    """A carried value is alive if it is used after the loop, or by a result that is alive."""
    (body,) = op.regions
    k, c = op.attrs["constants"], op.attrs["carries"]
    rows = [v in used for v in op.outputs[c:]]
    alive = [v in used for v in op.outputs[:c]]
    alive = _closure(body, body.params[k : k + c], body.results[:c], alive, chosen(body.results[c:], rows))
    op.inputs = [*op.inputs[:k], *chosen(op.inputs[k : k + c], alive), *op.inputs[k + c :]]
    body.params = [*body.params[:k], *chosen(body.params[k : k + c], alive), *body.params[k + c :]]
    op.outputs = chosen(op.outputs, alive + rows)
    body.results = chosen(body.results, alive + rows)
    op.attrs = {**op.attrs, "carries": sum(alive)}


def _trim_while(op: Op, used: set[Value]) -> None:
    condition, body = op.regions
    a, b = op.attrs["condition_constants"], op.attrs["body_constants"]
    tested = needed(condition, condition.results)
    alive = [v in used or p in tested for v, p in zip(op.outputs, condition.params[a:])]
    alive = _closure(body, body.params[b:], body.results, alive, [])
    op.inputs = [*op.inputs[: a + b], *chosen(op.inputs[a + b :], alive)]
    condition.params = [*condition.params[:a], *chosen(condition.params[a:], alive)]
    body.params = [*body.params[:b], *chosen(body.params[b:], alive)]
    op.outputs, body.results = chosen(op.outputs, alive), chosen(body.results, alive)


def _trim_sort(op: Op, used: set[Value]) -> None:
    keep = [v in used for v in op.outputs]
    words = len(op.attrs["widths"])
    op.outputs = chosen(op.outputs, keep)
    op.inputs = [*op.inputs[:words], *chosen(op.inputs[words:], keep)]


def _closure(
    body: Region, params: Sequence[Value], carried: Sequence[Value], alive: list[bool], others: list[Value]
) -> list[bool]:
    while True:
        used = needed(body, [*chosen(carried, alive), *others])
        wider = [a or p in used for a, p in zip(alive, params)]
        if wider == alive:
            return alive
        alive = wider


# operands ------------------------------------------------------------------------------------------------


def _drop_cond(op: Op) -> None:
    used = [needed(r, r.results) for r in op.regions]
    keep = [any(p in u for p, u in zip(ps, used)) for ps in zip(*(r.params for r in op.regions))]
    op.inputs = [op.inputs[0], *chosen(op.inputs[1:], keep)]
    for branch in op.regions:
        branch.params = chosen(branch.params, keep)


def _drop_loop(op: Op) -> None:
    """Constants and stacked operands that the body no longer reads."""
    (body,) = op.regions
    k, c = op.attrs["constants"], op.attrs["carries"]
    used = needed(body, body.results)
    keep = [k <= i < k + c or p in used for i, p in enumerate(body.params)]
    op.attrs = {**op.attrs, "constants": sum(keep[:k])}
    op.inputs, body.params = chosen(op.inputs, keep), chosen(body.params, keep)


def _drop_while(op: Op) -> None:
    condition, body = op.regions
    a, b = op.attrs["condition_constants"], op.attrs["body_constants"]
    tested, used = needed(condition, condition.results), needed(body, body.results)
    first = [p in tested for p in condition.params[:a]]
    second = [p in used for p in body.params[:b]]
    op.inputs = [*chosen(op.inputs[:a], first), *chosen(op.inputs[a : a + b], second), *op.inputs[a + b :]]
    condition.params = [*chosen(condition.params[:a], first), *condition.params[a:]]
    body.params = [*chosen(body.params[:b], second), *body.params[b:]]
    op.attrs = {"condition_constants": sum(first), "body_constants": sum(second)}


TRIM: dict[str, Callable[[Op, set[Value]], None]] = {
    "cond": _trim_cond,
    "loop": _trim_loop,
    "while": _trim_while,
    "sort": _trim_sort,
}
DROP_OPERANDS: dict[str, Callable[[Op], None]] = {
    "cond": _drop_cond,
    "loop": _drop_loop,
    "while": _drop_while,
    "sort": lambda op: None,
}
