"""The process that jobs are copies of: it has loaded what they need, so that one begins in milliseconds.

It holds nothing of the service but its environment's variables without the key's passphrase: none of its files, keys or
connections. It has begun nothing that a copy could not go on with, and drawn nothing at random that copies would share:
no device is set up, no seed is taken. What a job is told (its command line, its variables, the passphrase) the copy
alone reads. It ends with the service, and its copies with it. Linux alone: elsewhere jobs start the usual way.

Over its standard input, a socket, it gets three files with each message: what the job is told (JSON), where its output
goes, and a socket of the job's own. Over that it says the process's number and at the end its status, as 8 bytes each,
and takes the numbers of signals, a byte each, for all processes of the job; when the other end is closed it kills them.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import types
from dataclasses import dataclass
from typing import Any

MODULES = (
    "spuvm.marking",
    "pyarrow.csv",
    "pyarrow.parquet",
    *(f"spuvm.commands.{kind}" for kind in ("party", "psi", "stream", "sgb", "sql", "flow")),
)
FILES = 3  # that come with a message
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Copy:
    """A job's process: it is not reaped before all others of its group are killed, so that its number stays its own."""

    pid: int
    gone: int  # readable when it has ended
    told: socket.socket

    def signal(self, number: int) -> None:
        with contextlib.suppress(PermissionError):
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:  # it has no group of its own yet
                os.kill(self.pid, number)

    def close(self) -> None:
        os.close(self.gone)
        self.told.close()


def main() -> None:
    """Serve until the service is gone; in a copy, do what it was told."""
    for module in MODULES:
        with contextlib.suppress(ModuleNotFoundError):  # an extra that is not installed: a job that needs it says so
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is here stays: a copy does not look through it
    told = serve(socket.socket(fileno=os.dup(0)))
    if told is not None:
        run(told["line"])


def serve(asked: socket.socket) -> dict[str, Any] | None:
    """Make copies as they are asked for; in a copy, what it is told. None: the service has ended."""
    with asked, selectors.DefaultSelector() as waiting:
        waiting.register(asked, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.data is not None:
                    _attend(waiting, key)
                    continue
                _, files, _, _ = socket.recv_fds(asked, 1, FILES)
                if not files:
                    return None
                me = os.getpid()
                try:
                    pid = os.fork()
                except OSError:  # no memory, or too many processes: this job alone is told that it was killed
                    for file in files:
                        os.close(file)
                    continue
                if not pid:
                    _close(waiting)
                    return _become(me, *files)
                _keep(waiting, pid, files)


def _keep(waiting: selectors.BaseSelector, pid: int, files: list[int]) -> None:
    told, output, own = files
    os.close(told)
    os.close(output)
    copy = Copy(pid, os.pidfd_open(pid), socket.socket(fileno=own))
    waiting.register(copy.gone, selectors.EVENT_READ, copy)
    waiting.register(copy.told, selectors.EVENT_READ, copy)
    with contextlib.suppress(OSError):
        copy.told.sendall(pid.to_bytes(8, "little"))


def _attend(waiting: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """A copy has ended, or is to be sent a signal."""
    copy = key.data
    held = waiting.get_map().get(copy.gone)
    if held is None or held.data is not copy:  # it has ended in this round
        return
    if key.fileobj == copy.gone:
        copy.signal(signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(copy.pid, 0)[1])
        with contextlib.suppress(OSError):
            copy.told.sendall(status.to_bytes(8, "little", signed=True))
        waiting.unregister(copy.gone)
        with contextlib.suppress(KeyError):
            waiting.unregister(copy.told)
        copy.close()
        return
    try:
        numbers = copy.told.recv(16)
    except OSError:
        numbers = b""
    for number in numbers or (signal.SIGKILL,):
        copy.signal(number)
    if not numbers:
        waiting.unregister(copy.told)


# In a copy -----------------------------------------------------------------------------------------------------


def _close(waiting: selectors.BaseSelector) -> None:
    """Leave what is the template's: the sockets of other jobs above all."""
    for key in list(waiting.get_map().values()):
        if key.data is None:
            key.fileobj.close()  # type: ignore[union-attr]
        elif key.fileobj == key.data.gone:
            key.data.close()
    waiting.close()


def _become(parent: int, told: int, output: int, own: int) -> dict[str, Any]:
    """A process like one that is started anew: with a session, files, variables and limits of its own."""
    os.close(own)
    os.setsid()
    tie(parent)
    with open(told) as file:
        order: dict[str, Any] = json.load(file)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["variables"])
    limit(order["cores"], order["turn"])
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # NumPy's own generator was seeded when it was loaded; Python's is seeded by each fork
    return order


def tie(parent: int) -> None:
    """End with this process's parent, be that killed."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def limit(cores: int, turn: int) -> None:
    """No core dumps; of the cores the first so many that are this one's turn, if not 0."""
    if cores and hasattr(os, "sched_setaffinity"):
        free = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {free[(turn * cores + i) % len(free)] for i in range(cores)})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(line: list[str]) -> None:
    """Do what `python LINE` does: a module after `-m`, or a file."""
    module = line[0] == "-m"
    sys.argv = line[1:] if module else line
    if module:
        sys.path[0] = os.getcwd()
        runpy.run_module(line[1], run_name="__main__", alter_sys=True)
        return
    sys.path[0] = os.path.dirname(os.path.abspath(line[0]))
    script = types.ModuleType("__main__")
    script.__dict__.update(__file__=line[0], __cached__=None)
    sys.modules["__main__"] = script
    with open(line[0], "rb") as file:
        code = compile(file.read(), line[0], "exec")
    exec(code, script.__dict__)


if __name__ == "__main__":
    main()
