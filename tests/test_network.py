"""Real processes: parties that work, and what every one of them says and leaves when one does not."""

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
from parties import keys_of_another_authority

import spuvm as spu
from spuvm import cli
from spuvm.commands.keeping import keep_outputs
from spuvm.commands.options import Output
from spuvm.commands.reveals import reveals
from spuvm.commands.together import cause
from spuvm.compiler.compile import load
from spuvm.data import tables
from spuvm.network import Outcome, PartiesFailed, Scratch, make_run_folder, party_command, run_parties
from spuvm.runtime.errors import InputError, LinkError
from spuvm.runtime.scratch import sweep

pytestmark = pytest.mark.usefixtures("preloaded")

PARTIES = ("alice", "bob", "carol")
LIMIT = 240.0  # seconds, of a whole run; a party that hangs fails its test

PROGRAMS = """
import jax.numpy as jnp
import spuvm as spu
from jax import lax

def product(x, y, rate):
    p = x * y * rate
    return {"sum": spu.reveal(jnp.sum(p)), "risk": spu.reveal(p, to="carol")}

def other(x, y, rate):
    p = x * y + rate
    return {"sum": spu.reveal(jnp.sum(p)), "risk": spu.reveal(p, to="carol")}

def long(x, y, rate):
    p = lax.fori_loop(0, 100_000, lambda _, p: p * x, x + y) * rate
    return {"sum": spu.reveal(jnp.sum(p)), "risk": spu.reveal(p, to="carol")}
"""


# Any processes ----------------------------------------------------------------------------------------------


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", f"import os, signal, subprocess, sys, time\n{code}"]


def gone(pid: int) -> bool:
    """Whether neither the process nor any of its group is there, soon."""
    for _ in range(1500):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, 0)
            time.sleep(0.02)
            continue
        return True
    return False


def test_outcomes_and_lines() -> None:
    lines: list[tuple[str, str, str]] = []
    commands = {
        "a": python("print('one'); print('two', end=''); print('no', file=sys.stderr)"),
        "b": python("print('x' * 200_000)"),
    }
    done = run_parties(commands, on_line=lambda *line: lines.append(line), timeout=LIMIT)
    assert (done["a"].status, done["a"].stdout, done["a"].stderr) == (0, "one\ntwo", "no\n")
    assert len(done["b"].stdout) == 200_001
    assert [line for line in lines if line[:2] == ("a", "stdout")] == [("a", "stdout", "one"), ("a", "stdout", "two")]
    assert ("a", "stderr", "no") in lines


def test_the_cause_of_a_failure_is_who_failed_by_himself() -> None:
    def ended(party: str, status: int, stderr: str, stopped: bool = False) -> Outcome:
        return Outcome(party, status, "", stderr, 1.0, stopped)

    told, lost = ended("alice", 3, "error: carol stopped: no\n"), ended("bob", 3, "error: Lost carol in round 3.\n")
    own, same = (ended(p, 2, "a line\nerror: column `a`\nof two lines\n") for p in ("carol", "dora"))
    stopped = ended("eve", 143, "error: stopped by SIGTERM\n", stopped=True)
    assert cause([told, lost, own, stopped]) == "carol: column `a`\nof two lines"
    assert cause([same, told, own]) == "dora and carol: column `a`\nof two lines"
    assert cause([told, ended("carol", 3, "error: no room\n"), lost]) == "carol: no room"
    assert cause([told, stopped, ended("carol", 1, "")]) == "carol: ended with exit status 1"
    assert cause([told]) == "alice: carol stopped: no"


def test_environment_and_folder(tmp_path: Path) -> None:
    code = "print(os.getcwd(), os.environ['COLOUR'], 'PATH' in os.environ)"
    done = run_parties({"a": python(code)}, env={"COLOUR": "blue"}, cwd=tmp_path, timeout=LIMIT)
    assert done["a"].stdout == f"{tmp_path} blue True\n"


def test_the_first_to_fail_is_named_first_and_the_others_are_ended() -> None:
    pids: dict[str, int] = {}
    commands = {"a": python("time.sleep(60)"), "b": python("sys.exit(7)")}
    start = time.monotonic()
    with pytest.raises(PartiesFailed, match=r"b ended with exit status 7; a was stopped") as caught:
        run_parties(commands, grace=0.2, on_start=pids.update)
    assert time.monotonic() - start < 10
    assert caught.value.exit_status == 7
    assert {p: o.status for p, o in caught.value.outcomes.items()} == {"a": -signal.SIGTERM, "b": 7}
    assert all(gone(pid) for pid in pids.values())


