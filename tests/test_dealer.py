"""`spuvm dealer`: a process beside two parties, and what every one of them says when one fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
from parties import keys_of_another_authority

import spuvm as spu
from spuvm import cli
from spuvm.network import Outcome, dealer_command, make_run_folder, party_command, run_parties

pytestmark = pytest.mark.usefixtures("preloaded")

PARTIES = ("alice", "bob")
ALL = (*PARTIES, "dealer")
LIMIT = 300.0  # seconds, of a whole run; a party that hangs fails its test

PROGRAMS = """
import jax.numpy as jnp
import spuvm as spu
from jax import lax

def product(x, y, rate):
    return spu.reveal(x * y * rate)

def other(x, y, rate):
    return spu.reveal(x * y + rate)

def long(x, y, rate):
    return spu.reveal(lax.fori_loop(0, 100_000, lambda _, p: p * x, x + y) * rate)

def large(x, y, rate):
    a = jnp.broadcast_to(x[:, None, None], (3, 600, 600)).reshape(1800, 600) + jnp.arange(600) / 600
    b = lax.fori_loop(0, 1000, lambda _, b: b / 2 + a, a * y[0])
    for _ in range(6):
        b = b * a
    return spu.reveal(jnp.sum(lax.fori_loop(0, 1000, lambda _, b: b * a, b)) * rate)

def growing(x, y, rate):
    def small(s):
        return spu.reveal(jnp.sum(s[0]) < 100)
    p, n = lax.while_loop(small, lambda s: (s[0] * 1.5 + y, s[1] + 1), (x, jnp.int32(0)))
    return spu.reveal(lax.cond(n > 3, lambda p: p * p, lambda p: p * rate, p)), n
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs, compiled once."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "p.py").write_text(PROGRAMS)
    types = ["--arg", "f32[3]@alice", "--arg", "f32[3]@bob", "--arg", "f32[]@public"]
    for name in ("product", "other", "long", "large", "growing"):
        line = ["compile", f"{folder}/p.py:{name}", *types, "--protocol", "semi2k", "-o", f"{folder}/{name}.spux"]
        assert cli.run(line) == 0
    return folder


@dataclass
class Setting:
    """What each is given; the tests change one thing."""

    folder: Path
    programs: dict[str, Path]
    clusters: dict[str, Path]
    timeout: float = 60.0  # a busy machine takes its time to start three processes
    extra: dict[str, list[str]] = field(default_factory=dict)

    def commands(self) -> dict[str, list[str]]:
        out = {}
        for p in ALL:
            arguments = [str(self.programs[p]), "--config", str(self.clusters[p]), "--timeout", str(self.timeout)]
            arguments += ["--report", str(self.folder / f"{p}.json"), *self.extra.get(p, [])]
            if p == "dealer":
                out[p] = dealer_command(*arguments)
            else:
                mine = f"{'x' if p == 'alice' else 'y'}={self.folder}/{p}.npy"
                out[p] = party_command(*arguments, "--as", p, "--input", mine, "--input", "rate=2")
        return out

    def run(
        self,
        on_line: Callable[[str, str, str], None] | None = None,
        on_start: Callable[[dict[str, int]], None] | None = None,
        who: tuple[str, ...] = ALL,
    ) -> Mapping[str, Outcome]:
        """Run to the end, which must come by the parties' own limits."""
        commands = {p: c for p, c in self.commands().items() if p in who}
        return run_parties(commands, timeout=LIMIT, grace=LIMIT, check=False, on_line=on_line, on_start=on_start)

    def disturbed(self, who: str, number: int, after: float = 0.5) -> Mapping[str, Outcome]:
        """Run, and send that process a signal so many seconds after all are connected."""
        pids: dict[str, int] = {}
        connected: set[str] = set()

        def watch(party: str, stream: str, line: str) -> None:
            if line.startswith("connected"):
                connected.add(party)
                if len(connected) == len(ALL):
                    Timer(after, os.kill, (pids[who], number)).start()
                    if number == signal.SIGSTOP:
                        Timer(after + self.timeout + 10, os.kill, (pids[who], signal.SIGKILL)).start()

        return self.run(watch, pids.update)


@pytest.fixture
def setting(tmp_path: Path, compiled: Path) -> Setting:
    """Everything right."""
    np.save(tmp_path / "alice.npy", np.array([0.5, 1.5, -2], np.float32))
    np.save(tmp_path / "bob.npy", np.array([1, 2, 3], np.float32))
    cluster = make_run_folder(tmp_path / "keys", spu.Config(protocol="semi2k", parties=PARTIES))
    return Setting(tmp_path, dict.fromkeys(ALL, compiled / "product.spux"), dict.fromkeys(ALL, cluster))


def statuses(done: Mapping[str, Outcome]) -> dict[str, int]:
    return {party: outcome.status for party, outcome in done.items()}


def errors(done: Mapping[str, Outcome], but: str = "") -> dict[str, str]:
    """Each one's one error, checked to be one and no traceback."""
    found = {}
    for party, outcome in done.items():
        if party == but:
            continue
        lines = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, (party, outcome.stderr)
        assert "Traceback" not in outcome.stderr
        assert outcome.stdout == ""
        found[party] = lines[0]
    return found


