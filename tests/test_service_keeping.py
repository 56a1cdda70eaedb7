"""What a service keeps and lets go: withdrawn data, policies that change, retention."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from services import POLICY, entries, folder, inputs, program, run

from spuvm.runtime.errors import InputError
from spuvm.service import jobs, runner, settings, upkeep
from spuvm.service.jobs import Source
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


def test_what_this_version_cannot_read_is_let_go_as_all_else(folder: Path, program: str) -> None:
    """Withdrawn, erased by rule, and ended when it has waited too long; where nobody can tell what it took, too."""
    path = folder / "bob" / "service.toml"
    path.write_text(path.read_text() + "[retention]\nresults_days = 30\n")

    async def scenario() -> None:
        bob, alice = (Party(settings.load(folder / p / "service.toml")) for p in ("bob", "alice"))
        made = [alice.submit("ann", program, inputs()) for _ in range(4)]
        for row in made:
            bob.receive("alice", row.job.as_dict())
        old, waits, late, lost = (row.id for row in made)
        left = {id: left_by(bob, id) for id in (old, waits, late, lost)}
        older = "replace(spec, '\"format\": 1', '\"format\": 0')"
        bob.store.db.execute(f"update jobs set spec = {older}")
        bob.store.db.execute("update jobs set spec = '{}' where id = ?", (lost,))
        for id in (old, lost):
            bob.store.set(id, "done")
        bob.store.db.execute("update jobs set ended = 9 where id = ?", (old,))
        bob.store.db.execute("update jobs set received = 9 where id = ?", (late,))
        upkeep.forget(bob)
        bob.expire()
        assert [id for id in left if left[id].exists()] == [waits, late, lost]
        upkeep.erase(bob, "ben", late)
        assert set(upkeep.withdraw(bob, "ben", "table")) == {old, waits, late, lost}
        assert not any(p.exists() for p in left.values())
        assert {job.state for job in bob.store.left()} == {"done", "cancelled"}
        assert [m[1] for m in bob.store.unsent("carol") if "withdrawn" in m[2]] == [f"/jobs/{waits}/news"]
        with pytest.raises(InputError, match="there is no job"):
            upkeep.erase(bob, "ben", "x")

    run(scenario())


def test_what_cannot_be_erased_is_not_said_to_be(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links are taken away, and what they lead to is left; a folder that stays is named, and others go."""
    (other := folder / "elsewhere").mkdir()
    (other / "kept").write_text("")

    async def scenario() -> None:
        alice = Party(settings.load(folder / "alice" / "service.toml"))
        ids = [alice.submit("ann", program, inputs()).id for _ in range(3)]
        for id in ids[:2]:
            left_by(alice, id)
        (alice.settings.state / "jobs" / ids[2]).symlink_to(other)
        removed = shutil.rmtree

        def refusing(path: Path) -> None:
            if path.name == ids[0]:
                raise PermissionError(13, "Permission denied", str(path))
            removed(path)

        with monkeypatch.context() as m:
            m.setattr(shutil, "rmtree", refusing)
            with pytest.raises(InputError, match=rf"could not be erased: \S+{ids[0]} \(Permission denied\)"):
                upkeep.withdraw(alice, "ann", "table")
        assert [p.name for p in (alice.settings.state / "jobs").iterdir()] == [ids[0]] and (other / "kept").exists()
        upkeep.withdraw(alice, "ann", "table")
        assert not list((alice.settings.state / "jobs").iterdir())
        erased = [e.body["job"] for e in entries(folder, "alice") if e.event == "erased"]
        assert sorted(erased) == sorted(ids) and erased[-1] == ids[0]

    run(scenario())


def test_models_and_nodes_made_of_withdrawn_data_go_too(folder: Path) -> None:
    flow = (
        '[job]\nkind = "flow"\nparties = ["alice", "bob", "carol"]\ntables = { t = "alice" }\n[flow]\nname = "f"\n'
        'parties = ["alice", "bob", "carol"]\nnodes.t = { component = "read", party = "alice", table = "t" }\n'
    )
    train = (
        'label = "y"\nkey = "x"\n[model]\nn_estimators = 1\n[data]\nmatch = "inner"\nparties = ["alice", "bob"]\n'
        '[job]\nkind = "sgb"\nparties = ["alice", "bob", "carol"]\ncommand = "train"\nmodel = "risk"\n'
        'tables = ["alice", "bob"]\n'
    )

    async def scenario() -> None:
        alice = Party(settings.load(folder / "alice" / "service.toml"))
        ran = alice.submit("ann", flow, {"t": Source("alice", "table")}).id
        both = {p: Source(p, "table") for p in ("alice", "bob")}
        alice.submit("ann", train, both)
        flows = alice.settings.state / "models" / "flows" / "alice"
        for path in (flows / "nodes" / "ab" / "cd.json", flows / "nodes" / "ab" / "cd.0123" / "x.share",
                     flows / "nodes" / "ab" / "ef.json", flows / "runs" / f"{ran}.jsonl",
                     alice.settings.state / "models" / "risk" / "model.share",
                     alice.settings.state / "models" / "other" / "model.share"):  # fmt: skip
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('{"text": ""}\n{"node": "t", "key": "abcd"}\n{"no')
        late = alice.submit("ann", train.replace("risk", "other"), both)  # its model was there, of another job
        runner.prepare(alice.settings, late.job, jobs.read(late.job.program), "s", folder / "door")
        upkeep.withdraw(alice, "ann", "table")
        assert sorted(p.name for p in alice.settings.state.glob("models/**/*") if p.is_file()) == [
            "ef.json", "model.share",
        ]  # fmt: skip
        assert not (alice.settings.state / "models" / "risk").exists()

    run(scenario())


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
