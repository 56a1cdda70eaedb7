"""Several parties as processes of this machine: started together, ended together.

`run_parties` starts one process per party, passes on what they print, and returns when all have
ended. When one fails, the others get a moment to say why they stop too, and then they are ended.
Whatever happens here, an exception or a signal, no process stays behind.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from spuvm.runtime.config import OPTIMIZE, Config
from spuvm.runtime.errors import LinkError, SpuError
from spuvm.runtime.link.certificates import make_cluster
from spuvm.runtime.protocols.registered import rank_names
from spuvm.runtime.scratch import Scratch as Scratch

GRACE = 5.0  # seconds for the others to end by themselves after one failed
LAST_GRACE = 2.0  # and after SIGTERM
POLL = 0.05
READ_BYTES = 1 << 16

# How a child begins that Linux ends when the thread that started it dies, be it by SIGKILL; argument 1: whose child.
TIED = """
import ctypes, os, sys
try:
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
except (AttributeError, OSError):
    pass
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
"""
_RUNS = TIED + "os.execvp(sys.argv[2], sys.argv[2:])"

Listener = Callable[[str, str, str], None]  # party, "stdout" or "stderr", a line without its end


@dataclass
class Outcome:
    """How a party's process ended: its exit status (negative: a signal's number) and what it printed.

    Of one that was killed a line of `stderr` says so, as it could not itself. `stopped` says that it was ended from
    here, because of another party or the time limit.
    """

    party: str
    status: int
    stdout: str
    stderr: str
    seconds: float
    stopped: bool = False

    @property
    def failed(self) -> bool:
        return self.status != 0

    def __str__(self) -> str:
        if self.stopped:
            return f"{self.party} was stopped"
        if self.status < 0:
            return f"{self.party} was killed by {_signal_name(-self.status)}"
        return f"{self.party} ended with exit status {self.status}"


class PartiesFailed(SpuError):
    """At least one party's process failed; `outcomes` says how each ended.

    The message begins with the party that seems to be the cause, whose exit status is this error's:
    the first to end that was neither stopped from here nor only lost a peer.
    """

    exit_status = LinkError.exit_status

    def __init__(self, outcomes: Sequence[Outcome], message: str | None = None) -> None:
        self.outcomes = {o.party: o for o in outcomes}
        failed = [o for o in outcomes if o.failed]
        failed.sort(key=lambda o: (o.stopped, o.status == LinkError.exit_status))
        if failed and failed[0].status > 0:
            self.exit_status = failed[0].status
        super().__init__(message or f"the run failed: {'; '.join(map(str, failed))}.")


@dataclass
class _Process:
    party: str
    popen: subprocess.Popen[bytes]
    started: float
    output: dict[str, bytearray] = field(default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()})
    told: dict[str, int] = field(default_factory=lambda: {"stdout": 0, "stderr": 0})  # bytes passed on
    ended: float | None = None
    stopped: bool = False


def run_parties(
    commands: Mapping[str, Sequence[str]],
    *,
    timeout: float | None = None,
    on_line: Listener | None = None,
    on_start: Callable[[dict[str, int]], None] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    grace: float = GRACE,
    check: bool = True,
) -> dict[str, Outcome]:
    """Run one process per party and wait for all.

    Args:
        commands: the command line of each party.
        timeout: seconds after which all are ended; None trusts the parties' own limits.
        on_line: called with each line that a party prints, as it comes.
        on_start: called once with the process ids by party.
        env: environment variables in addition to this process's own.
        grace: seconds that the others have to end by themselves after one failed.
        check: raise if one failed; otherwise the outcomes say so.

    Returns:
        The outcomes by party.

    Raises:
        PartiesFailed: if one failed, or `timeout` passed.
    """
    processes: list[_Process] = []
    try:
        for party, argv in commands.items():
            processes.append(_start(party, argv, {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}, cwd))
        if on_start is not None:
            on_start({p.party: p.popen.pid for p in processes})
        late = _wait(processes, timeout, grace, on_line)
    finally:
        try:
            _terminate(processes)
        finally:
            _kill(processes)
    by_end = sorted(processes, key=lambda p: p.ended or 0.0)
    outcomes = [_outcome(p) for p in by_end]
    if late:
        message = f"after {timeout:g} s {', '.join(late)} had not ended: the run was stopped. Raise the time limit."
        raise PartiesFailed(outcomes, message)
    if check and any(o.failed for o in outcomes):
        raise PartiesFailed(outcomes)
    return {party: next(o for o in outcomes if o.party == party) for party in commands}


def make_run_folder(
    folder: str | Path,
    config: Config,
    host: str = "127.0.0.1",
    ports: Sequence[int] | None = None,
    timeout: float = 60.0,
) -> Path:
    """Make an authority, all parties' certificates and keys, and a cluster file; the path of the latter."""
    names = rank_names(config)
    path = make_cluster(
        folder,
        config.members,
        host,
        None if ports is None else tuple(ports),
        timeout,
        protocol=config.protocol,
        dealer=names[-1] if len(names) > len(config.members) else None,
        compute=config.parties if config.others else None,
    )
    settings = f"ring = {config.ring_bits}\nfxp_fraction_bits = {config.fxp_fraction_bits}\n"
    if config.exact:
        settings += f'truncation = "{config.truncation}"\n'
    if config.optimize != OPTIMIZE[0]:
        settings += f'optimize = "{config.optimize}"\n'
    path.write_text(settings + path.read_text())
    return path


