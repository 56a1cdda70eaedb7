"""What equations make of products of powers: one rule a primitive, for lower/logarithms.py.

A rule is called as rule(known, equation, its value, *operands), operands a number or a `Form`. It gives a form of the
value, or of another that is as good, or a number instead, or None, where nothing is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.compiler.lower import monomial_sums as sums
from spuvm.compiler.lower import monomials as m
from spuvm.compiler.lower.evaluation import bind
from spuvm.compiler.lower.known_numbers import FEW, MOST_BITS, MOVES, Known, fills
from spuvm.compiler.lower.monomials import MOST_TERMS, TINY, Atom, Form, Term, spread, terms_of, uniform, value_of

Rule = Callable[..., Any]

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


# what is known of results --------------------------------------------------------------------------------------


def _of_atom(atom: Atom | None, out: Any) -> Form | None:
    return None if atom is None else Form(out, (Term(None, {atom: 1}),))


def _at(x: Any, shape: tuple[int, ...]) -> tuple[Term, ...]:
    """The terms of an operand, spread to the shape of a result."""
    return tuple(spread(t, shape) for t in terms_of(x))


def _multiplied(known: Known, out: Any, x: Sequence[Term], y: Sequence[Term]) -> Any:
    """The product of sums, where there are few terms; with another value if something cancelled."""
    if len(x) * len(y) > MOST_TERMS:
        return None
    products = [sums.times(a, b) for a in x for b in y]
    terms = tuple(t for t, _ in products)
    if not any(cancelled for _, cancelled in products):
        return Form(out, terms) if any(t.powers for t in terms) else None
    return known.changed(sums.number(terms, out), terms if any(t.powers for t in terms) else ())


def _mul(known: Known, eqn: Any, out: Any, x: Any, y: Any) -> Any:
    if not (isinstance(x, Form) or isinstance(y, Form)):
        return None
    return _multiplied(known, out, _at(x, out.shape), _at(y, out.shape))


def _div(known: Known, eqn: Any, out: Any, x: Any, y: Any) -> Any:
    if isinstance(y, np.ndarray):
        return _multiplied(known, out, _at(x, out.shape), terms_of(1 / y)) if isinstance(x, Form) and y.all() else None
    below = _sum_of(y, id(value_of(y)) in known.logged)
    below = Term(None, {known.divisor(value_of(y)): 1}) if below is None else below
    return _multiplied(known, out, _at(x, out.shape), (spread(sums.over(below, known.divisor), out.shape),))


def _integer_pow(known: Known, eqn: Any, out: Any, x: Any, y: int | None = None) -> Any:
    n = int(eqn.params.get("y", 2))
    term = x.term if isinstance(x, Form) else Term(None, {known.divisor(x): 1}) if n < 0 else None
    if term is None or term.base is not None or not 0 < abs(n) <= MOST_TERMS:
        return None
    return Form(out, (Term(None, {atom: n * k for atom, k in term.powers.items()}, term.sign ** abs(n)),))


def _neg(known: Known, eqn: Any, out: Any, x: Any) -> Any:
    return Form(out, tuple(map(sums.negated, x.terms))) if isinstance(x, Form) else None


def _add(known: Known, eqn: Any, out: Any, x: Any, y: Any) -> Any:
    for a, b in ((x, y), (y, x)):
        c = uniform(b)
        if c is not None and isinstance(a, Form) and a.value.shape == out.shape:
            return _shifted(out, a, c)
    return _sum(known, out, x, y)


def _sub(known: Known, eqn: Any, out: Any, x: Any, y: Any) -> Any:
    if isinstance(y, Form):
        y = Form(y.value, tuple(map(sums.negated, y.terms)))
        c = uniform(x)
        if c is not None and y.value.shape == out.shape:
            return _shifted(out, y, c)
        return _sum(known, out, x, y)
    c = uniform(y)
    if c is not None and isinstance(x, Form) and x.value.shape == out.shape:
        return _shifted(out, x, -c)
    return _sum(known, out, x, -y) if isinstance(x, Form) and x.pending else None


def _shifted(out: Any, x: Form, c: float) -> Form | None:
    """x + c of a known c: 1 - p, 1 + e^a, p + an epsilon."""
    term = x.term
    if term is None:
        more = (*x.terms, Term(np.asarray(c, out.dtype)))
        return Form(out, more) if 0 < c < TINY and m.mixed(more, out) is not None else None
    atom = Term(term.base, term.powers).atom
    if term.sign < 0 and atom is not None and abs(c - 1) < TINY:
        left = m.complement(atom, out)
        if left is None or c == 1:
            return _of_atom(left, out)
        return _of_atom(m.plus(Term(None, {left: 1}), c - 1, out), out) if c > 1 else None
    if term.sign > 0 and atom is not None and atom.kind == "exp" and c == 1:
        return Form(out, (Term(None, {m.logistic(atom.argument, -1, inverse=lambda: out): -1}),))
    if 0 < c < TINY and term.is_positive:
        return _of_atom(m.plus(term, c, out), out)
    return None


def _sum(known: Known, out: Any, x: Any, y: Any) -> Any:
    """Kept only where something of it may cancel, or it may be of small probabilities with weights."""
    if not any(isinstance(v, Form) and v.pending for v in (x, y)):
        both = (*_at(x, out.shape), *_at(y, out.shape)) if isinstance(x, Form) and isinstance(y, Form) else ()
        kept = 0 < len(both) <= MOST_TERMS and any(t.base is not None and t.powers for t in both)
        return Form(out, both) if kept and m.mixed(both, out) is not None else None
    terms, fewer = sums.total((*_at(x, out.shape), *_at(y, out.shape)))
    if fewer:
        return known.changed(sums.number(terms, out), terms)
    return Form(out, terms) if len(terms) <= MOST_TERMS else None


def _limited(which: str) -> Rule:
    def rule(known: Known, eqn: Any, out: Any, x: Any, y: Any) -> Any:
        for a, b in ((x, y), (y, x)):
            c = uniform(b)
            if c is None or not (0 < c < TINY or 1 - TINY < c <= 1):
                continue
            term = a.term if isinstance(a, Form) and a.value.shape == out.shape else None
            if term is not None and term.is_positive:
                return _of_atom(m.limit(term, which, c, out), out)
        return None

    return rule


def _selected(known: Known, eqn: Any, out: Any, which: Any, *cases: Any) -> Any:
    """Of a form and zeros, the form with another number before it; of two with logarithms, a choice of these."""
    forms = [x for x in cases if isinstance(x, Form)]
    if len(cases) != 2 or not forms or value_of(which).shape != out.shape:
        return None
    if len(forms) == 1 and any(uniform(x) == 0 for x in cases):
        at = 0 if cases[0] is forms[0] else 1

        def chosen(t: Term) -> Term:
            base = jnp.broadcast_to(jnp.asarray(1.0 if t.base is None else t.base, out.dtype), out.shape)
            zero = jnp.zeros(out.shape, out.dtype)
            both = (base, zero) if at == 0 else (zero, base)
            return Term(lax.select_n(which, *both), _chosen(t, which, at), t.sign)

        return Form(out, tuple(map(chosen, forms[0].terms)))
    logs = [_log_in(x, out.shape) for x in cases]
    if any(log is None for log in logs):
        return None

    def log() -> Any:
        return lax.select_n(which, *(jnp.broadcast_to(f(), out.shape) for f in logs if f is not None))

    terms = tuple(_at(x, out.shape)[0] for x in cases)
    return _of_atom(Atom("choice", ("choice", id(out)), lambda: out, log, out.shape, kept=(which, terms, out)), out)


def _chosen(t: Term, which: Any, at: int) -> dict[Atom, int]:
    """The powers where `which` is `at`: of what that has chosen, those of what was chosen."""
    found = Term()
    for atom, n in t.powers.items():
        one = Term(None, {atom: 1})
        if atom.kind == "choice" and atom.kept[0] is value_of(which) and atom.kept[1][at].base is None:
            one = atom.kept[1][at]
        for _ in range(abs(n)):
            found, _ = sums.times(found, one if n > 0 else sums.over(one))
    return dict(found.powers)


def _log_in(x: Any, shape: tuple[int, ...]) -> Callable[[], Any] | None:
    """How to compute the logarithm of a form of one term, or of a positive constant."""
    c = uniform(x)
    if c is not None:
        return (lambda: jnp.full(shape, np.log(c), jnp.result_type(value_of(x)))) if c > 0 else None
    term = x.term if isinstance(x, Form) else None
    return (lambda: m.log_of(term)) if term is not None and term.is_positive else None


def _compared(known: Known, eqn: Any, out: Any, x: Any, y: Any) -> Any:
    """Of probabilities and limits near 0 or 1: the order of their logarithms, or of those of what is left of them."""
    nearest = [_limit_of(v) for v in (x, y)]
    if not any(isinstance(v, Form) for v in (x, y)) or not any(0 < c < TINY or 1 - TINY < c < 1 for c in nearest):
        return None
    operands = [x, y]
    if any(c > 1 - TINY for c in nearest):
        operands = [_left(y), _left(x)]
    logs = [_log_in(v, out.shape) for v in operands]
    if any(log is None for log in logs):
        return None
    numbers = [f() for f in logs if f is not None]
    return known.changed(eqn.primitive.bind(*(jnp.broadcast_to(v, out.shape) for v in numbers)))


def _limit_of(x: Any) -> float:
    """What an operand is limited by, or a constant is; else 0."""
    atom = x.term.atom if isinstance(x, Form) and x.term is not None else None
    return atom.limits[1] if atom is not None and atom.kind == "limit" else uniform(x) or 0.0


def _left(x: Any) -> Any:
    """1 - x, if there is a form of it."""
    c = uniform(x)
    if c is not None:
        return np.asarray(1 - c, x.dtype)
    atom = x.term.atom if isinstance(x, Form) and x.term is not None else None
    return None if atom is None else _of_atom(m.complement(atom, 1 - x.value), 1 - x.value)


def _moved(known: Known, eqn: Any, out: Any, x: Any, *indices: Any) -> Any:
    if not isinstance(x, Form) or fills(eqn):
        return None
    how = (eqn.primitive.name, repr(sorted(eqn.params.items(), key=lambda kv: kv[0])), *map(id, indices))

    def move(v: Any) -> Any:
        v = jnp.broadcast_to(v, x.value.shape)
        return bind(eqn, [v, *indices], eqn.params)[0]

    def one(t: Term) -> Term:
        t = t if x.value.size > 1 or out.size == 1 else sums.by_one(t, x.value)
        powers = {m.moved(atom, how, move, out.shape, (atom, indices)): n for atom, n in t.powers.items()}
        still = t.base is None or (isinstance(t.base, np.ndarray) and not t.base.ndim)
        return Term(t.base if still else move(t.base), powers, t.sign)

    return Form(out, tuple(map(one, x.terms)))


def _total(known: Known, eqn: Any, out: Any, x: Any) -> Any:
    term = x.term if isinstance(x, Form) and not any(map(_one_below, x.terms)) else None
    atom = m.mixed_along(term, x.value, tuple(eqn.params["axes"]), out) if term is not None else None
    if atom is not None:
        return Form(out, (Term(None, {atom: 1}),))
    return _divided_after(known, out, x, lambda v: bind(eqn, [v], eqn.params)[0], value_of(x))


def _one_below(t: Term) -> bool:
    return bool(sums.divisors(t))


def _dot(known: Known, eqn: Any, out: Any, x: Any, y: Any) -> Any:
    a, b = value_of(x), value_of(y)
    if isinstance(x, Form) and any(map(sums.divisors, x.terms)):
        return _divided_after(known, out, x, lambda v: bind(eqn, [v, b], eqn.params)[0], a, eqn)
    return _divided_after(known, out, y, lambda v: bind(eqn, [a, v], eqn.params)[0], b, eqn)


def _divided_after(known: Known, out: Any, x: Any, summed: Callable[[Any], Any], of: Any, dot: Any = None) -> Any:
    """A sum of what is divided by one number B, (sum x / N) / (B / N), N a power of two: 1 / B may be less than a unit.

    N is about the number of terms, so that the sum is no larger than a mean.
    """
    axes = dot.params["dimension_numbers"][0][0] if dot is not None else ()
    count = math.prod(dot.invars[0].aval.shape[d] for d in axes) if dot is not None else np.size(of) // max(out.size, 1)
    if not isinstance(x, Form) or count < FEW or not any(map(sums.divisors, x.terms)):
        return None
    bits = min(math.ceil(math.log2(count)), MOST_BITS)
    terms = tuple(known.divided(sums.by_one(t, x.value), x.value, out, summed, bits) for t in x.terms)
    return known.changed(sums.number(terms, out), terms)


def _scatter_add(known: Known, eqn: Any, out: Any, zeros: Any, indices: Any, updates: Any) -> Any:
    """Of what was gathered from the same places: (y / p[i]) scattered is (y scattered) / p."""
    term = updates.term if isinstance(updates, Form) and uniform(zeros) == 0 else None
    if term is None:
        return None
    powers: dict[Atom, int] = {}
    for atom, n in term.powers.items():
        source = _gathered(atom, eqn, indices)
        if source is None or source.shape != out.shape:
            return None
        powers[source] = n
    base = jnp.broadcast_to(jnp.asarray(1.0 if term.base is None else term.base, out.dtype), updates.value.shape)
    return Form(out, (Term(bind(eqn, [zeros, indices, base], eqn.params)[0], powers, term.sign),))


def _gathered(atom: Atom, eqn: Any, indices: Any) -> Atom | None:
    """What an atom was taken from, by a gather that this scatter is the transposition of."""
    if atom.key[0] != "moved" or atom.key[1][0] != "gather" or atom.key[1][2:] != (id(indices),):
        return None
    of, to = _dimensions(atom.key[1][1]), eqn.params["dimension_numbers"]
    want = f"offset_dims={to.update_window_dims}, collapsed_slice_dims={to.inserted_window_dims}, "
    want += f"start_index_map={to.scatter_dims_to_operand_dims}, operand_batching_dims={to.operand_batching_dims}, "
    want += f"start_indices_batching_dims={to.scatter_indices_batching_dims}"
    return atom.kept[1][0] if want in of else None


def _dimensions(params: str) -> str:
    return params[params.find("GatherDimensionNumbers(") :]


# logarithms ------------------------------------------------------------------------------------------------------


def _log(known: Known, eqn: Any, out: Any, x: Any) -> Any:
    term = _sum_of(x)
    if term is not None and term.atom is not None and term.atom.kind == "sum":
        known.logged[id(x.value)] = x.value
    return _logarithm(known, out, term)


def _sum_of(x: Any, positive: bool = False) -> Term | None:
    """Its one term, or the sum of its terms as one, if their logarithms are known."""
    if not isinstance(x, Form):
        return None
    if x.term is not None:
        atom = x.term.atom
        return Term(None, {replace(atom, positive=True): 1}) if atom and atom.kind == "sum" and positive else x.term
    mixed = m.mixed(x.terms, x.value, positive)
    return None if mixed is None else Term(None, {mixed: 1})


def _log1p(known: Known, eqn: Any, out: Any, x: Any) -> Any:
    form = _shifted(x.value, x, 1.0) if isinstance(x, Form) else None  # of whose terms logarithms are taken alone
    return _logarithm(known, out, form.term if form is not None else None)


def _logarithm(known: Known, out: Any, term: Term | None) -> Any:
    """That of 1 + e^a is as good by its value."""
    if term is None or not term.has_logarithm:
        return None
    if term.base is None and [(a.kind, n) for a, n in term.powers.items()] == [("logistic", -1)]:
        return None
    log = m.log_of(term)
    return known.changed(lax.convert_element_type(jnp.broadcast_to(log, out.shape), out.dtype))


def _convert(known: Known, eqn: Any, out: Any, x: Any) -> Any:
    same = isinstance(x, Form) and x.value.dtype == out.dtype
    return Form(out, x.terms) if same else None


RULES: dict[str, Rule] = {
    "exp": lambda known, eqn, out, x: _of_atom(m.exponential(value_of(x), out), out),
    "logistic": lambda known, eqn, out, x: _of_atom(m.logistic(value_of(x), 1, out), out),
    "mul": _mul,
    "square": _integer_pow,
    "div": _div,
    "integer_pow": _integer_pow,
    "neg": _neg,
    "add": _add,
    "add_any": _add,
    "sub": _sub,
    "max": _limited("max"),
    "min": _limited("min"),
    "select_n": _selected,
    "scatter-add": _scatter_add,
    "reduce_sum": _total,
    "dot_general": _dot,
    "convert_element_type": _convert,
    "log": _log,
    "log1p": _log1p,
    **dict.fromkeys(MOVES, _moved),
    **dict.fromkeys(COMPARISONS, _compared),
}
