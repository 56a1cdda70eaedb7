"""The command line in this process: compiling, costs, simulated runs, and what is said about mistakes.

Runs of separate processes are in `test_network.py`.
"""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spuvm as spu
from spuvm import cli
from spuvm.commands.group import COMMANDS
from spuvm.commands.options import ArgumentType, InputType, OutputType, StaticType
from spuvm.data import tables

PROGRAMS = '''
import jax.numpy as jnp
import numpy as np
import spuvm as spu

def total(x, y):
    return spu.reveal(jnp.sum(x) + jnp.sum(y))

def product(x, y, rate=2.0):
    """Four results, of all visibilities."""
    p = x * y
    return {
        "all": spu.reveal(jnp.sum(p)),
        "carol": spu.reveal(p * rate, to="carol"),
        "mine": x + 1,
        "secret": p,
    }

def keep(x):
    return x * 2

def model(params, x):
    return spu.reveal(x @ params["w"] + params["b"], to="bob")

def steps(x, n):
    for _ in range(n):
        x = x + 1
    return spu.reveal(x)

def wrong(x):
    return x.no_such_thing

def pair(x):
    return spu.reveal(x), spu.reveal(x + 1)

@spu.jit(fxp_fraction_bits=12, parties=("ann", "ben", "cid"))
def decorated(x):
    return spu.reveal(x)

NUMBER = 3
'''


