"""Between services: HTTPS with certificates on both sides, each of which must name the party that speaks.

What has to reach a peer is in the store's outbox and is sent again, with growing pauses, until the peer has it: a peer
that is away for an hour misses nothing. Messages are idempotent.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import logging
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from aiohttp import web
from cryptography import x509

from spuvm.runtime.errors import SpuError
from spuvm.runtime.link import certificates
from spuvm.runtime.link.tls.channel import hang_up, in_words, make_context
from spuvm.runtime.link.tls.ways import Ways
from spuvm.service.beside import beside
from spuvm.service.full import FULL, NOT_NOW, unwritable
from spuvm.service.jobs import MAX_PROGRAM, read
from spuvm.service.party import Party
from spuvm.service.settings import Settings
from spuvm.service.store import no_job

LOG = logging.getLogger("spuvm.service")
MAX_BODY = 40 << 20  # bytes
MAX_ANSWER = 1 << 20
ANSWER_SECONDS = 30.0
DIAL = 2.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
LONG = 1 << 18  # characters
PARTY = web.AppKey("party", Party)


def context(settings: Settings, side: ssl.Purpose, passphrase: str | None = None) -> ssl.SSLContext:
    """TLS 1.3 with this party's certificate; the peer's must come from the same authority, or be pinned, and hold."""
    dials = side is ssl.Purpose.SERVER_AUTH
    protocol = ssl.PROTOCOL_TLS_CLIENT if dials else ssl.PROTOCOL_TLS_SERVER
    made = make_context(protocol, settings.ca, settings.certificate, settings.key, settings.crl, passphrase)
    made.check_hostname = dials  # of the party's name, which is what certificates say
    made.sslobject_class = _pinned(settings.fingerprints)
    return made


def _pinned(pins: Mapping[str, str]) -> type[ssl.SSLObject]:
    """TLS that ends a handshake with a party that has another key than its fingerprint says."""

    class Pinned(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            der = self.getpeercert(binary_form=True)
            if der is not None:
                found = certificates.fingerprint(x509.load_der_x509_certificate(der))
                if any(pins.get(name, found) != found for name in certificates.names(der)):
                    raise ssl.SSLCertVerificationError("the key is not the one whose fingerprint is in the file")

    return Pinned


def caller(request: web.Request, services: Mapping[str, Any]) -> str:
    """The party that the certificate of a connection names."""
    transport = request.transport
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    names = {value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "DNS"}
    known = sorted(names & services.keys())
    if len(known) != 1:
        raise web.HTTPForbidden(text="the certificate names no party of this service")
    return str(known[0])


def app(party: Party) -> web.Application:
    """What peers may ask of this service."""
    made = web.Application(client_max_size=MAX_BODY, middlewares=[_errors])
    made[PARTY] = party
    made.router.add_post("/jobs", _jobs)
    made.router.add_post("/jobs/{id}/news", _news)
    return made


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """An error on purpose is told in words; any other is told as such. Both are in this party's record."""
    party = request.app[PARTY]
    try:
        response: web.StreamResponse = await handler(request)
        return response
    except web.HTTPException as answer:
        party.turned_away(_who(request), answer.text or answer.reason)
        raise
    except SpuError as error:
        status, why = 422, str(error)[:500]
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        status, why = 400, "this is no message of a service"
    except ConnectionError:  # it has gone away
        raise
    except FULL as error:
        unwritable(error)
        return web.json_response({"error": NOT_NOW}, status=503)
    party.turned_away(_who(request), why)
    return web.json_response({"error": why}, status=status)


def _who(request: web.Request) -> str:
    try:
        return caller(request, request.app[PARTY].settings.services)
    except web.HTTPForbidden:
        return "a stranger"


async def _body(request: web.Request) -> tuple[Party, str, Any]:
    party = request.app[PARTY]
    peer = caller(request, party.settings.services)
    body = json.loads(await request.read())
    number, head = body["head"]
    if type(number) is not int or not 0 <= number < 1 << 53 or not isinstance(head, str):
        raise ValueError("no head of a record")
    party.hear_head(peer, number, head[:64])
    return party, peer, body["message"]


async def _jobs(request: web.Request) -> web.Response:
    party, peer, message = await _body(request)
    await _read(message["program"])
    job = party.asked_by(peer, message)
    await party.look(job.program, job.inputs)
    party.receive(peer, message)  # with all checks anew: others may have asked meanwhile
    return web.json_response({})


async def _read(program: Any) -> None:
    """Read a long text beside the loop, which then finds it read; what is wrong with it is said by who uses it."""
    if isinstance(program, str) and LONG < len(program) <= MAX_PROGRAM:
        with suppress(SpuError, ValueError):
            await beside(read, program)


async def _news(request: web.Request) -> web.Response:
    party, peer, message = await _body(request)
    id = request.match_info["id"]
    if party.heard_early(peer, id):  # as it waits for somebody else's message, and asks again and again
        return web.json_response({"error": str(no_job(id))}, status=422)
    party.hear(peer, id, message)
    return web.json_response({})


