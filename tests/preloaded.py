"""Processes of Python that start with the package loaded: each is a copy of a server that has imported it.

A process that imports the package spends a second before it does anything, and the tests start hundreds. In a test
that uses the fixture `preloaded`, `subprocess.Popen` (and what stands on it: `subprocess.run`, `run_parties`) asks a
server for such a process instead: a process of its own all the same, a child of the tests' process, with the command
line, folder, environment, pipes and session it was given, that ends as any does: by its status or by a signal.

It differs in three things. What it imports may be there already, so how the package loads is tested elsewhere. It
shares its hash seed with its server, of which there are as many as parties, asked in turn: parties that start one after
another order their sets differently, as real ones do. And variables that are read while importing stay the server's: a
process given others starts the usual way, as does one with options for Python or another program, and one whose server
fails.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import inspect
import io
import itertools
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any

from spuvm.network import _RUNS

MODULES = (
    "spuvm.marking",
    "spuvm.commands.party",
    "spuvm.ml",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pyarrow.csv",
    "pandas",
)
SERVERS = 3  # as many as most tests have parties
LIMIT = 300.0  # seconds for an answer, of which the first waits for the imports: two where nothing else runs
# Read when used, not while importing.
LATE = ("SPUVM_", "NPROC", "TMPDIR", "PYTHONUNBUFFERED", "PYTHONBREAKPOINT", "HOME", "XDG_", "PYTEST_", "RAY_")
SET = ("KMP_", "TF_CPP_", "TPU_SKIP_", "MPL")  # by packages that are imported, here and in the servers
EARLY = ("SPUVM_NATIVE",)
STANDARD = (0, 1, 2)
THRESHOLDS = 50_000, 20, 20  # of gc: tracing makes objects by the million, of which few are garbage
INTERRUPTED = signal.getsignal(signal.SIGINT)
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux: orphans below become children of this process


class Server:
    """A process that has imported `MODULES` and makes copies of itself."""

    def __init__(self) -> None:
        self._here, there = socket.socketpair()
        self._here.settimeout(LIMIT)
        line = [sys.executable, __file__, str(there.fileno())]
        with there:
            self.popen = _Real(line, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL, env=INHERITED)

    def start(self, request: Mapping[str, Any], files: Sequence[int]) -> int:
        """A process that runs `request` with these as its standard files; its id, 0 if there is none.

        It is a child of this process.
        """
        libc = ctypes.CDLL(None)
        if libc.prctl(SUBREAPER, 1, 0, 0, 0):
            return 0
        try:
            line = json.dumps(request).encode()
            socket.send_fds(self._here, [len(line).to_bytes(8, "little")], list(files))
            self._here.sendall(line)
            return int.from_bytes(_exactly(self._here, 8), "little")
        finally:
            libc.prctl(SUBREAPER, 0, 0, 0, 0)

    def end(self) -> None:
        self._here.close()
        self.popen.kill()
        self.popen.wait()


INHERITED = dict(os.environ)  # the servers' variables
_Real = subprocess.Popen
_servers: dict[int, Server] = {}
_turns = itertools.count()
_lock = threading.Lock()


class Popen(_Real):  # type: ignore[type-arg]
    """`subprocess.Popen` that has a server start what runs this Python."""

    def _execute_child(self, *args: Any, **more: Any) -> None:
        given = inspect.signature(_Real._execute_child).bind(self, *args, **more).arguments  # type: ignore[attr-defined]
        line = _untied(given["args"])
        if line is None or not _usual(given):
            return super()._execute_child(*args, **more)  # type: ignore[misc, no-any-return]
        request = {
            "line": line,
            "folder": os.path.abspath(given["cwd"] or os.getcwd()),
            "variables": dict(os.environ if given["env"] is None else given["env"]),
            "session": given["start_new_session"],
        }
        files = [own if own != -1 else standard for own, standard in zip(_files(given), STANDARD, strict=True)]
        self.pid = _started(request, files)
        if not self.pid:
            return super()._execute_child(*args, **more)  # type: ignore[misc, no-any-return]
        self._child_created = True
        names = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[n] for n in names))  # type: ignore[attr-defined]
        return None


def _started(request: Mapping[str, Any], files: Sequence[int]) -> int:
    """The id of a copy of the server whose turn it is; 0: there is none. A server that fails is ended and replaced."""
    with _lock:
        turn = next(_turns) % SERVERS
        if turn not in _servers:
            _servers[turn] = Server()
        try:
            return _servers[turn].start(request, files)
        except (OSError, EOFError):
            _servers.pop(turn).end()
            return 0
        except BaseException:  # as Ctrl-C: what it answers would be taken for the next one's
            _servers.pop(turn).end()
            raise


def _files(given: Mapping[str, Any]) -> tuple[int, int, int]:
    return given["p2cread"], given["c2pwrite"], given["errwrite"]


def _untied(args: Any) -> list[str] | None:
    """What this Python is to run, without what ties a party to its starter; None if it is not for a server."""
    if isinstance(args, str | bytes | os.PathLike):
        return None
    line = [os.fsdecode(a) for a in args]
    if line[1:5] == ["-I", "-S", "-c", _RUNS]:
        line = line[6:]
    runs = len(line) > 1 and line[0] == sys.executable and (line[1] in ("-m", "-c") or not line[1].startswith("-"))
    return line[1:] if runs else None


def _usual(given: Mapping[str, Any]) -> bool:
    """Whether nothing is asked for that a server does not do."""
    if any(given[n] for n in ("preexec_fn", "pass_fds", "shell", "executable")):
        return False
    if any(given[n] is not None for n in ("gid", "gids", "uid")) or max(given["umask"], given["process_group"]) >= 0:
        return False
    if sys.platform != "linux":
        return False
    return _early(os.environ if given["env"] is None else given["env"]) == _early(INHERITED)


def _early(variables: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in variables.items() if not k.startswith((*LATE, *SET)) or k.startswith(EARLY)}


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Answer requests with copies of this process; in a copy, its request. None: nobody asks any more."""
    while True:
        size, files, _, _ = socket.recv_fds(connection, 8, len(STANDARD))
        if not size:
            return None
        size += _exactly(connection, 8 - len(size))
        request: dict[str, Any] = json.loads(_exactly(connection, int.from_bytes(size, "little")))
        read, write = os.pipe()
        between = os.fork()
        if not between:
            _leave(request["folder"])
            for descriptor in (read, connection.detach()):
                os.close(descriptor)
            _become(request, files)
            os.write(write, os.getpid().to_bytes(8, "little"))
            os.close(write)
            return request
        for descriptor in (*files, write):
            os.close(descriptor)
        os.waitpid(between, 0)  # from here on the copy is a child of the process that asks
        connection.sendall(os.read(read, 8) or bytes(8))
        os.close(read)


