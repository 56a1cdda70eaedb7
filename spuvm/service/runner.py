"""A job's process: this party's part with its own data, within limits of time, memory and cores.

It ends with the service, and cannot outlive it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spuvm.runtime.link.certificates import PASSPHRASE
from spuvm.service import processes
from spuvm.service.again import interrupted
from spuvm.service.jobs import Job
from spuvm.service.keeping import NOT_ITS
from spuvm.service.processes import Process
from spuvm.service.settings import Settings
from spuvm.service.tasks import argv, toml
from spuvm.service.work import Place, Work

OUTPUT = "output.txt"  # in a job's folder: what its process printed
TAIL = 2000  # bytes of what a process printed that go into the log of this party
POLL = 0.5
COUNTS = "counts.jsonl"  # in a job's folder: what its sessions exchanged
GRACE = 5.0


@dataclass(frozen=True)
class Ended:
    """How a job's process ended; `public` is what peers are told, `private` what this party's people may read.

    `interrupted`: by no fault of its own, so that it may run again.
    """

    state: str
    public: str
    private: str = ""
    interrupted: bool = False


def prepare(settings: Settings, job: Job, work: Work, session: str, door: Path) -> list[str]:
    """Write the job's folder, for this process and nobody else; the command that runs it.

    `session`: the name of this run among all that pass the parties' ports; `door`: where the process gets its part.
    """
    folder = settings.state / "jobs" / job.id
    first = not folder.exists()
    for made in (folder / "results", settings.state / "models"):
        made.mkdir(parents=True, exist_ok=True, mode=0o700)
    if first and work.model is not None and (settings.state / "models" / work.model).exists():
        (folder / NOT_ITS).touch()
    config = folder / "cluster.toml"
    config.write_text(_cluster(settings, work, job.id, session, door))
    mine = {name: source for name, source in job.inputs.items() if source.party == settings.party}
    place = Place(
        settings.party,
        folder.absolute(),
        config.absolute(),
        (settings.state / "models").absolute(),
        settings.sql_policy and settings.sql_policy.absolute(),
        {name: settings.data[str(source.data)].absolute() for name, source in mine.items()},
        {name: source.columns for name, source in job.inputs.items()},
        {name: source.number for name, source in job.inputs.items() if source.number is not None},
    )
    return argv(work, place)


def _cluster(settings: Settings, work: Work, job: str, session: str, door: Path) -> str:
    times = {"timeout_seconds": settings.limits.silence_seconds, "grace_seconds": settings.limits.grace_seconds}
    lines = toml({"ca": str(settings.ca.absolute()), "session": session, **times, **work.machine})
    lines += toml({"counts": str((settings.state / "jobs" / job / COUNTS).absolute())})
    if settings.crl is not None:
        lines += toml({"crl": str(settings.crl.absolute())})
    if settings.relay is not None:
        lines += toml({"relay": str(settings.relay)})
    if settings.compress:
        lines += toml({"compress": True})
    if settings.rates:
        lines += toml({"shared_rates": str((settings.state / "rates").absolute())})
    for party in work.members:
        address = settings.services[party]
        entry: dict[str, Any] = {"outward": True} if address is None else {"address": str(address)}
        if party in settings.fingerprints:
            entry["fingerprint"] = settings.fingerprints[party]
        if party in settings.rates:
            entry["rate"] = settings.rates[party]
        if party == settings.party:
            if address is not None:
                entry["listen"] = f"unix:{door}"
            entry["certificate"], entry["key"] = (str(f.absolute()) for f in (settings.certificate, settings.key))
        lines += ["", f"[parties.{party}]", *toml(entry)]
    return "\n".join(lines) + "\n"


async def run(settings: Settings, job: Job, command: list[str], turn: int, passphrase: str | None = None) -> Ended:
    """Run a job's process to its end. Cancelled, it ends the process. `turn`: how many others run."""
    folder = settings.state / "jobs" / job.id
    told = {
        "line": command,
        "folder": str(folder.absolute()),
        "variables": {**os.environ, **({PASSPHRASE: passphrase} if passphrase else {})},
        "cores": settings.limits.job_cores or 0,
        "turn": turn,
    }
    with open(folder / OUTPUT, "ab") as output:  # of all runs
        process = await processes.begin(told, output)
    with contextlib.closing(process):
        try:
            over = await _watch(process, settings)
        finally:
            await _stop(process)
    private = printed(folder, TAIL)
    if over is not None:
        return Ended("failed", over, private)
    if process.returncode:
        why = f"its process ended with status {process.returncode}"
        return Ended("failed", why, private, interrupted(process.returncode))
    return Ended("done", "")


def printed(folder: Path, most: int) -> str:
    """The last of what a job's process printed, so many bytes of it: a script may print without end."""
    path = folder / OUTPUT
    if not path.exists():
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - most))
        return file.read(most).decode(errors="replace")


async def _watch(process: Process, settings: Settings) -> str | None:
    """Wait for the process; why it must be stopped, if it must."""
    end = time.monotonic() + settings.limits.job_seconds
    while process.returncode is None:
        try:
            await asyncio.wait_for(asyncio.shield(process.wait()), POLL)
        except TimeoutError:
            if time.monotonic() > end:
                return f"it ran longer than {settings.limits.job_seconds:g} s"
            if process.pid and _memory_mb(process.pid) > settings.limits.job_memory_mb:
                return f"it needs more than {settings.limits.job_memory_mb} MiB of memory"
    return None


async def _stop(process: Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        try:
            process.signal(number)
            await asyncio.wait_for(asyncio.shield(process.wait()), GRACE)
        except TimeoutError:
            continue


def _memory_mb(session: int) -> int:
    """Of all processes of a job, which are one session; 0 where the system does not tell."""
    pages = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = status.read_text().rpartition(")")[2].split()
            if int(after_name[3]) == session:
                pages += int(after_name[21])
        except (OSError, ValueError, IndexError):  # it has just ended
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20
