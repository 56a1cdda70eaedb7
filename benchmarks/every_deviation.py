"""A party that deviates: every message of every kernel below changed in turn; and honest runs, which never stop.

    python benchmarks/every_deviation.py [--honest 10000 | --small 100000 | --planned 1000] [--only PROGRAM] [--every 1]

Under `rep4` and `aby3_malicious`, for each party: each of its messages is flipped in one bit, replaced, repeated,
reordered, zeroed and dropped, one at a time (inputs and reveals are messages, too). After each, somebody must have
stopped, and no honest party may hold another result than without. Then honest runs under fresh keys. `--planned`
changes messages together, that cancel, repeat older ones or go to the wrong receivers (tests/adaptive.py), by chance.
"""

from __future__ import annotations

import argparse
import resource
import secrets
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from adaptive import STRATEGIES, outcome
from deviations import MANIPULATIONS, Deviations, dropped

import spuvm as spu
from spuvm.runtime.engine.random import derive_key
from spuvm.runtime.errors import SpuError
from spuvm.runtime.link.memory_link import memory_links
from spuvm.runtime.machine.executor import Executor, Streams
from spuvm.runtime.machine.program import Holders
from spuvm.runtime.protocols.registered import PROTOCOLS

X = np.array([1.5, -2.25, 0.5, 3.0, 0.25, 1.0, -1.0, 8.0], np.float32)
Y = np.array([0.75, 4.0, 0.5, -1.0, 1.0, 1.0, 2.0, 0.25], np.float32)


def _words(x: Any, y: Any) -> Any:
    a, b = (v.astype(jnp.int32) for v in (x, y))
    return a & b, (a | b).astype(jnp.float32), (a ^ b) + b


def _shown_between(x: Any, y: Any) -> Any:
    z = x * y
    first = spu.reveal(jnp.where(x < y, z, y))
    return first, spu.reveal(z == x), (z + x).sum()


def _loop(x: Any, y: Any) -> Any:
    return jax.lax.scan(lambda z, _: (z * y, spu.reveal(z)), x, None, length=2)


PROGRAMS: dict[str, Any] = {
    "products, comparisons and reveals": _shown_between,
    "matrix products": lambda x, y: (x.reshape(4, 2) @ y.reshape(2, 4), x @ y),
    "bits of words": _words,
    "greatest and sorted": lambda x, y: (jnp.max(x), jnp.sort(y[:4])),
    "division and exponentials": lambda x, y: (x[:2] / y[:2], jnp.exp(x[2:4])),
    "reveals in a loop": _loop,
}


def every_message(run: Deviations, every: int) -> tuple[int, int]:
    """Deviations tried, and those that changed nothing (bits that fill up a byte, a message like the one before)."""
    tried = nothing = 0
    for how in (*MANIPULATIONS, dropped):
        for cheater, at in run.messages[:: every if how is not dropped else 8 * every]:  # each takes half a second
            nothing += run.unseen(cheater, at, how, padded=True)
            tried += 1
    return tried, nothing


def _fresh(number: int, holders: Holders) -> bytes:
    return derive_key(number.to_bytes(16, "big"), repr(holders))


def deviations(function: Any, name: str) -> Deviations:
    """The function on X and Y, under a protocol."""
    parties = PROTOCOLS[name].parties
    return Deviations(function, (X, Y), name, PROTOCOLS[name].build(parties, 0).algebra, parties)


def _small(x: Any, y: Any) -> Any:
    """Two products, shown: a proof and a check."""
    return spu.reveal(x[:2] * y[:2])


def small_runs(count: int, name: str) -> None:
    """One after another over the same links, masks fresh in each: nobody stops, and all are shown what is right."""
    run = deviations(_small, name)
    links = memory_links(tuple(f"party{i}" for i in range(run.n)), timeout=60)
    key, programs = secrets.token_bytes(16), run.programs

    def party(rank: int) -> list[Any]:
        executor = Executor(Streams(lambda holders: derive_key(key, repr(holders)), rank), links[rank])
        slots = [s for port in run.made.inputs for s in port.slots]
        inputs = [x if rank in s.holders else None for s, x in zip(slots, run.inputs, strict=True)]
        return [[np.array(x) for x in executor.run(programs[rank], inputs)] for _ in range(count)]

    with ThreadPoolExecutor(run.n) as pool:
        parties = list(pool.map(party, range(run.n)))
    for shown in zip(*parties, strict=True):
        assert all(np.array_equal(other[0], shown[0][0]) for other in shown)
        assert np.abs(shown[0][0].view(np.int64) - np.rint(X[:2] * Y[:2] * 2.0**18)).max() <= 2, shown[0]


def honest_runs(count: int, name: str) -> None:
    """Each under fresh keys: nobody stops, and all are shown the same."""
    run = deviations(_shown_between, name)
    for number in range(count):
        run.keys = partial(_fresh, number)
        results, _ = run.run(None, 0)
        for got in results:
            assert not isinstance(got, SpuError), got
            for shown, first in zip(got[:2], results[0][:2], strict=True):
                np.testing.assert_array_equal(shown, first)


def planned(count: int, name: str, function: Any) -> Counter[str]:
    """So many plans of a party that deviates, each drawn anew: how they ended."""
    run, rng = deviations(function, name), np.random.default_rng()
    found: Counter[str] = Counter()
    for _ in range(count):
        cheater, strategy = int(rng.integers(run.n)), str(rng.choice(list(STRATEGIES)))
        messages = sum(p == cheater for p, _ in run.messages)
        chosen = tuple(sorted(rng.choice(messages, 2, replace=False).tolist()))
        ended = outcome(run, cheater, strategy, chosen, int(rng.integers(1, 2**62)))
        assert ended in ("stopped", "nothing"), (name, cheater, strategy, chosen, ended)
        found[ended] += 1
    return found


def tried(function: Any, name: str, options: argparse.Namespace) -> str:
    """How the deviations of a program ended, single ones or planned ones."""
    if options.planned:
        ends = ", ".join(f"{n} {end}" for end, n in sorted(planned(options.planned, name, function).items()))
        return f"{options.planned} plans, {ends}"
    run = deviations(function, name)
    number, nothing = every_message(run, options.every)
    return (
        f"{len(run.messages)} messages, {number} deviations, {number - nothing} stopped all, {nothing} changed nothing"
    )


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--honest", type=int, default=10_000, help="honest runs of each protocol")
    parser.add_argument("--small", type=int, default=0, help="nothing but so many honest runs of a small program")
    parser.add_argument("--only", choices=PROGRAMS, help="one program")
    parser.add_argument("--every", type=int, default=1, help="of so many messages one")
    parser.add_argument("--planned", type=int, default=0, help="nothing but so many plans of each program")
    options = parser.parse_args()
    for name in ("rep4", "aby3_malicious"):
        if options.small:
            before = _seconds()
            small_runs(options.small, name)
            used = _seconds() - before
            print(
                f"{name}: {options.small} small honest runs, none stopped; {used:.0f} s of processor time", flush=True
            )
            continue
        for what, function in PROGRAMS.items():
            if options.only not in (None, what):
                continue
            before = _seconds()
            ended = tried(function, name, options)
            print(f"{name}, {what}: {ended}; {_seconds() - before:.0f} s of processor time", flush=True)
        if options.planned:
            continue
        before = _seconds()
        honest_runs(options.honest, name)
        used = _seconds() - before
        print(f"{name}: {options.honest} honest runs, none stopped; {used:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
