"""What operations do to numbers that may be NaN: pairs of a value and a bool that says whether it is one.

Written in JAX. The value of a pair that is not valid is any number: it counts nowhere, and it is 0 before it is shown.
A bool that is known when compiling is a NumPy array; any other is as secret as what it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.compiler.ir.dtypes import is_key, kind_of
from spuvm.compiler.lower.evaluation import bind
from spuvm.compiler.lower.folded import fold

Array = Any


@dataclass(frozen=True, eq=False)
class Maybe:
    """A float, and a bool of its shape: whether it is a number. Where it is not, it is NaN."""

    value: Array
    valid: Array


jax.tree_util.register_dataclass(Maybe, ["value", "valid"], [])


def value_of(x: Any) -> Array:
    return x.value if isinstance(x, Maybe) else x


def valid_of(x: Any) -> Array:
    """Whether each element is a number: of what is no pair, all are."""
    return x.valid if isinstance(x, Maybe) else np.broadcast_to(np.True_, np.shape(x))


def is_known(x: Any) -> bool:
    return not isinstance(x, jax.core.Tracer | Maybe)


def constant(x: Any) -> Any:
    """A constant with NaN as a pair, any other as it is."""
    if not is_known(x) or is_key(x) or kind_of(np.asarray(x).dtype) != "f":
        return x
    gone = np.isnan(np.asarray(x))
    return Maybe(np.where(gone, np.zeros_like(x), x), ~gone) if gone.any() else x


def shown(x: Maybe) -> Array:
    """The value where it is one, else 0."""
    return jnp.where(x.valid, x.value, jnp.zeros_like(x.value))


# bools --------------------------------------------------------------------------------------------------


class Facts:
    """What bools say of others: if `a & b` holds, so do a and b; if `~a` does not, a does.

    So that `where(isnan(x), 0, x)` is known to be a number.
    """

    def __init__(self) -> None:
        self._true: dict[int, frozenset[int]] = {}
        self._false: dict[int, frozenset[int]] = {}
        self._kept: dict[int, Any] = {}  # so that no id is used twice

    def follows(self, x: Array, from_: Array, holds: bool) -> bool:
        """Whether all of x is true wherever `from_` is `holds`."""
        if is_known(x):
            return bool(np.all(x))
        return self._parts(x) <= (self._parts(from_) if holds else self._false.get(id(from_), frozenset()))

    def _parts(self, x: Array) -> frozenset[int]:
        return self._true.get(id(x), frozenset({id(x)}))

    def _say(self, x: Array, true: frozenset[int], false: frozenset[int]) -> Array:
        self._kept[id(x)] = x
        self._true[id(x)], self._false[id(x)] = true | {id(x)}, false
        return x

    def both(self, x: Array, y: Array) -> Array:
        for a, b in ((x, y), (y, x)):
            if is_known(a) and np.all(a):
                return b
            if is_known(a) and not np.any(a):
                return np.broadcast_to(np.False_, np.broadcast_shapes(np.shape(x), np.shape(y)))
        if x is y or self.follows(x, y, True):
            return y
        if is_known(x) and is_known(y):
            return np.logical_and(x, y)
        return self.said("and", [x, y], lax.bitwise_and(x, y))

    def negated(self, x: Array) -> Array:
        return np.logical_not(x) if is_known(x) else self.said("not", [x], lax.bitwise_not(x))

    def said(self, name: str, xs: list[Array], out: Array) -> Array:
        """The result of a logical operation, with what it says."""
        true = [frozenset() if is_known(x) else self._parts(x) for x in xs]
        false = [self._false.get(id(x), frozenset()) for x in xs]
        self._kept.update((id(x), x) for x in xs)
        match name:
            case "and":
                return self._say(out, true[0] | true[1], false[0] & false[1])
            case "or":
                return self._say(out, true[0] & true[1], false[0] | false[1])
            case "not":
                return self._say(out, false[0], true[0])
        return out

    def chosen(self, which: Array, x: Array, y: Array) -> Array:
        """x where `which`, else y, for bools."""
        yes = np.True_ if self.follows(x, which, True) else x
        no = np.True_ if self.follows(y, which, False) else y
        if is_known(yes) and is_known(no):
            if np.all(yes) and np.all(no):
                return np.broadcast_to(np.True_, np.shape(which))
            if np.all(yes) and not np.any(no):
                return which
        shape = np.shape(which)
        if is_known(no) and not np.any(no):
            return self.both(which, yes)
        if is_known(yes) and not np.any(yes):
            return self.both(self.negated(which), no)
        if is_known(yes) and np.all(yes):
            return lax.bitwise_or(which, jnp.broadcast_to(no, shape))
        if is_known(no) and np.all(no):
            return lax.bitwise_or(lax.bitwise_not(which), jnp.broadcast_to(yes, shape))
        return lax.select_n(which, jnp.broadcast_to(no, shape), jnp.broadcast_to(yes, shape))


# families --------------------------------------------------------------------------------------------------

Rule = Callable[..., Any]  # (facts, *operands, eqn=the equation, **its parameters) -> pairs or arrays


def applied(eqn: Any, args: Sequence[Any], **changes: Any) -> list[Any]:
    """The equation's operation on other operands."""
    if all(map(is_known, args)) and not changes:
        return fold(eqn, args)
    return bind(eqn, list(args), {**eqn.params, **changes})


