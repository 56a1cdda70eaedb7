"""Devices as SecretFlow's users know them: simulated, and as three processes over TLS."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import spuvm as spu
from spuvm.compiler.compile import Program
from spuvm.runtime.errors import ConfigError, EncodingError, InputError, VisibilityError
from spuvm.runtime.link.certificates import make_cluster
from spuvm.watching import WATCHER

pytestmark = pytest.mark.usefixtures("preloaded")

PARTIES = ("alice", "bob", "carol")
LIMIT = 300  # seconds for three processes, with time to compile on a busy machine


@pytest.fixture
def devices() -> Iterator[tuple[spu.PYU, spu.PYU, spu.PYU, spu.SPU]]:
    spu.init(parties=PARTIES, address="local")
    pyus = tuple(spu.PYU(p) for p in PARTIES)
    yield *pyus, spu.SPU(spu.utils.testing.cluster_def(PARTIES))  # type: ignore[misc]
    spu.shutdown()


# The introduction -----------------------------------------------------------------------------------------


INTRODUCTION = """
import spuvm as sf
sf.init(parties={'Alice', 'Bob', 'Carol'}, address='local')
alice = sf.PYU('Alice')
bob = sf.PYU('Bob')
carol = sf.PYU('Carol')
alice_income = alice(lambda: 5000)()
bob_income = bob(lambda: 6000)()
carol_income = carol(lambda: 7000)()
spu = sf.SPU(sf.utils.testing.cluster_def(['Alice', 'Bob', 'Carol']))
average = spu(lambda x, y, z: (x + y + z) / 3)(alice_income, bob_income, carol_income)
print(average)
print(sf.reveal(average))
"""


def test_the_introductory_program() -> None:
    done = subprocess.run([sys.executable, "-c", INTRODUCTION], capture_output=True, text=True, timeout=LIMIT)
    shown, value = done.stdout.splitlines()
    assert shown == "<SPUObject float32[] secret aby3/64>"
    assert value == "6000.0"
    assert done.returncode == 0


# Simulated ---------------------------------------------------------------------------------------------------


def test_a_party_computes_for_itself(devices: Any) -> None:
    alice, bob, _, _ = devices
    x = alice(lambda n: {"a": np.arange(n), "b": "text"})(3)
    assert repr(x) == "<PYUObject at alice>"
    total = alice(lambda d, k: d["a"].sum() * k)(x, k=2)
    assert spu.reveal(total) == 6
    assert spu.reveal(x)["b"] == "text"
    with pytest.raises(VisibilityError, match=r"not at bob: move it"):
        bob(lambda d: d)(x)


def test_objects_of_several_values(devices: Any) -> None:
    alice = devices[0]
    low, high = alice(lambda: (1, "two"), num_returns=2)()
    assert (spu.reveal(low), spu.reveal(high)) == (1, "two")
    with pytest.raises(InputError, match="is 3, and the function returned 2 values"):
        alice(lambda: [1, 2], num_returns=3)()
    with pytest.raises(InputError, match="is 2, and the function returned one `int`"):
        alice(lambda: 1, num_returns=2)()
    with pytest.raises(InputError, match="1 or more, got 0"):
        alice(lambda: 1, num_returns=0)


def test_moving_openly(devices: Any) -> None:
    alice, bob, _, _ = devices
    x = alice(lambda: 7)()
    there = x.to(bob)
    assert there.device == bob
    assert spu.reveal(bob(lambda v: v + 1)(there)) == 8
    assert x.to(alice) is x


def test_secret_values_go_to_one_party(devices: Any) -> None:
    alice, bob, carol, dev = devices
    y = dev(lambda x, z: x * z)(alice(lambda: 2.5)(), bob(lambda: np.array([2.0, 4.0], np.float32))())
    assert repr(y) == "<SPUObject float32[2] secret aby3/64>"
    mine = y.to(carol)
    assert repr(mine) == "<PYUObject at carol>"
    assert spu.reveal(carol(lambda v: float(v.sum()))(mine)) == 15.0
    assert y.to(dev) is y
    with pytest.raises(ConfigError, match="must be one of"):
        y.to("dave")
    with pytest.raises(VisibilityError, match="not at bob"):
        bob(lambda v: v)(y)


def test_sharing_without_computing(devices: Any) -> None:
    alice, _, _, dev = devices
    x = alice(lambda: (1.5, np.arange(3)))()
    shared = x.to(dev)
    assert isinstance(shared[0], spu.SPUObject)
    assert shared[1].shape == (3,)
    assert spu.reveal(shared)[1].tolist() == [0, 1, 2]


def test_sharing_is_one_program(devices: Any) -> None:
    """So it takes one agreement and one round, with what says where numbers are, too."""
    alice, _, _, dev = devices
    ran: list[Program] = []
    x = alice(lambda: {"v": np.array([1.5, np.nan], np.float32), "n": 3, "b": np.array([True])})()
    token = WATCHER.set(SimpleNamespace(ran=ran.append))
    try:
        for _ in range(2):
            shared = x.to(dev, missing=True)
    finally:
        WATCHER.reset(token)
    assert ran[0] is ran[1] and len(ran) == 2
    assert ran[0].cost.rounds == 1
    assert [x.visibility for x in shared.values()] == ["secret"] * 3
    shown = spu.reveal(shared)
    np.testing.assert_array_equal(shown["v"], [1.5, np.nan])
    assert (shown["n"], shown["b"].tolist()) == (3, [True])


def test_plain_arguments_are_public(devices: Any) -> None:
    alice, _, _, dev = devices
    fn = dev(lambda x, w: (w * 2, x * w))
    doubled, product = fn(alice(lambda: 3.0)(), 4.0)
    assert doubled.visibility == "public"
    assert product.visibility == "private(alice)"
    assert spu.reveal((doubled, product)) == (8.0, 12.0)
    assert not fn.cost(alice(lambda: 3.0)(), 4.0).bytes_sent.any()


def test_static_arguments_and_keywords(devices: Any) -> None:
    alice, _, _, dev = devices
    fn = dev(lambda x, n, y: x**n + y, static_argnums=(1,))
    assert spu.reveal(fn(alice(lambda: 3.0)(), 2, y=1.0)) == 10.0
    named = dev(lambda x, n: x**n, static_argnames="n")
    assert spu.reveal(named(alice(lambda: 3.0)(), n=2)) == spu.reveal(named(alice(lambda: 3.0)(), 2)) == 9.0


def test_a_table_is_no_array(devices: Any) -> None:
    x = devices[0](lambda: pd.DataFrame({"age": [41, 52]}))()
    with pytest.raises(InputError, match=r"`DataFrame` is neither.*`x.to_numpy\(\)`, or bring tables as frames"):
        x.to(devices[3])


def test_an_spu_of_names(devices: Any) -> None:
    pair = spu.SPU(["alice", "bob"])
    assert (pair.vm.config.protocol, pair.vm.config.parties) == ("semi2k_ot", ("alice", "bob"))
    assert spu.reveal(pair(lambda x: x + 1)(devices[0](lambda: 3.0)())) == 4.0


def test_one_function_is_compiled_once(devices: Any) -> None:
    alice, bob, _, dev = devices
    traced = []

    def fn(x: Any, y: Any) -> Any:
        traced.append(1)
        return x + y

    for value in (1.0, 2.0, 3.0):
        assert spu.reveal(dev(fn)(alice(lambda v=value: v)(), bob(lambda: 1.0)())) == value + 1
    assert len(traced) == 1


def test_bad_values_name_the_argument(devices: Any) -> None:
    alice, bob, _, dev = devices
    fn = dev(lambda income, rate: income * rate)
    with pytest.raises(EncodingError, match="`rate`"):
        fn(alice(lambda: 1.0)(), bob(lambda: float("nan"))())
    with pytest.raises(InputError):
        fn(alice(lambda: "text")(), bob(lambda: 1.0)())


@pytest.mark.parametrize("kind", [list, tuple, set])
def test_parties_in_any_container(kind: Any) -> None:
    spu.init(parties=kind(PARTIES), address="local")
    dev = spu.SPU(spu.utils.testing.cluster_def(PARTIES))
    assert spu.reveal(dev(lambda x: x + 1)(spu.PYU("bob")(lambda: 1.0)())) == 2.0
    spu.shutdown()


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"protocol": "ABY3", "field": "FM64"}, "aby3/64"),
        ({"protocol": "REF2K"}, "ref2k/64"),
        ({"protocol": "aby3", "ring": 64, "fxp_fraction_bits": 20}, "aby3/64"),
        (None, "aby3/64"),
    ],
)
def test_settings(devices: Any, settings: Any, shown: str) -> None:
    dev = spu.SPU(spu.utils.testing.cluster_def(PARTIES, settings))
    assert repr(dev) == f"<SPU {shown} of alice, bob, carol>"
    assert dev.vm.config.fxp_fraction_bits == (settings or {}).get("fxp_fraction_bits", 18)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "bgw"}, "`protocol` must be one of"),
        ({"speed": 3}, r"unknown settings \['speed'\]"),
        ({"field": "FM99"}, "`field` must be one of FM32, FM64"),
        ({"fxp_fraction_bits": "many"}, "`fxp_fraction_bits` a number, got 64, 'many'"),
        ({"ring": 48}, "`ring`"),
    ],
)
def test_bad_settings(devices: Any, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spu.SPU(spu.utils.testing.cluster_def(PARTIES, settings))


@pytest.mark.parametrize(("n", "protocol"), [(2, "semi2k_ot"), (3, "aby3"), (4, "rep4"), (5, "semi2k")])
def test_a_protocol_for_so_many_parties(n: int, protocol: str) -> None:
    names = [f"p{i}" for i in range(n)]
    spu.init(parties=names, address="local")
    for definition in (spu.utils.testing.cluster_def(names), {"nodes": [{"party": p} for p in names]}):
        device = spu.SPU(definition)
        assert repr(device).startswith(f"<SPU {protocol}/64 of p0, p1")
        assert device.security == device.vm.protocol.security
    with pytest.raises(ConfigError, match="1 computing party"):
        spu.SPU(spu.utils.testing.cluster_def(names[:1]))
    spu.shutdown()


def test_who_makes_the_correlated_randomness() -> None:
    spu.init(parties=["alice", "bob"], address="local")
    names = spu.utils.testing.cluster_def(["alice", "bob"], {"protocol": "SEMI2K"})
    assert spu.SPU(names).vm.config.protocol == "semi2k"
    dev = spu.SPU(names, preprocessing="ot")
    assert "no third party" in dev.security
    x = spu.PYU("alice")(lambda: np.array([1.5, -2.0], np.float32))()
    y = spu.PYU("bob")(lambda: np.array([4.0, 0.5], np.float32))()
    np.testing.assert_allclose(spu.reveal(dev(lambda a, b: (a * b, a < b))(x, y)), ([6.0, -1.0], [1, 1]), atol=1e-4)
    with pytest.raises(ConfigError, match="`preprocessing` must be"):
        spu.SPU(names, preprocessing="magic")
    with pytest.raises(ConfigError, match="protocol 'aby3' has no choice of it"):
        spu.SPU(spu.utils.testing.cluster_def(["alice", "bob"], {"protocol": "ABY3", "preprocessing": "ot"}))
    spu.shutdown()


def test_bad_clusters(devices: Any) -> None:
    with pytest.raises(ConfigError, match="names dave"):
        spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "dave"]))
    for wrong in ({"parties": ["alice"]}, "alice", ["alice", 2], {"nodes": ["alice"]}, None, 3):
        with pytest.raises(ConfigError, match="is given its parties' names, or a definition"):
            spu.SPU(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="runs among 3 parties"):
        spu.SPU(spu.utils.testing.cluster_def(["alice", "bob"], {"protocol": "ABY3"}))
    with pytest.raises(ConfigError, match="alice, bob, carol"):
        spu.PYU("dave")


def test_before_init() -> None:
    spu.shutdown()
    with pytest.raises(ConfigError, match=r"call `spu.init"):
        spu.PYU("alice")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "`parties` is missing"),
        ({"parties": ["a", "a"]}, "different, non-empty names"),
        ({"parties": []}, "different, non-empty names"),
        ({"parties": ["a"], "address": "10.0.0.1:99"}, "`address` must be 'local'"),
        ({"party": "a"}, "`party` and `config`"),
        ({"party": "a", "config": "nowhere.toml"}, "nowhere.toml"),
        ({"party": "a", "config": "x.toml", "parties": ["a"]}, "`party` and `config`"),
    ],
)
def test_bad_init(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spu.init(**options)


def test_objects_of_an_earlier_session(devices: Any) -> None:
    """A new `init` starts anew; what was shared before can still be revealed."""
    alice, _, _, dev = devices
    y = dev(lambda x: x + 1)(alice(lambda: 1.0)()).to(alice)
    spu.init(parties=PARTIES, address="local")
    assert spu.reveal(y) == 2.0


# Three processes -------------------------------------------------------------------------------------------------


PREAMBLE = """
import sys
import jax.numpy as jnp
import numpy as np
import pandas as pd
import spuvm as spu
me = sys.argv[1]
spu.init(party=me, config=sys.argv[2])
alice, bob, carol = (spu.PYU(p) for p in ("alice", "bob", "carol"))
dev = spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"]))
"""


def run(tmp_path: Path, script: str, **more: str) -> dict[str, subprocess.CompletedProcess[str]]:
    """The same script at three parties; `more` is what one of them runs after it."""
    config = make_cluster(tmp_path, PARTIES, timeout_seconds=240)
    started = {
        p: subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + script + more.get(p, ""), p, str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for p in PARTIES
    }
    done = {}
    try:
        for p, process in started.items():
            out, err = process.communicate(timeout=LIMIT)
            done[p] = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    finally:
        for process in started.values():
            process.kill()
    return done


EVERYTHING = """
def here_only(value):
    def load():
        print("loaded", value)
        return value
    return load

