"""Log-in by a provider of identities: one in this process, with real signatures; and ways around it, all refused."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import aiohttp
import pytest
from aiohttp import web
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.jwk import RSAKey
from services import entries, folder, run, services

from spuvm.runtime.errors import ConfigError, InputError
from spuvm.runtime.link.certificates import free_ports
from spuvm.runtime.link.parties import Address
from spuvm.service import provider, settings
from spuvm.service.logins import COOKIE, Logins
from spuvm.service.oidc import Oidc
from spuvm.service.party import Party

__all__ = ["folder"]
CLIENT, SECRET = "spuvm", "a secret: of %20 alice"
KEY, OTHER = (RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}) for kid in ("one", "two"))


@dataclass
class Issuer:
    """What a provider does, right unless it is told otherwise: `claims` and `sign` change a token."""

    address: str
    claims: dict[str, Any] = field(default_factory=dict)
    sign: Callable[[dict[str, Any]], str] = lambda claims: jwt.encode({"alg": "RS256", "kid": "one"}, claims, KEY)
    keys: list[RSAKey] = field(default_factory=lambda: [KEY])
    says_it_is: str = ""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    exchanged: int = 0

    def app(self) -> web.Application:
        made = web.Application()
        made.router.add_get("/.well-known/openid-configuration", self.describe)
        made.router.add_get("/keys", self.publish)
        made.router.add_get("/authorize", self.authorize)
        made.router.add_post("/token", self.token)
        return made

    async def describe(self, _: web.Request) -> web.Response:
        ends = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
        issuer = {"issuer": self.says_it_is or self.address}
        return web.json_response(issuer | {k: self.address + v for k, v in ends.items()})

    async def publish(self, request: web.Request) -> web.StreamResponse:
        """In two pieces, as long answers come."""
        said = json.dumps({"keys": [k.as_dict(private=False) for k in self.keys]}).encode()
        answer = web.StreamResponse()
        await answer.prepare(request)
        for piece in (said[:9], said[9:]):
            await answer.write(piece)
            await asyncio.sleep(0.05)
        return answer

    async def authorize(self, request: web.Request) -> web.StreamResponse:
        """Somebody has logged in here."""
        asked = dict(request.query)
        assert asked["response_type"] == "code" and "openid" in asked["scope"] and asked["client_id"] == CLIENT
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        raise web.HTTPFound(f"{asked['redirect_uri']}?code={code}&state={asked['state']}")

    async def token(self, request: web.Request) -> web.Response:
        form = await request.post()
        asked = self.codes.pop(str(form["code"]), None)
        given = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        assert [unquote(part) for part in given.split(":")] == [CLIENT, SECRET]
        if asked is None or create_s256_code_challenge(str(form["code_verifier"])) != asked["code_challenge"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.exchanged += 1
        now = int(time.time())
        claims = {"iss": self.address, "aud": CLIENT, "sub": "ann", "iat": now, "exp": now + 300}
        claims |= {"nonce": asked["nonce"]} | self.claims
        return web.json_response({"id_token": self.sign({k: v for k, v in claims.items() if v is not None})})


def other_key(claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "RS256", "kid": "one"}, claims, OTHER)


HMAC_HEAD = b'{"alg": "HS256", "kid": "one"}'


def public_key_as_secret(claims: dict[str, Any]) -> str:
    """The oldest trick: HMAC under what everybody knows."""
    body = other_key(claims).split(".")[1]
    said = f"{_encoded(HMAC_HEAD)}.{body}"
    return f"{said}.{_encoded(hmac.digest(KEY.as_pem(private=False), said.encode(), 'sha256'))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unsigned(claims: dict[str, Any]) -> str:
    _, body, _ = other_key(claims).split(".")
    none = "eyJhbGciOiJub25lIn0"
    return f"{none}.{body}."


def altered(claims: dict[str, Any]) -> str:
    head, _, signature = jwt.encode({"alg": "RS256", "kid": "one"}, claims, KEY).split(".")
    other = jwt.encode({"alg": "RS256", "kid": "one"}, {**claims, "sub": "ben"}, KEY).split(".")[1]
    return f"{head}.{other}.{signature}"


HOUR = 3600
NOW = int(time.time())
WRONG: dict[str, tuple[dict[str, Any], Any, str]] = {
    "it has ended": ({"iat": NOW - 2 * HOUR, "exp": NOW - HOUR}, None, "not valid"),
    "it never ends": ({"exp": None}, None, "not valid"),
    "it is of the future": ({"iat": NOW + HOUR, "exp": NOW + 2 * HOUR}, None, "not valid"),
    "another audience": ({"aud": "another"}, None, "not valid"),
    "for several, and another may use it": ({"aud": [CLIENT, "another"], "azp": "another"}, None, "not valid"),
    "no audience": ({"aud": None}, None, "not valid"),
    "another issuer": ({"iss": "https://elsewhere.example.com"}, None, "not valid"),
    "another nonce": ({"nonce": "x" * 43}, None, "not valid"),
    "no nonce": ({"nonce": None}, None, "not valid"),
    "no name": ({"sub": None}, None, "not valid"),
    "a name that is no text": ({"sub": ["ann"]}, None, "not valid"),
    "somebody else": ({"sub": "mallory"}, None, "no user of this party"),
    "one who has ended": ({"sub": "late"}, None, "no user of this party"),
    "another key": ({}, other_key, "not valid"),
    "a key that is public": ({}, public_key_as_secret, "not valid"),
    "no signature": ({}, unsigned, "not valid"),
    "another name under the signature": ({}, altered, "not valid"),
    "no token": ({}, lambda claims: "a.b.c", "not valid"),
}


class Browser:
    """Follows redirects itself, with cookies as a browser has them."""

    def __init__(self, session: aiohttp.ClientSession, page: str) -> None:
        self.session, self.page = session, page

    async def get(self, address: str) -> tuple[int, str, str]:
        async with self.session.get(address, allow_redirects=False) as answer:
            return answer.status, answer.headers.get("Location", ""), await answer.text()

    async def to_callback(self) -> str:
        """Log in at the provider; where it sends the browser back."""
        status, at, said = await self.get(f"{self.page}/login/provider")
        assert status == 303, said
        assert parse_qs(urlsplit(at).query)["code_challenge_method"] == ["S256"]
        status, back, _ = await self.get(at)
        assert status == 302 and back.startswith(f"{self.page}/login/callback?")
        return back

    async def whoami(self) -> str:
        _, _, text = await self.get(f"{self.page}/")
        found = re.search(r"<span>(.*?)</span>", text)
        return found[1] if found else ""


def scenario(folder: Path, visit: Callable[[Issuer, Party, Callable[[], Browser]], Any]) -> None:
    """A provider, alice's service, and browsers."""

    async def doing() -> None:
        (port,) = free_ports(1)
        issuer = Issuer(f"http://127.0.0.1:{port}")
        path = folder / "alice" / "service.toml"
        page = re.search(r'page = "(.*)"', path.read_text())
        assert page is not None
        secret = folder / "alice" / "oidc.secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        path.write_text(
            f'{path.read_text()}[oidc]\nissuer = "{issuer.address}"\nclient_id = "{CLIENT}"\n'
            f'client_secret_file = "oidc.secret"\nredirect = "http://{page[1]}/login/callback"\n'
        )
        runner = web.AppRunner(issuer.app())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        sessions: list[aiohttp.ClientSession] = []

        def browser() -> Browser:
            sessions.append(aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)))
            return Browser(sessions[-1], f"http://{page[1]}")

        try:
            async with services(folder, "alice") as parties:
                alice = parties["alice"]
                alice.store.add_user("ann", ["submit"], 1)
                alice.store.add_user("late", ["submit"], -1)
                await visit(issuer, alice, browser)
        finally:
            for session in sessions:
                await session.close()
            await runner.cleanup()

    run(doing())


