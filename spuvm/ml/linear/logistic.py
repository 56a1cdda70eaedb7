"""Logistic regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from spuvm.ml.common import rules
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.predictors import CLASSES_RULE, Classifier, Given
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.table import Table
from spuvm.ml.linear import gradient, irls
from spuvm.ml.linear.model import CONVERGENCE, NO_UNIT, LinearModel, outcome
from spuvm.ml.machine import Machine
from spuvm.runtime.errors import ConfigError

NEVER = 2.0**-14  # changes of coefficients that fixed point cannot tell from none
CHUNKS = 20  # gradient steps for one of Newton's


@dataclass(eq=False, kw_only=True, repr=False)
class LogisticRegression(LinearModel, Classifier):
    """Logistic regression as scikit-learn has it: sum of losses times C, plus the penalty.

        model = LogisticRegression(C=1.0).fit(train, label="ill")
        risk = model.predict_proba(test, to="carol")
        print(model.summary())                     # revealed because asked

    Args:
        penalty: "l2", "l1", "elasticnet" (with `l1_ratio`), or None.
        C: the inverse of the penalty's strength.
        tol: Newton's steps end when none is above its root: one bit a step is revealed. None: all `max_iter` are made.
        max_iter: Newton's steps at most; 20 times as many of gradients, which several classes and "l1" need.
        inference: keep the covariance of the coefficients, secret, for `summary`.
    """

    penalty: str | None = "l2"
    C: float = 1.0
    l1_ratio: float | None = None
    fit_intercept: bool = True
    tol: float | None = 1e-4
    max_iter: int = 100
    inference: bool = True

    checks: ClassVar[dict[str, Rule]] = {
        "penalty": rules.one_of("l2", "l1", "elasticnet", None),
        "C": rules.POSITIVE,
        "l1_ratio": rules.optional(rules.SHARE),
        "fit_intercept": rules.FLAG,
        "tol": rules.TOLERANCE,
        "max_iter": rules.COUNT,
        "inference": rules.FLAG,
        "n_classes": CLASSES_RULE,
    }

    def _check(self) -> None:
        super()._check()
        if (self.l1_ratio is not None) != (self.penalty == "elasticnet"):
            need = "needs" if self.penalty == "elasticnet" else "takes no"
            raise ConfigError(f"`penalty` {self.penalty!r} of LogisticRegression {need} `l1_ratio`.")

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        rows, several = given.table.rows, given.labels.classes > 2
        strength = 0.0 if self.penalty is None else 1 / (rows * self.C)
        lasso = strength * {"l1": 1.0, "elasticnet": self.l1_ratio or 0.0}.get(self.penalty or "", 0.0)
        alpha = strength - lasso
        known, x, scales = self._prepared(given.table, alpha, self.fit_intercept)
        if several or lasso:
            tol = None if self.tol is None else max(self.tol, NEVER)
            run = gradient.fit(given.labels.classes, alpha, lasso, self.fit_intercept, tol, CHUNKS * self.max_iter)
        else:
            run = irls.fit("logistic", None, alpha, self.fit_intercept, self.tol, self.max_iter, self.inference)
        operands = x, given.labels.values, given.weight, None, scales["power"], None
        found = machine.run(run, *operands, what="training", shows=CONVERGENCE)
        strict = strength == 0 and not several
        limit = CHUNKS * self.max_iter if several or lasso else self.max_iter
        steps = outcome(machine, "LogisticRegression", found, limit, self.tol, strict)
        arrays = {k: found[k] for k in ("coef", "intercept", "covariance", "loss") if k in found}
        facts = {"classes": given.labels.classes, "rows": rows, "steps": steps, "intercept": self.fit_intercept}
        return Fitted(machine, known, {**arrays, "scales": scales, "unit": NO_UNIT}, facts)

    def _margins(self, table: Table) -> Any:
        return self._predictor(table)
