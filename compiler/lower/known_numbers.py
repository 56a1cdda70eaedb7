"""What is known of the numbers of one trace, for lower/logarithms.py: sums of many, and what is positive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from spuvm.compiler.lower import monomial_sums as sums
from spuvm.compiler.lower.monomials import Atom, Form, Term, plain, spread

MOVES = (
    *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "slice", "rev", "copy", "copy_p"),
    *("gather", "dynamic_slice", "stop_gradient", "reduce_precision"),
)
FEW, MOST_BITS = 32, 12  # terms of a sum; fraction bits that a divisor has room for
OF_TOTALS = ("add", "sub", "mul", "div", "neg", "max", "min", "sqrt", "reshape", "squeeze", "broadcast_in_dim", "copy")
POSITIVE = ("exp", "logistic")
OF_POSITIVE = (
    *(*MOVES, "add", "add_any", "mul", "div", "max", "min", "sqrt", "square", "integer_pow", "select_n", "concatenate"),
    *("reduce_sum", "reduce_max", "reduce_min", "dot_general"),
)


class Known:
    """`changes`: how many equations have become others. `scaled`: divisors by a power of two, and of which. `totals`:
    sums of many to one number, and what is made of them alone, by name. `positive`: what is so for certain. `logged`:
    sums of which logarithms were taken, which are positive so.
    """

    def __init__(self) -> None:
        self.changes = 0
        self.totals: dict[int, Any] = {}
        self.positive: dict[int, Any] = {}
        self.scaled: dict[tuple[int, int], tuple[Any, Any]] = {}
        self.logged: dict[int, Any] = {}

    def changed(self, value: Any, terms: tuple[Term, ...] = ()) -> Any:
        self.changes += 1
        return Form(value, terms) if terms else value

    def note(self, eqn: Any, args: list[Any], outs: list[Any]) -> None:
        """What an equation has made."""
        name = eqn.primitive.name
        if self._is_total(name, args, outs):
            self.totals[id(outs[0])] = outs[0]
        numbers = [x for x in args if jnp.issubdtype(x.dtype, jnp.floating)]
        stays = name in OF_POSITIVE and bool(numbers) and not fills(eqn)
        which = any if name == "max" else all
        if name in POSITIVE or (stays and which(map(self.is_positive, numbers))):
            self.positive[id(outs[0])] = outs[0]

    def is_positive(self, x: Any) -> bool:
        return bool((x > 0).all()) if isinstance(x, np.ndarray) else id(x) in self.positive

    def _is_total(self, name: str, args: list[Any], outs: list[Any]) -> bool:
        if len(outs) != 1 or outs[0].size != 1:
            return False
        if name in ("reduce_sum", "dot_general"):
            return bool(max(x.size for x in args) >= FEW)
        made = [x for x in args if not isinstance(x, np.ndarray)]
        return name in OF_TOTALS and bool(made) and all(id(x) in self.totals for x in made)

    def divisor(self, x: Any) -> Atom:
        """Only of totals it is known that what they are divided by after a sum is no larger than they allow."""
        return plain(x, self.totals.get(id(x)), self.is_positive(x))

    def divided(self, t: Term, like: Any, out: Any, summed: Callable[[Any], Any], bits: int) -> Term:
        """The sum of a term, and what it is divided by."""
        below = sums.divisors(t)
        rest = {atom: n for atom, n in t.powers.items() if atom not in below}
        each = sums.number((Term(t.base, rest),), like)
        if not below:
            return Term(summed(each), {}, t.sign)
        scalar: Any = below[0].scalar
        if (id(scalar), bits) not in self.scaled:
            self.scaled[id(scalar), bits] = jnp.reshape(scalar * 2.0**-bits, ()), scalar
        one = self.scaled[id(scalar), bits][0]
        one = plain(one, one, below[0].positive)
        return spread(Term(summed(each * 2.0**-bits), {one: -1}, t.sign), out.shape)


def fills(eqn: Any) -> bool:
    """Whether a number that is not among the operands may be among the results."""
    value = eqn.params.get("fill_value")
    return value is not None and not np.isnan(value)
