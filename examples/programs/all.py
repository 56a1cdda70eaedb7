"""Run every program of this folder under ABY3 and SEMI2K, simulated and as processes over TLS.

Takes some minutes; prints a line a run, and fails if a measure of any program does not hold. With numbers, as in
`all.py 3 5`: over TLS alone, under SEMI2K, with as many parties beside the dealer.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("mlp", "cnn", "resnet", "transformer", "kmeans", "pca", "tree", "survival", "black_scholes")


def ways(counts: list[str]) -> list[list[str]]:
    """The options of each run of a program."""
    if counts:
        return [["--protocol", "semi2k", "--network", "--parties", n] for n in counts]
    return [["--protocol", protocol, *network] for protocol in ("aby3", "semi2k") for network in ([], ["--network"])]


def main(counts: list[str]) -> int:
    failed = 0
    for name in PROGRAMS:
        for options in ways(counts):
            command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *options]
            start = time.perf_counter()
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds = time.perf_counter() - start
            how = " ".join(word.removeprefix("--") for word in options[1:])
            verdict = "holds" if ended.returncode == 0 else f"FAILED with status {ended.returncode}"
            print(f"{name:14} {how:26} {seconds:6.1f} s  {verdict}", flush=True)
            if ended.returncode:
                print(ended.stdout + ended.stderr)
                failed += 1
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
