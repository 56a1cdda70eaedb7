"""What is timed: functions of arrays, and inputs for them.

Imports only what every system under test has, so that a peer's own Python can load this file
(`peer_worker.py`): each system runs the same functions on the same inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Function = Callable[..., Any]
Inputs = Callable[[np.random.Generator, int], tuple[Any, ...]]

LOGISTIC_ROWS, LOGISTIC_FEATURES, LOGISTIC_EPOCHS, LOGISTIC_BATCH = 569, 30, 10, 64
IMAGES, SIDE = 64, 28  # of a batch, and of an image
MLP_WIDTHS = (SIDE * SIDE, 128, 10)
LENET_FILTERS = ((5, 5, 1, 6), (5, 5, 6, 16))  # height, width, channels in and out
LENET_WIDTHS = (5 * 5 * 16, 120, 84, 10)


@dataclass(frozen=True)
class Sizes:
    """Elements of most operations, the side of a matrix, and elements of what is sorted."""

    size: int = 1_000_000
    matrix: int = 512
    sort: int = 100_000

    def of(self, kind: str) -> int:
        """Rows of an operation whose `sized_by` is `kind`."""
        fixed = {"one": 1, "logistic": LOGISTIC_ROWS, "images": IMAGES}
        return fixed[kind] if kind in fixed else int(getattr(self, kind))


@dataclass(frozen=True)
class Operation:
    """`inputs(generator, rows)` are float32; `sorts` says that the work grows as n log n."""

    function: Function
    inputs: Inputs
    sized_by: str = "size"
    sorts: bool = False


# Inputs -------------------------------------------------------------------------------------------


def _float32(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32)


GRID = 2.0**-16  # float32 and the fixed point of every system hold its multiples: errors are those of the function


def _multiples(rng: np.random.Generator, low: float, high: float, n: int) -> np.ndarray:
    """Multiples of the grid strictly between two numbers, all as likely."""
    first, stop = np.floor(low / GRID) + 1, np.ceil(high / GRID)
    return _float32(rng.integers(int(first), int(stop), n) * GRID)


def one_of_unit(rng: np.random.Generator, n: int) -> tuple[Any, ...]:
    """Multiples of 2^-16 in (-1, 1)."""
    return (_multiples(rng, -1, 1, n),)


def two_of_unit(rng: np.random.Generator, n: int) -> tuple[Any, ...]:
    return one_of_unit(rng, n) + one_of_unit(rng, n)


def one_positive(rng: np.random.Generator, n: int) -> tuple[Any, ...]:
    """Multiples of 2^-16 in (0.1, 10)."""
    return (_multiples(rng, 0.1, 10, n),)


def unit_and_positive(rng: np.random.Generator, n: int) -> tuple[Any, ...]:
    return one_of_unit(rng, n) + one_positive(rng, n)


def two_often_equal(rng: np.random.Generator, n: int) -> tuple[Any, ...]:
    """Multiples of 1/4 in [-1, 1]."""
    return tuple(_float32(rng.integers(-4, 5, n) / 4) for _ in range(2))


def all_different(rng: np.random.Generator, n: int) -> tuple[Any, ...]:
    """Multiples of 2^-10 around zero, no two alike."""
    return (_float32((rng.permutation(n) - n // 2) * 2.0**-10),)


def two_matrices(rng: np.random.Generator, n: int) -> tuple[Any, ...]:
    return tuple(_float32(rng.uniform(-1, 1, (n, n))) for _ in range(2))


def labelled_rows(rng: np.random.Generator, n: int) -> tuple[Any, ...]:
    """Standard normal features, and labels that a noisy linear model gives them."""
    features = rng.normal(size=(n, LOGISTIC_FEATURES))
    score = features @ rng.normal(size=LOGISTIC_FEATURES) + rng.normal(size=n)
    return _float32(features), _float32(score > 0)


def _weights(rng: np.random.Generator, shapes: Sequence[tuple[int, ...]]) -> tuple[Any, ...]:
    """For each shape weights that keep the size of what they are applied to, and then the biases."""
    made = []
    for shape in shapes:
        made.append(_float32(rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape)))
        made.append(_float32(rng.normal(0, 0.1, shape[-1])))
    return tuple(made)


def images_and_mlp(rng: np.random.Generator, n: int) -> tuple[Any, ...]:
    """Images with values in (0, 1), and weights and biases of all layers."""
    images = _float32(rng.uniform(0, 1, (n, SIDE * SIDE)))
    return images, *_weights(rng, list(pairwise(MLP_WIDTHS)))


def images_and_lenet(rng: np.random.Generator, n: int) -> tuple[Any, ...]:
    """The same for LeNet-5: its filters, then its dense layers."""
    images = _float32(rng.uniform(0, 1, (n, SIDE, SIDE, 1)))
    return images, *_weights(rng, [*LENET_FILTERS, *pairwise(LENET_WIDTHS)])


# Functions ----------------------------------------------------------------------------------------


def logistic_regression(features: Any, labels: Any) -> Any:
    """Weights and intercept after 10 epochs of mini-batch gradient descent."""
    batches = features.shape[0] // LOGISTIC_BATCH
    used = batches * LOGISTIC_BATCH
    xs = features[:used].reshape(batches, LOGISTIC_BATCH, -1)
    ys = labels[:used].reshape(batches, LOGISTIC_BATCH)

    def step(model: Any, batch: Any) -> Any:
        (weights, intercept), (x, y) = model, batch
        error = jax.nn.sigmoid(x @ weights + intercept) - y
        gradient = error @ x * (1 / LOGISTIC_BATCH)
        return (weights - 0.5 * gradient, intercept - 0.5 * jnp.mean(error)), None

    def epoch(model: Any, _: Any) -> Any:
        return lax.scan(step, model, (xs, ys))

    start = jnp.zeros(features.shape[1], features.dtype), jnp.zeros((), features.dtype)
    return lax.scan(epoch, start, None, length=LOGISTIC_EPOCHS)[0]


def mlp(images: Any, *weights: Any) -> Any:
    """Logits of a network of dense layers with rectifiers between them."""
    return _dense(images, weights)


def lenet(images: Any, *weights: Any) -> Any:
    """Logits of LeNet-5 (LeCun et al. 1998), with rectifiers and the largest of each 2 x 2 pixels."""
    x = images
    for padding, filters, bias in (("SAME", *weights[:2]), ("VALID", *weights[2:4])):
        x = lax.conv_general_dilated(x, filters, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = lax.reduce_window(relu(x + bias), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return _dense(x.reshape(x.shape[0], -1), weights[4:])


def _dense(x: Any, weights: Sequence[Any]) -> Any:
    for i in range(0, len(weights), 2):
        x = (relu(x) if i else x) @ weights[i] + weights[i + 1]
    return x


def relu(x: Any) -> Any:
    return jnp.maximum(x, 0)


def reciprocal(x: Any) -> Any:
    return 1 / x


OPERATIONS: dict[str, Operation] = {
    "add": Operation(jnp.add, two_of_unit),
    "multiply": Operation(jnp.multiply, two_of_unit),
    "dot": Operation(jnp.dot, two_of_unit),
    "matmul": Operation(jnp.matmul, two_matrices, "matrix"),
    "less": Operation(jnp.less, two_of_unit),
    "one_less": Operation(jnp.less, two_of_unit, "one"),
    "equal": Operation(jnp.equal, two_often_equal),
    "maximum": Operation(jnp.maximum, two_of_unit),
    "relu": Operation(relu, one_of_unit),
    "sigmoid": Operation(jax.nn.sigmoid, one_of_unit),
    "tanh": Operation(jnp.tanh, one_of_unit),
    "exp": Operation(jnp.exp, one_of_unit),
    "log": Operation(jnp.log, one_positive),
    "reciprocal": Operation(reciprocal, one_positive),
    "divide": Operation(jnp.divide, unit_and_positive),
    "sqrt": Operation(jnp.sqrt, one_positive),
    "rsqrt": Operation(lax.rsqrt, one_positive),
    "sin": Operation(jnp.sin, one_of_unit),
    "erf": Operation(lax.erf, one_of_unit),
    "variance": Operation(jnp.var, one_of_unit),
    "argmax": Operation(jnp.argmax, all_different),
    "sort": Operation(jnp.sort, one_of_unit, "sort", sorts=True),
    "median": Operation(jnp.median, one_of_unit),
    "logistic_regression": Operation(logistic_regression, labelled_rows, "logistic"),
}

# Timed as a user calls them, too: from arrays to arrays.
APPLICATIONS: dict[str, Operation] = {
    "logistic_regression": OPERATIONS["logistic_regression"],
    "mlp": Operation(mlp, images_and_mlp, "images"),
    "lenet": Operation(lenet, images_and_lenet, "images"),
}
ALL = OPERATIONS | APPLICATIONS
