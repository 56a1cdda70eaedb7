"""What a party says to its provider of identities, and what it believes of what that says (`service/oidc.py`).

That is a signed identity token alone (RS256, PS256, ES256 or EdDSA, by the provider's published keys) of this issuer,
for this client, in time, with the random nonce of this very log-in, which is good once, in the browser that began it.
joserfc verifies signatures, Authlib claims (OpenID Connect Core 1.0, 3.1.3.7; PKCE of RFC 7636).
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp

from spuvm.runtime.errors import InputError
from spuvm.service.oidc import Oidc, is_safe

ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]
WAIT = 600.0  # seconds in which somebody must log in at the provider
PENDING = 1000  # log-ins under way
CLOCKS = 60  # seconds by which the provider's may differ
KEYS_LAST = 3600.0  # seconds until the provider's description and keys are read again
AGAIN = 30.0  # seconds at least between two readings
ANSWER = 1 << 20  # bytes of an answer of the provider at most
SECONDS = 10.0  # for an answer


@dataclass
class _Pending:
    """A log-in under way, of one browser."""

    nonce: str
    verifier: str
    browser: str
    ends: float
    address: str | None  # whose it is


@dataclass
class Provider:
    """What this party says to its provider, and believes of what that says. `InputError` for all that is not so."""

    settings: Oidc
    _pending: dict[str, _Pending] = field(default_factory=dict)
    _known: dict[str, Any] = field(default_factory=dict)
    _keys: Any = None
    _read_at: float = -KEYS_LAST
    _failed: tuple[float, str] = (-KEYS_LAST, "")  # when reading them failed last, and why
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def begin(self, address: str | None = None) -> tuple[str, str]:
        """The provider's address to which a browser is sent, and what that browser must have when it comes back.

        `address`: where the browser is. Where room is short, the oldest log-in of the address that has most goes.
        """
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        known = await self._discover()
        now = time.time()
        self._pending = {k: p for k, p in self._pending.items() if p.ends > now}
        if len(self._pending) >= PENDING:
            most, _ = Counter(p.address for p in self._pending.values()).most_common(1)[0]
            del self._pending[next(k for k, p in self._pending.items() if p.address == most)]
        state, nonce, verifier, browser = (secrets.token_urlsafe(32) for _ in range(4))
        self._pending[state] = _Pending(nonce, verifier, browser, now + WAIT, address)
        asked = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self.settings.redirect,
            "scope": "openid" if self.settings.name == "sub" else "openid email profile",
            "state": state,
            "nonce": nonce,
            "code_challenge": create_s256_code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        there = known["authorization_endpoint"]
        return f"{there}{'&' if urlsplit(there).query else '?'}{urlencode(asked)}", browser

    async def finish(self, state: str, code: str, browser: str) -> str:
        """The name of the user who came back with a code: each log-in ends with the first that comes."""
        pending = self._pending.pop(state, None)
        if pending is None or pending.ends < time.time():
            raise InputError("this log-in has ended, or was used: begin anew.")
        if not secrets.compare_digest(pending.browser.encode(), browser.encode()):
            raise InputError("this log-in was begun in another browser: begin anew.")
        token = await self._exchange(code, pending.verifier)
        return await self._name(token, pending.nonce)

    async def _exchange(self, code: str, verifier: str) -> str:
        """The identity token for a code."""
        known, mine = await self._discover(), self.settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": mine.redirect,
            "client_id": mine.client_id,
            "code_verifier": verifier,
        }
        headers = {}
        if mine.client_secret is not None:  # RFC 6749, 2.3.1: both are encoded as in a form
            both = f"{quote(mine.client_id, safe='')}:{quote(mine.client_secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(both.encode()).decode()}"
        answer = await self._ask("POST", known["token_endpoint"], data=form, headers=headers)
        if not isinstance(token := answer.get("id_token"), str):
            raise InputError("the provider of identities gave no identity token.")
        return token

    async def _name(self, token: str, nonce: str) -> str:
        from authlib.oidc.core import CodeIDToken
        from joserfc.errors import JoseError

        mine = self.settings
        try:
            decoded = await self._decode(token)
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                {"iss": {"essential": True, "value": mine.issuer}, "aud": {"essential": True, "value": mine.client_id}},
                {"nonce": nonce, "client_id": mine.client_id},
            )
            claims.validate(leeway=CLOCKS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"the identity token is not valid: {type(error).__name__}: {error!s:.200}") from None
        if not isinstance(name := claims.get(mine.name), str) or not name:
            raise InputError(f"the identity token has no claim `{mine.name}` that is a text.")
        if mine.name == "email" and claims.get("email_verified") is not True:
            raise InputError("the provider of identities has not verified this address of mail.")
        return name

    async def _decode(self, token: str) -> Any:
        """Verified by the provider's keys; one that is not known may be new."""
        from joserfc import jwt
        from joserfc.errors import InvalidKeyIdError

        await self._discover()
        try:
            return jwt.decode(token, self._keys, algorithms=ALGORITHMS)
        except InvalidKeyIdError:
            await self._discover(AGAIN)
            return jwt.decode(token, self._keys, algorithms=ALGORITHMS)

    async def _discover(self, oldest: float = KEYS_LAST) -> dict[str, Any]:
        """What the provider says of itself, and its keys. Who waited while that was read in vain does not try again."""
        asked = time.monotonic()
        async with self._reading:
            if time.monotonic() < self._read_at + oldest:
                return self._known
            failed, why = self._failed
            if failed > asked:
                raise InputError(why)
            try:
                self._known, self._keys = await self._read()
            except InputError as error:
                self._failed = time.monotonic(), str(error)
                raise
            self._read_at = time.monotonic()
            return self._known

    async def _read(self) -> tuple[dict[str, Any], Any]:
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        issuer = self.settings.issuer
        known = await self._ask("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if known.get("issuer") != issuer:
            raise InputError(f"the provider of identities at {issuer} says that it is {known.get('issuer')!r:.200}.")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not isinstance(known.get(name), str) or not is_safe(known[name]):
                raise InputError(f"the provider of identities at {issuer} has no safe `{name}`.")
        keys = await self._ask("GET", known["jwks_uri"])
        try:
            return known, KeySet.import_key_set(_public(keys))
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            raise InputError(f"the keys at {known['jwks_uri']} cannot be read.") from None

    async def _ask(self, method: str, address: str, **more: Any) -> dict[str, Any]:
        ca = self.settings.ca
        tls = ssl.create_default_context(cafile=None if ca is None else str(ca))
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as session,
                session.request(method, address, ssl=tls, allow_redirects=False, **more) as answer,
            ):
                body = b""
                async for piece in answer.content.iter_chunked(1 << 16):
                    body += piece
                    if len(body) > ANSWER:
                        raise ValueError(f"more than {ANSWER:,} bytes")
                found = json.loads(body) if answer.status == 200 else None
        except (OSError, aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            why = str(error) or type(error).__name__
            raise InputError(f"the provider of identities does not answer at {address}: {why:.200}") from None
        if not isinstance(found, dict):
            raise InputError(f"the provider of identities answers {answer.status} at {address}.")
        return found


def _public(keys: dict[str, Any]) -> Any:
    """Keys that verify signatures of the kinds that count: others, and such as would be shared, are not there."""
    found = [k for k in keys["keys"] if k.get("kty") in ("RSA", "EC", "OKP") and k.get("use", "sig") == "sig"]
    return {"keys": found}