def party_command(*arguments: str) -> list[str]:
    """The command line that runs `spuvm party` with this Python."""
    return [sys.executable, "-m", "spuvm", "party", *arguments]


def dealer_command(*arguments: str) -> list[str]:
    """The same for `spuvm dealer`."""
    return [sys.executable, "-m", "spuvm", "dealer", *arguments]


def tied(command: Sequence[str]) -> list[str]:
    """The command line that runs one which ends when this process does, be it by SIGKILL; on Linux alone."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _RUNS, str(os.getpid()), *command]


def _start(party: str, argv: Sequence[str], env: Mapping[str, str], cwd: str | Path | None) -> _Process:
    try:
        popen = subprocess.Popen(
            tied(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others
        )
    except OSError as error:
        raise LinkError(f"{party} could not be started: {error.strerror or error}: {argv[0]}.") from None
    return _Process(party, popen, time.monotonic())


def _wait(processes: Sequence[_Process], timeout: float | None, grace: float, on_line: Listener | None) -> list[str]:
    """Read what they print until all have ended; who had not when the time was over."""
    deadline = None if timeout is None else time.monotonic() + timeout
    failed_at: float | None = None
    with selectors.DefaultSelector() as selector:
        for process in processes:
            for name, pipe in (("stdout", process.popen.stdout), ("stderr", process.popen.stderr)):
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, (process, name))
        while True:
            _read(selector, on_line, POLL)
            now = time.monotonic()
            for process in processes:
                if process.ended is None and _reap(process) and process.popen.returncode != 0:
                    failed_at = failed_at or now
                    _read(selector, on_line, 0)
                    _say_killed(process, on_line)
            running = [p.party for p in processes if p.ended is None]
            if not running:
                break
            if deadline is not None and now > deadline:
                return running
            if failed_at is not None and now > failed_at + grace:
                break
        if failed_at is not None:
            _terminate(processes)
        _read(selector, on_line, 0)
        for process in processes:
            for name in process.output:
                _pass_on(process, name, on_line, last=True)
    return []


def _read(selector: selectors.BaseSelector, on_line: Listener | None, wait: float) -> None:
    """Take what the pipes hold now; wait at most so long for something to come."""
    if not selector.get_map():
        time.sleep(wait)
        return
    for key, _ in selector.select(wait):
        process, name = key.data
        pipe: IO[bytes] = key.fileobj  # type: ignore[assignment]
        while True:
            try:
                piece = os.read(pipe.fileno(), READ_BYTES)
            except BlockingIOError:
                break
            if not piece:
                selector.unregister(pipe)
                break
            process.output[name] += piece
        _pass_on(process, name, on_line)


def _say_killed(process: _Process, on_line: Listener | None) -> None:
    """What a process that was killed cannot say itself, where its peers send people to look."""
    status = process.popen.returncode
    if status < 0 and not process.stopped:
        why = ", by somebody or by the system for want of memory" if -status == signal.SIGKILL else ""
        output = process.output["stderr"]
        output += b"" if output.endswith(b"\n") or not output else b"\n"
        output += f"error: this process was killed by signal {-status} ({_signal_name(-status)}){why}.\n".encode()
        _pass_on(process, "stderr", on_line)


def _pass_on(process: _Process, name: str, on_line: Listener | None, last: bool = False) -> None:
    """Give the listener the lines that are complete, in the end also one that is not."""
    if on_line is None:
        return
    output = process.output[name]
    end = len(output) if last else output.rfind(b"\n") + 1
    text = output[process.told[name] : end].decode(errors="replace")
    process.told[name] = max(end, process.told[name])
    for line in text.splitlines():
        on_line(process.party, name, line)


def _terminate(processes: Sequence[_Process]) -> None:
    """Ask those that still run to end, and give them a moment."""
    running = [p for p in processes if not _reap(p)]
    for process in running:
        process.stopped = True
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + LAST_GRACE
    while running and time.monotonic() < deadline:
        time.sleep(0.01)
        running = [p for p in running if not _reap(p)]


def _kill(processes: Sequence[_Process]) -> None:
    for process in processes:
        if not _reap(process):
            _signal(process, signal.SIGKILL)
    for process in processes:
        _reap(process, wait=True)
        for pipe in (process.popen.stdout, process.popen.stderr):
            if pipe is not None:
                pipe.close()


def _reap(process: _Process, wait: bool = False) -> bool:
    """Whether the process has ended; if so, what it started is killed, and it is reaped."""
    if process.ended is not None:
        return True
    # Until it is reaped its number, which is its group's, cannot be given to another process.
    options = os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG)
    if os.waitid(os.P_PID, process.popen.pid, options) is None:
        return False
    _signal(process, signal.SIGKILL)
    process.popen.wait()
    process.ended = time.monotonic()
    return True


def _signal(process: _Process, number: signal.Signals) -> None:
    """Signal the group that the process leads. It must not have been reaped."""
    try:
        os.killpg(process.popen.pid, number)
    except (ProcessLookupError, PermissionError):  # all have ended
        return


def _outcome(process: _Process) -> Outcome:
    assert process.ended is not None
    stdout, stderr = (process.output[name].decode(errors="replace") for name in ("stdout", "stderr"))
    seconds = process.ended - process.started
    return Outcome(process.party, process.popen.returncode, stdout, stderr, seconds, process.stopped)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
