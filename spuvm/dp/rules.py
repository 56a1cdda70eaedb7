"""What each primitive makes of what is known of its operands: rules (equation, operands) -> what is known of a result.

A primitive without a rule, and what a rule cannot follow, has no bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from spuvm.dp.known import INF, UNKNOWN, Known, Public, Rows, Total, rows_of


def _width(var: Any) -> int:
    return math.prod(var.aval.shape[1:]) if var.aval.shape else 1


def _interval(of: Callable[..., tuple[float, float]]) -> Callable[[Any, list[Known]], Known]:
    """An operation element by element, by the interval that it maps others to."""

    def rule(eqn: Any, ins: list[Known]) -> Known:
        shape = eqn.outvars[0].aval.shape
        ranges = [_range(k) for k, v in zip(ins, eqn.invars, strict=True)]
        if not shape or any(isinstance(k, Total) for k in ins) or any(r is None for r in ranges):
            return UNKNOWN
        low, high = of(*ranges)
        alike = all(isinstance(k, Public) or (isinstance(k, Rows) and k.alike) for k in ins) and all(
            not isinstance(k, Public) or not v.aval.shape or (k.value is not None and k.value.size <= 1)
            for k, v in zip(ins, eqn.invars, strict=True)
        )
        return rows_of(*((low, high) if low <= high else (-INF, INF)), _width(eqn.outvars[0]), alike)

    return rule


def _range(k: Known) -> tuple[float, float] | None:
    if isinstance(k, Rows):
        return k.low, k.high
    if isinstance(k, Public) and k.value is not None and k.value.size and k.value.dtype.kind in "biuf":
        return float(k.value.min()), float(k.value.max())
    return None


def _times(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    ends = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
    return min(ends), max(ends)


def _scaled(eqn: Any, ins: list[Known]) -> Known:
    """A product: of a total with a constant, or of rows."""
    factor = next((k for k in ins if isinstance(k, Public)), None)
    total = next((k for k in ins if isinstance(k, Total)), None)
    if total is not None:
        if factor is None or factor.value is None:
            return UNKNOWN
        most = float(np.abs(factor.value).max(initial=0.0))
        spread = _spread(eqn, ins.index(total))
        changes = (total.l1 * spread, total.l2 * math.sqrt(spread), total.largest, total.size)
        return Total(*(0.0 if most == 0 else most * x for x in changes))
    rows = [k for k in ins if isinstance(k, Rows)]
    out = _interval(_times)(eqn, ins)
    if isinstance(out, Rows) and factor is not None and factor.value is not None:
        most = float(np.abs(factor.value).max(initial=0.0))
        return Rows(out.low, out.high, min(out.l1, most * rows[0].l1), min(out.l2, most * rows[0].l2), out.alike)
    if isinstance(out, Rows) and len(rows) == 2 and eqn.invars[0].aval.shape == eqn.invars[1].aval.shape:
        l1, l2 = min(a.l1 * b.most if a.l1 < INF else INF for a, b in (rows, rows[::-1])), INF
        l2 = min(a.l2 * b.most if a.l2 < INF and b.most < INF else INF for a, b in (rows, rows[::-1]))
        return Rows(out.low, out.high, min(out.l1, l1), min(out.l2, l2))
    return out


def _spread(eqn: Any, at: int) -> int:
    """How many times an operand is repeated by broadcasting (scalars against arrays)."""
    return max(1, int(math.prod(eqn.outvars[0].aval.shape)) // max(1, int(math.prod(eqn.invars[at].aval.shape))))


def _divided(eqn: Any, ins: list[Known]) -> Known:
    by = ins[1]
    if not isinstance(by, Public) or by.value is None or (by.value == 0).any():
        return UNKNOWN
    if isinstance(ins[0], Total) and eqn.outvars[0].aval.dtype.kind in "iu":
        return UNKNOWN  # rounding may make one of a change that is less
    return _scaled(eqn, [ins[0], Public(1 / np.asarray(by.value, np.float64))])


def _added(eqn: Any, ins: list[Known]) -> Known:
    if any(isinstance(k, Total) for k in ins):
        if any(isinstance(k, Rows) for k in ins):
            return UNKNOWN
        totals = [(k, _spread(eqn, i)) for i, k in enumerate(ins) if isinstance(k, Total)]
        return Total(
            sum(k.l1 * n for k, n in totals),
            sum(k.l2 * math.sqrt(n) for k, n in totals),
            sum(k.largest for k, _ in totals),
            sum(map(_size, ins)) if eqn.invars[0].aval.dtype.kind != "u" or eqn.primitive.name == "add" else INF,
        )
    sign = -1 if eqn.primitive.name == "sub" else 1
    return _interval(lambda a, b: (a[0] + min(sign * b[0], sign * b[1]), a[1] + max(sign * b[0], sign * b[1])))(
        eqn, ins
    )


def _size(k: Known) -> float:
    """Of a total or what is public, what no element is larger than in magnitude."""
    if isinstance(k, Total):
        return k.size
    bounds = _range(k)
    return INF if bounds is None else max(map(abs, bounds))


def _opposite(eqn: Any, ins: list[Known]) -> Known:
    k = ins[0]
    if not isinstance(k, Total):
        return _interval(lambda a: (-a[1], -a[0]))(eqn, ins)
    return Total(k.l1, k.l2, k.largest, INF if eqn.outvars[0].aval.dtype.kind == "u" else k.size)


def _magnitude(eqn: Any, ins: list[Known]) -> Known:
    """It changes by no more than what it is of."""
    if isinstance(ins[0], Total):
        return ins[0]
    return _interval(lambda a: (0.0 if a[0] <= 0 <= a[1] else min(map(abs, a)), max(map(abs, a))))(eqn, ins)


def _each(eqn: Any, ins: list[Known]) -> Known:
    """Any function of single elements: of rows, rows of anything."""
    shape = eqn.outvars[0].aval.shape
    whole = any(isinstance(k, Rows) and v.aval.shape == shape for k, v in zip(ins, eqn.invars, strict=True))
    if not whole or any(isinstance(k, Total) for k in ins):
        return UNKNOWN
    return rows_of(*((0.0, 1.0) if eqn.outvars[0].aval.dtype.kind == "b" else (-INF, INF)), _width(eqn.outvars[0]))


def _kept(eqn: Any, ins: list[Known]) -> Known:
    """The same numbers, or fewer, whatever their order; of rows, if the first axis stays."""
    k = ins[0]
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if not isinstance(k, Rows):
        return k
    if eqn.primitive.name == "transpose" and eqn.params["permutation"][:1] != (0,):
        return Rows(k.low, k.high, k.l1, k.l2, turned=not k.turned) if len(before) == 2 else UNKNOWN
    return Rows(k.low, k.high, k.l1, k.l2) if before[:1] == after[:1] else UNKNOWN


def _converted(eqn: Any, ins: list[Known]) -> Known:
    """Rounding towards zero moves no bound outwards; of a total it may add one to each change. Bools are 0 or 1."""
    before, after = eqn.invars[0].aval.dtype, eqn.outvars[0].aval.dtype
    if isinstance(ins[0], Total):
        if before.kind in "iu" and before != after and ins[0].size > np.iinfo(before).max:
            return UNKNOWN  # it may have wrapped around: a row that is there or not may change it by all
        return ins[0] if after.kind not in "iub" or np.can_cast(before, after) else UNKNOWN
    if after.kind == "b" and before.kind != "b":
        return rows_of(0.0, 1.0, _width(eqn.outvars[0]))
    return ins[0]


def _spread_out(eqn: Any, ins: list[Known]) -> Known:
    """Broadcasting: rows stay rows if their axis stays first."""
    k, where, after = ins[0], eqn.params["broadcast_dimensions"], eqn.outvars[0].aval.shape
    times = math.prod(after) // max(1, math.prod(eqn.invars[0].aval.shape))
    if isinstance(k, Total):
        return Total(k.l1 * times, k.l2 * math.sqrt(times), k.largest, k.size)
    if isinstance(k, Rows):
        if not where or where[0] != 0 or after[0] != eqn.invars[0].aval.shape[0]:
            return UNKNOWN
        alike = _width(eqn.invars[0]) == 1
        return Rows(k.low, k.high, k.l1 * times, k.l2 * math.sqrt(times), alike)
    return k


def _summed(eqn: Any, ins: list[Known]) -> Known:
    k, axes, shape = ins[0], eqn.params["axes"], eqn.invars[0].aval.shape
    times = math.prod(shape[a] for a in axes)
    if isinstance(k, Rows) and 0 in axes:
        inner = times // max(1, shape[0])
        changes = k.l1, min(k.l1, k.l2 * math.sqrt(inner)), min(_by(k.most, inner), k.l1)
        return Total(*changes, _by(k.most, times))
    if isinstance(k, Rows):
        low, high = max(k.low * times, -k.l1), min(k.high * times, k.l1)
        return Rows(
            low, high, min(k.l1, max(abs(low), abs(high)) * _width(eqn.outvars[0])), min(k.l1, k.l2 * math.sqrt(times))
        )
    if isinstance(k, Total):
        return Total(k.l1, min(k.l1, k.l2 * math.sqrt(times)), min(k.l1, k.largest * times), _by(k.size, times))
    return k


def _joined(eqn: Any, ins: list[Known]) -> Known:
    """Totals side by side."""
    totals = [k for k in ins if isinstance(k, Total)]
    if any(isinstance(k, Rows) for k in ins):
        return UNKNOWN
    changes = sum(k.l1 for k in totals), math.hypot(*(k.l2 for k in totals)), max(k.largest for k in totals)
    return Total(*changes, max(map(_size, ins)))


def _extreme(eqn: Any, ins: list[Known]) -> Known:
    k = ins[0]
    if isinstance(k, Rows) and 0 not in eqn.params["axes"]:
        return rows_of(k.low, k.high, _width(eqn.outvars[0]))
    if isinstance(k, Rows):
        reach, n = k.high - k.low, math.prod(eqn.outvars[0].aval.shape)
        return Total(reach * n, reach * math.sqrt(n), reach)
    return UNKNOWN


def _product(eqn: Any, ins: list[Known]) -> Known:
    """Matrix products: of rows and rows over the rows; of rows, or a total, with a constant."""
    (left, right), (batch, _) = eqn.params["dimension_numbers"]
    if any(batch):
        return UNKNOWN
    a, left = _upright(ins[0], left)
    b, right = _upright(ins[1], right)
    if isinstance(a, Rows) and isinstance(b, Rows):
        if tuple(left) != (0,) or tuple(right) != (0,):
            return UNKNOWN
        return Total(_by(a.l1, b.l1), _by(a.l2, b.l2), _by(a.most, b.most))
    data, matrix = (a, b) if isinstance(b, Public) else (b, a)
    contracted = left if data is a else right
    if not isinstance(matrix, Public) or matrix.value is None:
        return UNKNOWN
    weights = np.abs(
        np.moveaxis(np.asarray(matrix.value, np.float64), (right if data is a else left), range(len(left)))
    )
    table = weights.reshape(math.prod(weights.shape[: len(left)]), -1)
    worst = float(table.sum(1).max(initial=0.0))  # what one unit of one element adds to all results
    biggest = float(table.max(initial=0.0))
    length = float(np.linalg.norm(table, 2)) if table.size else 0.0
    if isinstance(data, Total):
        return Total(
            _by(data.l1, worst),
            _by(data.l2, length),
            min(_by(data.l1, biggest), _by(data.largest, float(table.sum(0).max(initial=0.0)))),
        )
    if isinstance(data, Rows) and 0 in contracted:
        if len(contracted) > 1:
            return UNKNOWN
        n = table.shape[1]  # a row of the data times a row of weights
        return Total(_by(data.l1, worst), _by(data.l2, math.sqrt(n) * biggest), _by(data.most, biggest))
    if isinstance(data, Rows) and data is a:
        most = min(_by(data.l1, biggest), _by(data.most, float(table.sum(0).max(initial=0.0))))
        return Rows(-most, most, _by(data.l1, worst), min(_by(data.l1, worst), _by(data.l2, length)))
    return UNKNOWN


def _upright(k: Known, axes: Any) -> tuple[Known, tuple[int, ...]]:
    """A matrix whose rows lie across, and its contracted axes, as one whose rows are first."""
    if isinstance(k, Rows) and k.turned:
        return Rows(k.low, k.high, k.l1, k.l2), tuple(1 - a for a in axes)
    return k, tuple(axes)


def _by(a: float, b: float) -> float:
    return 0.0 if 0 in (a, b) else a * b


def _equal(eqn: Any, ins: list[Known]) -> Known:
    """Rows spread along an axis beside different constants: at most one is equal."""
    rows, other = (ins[0], ins[1]) if isinstance(ins[0], Rows) else (ins[1], ins[0])
    width = _width(eqn.outvars[0])
    if isinstance(rows, Rows) and rows.alike and isinstance(other, Public) and other.value is not None:
        value = np.broadcast_to(other.value, eqn.outvars[0].aval.shape)
        first = value[0].reshape(-1) if len(value) else value.reshape(-1)
        if (value == value[:1]).all() and len(np.unique(first)) == len(first):
            return rows_of(0.0, 1.0, width, l1=1.0)
    return _compared(eqn, ins)


def _compared(eqn: Any, ins: list[Known]) -> Known:
    if any(isinstance(k, Total) for k in ins) or not eqn.outvars[0].aval.shape:
        return UNKNOWN
    return rows_of(0.0, 1.0, _width(eqn.outvars[0]))


def _and(eqn: Any, ins: list[Known]) -> Known:
    if eqn.outvars[0].aval.dtype.kind != "b" or any(isinstance(k, Total) for k in ins):
        return UNKNOWN
    rows = [k for k in ins if isinstance(k, Rows)]
    out = rows_of(0.0, 1.0, _width(eqn.outvars[0]))
    return Rows(0.0, 1.0, min(out.l1, *(k.l1 for k in rows)), min(out.l2, *(k.l2 for k in rows)))


def _chosen(eqn: Any, ins: list[Known]) -> Known:
    """where(condition, x, y): one of them; rows that are 0 otherwise keep their norms."""
    cases = ins[1:]
    if any(isinstance(k, Total) for k in ins):
        return UNKNOWN
    out = _interval(lambda _, *r: (min(x[0] for x in r), max(x[1] for x in r)))(eqn, [rows_of(0, 1, 1), *cases])
    kept = [k for k in cases if isinstance(k, Rows)]
    zeros = all(
        isinstance(k, Rows) or (k.value is not None and not k.value.any()) for k in cases if not isinstance(k, Total)
    )
    if isinstance(out, Rows) and zeros and kept:
        return Rows(
            out.low, out.high, min(out.l1, sum(k.l1 for k in kept)), min(out.l2, math.hypot(*(k.l2 for k in kept)))
        )
    return out


def _clamped(eqn: Any, ins: list[Known]) -> Known:
    low, x, high = ins
    bounds = _range(low), _range(high)
    if not isinstance(x, Rows) or bounds[0] is None or bounds[1] is None:
        return UNKNOWN
    return _interval(lambda a, b, c: (max(a[0], min(b[0], c[0])), min(c[1], max(b[1], a[1]))))(eqn, ins)


def _scattered(eqn: Any, ins: list[Known]) -> Known:
    """Rows of updates added to constant zeros at cells that may depend on the row: what each adds is its own size."""
    operand, where, updates = ins
    if not isinstance(operand, Public) or isinstance(where, Total) or isinstance(updates, Total):
        return UNKNOWN
    bound = _range(updates)
    if bound is None:
        return UNKNOWN
    if math.prod(eqn.invars[2].aval.shape) != eqn.invars[2].aval.shape[0]:
        return UNKNOWN
    most = max(map(abs, bound))
    return Total(most, most, most)


def _power(eqn: Any, ins: list[Known]) -> Known:
    n = eqn.params.get("y", 2)

    def of(a: tuple[float, float]) -> tuple[float, float]:
        ends = sorted((a[0] ** n, a[1] ** n))
        return (0.0 if n % 2 == 0 and a[0] <= 0 <= a[1] else ends[0]), ends[1]

    return _interval(of)(eqn, ins) if n >= 0 else UNKNOWN


def _monotone(f: Callable[[float], float]) -> Callable[[Any, list[Known]], Known]:
    def safe(x: float) -> float:
        try:
            return f(x)
        except OverflowError:
            return INF

    return _interval(lambda a: (safe(a[0]), safe(a[1])))


ELEMENTWISE = (
    *(
        "log",
        "log1p",
        "expm1",
        "exp2",
        "sqrt",
        "rsqrt",
        "cbrt",
        "pow",
        "rem",
        "round",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
    ),
    *("atan", "atan2", "sinh", "cosh", "asinh", "acosh", "atanh", "erf", "erfc", "erf_inv", "lgamma", "digamma"),
    *("is_finite", "nextafter", "xor", "shift_left", "shift_right_logical", "shift_right_arithmetic"),
)
RULES: dict[str, Callable[[Any, list[Known]], Known]] = {
    "add": _added,
    "sub": _added,
    "mul": _scaled,
    "div": _divided,
    "neg": _opposite,
    "abs": _magnitude,
    "max": _interval(lambda a, b: (max(a[0], b[0]), max(a[1], b[1]))),
    "min": _interval(lambda a, b: (min(a[0], b[0]), min(a[1], b[1]))),
    "clamp": _clamped,
    "integer_pow": _power,
    "square": _power,
    "tanh": _monotone(math.tanh),
    "logistic": _interval(lambda a: (0.0, 1.0)),
    "exp": _monotone(math.exp),
    "sign": _interval(lambda a: (-1.0, 1.0)),
    "floor": _monotone(lambda x: math.floor(x) if math.isfinite(x) else x),
    "ceil": _monotone(lambda x: math.ceil(x) if math.isfinite(x) else x),
    "convert_element_type": _converted,
    "copy": _converted,
    "stop_gradient": _converted,
    "reduce_precision": _converted,
    "concatenate": _joined,
    "reshape": _kept,
    "squeeze": _kept,
    "expand_dims": _kept,
    "transpose": _kept,
    "rev": lambda eqn, ins: (
        _kept(eqn, ins) if 0 not in eqn.params["dimensions"] or isinstance(ins[0], Total) else UNKNOWN
    ),
    "slice": lambda eqn, ins: _kept(eqn, ins),
    "broadcast_in_dim": _spread_out,
    "reduce_sum": _summed,
    "reduce_max": _extreme,
    "reduce_min": _extreme,
    "reduce_or": _extreme,
    "reduce_and": _extreme,
    "dot_general": _product,
    "eq": _equal,
    "ne": _compared,
    "lt": _compared,
    "le": _compared,
    "gt": _compared,
    "ge": _compared,
    "and": _and,
    "or": _compared,
    "not": lambda eqn, ins: _compared(eqn, ins) if eqn.outvars[0].aval.dtype.kind == "b" else UNKNOWN,
    "select_n": _chosen,
    "scatter-add": _scattered,
    "scatter_add": _scattered,
    **dict.fromkeys(ELEMENTWISE, _each),
}
