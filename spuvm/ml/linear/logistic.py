"""Logistic regression."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from spuvm.ml.common import rules
from spuvm.ml.common.class_weights import CLASS_WEIGHT_RULE, WeightedClassifier
from spuvm.ml.common.estimator import Fitted
from spuvm.ml.common.predictors import CLASSES_RULE, Given
from spuvm.ml.common.rules import Rule
from spuvm.ml.common.standard import matrix, scales
from spuvm.ml.common.table import Table
from spuvm.ml.linear import gradient, irls, private
from spuvm.ml.linear.model import CONVERGENCE, NO_UNIT, LinearModel, outcome
from spuvm.ml.linear.output_noise import Descent, settled
from spuvm.ml.linear.private import Private
from spuvm.ml.linear.svm import beside, targets
from spuvm.ml.machine import Machine
from spuvm.runtime.errors import ConfigError

NEVER = 2.0**-14  # changes of coefficients that fixed point cannot tell from none
CHUNKS = 20  # gradient steps for one of Newton's


@dataclass(eq=False, kw_only=True, repr=False)
class LogisticRegression(LinearModel, WeightedClassifier):
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
        dp: differential privacy (`spuvm.ml.Private`): noise in the coefficients after `max_iter` steps of gradients,
            see `output_noise`. The noise is in proportion to C: a strong penalty needs little. The penalty is of all
            coefficients and the intercept in units of `bounds`. Nothing is revealed; not kept by `save`, but what it
            said is.
    """

    penalty: str | None = field(default="l2", kw_only=False)
    C: float = 1.0
    l1_ratio: float | None = None
    fit_intercept: bool = True
    tol: float | None = 1e-4
    max_iter: int = 100
    inference: bool = True
    dp: Private | None = None

    checks: ClassVar[dict[str, Rule]] = {
        "penalty": rules.one_of("l2", "l1", "elasticnet", None),
        "C": rules.POSITIVE,
        "l1_ratio": rules.optional(rules.SHARE),
        "fit_intercept": rules.FLAG,
        "tol": rules.TOLERANCE,
        "max_iter": rules.COUNT,
        "inference": rules.FLAG,
        "dp": rules.optional(Rule(lambda x: isinstance(x, Private), "a `spuvm.ml.Private`")),
        "n_classes": CLASSES_RULE,
        "class_weight": CLASS_WEIGHT_RULE,
    }

    def _check(self) -> None:
        super()._check()
        if (self.l1_ratio is not None) != (self.penalty == "elasticnet"):
            need = "needs" if self.penalty == "elasticnet" else "takes no"
            raise ConfigError(f"`penalty` {self.penalty!r} of LogisticRegression {need} `l1_ratio`.")
        if self.dp is not None and self.penalty != "l2":
            raise ConfigError(f"`dp` of LogisticRegression needs `penalty` 'l2', got {self.penalty!r}.")

    def _learn(self, machine: Machine, given: Given) -> Fitted:
        if self.dp is not None:
            return self._privately(self.dp, machine, given)
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

    def _privately(self, dp: Private, machine: Machine, given: Given) -> Fitted:
        known, table, edges = private.prepared(dp, given.table, given.data)
        goals = targets(machine, given.labels.values, given.labels.classes)
        columns = len(table.columns) + self.fit_intercept
        descent = Descent(table.rows, columns, 1 / (table.rows * self.C), dp.clip, self.max_iter)
        run = settled(descent, self.fit_intercept, dp.noise(len(goals)))
        x, units = matrix(known, known.match(table)), scales(known)
        private.spend(dp, machine, len(goals), "LogisticRegression")
        models = [machine.run(run, x, y, edges["low"], edges["high"], what="training") for y in goals]
        coef, intercept = machine.run(beside, models, what="training") if len(models) > 1 else models[0]
        facts: dict[str, Any] = {"classes": given.labels.classes, "rows": table.rows, "intercept": self.fit_intercept}
        facts |= {"steps": self.max_iter, "private": dp.said(len(goals), "at the end of training")}
        return Fitted(machine, known, {"coef": coef, "intercept": intercept, "scales": units, "unit": NO_UNIT}, facts)

    def _given(self, machine: Machine, data: Any, y: Any, weight: Any) -> Given:
        if self.dp is not None and weight is not None:
            raise ConfigError("`sample_weight` and `dp` exclude each other: weights would undo what bounds a row.")
        if self.dp is not None and self.n_classes is None:  # else their holder would say how many it has
            return replace(self, n_classes=2)._given(machine, data, y, weight)
        return super()._given(machine, data, y, weight)

    def _written_parameters(self) -> dict[str, Any]:
        return {k: v for k, v in super()._written_parameters().items() if k != "dp"}

    def explain(self) -> str:
        """What training and predictions cost, what they revealed, to whom, and what privacy holds."""
        said = self._fitted().facts.get("private")
        return super().explain() + (f"\n\n{said}" if said else "")

    def _margins(self, table: Table) -> Any:
        return self._predictor(table)
