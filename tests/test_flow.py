"""Flows: built, checked, run, kept, resumed; a thousand small nodes, and graphs at random beside a plain run."""

from __future__ import annotations

import random
import shutil
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from flow_cases import parties, small
from flows import LOST, PARTIES, RAN, added, both, constant, failing, local, lost

import spuvm as spu
from spuvm import context as contexts
from spuvm.flow import Flow, NodeFailed, find, run
from spuvm.flow.files import of_dict, to_toml
from spuvm.flow.kinds import PartyTable
from spuvm.flow.parameters import Party
from spuvm.flow.records import read
from spuvm.runtime.errors import ConfigError, InputError, SaveError

__all__ = ["parties"]
TODAY = date.today()


def test_a_flow_runs_and_is_taken_from_before(tmp_path: Path) -> None:
    first = run(small(), state=tmp_path)
    assert (first["high"], first["low"], first["c"], first["d.low"]) == (10.0, 7.0, 6.0, 4.0)
    assert sorted(RAN) == list("abcdef")
    again = run(small(), state=tmp_path)
    assert (again["high"], again["low"]) == (10.0, 7.0) and len(RAN) == 6
    assert set(again.states.values()) == {"cached"}


def test_one_changed_parameter_runs_only_what_follows(tmp_path: Path) -> None:
    run(small(), state=tmp_path)
    RAN.clear()
    changed = run(small().set(**{"d.width": 3.0}), state=tmp_path)
    assert sorted(RAN) == ["d", "e", "f"] and changed["high"] == 11.0
    RAN.clear()
    run(small().set(**{"d.width": 2.0}), state=tmp_path)  # as it was
    assert RAN == []
    run(small(), state=tmp_path, fresh=True)
    assert len(RAN) == 6


def test_what_is_not_needed_is_not_loaded_nor_run(tmp_path: Path) -> None:
    first = run(small(), state=tmp_path)
    for store in tmp_path.glob("*/nodes"):
        for name in "abc":
            key = first.nodes[name].key
            (store / key[:2] / f"{key[2:]}.json").unlink()
    RAN.clear()
    again = run(small(), state=tmp_path)
    assert RAN == [] and again.states["a"] == "not needed" and again["high"] == 10.0


