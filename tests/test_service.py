"""Three services on one machine: jobs from asking to results, policies that hold, and attacks."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from services import PARTIES, POLICY, entries, folder, hide, inputs, program, run, services, until

from spuvm.cli import run as command
from spuvm.policy import commitments, record
from spuvm.runtime.errors import InputError
from spuvm.runtime.link.parties import Address
from spuvm.runtime.link.tls.relay import Relay
from spuvm.service import again, jobs, port, settings, tasks, upkeep, wire
from spuvm.service import party as of_party
from spuvm.service.jobs import Source
from spuvm.service.party import Party

__all__ = ["folder", "program"]


FLOW = """
[job]
kind = "flow"
parties = ["alice", "bob", "carol"]
tables = { loans = "alice" }

[flow]
name = "joined"
nodes.loans = { component = "read", party = "alice", table = "loans" }
nodes.rows = { component = "count_rows", data = "loans" }
"""


def test_a_job_from_asking_to_its_result(folder: Path, program: str) -> None:
    """Only alice can be reached, at one port; bob and carol meet at a relay."""
    relay = hide(folder, "bob", "carol")

    async def scenario() -> None:
        async with services(folder) as parties:
            row = parties["alice"].submit("ann", program, inputs(), "a report")
            await until(
                lambda: all(p.store.job(row.id).over for p in parties.values()) if _known(parties, row) else False
            )
            assert {n: p.store.job(row.id).state for n, p in parties.items()} == dict.fromkeys(PARTIES, "done")
            results = folder / "alice" / "state" / "jobs" / row.id / "results"
            want = sum(
                np.genfromtxt(folder / p / "table.csv", delimiter=",", names=True)[c].mean()
                for p, c in (("alice", "x"), ("bob", "y"))
            )
            assert np.load(results / "out.npy") == pytest.approx(want, abs=1e-4)
            assert not list((folder / "bob" / "state" / "jobs" / row.id / "results").iterdir())

    with Relay(relay):
        run(scenario())
    told = {p: entries(folder, p) for p in PARTIES}
    assert [e.event for e in told["bob"]] == ["asked", "decided", "started", "inputs", "ended"]
    assert [e.event for e in told["carol"]] == ["asked", "decided", "started", "ended"]
    assert record.disagreements(told) == []
    _check_account(folder, told)


def _check_account(folder: Path, told: dict[str, list[record.Entry]]) -> None:
    """Bytes by peer, versions, and commitments, which say nothing without their salts."""
    ended = {p: es[-1].body for p, es in told.items()}
    counted = {p: body["counted"] for p, body in ended.items()}
    for p in PARTIES:
        assert counted[p]["sent"] == {q: c["received"][p] for q, c in counted.items() if p in c["received"]}
        assert counted[p]["rounds"] == counted[p]["predicted"]["rounds"]
        assert sum(counted[p]["sent"].values()) == counted[p]["predicted"]["bytes_sent"]
    sender = next(p for p in PARTIES if counted[p]["sent"])
    receiver = next(iter(counted[sender]["sent"]))
    counted[receiver]["received"][sender] += 1
    assert record.disagreements(told)[0].startswith(f"job {ended['bob']['job']}: {sender} sent {receiver}")
    assert set(told["bob"][2].body["versions"]) == {"python", "spuvm", "jax", "numpy"}
    committed = told["bob"][3].body["commitments"]["y"]
    table, salts = folder / "bob" / "table.csv", folder / "bob" / "state" / "jobs" / ended["bob"]["job"] / "salts.json"
    assert committed != hashlib.sha256(table.read_bytes()).hexdigest()
    assert commitments.opens(committed, table, salts, "y")
    given = f"bob={folder}/bob/state/record.jsonl,{folder}/bob/bob.crt", ended["bob"]["job"][:8], "--salts", str(salts)
    assert command(["audit", "inputs", *given, f"y={table}"]) == 0
    assert command(["audit", "inputs", *given, f"x={table}"]) == 2
    table.write_bytes(table.read_bytes() + b"0,0\n")
    assert command(["audit", "inputs", *given, f"y={table}"]) == 2


def column(path: Path, name: str) -> Any:
    return np.genfromtxt(path, delimiter=",", names=True)[name]


def _known(parties: dict[str, Party], row: Any) -> bool:
    return all(any(r.id == row.id for r in p.store.jobs()) for p in parties.values())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"data": '{ table = ["x"] }'}, "column `y` of `table`"),
        ({"receivers": '["bob"]'}, "shown to alice"),
        ({"min_rows": "41"}, "fewer than 41 rows"),
        ({"from": '["carol"]'}, "no rule lets alice ask"),
        ({"programs": f'["{"0" * 64}"]'}, "another program"),
        ({"programs": '["0123"]'}, "the policy cannot be read"),
        ({"until": "2020-01-01"}, "it ended on 2020-01-01"),
        ({"approval": '"never"'}, "the policy cannot be read"),
    ],
)
def test_what_a_policy_forbids_is_refused_and_peers_learn_no_more(
    folder: Path, program: str, change: dict[str, str], why: str
) -> None:
    lines = POLICY.strip().splitlines()
    for key, value in change.items():
        lines = [line for line in lines if not line.startswith(f"{key} =")] + [f"{key} = {value}"]
    (folder / "bob" / "policy.toml").write_text("\n".join(lines))
    bob, alice = (Party(settings.load(folder / p / "service.toml")) for p in ("bob", "alice"))

    async def scenario() -> None:
        row = alice.submit("ann", program, inputs())
        bob.receive("alice", row.job.as_dict())
        assert bob.store.job(row.id).state == "refused"
        assert why in bob.store.job(row.id).reason
        ((_, _, said),) = [m for m in bob.store.unsent("alice") if "refused" in m[2]]
        assert json.loads(said)["reason"] == "its policy does not allow it"
        alice.hear("bob", row.id, json.loads(said))
        assert alice.store.job(row.id).state == "refused"
        with pytest.raises(InputError, match="waits for nobody"):
            bob.approve("ben", row.id, row.job.hash)

    run(scenario())


def test_approval_is_by_people_of_exactly_one_program(folder: Path, program: str) -> None:
    ask = POLICY.replace('"automatic"', '"ask"\napprovers = 2')
    (folder / "bob" / "policy.toml").write_text(ask)
    bob, alice = (Party(settings.load(folder / p / "service.toml")) for p in ("bob", "alice"))

    async def scenario() -> None:
        row = alice.submit("ann", program, inputs())
        bob.receive("alice", row.job.as_dict())
        with pytest.raises(InputError, match="look again"):
            bob.approve("ben", row.id, "0" * 64)
        for _ in range(2):  # the same person twice is one
            assert bob.approve("ben", row.id, row.job.hash).state == "waiting"
        (folder / "bob" / "policy.toml").write_text(ask.replace('receivers = ["alice"]', 'receivers = ["bob"]'))
        assert bob.approve("bea", row.id, row.job.hash).state == "refused"  # the policy has changed meanwhile

    run(scenario())


def altered(job: dict[str, Any], **change: Any) -> dict[str, Any]:
    return {**job, **change}


@pytest.mark.parametrize(
    "attack",
    [
        lambda job: altered(job, requester="bob"),
        lambda job: altered(job, program=job["program"].replace("mul", "sub")),
        lambda job: altered(job, hash="0" * 64),
        lambda job: altered(job, inputs={**job["inputs"], "y": {**job["inputs"]["y"], "party": "carol"}}),
        lambda job: altered(job, inputs={"x": job["inputs"]["x"]}),
        lambda job: altered(job, created=0.0),
        lambda job: altered(job, format=2),
        lambda job: altered(job, program="x" * (jobs.MAX_PROGRAM + 1)),
        lambda job: altered(job, note="\x1b[2J"),
        lambda job: {},
        lambda job: [],
    ],
)
def test_jobs_that_are_not_what_they_say(folder: Path, program: str, attack: Callable[[Any], Any]) -> None:
    bob = Party(settings.load(folder / "bob" / "service.toml"))
    job = jobs.make("alice", program, inputs()).as_dict()
    with pytest.raises(InputError):
        bob.receive("alice", attack(job))
    assert bob.store.jobs() == []


def test_a_peer_whose_jobs_are_refused_cannot_fill_the_disk(
    folder: Path, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_party, "REFUSED", 2)
    bob = Party(settings.load(folder / "bob" / "service.toml"))
    sources = inputs() | {"y": Source("bob", "other", ("y",))}

    async def scenario() -> None:
        for _ in range(2):
            bob.receive("alice", jobs.make("alice", program, sources).as_dict())
        with pytest.raises(InputError, match="had 2 jobs refused here within an hour"):
            bob.receive("alice", jobs.make("alice", program, sources).as_dict())
        assert len(bob.store.jobs()) == 2
        bob.receive("carol", jobs.make("carol", program, sources).as_dict())  # as for another peer

    run(scenario())


@pytest.mark.parametrize("name", ["../table.csv", "/etc/passwd", "state", "other"])
def test_data_are_named_in_the_catalogue_and_nowhere_else(folder: Path, program: str, name: str) -> None:
    bob = Party(settings.load(folder / "bob" / "service.toml"))
    sources = inputs() | {"y": Source("bob", name, ("y",))}

    async def scenario() -> None:
        job = jobs.make("alice", program, sources)
        bob.receive("alice", job.as_dict())
        assert bob.store.job(job.id).state == "refused"

    run(scenario())


def test_the_port_and_the_page_let_nobody_in_who_does_not_prove_who_it_is(folder: Path, program: str) -> None:
    async def scenario() -> None:
        async with (
            services(folder, "bob") as parties,
            aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
        ):
            bob = parties["bob"]
            peers, page = f"https://{bob.settings.listen}", f"http://{bob.settings.page}"
            anybody = ssl.create_default_context(cafile=str(folder / "ca" / "ca.crt"))
            with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                async with session.post(f"{peers}/jobs", data=b"{}", ssl=anybody, server_hostname="bob") as answer:
                    await answer.read()
            carol = settings.load(folder / "carol" / "service.toml")
            body = {"head": [0, "0"], "message": jobs.make("alice", program, inputs()).as_dict()}
            tls = wire.context(carol, ssl.Purpose.SERVER_AUTH)
            async with session.post(f"{peers}/jobs", json=body, ssl=tls, server_hostname="bob") as answer:
                assert answer.status == 422
                assert "in the name of" in (await answer.json())["error"]
            for path in ("/api/jobs", "/api/jobs/x/log", "/jobs/x"):
                async with session.get(page + path, allow_redirects=False) as answer:
                    assert answer.status in (303, 401)
            token = bob.store.add_user("ben", ["submit"], 1)
            async with session.post(f"{page}/login", data={"token": token}) as answer:
                assert "No party has asked" in await answer.text()
            job = jobs.make("alice", program, inputs())
            bob.receive("alice", job.as_dict())
            async with session.post(f"{page}/jobs/{job.id}/cancel", data={"csrf": "guessed"}) as answer:
                assert answer.status == 403
            async with session.get(f"{page}/metrics") as answer:
                assert "spuvm_jobs" in await answer.text()
            bob.store.remove_user("ben")
            async with session.get(page) as answer:
                assert "Log in" in await answer.text()

    run(scenario())


def test_a_service_that_is_started_again_goes_on(folder: Path, program: str) -> None:
    async def scenario() -> None:
        async with services(folder, "alice") as parties:  # bob and carol are away
            id = parties["alice"].submit("ann", program, inputs()).id
        async with services(folder, "alice") as parties:
            assert parties["alice"].store.job(id).state == "approved"
        alice = Party(settings.load(folder / "alice" / "service.toml"))
        data = again.data_of(alice.settings, alice.store.job(id).job)
        alice.store.began(id, data)
        for attempt in range(1, 4):  # as often as its limits say
            alice.store.set(id, "running")
            alice.resume()
            row = alice.store.job(id)
            assert (row.state, row.attempt) == ("approved", attempt)
        alice.store.set(id, "running")
        alice.resume()
        assert alice.store.job(id).state == "failed"
        assert "interrupted 4 times" in alice.store.job(id).reason

    run(scenario())


@pytest.mark.parametrize(
    ("meanwhile", "why"),
    [("its data are written again", "data have changed"), ("it shows a result", "had shown results")],
)
def test_what_was_interrupted_does_not_run_again(folder: Path, program: str, meanwhile: str, why: str) -> None:
    async def scenario() -> None:
        alice = Party(settings.load(folder / "alice" / "service.toml"))
        id = alice.submit("ann", program, inputs()).id
        alice.store.began(id, again.data_of(alice.settings, alice.store.job(id).job))
        alice.store.set(id, "running")
        results = alice.settings.state / "jobs" / id / "results"
        results.mkdir(parents=True)
        if "data" in meanwhile:
            with open(folder / "alice" / "table.csv", "a") as table:
                table.write("1,2\n")
        else:
            (results / "out.npy").write_bytes(b"")
        alice.resume()
        assert alice.store.job(id).state == "failed"
        assert why in alice.store.job(id).reason
        ((_, _, said),) = [m for m in alice.store.unsent("bob") if "failed" in m[2]]
        assert why not in said

    run(scenario())


NOISE = [
    b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n", b"spuvm/1 to x alice bob\n", b"s" * 400,
    b"spuvm/1 at ../../x alice bob\n", b"\x00" * 70_000, b"SSH-2.0-x\r\n",
    b"spuvm/1 to " + b"0" * 24 + b".r0 alice bob\n",
]  # fmt: skip


def test_a_scan_of_the_port_leaves_the_service_as_it_is(folder: Path, program: str) -> None:
    """Hundreds of connections that idle, trickle or say what is none: no thread, no file stays, and peers get in."""
    crowd: list[socket.socket] = []

    def scan(address: Address) -> None:
        for number in range(400):
            with suppress(OSError):
                sock = socket.create_connection((address.host, address.port), 5)
                crowd.append(sock)
                sock.sendall(NOISE[number % len(NOISE)])

    async def scenario() -> None:
        async with services(folder, "bob") as parties:
            bob = parties["bob"]
            assert bob.settings.listen is not None
            await asyncio.to_thread(scan, bob.settings.listen)
            before = len(os.listdir("/proc/self/fd"))
            carol = settings.load(folder / "carol" / "service.toml")
            tls = wire.context(carol, ssl.Purpose.SERVER_AUTH)
            call = wire.Call(carol, port.ways_of(carol), "bob", tls)
            body = json.dumps({"head": [0, "0"], "message": jobs.make("alice", program, inputs()).as_dict()})
            status, _ = await asyncio.to_thread(call.post, "/jobs", body)
            assert status == 422  # heard, though the crowd is there
            call.close()
            for sock in crowd:
                sock.close()
            await until(lambda: len(os.listdir("/proc/self/fd")) < before - len(crowd) + 20)
            await until(lambda: not [t for t in threading.enumerate() if "greeting" in t.name])

    run(scenario())


def test_schedules_ask_again(folder: Path, program: str) -> None:
    """Each time a new job; not while the one before is open; not for who is no user any more."""

    async def scenario() -> None:
        alice = Party(settings.load(folder / "alice" / "service.toml"))
        alice.store.add_user("ann", ["submit"], 1)
        with pytest.raises(InputError, match="cron line"):
            alice.schedules.add("ann", "every day", program, inputs(), "")
        made = alice.schedules.add("ann", "*/5 * * * *", program, inputs(), "weekly")
        assert 0 < made.due - time.time() <= 300 and made.due % 300 == 0
        upkeep.ask_again(alice)
        assert alice.store.jobs() == []
        for user_is_there, count in ((True, 1), (True, 1), (False, 1)):
            if not user_is_there:
                alice.stop("ann", alice.store.jobs()[0].id)
                alice.store.remove_user("ann")
            alice.schedules.db.execute("update schedules set due = 0")
            upkeep.ask_again(alice)
            assert len(alice.store.jobs()) == count
        assert alice.schedules.all()[0].due > time.time()
        alice.store.add_user("ann", ["submit"], 1)
        alice.schedules.db.execute("update schedules set due = 0")
        upkeep.ask_again(alice)
        assert [row.job.note for row in alice.store.jobs()] == ["weekly"] * 2
        alice.schedules.remove(made.id)
        with pytest.raises(InputError, match="no schedule"):
            alice.schedules.remove(made.id)

    run(scenario())
    problems = [e.body["problem"] for e in entries(folder, "alice") if e.event == "schedule"]
    assert ["is not over" in problems[0], "no user" in problems[1], len(problems)] == [True, True, 2]


def test_flows_have_pages(folder: Path) -> None:
    """What a flow's nodes have come to, of whole lines of its record; its report; and schedules by the desk."""

    async def scenario() -> None:
        async with (
            services(folder, "alice") as parties,
            aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
        ):
            alice = parties["alice"]
            token = alice.store.add_user("ann", ["submit"], 1)
            page = f"http://{alice.settings.page}"
            await session.post(f"{page}/login", data={"token": token})
            bearer = {"Authorization": f"Bearer {token}"}
            loans: dict[str, object] = {"loans": {"party": "alice", "data": "table", "columns": [], "number": None}}
            body = {"program": FLOW, "inputs": loans, "note": "<b>note</b>"}
            async with session.post(f"{page}/api/jobs", headers=bearer, json=body) as answer:
                id = (await answer.json())["id"]
            record = tasks.record_of(alice.settings.state / "models", "alice", id)
            record.parent.mkdir(parents=True)
            done = {"node": "loans", "key": "k", "state": "done", "seconds": 1.5, "rounds": 3, "sent": {"alice": 1234}}
            record.write_text(json.dumps({"run": id}) + "\n" + json.dumps(done) + "\n" + json.dumps(done)[:9])
            async with session.get(f"{page}/flows") as answer:
                text = await answer.text()
                assert "1 of 2" in text and "joined" in text and "<b>" not in text
            async with session.get(f"{page}/jobs/{id}") as answer:
                text = await answer.text()
                assert "1,234" in text and "1.50" in text and "waiting" in text
            async with session.get(f"{page}/jobs/{id}/report") as answer:
                assert answer.status == 422
            alice.store.set(id, "done")
            report = alice.settings.state / "jobs" / id / "results" / "report.html"
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text("<h1>quality</h1>")
            async with session.get(f"{page}/jobs/{id}/report") as answer:
                assert "<h1>quality" in await answer.text()
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            async with session.post(
                f"{page}/api/schedules", headers=bearer, json={**body, "cron": "0 3 * * *"}
            ) as answer:
                planned = (await answer.json())["id"]
            async with session.post(
                f"{page}/api/schedules", headers=bearer, json={**body, "cron": "99 3 * * *"}
            ) as answer:
                assert "cron line" in (await answer.json())["error"]
            async with session.get(page) as answer:
                assert planned in await answer.text()
            async with session.post(f"{page}/api/schedules/{planned}/remove", headers=bearer, json={}) as answer:
                assert answer.status == 200
            assert alice.schedules.all() == []

    run(scenario())