def test_a_user_logs_in_and_out(folder: Path) -> None:
    async def visit(issuer: Issuer, alice: Party, browser: Any) -> None:
        ann = browser()
        assert "Log in by your organisation" in (await ann.get(f"{ann.page}/"))[2]
        back = await ann.to_callback()
        status, _, said = await ann.get(back)
        assert (status, await ann.whoami()) == (200, "ann"), said
        cookies = {c.key: c for c in ann.session.cookie_jar}
        assert cookies["spuvm_session"]["samesite"] == "Strict" and cookies["spuvm_session"]["httponly"]
        status, _, said = await ann.get(back)  # once more: a code and a state are good once
        assert status == 422 and "or was used" in said
        issuer.keys, issuer.sign = [OTHER], lambda claims: jwt.encode({"alg": "RS256", "kid": "two"}, claims, OTHER)
        alice_again = browser()
        provider.AGAIN, before = 0.0, provider.AGAIN  # the provider has new keys: they are read
        try:
            status, _, said = await alice_again.get(await alice_again.to_callback())
        finally:
            provider.AGAIN = before
        assert (status, await alice_again.whoami()) == (200, "ann"), said
        alice.store.remove_user("ann")
        assert await ann.whoami() == ""  # at once

    scenario(folder, visit)


def turned_away(folder: Path) -> int:
    """How often it is in alice's record that somebody was."""
    path = folder / "alice" / "state" / "record.jsonl"
    return path.read_text().count('"turned away"') if path.exists() else 0