def test_a_process_that_ignores_sigterm_is_killed_with_its_children() -> None:
    pids: dict[str, int] = {}
    stubborn = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])
print('ready', flush=True)
time.sleep(60)
"""
    with pytest.raises(PartiesFailed, match=r"after 1 s a had not ended"):
        run_parties({"a": python(stubborn)}, timeout=1, on_start=pids.update)
    assert gone(pids["a"])


def test_children_that_a_party_leaves_are_ended() -> None:
    pids: dict[str, int] = {}
    code = "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])"
    run_parties({"a": python(code)}, timeout=LIMIT, on_start=pids.update)
    assert gone(pids["a"])


def test_an_exception_here_ends_all() -> None:
    pids: dict[str, int] = {}

    def fail(party: str, stream: str, line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_parties({"a": python("print(1, flush=True); time.sleep(60)")}, on_line=fail, on_start=pids.update)
    assert gone(pids["a"])


def test_a_command_that_is_not_there() -> None:
    with pytest.raises((LinkError, PartiesFailed)):
        run_parties({"a": ["/no/such/program"]}, timeout=LIMIT)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties children to their parent")
def test_parties_do_not_outlive_a_killed_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    code = (
        "import sys; from spuvm.network import Scratch, run_parties\n"
        "folder = Scratch(); (folder.path / 'key').touch()\n"
        "sleep = [sys.executable, '-S', '-c', 'import time; time.sleep(60)']\n"
        "run_parties({'a': sleep, 'b': sleep}, on_start=lambda pids: print(*pids.values(), flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        time.sleep(0.2)  # they have said whose children they are
        sweep()
        (left,) = tmp_path.iterdir()  # of a process that lives
        parent.kill()
        parent.wait()
    assert all(gone(pid) for pid in pids)
    assert (left / "key").exists()
    with Scratch() as mine:
        assert list(tmp_path.iterdir()) == [mine]
    assert not list(tmp_path.iterdir())


# `spuvm party` ------------------------------------------------------------------------------------------------


@dataclass
class Setting:
    """What each party is given; the tests change one thing."""

    folder: Path
    programs: dict[str, Path] = field(default_factory=dict)
    clusters: dict[str, Path] = field(default_factory=dict)
    inputs: dict[str, list[str]] = field(default_factory=dict)
    timeout: float = 60.0  # a busy machine takes its time to start three processes

    @property
    def result(self) -> Path:
        return self.folder / "risk.csv"

    def commands(self, parties: tuple[str, ...] = PARTIES) -> dict[str, list[str]]:
        out = {}
        for p in parties:
            arguments = [str(self.programs[p]), "--config", str(self.clusters[p]), "--as", p]
            arguments += ["--timeout", str(self.timeout), "--report", str(self.folder / f"{p}.json")]
            for text in self.inputs[p]:
                arguments += ["--input", text]
            if p == "carol":
                arguments += ["--output", f"risk={self.result}"]
            out[p] = party_command(*arguments)
        return out

    def run(
        self,
        parties: tuple[str, ...] = PARTIES,
        on_line: Callable[[str, str, str], None] | None = None,
        on_start: Callable[[dict[str, int]], None] | None = None,
    ) -> Mapping[str, Outcome]:
        """Run to the end, which must come by the parties' own limits."""
        return run_parties(
            self.commands(parties), timeout=LIMIT, grace=LIMIT, check=False, on_line=on_line, on_start=on_start
        )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs, compiled once."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "p.py").write_text(PROGRAMS)
    types = ["--arg", "f32[3]@alice", "--arg", "f32[3]@bob", "--arg", "f32[]@public"]
    for name in ("product", "other", "long"):
        assert cli.run(["compile", f"{folder}/p.py:{name}", *types, "-o", str(folder / f"{name}.spux")]) == 0
    return folder


@pytest.fixture
def setting(tmp_path: Path, compiled: Path) -> Setting:
    """Everything right."""
    (tmp_path / "a.csv").write_text("id,age\n1,0.5\n2,1.5\n3,-2\n")
    (tmp_path / "b.csv").write_text("id,age\n1,1\n2,2\n3,3\n")
    cluster = make_run_folder(tmp_path / "keys", spu.Config(parties=PARTIES))
    return Setting(
        tmp_path,
        dict.fromkeys(PARTIES, compiled / "product.spux"),
        dict.fromkeys(PARTIES, cluster),
        {
            "alice": [f"x={tmp_path}/a.csv:age", "rate=2"],
            "bob": [f"y={tmp_path}/b.csv:age@bob", "rate=2"],
            "carol": ["rate=2"],
        },
    )