def line_of(text: str) -> int:
    """Of p.py, from 1."""
    return next(i for i, line in enumerate(PROGRAMS.splitlines(), 1) if text in line)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with programs and data; the import path is as before afterwards."""
    (tmp_path / "p.py").write_text(PROGRAMS)
    (tmp_path / "a.csv").write_text("id,age,bmi\n1,0.5,20\n2,1.5,30\n3,-2,25\n")
    (tmp_path / "one.csv").write_text("age\n1\n")
    (tmp_path / "b.csv").write_text("id,age\n1,1\n2,2\n3,3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("spuvm_program_p", None)


Spuvm = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def spuvm(capsys: pytest.CaptureFixture[str]) -> Spuvm:
    """Run a command line: exit status, stdout, stderr. Words are separated by single spaces."""

    def run(line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.run(line.split(" "))
        out, err = capsys.readouterr()
        return status, out, err

    return run


BOTH = "--input x=a.csv:age@alice --input y=b.csv:age@bob"
ARGS = "--arg f32[3]@alice --arg f32[3]@bob"


# The syntax of arguments ----------------------------------------------------------------------------------


def test_arguments() -> None:
    parse = ArgumentType().parse
    a = parse("f32[1000,30]@alice")
    assert (a.dtype, a.shape, a.who, a.name) == ("float32", (1000, 30), "alice", None)
    b = parse("params.w=bf16")
    assert (b.dtype, b.shape, b.who, b.name) == ("bfloat16", (), None, "params.w")
    assert parse("uint8[ 2 ]@public").shape == (2,)
    for text in ("f32[3", "f32[-3]", "f32[a]", "=f32", "f32[3]@", "F32[3]"):
        with pytest.raises(ValueError, match="is not like"):
            parse(text)


def test_inputs() -> None:
    parse = InputType().parse
    x = parse("x=dir.v2/a b.csv:age,body mass@alice")
    assert (x.name, x.path, x.columns, x.who) == ("x", Path("dir.v2/a b.csv"), ("age", "body mass"), "alice")
    assert parse("x=me@home/a.parquet").who is None
    assert parse("x=me@home/a.npy@bob").who == "bob"
    for text, number in (("1", 1), ("-2.5e-3", -0.0025), ("True", True), ("false@bob", False)):
        found = parse(f"x={text}")
        assert (found.path, found.number, type(found.number)) == (None, number, type(number))
    for text in ("a.csv", "x=", "x=a.txt", "3=a.csv"):
        with pytest.raises(ValueError, match=r"is not like|is no file name"):
            parse(text)


def test_outputs_and_statics() -> None:
    parse = OutputType().parse
    y = parse("out[1]=r.csv:a,b")
    assert (y.name, y.path, y.columns) == ("out[1]", Path("r.csv"), ("a", "b"))
    assert parse("r.npy").name is None
    with pytest.raises(ValueError, match="leave out `@bob`"):
        parse("y=r.csv@bob")
    assert StaticType().parse("3=10") == (3, 10)
    assert StaticType().parse("mode=fast") == ("mode", "fast")
    assert StaticType().parse("sizes=(1, 2)") == ("sizes", (1, 2))


# compile -----------------------------------------------------------------------------------------------------


def test_compile_writes_a_program_that_loads(spuvm: Spuvm) -> None:
    status, out, err = spuvm(f"compile p.py:product {ARGS} -o f.spux")
    assert (status, out) == (0, "")
    program = spu.load("f.spux")
    assert program.hash in err
    assert "takes y float32[3] private(bob)" in err
    assert "gives out.secret float32[3] secret" in err
    assert [p.type.visibility for p in program.module.body.params] == [0, 1]
    assert spuvm(f"compile p.py:product {ARGS} -o f.spux")[0] == 0  # again: as compilers do


@pytest.mark.parametrize("stage", ["jaxpr", "ir", "choreography", "stages"])
def test_every_stage_can_be_shown(spuvm: Spuvm, stage: str) -> None:
    status, out, _ = spuvm(f"compile p.py:total {ARGS} --emit {stage}")
    assert status == 0
    assert {"jaxpr": "reduce_sum", "ir": "spux 1", "choreography": "inputs %0", "stages": "party bob"}[stage] in out


def test_a_saved_program_can_be_shown(spuvm: Spuvm) -> None:
    spuvm(f"compile p.py:total {ARGS} -o f.spux")
    assert spuvm("compile f.spux --emit ir")[1] == Path("f.spux").read_text()
    status, _, err = spuvm("compile f.spux --emit jaxpr")
    assert (status, "has no jaxpr" in err) == (2, True)


def test_the_machine_can_be_chosen(spuvm: Spuvm) -> None:
    spuvm("compile p.py:keep --arg f32[3]@y --parties x,y,z --fxp 20 -o f.spux")
    assert spu.load("f.spux").config == spu.Config("aby3", 64, 20, ("x", "y", "z"))
    spuvm("compile p.py:keep --arg f32[3] --protocol ref2k -o f.spux")
    assert spu.load("f.spux").config == spu.Config("ref2k", 64, 18, ("alice",))


def test_a_decorated_function_brings_its_machine(spuvm: Spuvm) -> None:
    spuvm("compile p.py:decorated --arg f32[3]@ben -o f.spux")
    assert spu.load("f.spux").config == spu.Config("aby3", 64, 12, ("ann", "ben", "cid"))


def test_named_arguments_make_trees_and_defaults_stay(spuvm: Spuvm) -> None:
    line = "--arg params.w=f32[3]@bob --arg f32[2,3]@alice --arg params.b=f32[]@bob"
    assert spuvm(f"compile p.py:model {line} -o f.spux")[0] == 0
    assert spu.load("f.spux").module.inputs == ("params.b", "params.w", "x")
    spuvm(f"compile p.py:product {ARGS} -o f.spux")
    assert spu.load("f.spux").module.inputs == ("x", "y")


@pytest.mark.parametrize("static", ["1=4", "n=4"])
def test_static_arguments(spuvm: Spuvm, static: str) -> None:
    assert spuvm(f"compile p.py:steps --arg f32[2]@alice --static {static} -o f.spux")[0] == 0
    assert spu.load("f.spux").module.inputs == ("x",)


@pytest.mark.parametrize(("to", "who"), [("all", "public"), ("bob", 1)])
def test_reveal_opens_all_results(spuvm: Spuvm, to: str, who: Any) -> None:
    spuvm(f"compile p.py:keep --arg f32[3]@alice --reveal {to} -o f.spux")
    program = spu.load("f.spux")
    assert program.module.body.results[0].type.visibility == who
    assert any(str(op.location) == f"p.py:{line_of('def keep')}" for op in program.module.body.ops)


def test_x64(spuvm: Spuvm) -> None:
    assert spuvm("compile p.py:keep --arg i64[3]@alice --x64 -o f.spux")[0] == 0
    status, _, err = spuvm("compile p.py:keep --arg i64[3]@alice -o f.spux")
    assert (status, "give `--x64`" in err) == (2, True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("p.py:total", "say where to write the program"),
        ("p.py:total -o f.spux", "takes (x, y): nothing is given for `x`, `y`"),
        (f"p.py:keep {ARGS} -o f.spux", "1 of the `--arg` given are left over"),
        (f"p.py:total {ARGS} --static z=1 -o f.spux", "it has no `z`"),
        (f"p.py:totl {ARGS} -o f.spux", "has no function `totl` (did you mean `total`?)"),
        (f"p.py:NUMBER {ARGS} -o f.spux", "is no function but `int`"),
        (f"q.py:total {ARGS} -o f.spux", "there is no file q.py"),
        ("total -o f.spux", "neither a compiled program (f.spux) nor a function"),
        ("p.py:keep --arg f32[3]@alcie -o f.spux", "(did you mean `alice`?)"),
        ("p.py:keep --arg f33[3] -o f.spux", "there is no dtype 'float33'"),
        ("p.py:keep --arg f32[3 -o f.spux", "is not like"),
        ("p.py:keep --arg f32[3] -o f.txt", "a program's name ends in .spux"),
        ("p.py:keep --arg f32[3] -o no/f.spux", "there is no folder"),
        ("p.py:keep --arg f32[3] --ring 65 -o f.spux", "`ring` must be one of"),
        ("p.py:keep --arg f32[3] --parties a,b -o f.spux", "runs among 3 parties"),
        ("p.py:keep --arg f32[3] --reveal dave -o f.spux", "`--reveal` must be `all` or one of"),
        ("p.py:wrong --arg f32[3] -o f.spux", f"p.py:{line_of('no_such_thing')}: AttributeError"),
        ("missing.spux --emit ir", "cannot read the program"),
    ],
)
def test_mistakes_of_compile(spuvm: Spuvm, line: str, message: str) -> None:
    status, out, err = spuvm(f"compile {line}")
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert out == ""
    assert not Path("f.spux").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(x:\n", "bad.py:1:"),
        ("import jax\n1 / 0\n", "bad.py:2: ZeroDivisionError"),
        ("def f(x):\n    if x > 0:\n        return x\n", "bad.py:2: Python needs the value"),
        ("import jax.numpy as jnp\ndef f(x):\n    return jnp.zeros(x)\n", "bad.py:3: Python needs the value"),
        ("def f(x):\n    return int(x)\n", "bad.py:2: Python needs the value"),
    ],
)
def test_mistakes_in_the_users_file(spuvm: Spuvm, source: str, message: str) -> None:
    Path("bad.py").write_text(source)
    status, _, err = spuvm("compile bad.py:f --arg f32[] -o f.spux")
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_file_that_is_no_program_is_not_overwritten(spuvm: Spuvm) -> None:
    Path("notes.spux").write_text("dear diary")
    status, _, err = spuvm(f"compile p.py:total {ARGS} -o notes.spux")
    assert (status, "no program of spuvm" in err) == (2, True)
    assert Path("notes.spux").read_text() == "dear diary"
    assert spuvm(f"compile p.py:total {ARGS} -o notes.spux --force")[0] == 0


def test_debug_shows_where(spuvm: Spuvm) -> None:
    line = "compile p.py:wrong --arg f32[3] -o f.spux"
    assert "Traceback" not in spuvm(line)[2]
    assert "no_such_thing" in (err := spuvm(f"{line} --debug")[2])
    assert "Traceback" in err


# cost ----------------------------------------------------------------------------------------------------------


def test_cost_is_that_of_the_program(spuvm: Spuvm) -> None:
    spuvm(f"compile p.py:product {ARGS} -o f.spux")
    expected = spu.load("f.spux").cost
    status, out, _ = spuvm("cost f.spux --json")
    assert status == 0
    found = json.loads(out)
    assert (found["rounds"], found["bytes_sent"]) == (expected.rounds, expected.bytes_sent.tolist())
    _, out, _ = spuvm(f"cost p.py:product {ARGS}")
    assert f"{expected.rounds} rounds" in out
    for word in ("alice", "trunc", "reveal", f"p.py:{line_of('p = x * y')}"):
        assert word in out


def test_a_saved_program_takes_no_arguments(spuvm: Spuvm) -> None:
    spuvm(f"compile p.py:total {ARGS} -o f.spux")
    status, _, err = spuvm(f"cost f.spux {ARGS}")
    assert (status, "compiled already" in err) == (2, True)


# run, simulated --------------------------------------------------------------------------------------------------


def test_run_prints_what_is_revealed(spuvm: Spuvm) -> None:
    status, out, err = spuvm(f"run p.py:total {BOTH}")
    assert (status, out) == (0, "out float32[] public: 6.\n")
    assert "rounds" in err
    assert spuvm(f"run p.py:total {BOTH} --quiet")[1:] == (out, "")


def test_run_writes_what_is_revealed(spuvm: Spuvm) -> None:
    status, out, _ = spuvm(f"run p.py:product {BOTH} --output carol=c.csv:risk --output all=s.npy")
    assert status == 0
    table = tables.read("c.csv")
    assert table.names == ("risk",)
    np.testing.assert_allclose(table.array(np.float32), [1, 6, -12], atol=1e-4)
    np.testing.assert_allclose(np.load("s.npy"), -2.5, atol=1e-4)
    assert "out.secret float32[3] secret: stays shared" in out
    assert "out.carol" not in out


def test_the_only_result_may_have_any_name(spuvm: Spuvm) -> None:
    spuvm(f"run p.py:total {BOTH} --output age=r.csv")
    assert tables.read("r.csv").names == ("age",)


def test_results_by_number(spuvm: Spuvm) -> None:
    assert spuvm("run p.py:pair --input x=b.csv:age@bob --output 1=r.csv")[0] == 0
    np.testing.assert_array_equal(tables.read("r.csv").array(np.float32), [2, 3, 4])


def test_numbers_and_matrices_as_inputs(spuvm: Spuvm) -> None:
    _, out, _ = spuvm("run p.py:keep --input x=2.5 --reveal all")
    assert out == "out float32[] public: 5.\n"
    _, out, _ = spuvm("run p.py:keep --input x=a.csv:-id@alice --reveal all")
    assert "float32[3,2]" in out
    _, out, _ = spuvm("run p.py:keep --input x=b.csv:id@alice --reveal all")
    assert "int32[3] public:\n  [2, 4, 6]" in out
    _, out, _ = spuvm("run p.py:keep --input x=b.csv:id --arg x=f32[3,1]@bob --reveal all")
    assert "float32[3,1]" in out


def test_run_of_a_saved_program(spuvm: Spuvm) -> None:
    spuvm(f"compile p.py:total {ARGS} -o f.spux")
    assert spuvm(f"run f.spux {BOTH}")[1] == "out float32[] public: 6.\n"
    assert spuvm("run f.spux --input x=a.csv:age --input y=b.csv:age")[0] == 0


def test_outputs_are_not_overwritten(spuvm: Spuvm) -> None:
    Path("r.csv").write_text("precious")
    status, _, err = spuvm(f"run p.py:total {BOTH} --output r.csv")
    assert (status, "is there already" in err) == (2, True)
    assert Path("r.csv").read_text() == "precious"
    assert spuvm(f"run p.py:total {BOTH} --output r.csv --force")[0] == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"p.py:product {BOTH} --output secret=r.csv", "is secret, so nobody can write it: reveal it in the program"),
        (f"p.py:product {BOTH} --output r.csv", "has 4 results: name one"),
        (f"p.py:product {BOTH} --output no=r.csv", "has no result `no`"),
        (f"p.py:total {BOTH} --output y=no/r.csv", "there is no folder"),
        (f"p.py:total {BOTH} --output y=r.csv --output z=s.csv", "is named twice"),
        ("p.py:total --input x=a.csv:agee --input y=b.csv:age", "a.csv has no column `agee` (did you mean `age`?)"),
        ("p.py:total --input x=no.csv --input y=b.csv:age", "no.csv: there is no such file"),
        ("p.py:total --input x=a.csv:age", "nothing is given for `y`"),
        (f"p.py:total {BOTH} --input z=a.csv", "it has no `z`"),
        ("p.py:total --input x=a.csv:age --input y=one.csv:age", "the inputs differ in rows: `x` 3, `y` 1"),
        (f"p.py:total {BOTH} --input x=b.csv:age", "`x` is given twice"),
        (f"p.py:total {BOTH} --input", "requires an argument"),
        ("p.py:keep --input x=a.csv:age --arg x=f32[4]@alice", "has 3 rows and 1 columns"),
        ("p.py:total --input x=a.csv:age --input y=b.csv:age --network", "belongs to nobody"),
        ("f.spux --input x=a.csv:age@bob --input y=b.csv:age", "`x` is private(alice) in the program, not `@bob`"),
        ("f.spux --input x=a.csv:age --input z=b.csv:age", "has no input `z`"),
        ("f.spux --input x=a.csv:age", "`--input y=...` is missing"),
        ("f.spux --input x=a.csv:age --input y=b.csv", "b.csv has 3 rows and 2 columns (id, age)"),
    ],
)
def test_mistakes_of_run(spuvm: Spuvm, line: str, message: str) -> None:
    spuvm(f"compile p.py:total {ARGS} -o f.spux")
    before = sorted(Path().rglob("*.*"))
    status, out, err = spuvm(f"run {line}")
    assert status == 2
    assert message in err
    assert (err.count("\n"), out) == (1, "")
    assert sorted(Path().rglob("*.*")) == before


def test_different_row_counts_are_pointed_out(spuvm: Spuvm) -> None:
    Path("short.csv").write_text("age\n1\n2\n")
    status, _, err = spuvm("run p.py:product --input x=a.csv:age --input y=short.csv:age")
    assert status == 2
    assert "the inputs differ in rows: `x` 3, `y` 2" in err


@pytest.mark.parametrize("cell", ["NaN", "1e20", "Smith", ""])
def test_data_that_cannot_be_shared(spuvm: Spuvm, cell: str) -> None:
    Path("x.csv").write_text(f"age,n\n1,1\n{cell},1\n3,1\n")
    spuvm(f"compile p.py:total {ARGS} -o f.spux")
    for target in ("p.py:total", "f.spux"):
        status, _, err = spuvm(f"run {target} --input x=x.csv:age --input y=b.csv:age --output r.csv")
        assert status == 2
        assert "age" in err or "`x`" in err
        assert "Smith" not in err
        assert not Path("r.csv").exists()


# certificates, party: what is wrong before anything is sent ---------------------------------------------------------


def test_certificates(spuvm: Spuvm) -> None:
    status, _, _ = spuvm("certificates keys --parties alice,bob,carol --ports 9101,9102,9103 --timeout 5")
    assert status == 0
    assert 'address = "127.0.0.1:9102"' in Path("keys/cluster.toml").read_text()
    status, _, err = spuvm("certificates keys --parties alice,bob,carol")
    assert (status, "is not empty" in err) == (2, True)
    status, _, err = spuvm("certificates more --parties alice,bob,carol --ports 1,2")
    assert (status, "2 ports for 3 parties" in err) == (2, True)
    status, _, err = spuvm("certificates more --parties alice,bob")
    assert (status, "runs among 3 parties" in err) == (2, True)
    assert not Path("more").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--as dave f.spux", "`dave` is not in the cluster file"),
        ("--as alice no.spux", "cannot read the program"),
        ("--as alice f.spux", "`--input x=...` is missing"),
        ("--as alice f.spux --input y=b.csv:age", "`y` belongs to bob: only bob gives it"),
        ("--as bob f.spux --input y=b.csv:age --output carol=r.csv", "is revealed to carol alone: carol writes it"),
        ("--as bob f.spux --input y=b.csv:age --output secret=r.csv", "is secret, so nobody can write it"),
        ("--as bob f.spux --input y=b.csv:agee", "b.csv has no column `agee`"),
        ("--as alice secret.spux --input x=a.csv:age", "belongs to nobody"),
        ("--as alice other.spux --input x=a.csv:age", "compiled with fxp_fraction_bits = 12, keys/cluster.toml has 18"),
        ("--as alice names.spux --input x=a.csv:age", "compiled with parties = x, y, z"),
    ],
)
def test_mistakes_of_a_party(spuvm: Spuvm, line: str, message: str) -> None:
    spuvm("certificates keys --parties alice,bob,carol --timeout 1")
    spuvm(f"compile p.py:product {ARGS} -o f.spux")
    spuvm("compile p.py:keep --arg f32[3] -o secret.spux")
    spuvm("compile p.py:keep --arg f32[3]@alice --fxp 12 -o other.spux")
    spuvm("compile p.py:keep --arg f32[3] --parties x,y,z -o names.spux")
    status, out, err = spuvm(f"party --config keys/cluster.toml {line}")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


# The command itself ---------------------------------------------------------------------------------------------------


def test_every_command_has_help_with_an_example(spuvm: Spuvm) -> None:
    assert "spuvm party --config" in spuvm("--help")[1]
    for name in COMMANDS:
        status, out, _ = spuvm(f"{name} --help")
        assert status == 0
        assert f"    spuvm {name} " in out


def test_version(spuvm: Spuvm) -> None:
    assert spuvm("--version")[1].startswith("spuvm, version ")


def test_unknown_commands_and_options(spuvm: Spuvm) -> None:
    for line in ("frobnicate", "run --colour p.py:total"):
        status, _, err = spuvm(line)
        assert (status, err.startswith("error: No such ")) == (2, True)
    assert "No such command 'compil': did you mean `compile`? See" in spuvm("compil")[2]


def test_ctrl_c(spuvm: Spuvm, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spuvm.commands.cost.program_of", interrupt)
    status, out, err = spuvm("cost f.spux")
    assert (status, out, err.strip()) == (130, "", "error: interrupted")


def test_a_mistake_inside_is_one_line(spuvm: Spuvm, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("no\nway")

    monkeypatch.setattr("spuvm.commands.cost.program_of", fail)
    status, _, err = spuvm("cost f.spux")
    assert (status, err) == (1, "error: AssertionError: no (a mistake inside spuvm; `--debug` shows where)\n")


def test_without_the_extra_packages_one_line_says_what_to_install(folder: Path) -> None:
    code = "import sys; sys.modules['click'] = None; from spuvm.cli import main; main(['cost', 'f.spux'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: the command line needs packages that are missing: pip install 'spuvm[cli]'\n"


def test_importing_spuvm_needs_none_of_them() -> None:
    code = "import sys, spuvm; print([m for m in ('click', 'rich', 'pyarrow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_missing_cells(spuvm: Spuvm) -> None:
    """NaN to the function, 0 and a bool to the parties; one who gives no `--missing` is refused as ever."""
    Path("gaps.csv").write_text("age,n\n1,1\n,2\n4,3\nNaN,4\n")
    Path("m.py").write_text("import jax.numpy as jnp\ndef gaps(x):\n    return jnp.nanmean(x), 2 * x\n")
    status, out, err = spuvm("run m.py:gaps --input x=gaps.csv:age@alice --missing x --reveal all --quiet")
    assert (status, out.splitlines()[:3]) == (
        0,
        ["out[0] float32[] public: 2.5", "out[1] float32[4] public:", "  [ 2., nan,  8., nan]"],
    ), err
    spuvm("compile m.py:gaps --arg x=f32[4]@alice --missing x --reveal all -o gaps.spux")
    assert spuvm("run gaps.spux --input x=gaps.csv:age --quiet") == (0, out, "")
    for line, message in (
        ("run m.py:gaps --input x=gaps.csv:age@alice --reveal all", "2 of 4 cells empty or NaN"),
        ("run m.py:gaps --input x=gaps.csv:age@alice --missing y", "no `--input y=...`"),
        ("compile m.py:gaps --arg i32[4] --missing x --emit ir", "`x` is int32: give it a float dtype"),
        ("compile m.py:gaps --arg f32[4] --missing z --emit ir", "no argument `z`"),
    ):
        status, _, err = spuvm(line)
        assert (status, message in err) == (2, True), err


def test_a_command_that_lacks_a_package_says_what_to_install(spuvm: Spuvm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is missing, help is shown: an installation of `cli` alone has no service."""
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name == "spuvm.commands.audit":
            raise ModuleNotFoundError("No module named 'jinja2'", name="jinja2")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    status, out, _ = spuvm("--help")
    assert status == 0 and "pip install 'spuvm[service]'" in out and "compile" in out
    for line in ("audit", "audit --help", "audit verify record.jsonl"):
        status, _, err = spuvm(line)
        assert status == 2 and "`spuvm audit` needs the package `jinja2`: pip install 'spuvm[service]'" in err


@pytest.mark.parametrize(("number", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_that_arrives_where_exceptions_end_is_not_lost(number: str, status: int) -> None:
    code = f"""
import os, signal, time
import click
from spuvm import cli, commands

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.{number})
        time.sleep(0)

@click.command()
def waits():
    Deaf()
    time.sleep(60)

commands.cli = waits
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.main([])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == status, done.stderr
