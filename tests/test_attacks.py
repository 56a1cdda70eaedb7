"""Attempts to get from a party what its policy forbids: each is refused, and stands in its record."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm.compiler.compile import compile_function
from spuvm.policy import record
from spuvm.runtime.config import Config
from spuvm.runtime.link.certificates import free_ports, make_authority
from spuvm.service import identity, jobs, settings, wire
from spuvm.service.jobs import Job, Source
from spuvm.service.serve import running

PARTIES = ("alice", "bob", "carol")
ROWS = 40


def compiled(function: Callable[..., Any]) -> str:
    column = np.zeros(ROWS, np.float32)
    return compile_function(function, (column, column), [0, 1], Config("aby3", 64, 18, PARTIES)).text


def allowed(x: Any, y: Any) -> Any:
    return spu.reveal(jnp.mean(x) + 2 * jnp.mean(y), to="alice")


def other_constant(x: Any, y: Any) -> Any:
    return spu.reveal(jnp.mean(x) + 3 * jnp.mean(y), to="alice")


def more_output(x: Any, y: Any) -> Any:
    return spu.reveal(jnp.mean(x) + 2 * jnp.mean(y), to="alice"), spu.reveal(jnp.max(y), to="alice")


def to_carol(x: Any, y: Any) -> Any:
    return spu.reveal(jnp.mean(x) + 2 * jnp.mean(y), to="carol")


def to_all(x: Any, y: Any) -> Any:
    return spu.reveal(jnp.mean(x) + 2 * jnp.mean(y))


def rows_themselves(x: Any, y: Any) -> Any:
    return spu.reveal(x + y, to="alice")


PROGRAMS = {f.__name__: f for f in (allowed, other_constant, more_output, to_carol, to_all, rows_themselves)}
ANY = (
    '{allow}from = ["alice"]\nprograms = ["any"]\ndata = {{ table = ["y"] }}\nreceivers = ["alice"]\n'
    "min_rows = 20\n{more}\n"
)
TASK = (
    '[job]\nkind = "psi"\nparties = ["alice", "bob", "carol"]\nto = ["alice"]\n'
    'key = {{ alice = ["{key}"], bob = ["{key}"] }}\n'
)
CODE = (
    '# /// spuvm\n# kind = "{kind}"\n# parties = ["alice", "bob", "carol"]\n# to = ["alice"]\n{more}'
    '# inputs = {{ y = "bob" }}\n# ///\n\n\ndef f(y):\n    return {{"y": y}}\n'
)
SQL = (
    '[job]\nkind = "sql"\nparties = ["alice", "bob", "carol"]\nto = ["alice"]\ntables = {{ y = "bob" }}\n'
    'query = "select y from y"\n'
)


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    found = {name: compiled(function) for name, function in PROGRAMS.items()}
    found |= {"psi": TASK.format(key="y"), "psi secret": TASK.format(key="secret"), "sql": SQL.format()}
    found |= {
        "stream": CODE.format(kind="stream", more='# function = "f"\n'),
        "script": CODE.format(kind="script", more=""),
    }
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, texts: dict[str, str]) -> Path:
    """A folder for each party; bob's policy allows alice one program on one column."""
    path = tmp_path_factory.mktemp("attacks")
    make_authority(path / "ca")
    make_authority(path / "other")
    ports = free_ports(6)
    for i, party in enumerate(PARTIES):
        home = path / party
        key = identity.new_key(home, party)
        identity.write(home / f"{party}.crt", identity.sign(path / "ca", identity.request(key, party)))
        (home / "t.csv").write_text("x,y,secret\n" + "1,2,3\n" * ROWS)
        hash_ = jobs.read(texts["allowed"]).hash
        (home / "policy.toml").write_text(
            f'[[allow]]\nfrom = ["alice"]\nprograms = ["{hash_}"]\ndata = {{ table = ["y"] }}\nreceivers = ["alice"]\n'
            "min_rows = 20\napprovers = 2\n"
        )
        services = "\n".join(f'{p} = "127.0.0.1:{ports[j]}"' for j, p in enumerate(PARTIES))
        (home / "service.toml").write_text(
            f'party = "{party}"\nlisten = "127.0.0.1:{ports[i]}"\npage = "127.0.0.1:{ports[3 + i]}"\nstate = "state"\n'
            f'policy = "policy.toml"\nca = "../ca/ca.crt"\ncertificate = "{party}.crt"\nkey = "{party}.key"\n'
            f'[services]\n{services}\n[data]\ntable = "t.csv"\n'
        )
    return path


