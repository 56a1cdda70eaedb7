"""Federated training whose sums four parties make, one of whom may lie: the same model as of three."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

import spuvm as spu
from spuvm import fed

PARTIES = ("alice", "bob", "carol", "dave")


def loss(params: Any, batch: Any) -> Any:
    return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)


def rows(seed: int) -> dict[str, Any]:
    x = np.random.default_rng(seed).normal(size=(12, 4)).astype(np.float32)
    return {"x": x, "y": x @ np.array([1, -2, 0.5, 3], np.float32)}


def test_four_who_add_up_give_the_model_of_three() -> None:
    spu.init(parties=PARTIES, address="local")
    nodes = {"nodes": [{"party": p} for p in PARTIES], "runtime_config": {"protocol": "rep4", "field": 64}}
    data = {p: rows(i) for i, p in enumerate(PARTIES)}
    options: dict[str, Any] = {"rounds": 2, "seed": 0}
    start: Any = {"w": jnp.zeros(4)}
    three = fed.train(loss, start, optax.sgd(0.1), data, **options)
    four = fed.train(loss, start, optax.sgd(0.1), data, device=spu.SPU(nodes), **options)
    median = fed.train(loss, start, optax.sgd(0.1), data, device=spu.SPU(nodes), aggregate="median", **options)
    assert np.array_equal(three.params["w"], four.params["w"]) and np.abs(four.params["w"]).max() > 0.1
    assert np.isfinite(median.params["w"]).all() and not np.array_equal(median.params["w"], four.params["w"])
    spu.shutdown()
