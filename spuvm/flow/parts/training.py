"""Components that train: every estimator of `spuvm.ml`, by a table. What they learn is secret."""

from __future__ import annotations

from typing import Annotated, Any

from spuvm import ml
from spuvm.flow.estimators import as_component, parameters_of
from spuvm.flow.kinds import Model
from spuvm.flow.parameters import REQUIRED
from spuvm.runtime.errors import InputError

LABELLED: dict[str, type[Any]] = {
    "sgb": ml.Sgb,
    "logistic_regression": ml.LogisticRegression,
    "linear_regression": ml.LinearRegression,
    "ridge": ml.Ridge,
    "lasso": ml.Lasso,
    "elastic_net": ml.ElasticNet,
    "poisson_regression": ml.PoissonRegressor,
    "gamma_regression": ml.GammaRegressor,
    "tweedie_regression": ml.TweedieRegressor,
    "sgd_classifier": ml.SGDClassifier,
    "sgd_regressor": ml.SGDRegressor,
    "perceptron": ml.Perceptron,
    "quantile_regression": ml.QuantileRegressor,
    "linear_svc": ml.LinearSVC,
    "svc": ml.SVC,
    "random_forest": ml.RandomForestClassifier,
    "random_forest_regressor": ml.RandomForestRegressor,
    "extra_trees": ml.ExtraTreesClassifier,
    "extra_trees_regressor": ml.ExtraTreesRegressor,
    "decision_tree": ml.DecisionTreeClassifier,
    "decision_tree_regressor": ml.DecisionTreeRegressor,
    "adaboost": ml.AdaBoostClassifier,
    "naive_bayes": ml.GaussianNB,
    "bernoulli_naive_bayes": ml.BernoulliNB,
    "neighbors": ml.KNeighborsClassifier,
    "neighbors_regressor": ml.KNeighborsRegressor,
    "score_card": ml.ScoreCard,
}
UNLABELLED: dict[str, type[Any]] = {
    "kmeans": ml.KMeans,
    "gaussian_mixture": ml.GaussianMixture,
    "isolation_forest": ml.IsolationForest,
}
SURVIVAL: dict[str, type[Any]] = {"cox": ml.CoxPHFitter, "kaplan_meier": ml.KaplanMeierFitter}

LABEL = (Annotated[str, "the column that is to be predicted"], REQUIRED)
COLUMNS = (Annotated[tuple[str, ...], "the features; all other columns if none are named"], ())


def features(data: Any, columns: tuple[str, ...], *kept: str) -> Any:
    """The columns of training: those named, and labels."""
    return data if not columns else data[[*columns, *(k for k in kept if k and k not in columns)]]


def _labelled(name: str, made: type[Any]) -> None:
    weighted = name not in ("score_card",)

    def fit(data: Any, *, label: str, columns: tuple[str, ...] = (), weight: str = "", **parameters: Any) -> Any:
        rows = features(data, columns, label, weight)
        more = {"sample_weight": weight} if weight else {}
        return made(**parameters).fit(rows, label, **more)

    about: dict[str, Any] = {"label": LABEL, "columns": COLUMNS}
    if weighted:
        about["weight"] = (Annotated[str, "a column of weights"], "")
    as_component(name, fit, made, Model, about, parameters_of(made))


def _unlabelled(name: str, made: type[Any]) -> None:
    def fit(data: Any, *, label: str = "", columns: tuple[str, ...] = (), **parameters: Any) -> Any:
        rows = features(data, columns)
        return made(**parameters).fit(rows.drop(label) if label else rows)

    about = {"label": (Annotated[str, "a column that is left out"], ""), "columns": COLUMNS}
    as_component(name, fit, made, Model, about, parameters_of(made))


def _survival(name: str, made: type[Any]) -> None:
    def fit(data: Any, *, duration: str, event: str, columns: tuple[str, ...] = (), **parameters: Any) -> Any:
        if duration == event:
            raise InputError("`duration` and `event` are two columns.")
        return made(**parameters).fit(features(data, columns, duration, event), duration, event)

    about = {
        "duration": (Annotated[str, "the column of times until the event or the end of observation"], REQUIRED),
        "event": (Annotated[str, "the column that is 1 where the event happened"], REQUIRED),
        "columns": COLUMNS,
    }
    as_component(name, fit, made, Model, about, parameters_of(made))


for _name, _class in LABELLED.items():
    _labelled(_name, _class)
for _name, _class in UNLABELLED.items():
    _unlabelled(_name, _class)
for _name, _class in SURVIVAL.items():
    _survival(_name, _class)