def paired(value: Array, valid: Array) -> Any:
    """A pair, or the value alone if all are numbers."""
    return value if is_known(valid) and np.all(valid) else Maybe(value, valid)


def all_of(valid: Array, axes: Sequence[int]) -> Array:
    """Whether all along axes are numbers."""
    return np.all(valid, axis=tuple(axes)) if is_known(valid) else lax.reduce_and(valid, tuple(axes))


def elementwise(facts: Facts, *xs: Any, eqn: Any, **_: Any) -> Any:
    """NaN where an operand is."""
    (value,) = applied(eqn, [*map(value_of, xs)])
    valid: Array = np.True_
    for x in xs:
        if isinstance(x, Maybe):
            own = x.valid if np.shape(x.valid) == value.shape else jnp.broadcast_to(x.valid, value.shape)
            valid = facts.both(own, valid)
    return paired(value, valid)


def moved(facts: Facts, *xs: Any, eqn: Any, **params: Any) -> Any:
    """What is done to the values is done to what says whether they are numbers; indices are neither."""
    values = applied(eqn, [*map(value_of, xs)])
    fills = {"fill_value": False} if "fill_value" in params else {}
    valid = applied(eqn, [valid_of(x) if _is_float(x) else x for x in xs], **fills)
    out = [paired(x, v) for x, v in zip(values, valid)]
    return out if eqn.primitive.multiple_results else out[0]


def _is_float(x: Any) -> bool:
    return isinstance(x, Maybe) or kind_of(x.dtype) == "f"


def reduction(facts: Facts, x: Maybe, *, eqn: Any, axes: Any, **_: Any) -> Maybe:
    """NaN where one of the reduced elements is."""
    (value,) = applied(eqn, [x.value])
    return Maybe(value, all_of(x.valid, axes))


