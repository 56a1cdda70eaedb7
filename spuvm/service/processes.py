"""A job's process as its service sees it: a copy of the template, or one that is started anew where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO, Protocol

from spuvm.network import TIED, tied
from spuvm.runtime.link.certificates import PASSPHRASE

KILLED = -int(signal.SIGKILL)
# A process that is started anew ends when its service does; the limits are those of a copy.
_LIMITED = f"""{TIED}
from spuvm.service.template import limit
limit(int(sys.argv[2]), int(sys.argv[3]))
os.execv(sys.argv[4], sys.argv[4:])
"""


class Process(Protocol):
    """A job's process. `pid`: 0 until it is known; `returncode`: None while it runs, negative if a signal ended it."""

    pid: int

    @property
    def returncode(self) -> int | None: ...

    async def wait(self) -> object:
        """Until it has ended."""

    def signal(self, number: int) -> None:
        """Send a signal to all processes of the job."""

    def close(self) -> None:
        """Nothing is asked of it any more."""


class Template:
    """The process that jobs are copies of (`service/template.py`), started when it is first used, or is gone."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: socket.socket | None = None

    def begin(self) -> socket.socket:
        """Start it, unless it runs; over which socket it is asked."""
        if self._asked is None or self._process is None or self._process.poll() is not None:
            self.end()
            self._asked, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            line = tied([sys.executable, "-m", "spuvm.service.template"])
            without = {name: value for name, value in os.environ.items() if name != PASSPHRASE}
            with its:
                self._process = subprocess.Popen(
                    line, stdin=its.fileno(), stdout=subprocess.DEVNULL, env=without, start_new_session=True
                )
        return self._asked

    def copy(self, told: Mapping[str, Any], output: BinaryIO) -> Copy:
        """A new process that runs what it is told. OSError if there is no template."""
        own, its = socket.socketpair()
        with its, open(os.memfd_create("job"), "w+b") as order:
            order.write(json.dumps(told).encode())
            order.seek(0)
            files = [order.fileno(), output.fileno(), its.fileno()]
            try:
                socket.send_fds(self.begin(), [b"1"], files)
            except ConnectionError:  # it was killed just now
                self.end()
                socket.send_fds(self.begin(), [b"1"], files)
        return Copy(own)

    def end(self) -> None:
        """End it, and with it its copies."""
        if self._asked is not None:
            self._asked.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._asked = self._process = None


class Copy:
    """A copy of the template, heard of over a socket of its own: when that is closed, it is killed."""

    def __init__(self, own: socket.socket) -> None:
        own.setblocking(False)
        self.pid = 0
        self.returncode: int | None = None
        self._own = own
        self._ending = asyncio.get_running_loop().create_task(self._hear())

    async def _hear(self) -> None:
        try:
            self.pid = await self._number()
            self.returncode = await self._number()
        except (EOFError, OSError):  # the template was killed, and its copies with it
            self.returncode = KILLED

    async def _number(self) -> int:
        said = b""
        while len(said) < 8:
            piece = await asyncio.get_running_loop().sock_recv(self._own, 8 - len(said))
            if not piece:
                raise EOFError
            said += piece
        return int.from_bytes(said, "little", signed=True)

    async def wait(self) -> None:
        await asyncio.shield(self._ending)

    def signal(self, number: int) -> None:
        with contextlib.suppress(OSError):
            self._own.send(bytes([number]))

    def close(self) -> None:
        if self._ending.done():
            self._own.close()
        else:
            self._ending.add_done_callback(lambda _: self._own.close())  # not before the loop has let go of it
            self._ending.cancel()


class Fresh:
    """A process that is started anew."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def begin(cls, told: Mapping[str, Any], output: BinaryIO) -> Fresh:
        limits = [str(os.getpid()), str(told["cores"]), str(told["turn"])]
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-c", _LIMITED, *limits, sys.executable, *told["line"]],
            cwd=told["folder"],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=told["variables"],
        )
        return cls(process)

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def wait(self) -> None:
        await self._process.wait()

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def close(self) -> None:
        """It has ended."""


TEMPLATE = Template()  # one for all services of this process


def warm() -> None:
    """Have the template begin now, for the first job not to wait."""
    if _has_template():
        TEMPLATE.begin()


def _has_template() -> bool:
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


async def begin(told: Mapping[str, Any], output: BinaryIO) -> Process:
    """Start a job's process: of a command `line` after `python`, in a `folder`, with `variables` and limits."""
    return TEMPLATE.copy(told, output) if _has_template() else await Fresh.begin(told, output)
