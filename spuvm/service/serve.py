"""Running a service: one port for peers, one page for the party's own people, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from aiohttp import web

from spuvm.policy.rules import load_rules, unknown
from spuvm.runtime.errors import ConfigError, LinkError, SpuError
from spuvm.runtime.link import certificates
from spuvm.service import identity, processes, upkeep, wire
from spuvm.service.crowd import SERVER, Crowd, many_files
from spuvm.service.desk import Desk
from spuvm.service.party import Party
from spuvm.service.port import Port, ways_of
from spuvm.service.settings import Settings

LOG = logging.getLogger("spuvm.service")
TICK = 1.0
AFTER_FAILURE = 10.0
KEEPALIVE = 20.0
UPKEEP: dict[Callable[[Party], None], float] = {  # and seconds until it is done again
    upkeep.ask_again: 0.0,
    Party.expire: 0.0,
    Party.go_on: 10.0,
    upkeep.note_users: 0.0,
    upkeep.forget: 3600.0,
}


@contextlib.asynccontextmanager
async def running(settings: Settings, passphrase: str | None = None) -> AsyncIterator[Party]:
    """A service as a context: it serves while the block runs."""
    with _alone(settings.state):
        async with _serving(settings, passphrase) as party:
            yield party


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Keep the folder to this process: two services on it would each break the other's record."""
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = open(state / "lock", "a")  # noqa: SIM115
    except OSError as error:
        raise ConfigError(f"the folder of `state`, {state}, cannot be written: {error.strerror or error}.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another service runs on {state}: end it, or give each a `state` of its own.") from None
        except OSError as error:
            raise ConfigError(f"the folder of `state`, {state}, cannot be locked: {error.strerror or error}.") from None
        yield


@contextlib.asynccontextmanager
async def _serving(settings: Settings, passphrase: str | None) -> AsyncIterator[Party]:
    party = Party(settings, passphrase)
    _warn(settings)
    ways = ways_of(settings)
    sender = wire.Sender(party, ways, passphrase)
    peers = web.AppRunner(wire.app(party), keepalive_timeout=KEEPALIVE, access_log=None, logger=SERVER)
    desk = Desk(party)
    page = web.AppRunner(desk.app(), keepalive_timeout=KEEPALIVE, access_log=None, logger=SERVER)
    tls = None if settings.page.is_loopback else _page_tls(settings, passphrase)
    port: Port | None = None
    listening: asyncio.Server | None = None
    ticker: asyncio.Task[None] | None = None
    try:
        await peers.setup()
        await page.setup()
        try:
            assert peers.server is not None and page.server is not None
            desk.crowd = Crowd(page.server)
            listening = await desk.crowd.listen(settings.page.host, settings.page.port, tls)
            context = wire.context(settings, ssl.Purpose.CLIENT_AUTH, passphrase)
            port = Port(settings, ways, context, peers.server, party.doors, party.runs)
        except (OSError, LinkError) as error:
            at = settings.page if isinstance(error, OSError) else settings.listen
            raise ConfigError(f"cannot listen at {at}: {getattr(error, 'strerror', None) or error}") from None
        await sender.start()
        party.resume()
        ticker = asyncio.get_running_loop().create_task(_tick(party))
        yield party
    finally:
        if ticker is not None:
            ticker.cancel()
            await sender.close()
        if port is not None:
            await port.close()
        await party.close()
        if listening is not None:
            listening.close()
        for runner in (peers, page):
            await runner.cleanup()


async def _tick(party: Party) -> None:
    """What fails (a full disk, a locked store) is in the log, and tried again: without it jobs would wait forever."""
    due = dict.fromkeys(UPKEEP, 0.0)
    while True:
        await asyncio.sleep(TICK)
        for work in [w for w, moment in due.items() if time.monotonic() > moment]:
            pause = UPKEEP[work]
            try:
                work(party)
            except Exception:
                LOG.exception("%s failed, and is tried again", work.__name__)
                pause = AFTER_FAILURE
            due[work] = time.monotonic() + pause


def _page_tls(settings: Settings, passphrase: str | None) -> ssl.SSLContext:
    """A page that others than this machine reach has TLS."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(settings.certificate, settings.key, password=passphrase or "")
    return made


def _warn(settings: Settings) -> None:
    warning = certificates.ending(identity.read(settings.certificate))
    if warning is not None:
        LOG.warning("%s: %s", settings.certificate, warning)
    for name, path in settings.data.items():
        if not path.is_file():
            LOG.warning("`%s` of the catalogue: there is no file %s: jobs that use it are refused", name, path)
    try:
        rules = load_rules(settings.policy)
    except SpuError as error:
        return LOG.warning("every job is refused until the policy is mended: %s", error)
    for what in unknown(rules, settings.services, settings.data):
        LOG.warning("%s, %s: it allows nothing", settings.policy, what)


def serve(settings: Settings, passphrase: str | None = None, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT."""

    many_files()

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with running(settings, passphrase):
            processes.warm()
            ready()
            await stop.wait()

    asyncio.run(main())
