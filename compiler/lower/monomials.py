"""Products of powers of positive numbers, by name: how p^2 / (1 - p) is known to be that, and its logarithm.

An `Atom` is a positive number with a logarithm of its own: e^a (a), logistic(a), what is left of them (1 - p), what an
epsilon was added to or a limit put on, and any divisor. A `Term` is a number times powers of atoms, a `Form` a number
and the terms that it is the sum of. Atoms of one key are one number, so p cancels in (y / p) p.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

Number = Any  # a traced array or a NumPy one
Key = tuple[Any, ...]

TINY = 2.0**-7  # a constant below it, or as near to 1, is a limit or an epsilon of a probability
MOST_TERMS = 4


@dataclass(frozen=True, eq=False)
class Atom:
    """`kind`: "exp", "logistic", "plus", "limit", "ratio", "choice", or "plain", the only one whose logarithm is no
    better than that of its value. `argument`, `sign`: logistic(sign argument). `inner`: what it was made of.
    """

    kind: str
    key: Key
    value: Callable[[], Number]
    log: Callable[[], Number]
    shape: tuple[int, ...]
    argument: Any = None
    sign: int = 1
    inner: Term | None = None
    limits: tuple[str, float] = ("", 0.0)
    scalar: Number | None = None  # the one number that all elements are
    kept: Any = None  # what the key names, so that it keeps its name


@dataclass(frozen=True, eq=False)
class Term:
    """sign base times the atoms' powers; no base is 1."""

    base: Number | None = None
    powers: Mapping[Atom, int] = field(default_factory=dict)
    sign: int = 1

    @property
    def names(self) -> dict[Key, int]:
        return {atom.key: n for atom, n in self.powers.items()}

    @property
    def atom(self) -> Atom | None:
        """The one atom that it is."""
        if self.base is None and self.sign > 0 and list(self.powers.values()) == [1]:
            return next(iter(self.powers))
        return None

    @property
    def has_logarithm(self) -> bool:
        """Whether that is better known than by its value: never of a sign that is not known to be +."""
        positive = self.base is None or not isinstance(self.base, np.ndarray) or bool((self.base > 0).all())
        return positive and self.sign > 0 and any(atom.kind != "plain" for atom in self.powers)


@dataclass(frozen=True, eq=False)
class Form:
    """`value` is the sum of the terms."""

    value: Number
    terms: tuple[Term, ...]

    @property
    def term(self) -> Term | None:
        return self.terms[0] if len(self.terms) == 1 else None

    @property
    def pending(self) -> bool:
        """Whether something is divided by that may cancel."""
        return any(n < 0 for t in self.terms for n in t.powers.values())


def value_of(x: Any) -> Number:
    return x.value if isinstance(x, Form) else x


def terms_of(x: Any) -> tuple[Term, ...]:
    if isinstance(x, Form):
        return x.terms
    c = uniform(x)
    if not c:
        return (Term(x),)
    return (Term(None if abs(c) == 1 else np.asarray(abs(c), x.dtype), {}, 1 if c > 0 else -1),)


def uniform(x: Any) -> float | None:
    """The number that all elements of a known array are."""
    if isinstance(x, np.ndarray) and x.size and x.dtype.kind == "f" and bool((x == x.flat[0]).all()):
        return float(x.flat[0])
    return None


# atoms -------------------------------------------------------------------------------------------------------


def softplus(x: Number) -> Number:
    """ln(1 + e^x) of any x."""
    return jnp.maximum(x, 0) + lax.log1p(lax.exp(-jnp.abs(x)))


def exponential(a: Number, out: Number) -> Atom:
    return Atom("exp", ("exp", id(a)), lambda: out, lambda: a, np.shape(a), argument=a, kept=a)


def logistic(a: Number, sign: int, out: Number | None = None) -> Atom:
    """logistic(sign a): ln of it is -softplus(-a), and that - a of what is left."""

    def value() -> Number:
        if out is not None:
            return out
        return lax.logistic(a) if sign > 0 else 1 - lax.logistic(a)

    def log() -> Number:
        return -softplus(-a) if sign > 0 else -softplus(-a) - a

    return Atom("logistic", ("logistic", id(a), sign), value, log, np.shape(a), argument=a, sign=sign, kept=a)


def plain(x: Number) -> Atom:
    one = x if math.prod(np.shape(x)) == 1 else None
    return Atom("plain", ("plain", id(x)), lambda: x, lambda: lax.log(x), np.shape(x), scalar=one, kept=x)