def test_200_graphs_are_as_a_plain_run(tmp_path: Path) -> None:
    for seed in range(200):
        r = random.Random(seed)
        refs: list[Any] = []
        plain: list[float] = []
        tags: list[str] = []
        for i in range(r.randint(2, 9)):
            tag, kind = str(i), r.choice(["constant", "added", "both"]) if refs else "constant"
            if kind == "constant":
                value = float(r.randint(-9, 9))
                refs.append(constant(value=value, tag=tag, name=f"n{i}"))
                plain.append(value)
            elif kind == "added":
                a, b, by = r.randrange(len(refs)), r.randrange(len(refs)), float(r.randint(-9, 9))
                refs.append(added(refs[a], refs[b], by=by, tag=tag, name=f"n{i}"))
                plain.append(plain[a] + plain[b] + by)
            else:
                a, width = r.randrange(len(refs)), float(r.randint(0, 9))
                refs += both(refs[a], width=width, tag=tag, name=f"n{i}")
                plain += [plain[a] - width, plain[a] + width]
            tags.append(tag)
        flow = Flow("random", **{f"o{i}": ref for i, ref in enumerate(refs)})
        RAN.clear()
        state = tmp_path / str(seed)
        made = run(flow, state=state, workers=r.choice([1, 2]))
        assert [made[f"o{i}"] for i in range(len(refs))] == plain
        assert sorted(RAN) == sorted(tags)
        at = {n: i for i, n in enumerate(flow.nodes)}
        assert all(at[b] < at[n] for n, node in flow.nodes.items() for b in node.before)
        kept = r.sample(list(flow.nodes), len(flow.nodes) // 2)
        for name in set(flow.nodes) - set(kept):  # lose some, at one party
            key = made.nodes[name].key
            (state / r.choice(PARTIES) / "nodes" / key[:2] / f"{key[2:]}.json").unlink()
        again = run(of_dict(_body(flow)), state=state)
        assert [again[f"o{i}"] for i in range(len(refs))] == plain
        assert {n for n in kept if again.nodes[n].state == "done"} == set()


def _body(flow: Flow) -> Any:
    import tomllib

    return tomllib.loads(to_toml(flow))


def test_a_thousand_small_nodes_add_little(tmp_path: Path) -> None:
    ref = constant(value=1.0)
    for _ in range(999):
        ref = added(ref, ref, by=-1.0)
    flow = Flow("long", out=ref)
    start = time.process_time()
    made = run(flow, state=tmp_path)
    assert made["out"] == 1.0
    assert (time.process_time() - start) / 1000 < 0.005  # seconds a node


def test_parties_own_nodes_run_beside_each_other(tmp_path: Path) -> None:
    import threading

    meet = threading.Barrier(2, timeout=200)

    @spu.component(name="test_beside", at="party")
    def meeting(*, party: Party) -> PartyTable:
        """A table, made when another party makes one, too."""
        import pyarrow as pa

        return spu.PYU(party)(lambda: (meet.wait(), pa.table({"x": [1]}))[1])()

    made = run(Flow("meet", a=meeting(party="alice"), b=meeting(party="bob")), state=tmp_path, workers=2)
    assert set(made.states.values()) == {"done"}
    waiting = run(Flow("one by one", a=local(party="alice", rows=2), b=local(party="alice", rows=3)), state=tmp_path)
    assert waiting["b"].value.num_rows == 3


# What is wrong ------------------------------------------------------------------------------------------


def wrong(text: str) -> str:
    import tomllib

    with pytest.raises(ConfigError) as error:
        of_dict(tomllib.loads(text), "credit.toml")
    return str(error.value)


NODES = '[nodes.a]\ncomponent = "test_constant"\nvalue = 1.0\n'


@pytest.mark.parametrize(
    ("component", "rest", "says"),
    [
        ("test_aded", "", "node `b`: there is no component `test_aded` (did you mean `test_added`?)"),
        ("test_added", 'x = "a"\ny = "c"', "input `y` of node `b` names node `c`"),
        ("test_added", 'x = "a"', "lacks its input `y`: give it a number"),
        ("test_added", 'x = "a"\ny = "a"\nbuy = 2.0', "no parameter `buy` (did you mean `by`?)"),
        ("test_added", 'x = "a"\ny = "a"\nby = 200', "`by` of credit.toml: node `b` (test_added) must"),
        ("test_added", 'x = "a"\ny = "a"\nby = "2"', "must be a number from -100 to 100, got '2'"),
        ("test_added", 'x = "a"\ny = "a"\nretries = -1', "`retries` of node `b` must be a whole number"),
        ("test_both", 'x = "a"\n[nodes.c]\ncomponent = "test_both"\nx = "b"', "write `b.low`"),
        ("test_both", 'x = "a"\n[nodes.c]\ncomponent = "test_both"\nx = "b.lo"', "has no output `lo`"),
        ("test_both", 'x = "c.low"\n[nodes.c]\ncomponent = "test_both"\nx = "b.low"', "a circle: b -> c -> b. Cut it"),
        ("split", 'data = "a"', "takes a frame, and `out` of node `a` is a number"),
        ("read", 'party = "dave"\ntable = "t"', "`party` of node `b` (read) is 'dave'"),
    ],
)
def test_each_mistake_is_one_clear_error(component: str, rest: str, says: str) -> None:
    head = f'name = "x"\nparties = ["alice", "bob", "carol"]\n{NODES}'
    assert says in wrong(f'{head}[nodes.b]\ncomponent = "{component}"\n{rest}\n')


def test_files_that_are_no_flows() -> None:
    assert "node `b` lacks `component`" in wrong(f'name = "x"\n{NODES}[nodes.b]\nparty = "dave"\n')
    assert "unknown key `node` (did you mean `nodes`?)" in wrong('name = "x"\n[node.b]\nparty = "dave"\n')


def test_calls_are_checked_as_they_are_made() -> None:
    with pytest.raises(ConfigError, match="has no parameter `valeu` \\(did you mean `value`\\?\\)"):
        constant(valeu=1.0)
    with pytest.raises(ConfigError, match="lacks `value`"):
        constant()
    with pytest.raises(ConfigError, match="input `y` of node `test_added` \\(test_added\\) is a `float`"):
        Flow("x", out=added(constant(value=1.0), 2.0))
    with pytest.raises(ConfigError, match="takes 2 inputs, got 3"):
        added(1, 2, 3)
    with pytest.raises(ConfigError, match="two nodes cannot be called `a`"):
        Flow("x", out=added(constant(value=1.0, name="a"), constant(value=2.0, name="a")))
    with pytest.raises(ConfigError, match="argument `x` of component `odd` has no annotation"):
        spu.component(name="odd")(lambda x: x)
    with pytest.raises(ConfigError, match=r"node `d` has no parameter `widht` .did you mean `width`"):
        small().set(**{"d.widht": 1})


def test_a_node_that_fails_says_which_and_what_to_do(tmp_path: Path) -> None:
    flow = Flow("x", out=failing(added(constant(value=1.0), constant(value=2.0), name="sum"), name="bad luck"))
    with pytest.raises(
        NodeFailed, match=r"node `bad luck` \(test_failing\) stopped: ValueError: no luck. Finished"
    ) as e:
        run(flow, state=tmp_path, name="try")
    assert e.value.node == "bad luck" and read(tmp_path / "alice", "try").state == "failed"
    RAN.clear()
    with pytest.raises(ConfigError, match="there is a run `try` already \\(failed\\): resume it"):
        run(flow, state=tmp_path, name="try")
    with pytest.raises(NodeFailed):
        run(flow, state=tmp_path, name="try", resume=True)
    assert RAN == []  # what was finished is kept
    with pytest.raises(ConfigError, match=r"run `try` is of flow .*, and this one is"):
        run(small(), state=tmp_path, name="try", resume=True)


def test_retries_are_for_what_may_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Flow("x", out=lost(constant(value=4.0), times=2, retries=2, name="lost"))
    assert run(flow, state=tmp_path)["out"] == 4.0 and len(LOST) == 3
    LOST.clear()
    with pytest.raises(NodeFailed, match="bob closed"):
        run(Flow("y", out=lost(constant(value=4.0), times=2)), state=tmp_path, retries=1)
    assert len(LOST) == 2
    with pytest.raises(NodeFailed, match="ValueError"):
        run(Flow("z", out=failing(constant(value=4.0), retries=5)), state=tmp_path)
    LOST.clear()
    monkeypatch.setattr(contexts.here(), "worker", True)
    with pytest.raises(NodeFailed, match="bob closed"):
        run(Flow("w", out=lost(constant(value=4.0), times=3, retries=5)), state=tmp_path)
    assert len(LOST) == 1, "a worker's session is not that of the cluster file"


def test_a_full_disk_is_said_and_nothing_half_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spuvm.flow.checkpoints import Checkpoints

    def full(self: Any, path: Path, body: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(Checkpoints, "_write", full)
        with pytest.raises(NodeFailed, match=r"the disk of .* is full: free some space. Finished nodes") as error:
            run(small(), state=tmp_path, name="try")
    assert isinstance(error.value.cause, SaveError)
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and "nodes" in f.parts]
    assert run(small(), state=tmp_path, name="try", resume=True)["high"] == 10.0


def test_a_damaged_checkpoint_is_found(tmp_path: Path) -> None:
    flow = Flow("x", rows=local(party="bob", rows=4))
    first = run(flow, state=tmp_path)
    (file,) = (tmp_path / "bob" / "nodes").rglob("*.arrow")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match="is damaged: delete it"):
        run(flow, state=tmp_path)["rows"]
    file.write_bytes(b"short")  # of another size: it does not count
    assert run(flow, state=tmp_path)["rows"].value.num_rows == first["rows"].value.num_rows


