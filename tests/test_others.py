"""Parties that do not compute: they bring values and are shown results, under every protocol."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from machine import Case, both, module, type_of
from test_masks import biased, leaks, seen_by

import spuvm as spu
from spuvm.compiler.compile import config_of
from spuvm.compiler.ir.builder import Builder
from spuvm.compiler.ir.module import Value
from spuvm.context import Context
from spuvm.runtime.config import Config
from spuvm.runtime.errors import ConfigError, InputError, VisibilityError
from spuvm.runtime.link.certificates import make_cluster
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.protocols.aby3.protocol import aby3
from spuvm.runtime.protocols.dealt import semi2k
from spuvm.runtime.protocols.protocol import Protocol
from spuvm.runtime.protocols.ref2k import ref2k

pytestmark = pytest.mark.usefixtures("preloaded")

PROTOCOLS = {
    "aby3": aby3(3, 1),
    "ref2k": ref2k(2, 2),
    "semi2k": semi2k(2, 1),
    "semi2k of 3": semi2k(3, 2),
}
LIMIT = 300.0


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return PROTOCOLS[request.param]


# The kernels ------------------------------------------------------------------------------------------------


def test_values_in_and_out(protocol: Protocol) -> None:
    """Simulated and as parties: the same shares, the predicted cost, the right values."""
    dave = protocol.world_size

    def build(b: Builder, x: Value, y: Value, c: Value) -> list[Value]:
        total = b.add(x, b.op("mul", x, y))
        chosen = b.select(c, x, y)
        shown = [b.op("reveal", total, to=to) for to in ("public", 0, dave)]
        bit = b.less(y, x)
        return [total, chosen, *shown, *(b.op("reveal", bit, to=to) for to in ("public", dave)), b.neg(x)]

    types = [type_of(t, (5,), who) for t, who in (("int64", dave), ("int64", "secret"), ("bool", dave))]
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-1000, 1000, 5).astype(np.int64).view(np.uint64) for _ in range(2))
    c = np.array([0, 1, 1, 0, 1], np.uint64)
    got = both(module(build, *types), protocol, [x, y, c])
    for value in (got[0], *got[2:5]):
        np.testing.assert_array_equal(value, x + x * y)
    np.testing.assert_array_equal(got[1], np.where(c, x, y))
    for value in got[5:7]:
        np.testing.assert_array_equal(value, y.view(np.int64) < x.view(np.int64))
    np.testing.assert_array_equal(got[7], np.uint64(0) - x)


OWNED = [("share_v", 64), ("share_vb", 1), ("share_vb", 64)]


def case_of(protocol: Protocol, name: str, width: int, **params: int) -> Case:
    if name.endswith(("vb", "b_to", "reveal_b")):
        params["bits"] = width
    return Case(protocol.kernels[name], tuple(sorted(params.items())), width)


@pytest.mark.parametrize(("name", "width"), OWNED)
def test_what_they_share_is_masked(name: str, width: int) -> None:
    protocol = PROTOCOLS["aby3"]
    case = case_of(protocol, name, width, owner=3)
    for party in range(3):
        sent = seen_by(case, protocol, {party})
        assert len(sent) == (party in (0, 2))
        assert list(leaks(sent)) == []
        for out in range(2):
            found = [f for p in range(3) for f in leaks(seen_by(case, protocol, {p}, out))]
            assert found, f"without random value {out}"
    protocol = PROTOCOLS["semi2k of 3"]
    case = case_of(protocol, name, width, owner=3)
    for coalition in ({0, 1}, {0, 2}, {0}):
        assert list(leaks(seen_by(case, protocol, coalition, samples=4096))) == []


@pytest.mark.parametrize("protocol", [PROTOCOLS["aby3"], PROTOCOLS["semi2k of 3"]], ids=lambda p: str(p.name))
@pytest.mark.parametrize(("name", "width"), [("reveal_a_to", 64), ("reveal_b_to", 1), ("reveal_a", 64)])
def test_they_are_shown_the_value_and_no_component(protocol: Protocol, name: str, width: int) -> None:
    """All messages together are the value; without any one of them they are noise."""
    owner = {"owner": 3} if name.endswith("_to") else {}
    sent = [m for m in seen_by(case_of(protocol, name, width, **owner), protocol, {3}) if m.dst == 3]
    assert sorted(m.src for m in sent) == [0, 1, 2]
    total = sum(m.data for m in sent) if name != "reveal_b_to" else sent[0].data ^ sent[1].data ^ sent[2].data
    assert len(np.unique(total)) == 1
    for lacking in range(3):
        assert list(leaks([m for i, m in enumerate(sent) if i != lacking])) == []
    assert not any(biased(m.data, width) for m in sent)


# From Python --------------------------------------------------------------------------------------------------


NAMES = ["alice", "bob", "carol", "dave"]


@pytest.fixture
def dave() -> Iterator[spu.PYU]:
    spu.init(parties=NAMES, address="local")
    yield spu.PYU("dave")
    spu.shutdown()


def test_labels_at_a_party_that_does_not_compute(dave: spu.PYU) -> None:
    dev = spu.SPU(spu.utils.testing.cluster_def(NAMES[:3]))
    x = spu.PYU("alice")(lambda: np.arange(3, dtype=np.float32))()
    y = dave(lambda: {"y": np.array([1.5, -2, 4], np.float32)})()
    step: Any = dev(lambda x, d: (x * d["y"], spu.reveal(x + d["y"], to="dave"), d["y"] * 2))
    cost = step.cost(x, y)
    assert cost.parties == tuple(NAMES)
    assert cost.bytes_sent[3] == 2 * 8 * 3
    product, total, own = step(x, y)
    assert [o.visibility for o in (product, total, own)] == ["secret", "private(dave)", "private(dave)"]
    np.testing.assert_allclose(product.to(dave).value, [0, -2, 8], atol=1e-4)
    np.testing.assert_array_equal(spu.reveal(total), [1.5, -1, 6])
    assert dev(spu.masked)(y)["y"].visibility == "secret"
    assert y.to(dev)["y"].visibility == "secret"
    assert config_of(step.compile(x, y).module) == dev.vm.config
    assert dev.vm.config.others == ("dave",)


def test_a_sort_opens_its_comparisons_to_the_computing_parties(dave: spu.PYU) -> None:
    dev = spu.SPU(spu.utils.testing.cluster_def(NAMES[:3]))
    x = np.random.default_rng(0).normal(size=300).astype(np.float32)
    shared = dave(lambda: x)().to(dev)
    ordered: Any = dev(lambda x: jnp.sort(x))
    assert ordered.cost(shared).bytes_sent[3] == 0
    assert ordered.compile(shared).party(3).block.results == (None, None, None)
    np.testing.assert_allclose(spu.reveal(ordered(shared)), np.sort(x), atol=1e-5)


def test_who_deals() -> None:
    session = Context(("alice", "bob", "carol", "dave"), party="alice")
    assert session.others(("alice", "bob"), "aby3") == ("carol", "dave")
    assert session.others(("alice", "bob"), "semi2k") == ("carol",)
    session.dealer = "carol"
    assert session.others(("alice", "bob"), "semi2k") == ("dave",)
    with pytest.raises(ConfigError, match="needs a dealer that is none of the parties"):
        session.others(("alice", "carol"), "semi2k")
    with pytest.raises(ConfigError, match="names carol as dealer, but protocol aby3 has none"):
        session.others(("alice", "bob", "dave"), "aby3")


def test_refused(dave: spu.PYU) -> None:
    dev = spu.SPU(spu.utils.testing.cluster_def(NAMES[:3]))
    with pytest.raises(VisibilityError, match="parties are alice, bob, carol, dave"):
        dev(lambda x: spu.reveal(x, to="erin"))(jnp.ones(2))
    with pytest.raises(ConfigError, match="must be one of alice, bob, carol, dave"):
        dev(lambda x: x)(dave(lambda: 1.0)()).to("erin")
    with pytest.raises(InputError, match="`owner` must be one of"):
        dev(lambda x: x)(spu.private(1.0, "erin"))
    with pytest.raises(ConfigError, match="runs among 3 parties"):
        spu.SPU(spu.utils.testing.cluster_def(NAMES, {"protocol": "ABY3"}))
    with pytest.raises(ConfigError, match="different names"):
        Config(others=("party1",))


def test_cluster_file(tmp_path: Path) -> None:
    path = make_cluster(tmp_path, NAMES, compute=["carol", "alice", "bob"])
    cluster = load_cluster(path)
    assert cluster.names == ("carol", "alice", "bob", "dave")
    assert (cluster.config.parties, cluster.config.others) == (("carol", "alice", "bob"), ("dave",))
    for wrong, message in (
        ('["erin"]', "among alice, bob, carol, dave"),
        ("[]", "list of names"),
        ('["bob", "bob"]', "twice"),
    ):
        path.write_text(path.read_text().replace('["carol", "alice", "bob"]', wrong))
        with pytest.raises(ConfigError, match=message):
            load_cluster(path)
        path.write_text(path.read_text().replace(wrong, '["carol", "alice", "bob"]'))


# Over TLS ------------------------------------------------------------------------------------------------------


SCRIPT = """
import sys
import numpy as np
import jax.numpy as jnp
import spuvm as spu
spu.init(party=sys.argv[1], config=sys.argv[2])
alice, dave = spu.PYU("alice"), spu.PYU("dave")
dev = spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"]))
bins = alice(lambda: np.arange(12).reshape(6, 2) % 3 == 0)()
labels = dave(lambda: np.array([1, 0, 1, 1, 0, 1], np.float32))()
masked = dev(spu.masked)(bins)
link = dev.vm.session.link

