"""Inference of a GPT-2-shaped model: weights private to one party, the prompt to another, a cache of keys and values.

Parameters are a pytree with the shapes of GPT-2's: `wte` [vocabulary, width], `wpe` [positions, width], `ln_f`, and of
each layer `ln_1`, `attn` (`c_attn` [width, 3 width], `c_proj`), `ln_2`, `mlp` (`c_fc` [width, 4 width], `c_proj`):
norms with `scale` and `bias`, the rest with `kernel` and `bias`. A token is secret: its embedding is a product of an
indicator with all embeddings, vocabulary x width multiplications: as many as the logits take.

A. Radford and others, Language models are unsupervised multitask learners, 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import spuvm as spu
from spuvm.devices import PYU, PYUObject
from spuvm.ml.composition.splits import rows_of
from spuvm.ml.machine import Machine, Reveal, default_device
from spuvm.runtime.errors import ConfigError, InputError

Params = Mapping[str, Any]
EPSILON = 1e-5
FAR = -1e4  # a logit of what attention must not see


@dataclass(frozen=True)
class Shape:
    """Of GPT-2 small by default; `positions` is also the length of the cache."""

    layers: int = 12
    heads: int = 12
    width: int = 768
    vocabulary: int = 50257
    positions: int = 64


def random_params(shape: Shape, seed: int = 0) -> dict[str, Any]:
    """Parameters drawn as GPT-2's were: of deviation 0.02, of projections by the root of twice the layers less."""
    r = np.random.default_rng(seed)

    def dense(n: int, m: int, scale: float = 1.0) -> dict[str, np.ndarray]:
        return {"kernel": (0.02 * scale * r.normal(size=(n, m))).astype(np.float32), "bias": np.zeros(m, np.float32)}

    def norm() -> dict[str, np.ndarray]:
        return {"scale": np.ones(w, np.float32), "bias": np.zeros(w, np.float32)}

    w, less = shape.width, 1 / np.sqrt(2 * shape.layers)
    layers = [
        {
            "ln_1": norm(),
            "attn": {"c_attn": dense(w, 3 * w), "c_proj": dense(w, w, less)},
            "ln_2": norm(),
            "mlp": {"c_fc": dense(w, 4 * w), "c_proj": dense(4 * w, w, less)},
        }
        for _ in range(shape.layers)
    ]
    wte, wpe = ((0.02 * r.normal(size=(n, w))).astype(np.float32) for n in (shape.vocabulary, shape.positions))
    return {"wte": wte, "wpe": wpe, "layers": layers, "ln_f": norm()}


