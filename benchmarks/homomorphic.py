"""Numbers a second and core of the homomorphic schemes, and random operations against whole numbers.

python benchmarks/homomorphic.py [--operations 1000000] [--paillier] [--peer-python PATH]

PATH: a Python of its own environment with `pip install tenseal==0.3.18`. TenSEAL takes and gives lists of numbers.
"""

from __future__ import annotations

import argparse
import pickle
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spuvm.he.paillier import Paillier
from spuvm.he.parameters import parameters
from spuvm.he.rlwe import Rlwe

RANGE = 1000
WIDTH = 8192  # all slots: a number in each of them is one to SEAL, too


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


def random_programs(count: int, width: int) -> list[dict[str, Any]]:
    """So many operations or more on `width` elements at once: sums, differences, products with numbers and plaintexts.

    Each program takes x through its steps, six of them, and multiplies by weights.
    """
    rng = np.random.default_rng()
    programs: list[dict[str, Any]] = []
    while 7 * width * len(programs) < count:
        x, y, weights = (rng.integers(-RANGE, RANGE, width) for _ in range(3))
        kinds = rng.choice(["add", "subtract", "number", "plain"], 6)
        factors = rng.choice([-5, -4, -3, -2, -1, 1, 2, 3, 4, 5], 6)  # SEAL takes no product with 0
        steps = [(str(kind), int(factor)) for kind, factor in zip(kinds, factors)]
        programs.append({"x": x, "y": y, "weights": weights, "steps": steps})
    return programs


def in_the_clear(program: Mapping[str, Any]) -> Any:
    x, y = program["x"], program["y"]
    for kind, factor in program["steps"]:
        x = {"add": x + y, "subtract": x - y, "number": x * factor, "plain": x + y}[kind]
    return x * program["weights"]


def encrypted(scheme: Any, keys: tuple[Any, Any], program: Mapping[str, Any]) -> Any:
    public, secret = keys
    y = scheme.plain(program["y"], public)
    a, b = scheme.encrypt(scheme.plain(program["x"], public), public), scheme.encrypt(y, public)
    for kind, factor in program["steps"]:
        if kind == "add":
            a = scheme.add(a, b, public)
        elif kind == "subtract":
            a = scheme.add(a, scheme.negate(b, public), public)
        elif kind == "number":
            a = scheme.times_number(a, factor, public)
        else:
            a = scheme.add_plain(a, y, public)
    a = scheme.times_plain(a, scheme.plain(program["weights"], public), public)
    return scheme.integers(scheme.decrypt(a, secret, public), 1 << 40, public)[: len(program["x"])]


def compare(name: str, found: Sequence[Any], programs: Sequence[Mapping[str, Any]]) -> None:
    wrong = sum(int(np.count_nonzero(np.asarray(f) != in_the_clear(p))) for f, p in zip(found, programs, strict=True))
    if wrong:
        raise SystemExit(f"{wrong} results of {name} differ from plaintext")


def by_tenseal(python: str, programs: Sequence[Mapping[str, Any]]) -> tuple[list[Any], dict[str, float]]:
    """What TenSEAL makes of the programs, and its numbers a second."""
    with tempfile.TemporaryDirectory() as folder:
        asked, said = Path(folder, "programs"), Path(folder, "results")
        asked.write_bytes(pickle.dumps(programs))
        peer = Path(__file__).with_name("tenseal_peer.py")
        subprocess.run([python, str(peer), str(asked), str(said)], check=True, timeout=600)
        found: tuple[list[Any], dict[str, float]] = pickle.loads(said.read_bytes())
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=0)
    parser.add_argument("--paillier", action="store_true")
    parser.add_argument("--peer-python", help="a Python that has tenseal and numpy, to compare with TenSEAL")
    options = parser.parse_args()
    print(
        "| scheme | encrypt | add | times plaintext | hide | decrypt | bytes a number |\n|---|---|---|---|---|---|---|"
    )
    for degree in (8192, 16384):
        print(rates(f"rlwe {degree}", Rlwe(parameters(degree)), 4 * degree))
    if options.paillier:
        print(rates("paillier 2048", Paillier(2048), 40))
    programs = random_programs(options.operations, WIDTH)
    if options.peer_python:
        found, theirs = by_tenseal(options.peer_python, programs)
        compare("TenSEAL", found, programs)
        columns = ("encrypt", "add", "times plaintext", "hide", "decrypt", "bytes a number")
        print(f"| TenSEAL's bfv 8192 | {' | '.join(f'{theirs[c]:,.0f}' if c in theirs else '' for c in columns)} |")
    if programs:
        scheme = Rlwe(parameters(8192))
        keys = scheme.make_keys()
        compare("rlwe", [encrypted(scheme, keys, program) for program in programs], programs)
        also = " and TenSEAL's" if options.peer_python else ""
        print(f"{7 * WIDTH * len(programs):,} operations on elements equal plaintext{also}")


if __name__ == "__main__":
    main()