def errors(done: Mapping[str, Outcome]) -> dict[str, str]:
    """Each party's one error, checked to be one and no traceback."""
    found = {}
    for party, outcome in done.items():
        lines = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, (party, outcome.stderr)
        assert "Traceback" not in outcome.stderr
        assert outcome.stdout == ""
        found[party] = lines[0]
    return found


def statuses(done: Mapping[str, Outcome]) -> tuple[int, ...]:
    return tuple(outcome.status for outcome in done.values())


def nothing_written(setting: Setting) -> bool:
    left = {p.name for p in setting.folder.iterdir()}
    return left <= {"a.csv", "b.csv", "keys", "theirs"}


def test_three_parties(setting: Setting) -> None:
    done = setting.run()
    assert statuses(done) == (0, 0, 0), [o.stderr for o in done.values()]
    table = tables.read(setting.result)
    assert table.names == ("risk",)
    np.testing.assert_allclose(table.array(np.float32), [1, 6, -12], atol=1e-3)
    assert "out.sum float32[] public: -" in done["bob"].stdout
    assert "out.risk float32[3] private(carol): not known here" in done["bob"].stdout
    cost = spu.load(setting.programs["bob"]).cost
    for rank, party in enumerate(PARTIES):
        report = (setting.folder / f"{party}.json").read_text()
        assert f'"rounds": {cost.party_rounds[rank]}' in report
        assert report.count(f'"bytes_sent": {cost.bytes_sent[rank]}') == 2  # counted and predicted
        assert "differ from the prediction" not in done[party].stderr


def test_a_party_that_is_killed(setting: Setting) -> None:
    setting.programs = dict.fromkeys(PARTIES, setting.programs["bob"].with_name("long.spux"))
    pids: dict[str, int] = {}
    timers: list[Timer] = []

    def kill_bob(party: str, stream: str, line: str) -> None:
        if party == "bob" and line.startswith("connected"):
            timers.append(Timer(0.5, os.kill, (pids["bob"], signal.SIGKILL)))
            timers[0].start()

    done = setting.run(on_line=kill_bob, on_start=pids.update)
    assert statuses(done) == (3, -signal.SIGKILL, 3)
    killed = "error: this process was killed by signal 9 (SIGKILL), by somebody or by the system for want of memory."
    assert done["bob"].stderr.splitlines()[-1] == killed
    done = {p: o for p, o in done.items() if p != "bob"}
    assert not any("Error" in error for error in errors(done).values())
    assert all("bob" in error and "round" in error for error in errors(done).values()), errors(done)
    assert nothing_written(setting)
    assert all(gone(pid) for pid in pids.values())


def test_a_party_that_is_ended_says_so_to_the_others(setting: Setting) -> None:
    setting.programs = dict.fromkeys(PARTIES, setting.programs["bob"].with_name("long.spux"))
    pids: dict[str, int] = {}

    def end_carol(party: str, stream: str, line: str) -> None:
        if party == "carol" and line.startswith("connected"):
            os.kill(pids["carol"], signal.SIGTERM)

    done = setting.run(on_line=end_carol, on_start=pids.update)
    assert statuses(done) == (3, 3, 143)
    said = errors(done)
    assert said.pop("carol") == "error: stopped by SIGTERM"
    assert all("carol stopped" in error for error in said.values())
    assert nothing_written(setting)


def test_another_program(setting: Setting) -> None:
    setting.programs["bob"] = setting.programs["bob"].with_name("other.spux")
    done = setting.run()
    assert statuses(done) == (3, 3, 3)
    theirs, hashes = errors(done), {p: load(setting.programs[p]).hash[:16] for p in ("bob", "alice")}
    cause = f"bob differs from alice and carol in `program` (hashes begin bob: {hashes['bob']}, alice and carol: "
    assert all(f"{cause}{hashes['alice']}" in error for error in theirs.values()), theirs
    assert any("with input of alice, input of bob, public input." in error for error in theirs.values()), theirs
    assert nothing_written(setting)


