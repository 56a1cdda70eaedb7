"""Three services on one machine: jobs from asking to results, policies that hold, records that agree, and attacks."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import aiohttp
import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.compiler.compile import compile_function
from spuvm.policy import record
from spuvm.runtime.config import Config
from spuvm.runtime.errors import DataError, InputError
from spuvm.runtime.link.certificates import free_ports, make_authority
from spuvm.runtime.link.cluster import Address
from spuvm.runtime.link.tls.relay import Relay
from spuvm.service import again, exporting, identity, jobs, port, serve, settings, tasks, upkeep, wire
from spuvm.service.jobs import Source
from spuvm.service.party import Party
from spuvm.service.serve import running

PARTIES = ("alice", "bob", "carol")
ROWS = 40
POLICY = """
[[allow]]
from = ["alice"]
programs = ["any"]
data = { table = ["x", "y"] }
receivers = ["alice"]
min_rows = 20
approval = "automatic"
"""


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


def total(x: Any, y: Any) -> Any:
    return spu.reveal(jnp.mean(x) + jnp.mean(y), to="alice")


@pytest.fixture(scope="module")
def program() -> str:
    column = np.zeros(ROWS, np.float32)
    config = Config("aby3", 64, 18, PARTIES)
    return compile_function(total, (column, column), [0, 1], config).text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for each party, with its own key, data, policy and service.toml."""
    make_authority(tmp_path / "ca")
    ports = free_ports(6)
    for i, party in enumerate(PARTIES):
        home = tmp_path / party
        key = identity.new_key(home, party)
        identity.write(home / f"{party}.crt", identity.sign(tmp_path / "ca", identity.request(key, party)))
        (home / "ca.crt").write_bytes((tmp_path / "ca" / "ca.crt").read_bytes())
        rng = np.random.default_rng(i)
        table = rng.normal(size=(ROWS, 2)).round(4)
        (home / "table.csv").write_text("x,y\n" + "\n".join(f"{a},{b}" for a, b in table) + "\n")
        (home / "policy.toml").write_text(POLICY)
        services = "\n".join(f'{p} = "127.0.0.1:{ports[j]}"' for j, p in enumerate(PARTIES))
        (home / "service.toml").write_text(
            f'party = "{party}"\nlisten = "127.0.0.1:{ports[i]}"\npage = "127.0.0.1:{ports[3 + i]}"\nstate = "state"\n'
            f'policy = "policy.toml"\nca = "ca.crt"\ncertificate = "{party}.crt"\nkey = "{party}.key"\n'
            f'[services]\n{services}\n[data]\ntable = "table.csv"\n[limits]\nsilence_seconds = 30\n'
        )
    return tmp_path


@asynccontextmanager
async def services(folder: Path, *names: str) -> AsyncIterator[dict[str, Party]]:
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(running(settings.load(folder / name / "service.toml")))
            for name in names or PARTIES
        }


def inputs(x: str = "x", y: str = "y") -> dict[str, Source]:
    return {"x": Source("alice", "table", (x,)), "y": Source("bob", "table", (y,))}


async def until(condition: Callable[[], Any], seconds: float = 200.0) -> None:
    for _ in range(int(seconds / 0.1)):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it did not happen in time")


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 400))


def entries(folder: Path, party: str) -> list[record.Entry]:
    key = identity.read(folder / party / f"{party}.crt").public_key()
    return list(record.verified(folder / party / "state" / "record.jsonl", key))  # type: ignore[arg-type]


def hide(folder: Path, *names: str) -> Address:
    """These parties only connect outwards, and meet at a relay: its address."""
    (port,) = free_ports(1)
    for party in PARTIES:
        path = folder / party / "service.toml"
        text = f'relay = "127.0.0.1:{port}"\n' + path.read_text()
        for name in names:
            text = re.sub(rf'(?m)^{name} = "127.*"$', f'{name} = "outward"', text)
        path.write_text(re.sub(r"(?m)^listen = .*\n", "", text) if party in names else text)
    return Address("127.0.0.1", port)


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
    assert [e.event for e in told["bob"]] == ["asked", "decided", "started", "ended"]
    assert record.disagreements(told) == []
    assert told["alice"][-1].body["counted"]


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
        ({"programs": '["0123"]'}, "another program"),
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
            loans: dict[str, object] = {"loans": {"party": "alice", "data": "table", "columns": [], "number": None}}
            body = {"program": FLOW, "inputs": loans, "note": "<b>note</b>"}
            async with session.post(f"{page}/api/jobs", json=body) as answer:
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
            async with session.post(f"{page}/api/schedules", json={**body, "cron": "0 3 * * *"}) as answer:
                planned = (await answer.json())["id"]
            async with session.post(f"{page}/api/schedules", json={**body, "cron": "99 3 * * *"}) as answer:
                assert "cron line" in (await answer.json())["error"]
            async with session.get(page) as answer:
                assert planned in await answer.text()
            async with session.post(f"{page}/api/schedules/{planned}/remove", json={}) as answer:
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
        for peer, attempt in (("bob", 0), ("carol", 1)):
            alice.hear(peer, id, {"state": "approved", "reason": "", "attempt": attempt})
        assert started == []
        alice.store.set(id, "running")
        alice.store.began(id, again.data_of(alice.settings, alice.store.job(id).job))
        alice.hear("carol", id, {"state": "approved", "reason": "", "attempt": 1})  # hers was killed
        assert (alice.store.job(id).state, alice.store.job(id).attempt) == ("approved", 1)
        assert started == []
        alice.hear("bob", id, {"state": "approved", "reason": "", "attempt": 1})
        assert started == [1]
        alice.hear("bob", id, {"state": "done", "reason": "", "attempt": 0})
        assert "bob has finished" in alice.store.job(id).reason
        for wrong in (-1, 1.5, "1", 10**9, True):
            with pytest.raises(InputError, match="run number"):
                alice.hear("bob", id, {"state": "approved", "reason": "", "attempt": wrong})

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


