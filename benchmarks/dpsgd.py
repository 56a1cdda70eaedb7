"""DP-SGD beside jax-privacy, for the same settings: epsilon, sums of clipped gradients, accuracy.

    pip install 'spuvm[dpsgd]'
    python benchmarks/dpsgd.py                    # and --trainings 5

Ten owners' digits here, all rows at one place there; the same clip, noise multiplier, sampling, rounds and rate. Both
accountants are of Renyi privacy; the exact one (privacy loss distributions) is below both. Noise here has half the
variance more, as any two of three shares are the claimed noise.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import numpy as np
import optax
from federated import accuracy, digits, skewed, softmax_loss, start
from jax_privacy import accounting, clipped_grad
from jax_privacy.batch_selection import CyclicPoissonSampling
from jax_privacy.noise_addition import gaussian_privatizer

import spuvm as spu
from spuvm import fed
from spuvm.fed.examples import clipped_sum, total_of
from spuvm.fed.layout import layout_of

DELTA, ROUNDS, SAMPLING, CLIP, RATE = 1e-4, 60, 0.1, 1.0, 1.0
SETTINGS = [(3.0, 0.1, 60), (1.2, 0.1, 60), (1.1, 0.05, 100), (0.8, 0.01, 1000), (4.0, 1.0, 30)]
ACCOUNTS = {"RDP": accounting.RdpAccountantConfig(), "PLD": accounting.PldAccountantConfig()}


def theirs(noise: float, sampling: float, rounds: int, account: str = "RDP") -> float:
    """Epsilon, by their accountant of DP-SGD."""
    rows = 1_000_000
    settings = accounting.DpParams(
        noise_multipliers=noise, num_samples=rows, delta=DELTA, batch_size=round(sampling * rows)
    )
    return float(accounting.DpsgdTrainingAccountant(ACCOUNTS[account]).compute_epsilon(rounds, settings))


def gradients(x: Any, y: Any) -> float:
    """The largest difference between the two sums of clipped gradients, by the largest element."""
    params = start(64, 32, 10)
    layout = layout_of(params)

    def objective(leaves: Any, batch: Any, _: Any) -> Any:
        return softmax_loss(layout.model(leaves), batch)

    summed = clipped_sum(objective, CLIP)
    ours = total_of(summed, layout, list(layout.leaves), (x, y), len(y), jax.random.key(0))
    found = jax.jit(clipped_grad(softmax_loss, l2_clip_norm=CLIP))(params, (x, y))
    theirs_ = layout.vector(jax.tree.leaves(found))
    return float(np.abs(ours - theirs_).max() / np.abs(theirs_).max())


def train(noise: float, seed: int, x: Any, y: Any) -> Any:
    """Parameters after their DP-SGD."""
    params = start(64, 32, 10)
    slopes = jax.jit(clipped_grad(lambda p, b: softmax_loss(p, b[:2]) * b[2].mean(), l2_clip_norm=CLIP))
    most = round(2 * SAMPLING * len(y))  # rows of a batch: filled up with such as weigh nothing
    privatizer = gaussian_privatizer(stddev=noise * CLIP, prng_key=jax.random.key(seed))
    state = privatizer.init(params)
    batches = CyclicPoissonSampling(sampling_prob=SAMPLING, iterations=ROUNDS)
    for at in batches.batch_iterator(len(y), rng=seed):
        assert len(at) <= most
        rows = np.resize(at, most) if len(at) else np.zeros(most, int)
        noisy, state = privatizer.update(slopes(params, (x[rows], y[rows], np.arange(most) < len(at))), state)
        params = jax.tree.map(lambda p, g: p - RATE * g / (SAMPLING * len(y)), params, noisy)
    return params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", type=int, default=5)
    options = parser.parse_args()
    print("noise  sampling  rounds    epsilon  jax-privacy, RDP  and PLD")
    for noise, sampling, rounds in SETTINGS:
        ours = fed.Private(CLIP, noise, sampling=sampling).epsilon(rounds, DELTA)
        other = [theirs(noise, sampling, rounds, account) for account in ACCOUNTS]
        print(f"{noise:5} {sampling:9} {rounds:7} {ours:10.4f} {other[0]:17.4f} {other[1]:8.4f}", flush=True)
    x, tx, y, ty = digits()
    print(f"sums of {len(y):,} clipped gradients differ by {gradients(x, y):.1e} of the largest element", flush=True)
    data = skewed(x, y)
    spu.init(parties=list(data), address="local")
    for noise in (3.0, 1.2):
        how = fed.Private(clip=CLIP, noise=noise, sampling=SAMPLING)
        here, there = [], []
        for seed in range(options.trainings):
            model = fed.train(softmax_loss, start(64, 32, 10), optax.sgd(RATE), data, rounds=ROUNDS, dp=how)
            here.append(accuracy(model.params, tx, ty))
            there.append(accuracy(train(noise, seed, x, y), tx, ty))
        print(
            f"epsilon {how.epsilon(ROUNDS, DELTA):.2f}: accuracy {np.mean(here):.4f} (from {min(here):.4f} to "
            f"{max(here):.4f}), jax-privacy {np.mean(there):.4f} ({min(there):.4f} to {max(there):.4f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
