"""Latent Dirichlet allocation: topics of counts, by variational Bayes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spuvm.data import Column
from spuvm.ml.common import rules
from spuvm.ml.common.by_column import learn
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import refuse_categories
from spuvm.ml.common.table import Block, Table, secret, without_powers
from spuvm.ml.machine import Machine
from spuvm.ml.unsupervised.base import Unsupervised
from spuvm.ml.unsupervised.nmf import not_negative, refuse_negative
from spuvm.runtime.errors import DataError

MOST = 4096.0  # counts of a cell
LEAST = 2.0**-9  # of a word's probability in a document, by that of even shares: below, it counts as this


@dataclass(eq=False, kw_only=True, repr=False)
class LatentDirichletAllocation(Unsupervised):
    """A document's words are drawn from its mixture of topics (D. Blei, A. Ng, M. Jordan, JMLR 3, 2003), in batches of
    all rows.

    A column is a word, a cell how often a document has it. Nothing is revealed: topics, mixtures and how long a
    document is stay secret, and all steps are made.

    Args:
        n_components: topics.
        doc_topic_prior, topic_word_prior: 1 / n_components if not given.
        max_iter: steps of all topics.
        max_doc_update_iter: steps of documents' mixtures in each; they go on from those before.
        random_state: of the public generator that draws the first topics.
    """

    n_components: int = field(default=10, kw_only=False)
    doc_topic_prior: float | None = None
    topic_word_prior: float | None = None
    max_iter: int = 20
    max_doc_update_iter: int = 4
    random_state: int = 0
    checks: ClassVar[dict[str, Rule]] = {
        "n_components": rules.whole(1, 100),
        "doc_topic_prior": rules.optional(rules.between(0.01, 100)),
        "topic_word_prior": rules.optional(rules.between(0.01, 100)),
        "max_iter": rules.COUNT,
        "max_doc_update_iter": rules.COUNT,
        "random_state": rules.SEED,
    }

    def _priors(self) -> tuple[float, float]:
        even = 1 / self.n_components
        doc, word = self.doc_topic_prior, self.topic_word_prior
        return even if doc is None else float(doc), even if word is None else float(word)

    def _learn(self, machine: Machine, table: Table) -> Fitted:
        refuse_categories(table)
        known = learn(table, _nothing, _nothing_secret, "LatentDirichletAllocation")
        x = _counts(known.match(table), "training")
        r = np.random.RandomState(self.random_state)
        first = r.gamma(100.0, 0.01, (self.n_components, len(table.columns))).astype(np.float32)
        run = _topics(*self._priors(), self.max_iter, self.max_doc_update_iter)
        found = machine.run(run, x, first, what="training")
        return Fitted(machine, known, {"topics": found}, {"rows": table.rows})

    def transform(self, data: Any, to: str | None = None) -> Any:
        """Each document's shares of topics: a secret table; or an array [rows, topics] at the party `to`."""
        table, learned = self._table(data), self._fitted()
        x = _counts(table, "prediction")
        run = _mixtures(self._priors()[0], self.max_iter * self.max_doc_update_iter)
        value = learned.machine.run(run, x, learned.arrays["topics"], what="prediction")
        if to is not None:
            return self._given_to(value, to)
        columns = tuple(Column(f"topic{i}", None, "float", False) for i in range(self.n_components))
        return Table(learned.machine, table.rows, (Block(columns, value),), table.kind)

    def fit_transform(self, data: Any, y: Any = None, *, to: str | None = None) -> Any:
        """`fit`, then `transform` of the same rows."""
        return self.fit(data, y).transform(data, to)

    @property
    def components_(self) -> np.ndarray:
        """Of each topic, how often a word was its, float64 [topics, words]; revealed to all parties."""
        learned = self._fitted()
        return np.asarray(learned.machine.reveal(learned.arrays["topics"], "topics"), np.float64)


def _nothing(x: np.ndarray) -> dict[str, np.ndarray]:
    return {"none": np.zeros(1)}


def _nothing_secret(x: jax.Array) -> dict[str, jax.Array]:
    return {"none": jnp.zeros(1)}


def _counts(table: Table, what: str) -> Any:
    """Secret [rows, words]. Of columns that nobody knows, numbers outside of 0 to `MOST` count as the nearest there."""
    plain = without_powers(not_negative(table, _checked), what)
    blocks = [b if b.owner else replace(b, value=table.machine.run(_within, b.value, what=what)) for b in plain.blocks]
    return secret(replace(plain, blocks=tuple(blocks)), what)


def _within(x: jax.Array) -> jax.Array:
    return jnp.clip(x, 0.0, MOST)


def _checked(x: np.ndarray, columns: Sequence[Column], party: str) -> np.ndarray:
    refuse_negative(x, columns, party, "topics are of counts")
    if x.max() > MOST:
        raise DataError(f"a cell is above {MOST:g}: topics are of counts of words; divide them.")
    return x


def _even(x: jax.Array, scale: float) -> jax.Array:
    """exp(E[log]) of Dirichlet variables [n, k], times `scale`: of even shares about 1."""
    logs = lax.digamma(x) - lax.digamma(jnp.sum(x, axis=1))[:, None]
    return jnp.exp(logs + float(np.log(scale)))


def _step(x: jax.Array, mixture: jax.Array, words: jax.Array, prior: float) -> tuple[jax.Array, ...]:
    """Documents' next mixtures [rows, topics], and what both sides' products are by: x / p [rows, words].

    Both factors are by what even shares are, which the quotient takes off again.
    """
    share = _even(mixture, mixture.shape[1])
    ratio = x / jnp.maximum(share @ words, LEAST)
    return share * (ratio @ words.T) + prior, share, ratio


@cache
def _topics(doc: float, word: float, steps: int, inner: int) -> Any:
    def run(x: jax.Array, first: jax.Array) -> jax.Array:
        rows, topics = x.shape[0], first.shape[0]

        def step(_: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            parts, mixture = state
            words = _even(parts, parts.shape[1])
            mixture = lax.fori_loop(0, inner, lambda _, m: _step(x, m, words, doc)[0], mixture)
            _, share, ratio = _step(x, mixture, words, doc)
            return word + words * (share.T @ ratio), mixture

        begun = jnp.ones((rows, topics), jnp.float32)
        out: jax.Array = lax.fori_loop(0, steps, step, (first, begun))[0]
        return out

    return run


@cache
def _mixtures(doc: float, steps: int) -> Any:
    def run(x: jax.Array, parts: jax.Array) -> jax.Array:
        words = _even(parts, parts.shape[1])
        begun = jnp.ones((x.shape[0], parts.shape[0]), jnp.float32)
        mixture: jax.Array = lax.fori_loop(0, steps, lambda _, m: _step(x, m, words, doc)[0], begun)
        return mixture / jnp.sum(mixture, axis=1, keepdims=True)

    return run
