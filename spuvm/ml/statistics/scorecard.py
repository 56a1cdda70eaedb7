"""Score cards: points for each bin of each column, from weights of evidence and a logistic regression."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from spuvm.devices import PYU, SPU
from spuvm.ml.common import rules
from spuvm.ml.common.estimator import VERSION, Estimator
from spuvm.ml.common.rules import Rule
from spuvm.ml.composition.pipeline import Pipeline
from spuvm.ml.linear.logistic import LogisticRegression
from spuvm.ml.machine import Reveal
from spuvm.ml.preparation.woe import WOEEncoder
from spuvm.runtime.errors import InputError


@dataclass(eq=False, kw_only=True, repr=False)
class ScoreCard(Estimator):
    """Points that add up: `base_points` at odds of `base_odds` to 1 for label 0, `pdo` more where these odds double.

        card = ScoreCard(n_bins=5).fit(train, label="default")
        card.score_points(test, to="bank");  card.table()             # points by column and bin, revealed because asked

    Args:
        n_bins: of each column; see `WOEEncoder`.
        C: of the logistic regression.
    """

    base_points: float = 600.0
    base_odds: float = 50.0
    pdo: float = 20.0
    n_bins: int = 5
    C: float = 1.0
    pipeline: Pipeline | None = field(default=None, init=False)
    checks: ClassVar[dict[str, Rule]] = {
        "base_points": rules.between(0, 1e5),
        "base_odds": rules.POSITIVE,
        "pdo": rules.POSITIVE,
        "n_bins": rules.whole(2, 1000),
        "C": rules.POSITIVE,
    }

    def fit(self, data: Any, y: Any = None, *, label: Any = None, positive: str | None = None) -> Self:
        """Bin, weigh and fit; labels are 0 (good) and 1, or two texts of which `positive` is 1 (the bad one)."""
        steps = [("woe", WOEEncoder(n_bins=self.n_bins)), ("model", LogisticRegression(C=self.C))]
        self.pipeline = Pipeline(steps, device=self.device).fit(data, y, label=label, positive=positive)
        return self

    @property
    def factor(self) -> float:
        """Points for a factor e in the odds."""
        return self.pdo / math.log(2)

    @property
    def offset(self) -> float:
        """Points at even odds."""
        return self.base_points - self.factor * math.log(self.base_odds)

    def _whole(self) -> Pipeline:
        if self.pipeline is None:
            raise InputError("ScoreCard has learned nothing yet: call `fit`, or `spuvm.ml.load`.")
        return self.pipeline

    def score_points(self, data: Any, to: str) -> Any:
        """The points of each row, float32 [rows], at the party `to`, which alone sees them."""
        offset, factor = self.offset, self.factor
        margin = self._whole().decision_function(data, to)
        return PYU(to)(lambda m: (offset - factor * np.asarray(m, np.float64)).astype(np.float32))(margin)

    def predict(self, data: Any, to: str | None = None) -> Any:
        """Whether the label is likelier 1, int32 [rows]."""
        return self._whole().predict(data, to)

    def predict_proba(self, data: Any, to: str | None = None) -> Any:
        """The probability of each class, as of the logistic regression."""
        return self._whole().predict_proba(data, to)

    def score(self, data: Any, y: Any = None, *, label: Any = None) -> Any:
        """Accuracy; revealed to all parties."""
        return self._whole().score(data, y, label=label)

    def table(self) -> dict[str, np.ndarray]:
        """Points by column, float64 [n_bins], and those of "base": revealed to all parties."""
        pipeline = self._whole()
        woe, beta = pipeline["woe"].table(), pipeline["model"].reveal()
        out = {name: -self.factor * c * woe[name] for name, c in zip(beta.names, np.ravel(beta.coef))}
        return {"base": np.array([self.offset - self.factor * float(np.ravel(beta.intercept)[0])]), **out}

    @property
    def reveals(self) -> tuple[Reveal, ...]:
        """What training and requests have shown."""
        return () if self.pipeline is None else self.pipeline.reveals

    def explain(self) -> str:
        """What each step cost and revealed."""
        return self._whole().explain()

    def _fitted(self) -> Any:
        return self._whole()._fitted()

    def to_tree(self) -> dict[str, Any]:
        """What `spuvm.save_shares` takes."""
        parameters = json.dumps(self._written_parameters())
        inner = self._whole().to_tree()
        return {"kind": "spuvm.ml.ScoreCard", "version": VERSION, "parameters": parameters, "inner": inner}

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any], device: SPU) -> ScoreCard:
        """The inverse of `to_tree`."""
        out = cls(**json.loads(tree["parameters"]))
        out.pipeline = Pipeline.of_tree(tree["inner"], device)
        return out