def test_parties_start_the_same_run_of_a_job(folder: Path, program: str) -> None:
    """Who was interrupted is awaited; a peer that has finished is not."""

    async def scenario() -> None:
        alice = Party(settings.load(folder / "alice" / "service.toml"))
        started: list[int] = []
        alice._start = lambda row, work: started.append(row.attempt)  # type: ignore[method-assign]
        id = alice.submit("ann", program, inputs()).id
        alice.hear("bob", id, {"state": "approved", "reason": "", "attempt": 0})
        alice.hear("carol", id, {"state": "approved", "reason": "", "attempt": 1})  # run 0 was without alice
        assert (alice.store.job(id).state, alice.store.job(id).attempt) == ("approved", 1)
        assert alice.store.news(id)["alice"].attempt == 1 and started == []
        alice.hear("bob", id, {"state": "approved", "reason": "", "attempt": 1})
        assert started == [1]
        alice.store.began(id, again.data_of(alice.settings, alice.store.job(id).job))
        alice.store.set(id, "running")
        alice.hear("carol", id, {"state": "approved", "reason": "", "attempt": 2})  # hers was killed
        assert (alice.store.job(id).state, alice.store.job(id).attempt) == ("approved", 2)
        alice.hear("bob", id, {"state": "done", "reason": "", "attempt": 0})
        assert "bob has finished" in alice.store.job(id).reason
        for wrong in (-1, 1.5, "1", 10**9, True):
            with pytest.raises(InputError, match="run number"):
                alice.hear("bob", id, {"state": "approved", "reason": "", "attempt": wrong})
        other = alice.submit("ann", program, inputs()).id
        alice.hear("bob", other, {"state": "approved", "reason": "", "attempt": 10_000})
        assert alice.store.job(other).state == "failed" and "interrupted 10000 times" in alice.store.job(other).reason

    run(scenario())


def test_who_gets_nothing_need_not_run_again_when_all_results_are_there(folder: Path, program: str) -> None:
    async def scenario() -> None:
        alice, bob = (Party(settings.load(folder / p / "service.toml")) for p in ("alice", "bob"))
        row = alice.submit("ann", program, inputs())  # its result is alice's
        bob.receive("alice", row.job.as_dict())
        bob.store.began(row.id, again.data_of(bob.settings, row.job))
        bob.store.set(row.id, "running")
        bob.resume()
        bob.hear("carol", row.id, {"state": "done", "reason": "", "attempt": 0})
        assert bob.store.job(row.id).state == "approved"  # whether alice has it is not known yet
        bob.hear("alice", row.id, {"state": "done", "reason": "", "attempt": 0})
        assert bob.store.job(row.id).state == "done"
        assert "all results are there" in bob.store.job(row.id).reason

    run(scenario())
