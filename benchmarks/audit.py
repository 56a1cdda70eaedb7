"""Noise beside what it claims: goodness of fit, and a lower bound of epsilon that must stay below it.

    python benchmarks/audit.py                          # 10^6 numbers of each sampler: five minutes of a processor
    python benchmarks/audit.py --runs 100000            # a tenth of them
    python benchmarks/audit.py "Gaussian, aby3"         # one sampler, or some

For each sampler: chi-square by degree of freedom against the exact distribution (near 1 is right), and how likely a
larger one is if the noise is what it claims; the bound of epsilon at 99.9% confidence from 10^5 runs on two neighbours,
at the claimed delta, and the same bound for a sampler of half the noise, which must exceed the claim. Laplace noise
claims epsilon 1, Gaussian noise epsilon 2 and delta 0.01. Samplers in the machine draw blocks of one compiled program;
each number has the noise that a program which shows one number has.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from scipy.stats import chi2

import spuvm as spu
from spuvm.compiler.lower.noise import gaussian_p
from spuvm.dp import epsilon_at_least, gaussian_share, laplace_share

BLOCK = 10_000
AUDITED = 100_000  # runs on each of two neighbours
LAPLACE, GAUSSIAN = (1.0, 0.0), (2.0, 0.01)  # epsilon and delta
LEAST_LIKELY = 1e-6  # a fit that is worse is wrong
SCALE, SIGMA = 8, 22.0  # of shares, in units

Draw = Callable[[int, float], np.ndarray]  # how many, and the part of the claimed noise: whole numbers of units


def of_gaussian() -> Any:
    """What a program that shows one number draws for the claim: sensitivity, sigma and grid."""
    traced = jax.make_jaxpr(lambda x: spu.dp.gaussian(x, 1.0, *GAUSSIAN))(np.float32(0))
    return traced.eqns[-1].params


def machine(kind: str, protocol: str) -> Draw:
    """Noise that is drawn in the machine, in blocks."""

    @functools.cache
    def program(part: float) -> Any:
        if kind == "laplace":
            return spu.jit(lambda x: spu.dp.laplace(x, 1, LAPLACE[0] / part), protocol=protocol)
        own = dict(of_gaussian())
        own["sigma"] *= part
        return spu.jit(lambda x: gaussian_p.bind(x, **own), protocol=protocol)

    def draw(runs: int, part: float) -> np.ndarray:
        zeros = np.zeros(BLOCK, np.int32 if kind == "laplace" else np.float32)
        blocks = [spu.reveal(program(part)(zeros)) for _ in range(0, runs, BLOCK)]
        unit = 1.0 if kind == "laplace" else of_gaussian()["grid"]
        return np.rint(np.concatenate(blocks) / unit).astype(np.int64)

    return draw


def two_shares(kind: str) -> Draw:
    """What is left for who knows the third share."""

    def draw(runs: int, part: float) -> np.ndarray:
        share, scale = (laplace_share, SCALE) if kind == "laplace" else (gaussian_share, SIGMA)
        both: np.ndarray = share((runs,), scale * part, 2) + share((runs,), scale * part, 2)
        return both

    return draw


def fit(samples: np.ndarray, probability: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """Chi-square by degree of freedom, and the chance of a larger one; what is rarer than 20 in all is one cell."""
    reach = int(np.abs(samples).max()) + 1000
    at = np.arange(-reach, reach + 1)
    weights = probability(at)
    expected = weights / weights.sum() * len(samples)
    counts = np.bincount(samples + reach, minlength=len(at)).astype(float)
    often = expected >= 20
    expected = np.append(expected[often], expected[~often].sum())
    counts = np.append(counts[often], counts[~often].sum())
    statistic = float(((counts - expected) ** 2 / expected).sum())
    degrees = len(expected) - 1
    return statistic / degrees, float(chi2.sf(statistic, degrees))


def laplace(scale: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda n: np.asarray(np.exp(-np.abs(n) / scale))


def gaussian(sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda n: np.asarray(np.exp(-(n**2) / (2 * sigma**2)))


def samplers() -> dict[str, tuple[Draw, Callable[[np.ndarray], np.ndarray], float, tuple[float, float]]]:
    """By name: the sampler, its exact distribution, the sensitivity in units, and the claim."""
    own = of_gaussian()
    units = own["sigma"] / own["grid"]
    out: dict[str, Any] = {}
    for protocol in ("aby3", "ref2k"):
        out[f"Laplace, {protocol}"] = machine("laplace", protocol), laplace(1 / LAPLACE[0]), 1.0, LAPLACE
        out[f"Gaussian, {protocol}"] = machine("gaussian", protocol), gaussian(units), 1 / own["grid"], GAUSSIAN
    out["Laplace, two of three shares"] = two_shares("laplace"), laplace(SCALE), SCALE * LAPLACE[0], LAPLACE
    sensitivity = SIGMA / own["sigma"]
    out["Gaussian, two of three shares"] = two_shares("gaussian"), gaussian(SIGMA), sensitivity, GAUSSIAN
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of samplers; all if none is named")
    parser.add_argument("--runs", type=int, default=1_000_000, help="of the goodness of fit")
    options = parser.parse_args()
    known = samplers()
    if unknown := [n for n in options.names if n not in known]:
        parser.error(f"there is no sampler {unknown[0]!r}: they are {', '.join(map(repr, known))}")
    print(f"{'sampler':31} numbers  chi-square  likely  epsilon at least  of half the noise", flush=True)
    for name in options.names or known:
        draw, exact, sensitivity, (epsilon, delta) = known[name]
        noise, less = draw(max(options.runs, 2 * AUDITED), 1.0), draw(2 * AUDITED, 0.5)
        ratio, chance = fit(noise[: options.runs], exact)
        bound, half = (
            epsilon_at_least(some[:AUDITED], some[AUDITED : 2 * AUDITED] + sensitivity, delta) for some in (noise, less)
        )
        print(f"{name:31} {options.runs:7} {ratio:11.3f} {chance:7.3f} {bound:17.3f} {half:18.3f}", flush=True)
        if chance < LEAST_LIKELY or bound > epsilon or half <= epsilon:
            raise SystemExit(f"{name}: the claim is epsilon {epsilon:g}, delta {delta:g}")


if __name__ == "__main__":
    main()