def step(a, y, w):
    return a.astype(jnp.float32).T @ (y * w)

weights = dev(lambda y: y + 1)(labels)
shared = labels.to(dev)
for _ in range(2):
    before = link.counters.rounds, sum(link.counters.bytes_sent.values())
    sums = dev(step)(masked, shared, 0.5)
    after = link.counters.rounds, sum(link.counters.bytes_sent.values())
    cost = dev(step).cost(masked, shared, 0.5)
    mine = dev.vm.config.members.index(sys.argv[1])
    assert after == (before[0] + cost.party_rounds[mine], before[1] + cost.bytes_sent[mine]), (before, after)
result = sums.to(dave)
dave(lambda v: print("dave has", v.tolist()))(result)
print("all", spu.reveal(sums).tolist(), spu.reveal(weights).tolist())
print("held", [c is not None for c in masked.components], [c is not None for c in shared.components])
spu.shutdown()
"""


def test_four_processes(tmp_path: Path) -> None:
    """The file's order is not that of the SPU; dave is one of the session's parties, and computes nothing."""
    order = ["dave", "bob", "carol", "alice"]
    config = make_cluster(tmp_path, order, timeout_seconds=240)
    command = [sys.executable, "-c", SCRIPT]
    running = {p: subprocess.Popen([*command, p, str(config)], stdout=-1, stderr=-1, text=True) for p in order}
    try:
        said: dict[str, Any] = {p: process.communicate(timeout=LIMIT) for p, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
    held = {
        "alice": ([True, False, False], [True, True, False]),
        "bob": ([False, False, True], [False, True, True]),
        "carol": ([False, True, False], [True, False, True]),
        "dave": ([False] * 3, [False] * 3),
    }
    for p, (out, err) in said.items():
        assert running[p].returncode == 0, err
        shown = ["dave has [1.0, 0.0]"] if p == "dave" else []
        assert out.splitlines() == [
            *shown,
            "all [1.0, 0.0] [2.0, 1.0, 2.0, 2.0, 1.0, 2.0]",
            f"held {held[p][0]} {held[p][1]}",
        ]
