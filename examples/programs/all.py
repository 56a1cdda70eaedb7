"""Run every program of this folder under ABY3 and SEMI2K, simulated and as processes over TLS.

Takes some minutes; prints a line a run, and fails if a measure of any program does not hold.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("mlp", "cnn", "resnet", "transformer", "kmeans", "pca", "tree", "survival", "black_scholes")


def main() -> int:
    failed = 0
    for name in PROGRAMS:
        for protocol in ("aby3", "semi2k"):
            for network in (False, True):
                command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--protocol", protocol]
                start = time.perf_counter()
                ended = subprocess.run(command + ["--network"] * network, capture_output=True, text=True, check=False)
                seconds = time.perf_counter() - start
                how = "TLS" if network else "simulated"
                verdict = "holds" if ended.returncode == 0 else f"FAILED with status {ended.returncode}"
                print(f"{name:14} {protocol:7} {how:10} {seconds:6.1f} s  {verdict}", flush=True)
                if ended.returncode:
                    print(ended.stdout + ended.stderr)
                    failed += 1
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
