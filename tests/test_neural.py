"""Neural nets: training that equals plain JAX's, checkpoints that go on, and a GPT-2-shaped model beside plain JAX."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.ml import Trainer
from spuvm.ml.neural import gpt2
from spuvm.ml.neural.lora import lora, merged
from spuvm.runtime.errors import ConfigError, InputError

optax = pytest.importorskip("optax")
PARTIES = ("alice", "bob", "carol")


@pytest.fixture(scope="module", autouse=True)
def parties() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def net(params: Any, x: Any) -> jax.Array:
    out: jax.Array = jax.nn.relu(x @ params["w"] + params["b"]) @ params["v"]
    return out


def start() -> dict[str, np.ndarray]:
    r = np.random.default_rng(1)
    w, v = r.normal(size=(4, 6)) / 2, r.normal(size=(6, 3)) / 2
    return {"w": w.astype(np.float32), "b": np.zeros(6, np.float32), "v": v.astype(np.float32)}


def rows() -> tuple[np.ndarray, np.ndarray]:
    r = np.random.default_rng(0)
    x = r.normal(size=(48, 4)).astype(np.float32)
    return x, np.argmax(x[:, :3] + 0.1 * r.normal(size=(48, 3)), axis=1).astype(np.int32)


def test_training_equals_plain_jax_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    x, y = rows()
    at_alice, at_bob = spu.PYU("alice")(lambda: x)(), spu.PYU("bob")(lambda: y)()
    optimizer = optax.sgd(0.5, momentum=0.9)
    trainer = Trainer(net, optimizer, start())
    trainer.fit(at_alice, at_bob, epochs=1, batch_size=16, validation=(at_alice, at_bob))
    folders = {p: tmp_path / p for p in PARTIES}
    trainer.save(folders)
    other = Trainer(net, optimizer, start()).restore(folders)
    assert other.steps == 3 and other.history == trainer.history
    other.fit(at_alice, at_bob, batch_size=16, random_state=1)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return -jnp.mean(jax.nn.log_softmax(net(params, x))[jnp.arange(len(y)), y])

    params, state = start(), optimizer.init(start())
    for seed in (0, 1):
        order = np.random.RandomState(seed).permutation(48)
        for at in (order[:16], order[16:32], order[32:]):
            changes, state = optimizer.update(jax.grad(loss)(params, x[at], y[at]), state, params)
            params = optax.apply_updates(params, changes)
    shown = other.predict(at_alice, to="carol").value
    assert np.abs(shown - net(params, x)).max() < 2e-3
    assert {r.what for r in trainer.reveals} == {"loss"}
    assert abs(trainer.history[0] - 0.8) < 0.4


def test_adapters_of_a_private_base_are_those_of_plain_jax() -> None:
    x, y = rows()
    base, optimizer = start(), optax.sgd(0.5)
    adapted, adapters = lora(net, base, ("['w']", "['v']"), rank=2, alpha=4.0)
    assert sorted(adapters) == ["['v']", "['w']"] and adapters["['w']"]["down"].shape == (4, 2)
    trainer = Trainer(adapted, optimizer, adapters, frozen=spu.PYU("bob")(lambda: base)())
    trainer.fit(spu.PYU("alice")(lambda: x)(), spu.PYU("carol")(lambda: y)(), epochs=2, batch_size=24)
    params, state = adapters, optimizer.init(adapters)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return -jnp.mean(jax.nn.log_softmax(adapted(params, base, x))[jnp.arange(len(y)), y])

    for seed in (0, 1):
        order = np.random.RandomState(seed).permutation(48)
        for at in (order[:24], order[24:]):
            changes, state = optimizer.update(jax.grad(loss)(params, x[at], y[at]), state, params)
            params = optax.apply_updates(params, changes)
    wanted = net(merged(base, params, 2.0), x)
    assert np.abs(trainer.predict(x, to="alice").value - wanted).max() < 2e-3
    assert np.abs(wanted - net(base, x)).max() > 0.1 and {r.what for r in trainer.reveals} == {"prediction"}
    with pytest.raises(ConfigError, match=r"no matrix has .head. in its name: there are"):
        lora(net, base, "head")
    with pytest.raises(ConfigError, match=r"`rank` is 3, but \['v'\] is 6 by 3"):
        lora(net, base, "v", rank=3)
    with pytest.raises(ConfigError, match="`frozen` has arrays, which are nobody's"):
        Trainer(adapted, optimizer, adapters, frozen=base)
    with pytest.raises(InputError, match=r"the model has no \['w'\], which an adapter is of"):
        adapted(adapters, {"v": base["v"]}, None)


def test_what_a_trainer_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`loss` must be one of"):
        Trainer(net, optax.sgd(0.1), start(), loss="hinge")
    trainer = Trainer(net, optax.sgd(0.1), start())
    with pytest.raises(InputError, match="take a step first"):
        trainer.save({p: tmp_path / p for p in PARTIES})
    with pytest.raises(InputError, match="there are 48 rows, `batch_size` is 64"):
        trainer.fit(*rows())
    with pytest.raises(InputError, match="either `x` and `y`, or `batches`"):
        trainer.fit()


def test_a_gpt2_of_one_party_continues_the_prompt_of_another() -> None:
    shape = gpt2.Shape(layers=2, heads=2, width=8, vocabulary=12, positions=6)
    params = gpt2.random_params(shape, seed=3)
    params["wte"] *= 30
    prompt = np.array([3, 7], np.int32)
    model = gpt2.Gpt2(spu.PYU("alice")(lambda: params)(), shape)
    tokens = model.generate(spu.PYU("bob")(lambda: prompt)(), 2, to="bob").value
    cache, logits, wanted = gpt2.empty_cache(shape), None, []
    for position, token in enumerate([*prompt.tolist(), -1]):
        token = int(jnp.argmax(logits)) if token < 0 and logits is not None else token
        logits, cache = gpt2.step(params, cache, jnp.int32(token), jnp.int32(position), shape.heads)
        if position >= 1:
            wanted.append(int(jnp.argmax(logits)))
    assert tokens.tolist() == wanted
    assert [str(r) for r in model.reveals] == ["tokens [2] to bob"]
    assert np.abs(spu.reveal(model.feed(np.int32(1))) - 0).shape == (12,)
