"""What privacy costs models: scores on rows held out, at epsilon 0.5, 1 and 4 and without noise.

    python benchmarks/private_models.py [sgd|logistic|boosting|numbers|linear ...]

Breast cancer (10 features, 426 rows to learn from) and diabetes (10, 331) of scikit-learn; the ranges of columns are
those of the data sets' descriptions, rounded. Each figure is the mean of three trainings under ABY3, delta 1e-5.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from sklearn import datasets

import spuvm as spu
from spuvm import ml

EPSILONS, REPEATS, STEPS = (0.5, 1.0, 4.0), 3, 20
CANCER = [(6, 29), (9, 40), (43, 189), (143, 2501), (0.05, 0.17), (0, 0.35), (0, 0.43), (0, 0.21), (0.1, 0.31)]
CANCER += [(0.04, 0.1)]
DIABETES = [(19, 80), (1, 2), (18, 43), (62, 133), (97, 301), (41, 243), (22, 99), (2, 10), (3, 6.2), (58, 125)]
FOUR = [DIABETES[i] for i in (2, 3, 8, 9)]


def table(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> Any:
    """Half of the columns at alice, half at bob, the label at carol."""
    count = x.shape[1]
    one, other = ({f"x{i}": x[at, i] for i in some} for some in (range(count // 2), range(count // 2, count)))
    holders = {"alice": {"id": at, **one}, "bob": {"id": at, **other}, "carol": {"id": at, "y": y[at]}}
    return spu.data.vertical(holders, "id", missing=False)


def scores(make: Any, ranges: Any, label: Any, x: np.ndarray, y: np.ndarray) -> list[float]:
    order = np.random.RandomState(0).permutation(len(x))
    train, test = (table(x, y, some) for some in np.split(order, [3 * len(x) // 4]))
    bounds = {f"x{i}": ends for i, ends in enumerate(ranges)}
    out = []
    for epsilon in (*EPSILONS, None):
        dp = epsilon and ml.Private(epsilon=epsilon, delta=1e-5, bounds=bounds, label=label)
        out.append(float(np.mean([make(dp).fit(train, label="y").score(test) for _ in range(REPEATS if dp else 1)])))
    return out


def numbers(dp: Any) -> dict[str, Any]:
    """Two trees of four leaves; with noise of two, which it is made less of, and leaves that count less."""
    shape = {"max_depth": 1, "reg_lambda": 30.0} if dp else {"max_depth": 2}
    return {"n_estimators": 2, "max_bin": 8, "learning_rate": 0.5, **shape}


def cases() -> dict[str, tuple[str, Any]]:
    """By name: the row's beginning, and what makes its scores."""
    cancer = datasets.load_breast_cancer(return_X_y=True)
    diabetes = datasets.load_diabetes(return_X_y=True, scaled=False)
    ten, four = (cancer[0][:, :10], cancer[1]), (cancer[0][:, :4], cancer[1])
    some_diabetes = diabetes[0][:, [2, 3, 8, 9]], diabetes[1]
    sgd: dict[str, Any] = {"loss": "log_loss", "max_iter": STEPS}
    trees: dict[str, Any] = {"n_estimators": 2, "max_depth": 2, "max_bin": 8, "learning_rate": 0.5}
    return {
        "sgd": (
            "logistic, breast cancer | accuracy",
            lambda: scores(
                lambda dp: ml.SGDClassifier(eta0=4.0 if dp else 0.5, dp=dp, **sgd),
                CANCER, None, *ten,
            ),
        ),
        "logistic": (
            "logistic, noise at the end, breast cancer | accuracy",
            lambda: scores(
                lambda dp: ml.LogisticRegression(C=0.05 if dp else 1.0, max_iter=50, dp=dp), CANCER, None, *ten
            ),
        ),
        "boosting": (
            "two trees, four columns of breast cancer | accuracy",
            lambda: scores(lambda dp: ml.Sgb(dp=dp, **trees), CANCER[:4], None, *four),
        ),
        "numbers": (
            "two trees of numbers, four columns of diabetes | R^2",
            lambda: scores(
                lambda dp: ml.Sgb(dp=dp, objective="reg:squarederror", **numbers(dp)), FOUR, (25, 350), *some_diabetes
            ),
        ),
        "linear": (
            "linear, diabetes | R^2",
            lambda: scores(
                lambda dp: ml.SGDRegressor(max_iter=STEPS, eta0=1.0 if dp else 0.2, dp=dp),
                DIABETES, (25, 350), *diabetes,
            ),
        ),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="of sgd, logistic, boosting, numbers, linear; all if none is named")
    asked = parser.parse_args().models
    spu.init(parties=("alice", "bob", "carol"), address="local")
    print("| model | score | " + " | ".join(f"epsilon {e:g}" for e in EPSILONS) + " | none |")
    print("|---|---|" + "---:|" * (len(EPSILONS) + 1))
    for name, (begins, run) in cases().items():
        if not asked or name in asked:
            print(f"| {begins} | " + " | ".join(f"{s:.3f}" for s in run()) + " |", flush=True)


if __name__ == "__main__":
    main()