def test_what_the_provider_did_not_say_is_refused(folder: Path) -> None:
    async def visit(issuer: Issuer, alice: Party, browser: Any) -> None:
        right = issuer.sign
        for name, (claims, sign, why) in WRONG.items():
            issuer.claims, issuer.sign = claims, sign or right
            ann = browser()
            number = turned_away(folder)
            status, _, said = await ann.get(await ann.to_callback())
            assert status == 422 and why in said, (name, status, said)
            assert await ann.whoami() == "" and turned_away(folder) == number + 1, name
        issuer.claims, issuer.sign = {}, right
        ann, mallory = browser(), browser()
        back = await ann.to_callback()
        status, _, said = await mallory.get(back)  # a link that Mallory was given, or gives to somebody
        assert status == 422 and "another browser" in said
        assert (await ann.get(back))[0] == 422  # and it is used up
        exchanged = issuer.exchanged
        for path in ("", "?code=code-0", "?state=x&code=y", "?error=access_denied", "?state=&code="):
            assert (await ann.get(f"{ann.page}/login/callback{path}"))[0] == 422
        assert issuer.exchanged == exchanged  # nothing was asked for
        assert (await ann.whoami(), await mallory.whoami()) == ("", "")

    scenario(folder, visit)
    assert sum(e.event == "turned away" for e in entries(folder, "alice")) >= len(WRONG) + 7