incomes = alice(here_only(5000))(), bob(here_only(6000))(), carol(here_only(7000))()
average = dev(lambda x, y, z: (x + y + z) / 3)(*incomes)
print(average)
print("average", spu.reveal(average))

table = bob(lambda: {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "n": (4, True)})()
scaled = dev(lambda t, w, k: (t["x"] @ w * k, t["n"][0] + 1, w))(table, alice(lambda: np.ones(3, np.float32))(), 0.5)
print("shape", scaled[0].shape, scaled[1].dtype, scaled[2].visibility)
print("scaled", spu.reveal(scaled[0]).tolist(), spu.reveal(scaled[1]))

mine = scaled[0].to(carol)
print(mine)
done = carol(lambda v: print("carol has", v.tolist()))(mine)

moved = alice(lambda: np.array([1.5, 2.5]))().to(bob)
bob(lambda v: print("bob has", v.tolist()))(moved)
low, high = bob(lambda: (1, 2), num_returns=2)()
print("parts", spu.reveal(low), spu.reveal(high))
print("shown", spu.reveal(alice(lambda: {"k": 3, "v": np.arange(2)})()))

link = dev.vm.session.link
before = sum(link.counters.bytes_sent.values()), link.counters.rounds
for _ in range(2):
    fn = dev(lambda x, y: jnp.where(x > y, x, y))
    cost = fn.cost(average, average)
    fn(average, average)
