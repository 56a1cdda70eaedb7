"""What is one party's own reaches no peer, whatever fails: a canary in bob's data, paths, code and names.

Three processes over TLS fail in each of these ways, one after another. Bob's own error must sing, or the test
would prove nothing; what alice and carol print must not.
"""

from __future__ import annotations

import json
import re
import sys

import pytest

from spuvm.context import FAILED
from spuvm.network import make_run_folder, run_parties
from spuvm.runtime.config import Config
from spuvm.runtime.errors import OWN_ERROR

PARTIES = ("alice", "bob", "carol")
CANARY = "canary"
STOPPED = rf"\w+ stopped( \(told by \w+\))?: ({re.escape(OWN_ERROR)}|{re.escape(FAILED)})"
TOLD = re.compile(
    rf"PeerAbortedError: {STOPPED}"
    "|SaveError: bob could not save: save again, at every party."
    rf"|NodeFailed: node `fails` \(fails\) stopped: {STOPPED}. Finished nodes are kept: resume run `[\w-]+` when this "
    "is put right."
)
CASES = 30

SCRIPT = """
import contextlib, json, os, sys
from datetime import date, timedelta
from pathlib import Path
import jax.numpy as jnp, numpy as np, optax, pandas as pd
import spuvm as spu
from spuvm import ml
from spuvm.flow import grants
from spuvm.flow.kinds import Number, PartyTable
from spuvm.ml import Sgb

os.environ["SPUVM_STATE_DIR"] = sys.argv[3]

me, clusters, folder = sys.argv[1:]
bob = me == "bob"
os.makedirs(f"{folder}/canary", exist_ok=True)
ids = np.arange(20)
x = np.linspace(0, 1, 20)
good = {"alice": {"id": ids, "x": x}, "bob": {"id": ids, "y": (x > 0.5).astype(int)}}

def frame(**theirs):
    return spu.data.vertical({**good, "bob": theirs}, key="id")

def machine():
    return spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"]))

def path():
    spu.data.vertical({**good, "bob": f"{folder}/canary.parquet" if bob else None}, key="id")

def header():
    file = f"{folder}/own.csv"
    Path(file).write_text("canary,canary\\\\n1,2\\\\n")
    spu.data.vertical({**good, "bob": file if bob else None}, key="id")

def cells():
    frame(id=ids, canary=np.where(x > 0.9, np.inf, x))

def mixed():
    frame(id=ids, canary=[1, "x"] * 10)

def keys():
    frame(id=["canary"] * 20, y=x)

def boosting():
    f = spu.data.vertical({**good, "bob": {"id": ids, "canary": np.zeros(20, int) if bob else ids}}, key="id")
    Sgb(n_estimators=1, max_depth=1, max_bin=4).fit(f, label="canary")

def blocks():
    Path(f"{folder}/canary/b.csv").write_text("canary\\n" + "\\n".join(map(str, x)) + "e308\\n")
    np.save(f"{folder}/a.npy", x)
    s = spu.stream({"x": f"{folder}/a.npy@alice", "y": f"{folder}/*/b.csv@bob"}, rows_per_block=5)
    s.fold(lambda t, x, y: t + jnp.dot(x, y), 0.0, jnp.add)

def run_folder():
    np.save(f"{folder}/a.npy", x)
    s = spu.stream({"x": f"{folder}/a.npy@alice"}, rows_per_block=5)
    Path(f"{folder}/canary/bob").mkdir(exist_ok=True)
    Path(f"{folder}/canary/bob/canary.txt").write_text("x")
    s.fold(lambda t, x: t + jnp.sum(x), 0.0, jnp.add, folder=f"{folder}/canary")

class CanaryError(Exception):
    pass

def own_class():
    def fail():
        raise CanaryError("secret")
    spu.PYU("bob")(fail)()

def told_class():
    def fail():
        raise spu.errors.PeerMismatchError("canary")  # a class whose words peers hear
    spu.PYU("bob")(fail)()

def key_error():
    spu.PYU("bob")(lambda: {}["canary"])()

def objects():
    machine().share(spu.PYU("bob")(lambda: type("Canary", (), {})())())

def wide():
    at = spu.PYU("bob")(lambda: {"v": np.array([1e30], np.float32)})()
    machine()(lambda v: v["v"] + 1)(at)

def shares():
    x = machine().share(spu.PYU("bob")(lambda: np.ones(2))())
    Path(f"{folder}/canary/file").write_text("x")
    spu.save_shares({"a": x}, {me: f"{folder}/canary/file" if bob else f"{folder}/{me}"})

def joined():
    spu.psi.join({"alice": {"id": ids, "x": x}, "bob": {"key": ids, "canary": x} if bob else None}, key="id")

def join_cells():
    theirs = {"id": ids, "canary": np.where(x > 0.9, np.inf, x)} if bob else None
    spu.psi.join({"alice": {"id": ids, "x": x}, "bob": theirs}, key="id", output="shared")

def query():
    db = spu.sql.connect({"alice": {"a": {"id": ids, "x": x}}, "bob": {"b": f"{folder}/canary.csv" if bob else None}})
    db.sql("select sum(a.x) from a", to="carol")

CASES = [path, header, cells, mixed, keys, boosting, blocks, run_folder, own_class, key_error, objects, wide, shares]

@spu.component(name="fails")
def fails(table: PartyTable) -> Number:
    def fail(t):
        raise ValueError(t["name"][3])
    spu.PYU("bob")(fail)(table)
    return 1.0

def flow_rows():
    tables = {"bob": {"t": {"name": [f"canary {i}" for i in range(5)]} if bob else None}}
    chosen = spu.Flow("rows", out=fails(spu.flow.find("read")(party="bob", table="t", name="t")))
    allowed = {me: [grants.asked(chosen, me, date.today() + timedelta(days=1))]}
    spu.flow.run(chosen, state=f"{folder}/state", tables=tables, grants=allowed)

def federated(theirs):
    data = {"alice": {"x": np.ones(4, np.float32)}, "bob": theirs if bob else None}
    loss = lambda p, b: jnp.mean(jnp.sqrt(b["x"]) * p)
    spu.fed.train(loss, jnp.zeros(()), optax.sgd(0.1), data, rounds=1, local_steps=2)

def fed_rows():
    federated(lambda: {}["canary"])

def fed_step():
    def batches():
        yield {"x": np.ones(4, np.float32)}
        raise ValueError("canary")
    federated(batches())

def fed_update():
    federated({"x": -np.ones(4, np.float32)})

def encrypted():
    heu = spu.HEU("alice", ["bob"], degree=8192)
    spu.PYU("bob")(lambda: np.array([1.0, np.nan]))().to(heu)

def ledger(epsilon):
    return {me: spu.dp.Budget(epsilon if bob else 100.0, 1e-6, path=f"{folder}/canary/{epsilon}.budget")}

def statistic():
    ml.describe(frame(id=ids, y=x), epsilon=9.0, bounds=(0.0, 1.0), budget=ledger(8.0))

def join_epsilon():
    theirs = {"alice": {"id": ids}, "bob": {"id": ids} if bob else None}
    spu.psi.join(theirs, key="id", mode="helper", epsilon=5.0, budget=ledger(4.0))

def shared_query():
    theirs = {"id": ids, "canary": np.where(x > 0.9, np.inf, x)} if bob else None
    spu.sql.connect({"alice": {"a": {"id": ids}}, "bob": {"b": theirs}}).share("select id, canary from b")

def labels():
    ml.LogisticRegression().fit(frame(id=ids, canary=x - 0.5), label="canary")

def process():
    ml.GaussianProcessRegressor().fit(frame(id=ids, canary=np.ones(20)), label="canary")

def ranking():
    cells = np.where(x > 0.9, np.nan, 1.0)
    f = spu.data.vertical({**good, "bob": {"id": ids, "y": ids % 3, "canary": cells}}, key="id", missing=True)
    Sgb(objective="rank:pairwise", n_estimators=1).fit(f, label="y", group="canary")

def lightgbm_path():
    ml.load_lightgbm(f"{folder}/canary.txt" if bob else None, party="bob")

def lightgbm_text():
    Path(f"{folder}/own.txt").write_text("tree\\nobjective=canary\\nnum_tree_per_iteration=1\\nTree=0\\nend of trees")
    ml.load_lightgbm(f"{folder}/own.txt" if bob else None, party="bob")

CASES += [joined, join_cells, query, flow_rows, fed_rows, fed_step, fed_update, encrypted, statistic, join_epsilon]
CASES += [told_class, shared_query, labels, process, ranking, lightgbm_path, lightgbm_text]
for number, case in enumerate(CASES):
    said = "nothing failed"
    try:
        spu.init(party=me, config=f"{clusters}/keys-{number}/cluster.toml")
        case()
        spu.shutdown()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        with contextlib.suppress(Exception):
            spu.shutdown()
    print(json.dumps([case.__name__, said]), flush=True)
"""
SINGS = {
    "boosting": "one class",
    "keys": "same key",
    "wide": "1 of 1 elements",
    "own_class": "Canary",
    "joined": "no key column",
    "encrypted": "not finite",
    "statistic": "would spend epsilon",
    "join_epsilon": "would spend epsilon",
    "lightgbm_path": "cannot be read",
}
SHOWN = {"fed_update": "of 2 parties' updates there are 1 with NaN"}  # what the program reveals: to all, and of nobody


