"""For a party's own people: pages that need no JavaScript, the same as JSON for the command line, health and metrics.

A request proves who it is as `service/logins.py` says; what changes something needs a role.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from spuvm.runtime.errors import InputError, SpuError
from spuvm.service import jobs, runner, upkeep
from spuvm.service.crowd import Crowd, body_of
from spuvm.service.full import FULL, unwritable
from spuvm.service.logins import Logins
from spuvm.service.oidc import CALLBACK
from spuvm.service.party import Party
from spuvm.service.progress import flow_of, nodes_of
from spuvm.service.shown import brief, inputs_of, planned, shown
from spuvm.service.states import STATES
from spuvm.service.store import Row, User

LISTED = 500  # jobs, if nobody says how many
LOGGED = 1 << 20  # bytes of what a process printed last
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass
class Desk:
    """The pages of one party."""

    party: Party
    pages: jinja2.Environment = field(
        default_factory=lambda: jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "pages"), autoescape=True
        )
    )

    def __post_init__(self) -> None:
        self.logins = Logins(self.party)
        self.crowd: Crowd | None = None

    def app(self) -> web.Application:
        made = web.Application(client_max_size=jobs.MAX_PROGRAM * 2, middlewares=[self._guard])
        add = made.router
        add.add_get("/", self.index)
        add.add_get("/jobs/{id}", self.job)
        add.add_post("/login", self.login)
        add.add_post("/logout", self.logins.logout)
        add.add_get("/login/provider", self.logins.to_provider)
        add.add_get(CALLBACK, self.logins.from_provider)
        add.add_get("/health", self.health)
        add.add_get("/metrics", self.metrics)
        add.add_get("/api/jobs", self.list)
        add.add_post("/api/jobs", self.submit)
        add.add_get("/api/schedules", self.schedules)
        add.add_post("/api/schedules", self.schedule)
        add.add_post("/api/schedules/{id}/remove", self.unschedule)
        add.add_get("/flows", self.flows)
        add.add_get("/jobs/{id}/report", self.report)
        add.add_get("/api/jobs/{id}", self.show)
        add.add_get("/api/jobs/{id}/log", self.log)
        add.add_get("/api/jobs/{id}/results/{name}", self.result)
        add.add_post("/api/jobs/{id}/erase", self.erase)
        add.add_post("/api/data/{name}/withdraw", self.withdraw)
        add.add_post("/api/data/{name}/grant", self.grant)
        for act in ("approve", "refuse", "cancel"):
            add.add_post(f"/jobs/{{id}}/{act}", self._act(act, page=True))
            add.add_post(f"/api/jobs/{{id}}/{act}", self._act(act, page=False))
        return made

    # who asks -----------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.crowd is not None:
            self.crowd.heard(request)
        try:
            if request.method == "POST":
                await body_of(request, self.logins.user(request) is not None)
            response: web.StreamResponse = await handler(request)
        except web.HTTPException as answer:
            answer.headers.update(HEADERS)
            if answer.status >= 400 and request.path != "/":
                self.party.turned_away("somebody at the page", f"{request.method} {request.path:.100}: {answer.status}")
            raise
        except SpuError as error:
            response = self._problem(request, str(error), 422)
        except ConnectionError:  # it has gone away
            raise
        except FULL as error:
            response = self._problem(request, unwritable(error), 503)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            response = self._problem(request, "the request is not of the form that this page or command sends", 400)
        response.headers.update(HEADERS)
        return response

    def _problem(self, request: web.Request, what: str, status: int) -> web.Response:
        self.party.turned_away("somebody at the page", f"{request.method} {request.path:.100}: {what}")
        if request.path.startswith("/api/"):
            return web.json_response({"error": what}, status=status)
        return web.Response(text=what, status=status)

    def _user(self, request: web.Request, role: str | None = None) -> User:
        user = self.logins.user(request)
        if user is None:
            if request.path.startswith("/api/"):
                raise web.HTTPUnauthorized(text='{"error": "no user has this token, or it has ended"}')
            raise web.HTTPSeeOther("/")
        if role is not None and role not in user.roles:
            raise web.HTTPForbidden(text=f'{{"error": "this needs the role {role}, which {user.name} has not"}}')
        return user

    # pages --------------------------------------------------------------------------------------------

    def _page(self, name: str, request: web.Request, status: int = 200, **values: Any) -> web.Response:
        session = self.logins.session(request)
        text = self.pages.get_template(name).render(
            party=self.party.settings.party,
            provider=self.logins.provider is not None,
            alerts=self.party.alerts,
            csrf=session.csrf if session else "",
            **values,
        )
        return web.Response(text=text, content_type="text/html", status=status)

    async def index(self, request: web.Request) -> web.Response:
        user = self.logins.user(request)
        if user is None:
            return self._page("login.html", request, user=None)
        rows = [shown(row) for row in self.party.store.jobs(limit=100)]
        schedules = [planned(s) for s in self.party.schedules.all()]
        return self._page("jobs.html", request, user=user, rows=rows, planned=schedules)

    async def job(self, request: web.Request) -> web.Response:
        user = self._user(request)
        row = self.party.store.job(request.match_info["id"])
        more = {"nodes": nodes_of(self.party.settings, row), "has_report": self._report(row).is_file()}
        return self._page("job.html", request, user=user, row=shown(row) | self._parties(row) | more)

    async def flows(self, request: web.Request) -> web.Response:
        """All jobs that are flows, the runs of each text together, the newest first."""
        user = self._user(request)
        found: dict[str, dict[str, Any]] = {}
        for row in self.party.store.jobs(limit=1000):
            if (name := flow_of(row)) is not None:
                runs = found.setdefault(row.job.hash, {"name": name, "hash": row.job.hash, "runs": []})["runs"]
                nodes = nodes_of(self.party.settings, row)
                done = sum(n["state"] in ("done", "cached") for n in nodes)
                runs.append(shown(row) | {"done": done, "nodes": len(nodes), "has_report": self._report(row).is_file()})
        return self._page("flows.html", request, user=user, flows=list(found.values()))

    def _report(self, row: Row) -> Path:
        return self.party.settings.state / "jobs" / row.id / "results" / "report.html"

    async def report(self, request: web.Request) -> web.Response:
        """The page that a flow made of its run."""
        self._user(request)
        row = self.party.store.job(request.match_info["id"])
        path = self._report(row)
        if flow_of(row) is None or row.state != "done" or not path.is_file():
            raise InputError(f"job {row.id} has no report here: it is {row.state}.")
        return web.Response(body=path.read_bytes(), content_type="text/html", charset="utf-8")

    async def login(self, request: web.Request) -> web.StreamResponse:
        answer = await self.logins.by_token(request)
        return answer if answer is not None else self._page("login.html", request, 401, user=None, wrong=True)

    def _act(self, act: str, page: bool) -> Callable[[web.Request], Any]:
        role = "operate" if act == "cancel" else "approve"

        async def handler(request: web.Request) -> web.StreamResponse:
            user, id = self._user(request, role), request.match_info["id"]
            body = await self.logins.form(request) if page else await request.json()
            if act == "approve":
                asked = self.party.store.job(id).job
                await self.party.look(asked.program, asked.inputs)
                row = self.party.approve(user.name, id, str(body["hash"]))
            else:
                row = self.party.stop(user.name, id, "refused" if act == "refuse" else "cancelled")
            if page:
                raise web.HTTPSeeOther(f"/jobs/{id}")
            return web.json_response(brief(row))

        return handler

    # for programs -------------------------------------------------------------------------------------

    async def list(self, request: web.Request) -> web.Response:
        self._user(request)
        begins, limit = request.query.get("begins", ""), int(request.query.get("limit", LISTED))
        return web.json_response([brief(row) for row in self.party.store.jobs(limit=limit, begins=begins)])

    async def show(self, request: web.Request) -> web.Response:
        self._user(request)
        row = self.party.store.job(request.match_info["id"])
        more = self._parties(row)
        return web.json_response(
            brief(row)
            | {"program": row.job.program, "inputs": {k: s.as_dict() for k, s in row.job.inputs.items()}}
            | more
        )

    async def submit(self, request: web.Request) -> web.Response:
        user = self._user(request, "submit")
        body = await request.json()
        program, inputs, note = str(body["program"]), inputs_of(body), str(body.get("note", ""))
        await self.party.look(program, inputs)
        row = self.party.submit(user.name, program, inputs, note)
        return web.json_response(brief(row))

    async def schedules(self, request: web.Request) -> web.Response:
        self._user(request)
        return web.json_response([planned(s) for s in self.party.schedules.all()])

    async def schedule(self, request: web.Request) -> web.Response:
        user = self._user(request, "submit")
        body = await request.json()
        program, inputs, note = str(body["program"]), inputs_of(body), str(body.get("note", ""))
        jobs.make(self.party.settings.party, program, inputs, note)  # refuses what cannot be asked for
        made = self.party.schedules.add(user.name, str(body["cron"]), program, inputs, note)
        self.party.record.append(
            "scheduled", schedule=made.id, cron=made.cron, program=jobs.read(program).hash, user=user.name
        )
        return web.json_response(planned(made))

    async def unschedule(self, request: web.Request) -> web.Response:
        user, id = self._user(request, "submit"), request.match_info["id"]
        self.party.schedules.remove(id)
        self.party.record.append("unscheduled", schedule=id, user=user.name)
        return web.json_response({})

    async def erase(self, request: web.Request) -> web.Response:
        upkeep.erase(self.party, self._user(request, "operate").name, request.match_info["id"])
        return web.json_response({})

    async def withdraw(self, request: web.Request) -> web.Response:
        user = self._user(request, "operate")
        return web.json_response({"jobs": upkeep.withdraw(self.party, user.name, request.match_info["name"])})

    async def grant(self, request: web.Request) -> web.Response:
        upkeep.grant(self.party, self._user(request, "operate").name, request.match_info["name"])
        return web.json_response({})

    async def log(self, request: web.Request) -> web.Response:
        self._user(request, "operate")
        row = self.party.store.job(request.match_info["id"])
        return web.Response(text=runner.printed(self.party.settings.state / "jobs" / row.id, LOGGED))

    async def result(self, request: web.Request) -> web.StreamResponse:
        self._user(request, "submit")
        row, name = self.party.store.job(request.match_info["id"]), request.match_info["name"]
        results = jobs.read(row.job.program).results
        if name not in results:
            raise InputError(f"job {row.id} has no result {name!r:.60}: it has {', '.join(results) or 'none'}.")
        path = self.party.settings.state / "jobs" / row.id / "results" / results[name][0]
        if row.state != "done" or not path.is_file():
            raise InputError(
                f"result {name} of job {row.id} is not here: the job is {row.state}; it goes to "
                f"{', '.join(results[name][1])} alone, and may have been erased."
            )
        return web.FileResponse(path, headers={"Content-Type": "application/octet-stream"})

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response({"party": self.party.settings.party, "running": len(self.party.running)})

    async def metrics(self, _: web.Request) -> web.Response:
        registry = CollectorRegistry()
        count = Gauge("spuvm_jobs", "Jobs by their state at this party", ["state"], registry=registry)
        counts = self.party.store.counts()
        for state in STATES:
            count.labels(state).set(counts.get(state, 0))
        Gauge("spuvm_alerts", "Records of peers that have gone back", registry=registry).set(len(self.party.alerts))
        Gauge("spuvm_record_entries", "Entries of this party's record", registry=registry).set(self.party.record.number)
        return web.Response(body=generate_latest(registry), headers={"Content-Type": "text/plain; version=0.0.4"})

    def _parties(self, row: Row) -> dict[str, Any]:
        work, news = jobs.read(row.job.program), self.party.store.news(row.id)
        cost = work.cost
        sent = dict(zip(cost.parties, cost.bytes_sent)) if cost else {}
        parties = []
        for name in work.members:
            said = news.get(name)
            away = self.party.away.get(name)
            parties.append(
                {
                    "name": name,
                    "state": said.state if said else "not heard of",
                    "reason": said.reason if said else f"it cannot be reached: {away}" if away else "",
                    "bytes": f"{int(sent[name]):,} bytes" if cost else "not known before",
                }
            )
        people = self.party.store.approved_by(row.id)
        return {
            "parties": parties,
            "people": people,
            "approvers": row.approvers,
            "rounds": cost.rounds if cost else None,
        }
