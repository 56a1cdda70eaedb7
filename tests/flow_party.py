"""One party of a flow over TLS, for tests: scenarios in one process, what came of each on stdout as JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import spuvm as spu
from spuvm.flow import Flow, find, grants, records, run, tune
from spuvm.flow.records import NodeRun

TABLES = {
    "alice": {"loans": {"id": list(range(24)), "income": [float(i % 7) for i in range(24)]}},
    "bob": {"bills": {"id": list(range(2, 26)), "debt": [float(i * i % 11) for i in range(24)]}},
}


def flow(rows: int = 1) -> Flow:
    """Two tables matched with the help of carol, scaled, correlated."""
    tables = [find("read")(party=p, table=t, name=t) for p, own in TABLES.items() for t in own]
    data = find("match")(*tables, key="id", mode="helper")
    scaled = find("scale")(data, label="nothing" * (rows - 1))
    return Flow("joint", found=find("correlation")(scaled.data), rows=find("count_rows")(data))


def searched(party: str, cluster: str, state: Path) -> None:
    """Two trials at once."""
    spu.init(party=party, config=cluster)
    matched = find("match")(*[find("read")(party=p, table=t) for p, own in TABLES.items() for t in own], key="id")
    counted = Flow("counted", rows=find("count_rows")(find("split")(matched, test_size=0.5, name="parts").train))
    last = datetime.now(UTC).date() + timedelta(days=1)
    given = {party: [replace(grants.asked(counted, party, last), flow="any")]}
    made = tune(counted, {"parts.test_size": [0.5, 0.25]}, "rows", workers=2, state=state, tables=TABLES, grants=given)
    names = [p.stem for p in (state / party / "runs").glob("counted*")]
    states = sorted(records.read(state / party, n).nodes["match"].state for n in names)
    print(json.dumps({"scores": [t.score for t in made.trials], "match": states}), flush=True)
    spu.shutdown()


def main(party: str, cluster: str, state: str, scenario: str, victim: str, node: str) -> None:
    today = datetime.now(UTC).date()
    chosen = flow()
    given = {party: [grants.asked(chosen, party, today + timedelta(days=1))]}

    def told(name: str, entry: NodeRun) -> None:
        if scenario == "killed" and party == victim and name == node and entry.state == "running":
            os.kill(os.getpid(), signal.SIGKILL)

    def attempt(**changes: Any) -> None:
        spu.init(party=party, config=cluster)
        options = {"state": Path(state), "tables": TABLES, "grants": given, "told": told, **changes}
        try:
            made = run(options.pop("flow", chosen), **options)
            shown = {"states": made.states, "found": made["found"].as_dict(), "rows": made["rows"]}
            print(json.dumps(shown), flush=True)
            spu.shutdown()
        except spu.errors.SpuError as error:
            print(json.dumps({"error": type(error).__name__, "says": str(error)}), flush=True)

    if scenario == "refused":
        attempt(flow=flow(2) if party == "bob" else chosen)
        expired = {"bob": [grants.asked(chosen, "bob", today - timedelta(days=2))]} if party == "bob" else given
        attempt(grants=expired, name="x")
        attempt(name="x", resume=True)
        attempt(name="y")
        searched(party, cluster, Path(state) / "searched")
    else:
        attempt(name="z", resume=scenario == "resume", retries=int(scenario == "killed"))


if __name__ == "__main__":
    main(*sys.argv[1:])
