"""SQL by three processes over TLS: links count what was predicted; a cancelled query ends at all parties."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import spuvm as spu
from spuvm.network import make_run_folder, run_parties

PARTIES = ("alice", "bob", "carol")
SCRIPT = """
import json, sys, threading
import spuvm as spu
from spuvm.runtime.errors import SpuvmError
from spuvm.sql import scanning

me, config = sys.argv[1:]
spu.init(party=me, config=config)
tables = {"alice": {"people": {"id": [3, 7, 5, None], "name": ["Zoë", "Ada", "Bob", "Eve"]}},
          "bob": {"visits": {"who": [7, 7, 3, 9, None], "paid": [1, 2, 3, 4, 5]}}}
db = spu.sql.connect({o: t if o == me else dict.fromkeys(t) for o, t in tables.items()}, joins="psi")
query = "select name, sum(paid) from visits join people on who = id group by name order by name"
found = db.analyze(query, to="carol")
out = {"rows": found.result.rows() if me == "carol" else None,
       "steps": [[s.what, s.rounds, s.sent, *s.counted] for s in found.steps]}

scanned = scanning.scanned
def slow(*args):
    threading.Thread(target=db.cancel).start()
    db.device.vm.session.cancelled.wait(60)
    return scanned(*args)

if me == "bob":
    scanning.scanned = slow
try:
    db.sql("select sum(paid) from visits where paid > 1", to="carol")
except SpuvmError as error:
    out["cancelled"] = [type(error).__name__, str(error)]
print(json.dumps(out))
"""


def test_counted_is_predicted_and_a_cancelled_query_ends_at_all(tmp_path: Path) -> None:
    config = make_run_folder(tmp_path / "keys", spu.Config(parties=PARTIES), timeout=120)
    (tmp_path / "run.py").write_text(SCRIPT)
    line = [sys.executable, str(tmp_path / "run.py")]
    outcomes = run_parties({p: [*line, p, str(config)] for p in PARTIES}, timeout=300)
    said = {p: json.loads(o.stdout.splitlines()[-1]) for p, o in outcomes.items()}
    assert said["carol"]["rows"] == [["Ada", 3], ["Zoë", 3]]
    for found in said.values():
        assert found["steps"][0][0].startswith("before select by the owners' keys")
        for what, rounds, sent, counted, counted_bytes in found["steps"]:
            assert (rounds, sent) == (counted, counted_bytes), what
    assert said["bob"]["cancelled"][0] == "CancelledError"
    for party in ("alice", "carol"):
        assert "bob" in said[party]["cancelled"][1]
        assert "cancelled" in said[party]["cancelled"][1]
