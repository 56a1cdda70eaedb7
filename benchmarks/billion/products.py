"""A billion random products on secret shares, none wrong by more than one unit in the last place.

    python benchmarks/billion/products.py [--count 1000000000] [--block 4194304] [--seed 1]

Simulated ABY3 on a 64-bit ring with 18 fraction bits. Factors range over all magnitudes that fixed
point holds, and their products over all that a multiplication may have before it is truncated:
below 2^62 units of 2^-36. A truncation that fails with probability |product| / 2^64, as shifting
the shares would, fails in one product of eight here.

Errors are computed in integers, from the factors as encoded. Exit status 1 if any is above one unit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

import spuvm as spu

FRACTION_BITS = 18
UNIT = 2**FRACTION_BITS  # of an error, in units of a product before truncation
PRODUCT_BITS = 62
BINS_PER_UNIT = 8
BIN_SHIFT = FRACTION_BITS - 3
FAR = 2**40
OUTSIDE = 4  # units shown on either side; errors beyond count into the last bin


def factors(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers as float64: x is log-uniform up to 2^61, y uniform such that |x y| < 2^62."""
    u = rng.uniform(-1, 1, n)
    x = np.rint(np.copysign(np.exp2((PRODUCT_BITS - 1) * np.abs(u)), u))
    limit = 2.0**PRODUCT_BITS * (1 - 2.0**-20) / np.abs(x)
    return x, np.trunc(rng.uniform(-1, 1, n) * limit)


def differences(product: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Result less exact product, in units of 2^-36; exact, as all fits into 63 bits, if the result is near."""
    result = np.rint(product * float(UNIT))
    exact = x.astype(np.int64) * y.astype(np.int64)
    out: np.ndarray = (result.astype(np.int64) << FRACTION_BITS) - exact
    rough = result - exact / UNIT
    far = np.abs(rough) > OUTSIDE  # a result wrong in its high bits: the shift would lose just those
    if far.any():
        out[far] = np.clip(rough[far], -FAR, FAR).astype(np.int64) << FRACTION_BITS
    return out


def sizes(count: int, block: int) -> Iterator[int]:
    while count > 0:
        yield min(count, block)
        count -= block


def show(histogram: np.ndarray) -> None:
    """The share of errors in each eighth of a unit."""
    for i in np.flatnonzero(histogram):
        low = i / BINS_PER_UNIT - OUTSIDE
        share = histogram[i] / histogram.sum()
        print(f"{low:+7.3f} to {low + 1 / BINS_PER_UNIT:+7.3f} {histogram[i]:>14,} {'#' * round(200 * share)}")


def measure(count: int, block: int, seed: int) -> tuple[np.ndarray, int]:
    """Histogram of errors, and the largest magnitude in units of 2^-36."""
    rng = np.random.Generator(np.random.SFC64(seed))
    multiply = spu.jit(jnp.multiply, fxp_fraction_bits=FRACTION_BITS)
    histogram = np.zeros(2 * OUTSIDE * BINS_PER_UNIT, np.int64)
    worst, done, secure, told = 0, 0, 0.0, time.perf_counter()
    began = told
    for n in sizes(count, block):
        x, y = factors(rng, n)
        start = time.perf_counter()
        product = spu.reveal(multiply(x / UNIT, y / UNIT))
        secure += time.perf_counter() - start
        wrong = differences(product, x, y)
        worst = max(worst, int(wrong.max()), -int(wrong.min()))
        bins = np.clip((wrong >> BIN_SHIFT) + OUTSIDE * BINS_PER_UNIT, 0, len(histogram) - 1)
        histogram += np.bincount(bins, minlength=len(histogram))
        done += n
        if time.perf_counter() - told > 5 or done == count:
            told = time.perf_counter()
            rate = done / (told - began)
            print(f"{done:>13,} products, {rate / 1e6:.1f} million/s, worst {worst / UNIT:.6f} units", flush=True)
    print(f"shared, multiplied and revealed at {count / secure / 1e6:.1f} million/s; {told - began:.0f} s in all")
    return histogram, worst


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000_000, help="products")
    parser.add_argument("--block", type=int, default=1 << 22, help="products at a time")
    parser.add_argument("--seed", type=int, default=1, help="of the factors, not of the shares")
    given = parser.parse_args()
    if given.count < 1 or given.block < 1:
        parser.error("`--count` and `--block` must be at least 1.")
    with jax.enable_x64(True):  # products are read as float64, which holds them exactly
        histogram, worst = measure(given.count, given.block, given.seed)
    print("\nerror in units in the last place")
    show(histogram)
    if worst > UNIT:
        print(f"FAILED: an error of {worst / UNIT:.3f} units; at most 1 is allowed")
        return 1
    print(f"passed: no error above one unit, the largest is {worst / UNIT:.6f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