def test_a_provider_that_is_another_or_away(folder: Path) -> None:
    async def visit(issuer: Issuer, alice: Party, browser: Any) -> None:
        issuer.says_it_is = "https://elsewhere.example.com"
        ann = browser()
        status, _, said = await ann.get(f"{ann.page}/login/provider")
        assert status == 422 and "says that it is 'https://elsewhere.example.com'" in said
        issuer.says_it_is, issuer.keys = "", []
        status, _, said = await ann.get(f"{ann.page}/login/provider")
        assert status == 422 and "cannot be read" in said

    scenario(folder, visit)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("https://login", "http://login"), "`issuer` must be an https address"),
        (("https://login", "https://[login"), "`issuer` must be an https address"),
        (("https://spuvm.example.com:8443", "https://"), "`redirect` must be an https address"),
        (("/login/callback", "/callback"), "`redirect` must end with /login/callback"),
        (("client_id", "client"), "unknown key `client`"),
        (('issuer = "https://login.example.com"\n', ""), "lacks `issuer`"),
        (('client_id = "spuvm"', 'client_id = "spuvm"\nclient_secret_file = "none"'), "cannot be read"),
        (('client_id = "spuvm"', 'client_id = "spuvm"\nclient_secret_file = "open"'), "others can read"),
        (('client_id = "spuvm"', 'client_id = "spuvm"\nclient_secret_file = "empty"'), "is empty"),
        (('client_id = "spuvm"', 'client_id = "spuvm"\nca = "none"'), "there is no file"),
        (('client_id = "spuvm"', "client_id = 1"), "`client_id` must be a text"),
    ],
)
def test_tables_that_are_wrong(folder: Path, change: tuple[str, str], why: str) -> None:
    path = folder / "alice" / "service.toml"
    (folder / "alice" / "open").write_text("secret")
    (folder / "alice" / "open").chmod(0o644)
    (folder / "alice" / "empty").write_text("\n")
    (folder / "alice" / "empty").chmod(0o600)
    before = path.read_text()
    table = (
        '[oidc]\nissuer = "https://login.example.com"\nclient_id = "spuvm"\n'
        'redirect = "https://spuvm.example.com:8443/login/callback"\n'
    )
    path.write_text(before + table)
    assert settings.load(path).oidc is not None
    path.write_text(before + table.replace(*change))
    with pytest.raises(ConfigError, match=re.escape(why)):
        settings.load(path)


BY_HTTPS = Oidc("https://i", "spuvm", None, "https://p/login/callback", "sub", None)


def test_who_waits_for_a_provider_that_is_away_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def ask(self: provider.Provider, method: str, address: str, **more: Any) -> dict[str, Any]:
        asked.append(address)
        await asyncio.sleep(0.05)
        raise InputError("the provider does not answer")

    async def visit() -> list[Any]:
        made = provider.Provider(BY_HTTPS)
        return await asyncio.gather(*(made.begin() for _ in range(5)), return_exceptions=True)

    monkeypatch.setattr(provider.Provider, "_ask", ask)
    assert [str(error) for error in asyncio.run(visit())] == ["the provider does not answer"] * 5
    assert asked == ["https://i/.well-known/openid-configuration"]


@pytest.mark.parametrize(
    ("token", "page", "secure"), [(None, "127.0.0.1", True), ("a token", "127.0.0.1", False), ("a token", "::", True)]
)
def test_the_cookie_of_who_comes_by_https_stays_there(token: str | None, page: str, secure: bool) -> None:
    told: list[str] = []
    record = SimpleNamespace(append=lambda event, user: told.append(f"{user} {event}"))
    settings = SimpleNamespace(oidc=BY_HTTPS, page=Address(page, 8443))
    made = Logins(cast(Party, SimpleNamespace(settings=settings, record=record)))
    made._begin(response := web.Response(), "ann", token)
    assert bool(response.cookies[COOKIE]["secure"]) == secure
    assert told == ["ann logged in"]


def test_a_crowd_keeps_nobody_from_logging_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anybody has proved who he is: where room is short, the oldest of the address that has most goes."""
    made = provider.Provider(BY_HTTPS)

    async def known(self: provider.Provider, oldest: float = 0.0) -> dict[str, str]:
        return {"authorization_endpoint": "https://i/authorize"}

    async def visit() -> list[str]:
        address, browser = await made.begin("10.0.0.1")
        for _ in range(30):
            await made.begin("10.0.0.2")
        return [p.browser for p in made._pending.values() if p.browser == browser and address]

    monkeypatch.setattr(provider, "PENDING", 10)
    monkeypatch.setattr(provider.Provider, "_discover", known)
    assert len(asyncio.run(visit())) == 1
    assert len(made._pending) == 10