@pytest.fixture(scope="module")
def said(preloaded_module: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """By case and party, its error."""
    folder = tmp_path_factory.mktemp("c")
    for number in range(CASES):  # ports of its own for each: nobody meets what is left of the session before
        make_run_folder(folder / f"keys-{number}", Config(parties=PARTIES), timeout=60)
    (folder / "s.py").write_text(SCRIPT.replace("\\\\n", "\\n"))
    commands = {}
    for party in PARTIES:
        mine = folder / f"of-{party}"
        mine.mkdir()
        commands[party] = [sys.executable, str(folder / "s.py"), party, str(folder), str(mine)]
    out: dict[str, dict[str, str]] = {}
    for party, outcome in run_parties(commands, timeout=300).items():
        for line in outcome.stdout.splitlines():
            case, text = json.loads(line)
            out.setdefault(case, {})[party] = text
    return out


def test_peers_learn_that_bob_failed_and_nothing_else(said: dict[str, dict[str, str]]) -> None:
    assert len(said) == CASES
    for case, errors in said.items():
        if case in SHOWN:
            assert len(set(errors.values())) == 1 and SHOWN[case] in errors["bob"], (case, errors)
            assert not any(p in errors["bob"] for p in (*PARTIES, CANARY)), (case, errors)
            continue
        own = errors.pop("bob")
        assert SINGS.get(case, CANARY) in own or CANARY in own.lower(), (case, own)
        for told in errors.values():
            assert TOLD.fullmatch(told), (case, told)