def _leave(folder: str) -> None:
    """Go on in a folder as an orphan that has found its parent; if that cannot be, end."""
    between = os.getpid()
    try:
        os.chdir(folder)
        if os.fork():
            os._exit(0)
    except OSError:
        os._exit(1)
    while os.getppid() == between:
        time.sleep(0.001)


def _become(request: Mapping[str, Any], files: Sequence[int]) -> None:
    """Standard files, session and variables as they were asked for."""
    signal.signal(signal.SIGINT, INTERRUPTED)
    for file, standard in zip(files, STANDARD, strict=True):
        os.dup2(file, standard)
    for file in files:
        if file not in STANDARD:
            os.close(file)
    if request["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["variables"])
    tempfile.tempdir = None
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    for name, number, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):
        raw = open(number, "wb", 0 if at_once else -1, closefd=False)  # noqa: SIM115
        lines = number == 2 or os.isatty(number)
        text = io.TextIOWrapper(raw, errors=errors, line_buffering=lines, write_through=at_once)
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def run(line: Sequence[str]) -> None:
    """Do what `python LINE` does."""
    what, rest = line[0], list(line[1:])
    if what == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv, sys.path[0] = [what, *rest], os.path.dirname(os.path.abspath(what))
        main = types.ModuleType("__main__")
        main.__dict__.update(__file__=what, __cached__=None)
        sys.modules["__main__"] = main
        with io.open_code(what) as file:
            code = compile(file.read(), what, "exec")
        exec(code, main.__dict__)


def _server() -> None:
    for module in MODULES:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is here stays: a copy does not look through it
    gc.set_threshold(*THRESHOLDS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, whose end ends this
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        request = serve(connection)
    if request is not None:
        run(request["line"])


if __name__ == "__main__":
    _server()
