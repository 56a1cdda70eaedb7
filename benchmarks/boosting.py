"""Seconds, rounds and bytes of a boosted tree, and how they grow with rows, features and depth.

    python benchmarks/boosting.py                 what the compiler knows in advance: rounds and bytes, nothing runs
    python benchmarks/boosting.py --network       and a training of three processes over TLS: seconds a tree
    python benchmarks/boosting.py --network --frame horizontal        of which each has a third of the rows

Features lie with alice, bob and carol in nearly equal parts, labels with carol; ABY3.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import spuvm as spu
from spuvm.bench.measure import machine as about
from spuvm.data import Column
from spuvm.ml.boosting import one_round, rules_for
from spuvm.ml.layout import Layout
from spuvm.ml.parameters import Parameters
from spuvm.network import make_run_folder, run_parties

PARTIES = ("alice", "bob", "carol")
STEP = re.compile(r"training ([\d.]+) s")
BASE = {"rows": 45_000, "features": 17, "depth": 5, "bins": 32}
PATIENCE = 300.0  # seconds: the first tree is compiled by three processes at once
VARIED = {
    "rows": (11_250, 22_500, 45_000, 90_000),
    "features": (8, 17, 34),
    "depth": (3, 4, 5, 6),
    "bins": (16, 32, 64),
}


def layout_of(features: int, bins: int) -> Layout:
    """Numeric features without missing cells, dealt out to the parties."""
    held = [[Column(f"x{i}", p, "float", False) for i in range(k, features, 3)] for k, p in enumerate(PARTIES)]
    return Layout(PARTIES, tuple(map(tuple, held)), bins)


def cost(rows: int, features: int, depth: int, bins: int) -> tuple[int, float, float]:
    """Rounds of a tree, megabytes sent by the party that sends most, and those that are sent once, before all trees."""
    layout, p = layout_of(features, bins), Parameters(max_depth=depth, max_bin=bins)
    step = one_round(layout, rules_for(p, layout, rows, False), p.objective)
    struct: Any = jax.ShapeDtypeStruct
    secret = spu.secret(struct((rows, 1), np.float32))
    labels = {"target": secret, "threshold": spu.secret(struct((), np.float32))}
    matrices = [spu.private(struct((rows, w), np.bool_), o) for w, o in zip(layout.widths, PARTIES)]
    public = {"allowed": spu.public(np.ones((depth, len(layout.columns)), np.int8))}
    function = spu.jit(lambda x, *rest: step(spu.masked(x), *rest), parties=PARTIES)
    rows_ = function.cost(matrices, secret, labels, public)
    once = sum(np.asarray(r.bytes) for r in rows_.rows if r.op == "mask")
    return rows_.rounds, float((rows_.bytes_sent - once).max()) / 1e6, float(np.max(once)) / 1e6


HEADER = ("rows", "features", "depth", "bins", "rounds a tree", "MB a tree and party", "MB once and party")
Record = dict[str, Any]


def growth() -> list[Record]:
    """The base, and each of its numbers varied; shown as it comes."""
    print("  ".join(f"{h:>{len(h)}}" for h in HEADER))
    out = []
    for name, values in VARIED.items():
        for value in values:
            shape = {**BASE, name: value}
            rounds, each, once = cost(*shape.values())
            out.append(shape | {"rounds": rounds, "each": each, "once": once})
            print("  ".join(f"{c:>{len(h)}}" for h, c in zip(HEADER, cells(out[-1:])[0])), flush=True)
    return out


def cells(records: Sequence[Record]) -> list[list[str]]:
    """A line for each."""
    return [
        [f"{r['rows']:,}", *(str(r[n]) for n in ("features", "depth", "bins")), f"{r['rounds']:,}"]
        + [f"{r[n]:.1f}" for n in ("each", "once")]
        for r in records
    ]


# Networked ----------------------------------------------------------------------------------------------


def table_of(party: str, kind: str) -> spu.data.Frame:
    """The party's columns, or rows, of a table of random numbers."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(BASE["rows"], BASE["features"])).astype(np.float32)
    label = x[:, 0] + x[:, 1] * x[:, 2] > generator.normal(size=BASE["rows"])
    number = PARTIES.index(party)
    if kind == "horizontal":
        mine: dict[str, Any] = {f"x{i}": x[number::3, i] for i in range(BASE["features"])}
        return spu.data.horizontal(
            {p: {**mine, "label": label[number::3]} if p == party else None for p in PARTIES}, missing=False
        )
    mine = {f"x{i}": x[:, i] for i in range(number, BASE["features"], 3)} | {"id": np.arange(BASE["rows"])}
    mine |= {"label": label} if party == "carol" else {}
    return spu.data.vertical({p: mine if p == party else None for p in PARTIES}, "id", missing=False)


def train(party: str, config: str, kind: str, trees: int) -> None:
    """One party: train, and print the seconds of each step."""
    from spuvm.ml import Sgb, machine

    spu.init(party=party, config=config, timeout=PATIENCE)
    frame = table_of(party, kind)
    run = machine.Machine.run

    def timed(self: machine.Machine, *arguments: object, what: str) -> object:
        start = time.perf_counter()
        out = run(self, *arguments, what=what)  # type: ignore[arg-type]
        print(f"{what} {time.perf_counter() - start:.2f} s", flush=True)
        return out

    machine.Machine.run = timed  # type: ignore[method-assign,assignment]
    Sgb(n_estimators=trees, max_depth=BASE["depth"], max_bin=BASE["bins"]).fit(frame, "label")
    spu.shutdown()


def network(kind: str, trees: int) -> list[float]:
    """All parties as processes of this machine; carol's seconds of each tree."""
    seconds = []

    def show(party: str, stream: str, line: str) -> None:
        if party == "carol" or stream == "stderr":
            print(f"{party} | {line}", flush=True)
        if party == "carol" and (found := STEP.match(line)):
            seconds.append(float(found[1]))

    with tempfile.TemporaryDirectory() as folder:
        config = str(make_run_folder(folder, spu.Config(parties=PARTIES)))
        command = [sys.executable, __file__, "--config", config, "--frame", kind, "--trees", str(trees), "--as"]
        run_parties({p: [*command, p] for p in PARTIES}, on_line=show)
    return seconds[1:]  # the first step is what comes before all trees


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="store_true", help="also train, three processes over TLS")
    parser.add_argument("--trees", type=int, default=6, help="of that training; the first compiles (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--frame", choices=("vertical", "horizontal"), default="vertical", help="of that training")
    parser.add_argument("--as", dest="party", help=argparse.SUPPRESS)
    parser.add_argument("--config", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.party:
        return train(options.party, options.config, options.frame, options.trees)
    body: Record = {"machine": about(), "growth": growth()}
    body["seconds"] = network(options.frame, options.trees) if options.network else []
    if options.json is not None:
        options.json.write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
