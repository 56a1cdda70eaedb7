"""SQL by three processes over TLS: links count what was predicted; a cancelled query, and a lie, end at all."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import spuvm as spu
from spuvm.network import make_run_folder, run_parties

pytestmark = pytest.mark.usefixtures("preloaded")

PARTIES = ("alice", "bob", "carol")
SCRIPT = """
import json, sys, threading
import spuvm as spu
from spuvm.runtime.errors import SpuError
from spuvm.sql import database, scanning

me, first, second = sys.argv[1:]
spu.init(party=me, config=first)
tables = {"alice": {"people": {"id": [3, 7, 5, None], "name": ["Zoë", "Ada", "Bob", "Eve"]}},
          "bob": {"visits": {"who": [7, 7, 3, 9, None], "paid": [1, 2, 3, 4, 5]}}}
mine = {o: t if o == me else dict.fromkeys(t) for o, t in tables.items()}
db = spu.sql.connect(mine, joins="psi")
query = "select name, sum(paid) from visits join people on who = id group by name order by name"
found = db.analyze(query, to="carol")
out = {"rows": found.result.rows() if me == "carol" else None,
       "steps": [[s.what, s.rounds, s.sent, *s.counted] for s in found.steps]}

def tried(db, sql):
    try:
        db.sql(sql, to="carol")
    except SpuError as error:
        return [type(error).__name__, str(error)]

scanned = scanning.scanned
def slow(*args):
    threading.Thread(target=db.cancel).start()
    db.device.vm.session.cancelled.wait(60)
    return scanned(*args)

if me == "bob":
    scanning.scanned = slow
out["cancelled"] = tried(db, "select sum(paid) from visits where paid > 1")

spu.shutdown()
spu.init(party=me, config=second)
rules = {"alice": {"people": {"columns": {"id": "plaintext", "name": "never"}}}}
db = spu.sql.connect(mine, rules if me == "alice" else None)
plan = database.plan
if me == "bob":  # his planner says that names are identities
    database.plan = lambda catalog, sql, *args: plan(catalog, sql.replace("name", "id"), *args)
out["lied"] = tried(db, "select name from people")
print(json.dumps(out))
"""


def test_counted_is_predicted_and_what_one_party_does_ends_at_all(tmp_path: Path) -> None:
    configs = [str(make_run_folder(tmp_path / name, spu.Config(parties=PARTIES), timeout=120)) for name in "ab"]
    (tmp_path / "run.py").write_text(SCRIPT)
    line = [sys.executable, str(tmp_path / "run.py")]
    outcomes = run_parties({p: [*line, p, *configs] for p in PARTIES}, timeout=300)
    said = {p: json.loads(o.stdout.splitlines()[-1]) for p, o in outcomes.items()}
    assert said["carol"]["rows"] == [["Ada", 3], ["Zoë", 3]]
    for found in said.values():
        assert found["steps"][0][0].startswith("before select by the owners' keys")
        for what, rounds, sent, counted, counted_bytes in found["steps"]:
            assert (rounds, sent) == (counted, counted_bytes), what
    assert said["bob"]["cancelled"][0] == "CancelledError"
    for party in ("alice", "carol"):
        assert "bob" in said[party]["cancelled"][1], "who cancelled"
        assert "cancelled" in said[party]["cancelled"][1]
    assert [said[p]["lied"][0] for p in PARTIES] == ["PeerMismatchError"] * 3
