"""Numbers a second and core of the homomorphic schemes, and random operations against whole numbers.

python benchmarks/homomorphic.py [--operations 1000000] [--paillier]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from spuvm.he.paillier import Paillier
from spuvm.he.parameters import parameters
from spuvm.he.rlwe import Rlwe

RANGE = 1000


def rate(count: int, compute: Callable[[], Any]) -> tuple[float, Any]:
    """Numbers a second of processor time, the best of three."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        out = compute()
        seconds.append(time.process_time() - start)
    return count / min(seconds), out


def rates(name: str, scheme: Any, count: int) -> str:
    public, secret = scheme.make_keys()
    rng = np.random.default_rng(0)
    x, y = (scheme.plain(rng.integers(-RANGE, RANGE, count), public) for _ in range(2))
    encrypts, c = rate(count, lambda: scheme.encrypt(x, public))
    adds, _ = rate(count, lambda: scheme.add(c, c, public))
    times, product = rate(count, lambda: scheme.times_plain(c, y, public))
    noise = scheme.fresh + scheme.times_plain_noise
    hides, hidden = rate(count, lambda: scheme.hidden(product, noise, public))
    decrypts, _ = rate(count, lambda: scheme.decrypt(hidden, secret, public))
    size = scheme.cell_bytes(public) / scheme.slots
    speeds = " | ".join(f"{v:,.0f}" for v in (encrypts, adds, times, hides, decrypts))
    return f"| {name} | {speeds} | {size:,.0f} |"


def random_operations(scheme: Any, count: int, width: int) -> int:
    """Sums, differences, products with numbers and plaintexts on `width` elements at once; how many were compared."""
    rng = np.random.default_rng()
    public, secret = scheme.make_keys()
    done = 0
    while done < count:
        x, y, weights = (rng.integers(-RANGE, RANGE, width) for _ in range(3))
        a, b = (scheme.encrypt(scheme.plain(v, public), public) for v in (x, y))
        for kind in rng.choice(["add", "subtract", "number", "plain"], 6):
            factor = int(rng.integers(-5, 6))
            if kind == "add":
                a, x = scheme.add(a, b, public), x + y
            elif kind == "subtract":
                a, x = scheme.add(a, scheme.negate(b, public), public), x - y
            elif kind == "number":
                a, x = scheme.times_number(a, factor, public), x * factor
            else:
                a, x = scheme.add_plain(a, scheme.plain(y, public), public), x + y
        a, x = scheme.times_plain(a, scheme.plain(weights, public), public), x * weights
        found = scheme.integers(scheme.decrypt(a, secret, public), 1 << 40, public)[:width]
        if (found != x).any():
            raise SystemExit(f"{np.count_nonzero(found != x)} of {width} results differ from plaintext")
        done += 7 * width
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=0)
    parser.add_argument("--paillier", action="store_true")
    options = parser.parse_args()
    print(
        "| scheme | encrypt | add | times plaintext | hide | decrypt | bytes a number |\n|---|---|---|---|---|---|---|"
    )
    for degree in (8192, 16384):
        print(rates(f"rlwe {degree}", Rlwe(parameters(degree)), 4 * degree))
    if options.paillier:
        print(rates("paillier 2048", Paillier(2048), 40))
    if options.operations:
        done = random_operations(Rlwe(parameters(8192)), options.operations, 8000)
        print(f"{done:,} operations on elements equal plaintext")


if __name__ == "__main__":
    main()
