"""`python -m conformance run` runs all of the table; `docs` writes docs/operations.md, docs/precision.md and plots."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from conformance import operations, precision
from conformance.whole import conformance
from spuvm.runtime.engine.tier import TIERS

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
POINTS = 1_000_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("command", choices=("run", "docs"))
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--sample", action="store_true", help="every dtype, shape and pattern of a case once")
    parser.add_argument(
        "--tier",
        action="append",
        choices=("numpy", *TIERS),
        help="what runs stages: NumPy (the quickest for programs that run once), the vector engine, machine code, XLA "
        "(slow); given several times, the shares' randomness is the same and so are the results' bits",
    )
    parser.add_argument("--only", action="append", default=[], help="a configuration, like aby3/64")
    parser.add_argument("--points", type=int, default=POINTS, help="of each sweep")
    options = parser.parse_args()
    if options.command == "docs":
        operations.write(DOCS)
        precision.write(DOCS, options.points, options.jobs)
        return 0
    failed = conformance(options.jobs, options.sample, options.tier or ["numpy"], options.only)
    return min(1, failed + precision.bounds(options.points, options.jobs))


if __name__ == "__main__":
    sys.exit(main())