def source(owner: str, data: str = "table", columns: tuple[str, ...] = ("y",)) -> Source:
    return Source(owner, data, columns)


def job(text: str, **inputs: Source) -> dict[str, Any]:
    given = inputs or {"x": source("alice", columns=("x",)), "y": source("bob")}
    return jobs.make("alice", text, given).as_dict()


def altered(body: dict[str, Any], **change: Any) -> dict[str, Any]:
    return {**body, **change}


def of_y(text: str, data: str = "table", columns: tuple[str, ...] = ("y",)) -> dict[str, Any]:
    return job(text, x=source("alice", columns=("x",)), y=source("bob", data, columns))


def wrong_y(body: dict[str, Any], **change: Any) -> dict[str, Any]:
    return altered(body, inputs={**body["inputs"], "y": {**body["inputs"]["y"], **change}})


Make = Callable[[dict[str, str]], Any]
# What peers send as a job: who, and what.
JOBS: dict[str, tuple[str, Make]] = {
    "another constant": ("alice", lambda t: job(t["other_constant"])),
    "one more result": ("alice", lambda t: job(t["more_output"])),
    "another receiver": ("alice", lambda t: job(t["to_carol"])),
    "all as receivers": ("alice", lambda t: job(t["to_all"])),
    "rows, not aggregates": ("alice", lambda t: job(t["rows_themselves"])),
    "another program under the allowed hash": (
        "alice",
        lambda t: altered(job(t["other_constant"]), hash=jobs.read(t["allowed"]).hash),
    ),
    "one more result under the allowed hash": (
        "alice",
        lambda t: altered(job(t["more_output"]), hash=jobs.read(t["allowed"]).hash),
    ),
    "a program with a comment": ("alice", lambda t: altered(job(t["allowed"]), program=t["allowed"] + "# x\n")),
    "a program with spaces": (
        "alice",
        lambda t: altered(job(t["allowed"]), program=t["allowed"].replace(" = ", "  = ", 1)),
    ),
    "another column": ("alice", lambda t: of_y(t["allowed"], columns=("secret",))),
    "a column more": ("alice", lambda t: of_y(t["allowed"], columns=("y", "secret"))),
    "all columns": ("alice", lambda t: of_y(t["allowed"], columns=())),
    "a star": ("alice", lambda t: of_y(t["allowed"], columns=("*",))),
    "all but one": ("alice", lambda t: wrong_y(job(t["allowed"]), columns=["-x"])),
    "two columns in one": ("alice", lambda t: wrong_y(job(t["allowed"]), columns=["y,secret"])),
    "a column with an owner": ("alice", lambda t: wrong_y(job(t["allowed"]), columns=["y@alice"])),
    "no such table": ("alice", lambda t: of_y(t["allowed"], "salaries")),
    "a path": ("alice", lambda t: of_y(t["allowed"], "/etc/passwd")),
    "a path upwards": ("alice", lambda t: of_y(t["allowed"], "../bob/bob.key")),
    "a path beside": ("alice", lambda t: of_y(t["allowed"], "t.csv")),
    "a path behind the name": ("alice", lambda t: of_y(t["allowed"], "table/../../bob.key")),
    "a table with a zero byte": ("alice", lambda t: of_y(t["allowed"], "table\0")),
    "a url": ("alice", lambda t: of_y(t["allowed"], "sqlite:///state/service.sqlite")),
    "a number in place of data": ("alice", lambda t: wrong_y(job(t["allowed"]), number=1.0)),
    "data of another": ("alice", lambda t: wrong_y(job(t["allowed"]), party="carol")),
    "no owner": ("alice", lambda t: wrong_y(job(t["allowed"]), party=None)),
    "no data": ("alice", lambda t: wrong_y(job(t["allowed"]), data=None)),
    "an argument left out": ("alice", lambda t: altered(job(t["allowed"]), inputs={})),
    "an argument more": (
        "alice",
        lambda t: altered(job(t["allowed"]), inputs={**job(t["allowed"])["inputs"], "z": source("bob").as_dict()}),
    ),
    "in another's name": ("carol", lambda t: job(t["allowed"])),
    "in bob's own name": ("alice", lambda t: altered(job(t["allowed"]), requester="bob")),
    "by one who may not": ("carol", lambda t: altered(job(t["allowed"]), requester="carol")),
    "from the past": ("alice", lambda t: altered(job(t["allowed"]), created=0.0)),
    "from the future": ("alice", lambda t: altered(job(t["allowed"]), created=4e9)),
    "from no time": ("alice", lambda t: altered(job(t["allowed"]), created=float("nan"))),
    "a matching by a column that is not allowed": (
        "alice",
        lambda t: job(t["psi secret"], alice=source("alice"), bob=source("bob")),
    ),
    "a matching, which shows rows": ("alice", lambda t: job(t["psi"], alice=source("alice"), bob=source("bob"))),
    "a query of all": ("alice", lambda t: job(t["sql"], y=source("bob"))),
    "a stream that nobody read": ("alice", lambda t: job(t["stream"], y=source("bob"))),
    "a script that nobody read": ("alice", lambda t: job(t["script"], y=source("bob"))),
    "a task under the allowed hash": (
        "alice",
        lambda t: altered(job(t["script"], y=source("bob")), hash=jobs.read(t["allowed"]).hash),
    ),
    "no job": ("alice", lambda t: {}),
    "a list": ("alice", lambda t: []),
    "a text": ("alice", lambda t: "job"),
    "another format": ("alice", lambda t: altered(job(t["allowed"]), format=2)),
    "a note that clears the screen": ("alice", lambda t: altered(job(t["allowed"]), note="\x1b[2J")),
    "a note without end": ("alice", lambda t: altered(job(t["allowed"]), note="x" * 10_000)),
    "a nonce without end": ("alice", lambda t: altered(job(t["allowed"]), nonce="x" * 10_000)),
    "a program that is a number": ("alice", lambda t: altered(job(t["allowed"]), program=1)),
    "an empty program": ("alice", lambda t: altered(job(t["allowed"]), program="")),
    "inputs that are a list": ("alice", lambda t: altered(job(t["allowed"]), inputs=[])),
}
# Other messages: who, path, body as it is.
MESSAGES: dict[str, tuple[str, str, bytes]] = {
    "no JSON": ("alice", "/jobs", b"{"),
    "no text": ("alice", "/jobs", b"\xff\xfe"),
    "JSON without end": ("alice", "/jobs", b"[" * 200_000),
    "no head": ("alice", "/jobs", b'{"message": {}}'),
    "a head of infinity": ("alice", "/jobs", b'{"head": [1e999, "x"], "message": {}}'),
    "a head of a large number": ("alice", "/jobs", b'{"head": [99999999999999999999999, "x"], "message": {}}'),
    "news of no job": ("alice", "/jobs/x/news", b'{"head": [0, "x"], "message": {"state": "done"}}'),
    "another path": ("alice", "/users", b"{}"),
    "a path upwards in news": ("alice", "/jobs/..%2f..%2fusers/news", b'{"head": [0, "x"], "message": {}}'),
}
NEWS: dict[str, Any] = {
    "another state": {"state": "allowed", "reason": ""},
    "a state that is a list": {"state": ["approved"], "reason": ""},
    "a state of a person": {"state": "approve", "reason": ""},
    "no state": {"reason": ""},
    "no reason": {"state": "approved"},
    "a list": [],
}


