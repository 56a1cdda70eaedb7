"""How the programs of this folder are run: simulated, as processes over TLS, or one party alone.

python examples/programs/kmeans.py                                     all in this process, ABY3
python examples/programs/kmeans.py --protocol semi2k [--parties 5]     two parties, or more, and a dealer
python examples/programs/kmeans.py --network [--protocol semi2k]       a process per party, mutual TLS
python examples/programs/kmeans.py --as alice --config cluster.toml    one party; likewise the others
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import spuvm as spu
from spuvm.network import Scratch, make_run_folder, run_parties
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.protocols.registered import rank_names

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
PARTIES = {"aby3": 3, "semi2k": 2}  # if not said otherwise


@dataclass(frozen=True)
class Measure:
    """One figure of a result, secure and in the clear, and how far they may be apart."""

    name: str
    secure: float
    clear: float
    limit: float

    @property
    def holds(self) -> bool:
        return abs(self.secure - self.clear) <= self.limit


@dataclass(frozen=True)
class Program:
    """`function` is plain JAX. `arguments` makes each argument, which is private to its owner.

    `measures` compares the revealed result with that of the same function run by JAX in the clear.
    """

    function: Callable[..., Any]
    owners: Mapping[str, str]
    arguments: Callable[[], Mapping[str, Any]]
    measures: Callable[[Any, Any], list[Measure]]

    def in_the_clear(self) -> Any:
        """What JAX gives on all arguments: only a demonstration can do that."""
        values = self.arguments()
        return jax.tree.map(np.asarray, jax.jit(self.function)(*(values[name] for name in self.owners)))

    def on(self, machine: Any) -> Any:
        """Run on a machine; everyone sees the result. Each argument is made at its owner alone."""
        inputs = [spu.PYU(owner)(lambda name=name: self.arguments()[name])() for name, owner in self.owners.items()]
        return spu.reveal(machine(self.function)(*inputs))


def simulate(program: Program, protocol: str, parties: int | None = None) -> list[Measure]:
    """All parties in this process."""
    names = NAMES[: parties or PARTIES[protocol]]
    spu.init(parties=names, address="local")
    try:
        result = program.on(_machine(protocol, names))
    finally:
        spu.shutdown()
    return program.measures(result, program.in_the_clear())


def be(program: Program, party: str, config: str) -> list[Measure]:
    """One party of a network, or its dealer."""
    spu.init(party=party, config=config)
    cluster = load_cluster(config).config
    try:
        result = program.on(_machine(cluster.protocol, cluster.parties))
    finally:
        spu.shutdown()
    return program.measures(result, program.in_the_clear()) if party == "alice" else []


def _machine(protocol: str, parties: Sequence[str]) -> Any:
    return spu.SPU(spu.utils.testing.cluster_def(list(parties), {"protocol": protocol}))


def network(file: str, protocol: str, parties: int | None) -> int:
    """A process per party, with certificates made for this run; alice prints."""

    def show(party: str, stream: str, line: str) -> None:
        if party == "alice" or stream == "stderr":
            print(line, file=getattr(sys, stream), flush=True)

    described = spu.Config(protocol=protocol, parties=NAMES[: parties or PARTIES[protocol]])
    with Scratch() as folder:
        config = make_run_folder(folder, described)
        commands = {p: [sys.executable, file, "--as", p, "--config", str(config)] for p in rank_names(described)}
        outcomes = run_parties(commands, on_line=show)
    return max(o.status for o in outcomes.values())


def print_table(measures: list[Measure], seconds: float) -> None:
    width = max(len(m.name) for m in measures)
    print(f"{'':{width}}  {'secure':>12}  {'in the clear':>12}  {'difference':>10}  {'allowed':>8}")
    for m in measures:
        difference = abs(m.secure - m.clear)
        print(f"{m.name:{width}}  {m.secure:12.6f}  {m.clear:12.6f}  {difference:10.2g}  {m.limit:8.2g}")
    print(f"{seconds:.1f} s, compiling included", flush=True)


def main(program: Program, file: str, description: str | None) -> int:
    """The command line of a program: its exit status is 0 if all measures hold."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--protocol", choices=sorted(PARTIES), default="aby3", help="(%(default)s)")
    parser.add_argument("--parties", type=int, choices=range(2, len(NAMES) + 1), help="how many, under semi2k (2)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--network", action="store_true", help="all parties as local processes over mutual TLS")
    how.add_argument("--as", dest="party", help="be this party; needs --config")
    parser.add_argument("--config", help="the cluster file that `spuvm certificates` wrote")
    options = parser.parse_args()
    if bool(options.party) != bool(options.config):
        parser.error("--as and --config belong together")
    if options.parties and (options.protocol != "semi2k" or options.party):
        parser.error("--parties belongs to --protocol semi2k; a party's cluster file says how many there are")
    start = time.perf_counter()
    try:
        if options.network:
            return network(file, options.protocol, options.parties)
        if options.party:
            measures = be(program, options.party, options.config)
        else:
            measures = simulate(program, options.protocol, options.parties)
    except spu.errors.SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    if measures:
        print_table(measures, time.perf_counter() - start)
    return 0 if all(m.holds for m in measures) else 1
