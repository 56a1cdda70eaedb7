"""The primitives of a choreography: `send` and `random`; where parties may cheat, `confirm` and `multiplied`.

A protocol kernel is plain JAX code over the components of sharings. `send(x, src, dst)` is the
value x, known from there on to party `dst` too. `random(holders, shape, dtype)` is a pseudorandom
value known to exactly the parties in `holders`, who share a key. Neither computes anything by
itself: projection turns sends into messages and randoms into inputs of the stage that uses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Primitive

from spuvm.runtime.ring.elements import WIDE, Elements, Word

send_p = Primitive("send")
random_p = Primitive("random")
OPENING = "uniform_opening"
PERMUTATION = "permutation"  # in place of a dtype: what is drawn is not words, but their order


def _send_type(x: Any, *, src: int, dst: int, bits: int) -> Any:
    return x


def _random_type(*, holders: tuple[int, ...], shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.core.ShapedArray(shape, np.dtype(np.int64 if dtype == PERMUTATION else dtype))


def _confirm_type(x: Any, *, by: int, to: int) -> Any:
    return x


def _multiplied_type(*components: Any, how: str) -> Any:
    return list(components[2 * len(components) // 3 :])


multiplied_p = Primitive("multiplied")
multiplied_p.multiple_results = True
multiplied_p.def_abstract_eval(_multiplied_type)
multiplied_p.def_impl(_multiplied_type)
confirm_p = Primitive("confirm")
confirm_p.def_abstract_eval(_confirm_type)
confirm_p.def_impl(lambda x, **_: x)
send_p.def_abstract_eval(_send_type)
random_p.def_abstract_eval(_random_type)


def send(x: Elements, src: int, dst: int, bits: int | None = None) -> Elements:
    """The value `x`, sent by `src`, from here on known to `dst` as well.

    With `bits` below 8, only that many low bits of each uint8 element are significant (the others
    must be zero): the message is packed, at the sender and the receiver alone.
    """
    if isinstance(x, Word):
        return Word(send(x.low, src, dst), send(x.high, src, dst))
    return send_p.bind(x, src=src, dst=dst, bits=bits if bits is not None and bits < 8 else 0)


def confirm(x: Elements, by: int, to: int) -> Elements:
    """x, which another sent to `to`, is confirmed by `by`, who computed it, too: both add what they have to a tag.

    The tags are compared before anything is revealed (a `Check` of the choreography): who has another value stops.
    """
    if isinstance(x, Word):
        return Word(confirm(x.low, by, to), confirm(x.high, by, to))
    return confirm_p.bind(x, by=by, to=to)


def multiplied(x: Sequence[Elements], y: Sequence[Elements], z: Sequence[Elements], how: str) -> tuple[Elements, ...]:
    """[z], of which the parties prove that it is x y before anything is revealed (`machine/proofs.py`).

    `how`: "mul", element by element modulo 2^k; "and", bit by bit; "dot", z[b] = x[b] y[b] of batches of matrices.
    """
    return tuple(multiplied_p.bind(*x, *y, *z, how=how))


def random(holders: Iterable[int], shape: Sequence[int], dtype: Any) -> Elements:
    """A fresh uniform value of the given shape and unsigned dtype, known to `holders` alone."""
    who = tuple(sorted(holders))
    if dtype == WIDE:
        return Word(*(random(who, shape, np.uint64) for _ in range(2)))
    return random_p.bind(holders=who, shape=tuple(shape), dtype=np.dtype(dtype).name)


@jax.jit
def uniform_opening(x: Any) -> Any:
    """An opened word that is uniform to all who see it, for a reason that the elimination of masks does not find.

    The kernel's docstring states the reason; the tests of masks hold it to that. Who proves the rest finds it by name.
    """
    return x


def permutation(holders: Iterable[int], shape: Sequence[int]) -> jax.Array:
    """int64[rows, n]: in each row a fresh uniform permutation of 0, ..., n - 1, known to `holders` alone."""
    out: jax.Array = random_p.bind(holders=tuple(sorted(holders)), shape=tuple(shape), dtype=PERMUTATION)
    return out