# Runs -------------------------------------------------------------------------------------------------------


def test_two_parties_and_a_dealer(setting: Setting) -> None:
    done = setting.run()
    assert statuses(done) == dict.fromkeys(ALL, 0), [o.stderr for o in done.values()]
    for party in PARTIES:
        assert "[  1.,   6., -12.]" in done[party].stdout, done[party].stdout
    assert done["dealer"].stdout == ""
    cost = spu.load(setting.programs["bob"]).cost
    for rank, party in enumerate(ALL):
        report = json.loads((setting.folder / f"{party}.json").read_text())
        assert report["ran"]["rounds"] == report["predicted"]["rounds"] == cost.party_rounds[rank]
        assert report["ran"]["bytes_sent"] == report["predicted"]["bytes_sent"] == cost.bytes_sent[rank]
    assert report["ran"]["bytes_received"] == 0


def test_a_loop_that_depends_on_what_is_revealed(setting: Setting) -> None:
    setting.programs = dict.fromkeys(ALL, setting.programs["bob"].with_name("growing.spux"))
    done = setting.run()
    assert statuses(done) == dict.fromkeys(ALL, 0), [o.stderr for o in done.values()]
    assert "int32[] public: 6" in done["alice"].stdout
    report = json.loads((setting.folder / "dealer.json").read_text())
    assert report["ran"]["bytes_received"] == 7 + 4  # a byte a test, a number for the branch


def test_a_dealer_that_comes_last(setting: Setting) -> None:
    commands = setting.commands()
    late = [sys.executable, "-c", "import os, sys, time; time.sleep(6); os.execv(sys.argv[1], sys.argv[1:])"]
    commands["dealer"] = [*late, *commands["dealer"]]
    done = run_parties(commands, timeout=LIMIT, check=False)
    assert statuses(done) == dict.fromkeys(ALL, 0), [o.stderr for o in done.values()]


@pytest.mark.parametrize("ahead", [0, 1])
def test_little_memory_to_run_ahead_in(setting: Setting, ahead: int) -> None:
    path = setting.clusters["bob"]
    path.write_text(f"dealer_ahead_mb = {ahead}\n{path.read_text()}")
    setting.programs = dict.fromkeys(ALL, setting.programs["bob"].with_name("growing.spux"))
    assert statuses(setting.run()) == dict.fromkeys(ALL, 0)