def test_what_two_runs_made_at_once_is_not_mixed(tmp_path: Path) -> None:
    """Bob's disk has what one run wrote last, alice's what another did: neither counts."""
    flow = Flow("x", rows=local(party="bob", rows=4))
    one, two = tmp_path / "one", tmp_path / "two"
    for state in (one, two):
        assert set(run(flow, state=state).states.values()) == {"done"}
    shutil.rmtree(one / "bob" / "nodes")
    shutil.copytree(two / "bob" / "nodes", one / "bob" / "nodes")
    assert set(run(flow, state=one).states.values()) == {"done"}
    again = run(flow, state=one)
    assert set(again.states.values()) == {"cached"}
    run(flow, state=one, fresh=True)
    with pytest.raises(InputError, match="another run has made the node"):
        again["rows"]
    assert len([p for p in (one / "bob" / "nodes").glob("*/*") if p.is_dir()]) == 1, "files of makings before are gone"


def test_two_runs_of_one_name_do_not_mix(tmp_path: Path) -> None:
    from spuvm.flow.records import Record

    head = {"flow": small().hash, "text": small().text, "parties": list(PARTIES), "spuvm": "0"}
    held = Record(tmp_path / "alice", "try", head, False)
    with pytest.raises(ConfigError, match="run `try` goes on in another process"):
        run(small(), state=tmp_path, name="try")
    held.end("done")
    for bad in ("a/b", "", ".."):
        with pytest.raises(ConfigError, match="a run's name"):
            run(small(), state=tmp_path, name=bad)


