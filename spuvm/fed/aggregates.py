"""How the parties' updates become one: a sum of masked words, or a robust rule on secret updates.

The sum costs 8 bytes a parameter and party under ABY3, two rounds: each party sends its words masked, and then its
summand of the sum. Robust rules never open one party's update: norms, medians and distances are computed on shares.
Median and trimmed mean: Yin and others, ICML 2018. Krum and Multi-Krum: Blanchard and others, NeurIPS 2017. Clipping of
norms: Sun and others, 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import spuvm as spu
from spuvm.runtime.errors import ConfigError


def total(*updates: Any) -> Any:
    """The sum of all parties' words, revealed: dictionaries of int32 arrays, of which the first has all keys."""
    sums = {key: [u[key] for u in updates if key in u] for key in updates[0]}
    return spu.reveal({key: sum(some[1:], some[0]) for key, some in sums.items()})


@dataclass(frozen=True)
class Rule:
    """A robust rule. `combine`: secret updates f32[parties, parameters] -> f32[parameters]."""

    name: str
    combine: Callable[[jax.Array], jax.Array]
    least: int = 2  # parties that it needs
    blocks: bool = True  # whether each parameter is by itself

    def __call__(self, *updates: jax.Array) -> Any:
        return spu.reveal(self.combine(jnp.stack(updates)))


def median() -> Rule:
    """The median of each parameter: harmless while fewer than half of the updates are bad."""
    return Rule("median", lambda x: jnp.median(x, axis=0), least=3)


def trimmed(bad: int) -> Rule:
    """Of each parameter the mean without the `bad` largest and the `bad` smallest."""
    _count(bad)

    def combine(x: jax.Array) -> jax.Array:
        return jnp.mean(jnp.sort(x, axis=0)[bad : x.shape[0] - bad], axis=0)

    return Rule(f"trimmed({bad})", combine, least=2 * bad + 1)


def clipped(norm: float) -> Rule:
    """The mean of updates that are scaled down to a Euclidean norm of at most `norm`: none counts for more."""
    if not 0 < norm < float("inf"):
        raise ConfigError(f"`norm` must be more than 0 and finite, got {norm}: clipping to nothing leaves no update.")

    def combine(x: jax.Array) -> jax.Array:
        x = jnp.clip(x, -norm, norm) / norm  # an element beyond is an update beyond; and no square leaves fixed point
        factor = jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=1), 1.0))
        return norm * jnp.mean(x * factor[:, None], axis=0)

    return Rule(f"clipped({norm:g})", combine, blocks=False)


def krum(bad: int, keep: int = 1) -> Rule:
    """The mean of the `keep` updates that lie nearest to their n - bad - 2 neighbours; which they are stays secret.

    Elements beyond (2^21 / parameters)^(1/2) are brought there: 14 of 10^4 parameters, 1.4 of 10^6.
    """
    _count(bad)
    if keep < 1:
        raise ConfigError(f"`keep` must be 1 or more, got {keep}.")

    def combine(x: jax.Array) -> jax.Array:
        n = x.shape[0]
        reach = (FAR / 8 / x.shape[1]) ** 0.5  # so that no distance leaves fixed point, whatever an update holds
        x = jnp.clip(x, -reach, reach)
        squares = jnp.sum(x * x, axis=1)
        apart = squares[:, None] + squares[None, :] - 2 * (x @ x.T)
        others = apart + jnp.diag(jnp.full(n, FAR))
        scores = jnp.sum(jnp.sort(others, axis=1)[:, : n - bad - 2], axis=1)
        before = jnp.sum((scores[None, :] < scores[:, None]) | _earlier(scores), axis=1)
        chosen = (before < keep).astype(x.dtype)
        return (chosen @ x) / keep

    return Rule(f"krum({bad}, {keep})", combine, least=bad + 3 + max(0, keep - 1), blocks=False)


FAR = 2.0**24  # beyond any squared distance that is looked at: an update is no neighbour of itself


def _earlier(scores: jax.Array) -> jax.Array:
    """Of equal scores the first one comes before the others."""
    n = scores.shape[0]
    return (scores[None, :] == scores[:, None]) & (jnp.arange(n)[None, :] < jnp.arange(n)[:, None])


def _count(bad: int) -> None:
    if isinstance(bad, bool) or not isinstance(bad, int) or bad < 0:
        raise ConfigError(f"`bad`, how many updates may be poisoned, must be a whole number, got {bad!r}.")


SECURE = "secure"
RULES: dict[str, Callable[[], Rule]] = {"median": median}


def rule(aggregate: str | Rule) -> Rule | None:
    """The rule that was asked for; None for the sum. ConfigError for one that there is not."""
    if isinstance(aggregate, Rule):
        return aggregate
    if aggregate == SECURE:
        return None
    if aggregate in RULES:
        return RULES[aggregate]()
    raise ConfigError(
        f"`aggregate` must be 'secure', 'median', or one of spu.fed.clipped(norm), trimmed(bad), median(), "
        f"krum(bad, keep), got {aggregate!r}."
    )