class Call:
    """A connection to a peer's service, made when it is needed, and kept. Its methods are called in threads."""

    def __init__(self, settings: Settings, ways: Ways, peer: str, tls: ssl.SSLContext) -> None:
        self.peer = peer
        self._ways, self._tls, self._pin = ways, tls, settings.fingerprints.get(peer)
        self._made: http.client.HTTPConnection | None = None
        self._sock: socket.socket | None = None  # on which a thread may wait
        self._over = False

    def post(self, path: str, content: str) -> tuple[int, bytes]:
        """Status and body of the answer. OSError, HTTPException."""
        while True:
            kept, made = self._made is not None, self._made or self._make()
            try:
                made.request("POST", path, content.encode(), {"Content-Type": "application/json"})
                answer = made.getresponse()
                return answer.status, answer.read(MAX_ANSWER)
            except (OSError, http.client.HTTPException):
                self.close()
                if not kept or self._over:  # one that was kept may have ended meanwhile
                    raise

    def _make(self) -> http.client.HTTPConnection:
        self._sock = raw = self._ways.open(self.peer, DIAL)
        try:
            raw.settimeout(ANSWER_SECONDS)
            self._sock = sock = self._tls.wrap_socket(raw, server_hostname=self.peer)
        except BaseException:
            raw.close()
            raise
        made = http.client.HTTPConnection(self.peer)
        made.sock = sock
        self._made = made
        found = certificates.fingerprint(x509.load_der_x509_certificate(sock.getpeercert(True) or b""))
        if self._over or self._pin not in (None, found):
            self.close()
            raise OSError(errno.EACCES, "the key is not the one whose fingerprint is in the file")
        return made

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
        self._made = None

    def end(self) -> None:
        """Called in another thread than `post`."""
        self._over = True
        if self._sock is not None:
            hang_up(self._sock)


class Sender:
    """Empties the outbox: one task a peer, woken when there is something to send."""

    def __init__(self, party: Party, ways: Ways, passphrase: str | None = None) -> None:
        self.party = party
        tls = context(party.settings, ssl.Purpose.SERVER_AUTH, passphrase)
        self._calls = {peer: Call(party.settings, ways, peer, tls) for peer in party.settings.peers}
        self._news = {peer: asyncio.Event() for peer in self._calls}
        self._threads = ThreadPoolExecutor(len(self._calls), "spuvm sender")
        self._tasks: list[asyncio.Task[None]] = []
        party.changed = self.wake

    def wake(self) -> None:
        for event in self._news.values():
            event.set()

    async def start(self) -> None:
        self._tasks = [asyncio.get_running_loop().create_task(self._empty(peer)) for peer in self._news]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for call in self._calls.values():
            call.end()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        for call in self._calls.values():
            call.close()

    async def _empty(self, peer: str) -> None:
        """What fails here (the store on a full disk) is tried again: without this task the peer would hear nothing."""
        pause = FIRST_PAUSE
        while True:
            self._news[peer].clear()
            try:
                sent, stopped, early = await self._send(peer)
            except Exception:
                LOG.exception("what %s is to hear cannot be sent now", peer)
                sent, stopped, early = 0, True, False
            if sent:
                pause = FIRST_PAUSE
            if early and not stopped:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news[peer].wait(), pause)
            elif stopped:
                await asyncio.sleep(pause)
            if early or stopped:
                pause = min(2 * pause, LONGEST_PAUSE)
            elif not sent:
                await self._news[peer].wait()

    async def _send(self, peer: str) -> tuple[int, bool, bool]:
        """How many messages the peer has got now, whether it did not take one, and whether some are too early.

        Those are news of a job that it has not been asked for yet (by somebody else): they hold up those of no other.
        """
        count, early = 0, set[str]()
        while waiting := self.party.store.unsent(peer, early):
            for number, path, body in waiting:
                if path in early:
                    continue
                try:
                    if not await self._post(peer, path, body):
                        return count, True, bool(early)
                except _Early:
                    early.add(path)
                    continue
                self.party.store.sent(number)
                count += 1
        return count, False, bool(early)

    def _in_vain(self, path: str) -> bool:
        """Whether news are of a job that is too old for anybody to be asked for it."""
        try:
            row = self.party.store.job(path.split("/")[2])
        except SpuError:
            return True
        return time.time() - row.received > self.party.settings.limits.wait_seconds

    async def _post(self, peer: str, path: str, body: str) -> bool:
        """Whether the peer has it; one that it refuses is told to this party's log, and not sent again. _Early."""
        head = [self.party.record.number, self.party.record.head]
        content = json.dumps({"head": head, "message": json.loads(body)})
        try:
            loop = asyncio.get_running_loop()
            status, answer = await loop.run_in_executor(self._threads, self._calls[peer].post, path, content)
            if status == 200:
                return self._reached(peer)
            why = str(json.loads(answer).get("error", ""))[:500]
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            return self._away(peer, in_words(error))
        if status >= 500:
            return self._away(peer, why)
        self._reached(peer)
        if path.endswith("/news") and "there is no job" in why and not self._in_vain(path):
            raise _Early
        LOG.warning("%s refuses a message: %s", peer, why)
        if path == "/jobs":
            self.party.refused(peer, json.loads(body), why)
        return True

    def _reached(self, peer: str) -> bool:
        if self.party.away.pop(peer, None) is not None:
            LOG.info("%s can be reached again", peer)
        return True

    def _away(self, peer: str, why: str) -> bool:
        """Said once, until it is another reason: it is tried again and again."""
        if self.party.away.get(peer) != why:
            self.party.away[peer] = why
            LOG.warning("%s cannot be reached, and what it must hear waits: %s", peer, why)
        return False


class _Early(Exception):
    """A peer has news of a job, and not been asked for it yet."""