after = sum(link.counters.bytes_sent.values()), link.counters.rounds
rank = ("alice", "bob", "carol").index(me)
assert after[0] - before[0] == 2 * cost.bytes_sent[rank], (before, after, cost.bytes_sent)
assert after[1] - before[1] == 2 * cost.party_rounds[rank]

finer = spu.SPU(spu.utils.testing.cluster_def(
    ["alice", "bob", "carol"], {"protocol": "ABY3", "fxp_fraction_bits": 24}))
print("finer", spu.reveal(finer(lambda x, y: x * y)(alice(lambda: 0.5)(), bob(lambda: 3.0)())))
print("product", spu.reveal(average * 2 + 1), spu.reveal(average[None][0]))

own = {"alice": {"id": [1, 2], "a": [1.0, 2.0]}, "bob": {"id": [1, 2], "b": [2.0, 4.0]}}
frame = spu.data.vertical({p: t if p == me else None for p, t in own.items()}, key="id")
both = spu.data.horizontal({p: {"x": [1.5, 2.5]} if p == me else None for p in own})
print("frames", spu.reveal(dev(lambda t, x: (t["a"] * t["b"]).sum() + x.sum())(frame, both["x"])))

try:
    float(average)
except spu.errors.VisibilityError as e:
    print("refused:", e)