# Code and data that changed -----------------------------------------------------------------------------


def test_changed_code_and_changed_data_run_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Flow("x", rows=find("read")(party="bob", table="t"))
    tables: dict[str, dict[str, Any]] = {"bob": {"t": {"id": [1, 2], "x": [0.5, 1.5]}}}
    first = run(flow, state=tmp_path, tables=tables)
    assert first.states["read"] == "done"
    assert run(flow, state=tmp_path, tables=tables).states["read"] == "cached"
    other: dict[str, dict[str, Any]] = {"bob": {"t": {"id": [1, 2], "x": [0.5, 2.5]}}}
    assert run(flow, state=tmp_path, tables=other).states["read"] == "done"
    assert run(flow, state=tmp_path, tables=tables).nodes["read"].key == first.nodes["read"].key
    with pytest.raises(InputError, match=r"node `read` at bob: bob has no table `t`.*its catalogue has u"):
        run(flow, state=tmp_path, tables={"bob": {"u": {}}})
    monkeypatch.setitem(added.__dict__, "memory", "other code")
    assert run(small(), state=tmp_path).states["e"] == "done"
    monkeypatch.setitem(added.__dict__, "memory", "and other code")
    assert {n: s for n, s in run(small(), state=tmp_path).states.items() if s == "done"}.keys() == {"c", "d", "e", "f"}


def test_labels_of_tables_say_nothing_to_others(tmp_path: Path) -> None:
    from spuvm.flow.places import Places

    one, other = Places(tmp_path / "one"), Places(tmp_path / "other")
    assert one.label("bob", b"x") == one.label("bob", b"x") != one.label("bob", b"y")
    assert one.label("bob", b"x") != one.label("alice", b"x") and one.label("bob", b"x") != other.label("bob", b"x")
    assert (tmp_path / "one" / "bob" / "labels.key").stat().st_mode & 0o077 == 0


def test_code_of_functions_that_are_called_counts() -> None:
    from spuvm.flow import code

    def inner(x: int) -> int:
        return x + 1

    def other(x: int) -> int:
        return x + 2

    def making(f: Any) -> Any:
        def outer(x: int) -> int:
            return int(f(x))

        return outer

    assert code.of_function(making(inner)) == code.of_function(making(inner)) != code.of_function(making(other))