def test_results_that_cannot_be_written_are_kept(setting: Setting, tmp_path: Path) -> None:
    """Carol's file cannot be made when the last round is over: nothing is lost, and nobody computes again."""
    commands = setting.commands()
    place = commands["carol"].index(f"risk={setting.result}")
    commands["carol"][place] = "risk=/proc/risk.csv"  # a folder that takes no files, and says so only then
    room = tmp_path / "room"
    room.mkdir()
    done = run_parties(commands, timeout=LIMIT, grace=LIMIT, check=False, cwd=room)
    assert statuses(done) == (0, 0, 2), [o.stderr for o in done.values()]
    error = done["carol"].stderr.splitlines()[-1]
    assert "/proc/risk.csv" in error
    kept = re.search(r"kept in (\S+\.npz)", error)
    assert kept is not None, error
    assert kept[1].startswith(str(room))
    assert Path(kept[1]).stat().st_mode & 0o777 == 0o600
    assert cli.run(["results", kept[1], "--output", f"risk={setting.result}"]) == 0
    np.testing.assert_allclose(tables.read(setting.result).array(np.float32), [1, 6, -12], atol=1e-3)


def test_results_that_can_be_kept_nowhere_end_the_run(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    program = spu.load(setting.programs["bob"])
    output = Output("risk", Path("/proc/risk.csv"), ())
    monkeypatch.setattr("spuvm.commands.keeping.tempfile.mkstemp", full)
    with pytest.raises(InputError, match="Nor could the results be kept anywhere else"):
        keep_outputs(program, {0: np.zeros(3), 1: 0.0}, {program.module.outputs.index("out.risk"): output}, False)


def test_a_program_that_was_not_reviewed(setting: Setting, capfd: pytest.CaptureFixture[str]) -> None:
    program = spu.load(setting.programs["bob"])
    arguments = setting.commands()["bob"][3:]
    config = Path(setting.folder / "keys" / "cluster.toml")
    config.write_text(config.read_text().replace("timeout_seconds = 60", "timeout_seconds = 1"))
    for expected, words in (
        ("0" * 64, f"has the hash {program.hash}"),
        (program.hash[:8], "16 to 64 hexadecimal digits"),
        ("x" * 64, "16 to 64 hexadecimal digits"),
    ):
        assert cli.run([*arguments, "--expect-hash", expected]) == 2
        assert words in capfd.readouterr().err
    cli.run([*arguments, "--expect-hash", program.hash[:20].upper(), "--timeout", "0.5"])
    assert "has not come" in capfd.readouterr().err


def test_what_is_revealed_to_whom_is_listed(setting: Setting) -> None:
    lines = reveals(spu.load(setting.programs["bob"]))
    due = ["reveals fxp18[] to everyone", "reveals fxp18[3] to carol alone"]
    assert [line.partition(": ")[0] for line in lines] == due
    assert all("p.py:" in line for line in lines)


def test_another_public_input(setting: Setting) -> None:
    setting.inputs["carol"] = ["rate=3"]
    done = setting.run()
    assert statuses(done) == (3, 3, 3)
    assert all("carol differs from alice and bob in `public" in error for error in errors(done).values())
    assert nothing_written(setting)


def test_another_configuration(setting: Setting) -> None:
    theirs = setting.folder / "theirs"
    shutil.copytree(setting.folder / "keys", theirs)
    setting.clusters["carol"] = theirs / "cluster.toml"
    text = setting.clusters["carol"].read_text()
    setting.clusters["carol"].write_text(text.replace("fxp_fraction_bits = 18", "fxp_fraction_bits = 16"))
    done = setting.run()
    assert statuses(done) == (3, 3, 2)
    said = errors(done)
    assert "compiled with fxp_fraction_bits = 18" in said.pop("carol")
    assert all("carol stopped" in error and "configuration" in error for error in said.values()), said
    assert nothing_written(setting)


def test_a_certificate_of_another_authority(setting: Setting) -> None:
    setting.clusters["bob"] = keys_of_another_authority(setting.folder, "bob")
    done = setting.run()
    assert statuses(done) == (3, 3, 3)
    assert all("certificate" in error and "authority" in error for error in errors(done).values()), errors(done)
    assert nothing_written(setting)


def test_an_absent_party(setting: Setting) -> None:
    setting.timeout = 2.0
    done = setting.run(("alice", "carol"))
    assert statuses(done) == (3, 3)
    assert all("bob has not come" in error for error in errors(done).values()), errors(done)
    assert all(outcome.seconds < 100 for outcome in done.values())
    assert nothing_written(setting)


def test_data_of_one_party_that_do_not_fit(setting: Setting) -> None:
    (setting.folder / "b.csv").write_text("id,weight\n1,1\n2,2\n3,3\n")
    done = setting.run()
    assert statuses(done) == (3, 2, 3)
    said = errors(done)
    assert "b.csv has no column `age`" in said.pop("bob")
    assert all("bob stopped" in error and "age" not in error for error in said.values()), said
    assert nothing_written(setting)


# `spuvm run --network` ------------------------------------------------------------------------------------------


@pytest.fixture
def inside(setting: Setting, compiled: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Work in the folder of the data, with the runs' temporary folders in it, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield tmp_path
    assert list((tmp_path / "tmp").iterdir()) == []


INPUTS = "--input x=a.csv:age@alice --input y=b.csv:age@bob --input rate=2"


def test_run_over_the_network(inside: Path, compiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"run {compiled}/p.py:product {INPUTS} --network --output risk=r.csv:risk"
    assert cli.run(line.split(" ")) == 0
    out, err = capsys.readouterr()
    assert out.startswith("out.sum float32[] public: -")
    assert "bytes received" in err
    assert "differ" not in err
    np.testing.assert_allclose(tables.read("r.csv", ["risk"]).array(np.float32), [1, 6, -12], atol=1e-3)


@pytest.mark.parametrize("ring", [32, 128])
def test_rings_over_the_network(inside: Path, capsys: pytest.CaptureFixture[str], ring: int) -> None:
    """Compiled for the ring, with the ring in the parties' cluster.toml; a comparison, a product and a quotient."""
    Path("q.py").write_text("import jax.numpy as jnp\ndef f(x, y):\n    return jnp.maximum(x, y) * x / (y * y + 3)\n")
    line = f"run q.py:f --input x=a.csv:age@alice --input y=b.csv:age@bob --reveal all --ring {ring}"
    assert cli.run(f"{line} --network --output z=n.csv".split(" ")) == 0
    _, err = capsys.readouterr()
    assert "bytes received" in err
    assert "differ" not in err
    x, y = (tables.read(f, ["age"]).array(np.float64) for f in ("a.csv", "b.csv"))
    want = np.maximum(x, y) * x / (y * y + 3)
    got = tables.read("n.csv", ["z"]).array(np.float64)
    np.testing.assert_allclose(
        got, want, rtol=1e-6 if ring == 128 else 2.0**-7, atol=4 * 2.0 ** -{32: 8, 128: 20}[ring]
    )


def test_a_dealer_is_one_more_process(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("q.py").write_text("def f(x, y):\n    return x * y\n")
    line = "run q.py:f --input x=a.csv:age@alice --input y=b.csv:age@bob --reveal all"
    assert cli.run(f"{line} --parties alice,bob --protocol semi2k --output z=z.csv".split(" ")) == 0
    assert cli.run(f"{line} --parties alice,bob --protocol semi2k --network --output z=n.csv".split(" ")) == 0
    _, err = capsys.readouterr()
    assert "dealer: connected" in err
    assert "differ" not in err
    simulated, networked = (tables.read(f, ["z"]).array(np.float32) for f in ("z.csv", "n.csv"))
    np.testing.assert_allclose(simulated, networked, atol=1e-3)


def test_a_failing_run_over_the_network(inside: Path, compiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("b.csv").write_text("age\n1\nNaN\n3\n")
    line = f"run {compiled}/product.spux {INPUTS} --network --output risk=r.csv"
    assert cli.run(line.split(" ")) == 2
    out, err = capsys.readouterr()
    assert out == ""
    said = [line for line in err.splitlines() if "rror" in line]  # one error, and no name of a class
    assert said == [err.splitlines()[-1]]
    assert said[0].startswith("error: bob: column `age` of b.csv has 1 of 3 cells empty or NaN")
    assert not Path("r.csv").exists()


@pytest.mark.skipif(signal.getsignal(signal.SIGINT) == signal.SIG_IGN, reason="started where Ctrl-C is ignored")
def test_a_run_that_is_interrupted(inside: Path, compiled: Path) -> None:
    line = f"run {compiled}/long.spux {INPUTS} --network --output risk=r.csv"
    run = subprocess.Popen([sys.executable, "-m", "spuvm", *line.split(" ")], stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    late = Timer(LIMIT, run.kill)  # what is read below ends then
    late.start()
    try:
        with run.stderr as stderr:
            for text in stderr:
                if "connected" in text:
                    break
            run.send_signal(signal.SIGINT)
            rest = stderr.read()
            assert run.wait(LIMIT) == 130, rest
    finally:
        late.cancel()
    assert "Traceback" not in rest
    assert rest.splitlines()[-1] == "error: interrupted"
    assert not Path("r.csv").exists()