def test_a_record_that_was_changed_or_cut_is_noticed(folder: Path, program: str) -> None:
    async def scenario() -> None:
        alice = Party(settings.load(folder / "alice" / "service.toml"))
        for _ in range(2):
            alice.submit("ann", program, inputs())

    run(scenario())
    path = folder / "alice" / "state" / "record.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for broken in (
        lines[1:],
        [*lines[:2], lines[2].replace(b"asked", b"ended"), *lines[3:]],
        [lines[1], lines[0]],
    ):
        path.write_bytes(b"".join(broken))
        with pytest.raises(DataError, match="line"):
            entries(folder, "alice")
    path.write_bytes(b"".join(lines[:2]))  # whole, and older than what was told
    with pytest.raises(DataError, match="gone back"):
        Party(settings.load(folder / "alice" / "service.toml"))


def test_records_for_systems_that_collect_logs(folder: Path, program: str) -> None:
    async def scenario() -> None:
        alice = Party(settings.load(folder / "alice" / "service.toml"))
        id = alice.submit("ann", program, inputs()).id
        alice.turned_away("a\u0085stranger\n<1>", "why")
        alice.stop("ann", id)

    run(scenario())
    told = {"alice": entries(folder, "alice")}
    found = [json.loads(line) for line in exporting.lines(told, "json", 0)]
    assert [f["event"] for f in found] == ["asked", "decided", "turned away", "cancelled", "ended"]
    assert [f["hash"] for f in found] == [e.hash for e in told["alice"]]
    last = list(exporting.lines(told, "syslog", 2))
    assert len(last) == 3 and all(
        re.fullmatch(r"<(108|109)>1 \S+ \S+ spuvm-alice - [a-z-]+ - \{[ -~]*\}", x) for x in last
    )
    assert last[0].startswith("<108>") and last[1].startswith("<109>")


def test_a_line_that_a_kill_cut_short_is_dropped(folder: Path) -> None:
    """It was told to nobody. A whole line that is missing is another matter."""
    first = Party(settings.load(folder / "alice" / "service.toml"))
    first.record.append("one")
    first.record.append("two")
    path = folder / "alice" / "state" / "record.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[1][:40])
    again = Party(settings.load(folder / "alice" / "service.toml"))
    again.record.append("three")
    assert [e.event for e in entries(folder, "alice")] == ["one", "two", "three"]


def test_peers_notice_a_record_that_goes_back(folder: Path) -> None:
    bob = Party(settings.load(folder / "bob" / "service.toml"))
    bob.hear_head("alice", 5, "five")
    bob.hear_head("alice", 5, "five")
    bob.hear_head("alice", 3, "three")
    assert "gone back from entry 5 to 3" in bob.alerts[0]


# What fails within a service ------------------------------------------------------------------------------


def failing_once(works: Callable[..., Any]) -> Callable[..., Any]:
    """As on a disk that was full for a while."""
    failed: list[bool] = []

    def call(*args: Any) -> Any:
        if not failed:
            failed.append(True)
            raise sqlite3.OperationalError("database or disk is full")
        return works(*args)

    return call


def test_what_cannot_be_sent_now_is_sent_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More messages than one look at the store finds, and a store that fails."""

    async def scenario() -> None:
        party = Party(settings.load(folder / "alice" / "service.toml"))
        sender = wire.Sender(party, port.ways_of(party.settings))
        for n in range(150):
            party.store.send(["bob"], "/jobs", {"n": n}, 60)
        got: list[int] = []

        async def post(peer: str, path: str, body: str) -> bool:
            got.append(json.loads(body)["n"])
            return True

        monkeypatch.setattr(sender, "_post", post)
        monkeypatch.setattr(party.store, "unsent", failing_once(party.store.unsent))
        await sender.start()
        await until(lambda: len(got) == 150, 60)
        assert got == list(range(150))
        await sender.close()
        await party.close()

    run(scenario())


def test_upkeep_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def first(party: Any) -> None:
        done.append("first")

    def other(party: Any) -> None:
        done.append("other")

    again_ = failing_once(first)
    again_.__name__ = "first"
    monkeypatch.setattr(serve, "UPKEEP", {again_: 0.0, other: 0.0})
    monkeypatch.setattr(serve, "TICK", 0.01)
    monkeypatch.setattr(serve, "AFTER_FAILURE", 0.05)

    async def scenario() -> None:
        ticker = asyncio.get_running_loop().create_task(serve._tick(cast(Any, None)))
        await until(lambda: "first" in done, 60)
        ticker.cancel()

    run(scenario())
    assert done[0] == "other"


def test_a_job_whose_end_could_not_be_written_down_does_not_run_forever(folder: Path, program: str) -> None:
    async def scenario() -> None:
        party = Party(settings.load(folder / "alice" / "service.toml"))
        id = party.submit("anna", program, inputs()).id
        party.store.began(id, again.data_of(party.settings, party.store.job(id).job))
        party.store.set(id, "running")
        party.expire()
        row = party.store.job(id)
        assert (row.state, row.attempt) == ("approved", 1)
        await party.close()

    run(scenario())