def empty_cache(shape: Shape) -> list[dict[str, np.ndarray]]:
    """Keys and values [positions, heads, width / heads] of each layer, before the first token."""
    zeros = np.zeros((shape.positions, shape.heads, shape.width // shape.heads), np.float32)
    return [{"k": zeros, "v": zeros} for _ in range(shape.layers)]


def layer(x: jax.Array, p: Params, cache: Params, position: jax.Array, heads: int) -> tuple[jax.Array, dict[str, Any]]:
    """One block for one token: x [width] -> x, and the cache with the token's key and value."""
    width = x.shape[0]
    qkv = _dense(_norm(x, p["ln_1"]), p["attn"]["c_attn"]).reshape(3, heads, width // heads)
    k, v = (lax.dynamic_update_index_in_dim(cache[n], qkv[i], position, 0) for n, i in (("k", 1), ("v", 2)))
    logits = jnp.einsum("hd,thd->ht", qkv[0], k) * (1 / np.sqrt(width // heads))
    seen = jnp.arange(k.shape[0]) <= position
    share = jax.nn.softmax(jnp.where(seen, logits, FAR), axis=-1)
    x = x + _dense(jnp.einsum("ht,thd->hd", share, v).reshape(width), p["attn"]["c_proj"])
    hidden = jax.nn.gelu(_dense(_norm(x, p["ln_2"]), p["mlp"]["c_fc"]), approximate=True)
    return x + _dense(hidden, p["mlp"]["c_proj"]), {"k": k, "v": v}


def embed(token: jax.Array, wte: jax.Array, place: jax.Array) -> jax.Array:
    """A secret token's embedding [width]: an indicator of it times all embeddings, and its place's."""
    hot = (token == jnp.arange(wte.shape[0])).astype(jnp.float32)
    out: jax.Array = hot @ wte + place
    return out


def logits_of(x: jax.Array, norm: Params, wte: jax.Array) -> jax.Array:
    """Of each token of the vocabulary, float32 [vocabulary]."""
    out: jax.Array = wte @ _norm(x, norm)
    return out


def step(params: Params, cache: Any, token: jax.Array, position: jax.Array, heads: int) -> tuple[jax.Array, Any]:
    """The next token's logits, and the cache: all of it in one function, as plain JAX runs it."""
    x, after = embed(token, params["wte"], params["wpe"][position]), []
    for p, c in zip(params["layers"], cache):
        x, known = layer(x, p, c, position, heads)
        after.append(known)
    return logits_of(x, params["ln_f"], params["wte"]), after


def _norm(x: jax.Array, p: Params) -> jax.Array:
    centred = x - jnp.mean(x)
    out: jax.Array = centred * lax.rsqrt(jnp.mean(centred * centred) + EPSILON) * p["scale"] + p["bias"]
    return out


def _dense(x: jax.Array, p: Params) -> jax.Array:
    out: jax.Array = x @ p["kernel"] + p["bias"]
    return out


class Gpt2:
    """The model of one party, run for others, who learn no weight; who learns no token of theirs.

        model = Gpt2(alice(load)("weights.npz"), Shape())
        tokens = model.generate(bob(lambda: prompt)(), length=20, to="bob")

    One program runs a layer, for all layers: it is compiled once. Greedy: the likeliest token is next.

    Args:
        params: the pytree, an object of its owner's PYU.
        shape: public.
    """

    def __init__(self, params: PYUObject, shape: Shape, device: Any = None) -> None:
        if shape.width % shape.heads:
            raise ConfigError(f"`width` {shape.width} is no multiple of `heads` {shape.heads}.")
        self.shape, self.owner = shape, PYU(params.device.party)
        self.machine = Machine(device or default_device())
        part = self.owner(lambda p, name: p[name])
        masked = self.machine.spu(spu.masked)
        self.wte, self.wpe = masked(part(params, "wte")), part(params, "wpe")
        self.ln_f = part(params, "ln_f")
        self.layers = [masked(self.owner(lambda p, i=i: p["layers"][i])(params)) for i in range(shape.layers)]
        self.cache: list[Any] = list(empty_cache(shape))
        self.position = 0

    def feed(self, token: Any) -> Any:
        """Take in one token, an int32 [] of a PYU or the SPU; the next one's logits, secret float32 [vocabulary]."""
        if self.position >= self.shape.positions:
            raise InputError(f"the cache holds {self.shape.positions} tokens, and is full: use a longer `positions`.")
        at = np.int32(self.position)
        place = self.owner(lambda wpe, i=self.position: wpe[i])(self.wpe)
        x = self.machine.run(embed, token, self.wte, place, what="embedding")
        run = _layer_of(self.shape.heads)
        for i, p in enumerate(self.layers):
            x, self.cache[i] = self.machine.run(run, x, p, self.cache[i], at, what="layer")
        self.position += 1
        return self.machine.run(logits_of, x, self.ln_f, self.wte, what="logits")

    def generate(self, prompt: PYUObject, length: int, to: str) -> Any:
        """So many tokens after the prompt int32 [n], at the party `to`, which alone sees them: int32 [length]."""
        holder, count = PYU(prompt.device.party), rows_of(prompt)
        if not count or count + length > self.shape.positions + 1:
            raise InputError(f"{count} and {length} tokens do not fit the {self.shape.positions} positions.")
        for i in range(count):
            logits = self.feed(holder(lambda tokens, i=i: np.int32(np.asarray(tokens)[i]))(prompt))
        found = []
        for i in range(length):
            found.append(self.machine.run(_likeliest, logits, what="token"))
            if i + 1 < length:
                logits = self.feed(found[-1])
        return self.machine.to(self.machine.run(_stacked, found, what="token"), to, "tokens")

    @property
    def reveals(self) -> tuple[Reveal, ...]:
        """What was shown, to whom."""
        return self.machine.reveals


@cache
def _layer_of(heads: int) -> Any:
    return lambda x, p, cache, position: layer(x, p, cache, position, heads)


def _likeliest(logits: jax.Array) -> jax.Array:
    return jnp.argmax(logits).astype(jnp.int32)


def _stacked(tokens: list[jax.Array]) -> jax.Array:
    return jnp.stack(tokens)
