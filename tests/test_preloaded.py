"""Processes with the package loaded are processes as others: what they are given, what they say, how they end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import preloaded as servers
import pytest

pytestmark = pytest.mark.usefixtures("preloaded")

TELLS = """
import json, os, sys
told = {
    "loaded": "spuvm" in sys.modules, "line": sys.argv, "folder": os.getcwd(), "said": sys.stdin.read(),
    "variable": os.environ.get("SPUVM_OF_A_TEST"), "hash": hash("a"), "drawn": os.urandom(8).hex(),
    "parent": os.getppid(), "alone": os.getsid(0) == os.getpid(), "files": len(os.listdir("/proc/self/fd")),
}
import random, numpy
told["random"] = random.random(), int(numpy.random.default_rng().integers(2**62))
print(json.dumps(told))
sys.exit(7)
"""

INTERRUPTIBLE = signal.getsignal(signal.SIGINT) != signal.SIG_IGN  # as where a shell runs the tests in the background
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a process another parent")


@linux
def test_each_gets_what_it_was_given_and_draws_its_own(tmp_path: Path) -> None:
    told = []
    for i in range(3):
        command = [sys.executable, "-c", TELLS, str(i), "--more"]
        variables = {**servers.INHERITED, "SPUVM_OF_A_TEST": str(i), "KMP_INIT_AT_FORK": "FALSE"}
        done = subprocess.run(
            command, input="x" * i, capture_output=True, text=True, cwd=tmp_path, env=variables, start_new_session=i > 0
        )
        assert (done.returncode, done.stderr) == (7, "")
        told.append(json.loads(done.stdout))
    for i, one in enumerate(told):
        assert one["loaded"]
        assert one["line"] == ["-c", str(i), "--more"]
        assert (one["folder"], one["said"], one["variable"]) == (str(tmp_path), "x" * i, str(i))
        assert (one["parent"], one["alone"], one["files"]) == (os.getpid(), i > 0, 4)  # and that which lists them
    for what in ("drawn", "random", *(["hash"] if "PYTHONHASHSEED" not in os.environ else [])):
        assert len({str(one[what]) for one in told}) == 3, what


def test_ends_by_status_by_error_and_by_signal(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nif __name__ == '__main__':\n    raise ValueError(sys.argv[1], __file__)\n")
    done = subprocess.run([sys.executable, str(script), "words"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"ValueError: ('words', {str(script)!r})"
    done = subprocess.run([sys.executable, "-m", "spuvm", "nothing"], stdout=-1, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 2
    assert "No such command" in done.stdout
    for number in (signal.SIGKILL, signal.SIGTERM, *([signal.SIGINT] if INTERRUPTIBLE else [])):
        waits = "import signal, time\nprint(1, flush=True)\ntime.sleep(600)"
        with subprocess.Popen([sys.executable, "-c", waits], stdout=-1, stderr=-1) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"1\n"
            assert process.poll() is None
            process.send_signal(number)
            assert process.wait(60) == -number


def test_what_is_read_while_importing_starts_the_usual_way() -> None:
    code = "import sys; print('spuvm' in sys.modules, sys.flags.dev_mode)"
    for options, variables in ((["-X", "dev"], {}), ([], {"PYTHONDEVMODE": "1"})):
        done = subprocess.run(
            [sys.executable, *options, "-c", code], env={**os.environ, **variables}, stdout=-1, text=True
        )
        assert done.stdout == "False True\n"


@linux
def test_leads_its_session_from_the_start(tmp_path: Path) -> None:
    """Who ends a group that is not there yet would wait for a process that nobody has ended."""
    waits = [sys.executable, "-c", "import time; time.sleep(600)"]
    for _ in range(5):
        with subprocess.Popen(waits, start_new_session=True) as process:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    with pytest.raises(FileNotFoundError):
        subprocess.run(waits, cwd=tmp_path / "nowhere")


@linux
def test_goes_on_without_a_server_that_died() -> None:
    ends = [sys.executable, "-c", "raise SystemExit(3)"]
    assert subprocess.run(ends, env=servers.INHERITED).returncode == 3
    dead = next(iter(servers._servers.values()))
    dead.popen.kill()
    dead.popen.wait()
    assert [subprocess.run(ends, env=servers.INHERITED).returncode for _ in range(servers.SERVERS)] == [3, 3, 3]
    assert dead not in servers._servers.values()
