"""Convolutions of every kind against JAX, their gradients, and what they send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowering import agrees, names

import spuvm as spu
from spuvm.compiler.lower import conv as conv_rules

RNG = np.random.default_rng(5)


Array = np.ndarray[Any, Any]  # of NumPy: the tables below are made when tests are collected, and JAX would compile them


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


X, W = normal(2, 4, 7, 6), normal(6, 4, 3, 2)  # NCHW, OIHW
X1, W1 = normal(3, 2, 9), normal(4, 2, 3)
I = RNG.integers(-9, 9, (1, 2, 5, 5)).astype(np.int32)  # noqa: E741
J = RNG.integers(-9, 9, (3, 2, 2, 2)).astype(np.int8)

NCHW = ("NCHW", "IOHW", "NCHW")

Case = tuple[Callable[..., Any], tuple[Any, ...]]


def conv(strides: Any = (1, 1), padding: Any = "VALID", **options: Any) -> Callable[..., Any]:
    return lambda x, w: lax.conv_general_dilated(x, w, strides, padding, **options)


CONVOLUTIONS: dict[str, Case] = {
    "valid": (conv(), (X, W)),
    "same": (conv(padding="SAME"), (X, W)),
    "strides": (conv((2, 3), "SAME"), (X, W)),
    "padding": (conv((1, 2), [(2, 0), (1, 3)]), (X, W)),
    "negative padding": (conv((1, 1), [(-1, 2), (0, -1)]), (X, W)),
    "left dilation": (conv((1, 2), [(1, 1), (0, 2)], lhs_dilation=(2, 3)), (X, W)),
    "right dilation": (conv((1, 1), "SAME", rhs_dilation=(2, 3)), (X, W)),
    "all at once": (conv((2, 1), [(3, -1), (1, 4)], lhs_dilation=(3, 2), rhs_dilation=(1, 2)), (X, W)),
    "feature groups": (conv(feature_group_count=2), (X, W[:, :2])),
    "depthwise": (conv(padding="SAME", feature_group_count=4), (X, normal(8, 1, 3, 3))),
    "batch groups": (conv(batch_group_count=2), (X, W)),
    "channels last": (conv(dimension_numbers=("NHWC", "HWIO", "NHWC")), (normal(2, 5, 6, 3), normal(2, 3, 3, 4))),
    "odd dimensions": (conv(dimension_numbers=("HNWC", "OWIH", "CWNH")), (normal(5, 2, 6, 3), normal(4, 2, 3, 3))),
    "groups, channels last": (
        conv(dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3),
        (normal(2, 4, 4, 6), normal(2, 2, 2, 9)),
    ),
    "pointwise": (conv(), (X, W[:, :, :1, :1])),
    "pointwise strides": (conv((2, 2)), (X, W[:, :, :1, :1])),
    "one axis": (conv((2,), "SAME"), (X1, W1)),
    "three axes": (conv((1, 2, 1), "SAME"), (normal(1, 2, 3, 4, 3), normal(2, 2, 2, 2, 2))),
    "no axis": (conv((), ()), (X1[..., 0], W1[..., 0])),
    "empty": (conv(), (X[:0], W)),
    "window beyond": (conv(), (X[:, :, :2], W)),
    "known kernel": (lambda x: conv()(x, np.asarray(W) * 0.1), (X,)),
    "known images": (lambda w: conv()(np.asarray(X), w), (W,)),
    "known counts": (lambda x: conv()(x, np.ones((1, 4, 2, 2), np.float32)), (X,)),
    "transposed": (lambda x, w: lax.conv_transpose(x, w, (2, 2), "SAME", None, NCHW), (X, W[:4])),
    "patches": (lambda x: lax.conv_general_dilated_patches(x, (2, 3), (1, 1), "SAME"), (X,)),
    "integers": (conv(padding="SAME", preferred_element_type=jnp.int32), (I.astype(jnp.int8), J)),
    "jnp.convolve": (lambda x, y: (jnp.convolve(x, y), jnp.correlate(x, y, "same")), (X1[0, 0], X1[1, 1, :4])),
    "vmapped over both": (jax.vmap(conv(padding="SAME")), (normal(2, 1, 2, 4, 4), normal(2, 3, 2, 2, 2))),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    fn, args = CONVOLUTIONS[name]
    agrees(fn, *args)


GRADIENTS = (
    "strides", "all at once", "feature groups", "depthwise", "batch groups", "odd dimensions", "one axis",
)  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str) -> None:
    fn, args = CONVOLUTIONS[name]
    module = agrees(jax.grad(lambda x, w: (fn(x, w) ** 2).sum(), (0, 1)), *args, units=256)
    assert names(module).count("dot") == 3


def test_one_product_and_one_truncation() -> None:
    module = agrees(conv((2, 2), "SAME"), X, W)
    assert names(module).count("dot") == names(module).count("trunc") == 1


def test_memory_is_bounded_by_summing_over_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_rules, "MAX_WINDOWS", 800)
    module = agrees(conv(padding="SAME", feature_group_count=2), X, W[:, :2])
    assert names(module).count("dot") == 3
    assert names(module).count("trunc") == 1
    gathered = [op.output.type.size for op in module.body.ops if op.name == "gather"]
    assert len(gathered) == 3 and max(gathered) <= 800


def cnn(p: Any, x: Any, labels: Any) -> Any:
    """Mean cross-entropy of a small network: conv, relu, max pooling, dense."""
    h = lax.conv_general_dilated(x, p["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    h = jax.nn.relu(h + p["bias"])
    h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    logits = h.reshape(len(x), -1) @ p["dense"]
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * labels, 1))


CNN: dict[str, Any] = {"conv": normal(3, 3, 1, 4) / 2, "bias": normal(4) / 4, "dense": normal(64, 3) / 8}
IMAGES = normal(2, 8, 8, 1)
LABELS = np.eye(3, dtype=np.float32)[:2]


def test_gradient_of_a_network() -> None:
    agrees(jax.value_and_grad(cnn), CNN, IMAGES, LABELS, units=256)


def resnet_block(p: Any, x: Any) -> Any:
    """Two convolutions with batch normalisation (running statistics), stride 2, projected shortcut."""
    numbers = ("NHWC", "HWIO", "NHWC")

    def normalised(q: Any, h: Any) -> Any:
        return (h - q["mean"]) * lax.rsqrt(q["var"] + 1e-3) * q["scale"] + q["bias"]

    h = lax.conv_general_dilated(x, p["conv1"], (2, 2), "SAME", dimension_numbers=numbers)
    h = jax.nn.relu(normalised(p["norm1"], h))
    h = lax.conv_general_dilated(h, p["conv2"], (1, 1), "SAME", dimension_numbers=numbers)
    shortcut = lax.conv_general_dilated(x, p["project"], (2, 2), "SAME", dimension_numbers=numbers)
    return jax.nn.relu(normalised(p["norm2"], h) + shortcut).mean((1, 2))


def norm(features: int) -> dict[str, Array]:
    return {
        "mean": normal(features) / 4, "var": np.abs(normal(features)) + 0.5,
        "scale": 1 + normal(features) / 8, "bias": normal(features) / 8,
    }  # fmt: skip


RESNET: dict[str, Any] = {
    "conv1": normal(3, 3, 3, 4) / 4, "norm1": norm(4), "conv2": normal(3, 3, 4, 4) / 4, "norm2": norm(4),
    "project": normal(1, 1, 3, 4) / 2,
}  # fmt: skip


def test_residual_block() -> None:
    agrees(resnet_block, RESNET, normal(2, 8, 8, 3), units=256)


@pytest.mark.parametrize("protocol", ["ref2k", "aby3"])
def test_protocols(protocol: str) -> None:
    run = spu.jit(conv((2, 1), "SAME", feature_group_count=2), protocol=protocol)
    want = conv((2, 1), "SAME", feature_group_count=2)(X, W[:, :2])
    np.testing.assert_allclose(spu.reveal(run(X, W[:, :2])), want, atol=1e-4)


def test_a_network_trains_under_aby3() -> None:
    loss, gradient = spu.reveal(spu.jit(jax.value_and_grad(cnn))(CNN, IMAGES, LABELS))
    want_loss, want = jax.value_and_grad(cnn)(CNN, IMAGES, LABELS)
    np.testing.assert_allclose(loss, want_loss, atol=1e-3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), gradient, want)


def test_the_output_is_all_that_is_sent() -> None:
    cost = spu.jit(conv(padding="SAME")).cost(X, W)
    outputs = conv(padding="SAME")(X, W).size
    assert cost.rounds == 2  # a product with its truncation
    assert cost.bytes_sent.sum() <= 44 * outputs
