"""What a service keeps and lets go: withdrawn data, policies that change, retention."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from services import POLICY, entries, folder, inputs, program, run

from spuvm.runtime.errors import InputError
from spuvm.service import settings, upkeep
from spuvm.service.party import Party

__all__ = ["folder", "program"]


def left_by(party: Party, id: str) -> Path:
    path = party.settings.state / "jobs" / id / "results" / "out.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"1")
    return path


def test_withdrawn_data_end_what_uses_them(folder: Path, program: str) -> None:
    """A job that waits ends, what an earlier one left is erased, a new one is refused; until it is undone."""

    async def scenario() -> None:
        bob, alice = (Party(settings.load(folder / p / "service.toml")) for p in ("bob", "alice"))
        made = [alice.submit("ann", program, inputs()) for _ in range(3)]
        for row in made[:2]:
            bob.receive("alice", row.job.as_dict())
        bob.store.set(made[0].id, "done")
        left = left_by(bob, made[0].id)
        with pytest.raises(InputError, match="no `other` in the catalogue"):
            upkeep.withdraw(bob, "ben", "other")
        assert set(upkeep.withdraw(bob, "ben", "table")) == {made[0].id, made[1].id}
        assert not left.parent.parent.exists()
        assert (bob.store.job(made[0].id).state, bob.store.job(made[1].id).state) == ("done", "cancelled")
        said = [m[2] for m in bob.store.unsent("alice") if "cancelled" in m[2]]
        assert len(said) == 1 and "table" not in said[0]
        bob.receive("alice", made[2].job.as_dict())
        assert bob.store.job(made[2].id).reason == "`table` was withdrawn"
        bob.store.grant("table")
        with pytest.raises(InputError, match="was not withdrawn"):
            bob.store.grant("table")
        bob.receive("alice", (last := alice.submit("ann", program, inputs())).job.as_dict())
        assert bob.store.job(last.id).state == "approved"

    run(scenario())
    events = [e.event for e in entries(folder, "bob")]
    assert events.count("erased") == 1 and "withdrawn" in events


def test_a_policy_that_changes_before_a_job_starts_holds(folder: Path, program: str) -> None:
    policy = folder / "alice" / "policy.toml"
    policy.write_text(POLICY + "per_day = 1\n")

    async def scenario() -> None:
        alice = Party(settings.load(folder / "alice" / "service.toml"))
        row = alice.submit("ann", program, inputs())
        assert alice.submit("ann", program, inputs()).state == "refused"  # the second of the day
        policy.write_text(POLICY.replace('["x", "y"]', '["y"]'))
        for peer in ("bob", "carol"):
            alice.hear(peer, row.id, {"state": "approved", "reason": "", "attempt": 0})
        assert "column `x` of `table`" in alice.store.job(row.id).reason
        assert not alice.running

    run(scenario())


def test_what_is_too_old_is_erased(folder: Path, program: str) -> None:
    path = folder / "alice" / "service.toml"
    path.write_text(path.read_text() + "[retention]\nresults_days = 30\nmodels_days = 300\n")

    async def scenario() -> None:
        alice = Party(settings.load(path))
        old, new, waits = (alice.submit("ann", program, inputs()).id for _ in range(3))
        left = {id: left_by(alice, id) for id in (old, new, waits)}
        for id, days in ((old, 31), (new, 29)):
            alice.store.set(id, "done")
            alice.store.db.execute("update jobs set ended = ? where id = ?", (time.time() - 86400 * days, id))
        models = alice.settings.state / "models"
        for name, days in (("risk", 301), ("fresh", 299), ("flows/alice/nodes/k", 301)):
            (models / name).mkdir(parents=True)
            (models / name / "model.share").write_bytes(b"1")
            for file in (models / name, models / name / "model.share"):
                os.utime(file, (time.time() - 86400 * days,) * 2)
        upkeep.forget(alice)
        assert [id for id in left if left[id].exists()] == [new, waits]
        assert {str(p.parent.relative_to(models)) for p in models.rglob("*.share")} == {"fresh"}
        with pytest.raises(InputError, match="is not over"):
            upkeep.erase(alice, "ann", waits)
        upkeep.erase(alice, "ann", new)
        assert not left[new].exists()

    run(scenario())
    assert [e.body["user"] for e in entries(folder, "alice") if e.event == "erased"] == ["retention"] * 3 + ["ann"]
