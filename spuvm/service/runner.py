"""A job's process: `spuvm party` with this party's own data, within limits of time and memory."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from spuvm.compiler.compile import Program
from spuvm.runtime.errors import InputError
from spuvm.runtime.link.certificates import PASSPHRASE
from spuvm.service.jobs import Job
from spuvm.service.settings import Settings
from spuvm.service.store import News

TAIL = 2000  # characters of what a process printed that go into the log of this party
POLL = 0.5
GRACE = 5.0


@dataclass(frozen=True)
class Ended:
    """How a job's process ended; `public` is what peers are told, `private` what this party's people may read."""

    state: str
    public: str
    private: str = ""


def free_port(settings: Settings, used: set[int]) -> int:
    """A port for a job that nobody listens on."""
    first, last = settings.limits.job_ports
    for port in range(first, last + 1):
        if port not in used:
            try:
                socket.create_server((settings.listen.host, port)).close()
            except OSError:
                continue
            return port
    raise InputError(f"all ports from {first} to {last} are in use: widen `job_ports`.")


def prepare(settings: Settings, job: Job, program: Program, news: dict[str, News]) -> list[str]:
    """Write the job's folder, for this process and nobody else; the command that runs it."""
    folder = settings.state / "jobs" / job.id
    (folder / "results").mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "program.spux").write_text(job.program)
    (folder / "cluster.toml").write_text(_cluster(settings, program, news))
    command = [sys.executable, "-m", "spuvm", "party", str(folder / "program.spux"), "--as", settings.party]
    command += ["--config", str(folder / "cluster.toml"), "--quiet", "--no-results", "--force"]
    command += ["--report", str(folder / "report.json")]
    for name, source in job.inputs.items():
        if source.number is not None:
            command += ["--input", f"{name}={source.number!r}"]
        elif source.party == settings.party:
            assert source.data is not None
            columns = ":" + ",".join(source.columns) if source.columns else ""
            command += ["--input", f"{name}={settings.data[source.data]}{columns}"]
    me = program.config.members.index(settings.party)
    for name, value in zip(program.module.outputs, program.module.body.results):
        if value.type.visibility in ("public", me):
            command += ["--output", f"{name}={folder / 'results' / f'{name}.npy'}"]
    return command


def _cluster(settings: Settings, program: Program, news: dict[str, News]) -> str:
    config = program.config
    lines = [
        f"ca = {json.dumps(str(settings.ca.absolute()))}",
        f"timeout_seconds = {settings.limits.silence_seconds}",
        f"protocol = {json.dumps(config.protocol)}",
        f"ring = {config.ring_bits}",
        f"fxp_fraction_bits = {config.fxp_fraction_bits}",
    ]
    if settings.crl is not None:
        lines.append(f"crl = {json.dumps(str(settings.crl.absolute()))}")
    if config.others:
        lines.append(f"compute = {json.dumps(list(config.parties))}")
    for party in config.members:
        lines += ["", f"[parties.{party}]", f'address = "{_at(settings.services[party].host, news[party].port)}"']
        if party in settings.fingerprints:
            lines.append(f'fingerprint = "{settings.fingerprints[party]}"')
        if party == settings.party:
            lines += [
                f'listen = "{_at(settings.listen.host, news[party].port)}"',
                f"certificate = {json.dumps(str(settings.certificate.absolute()))}",
                f"key = {json.dumps(str(settings.key.absolute()))}",
            ]
    return "\n".join(lines) + "\n"


def _at(host: str, port: int | None) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def run(settings: Settings, job: Job, command: list[str], passphrase: str | None = None) -> Ended:
    """Run a job's process to its end. Cancelled, it ends the process."""
    folder = settings.state / "jobs" / job.id
    with open(folder / "output.txt", "wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **({PASSPHRASE: passphrase} if passphrase else {})},
        )
    try:
        over = await _watch(process, settings)
    finally:
        await _stop(process)
    private = (folder / "output.txt").read_text(errors="replace")[-TAIL:]
    if over is not None:
        return Ended("failed", over, private)
    if process.returncode:
        return Ended("failed", f"its process ended with status {process.returncode}", private)
    return Ended("done", "")


async def _watch(process: asyncio.subprocess.Process, settings: Settings) -> str | None:
    """Wait for the process; why it must be stopped, if it must."""
    end = time.monotonic() + settings.limits.job_seconds
    while process.returncode is None:
        try:
            await asyncio.wait_for(asyncio.shield(process.wait()), POLL)
        except TimeoutError:
            if time.monotonic() > end:
                return f"it ran longer than {settings.limits.job_seconds:g} s"
            if _memory_mb(process.pid) > settings.limits.job_memory_mb:
                return f"it needs more than {settings.limits.job_memory_mb} MiB of memory"
    return None


async def _stop(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        try:
            os.killpg(process.pid, number)
            await asyncio.wait_for(asyncio.shield(process.wait()), GRACE)
        except (ProcessLookupError, TimeoutError):
            continue


def _memory_mb(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):  # another system, or it has just ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20
