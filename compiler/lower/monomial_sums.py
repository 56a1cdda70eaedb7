"""Sums and products of monomials: what cancels, and the number that they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.compiler.lower.monomials import Atom, Key, Number, Term, log_of, logistic, plain


def times(x: Term, y: Term) -> tuple[Term, bool]:
    """The product, and whether something cancelled."""
    atoms: dict[Key, Atom] = {}
    for atom in (*x.powers, *y.powers):
        if atom.key not in atoms or atom.inverse is not None:
            atoms[atom.key] = atom
    first, second = x.names, y.names
    cancelled = any(first[k] * second[k] < 0 for k in first.keys() & second.keys())
    powers = {k: first.get(k, 0) + second.get(k, 0) for k in atoms}
    base = y.base if x.base is None else x.base if y.base is None else x.base * y.base
    found = {atoms[k]: n for k, n in powers.items() if n}
    shorter, simplified = _simplified(found)
    return Term(base, shorter, x.sign * y.sign), cancelled or simplified


def over(x: Term, divisor: Callable[[Number], Atom] = plain) -> Term:
    """1 / x"""
    powers = {atom: -n for atom, n in x.powers.items()}
    if x.base is not None:
        powers[divisor(x.base)] = -1
    return Term(None, powers, x.sign)


def negated(x: Term) -> Term:
    return Term(x.base, x.powers, -x.sign)


def total(terms: tuple[Term, ...]) -> tuple[tuple[Term, ...], bool]:
    """The same sum by fewer terms, y - y p = y (1 - p), and whether there are fewer."""
    known = {id(a.argument) for t in terms for a in t.powers if a.kind == "logistic"}
    rest = [Term(t.base, _quotients(t.powers, known), t.sign) for t in terms]
    for i, x in enumerate(rest):
        for j, y in enumerate(rest):
            left = _left(x, y)
            if left is not None:
                fewer, _ = total((*(t for k, t in enumerate(terms) if k not in (i, j)), left))
                return fewer, True
    return terms, False


def _left(x: Term, y: Term) -> Term | None:
    """x + y, where y is -x p: x (1 - p)."""
    if x.base is not y.base or x.sign == y.sign:
        return None
    first, second = x.names, y.names
    more = {k: second.get(k, 0) - first.get(k, 0) for k in first.keys() | second.keys()}
    extra = [k for k, n in more.items() if n]
    atom = next((a for a in y.powers if extra == [a.key] and more[a.key] == 1 and a.kind == "logistic"), None)
    if atom is None:
        return None
    powers = dict(x.powers)
    _raise(powers, logistic(atom.argument, -atom.sign), 1)
    return Term(x.base, powers, x.sign)


def _quotients(powers: Mapping[Atom, int], known: set[int]) -> dict[Atom, int]:
    """e^a as a quotient of logistic(a), for these a."""
    found = dict(powers)
    for atom, n in powers.items():
        if atom.kind == "exp" and id(atom.argument) in known:
            del found[atom]
            _raise(found, logistic(atom.argument, 1), n)
            _raise(found, logistic(atom.argument, -1, inverse=_one_and(atom)), -n)
    return found


def _one_and(exponential: Atom) -> Callable[[], Number]:
    """1 + e^a, by which a quotient by what is left of logistic(a), which may be less than a unit, is a product."""
    return lambda: 1 + exponential.value()


def divisors(term: Term) -> list[Atom]:
    """Those that are one number."""
    return [atom for atom, n in term.powers.items() if atom.scalar is not None and n < 0]


def by_one(term: Term, like: Any) -> Term:
    """The same with the first power of one such divisor at most: by the others the number before it is divided."""
    last = divisors(term)[-1:]
    powers = dict(term.powers)
    for atom in last:
        _raise(powers, atom, 1)
    if not divisors(Term(None, powers)):
        return term
    return Term(number((Term(term.base, powers),), like), dict.fromkeys(last, -1), term.sign)


def _simplified(powers: dict[Atom, int]) -> tuple[dict[Atom, int], bool]:
    """e^a beside logistic(a) as a quotient of such; x / (x + c) and x / max(x, c) as functions of ln x."""
    before = powers
    powers = _quotients(powers, {id(a.argument) for a in powers if a.kind == "logistic"})
    changed = sum(map(abs, powers.values())) < sum(map(abs, before.values()))
    for atom, n in list(powers.items()):
        if atom.kind == "sum" and atom.positive and n < 0:
            changed |= _over_sum(powers, atom)
            continue
        inner = _innermost(atom)
        if inner is not None and n < 0 and _holds(powers, inner, -n):
            changed = True
            ratio = _ratio(atom, inner)
            _raise(powers, atom, -n)
            for other, m in inner.powers.items():
                _raise(powers, other, n * m)
            _raise(powers, ratio, -n)
    return powers, changed


def _over_sum(powers: dict[Atom, int], below: Atom) -> bool:
    """p / s, s a sum of such products, as e^(ln p - ln s): both may be less than a unit."""
    above = {a: n for a, n in powers.items() if n > 0 and a.positive and a.kind not in ("plain", "ratio")}
    if not above:
        return False
    rest = {a: n for a, n in powers.items() if n < 0 and a is not below and a.kind != "plain" and a.positive}
    part = Term(None, {**above, **rest, below: powers[below]})
    for atom in part.powers:
        del powers[atom]
    key = ("ratio", *sorted(part.names.items(), key=repr))
    shape = np.broadcast_shapes(*(a.shape for a in part.powers))
    powers[Atom("ratio", key, lambda: lax.exp(log_of(part)), lambda: log_of(part), shape, kept=part)] = 1
    return True


def _raise(powers: dict[Atom, int], atom: Atom, n: int) -> None:
    there = next((a for a in powers if a.key == atom.key), atom)
    total = powers.pop(there, 0) + n
    if total:
        powers[there if atom.inverse is None else atom] = total


def _holds(powers: Mapping[Atom, int], inner: Term, n: int) -> bool:
    """Whether the n-th power of a term is a factor."""
    there = {atom.key: m for atom, m in powers.items()}
    if inner.base is not None:
        return False
    return all(there.get(a.key, 0) * m > 0 and abs(there[a.key]) >= abs(n * m) for a, m in inner.powers.items())


def _innermost(atom: Atom) -> Term | None:
    """What an epsilon was added to, or limits were put on."""
    inner = atom.inner
    further = inner.atom if inner is not None and atom.kind == "limit" else None
    return inner if further is None or further.kind != "limit" else _innermost(further)


def _ratio(atom: Atom, inner: Term) -> Atom:
    def log() -> Number:
        return log_of(inner) - atom.log()

    def value() -> Number:
        return lax.logistic(log_of(inner) - math.log(atom.limits[1])) if atom.kind == "plus" else lax.exp(log())

    return Atom("ratio", ("ratio", atom.key), value, log, atom.shape, kept=atom)


def number(terms: tuple[Term, ...], like: Any) -> Number:
    """The sum of the terms, of the shape and dtype of `like`."""
    out = [_product(t, like) for t in terms]
    total = out[0]
    for x in out[1:]:
        total = total + x
    return total


def _product(term: Term, like: Any) -> Number:
    factors = list(term.powers.items())
    above = [atom.value() for atom, n in factors for _ in range(n)]
    above += [atom.inverse() for atom, n in factors if atom.inverse is not None for _ in range(-n)]
    below = [atom.value() for atom, n in factors if atom.inverse is None for _ in range(-n)]
    base = np.ones((), like.dtype) if term.base is None else term.base
    if term.base is None and above:
        base = above.pop(0)
    for x in above:
        base = base * x
    out = base
    for x in below:  # one after another: their product may be less than a unit
        out = out / x
    out = out if term.sign > 0 else -out
    return lax.convert_element_type(jnp.broadcast_to(out, like.shape), like.dtype)
