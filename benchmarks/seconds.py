"""Predicted and measured seconds of four programs, over links that are shaped here: `make seconds`.

    python benchmarks/seconds.py                                   demo, LeNet, a sort of 10,000, a boosted tree
    python benchmarks/seconds.py --link 25ms,100Mbit --only sort

Measured: the second of two runs of three processes on this machine, the party that takes longest. Predicted: what
`cost.seconds(link).together` says before. Both want a machine that does nothing else. Exit status 1 if one is further
off than `--within`.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import spuvm as spu
from spuvm.compiler.compile import Program, compile_function
from spuvm.compiler.seconds import Speed
from spuvm.data import Column
from spuvm.ml.boosting import one_round, rules_for
from spuvm.ml.layout import Layout
from spuvm.ml.parameters import Parameters
from spuvm.network import make_run_folder, run_parties
from spuvm.runtime.config import Config
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.link.tls.connect import connect
from spuvm.runtime.machine.session import Session
from spuvm.shaping import shaped
from spuvm.vm import VM

PARTIES = ("alice", "bob", "carol")
LINKS = ("1ms,1Gbit", "25ms,100Mbit")
LIMIT = 300.0  # seconds
TOOK = re.compile(r"took ([\d.]+) s")
Made = tuple[Callable[..., Any], Mapping[str, tuple[Any, int]]]  # a function, and its arguments with their owners
DRAW = np.random.default_rng(0)


def demo() -> Made:
    """What `make demo` runs."""
    path = Path(__file__).resolve().parent.parent / "examples" / "hospitals" / "train.py"
    spec = importlib.util.spec_from_file_location("hospitals", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    features = {p: (DRAW.normal(5, 1, (569, 10)).astype(np.float32), i) for i, p in enumerate(PARTIES)}
    return module.predict, features | {"y": (DRAW.integers(0, 2, 569).astype(np.float32), 2)}


def lenet() -> Made:
    """Eight images of alice's through LeNet-5, whose weights are bob's."""
    shapes = {"c1": (5, 5, 1, 6), "c2": (5, 5, 6, 16), "d1": (400, 120), "d2": (120, 84), "d3": (84, 10)}

    def network(images: Any, c1: Any, c2: Any, d1: Any, d2: Any, d3: Any) -> Any:
        x = _pooled(_convolved(images, c1, "SAME"))
        x = _pooled(_convolved(x, c2, "VALID")).reshape(len(images), -1)
        return jax.nn.relu(jax.nn.relu(x @ d1) @ d2) @ d3

    weights = {n: (DRAW.normal(0, 1 / np.sqrt(np.prod(s[:-1])), s).astype(np.float32), 1) for n, s in shapes.items()}
    return network, {"images": (DRAW.random((8, 28, 28, 1)).astype(np.float32), 0), **weights}


def _convolved(x: Any, kernel: Any, padding: str) -> Any:
    return jax.nn.relu(lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")))


def _pooled(x: Any) -> Any:
    return lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") * 0.25


def sort() -> Made:
    """Ten thousand sums of two parties' numbers."""
    x, y = DRAW.normal(size=(2, 10_000)).astype(np.float32)
    return lambda x, y: jnp.sort(x + y), {"x": (x, 0), "y": (y, 1)}


def tree() -> Made:
    """A boosted tree of depth 4 on 5,000 rows of 12 columns."""
    rows, features, bins, depth = 5_000, 12, 16, 4
    held = [[Column(f"x{i}", p, "float", False) for i in range(k, features, 3)] for k, p in enumerate(PARTIES)]
    layout = Layout(PARTIES, tuple(map(tuple, held)), bins)
    parameters = Parameters(max_depth=depth, max_bin=bins)
    step = one_round(layout, rules_for(parameters, layout, rows, False), parameters.objective)
    allowed = np.ones((depth, len(layout.columns)), np.int8)

    def grown(a: Any, b: Any, c: Any, target: Any) -> Any:
        labels = {"target": target, "threshold": jnp.float32(0.0) * target[0, 0]}
        return step(spu.masked([a, b, c]), jnp.zeros((rows, 1)), labels, {"allowed": allowed})

    matrices = {p: (DRAW.random((rows, w)) < 0.5, i) for i, (p, w) in enumerate(zip("abc", layout.widths))}
    return grown, matrices | {"target": (DRAW.integers(0, 2, (rows, 1)).astype(np.float32), 2)}