def plus(x: Term, c: float, out: Number) -> Atom:
    """x + c of a small c > 0."""

    def log() -> Number:
        a = log_of(x)
        difference = a - math.log(c)
        return jnp.maximum(difference, 0) + math.log(c) + lax.log1p(lax.exp(-jnp.abs(difference)))

    key = ("plus", tuple(sorted(x.names.items(), key=repr)), c)
    return Atom("plus", key, lambda: out, log, np.shape(out), inner=x, limits=("add", c), kept=x)


def limit(x: Term, which: str, c: float, out: Number) -> Atom:
    """max(x, c) or min(x, c)."""
    chosen = jnp.maximum if which == "max" else jnp.minimum
    key = ("limit", which, tuple(sorted(x.names.items(), key=repr)), c)
    return Atom(
        "limit", key, lambda: out, lambda: chosen(log_of(x), math.log(c)), np.shape(out), None, 1, x, (which, c), x
    )


def complement(atom: Atom, out: Number) -> Atom | None:
    """1 - p of a probability."""
    if atom.kind == "logistic":
        return logistic(atom.argument, -atom.sign, out)
    inner = atom.inner.atom if atom.inner is not None and atom.kind == "limit" else None
    left = complement(inner, 1 - inner.value()) if inner is not None else None
    c = 1 - atom.limits[1]
    if left is None or not c > 0:
        return None
    return limit(Term(None, {left: 1}), {"max": "min", "min": "max"}[atom.limits[0]], c, out)


def moved(atom: Atom, how: Key, move: Callable[[Number], Number], shape: tuple[int, ...], kept: Any = None) -> Atom:
    """What a rearrangement makes of it."""
    key = ("moved", how, atom.key)
    kind = atom.kind if atom.kind in ("plain", "limit") else "moved"

    def value() -> Number:
        return move(atom.value())

    def log() -> Number:
        return move(atom.log())

    return Atom(kind, key, value, log, shape, limits=atom.limits, scalar=atom.scalar, kept=(atom, kept))


# terms -------------------------------------------------------------------------------------------------------


def log_of(term: Term) -> Number:
    logs = [n * atom.log() if n != 1 else atom.log() for atom, n in term.powers.items()]
    if term.base is not None:
        logs.append(np.log(term.base) if isinstance(term.base, np.ndarray) else lax.log(term.base))
    return sum(logs[1:], logs[0])


def times(x: Term, y: Term) -> tuple[Term, bool]:
    """The product, and whether something cancelled."""
    atoms = {atom.key: atom for t in (x, y) for atom in t.powers}
    first, second = x.names, y.names
    cancelled = any(first[k] * second[k] < 0 for k in first.keys() & second.keys())
    powers = {k: first.get(k, 0) + second.get(k, 0) for k in atoms}
    base = y.base if x.base is None else x.base if y.base is None else x.base * y.base
    found = {atoms[k]: n for k, n in powers.items() if n}
    shorter, simplified = _simplified(found)
    return Term(base, shorter, x.sign * y.sign), cancelled or simplified


def over(x: Term) -> Term:
    """1 / x"""
    powers = {atom: -n for atom, n in x.powers.items()}
    if x.base is not None:
        powers[plain(x.base)] = -1
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
                fewer, _ = total((*(t for k, t in enumerate(rest) if k not in (i, j)), left))
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
            for sign in (1, -1):
                _raise(found, logistic(atom.argument, sign), sign * n)
    return found


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
    changed = powers.keys() != before.keys()
    for atom, n in list(powers.items()):
        inner = _innermost(atom)
        if inner is not None and n < 0 and _holds(powers, inner, -n):
            changed = True
            ratio = _ratio(atom, inner)
            _raise(powers, atom, -n)
            for other, m in inner.powers.items():
                _raise(powers, other, n * m)
            _raise(powers, ratio, -n)
    return powers, changed


def _raise(powers: dict[Atom, int], atom: Atom, n: int) -> None:
    there = next((a for a in powers if a.key == atom.key), atom)
    total = powers.pop(there, 0) + n
    if total:
        powers[there] = total


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
    above = [atom.value() for atom, n in term.powers.items() for _ in range(n)]
    below = [atom.value() for atom, n in term.powers.items() for _ in range(-n)]
    base = np.ones((), like.dtype) if term.base is None else term.base
    if term.base is None and above:
        base = above.pop(0)
    for x in above:
        base = base * x
    for i, x in enumerate(below):
        below[0] = x if i == 0 else below[0] * x
    out = base / below[0] if below else base
    out = out if term.sign > 0 else -out
    return lax.convert_element_type(jnp.broadcast_to(out, like.shape), like.dtype)