def test_the_first_party_as_the_dealer(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    """No process more, the same result, and a word of warning."""
    line = f"run {setting.programs['bob'].with_name('p.py')}:growing --network --protocol semi2k_first_party_unsafe"
    inputs = f" --input x={setting.folder}/alice.npy@alice --input y={setting.folder}/bob.npy@bob --input rate=2"
    assert cli.run((line + inputs).split(" ")) == 0
    out, err = capsys.readouterr()
    assert "int32[] public: 6" in out
    assert "dealer:" not in err
    assert err.count("UNSAFE: party 0, the dealer, can compute every secret") == 2


# Who is who -------------------------------------------------------------------------------------------------


def test_the_dealer_is_no_party(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"party {setting.programs['bob']} --config {setting.clusters['bob']} --as dealer"
    assert cli.run(line.split(" ")) == 2
    assert "dealer is the dealer of" in (err := capsys.readouterr().err)
    assert "start it with `spuvm dealer`" in err


def test_no_dealer_where_none_is_needed(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = make_run_folder(setting.folder / "aby3", spu.Config())
    assert cli.run(f"dealer {setting.programs['bob']} --config {cluster}".split(" ")) == 2
    assert "names no dealer: protocol 'aby3' has none" in capsys.readouterr().err


def test_a_cluster_without_the_dealer_that_it_needs(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    path = setting.clusters["bob"]
    path.write_text(path.read_text().replace('dealer = "dealer"\n', ""))
    assert cli.run(f"dealer {setting.programs['bob']} --config {path}".split(" ")) == 2
    assert "needs a dealer for protocol 'semi2k': set `dealer`" in capsys.readouterr().err


def test_certificates_and_ports_of_a_dealer(tmp_path: Path) -> None:
    line = f"certificates {tmp_path}/keys --parties alice,bob --protocol semi2k --ports"
    assert cli.run([*line.split(" "), "9101,9102"]) == 2
    assert cli.run([*line.split(" "), "9101,9102,9103"]) == 0
    assert '[parties.dealer]\naddress = "127.0.0.1:9103"' in (tmp_path / "keys" / "cluster.toml").read_text()


# Failures ---------------------------------------------------------------------------------------------------


def test_a_dealer_that_does_not_come(setting: Setting) -> None:
    setting.timeout = 10
    done = setting.run(who=PARTIES)
    assert statuses(done) == dict.fromkeys(PARTIES, 3)
    assert all("dealer has not come at 127.0.0.1:" in error for error in errors(done).values()), errors(done)


@pytest.mark.parametrize("program", ["long", "large"])
@pytest.mark.parametrize("who", ALL)
def test_one_is_killed_in_mid_run(setting: Setting, program: str, who: str) -> None:
    """Of the parties, bob is the one that the dealer sends to: it is killed while that streams ahead."""
    setting.programs = dict.fromkeys(ALL, setting.programs["bob"].with_name(f"{program}.spux"))
    done = setting.disturbed(who, signal.SIGKILL)
    assert statuses(done) == {p: -signal.SIGKILL if p == who else 3 for p in ALL}
    said = errors(done, but=who)
    assert all(who in error for error in said.values()), said


@pytest.mark.parametrize("who", ["dealer", "bob"])
def test_one_hangs(setting: Setting, who: str) -> None:
    """The others give up after the time limit, and name it."""
    setting.programs = dict.fromkeys(ALL, setting.programs["bob"].with_name("large.spux"))
    setting.timeout = 20
    done = setting.disturbed(who, signal.SIGSTOP)
    said = errors(done, but=who)
    assert all(f"Nothing came from {who} for 20 s" in error for error in said.values()), said


def test_a_dealer_that_is_ended_says_so(setting: Setting) -> None:
    setting.programs = dict.fromkeys(ALL, setting.programs["bob"].with_name("large.spux"))
    done = setting.disturbed("dealer", signal.SIGTERM)
    assert statuses(done) == {"alice": 3, "bob": 3, "dealer": 143}
    said = errors(done)
    assert said.pop("dealer") == "error: stopped by SIGTERM"
    assert all("dealer stopped" in error for error in said.values()), said


def test_a_dealer_with_another_program(setting: Setting) -> None:
    setting.programs["dealer"] = setting.programs["bob"].with_name("other.spux")
    done = setting.run()
    assert statuses(done) == dict.fromkeys(ALL, 3)
    assert all("dealer differs from alice and bob in `program`" in error for error in errors(done).values())


def test_another_public_input_is_noticed_beside_a_dealer_who_has_none(setting: Setting) -> None:
    commands = setting.commands()
    commands["bob"] = [part.replace("rate=2", "rate=3") for part in commands["bob"]]
    done = run_parties(commands, timeout=LIMIT, grace=LIMIT, check=False)
    assert statuses(done) == dict.fromkeys(ALL, 3)
    assert all("alice and bob differ in `public arguments`" in error for error in errors(done).values()), errors(done)


def test_a_dealer_with_a_certificate_of_another_authority(setting: Setting) -> None:
    setting.clusters["dealer"] = keys_of_another_authority(setting.folder, "dealer")
    done = setting.run()
    assert statuses(done) == dict.fromkeys(ALL, 3)
    assert all("certificate" in error and "authority" in error for error in errors(done).values()), "\n".join(
        errors(done).values()
    )


def test_a_party_cannot_be_the_dealer(setting: Setting) -> None:
    """Bob's certificate does not make a dealer of him."""
    theirs = setting.folder / "theirs"
    shutil.copytree(setting.folder / "keys", theirs)
    for end in ("crt", "key"):
        shutil.copy(theirs / f"bob.{end}", theirs / f"dealer.{end}")
    setting.clusters["dealer"] = theirs / "cluster.toml"
    done = setting.run()
    assert set(statuses(done).values()) <= {2, 3}
    assert all("certificate" in error for error in errors(done).values()), errors(done)


# Time limits ------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, time
import jax, numpy as np
import spuvm as spu
from spuvm.runtime.link.tls import link as tls_link

me, config = sys.argv[1:]
if me == "alice":  # her messages take their time
    for name in ("_arrive", "_take_short"):
        way = getattr(tls_link.TlsLink, name)
        setattr(tls_link.TlsLink, name, lambda *a, way=way: (time.sleep(0.06), way(*a))[1])
spu.init(party=me, config=config)
machine = spu.SPU(spu.utils.testing.cluster_def(["alice", "bob"], {"protocol": "semi2k"}))
x = spu.PYU("alice")(lambda: np.float32([0.5, 1]))().to(machine)
f = machine(lambda x: jax.lax.fori_loop(0, 60, lambda _, p: p * x, x + x))
for _ in range(2):
    start = time.monotonic()
    shown = spu.reveal(f(x))
    machine.vm.session.link.timeout = 3.0  # from here on: a first call compiles
print(time.monotonic() - start > 4)
"""


def test_a_dealer_outlives_a_long_online_phase(tmp_path: Path) -> None:
    """It has done all of its work at once, and hears nothing of the next program for longer than the limit."""
    (tmp_path / "script.py").write_text(SCRIPT)
    config = make_run_folder(tmp_path / "keys", spu.Config(protocol="semi2k", parties=PARTIES))
    commands = {p: [sys.executable, str(tmp_path / "script.py"), p, str(config)] for p in ALL}
    done = run_parties(commands, timeout=LIMIT, check=False)
    assert statuses(done) == dict.fromkeys(ALL, 0), [o.stderr for o in done.values()]
    assert done["alice"].stdout == done["bob"].stdout == "True\n"


def test_help_says_what_a_dealer_is() -> None:
    text = subprocess.run(dealer_command("--help"), capture_output=True, text=True, check=True).stdout
    for word in ("--config", "correlated randomness", "pact", "dealer_ahead_mb"):
        assert word in text