spu.shutdown()
print("end")
"""


def test_three_processes(tmp_path: Path) -> None:
    done = run(tmp_path, EVERYTHING)
    shared = []
    for p, party in done.items():
        assert party.returncode == 0, party.stderr
        lines = party.stdout.splitlines()
        local = [x for x in lines if x.startswith(("loaded", "carol has", "bob has"))]
        value = {"alice": "5000", "bob": "6000", "carol": "7000"}[p]
        more = {"bob": ["bob has [1.5, 2.5]"], "carol": ["carol has [1.5, 6.0]"]}.get(p, [])
        assert local == [f"loaded {value}", *more]
        shared.append([x for x in lines if x not in local])
    assert shared[0] == shared[1] == shared[2]
    text = "\n".join(shared[0])
    assert shared[0][:2] == ["<SPUObject float32[] secret aby3/64>", "average 6000.0"]
    for line in (
        "shape (2,) int32 private(alice)",
        "scaled [1.5, 6.0] 5",
        "<PYUObject at carol>",
        "shown {'k': 3, 'v': array([0, 1])}",
        "parts 1 2",
        "frames 18.0",
        "finer 1.5",
        "product 12001.0 6000.0",
        "refused: an SPUObject has no value in Python",
        "end",
    ):
        assert line in text


def test_a_plain_array_cannot_become_secret_in_a_network(tmp_path: Path) -> None:
    """Somebody must own it; it is refused before anything is sent, and everybody stops."""
    done = run(tmp_path, "print(dev(lambda x: x)(spu.secret(1.0)))\n")
    for party in done.values():
        assert party.returncode != 0
        assert "somebody must own it" in party.stderr
        assert party.stdout == ""


def test_parties_with_different_programs_stop(tmp_path: Path) -> None:
    script = "x = alice(lambda: 2.0)()\ny = bob(lambda: 3.0)()\n"
    same, other = (f"print(spu.reveal(dev(lambda x, y: x * y{more})(x, y)))\n" for more in ("", " + 1"))
    done = run(tmp_path, script, alice=same, bob=other, carol=same)
    for party in done.values():
        assert party.returncode != 0
        assert "PeerMismatchError" in party.stderr
        assert "program" in party.stderr
        assert party.stdout == ""


def test_a_bad_value_at_its_owner_stops_everybody(tmp_path: Path) -> None:
    """Whoever has it says what is wrong; the others say whose fault it is; no value is shown."""
    script = (
        "x = alice(lambda: np.array([1.0, 98765.0, np.nan], np.float32))()\n"
        "y = bob(lambda: np.ones(3, np.float32))()\n"
        "print(spu.reveal(dev(lambda x, y: x * y)(x, y)))\n"
    )
    done = run(tmp_path, script)
    for p, party in done.items():
        assert party.returncode != 0
        assert ("EncodingError" if p == "alice" else "PeerAbortedError") in party.stderr
        assert ("NaN" in party.stderr) == (p == "alice")
        assert "98765" not in party.stderr
        assert party.stdout == ""
