"""Noise beside what it claims: goodness of fit, and a lower bound of epsilon that must stay below it.

    python benchmarks/audit.py --runs 100000            # samplers in the machine, and shares that parties draw

For each sampler: chi-square by degree of freedom against the exact distribution (near 1 is right), the bound at 99.9%
confidence from runs on two neighbours, and the same bound for a sampler of half the noise, which must exceed the claim.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np

import spuvm as spu
from spuvm.dp import epsilon_at_least, laplace_share

CHUNK = 20_000
CLAIM = 1.0


def machine(protocol: str) -> Callable[[int, float], np.ndarray]:
    """Discrete Laplace noise of this epsilon, drawn in the machine."""

    def draw(runs: int, epsilon: float) -> np.ndarray:
        noisy = spu.jit(lambda x: spu.dp.laplace(x, 1, epsilon), protocol=protocol)
        return np.concatenate([spu.reveal(noisy(np.zeros(CHUNK, np.int32))) for _ in range(0, runs, CHUNK)])

    return draw


def two_shares(runs: int, epsilon: float) -> np.ndarray:
    """What is left for who knows the third share."""
    one, other = laplace_share((runs,), 1 / epsilon, 2), laplace_share((runs,), 1 / epsilon, 2)
    return np.asarray(one + other)


def fit(samples: np.ndarray, epsilon: float) -> float:
    """Chi-square by degree of freedom."""
    q = math.exp(-epsilon)
    reach = int(math.log(len(samples) / 20) / epsilon)
    expected = np.array([(1 - q) / (1 + q) * q ** abs(k) for k in range(-reach, reach + 1)]) * len(samples)
    counts = np.array([(samples == k).sum() for k in range(-reach, reach + 1)])
    return float(((counts - expected) ** 2 / expected).sum() / len(counts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    options = parser.parse_args()
    print("sampler             chi-square    epsilon at least    of half the noise")
    samplers = {"aby3": machine("aby3"), "ref2k": machine("ref2k"), "two of three shares": two_shares}
    for name, draw in samplers.items():
        one, other = draw(options.runs, CLAIM), draw(options.runs, CLAIM) + 1
        half = epsilon_at_least(draw(options.runs, 2 * CLAIM), draw(options.runs, 2 * CLAIM) + 1)
        bound = epsilon_at_least(one, other)
        print(f"{name:20} {fit(one, CLAIM):9.3f} {bound:19.3f} {half:20.3f}", flush=True)
        if bound > CLAIM or half <= CLAIM:
            raise SystemExit(f"{name}: the claim is epsilon {CLAIM:g}")


if __name__ == "__main__":
    main()
