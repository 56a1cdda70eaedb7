"""Secure gradient boosting as an estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import spuvm as spu
from spuvm.data import Frame
from spuvm.devices import SPU, PYUObject
from spuvm.ml import predictions, saving
from spuvm.ml.evaluation import named
from spuvm.ml.machine import Machine, Reveal, default_device
from spuvm.ml.model import Model
from spuvm.ml.parameters import NAMES, Parameters
from spuvm.ml.partitions import SIDES
from spuvm.ml.plain import PlainModel
from spuvm.ml.progress import Progress
from spuvm.ml.training import History, train
from spuvm.runtime.errors import ConfigError, InputError


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
        parameters: see `Parameters`; named as XGBoost names them.

    Raises:
        ConfigError: for unknown parameters, and values that they cannot have.
    """

    def __init__(self, *, device: SPU | None = None, **parameters: Any) -> None:
        self.device = device
        self.parameters = _parameters(parameters)
        self.model: Model | None = None
        self.history = History()

    # Training

    def fit(
        self,
        data: Frame,
        label: str,
        *,
        sample_weight: str | None = None,
        eval_set: Frame | Sequence[Frame] | Mapping[str, Frame] | None = None,
        verbose: bool = False,
    ) -> Sgb:
        """Train.

        Of a vertical frame each owner bins its features, and one party holds the labels. Of a horizontal
        frame every party has labels for its rows; edges and bins are computed on secrets (once: a sort of each
        feature, and a comparison of each cell with each edge), and nobody learns them.

        Args:
            data: features of any number of parties, and the label.
            label: the label's column: 0 and 1 (or bools), numbers, or classes from 0.
            sample_weight: a column of weights, where the labels are.
            eval_set: frames with the same columns; their scores are revealed to all parties after each round.
            verbose: show progress: the rounds, and the scores of `eval_set`.

        Raises:
            InputError: for a frame, label or weights that cannot be used, before anything is computed.
        """
        if self.parameters.reveal_splits_to_owner:
            print("reveal_splits_to_owner: each owner of features learns the splits on them, of every tree.")
        machine = Machine(self.device or default_device())
        progress = Progress(verbose)
        sets = named(eval_set)
        self.model, self.history = train(machine, self.parameters, data, label, sample_weight, sets, progress)
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

    def predict(self, data: Frame, to: str | None = None) -> Any:
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
            result = model.machine.run(predictions.values, margin, model.up, model.down, what="prediction")
        else:
            result = model.machine.run(function, margin, what="prediction")
        return self._given(result, to)

    def predict_proba(self, data: Frame, to: str | None = None) -> Any:
        """The probability of each class, float32 [rows, classes]; otherwise as `predict`.

        The party is shown the differences of the classes' margins, which say what the probabilities say, and are
        exact: the same model and rows give the same bits. Secret probabilities are within 1e-5.
        """
        model = self._fitted()
        function = predictions.PROBABILITY.get(self.parameters.objective)
        if function is None:
            raise ConfigError(f"{self.parameters.objective!r} predicts no probabilities: use `predict`.")
        if to is None:
            return model.machine.run(function, model.margins(data), what="prediction")
        shown = model.machine.run(predictions.differences, model.margins(data), what="prediction")
        return spu.PYU(to)(predictions.probabilities_of)(self._given(shown, to))

    def predict_margin(self, data: Frame, to: str | None = None) -> Any:
        """What the trees add up to, before sigmoid or softmax, float32 [rows, K]; otherwise as `predict`."""
        model = self._fitted()
        if self.parameters.objective not in predictions.CLASS:
            return self.predict(data, to)
        return self._given(model.margins(data), to)

    def score(self, data: Frame, label: str | None = None) -> float:
        """Accuracy, or for a regression R^2, on a frame with labels; revealed to all parties.

        Args:
            label: the label's column, if not named as in training.
        """
        model = self._fitted()
        if not isinstance(data, Frame):
            raise InputError(f"`data` must be a frame (`spuvm.data`), got a `{type(data).__name__}`.")
        name = label or model.label.name
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
        saving.save(self._fitted(), folders)

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

    # Habits of estimators

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name."""
        return {"device": self.device, **asdict(self.parameters)}

    def set_params(self, **parameters: Any) -> Sgb:
        """Change parameters; they count from the next `fit` on."""
        if "device" in parameters:
            self.device = parameters.pop("device")
        self.parameters = _parameters({**asdict(self.parameters), **parameters})
        return self

    def __repr__(self) -> str:
        changed = [f"{k}={v!r}" for k, v in asdict(self.parameters).items() if v != getattr(Parameters, k)]
        return f"Sgb({', '.join(changed)})" + ("" if self.model is None else f" of {len(self.model.trees)} rounds")

    def _fitted(self) -> Model:
        if self.model is None:
            raise InputError("there is no model yet: call `fit`, or `spuvm.ml.load`.")
        return self.model

    def _given(self, result: Any, to: str | None) -> Any | PYUObject:
        return result if to is None else self._fitted().machine.to(result, to, "prediction")


def load(folders: Mapping[str, str | Path], device: SPU | None = None) -> Sgb:
    """A model that `Sgb.save` wrote, perhaps in other processes at another time; its predictions are the same.

    Args:
        folders: by party, where its part is. In a networked run a party needs its own alone.
        device: an SPU of the same parties, protocol and fraction bits; that of all parties if not given.

    Raises:
        InputError: for a part that is missing, damaged, of another party, model, version or configuration.
        PeerMismatchError: in a networked run, if the parties' parts are of different models.
    """
    model = saving.load(folders, device or default_device())
    out = Sgb(device=device, **asdict(model.parameters))
    out.model = model
    return out


def _parameters(given: Mapping[str, Any]) -> Parameters:
    unknown = [name for name in given if name not in NAMES]
    if unknown:
        raise ConfigError(f"unknown parameter `{unknown[0]}`: there are {', '.join(NAMES)}.")
    return Parameters(**given)