async def post(session: aiohttp.ClientSession, url: str, data: Any, **more: Any) -> int:
    async with session.post(url, data=data, allow_redirects=False, **more) as answer:
        await answer.read()
        return answer.status


async def attack(folder: Path, texts: dict[str, str]) -> dict[str, str]:
    """Try everything; what went wrong, by attack."""
    wrong: dict[str, str] = {}
    tls = {p: wire.context(settings.load(folder / p / "service.toml"), ssl.Purpose.SERVER_AUTH) for p in PARTIES}
    async with (
        running(settings.load(folder / "bob" / "service.toml")) as bob,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        peers, page = f"https://{bob.settings.listen}", f"http://{bob.settings.page}"

        async def check(name: str, doing: Any, fine: tuple[int, ...] = (400, 401, 403, 404, 405, 413, 422)) -> None:
            """It is refused at once, or becomes a job that is refused; and the record has it."""
            open_, number = {r.id for r in bob.store.jobs(only_open=True)}, bob.record.number
            status = await doing
            now = {r.id for r in bob.store.jobs(only_open=True)}
            if now - open_ or bob.running:
                wrong[name] = f"a job that waits or runs: {now - open_}"
            elif status not in fine and not (status == 200 and bob.store.jobs(limit=1)[0].state == "refused"):
                wrong[name] = f"it was answered {status}"
            elif bob.record.number == number:
                wrong[name] = "it is not in the record"

        for name, (who, make) in JOBS.items():
            body = json.dumps({"head": [0, "0"], "message": make(texts)})
            await check(name, post(session, f"{peers}/jobs", body, ssl=tls[who], server_hostname="bob"))
        for name, (who, path, raw) in MESSAGES.items():
            await check(name, post(session, peers + path, raw, ssl=tls[who], server_hostname="bob"))
        real = jobs.make("alice", texts["allowed"], {"x": source("alice", columns=("x",)), "y": source("bob")})
        await _with_a_real_job(check, session, bob, peers, page, tls, real)
    return wrong


async def _with_a_real_job(
    check: Any, session: aiohttp.ClientSession, bob: Any, peers: str, page: str, tls: Any, real: Job
) -> None:
    """A job that policy lets people decide about, and ways around them."""
    envelope = {"head": [0, "0"], "message": real.as_dict()}
    given = {"ssl": tls["alice"], "server_hostname": "bob"}
    assert await post(session, f"{peers}/jobs", json.dumps(envelope), **given) == 200
    assert bob.store.job(real.id).state == "waiting"
    assert await post(session, f"{peers}/jobs", json.dumps(envelope), **given) == 200  # replayed: the same job
    assert len(bob.store.jobs(only_open=True)) == 1
    for name, said in NEWS.items():
        news = json.dumps({"head": [0, "0"], "message": said})
        await check(name, post(session, f"{peers}/jobs/{real.id}/news", news, **given))
    tokens = {role: bob.store.add_user(role, [role], 1) for role in ("submit", "approve", "operate")}
    ended = bob.store.add_user("late", ["approve"], -1)
    gone = bob.store.add_user("gone", ["approve"], 1)
    bob.store.remove_user("gone")
    while bob.store.users_changed():  # until they are in the record
        await asyncio.sleep(0.1)
    api, right = f"{page}/api/jobs/{real.id}", {"hash": real.hash}

    def by(token: str) -> Any:
        return {"headers": {"Authorization": f"Bearer {token}"}}

    for name, path, token, body in (
        ("a guessed token", "approve", "x" * 43, right),
        ("no token", "approve", "", right),
        ("a token that ended", "approve", ended, right),
        ("a token of one who left", "approve", gone, right),
        ("one who may only submit", "approve", tokens["submit"], right),
        ("one who may only operate", "approve", tokens["operate"], right),
        ("an approval of another hash", "approve", tokens["approve"], {"hash": "0" * 64}),
        ("an approval of the start of a hash", "approve", tokens["approve"], {"hash": real.hash[:16]}),
        ("an approval of nothing", "approve", tokens["approve"], {}),
        ("cancelled by one who may only approve", "cancel", tokens["approve"], {}),
        ("a name of SQL", "approve' or '1'='1", tokens["approve"], right),
    ):
        await check(name, post(session, f"{api}/{path}", json.dumps(body), **by(token)))
    assert await post(session, f"{page}/login", {"token": tokens["approve"]}) == 303
    form = f"{page}/jobs/{real.id}/approve"
    await check("a form of another site", post(session, form, right))
    await check("a form with a guessed number", post(session, form, {**right, "csrf": "x" * 43}))

    async def get(path: str, token: str = "") -> int:
        async with session.get(page + path, **(by(token) if token else {})) as answer:
            await answer.read()
            return answer.status

    text = {"headers": {"Content-Type": "text/plain"}}  # what another page of this machine may send with the cookie
    for name, path, more in (
        ("an approval by the cookie alone", f"/api/jobs/{real.id}/approve", {}),
        ("an approval as a text of another page", f"/api/jobs/{real.id}/approve", text),
        ("a refusal as a text of another page", f"/api/jobs/{real.id}/refuse", text),
        ("an erasure by the cookie", f"/api/jobs/{real.id}/erase", text),
        ("data withdrawn by the cookie", "/api/data/table/withdraw", text),
        ("an approval by an empty token", f"/api/jobs/{real.id}/approve", by(" ")),
        ("data by a path", "/api/data/..%2fbob.key/withdraw", by(tokens["operate"])),
        ("a schedule by one who may only approve", "/api/schedules", by(tokens["approve"])),
        ("a token in the address", f"/api/jobs/{real.id}/approve?token={tokens['approve']}", {}),
    ):
        await check(name, post(session, page + path, json.dumps(right), **more))
    await check("jobs by the cookie", get("/api/jobs"))
    await check("a result before its time", get(f"/api/jobs/{real.id}/results/out", tokens["submit"]))
    await check("a report of what is no flow", get(f"/jobs/{real.id}/report"))
    await check("back from a provider that there is not", get("/login/callback?code=x&state=y"))
    await check("an approval by a link", get(f"/jobs/{real.id}/approve"))
    await check("a result by a path", get(f"/api/jobs/{real.id}/results/..%2f..%2f..%2fbob.key", tokens["submit"]))
    await check("a log by one who may only submit", get(f"/api/jobs/{real.id}/log", tokens["submit"]))
    await check("a job by a path", get("/jobs/..%2f..%2fbob.key", tokens["submit"]))
    # One person twice is one pair of eyes; two are needed.
    for _ in range(2):
        assert await post(session, f"{api}/approve", json.dumps(right), **by(tokens["approve"])) == 200
    assert bob.store.job(real.id).state == "waiting"


def test_what_policy_forbids_is_refused_and_recorded(folder: Path, texts: dict[str, str]) -> None:
    assert len(JOBS) + len(MESSAGES) + len(NEWS) + 17 >= 60
    wrong = asyncio.run(asyncio.wait_for(attack(folder, texts), 120))
    assert wrong == {}
    key = identity.read(folder / "bob" / "bob.crt").public_key()
    told = list(record.verified(folder / "bob" / "state" / "record.jsonl", key))  # type: ignore[arg-type]
    assert not [e for e in told if e.event == "started"]


def test_a_rule_that_ended_or_is_used_up_refuses(folder: Path, texts: dict[str, str]) -> None:
    from datetime import date

    from spuvm.policy.rules import decide, load_rules

    made = jobs.make("alice", texts["allowed"], {"x": source("alice", columns=("x",)), "y": source("bob")})
    asked = jobs.asked(made, jobs.check(made), "bob", lambda name: ROWS)
    for more, taken in (("until = 2020-01-01", 0), ("per_day = 2", 2)):
        path = folder / "rule.toml"
        path.write_text(ANY.format(allow="[[allow]]\n", more=more))
        assert decide(load_rules(path), asked, date(2026, 1, 1), {1: taken}).state == "refused"
        assert decide(load_rules(path), asked, date(2019, 1, 1), {1: 0}).state == "ask"
