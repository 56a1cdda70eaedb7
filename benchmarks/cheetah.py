"""Two parties and nobody else: SEMI2K by oblivious transfer over mutual TLS, and SPU's Cheetah over plain TCP, in turn.

    python benchmarks/cheetah.py --peer-python PATH [--size 10000] [--matrix 64] [--repeat 3] [--only less]

Two processes of either on this machine, from shares to shares, compiled and warm; ours make what they draw of oblivious
transfer within the time, as Cheetah does. Seconds are the best of `repeat` runs, processor seconds those of a party, on
average. PATH is a Python with spu==0.9.5, jax[cpu]==0.4.34, numpy<2 and flax<0.10.
"""

from __future__ import annotations

import argparse
import json
import pickle
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

NAMES = ("alice", "bob")
PATIENCE = 600


def regression(x: Any, y: Any) -> Any:
    """Logistic regression on 569 x 30, ten steps."""
    w = jnp.zeros(x.shape[1])
    for _ in range(10):
        w = w - 0.1 * x.T @ (jax.nn.sigmoid(x @ w) - y) / len(y)
    return w


def operations(size: int, matrix: int) -> dict[str, tuple[Callable[..., Any], list[np.ndarray]]]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, size)).astype(np.float32)
    a, b = rng.normal(size=(2, matrix, matrix)).astype(np.float32)
    table, labels = rng.normal(size=(569, 30)).astype(np.float32), (rng.random(569) < 0.5).astype(np.float32)
    return {
        "multiply": (lambda x, y: x * y, [x, y]),
        "less": (lambda x, y: x < y, [x, y]),
        "matmul": (lambda x, y: x @ y, [a, b]),
        "logistic_regression": (regression, [table, labels]),
    }


# One party of either, in a process of its own ------------------------------------------------------------


def timed(run: Callable[[], Any], repeat: int) -> list[float]:
    """Seconds of the best run, and processor seconds of all, on average; one run before is not timed."""
    run()
    took, work = [], time.process_time()
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return [min(took), (time.process_time() - work) / repeat]


def ours(party: str, cluster: str, function: Any, inputs: list[np.ndarray], repeat: int) -> list[float]:
    import spuvm as spu

    spu.init(party=party, config=cluster)
    device = spu.SPU(spu.utils.testing.cluster_def(list(NAMES)))
    shared = [spu.PYU(name)(lambda x=x: x)().to(device) for name, x in zip(NAMES, inputs)]
    compiled = device(function)

    def run() -> None:
        for leaf in jax.tree.leaves(compiled(*shared)):
            leaf.block_until_ready()

    return timed(run, repeat)


def cheetah(
    rank: int, folder: str, addresses: list[str], function: Any, inputs: list[np.ndarray], repeat: int
) -> list[float]:
    from spu import api, libspu  # type: ignore[import-not-found]
    from spu.utils import frontend  # type: ignore[import-not-found]

    description = libspu.link.Desc()
    description.recv_timeout_ms = description.http_timeout_ms = 1000 * PATIENCE
    for i, address in enumerate(addresses):
        description.add_party(f"id_{i}", address)
    link = libspu.link.create_brpc(description, rank)
    config = libspu.RuntimeConfig(protocol=libspu.ProtocolKind.CHEETAH, field=libspu.FieldType.FM64)
    names = [f"in{i}" for i in range(len(inputs))]
    secret = libspu.Visibility.VIS_SECRET
    executable = frontend.compile(
        frontend.Kind.JAX,
        lambda *args: function(*args),
        inputs,
        {},
        names,
        [secret] * len(inputs),
        lambda outputs: [f"out{i}" for i in range(len(outputs))],
        (),
        None,
        libspu.CompilerOptions(),
    )[0]
    mine = _shares(Path(folder), rank, lambda: [api.Io(2, config).make_shares(x, secret) for x in inputs])
    runtime = api.Runtime(link, config)
    for name, share in zip(names, mine):
        runtime.set_var(name, share)
    return timed(lambda: runtime.run(executable), repeat)


def _shares(folder: Path, rank: int, make: Callable[[], Any]) -> list[Any]:
    """Of each input this party's share: party 0 deals them, by a file."""
    path = folder / "shares"
    if rank == 0:
        made = make()
        (folder / "unfinished").write_bytes(pickle.dumps([of[1] for of in made]))
        (folder / "unfinished").rename(path)
        return [of[0] for of in made]
    until = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"party 0 put no shares at {path} within {PATIENCE} s")
        time.sleep(0.05)
    given: list[Any] = pickle.loads(path.read_bytes())
    return given


# Both, in turn -----------------------------------------------------------------------------------------


def _ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    found = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return found


def measured(commands: list[list[str]]) -> list[float]:
    started = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True) for c in commands]
    try:
        said = [p.communicate(timeout=PATIENCE)[0] for p in started]
    finally:
        for p in started:
            p.kill()
    if any(p.returncode for p in started):
        sys.exit("a process failed, see above; what `--peer-python` needs is said in `--help`.")
    seconds, work = zip(*(json.loads(s.splitlines()[-1]) for s in said))
    return [max(seconds), sum(work) / len(work)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--matrix", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", action="append", choices=[*operations(1, 1)], help="an operation")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    found = operations(options.size, options.matrix)
    if options.worker:
        which, what, who, *rest = options.worker
        function, inputs = found[what]
        done = (
            ours(who, rest[0], function, inputs, options.repeat)
            if which == "ours"
            else cheetah(int(who), rest[0], rest[1:], function, inputs, options.repeat)
        )
        print(json.dumps(done))
        return
    from spuvm.runtime.link.certificates import make_cluster

    sizes = [f"--size={options.size}", f"--matrix={options.matrix}", f"--repeat={options.repeat}"]
    print("| | | s | s, processor, a party |\n|---|---|--:|--:|")
    for what in options.only or found:
        with tempfile.TemporaryDirectory() as folder:
            cluster = make_cluster(Path(folder), NAMES, timeout_seconds=PATIENCE, protocol="semi2k_ot")
            worker = [*sizes, "--worker"]
            us = [[sys.executable, __file__, *worker, "ours", what, name, str(cluster)] for name in NAMES]
            addresses = [f"127.0.0.1:{port}" for port in _ports(2)]
            them = [
                [options.peer_python, __file__, *worker, "cheetah", what, str(i), folder, *addresses] for i in range(2)
            ]
            for name, commands in (("spuvm, `semi2k_ot`", us), ("SPU 0.9.5, Cheetah", them)):
                seconds, work = measured(commands)
                print(f"| {what} | {name} | {seconds:.3f} | {work:.3f} |", flush=True)


if __name__ == "__main__":
    main()
