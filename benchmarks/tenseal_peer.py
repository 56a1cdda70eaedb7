"""TenSEAL's side of benchmarks/homomorphic.py, which runs it by a Python that has tenseal and numpy, and not spuvm.

    PATH/python benchmarks/tenseal_peer.py PROGRAMS RESULTS

PROGRAMS: a pickled list of programs of whole numbers, see `random_programs`. RESULTS: what BFV makes of each, and
numbers a second of processor time. Degree 8192 and TenSEAL's own modulus for it; plaintexts modulo a prime of 42 bits,
the widest it takes there.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

tenseal: Any = importlib.import_module("tenseal")
DEGREE = 8192
BITS = 42


def plain_modulus() -> int:
    """The largest prime of that many bits with slots."""
    t = (1 << BITS) + 1
    while not all(pow(a, t - 1, t) == 1 for a in (2, 3, 5, 7, 11, 13, 17)) or t >= 1 << BITS:
        t -= 2 * DEGREE
    return t


def rate(compute: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(5):
        start = time.process_time()
        compute()
        seconds.append(time.process_time() - start)
    return DEGREE / min(seconds)


def rates(context: Any) -> dict[str, float]:
    x = np.random.default_rng(0).integers(-1000, 1000, DEGREE).tolist()
    c = tenseal.bfv_vector(context, x)
    return {
        "encrypt": rate(lambda: tenseal.bfv_vector(context, x)),
        "add": rate(lambda: c + c),
        "times plaintext": rate(lambda: c * x),
        "decrypt": rate(c.decrypt),
        "bytes a number": len(c.serialize()) / DEGREE,
    }


def computed(context: Any, program: dict[str, Any]) -> list[int]:
    """Ciphertexts of x and y through the steps of a program, decrypted."""
    a, b = (tenseal.bfv_vector(context, program[name].tolist()) for name in "xy")
    for kind, factor in program["steps"]:
        if kind == "add":
            a = a + b
        elif kind == "subtract":
            a = a - b
        elif kind == "number":
            # A number below 0 would cost 42 bits of noise there; after two of them what is decrypted is wrong.
            a = a * ([abs(factor)] * len(program["x"]))
            a = a - (a + a) if factor < 0 else a
        else:
            a = a + program["y"].tolist()
    found: list[int] = (a * program["weights"].tolist()).decrypt()
    return found


def main() -> None:
    programs, results = map(Path, sys.argv[1:])
    context = tenseal.context(
        tenseal.SCHEME_TYPE.BFV, poly_modulus_degree=DEGREE, plain_modulus=plain_modulus(), n_threads=1
    )
    found = [computed(context, program) for program in pickle.loads(programs.read_bytes())]
    results.write_bytes(pickle.dumps((found, rates(context))))


if __name__ == "__main__":
    main()