PROGRAMS: dict[str, Callable[[], Made]] = {"demo": demo, "lenet": lenet, "sort": sort, "tree": tree}


def compiled(name: str, folder: Path) -> Program:
    """The program; its file and its parties' data are in the folder."""
    function, arguments = PROGRAMS[name]()
    values, owners = zip(*arguments.values())
    program = compile_function(function, values, list(owners), Config("aby3", 64, 18, PARTIES))
    program.save(folder / f"{name}.spux")
    np.savez(folder / f"{name}.npz", **{str(i): v for i, v in enumerate(values)})
    return program


def be(party: str, config: Path, file: Path) -> None:
    """One party: two runs in one session; the second's seconds are printed."""
    program, cluster = spu.load(file), load_cluster(config)
    rank = cluster.rank(party)
    with np.load(file.with_suffix(".npz")) as data:
        params = program.module.body.params
        values = [data[str(i)] if p.type.visibility == rank else None for i, p in enumerate(params)]
    program.party(rank).prepare()
    with connect(cluster, party, LIMIT) as link:
        vm = VM(Session(program.config, rank, link))
        for run in ("first", "second"):
            link.agree(f"start of the {run} run", b"")
            start = time.perf_counter()
            for x in vm.run(program, values):
                x.block_until_ready()
            seconds = time.perf_counter() - start
        link.agree("end", b"")
    print(f"took {seconds:.4f} s", flush=True)


def measured(program: Program, file: Path, link: str) -> float:
    """Seconds of the slowest party."""
    found: list[float] = []

    def listen(party: str, stream: str, line: str) -> None:
        if match := TOOK.search(line):
            found.append(float(match[1]))

    with tempfile.TemporaryDirectory(prefix="spuvm-seconds-") as name:
        cluster = make_run_folder(Path(name), program.config, timeout=LIMIT)
        with shaped(cluster, Speed.parse(link)) as files:
            me = [sys.executable, __file__]
            run_parties({p: [*me, "--as", p, "--config", str(files[p]), str(file)] for p in PARTIES}, on_line=listen)
    return max(found)


def table(names: list[str], links: list[str], within: float) -> bool:
    """Print it; whether all are near enough."""
    print(f"{'program':8} {'link':14} {'rounds':>7} {'MB':>7} {'predicted':>10} {'measured':>9} {'off':>6}")
    good = True
    with tempfile.TemporaryDirectory(prefix="spuvm-seconds-") as folder:
        for name in names:
            program = compiled(name, Path(folder))
            for link in links:
                says = program.cost.seconds(link).together
                took = measured(program, Path(folder) / f"{name}.spux", link)
                off = says / took - 1
                good &= abs(off) <= within
                sent = max(map(int, program.cost.bytes_sent)) / 1e6
                line = f"{name:8} {link:14} {program.cost.rounds:7,} {sent:7.1f} {says:10.3f} {took:9.3f} {off:+6.0%}"
                print(line, flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--as", dest="party", help=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=PROGRAMS, action="append", help="This program, and others named so.")
    parser.add_argument("--link", action="append", help="Over this link, and others named so.")
    parser.add_argument("--within", type=float, default=0.15, help="Off by no more than this part.")
    given = parser.parse_args()
    if given.party:
        be(given.party, given.config, given.file)
        return 0
    return not table(given.only or list(PROGRAMS), given.link or list(LINKS), given.within)


if __name__ == "__main__":
    sys.exit(main())
