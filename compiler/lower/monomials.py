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
LOWEST = -(2.0**12)  # below all logarithms


@dataclass(frozen=True, eq=False)
class Atom:
    """`kind`: "exp", "logistic", "plus", "limit", "ratio", "choice", "sum", or "plain", the only one whose logarithm is
    no better than that of its value. `argument`, `sign`: logistic(sign argument). `inner`: what it was made of.
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
    positive: bool = True  # whether it is known to be, as all are but a divisor, or a sum before its logarithm is taken
    inverse: Callable[[], Number] | None = None  # 1 / value, where that is what was computed
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
    def doubts(self) -> list[int]:
        """The powers of the factors whose signs are not known."""
        found = [n for atom, n in self.powers.items() if not atom.positive]
        return found if self.base is None or isinstance(self.base, np.ndarray) else [*found, 1]

    @property
    def has_logarithm(self) -> bool:
        """Whether that is better known than by its value, if it is positive: never of a sign that is -."""
        positive = self.base is None or not isinstance(self.base, np.ndarray) or bool((self.base > 0).all())
        return positive and self.sign > 0 and any(atom.kind != "plain" for atom in self.powers)

    @property
    def is_positive(self) -> bool:
        """Whether it is so for certain, a product of atoms with such a logarithm."""
        return self.base is None and self.has_logarithm and not self.doubts


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


def logistic(a: Number, sign: int, out: Number | None = None, inverse: Callable[[], Number] | None = None) -> Atom:
    """logistic(sign a): ln of it is -softplus(-a), and that - a of what is left."""

    def value() -> Number:
        if out is not None:
            return out
        return lax.logistic(a) if sign > 0 else 1 - lax.logistic(a)

    def log() -> Number:
        return -softplus(-a) if sign > 0 else -softplus(-a) - a

    key = ("logistic", id(a), sign)
    return Atom("logistic", key, value, log, np.shape(a), argument=a, sign=sign, inverse=inverse, kept=a)


def plain(x: Number, scalar: Number | None = None, positive: bool = False) -> Atom:
    key = ("plain", id(x))
    return Atom("plain", key, lambda: x, lambda: lax.log(x), np.shape(x), scalar=scalar, positive=positive, kept=x)


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


def mixed(terms: tuple[Term, ...], out: Number, positive: bool = False) -> Atom | None:
    """y p + (1 - y) (1 - p) and the like: a sum of numbers times products of atoms, where it is positive."""
    if not all(_may_be_mixed(t) for t in terms):
        return None

    def log() -> Number:
        each = [_weighted(t, np.shape(out), out.dtype) for t in terms]
        most = each[0][1]
        for _, a in each[1:]:
            most = jnp.maximum(most, a)
        return most + lax.log(sum(b * lax.exp(a - most) for b, a in each))

    return Atom("sum", ("sum", id(out)), lambda: out, log, np.shape(out), positive=positive, kept=(terms, out))


def mixed_along(term: Term, like: Number, axes: tuple[int, ...], out: Number) -> Atom | None:
    """The sum of one such along axes, where it is positive, as of one-hot labels times probabilities."""
    if term.base is None or not term.powers or not _may_be_mixed(term):
        return None

    def log() -> Number:
        b, a = _weighted(term, np.shape(like), out.dtype)
        most = jnp.max(a, axes, keepdims=True)
        return jnp.reshape(most, np.shape(out)) + lax.log(jnp.sum(b * lax.exp(a - most), axes))

    return Atom("sum", ("sum", id(out)), lambda: out, log, np.shape(out), positive=False, kept=(term, out))


def _may_be_mixed(t: Term) -> bool:
    """A product of atoms whose logarithms are known, or a positive constant."""
    c = uniform(t.base)
    return Term(None, t.powers).is_positive if t.powers else c is not None and c > 0 and t.sign > 0


def _weighted(t: Term, shape: tuple[int, ...], dtype: Any) -> tuple[Number, Number]:
    """A number and a logarithm, of which the term is the product; where it is 0, the logarithm is lower than all."""
    if not t.powers:
        return np.ones(shape, dtype), np.full(shape, math.log(uniform(t.base) or 1.0), dtype)
    log = jnp.broadcast_to(log_of(Term(None, t.powers)), shape)
    if t.base is None:
        return np.full(shape, t.sign, dtype), log
    base = jnp.broadcast_to(t.base, shape)
    return (base if t.sign > 0 else -base), jnp.where(base != 0, log, jnp.asarray(LOWEST, dtype))


def moved(atom: Atom, how: Key, move: Callable[[Number], Number], shape: tuple[int, ...], kept: Any = None) -> Atom:
    """What a rearrangement makes of it."""
    key = ("moved", how, atom.key)
    kind = atom.kind if atom.kind in ("plain", "limit", "sum") else "moved"

    def value() -> Number:
        return move(atom.value())

    def log() -> Number:
        return move(atom.log())

    before = atom.inverse
    inverse = None if before is None else lambda: move(before())
    known: Any = {"limits": atom.limits, "scalar": atom.scalar, "positive": atom.positive, "inverse": inverse}
    return Atom(kind, key, value, log, shape, **known, kept=(atom, kept))


def spread(term: Term, shape: tuple[int, ...]) -> Term:
    """The same term of each element of that shape."""

    def move(x: Any) -> Any:
        return jnp.broadcast_to(x, shape)

    powers = {
        atom if atom.shape == shape else moved(atom, ("spread", shape), move, shape): n
        for atom, n in term.powers.items()
    }
    return Term(term.base, powers, term.sign)


def log_of(term: Term) -> Number:
    """That of a positive term. One factor of unknown sign is then positive; of several or squares, sizes count."""
    sizes = len(term.doubts) > 1 or any(n % 2 == 0 for n in term.doubts)
    logs = []
    for atom, n in term.powers.items():
        log = atom.log() if atom.positive or not sizes else lax.log(jnp.abs(atom.value()))
        logs.append(log if n == 1 else n * log)
    if isinstance(term.base, np.ndarray):
        logs.append(np.log(term.base))
    elif term.base is not None:
        logs.append(lax.log(jnp.abs(term.base) if sizes else term.base))
    return sum(logs[1:], logs[0])
