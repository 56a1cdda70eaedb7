"""Who is at the page: log-ins by a token or by a provider of identities, and what a request proves.

A command's request proves who it is by a token, a browser's by the cookie of a log-in; what a page changes needs the
log-in's own number too, which another site cannot know. A user who is removed, or whose time ends, is logged out.
"""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from spuvm.runtime.errors import InputError
from spuvm.service.party import Party
from spuvm.service.provider import WAIT, Provider
from spuvm.service.store import User

SESSION_SECONDS = 8 * 3600.0
COOKIE, BEGUN = "spuvm_session", "spuvm_login"
GO_ON = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=/">'
    '<title>spuvm</title><p>You are logged in: <a href="/">go on</a>.</p></html>'
)


@dataclass
class Session:
    name: str
    token: str | None  # by which the user logged in, if by one: with it the log-in ends
    csrf: str
    ends: float


class Logins:
    """Of one party's page."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self.provider = None if party.settings.oidc is None else Provider(party.settings.oidc)
        self._sessions: dict[str, Session] = {}

    def session(self, request: web.Request) -> Session | None:
        session = self._sessions.get(request.cookies.get(COOKIE, ""))
        return session if session is not None and session.ends > time.time() else None

    def user(self, request: web.Request) -> User | None:
        """Whom a request proves to come from."""
        header = request.headers.get("Authorization", "")
        if header.startswith("Bearer "):
            return self.party.store.user(header.removeprefix("Bearer "))
        session = self.session(request)
        if session is None or request.path.startswith("/api/"):  # a cookie comes along with what another page asks for
            return None
        store = self.party.store
        return store.user_named(session.name) if session.token is None else store.user(session.token)

    async def form(self, request: web.Request) -> Any:
        """The form of a page of ours, sent by whom we gave it."""
        form, session = await request.post(), self.session(request)
        if session is None or not hmac.compare_digest(str(form.get("csrf", "")).encode(), session.csrf.encode()):
            raise web.HTTPForbidden(text="this form is not of your log-in: go back, load the page again")
        return form

    async def by_token(self, request: web.Request) -> web.StreamResponse | None:
        """Log in with the token of a form; None if it is nobody's."""
        token = str((await request.post()).get("token", ""))
        if (user := self.party.store.user(token)) is None:
            self.party.turned_away("somebody at the page", "a log-in with no token of a user")
            return None
        response = web.Response(status=303, headers={"Location": "/"})
        self._begin(response, user.name, token)
        return response

    async def logout(self, request: web.Request) -> web.StreamResponse:
        await self.form(request)
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)
        raise web.HTTPSeeOther("/")

    async def to_provider(self, request: web.Request) -> web.StreamResponse:
        """Send a browser to the provider."""
        address, browser = await self._provider().begin(request.remote)
        response = web.Response(status=303, headers={"Location": address})
        # Lax: it must come along when the provider sends the browser back.
        response.set_cookie(
            BEGUN, browser, httponly=True, samesite="Lax", secure=self._by_https, max_age=int(WAIT), path="/login"
        )
        return response

    async def from_provider(self, request: web.Request) -> web.StreamResponse:
        """A browser comes back from the provider, with a code that says who is there."""
        asked = request.query
        if "error" in asked:
            raise InputError(f"the provider of identities says: {asked['error']!r:.100}")
        begun = request.cookies.get(BEGUN, "")
        name = await self._provider().finish(asked.get("state", ""), asked.get("code", ""), begun)
        if self.party.store.user_named(name) is None:
            raise InputError(f"{name!r:.80} is no user of this party, or has ended: `spuvm users add` adds users.")
        # Of our own site from here on: a cookie that is strict does not come along with what another site began.
        response = web.Response(text=GO_ON, content_type="text/html")
        response.del_cookie(BEGUN, path="/login")
        self._begin(response, name, None)
        return response

    def _provider(self) -> Provider:
        if self.provider is None:
            raise web.HTTPNotFound
        return self.provider

    @property
    def _by_https(self) -> bool:
        """Whether browsers that come back from a provider reach the page by https, so that cookies can stay there."""
        return self._provider().settings.redirect.startswith("https:")

    def _begin(self, response: web.Response, name: str, token: str | None) -> None:
        now = time.time()
        self.party.record.append("logged in", user=name)
        self._sessions = {k: s for k, s in self._sessions.items() if s.ends > now}
        key = secrets.token_urlsafe(32)
        self._sessions[key] = Session(name, token, secrets.token_urlsafe(32), now + SESSION_SECONDS)
        secure = self._by_https if token is None else not self.party.settings.page.is_loopback
        response.set_cookie(COOKIE, key, httponly=True, samesite="Strict", secure=secure, max_age=int(SESSION_SECONDS))
