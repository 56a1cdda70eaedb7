"""`python -m conformance run` runs all of the table; `docs` writes docs/operations.md, docs/precision.md and plots."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import sweeps

from conformance import operations, precision
from conformance.whole import conformance

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
POINTS = 1_000_000
FRACTIONS = (8, 18, 22)


def bounds(points: int) -> int:
    """The stated bounds on dense sweeps of the domains; how many do not hold."""
    broken = 0
    for name in sweeps.SWEEPS:
        for f, protocol in itertools.product(FRACTIONS, ("aby3", "semi2k")):
            measured = sweeps.measure(name, f, points, protocol=protocol)
            if measured.excess > 0:
                broken += 1
                print(f"FAILED {name} ({protocol}, {f} fraction bits): {measured.share:.2f} of what is stated")
    print(f"{len(sweeps.SWEEPS)} functions, {FRACTIONS} fraction bits, {points:,} points each: {broken} bounds broken")
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("command", choices=("run", "docs"))
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--sample", action="store_true", help="every dtype, shape and pattern of a case once")
    parser.add_argument("--compiled", action="store_true", help="stages compiled by XLA, not run by NumPy: slow")
    parser.add_argument("--only", action="append", default=[], help="a configuration, like aby3/64")
    parser.add_argument("--points", type=int, default=POINTS, help="of each sweep")
    options = parser.parse_args()
    if options.command == "docs":
        operations.write(DOCS)
        precision.write(DOCS, options.points)
        return 0
    return min(1, conformance(options.jobs, options.sample, options.compiled, options.only) + bounds(options.points))


if __name__ == "__main__":
    sys.exit(main())
