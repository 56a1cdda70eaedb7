"""A party's own service, as its commands speak to it: at the page's address, over TLS if others can reach that."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from spuvm.commands.terminal import say
from spuvm.runtime.errors import ConfigError, InputError, LinkError
from spuvm.service import settings

ANSWER_SECONDS = 30.0
STARTING = 20.0  # that a service may take until it listens
POLL = 0.3
MAX_TOKEN = 1000  # characters


class Desk:
    """The service's own page, as a program uses it. No proxy of the environment sees the token."""

    def __init__(self, config: Path, token: str) -> None:
        if not token.isascii() or not token.isprintable() or not 0 < len(token) <= MAX_TOKEN:
            raise InputError(
                f"`--token` must be the line that `spuvm users add` printed: up to {MAX_TOKEN:,} visible characters."
            )
        self._settings = settings.load(config)
        self._token = token

    def get(self, path: str) -> Any:
        """The answer at a path, in which names that people give are `quoted`."""
        return json.loads(self.raw(path))

    def post(self, path: str, body: Any) -> Any:
        return json.loads(self.raw(path, json.dumps(body).encode()))

    def beginning(self, start: str) -> list[Any]:
        """Jobs whose numbers begin so."""
        found: list[Any] = self.get(f"/api/jobs?begins={quoted(start)}") if start else []
        return found

    def job(self, start: str) -> Any:
        """A job by the beginning of its number."""
        found = [j["id"] for j in self.beginning(start)]
        if len(found) != 1:
            what = "no job" if not found else f"{len(found)} jobs"
            raise InputError(f"{what} begins with {start!r:.40}: `spuvm jobs list` shows them.")
        return self.get(f"/api/jobs/{found[0]}")

    def raw(self, path: str, body: bytes | None = None) -> bytes:
        """The body of an answer; `body` is sent as JSON."""
        page, headers = self._settings.page, {"Authorization": f"Bearer {self._token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(self._settings.party)
        try:
            connection.sock = self._dialled()
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except ssl.SSLCertVerificationError as error:
            raise LinkError(
                f"whoever answers at {page} does not have the key of {self._settings.certificate}, or that has ended: "
                f"{error.verify_message}."
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise LinkError(f"no service answers at {page}: start it with `spuvm serve` ({error}).") from None
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise InputError(_told(answer.status, content))
        return content

    def _dialled(self) -> socket.socket:
        page = self._settings.page
        raw = self._reached()
        if page.is_loopback:
            return raw
        try:
            return self._trusted().wrap_socket(raw, server_hostname=self._settings.party)
        except BaseException:
            raw.close()
            raise

    def _reached(self) -> socket.socket:
        """A connection; a service that was just started may need a moment until it listens. OSError."""
        page, end, told = self._settings.page, time.monotonic() + STARTING, False
        while True:
            try:
                return socket.create_connection((page.host, page.port), ANSWER_SECONDS)
            except ConnectionRefusedError:
                if time.monotonic() > end:
                    raise
            if not told:
                say(f"no service answers at {page} yet: waiting for it, {STARTING:g} s at most")
            told = True
            time.sleep(POLL)

    def _trusted(self) -> ssl.SSLContext:
        """Who has the key of this party's own certificate, and nobody else."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            made.load_verify_locations(self._settings.certificate)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"the certificate {self._settings.certificate} cannot be read: {error}.") from None
        return made


def quoted(name: str) -> str:
    """A name as a part of a path."""
    return quote(name, safe="")


def _told(status: int, content: bytes) -> str:
    try:
        return f"the service says: {json.loads(content)['error']}"
    except (ValueError, KeyError, TypeError):
        return f"the service answers {status}."
