"""One port for all that peers want of a service: HTTPS to the service itself, and the sessions of its jobs.

A connection that begins with TLS is for the service. One that begins with a line names a session: that of a job that
runs here is handed over to the job's process, under a path that is this service's own; that of the services themselves
is a peer's who only connects outwards, and both use it. Nobody has a thread, TLS or a job's ear before the door has let
him in (`link/tls/door.py`).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spuvm.runtime.link.tls.channel import hang_up, in_words
from spuvm.runtime.link.tls.door import SILENT, Door, Guest, hand_over
from spuvm.runtime.link.tls.first_line import FirstLine, hear
from spuvm.runtime.link.tls.ways import Ways
from spuvm.runtime.link.trust import meeting
from spuvm.runtime.scratch import Scratch
from spuvm.service.settings import Settings

LOG = logging.getLogger("spuvm.service")
HANDSHAKE = 10.0  # seconds


def ways_of(settings: Settings) -> Ways:
    """How the services reach each other."""
    session = meeting(settings.ca, tuple(settings.services))
    return Ways(settings.party, settings.services, settings.relay, session, says_to=False)


class Doors:
    """Paths at which the processes of jobs take their connections; gone when the service ends."""

    def __init__(self) -> None:
        self._folder: Scratch | None = None

    def path(self, session: str) -> Path:
        if self._folder is None:
            self._folder = Scratch()  # a socket's path is short
        return self._folder.path / session

    def close(self) -> None:
        if self._folder is not None:
            self._folder.close()


class Port:
    """Made and closed in the event loop of the service. `serves` makes a protocol for each connection of a peer.

    `runs`: whether a session is that of a job which runs here.
    """

    def __init__(
        self,
        settings: Settings,
        ways: Ways,
        tls: ssl.SSLContext,
        serves: Callable[[], Any],
        doors: Doors,
        runs: Callable[[str], bool],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ways, self._tls, self._serves, self._doors, self._runs = ways, tls, serves, doors, runs
        self._door = Door(settings.listen, settings.party, ways.hosts, self._answer, ways.posts())
        self._door.open()

    async def close(self) -> None:
        """Its threads may wait for the loop, which goes on meanwhile."""
        await asyncio.to_thread(self._door.close)
        await asyncio.to_thread(self._ways.close)

    def _answer(self, guest: Guest) -> None:
        guest.sock.setblocking(True)
        try:
            line = hear(guest.sock, SILENT)
            if line is None or (line.verb == "to" and self._ways.admits(line)):
                return self._serve(guest)
            self._door.admit(guest)
            if self._ways.admits(line):
                return self._ways.keep(line, guest.sock)
            self._to_job(line, guest)
        except (OSError, TimeoutError) as error:
            LOG.debug("dropped a connection from %s: %s", guest.host, in_words(error))
        guest.sock.close()

    def _to_job(self, line: FirstLine, guest: Guest) -> None:
        if not self._runs(line.session):
            raise OSError(errno.ENOENT, "no such job runs here")
        guest.line = line
        hand_over(guest, self._doors.path(line.session))

    def _serve(self, guest: Guest) -> None:
        """TLS begins, and who has no certificate gets no further; meanwhile others may crowd it out."""
        guest.sock.setblocking(False)
        made = self._loop.connect_accepted_socket(
            self._serves, guest.sock, ssl=self._tls, ssl_handshake_timeout=HANDSHAKE
        )
        try:
            asyncio.run_coroutine_threadsafe(made, self._loop).result(2 * HANDSHAKE)
            self._door.admit(guest)
        except Exception as error:  # whatever a stranger's TLS leads to
            LOG.debug("dropped a connection from %s: %s", guest.host, error)
            hang_up(guest.sock)
