"""Processes of jobs: copies of a template that has loaded what they need, and ones that are started anew."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spuvm.runtime.link.certificates import PASSPHRASE
from spuvm.service import processes, runner, template
from spuvm.service.processes import TEMPLATE, Fresh, Process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no template elsewhere")
LIMIT = 120.0
TELLS = f"""
import json, os, random, secrets, signal, sys
import numpy as np
places = [f"/proc/self/fd/{{number}}" for number in os.listdir("/proc/self/fd")]
files = [os.readlink(place) for place in places if os.path.lexists(place)]
print(json.dumps(dict(
    files=sorted(set(files)), session=os.getsid(0) == os.getpid(), name=__name__, words=sys.argv[1:],
    folder=os.getcwd(), told=os.environ.get("TOLD"), secret=os.environ.get({PASSPHRASE!r}),
    drawn=[random.random(), np.random.random(), np.random.default_rng().random(), secrets.token_hex(8)],
    blocked=sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), cores=len(os.sched_getaffinity(0)),
    term=signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
)))
sys.exit(3)
"""
WAITS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600 if sys.argv[1:] else 0)
"""
STAYS = "import time; print(1, flush=True); time.sleep(600)"
Begin = Callable[[dict[str, Any], Any], Coroutine[Any, Any, Process]]


async def _begun(folder: Path, code: str, *words: str, how: Begin = processes.begin, **variables: str) -> Process:
    (folder / "task.py").write_text(code)
    line = [str(folder / "task.py"), *words]
    told = {"line": line, "folder": str(folder), "variables": {**os.environ, **variables}, "cores": 1, "turn": 0}
    with open(folder / "output.txt", "ab") as output:
        return await how(told, output)


def _printed(folder: Path) -> list[str]:
    return (folder / "output.txt").read_text().splitlines()


async def _until(what: Callable[[], Any]) -> None:
    end = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < end, "it does not come"
        await asyncio.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("how", [processes.begin, Fresh.begin])
def test_a_job_has_a_process_of_its_own(tmp_path: Path, how: Begin) -> None:
    async def main() -> list[dict[str, Any]]:
        for n in "12":
            process = await _begun(tmp_path, TELLS, n, how=how, TOLD=n, **{PASSPHRASE: f"secret {n}"})
            await asyncio.wait_for(process.wait(), LIMIT)
            process.close()
            assert process.returncode == 3
        return [json.loads(line) for line in _printed(tmp_path)]

    one, two = asyncio.run(main())
    output = str(tmp_path / "output.txt")
    for told, n in ((one, "1"), (two, "2")):
        assert told["files"] == ["/dev/null", output], "it has files that are not its own"
        assert (told["words"], told["told"], told["secret"]) == ([n], n, f"secret {n}")
        assert told["session"] and told["term"] and told["blocked"] == [] and told["cores"] == 1
        assert told["name"] == "__main__" and told["folder"] == str(tmp_path)
    assert not set(one["drawn"]) & set(two["drawn"]), "two jobs drew the same"


def test_the_template_has_no_secret_and_no_file_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSPHRASE, "a secret of the service")
    begun = processes.Template()
    try:
        with open(tmp_path / "key", "w"):
            begun.begin()
            assert begun._process is not None
            pid = begun._process.pid
        assert b"a secret" not in Path(f"/proc/{pid}/environ").read_bytes()
        files = [os.readlink(f) for f in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [f for f in files if str(tmp_path) in f]
    finally:
        begun.end()
    assert not _runs(pid)


def test_what_a_job_started_ends_with_it(tmp_path: Path) -> None:
    async def ended(*words: str) -> int | None:
        before = len(_printed(tmp_path)) if words else 0
        process = await _begun(tmp_path, WAITS, *words)
        await _until(lambda: len(_printed(tmp_path)) > before)
        if words:
            process.signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), LIMIT)
        await _until(lambda: not _runs(int(_printed(tmp_path)[-1])))
        process.close()
        return process.returncode

    assert asyncio.run(ended()) == 0
    assert asyncio.run(ended("long")) == -signal.SIGTERM


def test_a_template_that_is_killed_is_begun_anew(tmp_path: Path) -> None:
    """Its copies end, as killed: their jobs run again."""

    async def main() -> None:
        process = await _begun(tmp_path, STAYS)
        await _until(lambda: _printed(tmp_path))
        assert TEMPLATE._process is not None
        TEMPLATE._process.kill()
        TEMPLATE._process.wait(LIMIT)  # while it is ending it may still be asked, and then that job has to run again
        await asyncio.wait_for(process.wait(), LIMIT)
        assert process.returncode == -signal.SIGKILL
        await _until(lambda: not _runs(process.pid))
        again = await _begun(tmp_path, TELLS)
        await asyncio.wait_for(again.wait(), LIMIT)
        assert again.returncode == 3
        process.close()
        again.close()

    asyncio.run(main())


def test_a_job_that_nobody_listens_to_is_killed(tmp_path: Path) -> None:
    async def main() -> None:
        process = await _begun(tmp_path, STAYS)
        await _until(lambda: _printed(tmp_path))
        process.close()
        await _until(lambda: not _runs(process.pid))

    asyncio.run(main())


def test_a_job_is_sent_signals_before_it_has_a_group_of_its_own() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", STAYS], stdout=subprocess.DEVNULL)
    here, there = socket.socketpair()
    copy = template.Copy(child.pid, os.pidfd_open(child.pid), here)
    copy.signal(signal.SIGKILL)
    assert child.wait(LIMIT) == -signal.SIGKILL
    copy.close()
    there.close()


def test_a_job_that_cannot_be_begun_is_no_end_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory for a copy: its socket is closed, as of one that was killed; the template serves on."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own, of_job = socket.socketpair()
    with ours, of_job, open(os.devnull, "w+b") as nothing:
        socket.send_fds(ours, [b"1"], [nothing.fileno(), nothing.fileno(), of_job.fileno()])
    forks = []

    def fails() -> int:
        forks.append(1)
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(os, "fork", fails)
    with own:
        assert template.serve(its) is None and forks == [1]
        own.settimeout(LIMIT)
        assert own.recv(8) == b""


def test_the_memory_of_a_job_that_has_no_process_yet_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of session 0 are, in a container, all processes that were started from outside."""

    class Waits:
        pid, returncode = 0, None

        async def wait(self) -> None:
            await asyncio.sleep(LIMIT)

    monkeypatch.setattr(runner, "_memory_mb", lambda session: 1 << 30)
    monkeypatch.setattr(runner, "POLL", 0.01)
    given: Any = SimpleNamespace(limits=SimpleNamespace(job_seconds=0.05, job_memory_mb=1))
    waits: Any = Waits()
    assert "ran longer" in str(asyncio.run(runner._watch(waits, given)))
