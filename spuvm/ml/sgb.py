"""Secure gradient boosting as an estimator."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import spuvm as spu
from spuvm.data import Frame
from spuvm.data.schema import nearest
from spuvm.devices import SPU, PYUObject
from spuvm.ml import predictions, saving
from spuvm.ml.common.estimator import CLASSES, PAGES
from spuvm.ml.common.labels import is_text, told
from spuvm.ml.evaluation import named
from spuvm.ml.frames import as_frame_or_joined
from spuvm.ml.joined import Joined, not_scored
from spuvm.ml.linear.private import Private
from spuvm.ml.machine import Machine, Reveal, default_device
from spuvm.ml.model import Model
from spuvm.ml.parameters import NAMES, RANKS, Parameters
from spuvm.ml.partitions import SIDES
from spuvm.ml.plain import PlainModel
from spuvm.ml.private_boosting import said
from spuvm.ml.progress import Progress
from spuvm.ml.training import History, check_label, train
from spuvm.runtime.errors import ConfigError, InputError, NotFittedError


class Sgb:
    """Gradient-boosted trees over a table that several parties hold, as XGBoost's "hist" grows them.

        model = Sgb(n_estimators=20, max_depth=3).fit(train, label="ill")
        risk = model.predict_proba(test, to="carol")        # carol alone sees it

    Features, labels, gradients, sums, splits, leaf weights and margins stay secret, whoever holds the labels.
    Public are the parameters, the schema of the frame, the number of rounds and what the user asks to see:
    `reveals` lists it. Secure as the machine's protocol is: by default against one of three parties that
    follows the program but wants to know more.

    A tree takes rounds in proportion to its depth. Sums are exact; quotients carry as many bits as the number
    of rows leaves them (`tree.exponent_for`): up to 2^18 rows by the gains' whole range for any labels, above
    with proportionally less resolution.

    Args:
        device: the SPU to compute on; if not given, see `default_device`. Other parties can bring data.
        dp: differential privacy (`spuvm.ml.Private`) of two classes or numbers of a vertical frame: bins of stated
            ranges, noise in every level's sums. Not kept by `save`.
        parameters: see `Parameters`; named as XGBoost names them.

    Raises:
        ConfigError: for unknown parameters, and values that they cannot have.
    """

    version: ClassVar[int] = saving.VERSION

    def __init__(self, *, device: SPU | None = None, dp: Private | None = None, **parameters: Any) -> None:
        if dp is not None and not isinstance(dp, Private):
            raise ConfigError(f"`dp` must be a `spuvm.ml.Private`, got {dp!r}.")
        self.device = device
        self.dp = dp
        self.parameters = _parameters(parameters)
        self.model: Model | None = None
        self.positive: str | None = None  # of labels that are two texts, the one that was 1
        self.history = History()
        self._private = ""  # what privacy was said to hold

    # Training

    def fit(
        self,
        data: Any,
        label: Any = None,
        *,
        positive: str | None = None,
        sample_weight: Any = None,
        eval_set: Frame | Sequence[Frame] | Mapping[str, Frame] | None = None,
        xgb_model: Sgb | None = None,
        group: str | Sequence[int] | None = None,
        verbose: bool = False,
    ) -> Sgb:
        """Train.

        Of a vertical frame each owner bins its features, and one party holds the labels. Of a horizontal
        frame every party has labels for its rows; edges and bins are computed on secrets (once: a sort of each
        feature, and a comparison of each cell with each edge), and nobody learns them. Of a joined table that nobody
        sees (`spuvm.psi.join`) as well; its rows count where they are there and have a label, which stays secret.

        Args:
            data: features of any number of parties, and the label: a frame, a joined table, or arrays; see `as_frame`.
            label: the label's column, or an array: 0 and 1 (or bools), numbers, or classes from 0.
            positive: of labels that are two texts, the one that is 1.
            sample_weight: a column of weights, or an array, where the labels are.
            eval_set: frames with the same columns; their scores are revealed to all parties after each round.
            xgb_model: a model that is trained further, and is not changed: `n_estimators` trees more, on its bins. Of a
                regression the label holder is told the base score and unit of labels that it had then.
            group: of "rank:...", the column whose equal cells say which rows are ranked together, which all parties are
                told; or the groups' sizes, of rows in that order. It is no feature.
            verbose: show progress: the rounds, and the scores of `eval_set`.

        Raises:
            InputError: for a frame, label or weights that cannot be used, before anything is computed.
        """
        if self.parameters.reveal_splits_to_owner:
            print("reveal_splits_to_owner: each owner of features learns the splits on them, of every tree.")
        start = None if xgb_model is None else _started(xgb_model)
        if label is None:
            raise InputError("`label` is missing: name the frame's column that is to be predicted, or give an array.")
        device = self.device or (default_device() if start is None else start.machine.spu)
        data, label, sample_weight = as_frame_or_joined(data, label, sample_weight)
        machine, progress = Machine(device), Progress(verbose)
        if isinstance(data, Joined):
            _check_joined(positive, eval_set, self.dp, group)
        sets = named(eval_set)
        if positive is not None:
            data = data.binary(label, positive=positive)
            sets = {name: frame.binary(label, positive=positive) for name, frame in sets.items()}
        self.positive = positive
        more: dict[str, Any] = {"start": start, "dp": self.dp, "group": group}
        self.model, self.history = train(machine, self.parameters, data, label, sample_weight, sets, progress, **more)
        self._private = "" if self.dp is None else said(self.dp, self.parameters)
        return self

    def evals_result(self) -> dict[str, dict[str, list[float]]]:
        """Scores after each round, by evaluation set and metric."""
        return self.history.scores

    @property
    def best_iteration(self) -> int:
        """With early stopping: the round, from 0, with the best score. Later trees are dropped."""
        if self.history.best_round is None:
            raise ConfigError("there is no best iteration without `early_stopping_rounds`.")
        return self.history.best_round

    @property
    def best_score(self) -> float:
        """With early stopping: the score of the best round."""
        if self.history.best_score is None:
            raise ConfigError("there is no best score without `early_stopping_rounds`.")
        return self.history.best_score

    # Prediction

    def predict(self, data: Any, to: str | None = None) -> Any:
        """Predict classes, int32 [rows], or the values of a regression, float32 [rows].

        Args:
            data: a frame with the features of training, at the same parties.
            to: the party that alone sees the result.

        Returns:
            An object at that party; without `to`, a secret object on the machine.

        Raises:
            InputError: for columns, types or categories that are not those of training.
        """
        model = self._fitted()
        margin = model.margins(data)
        function = predictions.CLASS.get(self.parameters.objective)
        if function is None:
            values = predictions.VALUES.get(self.parameters.objective, predictions.values)
            if to is not None:
                shown = model.machine.run(predictions.finely(values), margin, model.up, model.down, what="prediction")
                return spu.PYU(to)(predictions.from_steps)(self._given(shown, to))
            result = model.machine.run(values, margin, model.up, model.down, what="prediction")
        else:
            result = model.machine.run(function, margin, what="prediction")
        return self._given(result, to)

    def predict_proba(self, data: Any, to: str | None = None) -> Any:
        """The probability of each class, float32 [rows, classes]; otherwise as `predict`.

        The party is shown the differences of the classes' margins, which say what the probabilities say, and are
        exact: the same model and rows give the same bits. Secret probabilities are within 1e-5.
        """
        model = self._fitted()
        function = predictions.PROBABILITY.get(self.parameters.objective)
        if function is None:
            raise ConfigError(f"{self.parameters.objective!r} predicts no probabilities: use `predict`.")
        if to is None or self.parameters.objective in predictions.SHARES:
            return self._given(model.machine.run(function, model.margins(data), what="prediction"), to)
        shown = model.machine.run(predictions.differences, model.margins(data), what="prediction")
        return spu.PYU(to)(predictions.probabilities_of)(self._given(shown, to))

    def predict_margin(self, data: Any, to: str | None = None) -> Any:
        """What the trees add up to, before sigmoid or softmax, float32 [rows, K]; otherwise as `predict`."""
        model = self._fitted()
        if self.parameters.objective not in (*predictions.CLASS, *predictions.VALUES):
            return self.predict(data, to)
        return self._given(model.margins(data), to)

    def shap(self, data: Any, to: str | None = None, *, background: Any = None) -> Any:
        """How far each feature moved each prediction: Shapley values, float32 [rows, features + 1].

        Their sum is the margin (log-odds, logarithms, or the value of a regression); the last is the mean over the
        background's rows. In the order of `importance_type`'s names: the owners' features side by side. Of several
        classes [rows, K, features + 1]. As `shap.TreeExplainer` and XGBoost's `pred_contribs` without given data, where
        rows are counted as LightGBM counts them. For each row, tree of depth d and leaf some d^2 secret products.

        Args:
            data: as of `predict`.
            to: the party that alone sees them.
            background: rows that say how often each way is taken, with the same features; if not given, `data`.

        Raises:
            InputError: for trees deeper than 6, and data that is not what the model knows.
        """
        return self._given(self._fitted().shapley(data, background), to)

    def score(self, data: Any, label: Any = None, *, positive: str | None = None) -> float:
        """Accuracy, or for a regression R^2, on a frame with labels; revealed to all parties.

        Args:
            label: the label's column, if not named as in training.
            positive: of labels that are two texts, the one that is 1; if not given, the one of `fit`.
        """
        model = self._fitted()
        if self.parameters.objective in RANKS:
            raise ConfigError("the score of a ranking is NDCG: give `fit` an `eval_set`, see `evals_result`.")
        data, label, _ = as_frame_or_joined(data, label)
        if isinstance(data, Joined):
            raise not_scored()
        name = label or model.label.name
        if is_text(data, name):
            data, _ = told(data, name, positive or self.positive)
        check_label(self.parameters, data.schema[name])
        margin = model.margins(data.drop(name))
        labels = SIDES[data.kind].labels.to_score(model.machine, self.parameters, data, name, (model.up, model.down))
        operands = labels["labels"], labels["shrink"], margin, labels["up"], labels["down"]
        return float(
            spu.reveal(model.machine.run(predictions.score_of(self.parameters.objective), *operands, what="score"))
        )

    # The model

    def save(self, folders: Mapping[str, str | Path]) -> None:
        """Write the model: to each party's folder a part `model.share`, which says nothing by itself.

        Args:
            folders: by party. In a networked run a party needs its own alone.

        Raises:
            InputError: for a folder that is missing or cannot be written.
        """
        spu.save_shares(self.to_tree(), folders, saving.NAME)

    def to_tree(self) -> dict[str, Any]:
        """What `spuvm.save_shares` takes."""
        return {**saving.tree_of(self._fitted()), "positive": self.positive}

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any], device: SPU) -> Sgb:
        """The inverse of `to_tree`."""
        model = saving.model_of(tree, device)
        out = cls(device=device, **asdict(model.parameters))
        out.model, out.positive = model, tree.get("positive")
        return out

    def feature_importance(self, importance_type: str = "weight") -> dict[str, float]:
        """By feature, shown to all parties: "weight", how often it is split; "total_gain", "gain" (a split's mean)."""
        return self._fitted().importance(importance_type)

    def reveal(self) -> PlainModel:
        """The trees in the clear, shown to all parties; `.save(path)` writes what XGBoost's package loads."""
        return self._fitted().reveal()

    @property
    def reveals(self) -> tuple[Reveal, ...]:
        """What training and predictions have shown, to whom, how often."""
        return () if self.model is None else self.model.machine.reveals

    def report(self, path: str | Path, data: Any = None, y: Any = None, **more: Any) -> Any:
        """Write a page about the model; see `spuvm.ml.report.page.write_report`."""
        return PAGES["report"](self, path, data, y, **more)

    # Habits of estimators

    def model_features(self) -> tuple[str, ...]:
        """The features' names, in the model's order: the owners' side by side."""
        return tuple(c.name for c in self._fitted().layout.all_features)

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the features of training; of arrays x0, x1, ..."""
        return np.array(self.model_features(), object)

    @property
    def n_features_in_(self) -> int:
        """How many features training had."""
        return len(self.model_features())

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name."""
        return {"device": self.device, "dp": self.dp, **asdict(self.parameters)}

    def set_params(self, **parameters: Any) -> Sgb:
        """Change parameters; they count from the next `fit` on."""
        made = Sgb(**{**self.get_params(), **parameters})
        self.device, self.dp, self.parameters = made.device, made.dp, made.parameters
        return self

    def clone(self) -> Sgb:
        """The same parameters, nothing learned."""
        return Sgb(**self.get_params())

    def explain(self) -> str:
        """What training and predictions cost, and what they revealed, to whom."""
        lines = [repr(self), "", f"{'what ran':24}  {'rounds':>7}  {'MB sent':>9}"]
        lines += [f"{what:24}  {rounds:7,}  {sent:9,.3f}" for what, rounds, sent in self._fitted().machine.costs]
        return "\n".join([*lines, "", "revealed:", *(f"  {r}" for r in self.reveals or ("nothing",))]) + (
            f"\n\n{self._private}" if self._private else ""
        )

    def __repr__(self) -> str:
        changed = [f"{k}={v!r}" for k, v in asdict(self.parameters).items() if v != getattr(Parameters, k)]
        return f"Sgb({', '.join(changed)})" + ("" if self.model is None else f" of {len(self.model.trees)} rounds")

    def _fitted(self) -> Model:
        if self.model is None:
            raise NotFittedError("Sgb has learned nothing yet: call `fit`, or `spuvm.ml.load`.")
        return self.model

    def _given(self, result: Any, to: str | None) -> Any | PYUObject:
        return result if to is None else self._fitted().machine.to(result, to, "prediction")


def _started(model: Any) -> Model:
    if not isinstance(model, Sgb):
        raise InputError(f"`xgb_model` must be a trained `Sgb`, got a `{type(model).__name__}`.")
    return model._fitted()


ALIASES = {  # XGBoost's own
    "eta": "learning_rate",
    "lambda": "reg_lambda",
    "alpha": "reg_alpha",
    "min_split_loss": "gamma",
    "num_boost_round": "n_estimators",
    "seed": "random_state",
}
IGNORED = {  # what XGBoost knows and has no influence on a model here: a warning
    "n_jobs": "the machine uses the cores that it is given",
    "nthread": "the machine uses the cores that it is given",
    "tree_method": "trees are grown on histograms, always",
    "verbosity": "give `verbose=True` to `fit`",
}
REFUSED = {  # what XGBoost knows, and what to do here
    "booster": "there are trees alone",
    "missing": "cells that are NaN or null are missing",
    "enable_categorical": "text columns are categories, always",
    "n_classes": "give `num_class`",
}


def _check_joined(positive: Any, eval_set: Any, dp: Any, group: Any) -> None:
    """What a joined table does not go with."""
    for name, given in (("positive", positive), ("eval_set", eval_set), ("dp", dp), ("group", group)):
        if given is not None:
            raise InputError(f"`{name}` with a joined table is not supported: nobody sees which rows are there.")


def _parameters(given: Mapping[str, Any]) -> Parameters:
    for alias, name in ALIASES.items():
        if alias in given and name in given:
            raise ConfigError(f"`{alias}` and `{name}` are the same parameter: give one.")
    given = {ALIASES.get(name, name): value for name, value in given.items()}
    for name in [n for n in given if n in IGNORED]:
        warnings.warn(f"`{name}` of XGBoost is ignored: {IGNORED[name]}.", UserWarning, stacklevel=3)
        del given[name]
    for name in given:
        if name in REFUSED:
            raise ConfigError(f"`{name}` of XGBoost has no meaning here: {REFUSED[name]}.")
        if name not in NAMES:
            raise ConfigError(f"unknown parameter `{name}`{nearest(name, NAMES)}: there are {', '.join(NAMES)}.")
    return Parameters(**given)


CLASSES["Sgb"] = Sgb