def combined(facts: Facts, x: Any, where: Array, updates: Any, *, eqn: Any, **params: Any) -> Maybe:
    """A scatter that adds, multiplies or compares: NaN where one of its elements is."""
    (value,) = applied(eqn, [value_of(x), where, value_of(updates)])
    gone = [
        jnp.asarray(np.logical_not(v) if is_known(v) else ~v).astype(np.int32) for v in (valid_of(x), valid_of(updates))
    ]
    kept = {k: params[k] for k in ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")}
    return Maybe(value, lax.scatter_add(gone[0], where, gone[1], **kept) == 0)


def stated(facts: Facts, x: Maybe, *, eqn: Any, **_: Any) -> Maybe:
    """`reveal` and its like: of the number, 0 where there is none, and of what says so."""
    (value,) = bind(eqn, [shown(x)], eqn.params)
    if eqn.primitive.name == "spu_bound" or is_known(x.valid):
        return Maybe(value, x.valid)
    (valid,) = bind(eqn, [x.valid], eqn.params)
    return Maybe(value, valid)


# rules of their own ------------------------------------------------------------------------------------------


def comparison(name: str, primitive: Callable[[Array, Array], Array]) -> Rule:
    """False where an operand is NaN; `ne` true."""

    def rule(facts: Facts, x: Any, y: Any, **_: Any) -> Array:
        valid = facts.both(valid_of(x), valid_of(y))
        if x is y and name in ("eq", "ne") and _is_float(x):
            valid = np.broadcast_to(valid, np.shape(value_of(x))) if is_known(valid) else valid
            return valid if name == "eq" else facts.negated(valid)
        out = primitive(value_of(x), value_of(y))
        if name != "ne":
            return facts.both(out, valid)
        gone = facts.negated(valid)
        return out if is_known(gone) and not np.any(gone) else facts.said("or", [out, gone], lax.bitwise_or(out, gone))

    return rule


def select_n(facts: Facts, which: Any, *cases: Any, **_: Any) -> Any:
    """A constant case that is never chosen says nothing."""
    if is_known(which) and np.size(which) and (which == which.flat[0]).all():
        return cases[int(which.flat[0])]
    cases = tuple(map(constant, cases))
    if np.asarray(which).dtype != np.bool_ if is_known(which) else which.dtype != np.bool_:
        valid = lax.select_n(which, *(jnp.asarray(valid_of(c)) for c in cases))
        return Maybe(lax.select_n(which, *map(value_of, cases)), valid)
    no, yes = cases
    shape = np.shape(value_of(no))
    if np.shape(which) != shape:
        which = jnp.broadcast_to(which, shape)
    out = lax.select_n(which, *map(value_of, cases))
    return paired(out, facts.chosen(which, valid_of(yes), valid_of(no)))


def is_finite(facts: Facts, x: Any, **_: Any) -> Array:
    return valid_of(x)


def convert(facts: Facts, x: Maybe, *, new_dtype: Any, **_: Any) -> Any:
    """To integers, NaN is 0, as on most processors; as a bool it is true."""
    kind = kind_of(new_dtype)
    if kind == "f":
        return Maybe(lax.convert_element_type(x.value, new_dtype), x.valid)
    if kind == "b":
        return lax.bitwise_or(x.value != 0, facts.negated(x.valid))
    return lax.convert_element_type(shown(x), new_dtype)


def dot_general(facts: Facts, x: Any, y: Any, *, eqn: Any, dimension_numbers: Any, **_: Any) -> Any:
    """A row or a column with one NaN is NaN throughout."""
    (xs, ys), (bx, by) = dimension_numbers
    (value,) = applied(eqn, [value_of(x), value_of(y)])
    free_x = [d for d in range(np.ndim(value_of(x))) if d not in (*xs, *bx)]
    free_y = [d for d in range(np.ndim(value_of(y))) if d not in (*ys, *by)]
    left = jnp.transpose(jnp.asarray(valid_of(x)), (*bx, *free_x, *xs))
    right = jnp.transpose(jnp.asarray(valid_of(y)), (*by, *free_y, *ys))
    batch = len(bx)
    valid: Array = np.True_
    if isinstance(x, Maybe):
        rows = all_of(left, range(batch + len(free_x), left.ndim))
        rows = jnp.expand_dims(rows, tuple(range(batch + len(free_x), value.ndim)))
        valid = jnp.broadcast_to(rows, value.shape)
    if isinstance(y, Maybe):
        columns = all_of(right, range(batch + len(free_y), right.ndim))
        columns = jnp.expand_dims(columns, tuple(range(batch, batch + len(free_x))))
        valid = facts.both(jnp.broadcast_to(columns, value.shape), valid)
    return Maybe(value, valid)


def sort(facts: Facts, *xs: Any, dimension: int, is_stable: bool, num_keys: int, **_: Any) -> list[Any]:
    """NaN last: before each key, whether it is missing. What follows a key keeps its pairs."""
    flat: list[Array] = []
    keys = 0
    for i, x in enumerate(xs):
        if isinstance(x, Maybe):
            flat += [facts.negated(x.valid), shown(x)]
        else:
            flat.append(x)
        keys = len(flat) if i < num_keys else keys
    ordered = iter(lax.sort(tuple(map(jnp.asarray, flat)), dimension=dimension, is_stable=is_stable, num_keys=keys))
    out: list[Any] = []
    for x in xs:
        first = next(ordered)
        out.append(Maybe(next(ordered), facts.negated(first)) if isinstance(x, Maybe) else first)
    return out


def arg_extreme(primitive: Callable[..., Array]) -> Rule:
    """The first NaN, if there is one."""

    def rule(facts: Facts, x: Maybe, *, axes: Any, index_dtype: Any, **_: Any) -> Array:
        (axis,) = axes
        number = primitive(x.value, axis, index_dtype)
        first = lax.argmin(lax.convert_element_type(x.valid, np.int32), axis, index_dtype)
        return jnp.where(all_of(x.valid, axes), number, first)

    return rule


def cumulative(name: str) -> Rule:
    def rule(facts: Facts, x: Maybe, *, axis: int, reverse: bool, **_: Any) -> Maybe:
        valid = lax.associative_scan(jnp.logical_and, jnp.asarray(x.valid), axis=axis, reverse=reverse)
        return Maybe(getattr(lax, name)(x.value, axis=axis, reverse=reverse), valid)

    return rule


COMPARISONS = {"eq": lax.eq, "ne": lax.ne, "lt": lax.lt, "le": lax.le, "gt": lax.gt, "ge": lax.ge}

ELEMENTWISE = (
    *("add", "add_any", "sub", "mul", "div", "rem", "neg", "abs", "sign", "max", "min", "pow", "integer_pow", "clamp"),
    *("floor", "ceil", "round", "exp", "exp2", "expm1", "log", "log1p", "logistic", "tanh", "erf", "erfc", "erf_inv"),
    *("sqrt", "rsqrt", "cbrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"),
    *("atan2", "square", "lgamma", "digamma", "copy", "copy_p", "reduce_precision", "bessel_i0e", "bessel_i1e"),
    *("igamma", "igammac", "regularized_incomplete_beta", "polygamma", "zeta"),
)
MOVES = (
    *(
        "reshape",
        "broadcast_in_dim",
        "transpose",
        "squeeze",
        "expand_dims",
        "slice",
        "rev",
        "concatenate",
        "pad",
        "tile",
    ),
    *("stack", "unstack", "gather", "scatter", "dynamic_slice", "dynamic_update_slice", "split", "device_put"),
    *("optimization_barrier", "stop_gradient"),
)
FAMILIES: dict[Rule, Sequence[str]] = {
    elementwise: ELEMENTWISE,
    moved: MOVES,
    reduction: ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"),
    combined: ("scatter-add", "scatter-mul", "scatter-min", "scatter-max"),
    stated: ("spu_reveal", "spu_bound", "spu_masked", "spu_printed"),
}

RULES: dict[str, Rule] = {
    **{name: rule for rule, names in FAMILIES.items() for name in names},
    **{name: comparison(name, primitive) for name, primitive in COMPARISONS.items()},
    **{name: cumulative(name) for name in ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")},
    "select_n": select_n,
    "is_finite": is_finite,
    "convert_element_type": convert,
    "dot_general": dot_general,
    "sort": sort,
    "argmax": arg_extreme(lax.argmax),
    "argmin": arg_extreme(lax.argmin),
}
