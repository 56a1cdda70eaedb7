"""A keyboard that learns what comes next from twenty sites' texts, which stay where they are.

    python examples/federated/keyboard.py             # simulated: twenty owners, of which three compute

A site's text is sentences of its own mixture of topics. Letters of the alphabet and a blank are predicted from the
three before. Each site keeps a bias of its own (`personal`), and two sites are away in every second round.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import spuvm as spu
from spuvm import fed

SITES = tuple(f"site{i:02}" for i in range(20))
TOPICS = (
    "the train to the coast is late again and the platform is cold",
    "please send the report and the figures to the office by noon",
    "boil the water add the salt and stir the rice until it is soft",
    "the patient slept well and the fever is gone since the morning",
)
LETTERS = " abcdefghijklmnopqrstuvwxyz"
WINDOW, WIDTH = 3, 24


def text(site: str, letters: int) -> Any:
    """Windows of letters, and the letter that follows each: (int32[rows, 3], int32[rows])."""
    rng = np.random.default_rng(SITES.index(site))
    taste = rng.dirichlet(np.full(len(TOPICS), 0.5))
    words = " ".join(rng.choice(TOPICS, 200, p=taste))[:letters]
    codes = np.array([LETTERS.index(c) for c in words], np.int32)
    windows = np.stack([codes[i : len(codes) - WINDOW + i] for i in range(WINDOW)], axis=1)
    return windows, codes[WINDOW:]


def net(params: Any, windows: Any) -> Any:
    x = params["letters"][windows].reshape(len(windows), -1)
    return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["own"]


def loss(params: Any, batch: Any) -> Any:
    windows, following = batch
    return optax.softmax_cross_entropy_with_integer_labels(net(params, windows), following).mean()


def right(params: Any, batch: Any) -> Any:
    windows, following = batch
    return {"right": jnp.mean(jnp.argmax(net(params, windows), 1) == following), "loss": loss(params, batch)}


def start() -> Any:
    rng = np.random.default_rng(0)
    shapes = {"letters": (27, 8), "w1": (8 * WINDOW, WIDTH), "b1": (WIDTH,), "w2": (WIDTH, 27), "own": (27,)}
    return {n: (rng.normal(size=s) * (0.3 if len(s) > 1 else 0)).astype(np.float32) for n, s in shapes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--letters", type=int, default=600)
    options = parser.parse_args()
    spu.init(parties=SITES, address="local")
    data = {s: text(s, options.letters) for s in SITES}
    held_back = {s: (w[-100:], f[-100:]) for s, (w, f) in data.items()}
    data = {s: (w[:-100], f[:-100]) for s, (w, f) in data.items()}
    away = {s: (lambda r: r % 2 == 0) for s in SITES[:2]}
    model = fed.train(
        loss, start(), optax.adam(0.01), data, rounds=options.rounds, local_steps=20, batch_size=32, personal="own",
        attend=away, eval=right, eval_data=held_back, seed=0,
    )  # fmt: skip
    for i, entry in enumerate(model.history):
        print(f"after {i:2} rounds: {entry['right']:.1%} of letters right, {entry['parties']:.0f} sites")
    print(*model.learns, sep="\n")
    spu.shutdown()


if __name__ == "__main__":
    main()
