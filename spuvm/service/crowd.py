"""Who connects to the page and asks nothing, or does not come to the end of it: shown out after a while."""

from __future__ import annotations

import asyncio
import logging
import resource
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

SILENT = 10.0  # seconds for the head of a first request
SLOW = 60.0  # and for the body of any
STRANGER = 64 << 10  # bytes of a body of who has not proved who he is
FILES = 16384  # open files of a service: connections, and what else it has


class Unread(logging.Filter):
    """Requests that are none, or end before their end, are no matter for a log: a scan sends thousands."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | ConnectionError))


SERVER = logging.getLogger("spuvm.service.http")
SERVER.addFilter(Unread())


class Crowd:
    """The connections of a page, each of which `serves` makes a protocol for."""

    def __init__(self, serves: Callable[[], Any]) -> None:
        self._serves = serves
        self._silent: set[Any] = set()

    def __call__(self) -> Any:
        made = self._serves()
        self._silent.add(made)
        asyncio.get_running_loop().call_later(SILENT, self._show_out, made)
        return made

    def _show_out(self, made: Any) -> None:
        if made in self._silent:
            self._silent.discard(made)
            if made.transport is not None:
                made.transport.abort()

    def heard(self, request: web.BaseRequest) -> None:
        """It has asked for something."""
        self._silent.discard(request.protocol)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> asyncio.Server:
        handshake = None if tls is None else SILENT / 2  # it is part of the time for the head
        return await asyncio.get_running_loop().create_server(
            self, host, port, ssl=tls, ssl_handshake_timeout=handshake, backlog=128, reuse_address=True
        )


async def body_of(request: web.Request, known: bool) -> None:
    """Read the body of a request, which its handler then has. HTTPRequestTimeout, HTTPRequestEntityTooLarge."""
    length = request.content_length
    if not known and request.can_read_body and (length is None or length > STRANGER):
        raise web.HTTPRequestEntityTooLarge(STRANGER, length or 0, text="log in first")
    try:
        await asyncio.wait_for(request.read(), SLOW)
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the request did not come to its end within {SLOW:g} s") from None


def many_files() -> None:
    """Let this process have as many open files as a crowd may cost it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard < 0 else min(FILES, hard)
    if 0 <= soft < wanted:
        with suppress(ValueError, OSError):  # the system has a limit of its own: then so many as there are
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
