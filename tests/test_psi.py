"""Joins: equal to DuckDB in every kind, what parties learn of them, and bad input."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from joins import KEY, by_duckdb, generated, rows_of

import spuvm as spu
from spuvm.psi.bounds import one_sided
from spuvm.psi.cuckoo import placed, places_for, places_of
from spuvm.psi.curve import expanded, random_scalar, times
from spuvm.psi.places import Held, Places
from spuvm.psi.selection import Asked, Roles, group_of, select
from spuvm.psi.tables import Wanted, load
from spuvm.psi.tags import tags
from spuvm.runtime.errors import ConfigError, DataError, InputError, PeerMismatchError
from spuvm.runtime.ring.elements import WIDE

A, B = generated(40, 30, "a", unique=False), generated(25, 30, "b", unique=True)
ONE = A.group_by(KEY).aggregate([(c, "min") for c in ("ax", "an", "ab")]).rename_columns([*KEY, "ax", "an", "ab"])
BOTH = ["ax", "an", "ab", "bx", "bn", "bb"]


@pytest.fixture(autouse=True)
def devices() -> Iterator[None]:
    spu.init(parties=["alice", "bob", "carol"], address="local")
    yield
    spu.shutdown()


@pytest.mark.parametrize("mode", ["helper", "oblivious"])
@pytest.mark.parametrize("how", ["inner", "left", "right", "full"])
def test_joins_are_those_of_duckdb(how: str, mode: str) -> None:
    first = A if how in ("inner", "left") else ONE
    table = spu.psi.join({"alice": first, "bob": B}, key=KEY, how=how, mode=mode)
    assert rows_of(table, BOTH) == by_duckdb(
        f"select {', '.join(BOTH)} from a {how} join b using (name, born)", a=first, b=B
    )
    assert table.rows == {"inner": 40, "left": 40, "right": 25, "full": ONE.num_rows + 25}[how]


@pytest.mark.parametrize("mode", ["helper", "oblivious"])
@pytest.mark.parametrize("how", ["semi", "anti"])
def test_rows_with_or_without_a_match(how: str, mode: str) -> None:
    table = spu.psi.join({"alice": A, "bob": B}, key=KEY, how=how, mode=mode)
    names = ["name", "ax", "an", "ab"]
    assert rows_of(table, names) == by_duckdb(
        f"select {', '.join(names)} from a {how} join b using (name, born)", a=A, b=B
    )


def test_keys_repeated_on_both_sides_have_a_stated_bound() -> None:
    """Every pair; whether they fit is told, and nothing if not."""
    second = generated(25, 12, "b", unique=False)
    want = by_duckdb(f"select {', '.join(BOTH)} from a join b using (name, born)", a=A, b=second)
    given: Any = {"alice": A, "bob": second}
    table = spu.psi.join(given, key=KEY, mode="helper", bound=len(want))
    assert len(want) > 25 and rows_of(table, BOTH) == want and table.rows == len(want)
    assert rows_of(spu.psi.join(given, key=KEY, mode="helper", bound=len(want) + 9), BOTH) == want
    assert f"at most {len(want):,} rows" in table.learns[-1]
    with pytest.raises(InputError, match="too small for the joined rows"):
        spu.psi.join(given, key=KEY, mode="helper", bound=len(want) - 1)
    for settings in ({"mode": "helper"}, {"mode": "oblivious", "bound": 99}):
        with pytest.raises(InputError, match=r"repeated both at alice and at bob.*State one"):
            spu.psi.join(given, key=KEY, **settings)


@pytest.mark.parametrize("keys", [1, 2, 4, 30, 700])
def test_cuckoo_hashing_places_every_key(keys: int) -> None:
    words = np.random.default_rng(keys).integers(0, 2**64, (3, keys), dtype=np.uint64)
    size = places_for(keys)
    where = places_of(words, size)
    at = placed(where, size)
    assert len(np.unique(at)) == keys and (where == at).any(0).all()
    assert ((where >= 0) & (where < size)).all()


def test_keys_that_cannot_be_placed_are_refused() -> None:
    with pytest.raises(InputError, match="run the join again"):
        placed(np.array([[0] * 4, [1] * 4, [2] * 4]), 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.uint64, WIDE])
@pytest.mark.parametrize(("values", "rows"), [(5, 9), (1, 1), (40, 12), (12, 40)])
@pytest.mark.parametrize(("repeated", "together"), [(False, False), (True, False), (True, True)])
def test_oblivious_selection(dtype: Any, values: int, rows: int, repeated: bool, together: bool) -> None:
    rng = np.random.default_rng(values)
    x: np.ndarray = rng.integers(0, 256, (3, values * np.dtype(dtype).itemsize), np.uint8).view(dtype)
    pointers = rng.integers(-1, values, rows)
    if not repeated:
        some = min(values, rows) // 2
        pointers = np.full(rows, -1)
        pointers[rng.permutation(rows)[:some]] = rng.permutation(values)[:some]
    pointers = np.sort(pointers) if together else pointers
    asked = Asked(3, values, rows, repeated, together)
    held = Held(frozenset({"bob"}), x), Held(frozenset({"carol"}), pointers)
    shares = select(Places(("alice", "bob", "carol")), *held, asked, Roles("carol", "bob", "alice"), dtype)
    first, second = (s.value for s in shares.values())
    assert "carol" in shares and len(shares) == 2
    assert np.array_equal(
        group_of(dtype).add(first, second), np.where(pointers >= 0, x[:, pointers], np.zeros((), dtype))
    )


@pytest.mark.parametrize("mode", ["helper", "oblivious"])
def test_rows_that_somebody_sees(mode: str) -> None:
    names = [*KEY, *BOTH]
    for how in ("left", "full"):
        shown = spu.psi.join({"alice": ONE, "bob": B}, key=KEY, how=how, output="carol", mode=mode)
        assert repr(shown) == "<PYUObject at carol>"
        rows = sorted((tuple(r[n] for n in names) for r in shown.value.to_pylist()), key=str)
        query = f"select {', '.join(names)} from a {how} join b using (name, born)"
        assert rows == by_duckdb(query, a=ONE, b=B)
    everybody = spu.psi.join({"alice": ONE, "bob": B}, key=KEY, output="all", mode=mode)
    assert everybody.num_rows == by_duckdb("select count(*) from a join b using (name, born)", a=ONE, b=B)[0][0]


@pytest.mark.parametrize("mode", ["helper", "oblivious"])
def test_intersections_counts_and_sums(mode: str) -> None:
    files = {"alice": ONE, "bob": B}
    (expected,) = by_duckdb("select count(*), sum(bx), sum(an) from a join b using (name, born)", a=ONE, b=B)
    both = spu.psi.intersect(files, key=KEY, mode=mode)
    assert [x.value.num_rows for x in both.values()] == [expected[0]] * 2
    mine = spu.psi.intersect(files, key=KEY, to="bob", mode=mode).value
    assert mine["bx"].to_pylist() == [r["bx"] for r in B.to_pylist() if r["bx"] in set(mine["bx"].to_pylist())]
    assert spu.psi.difference(files, key=KEY, mode=mode).value.num_rows == ONE.num_rows - expected[0]
    assert spu.psi.count(files, key=KEY, mode=mode) == expected[0]
    assert spu.psi.sum(files, key=KEY, column="bx", mode=mode) == pytest.approx(expected[1], abs=1e-3)
    assert spu.psi.sum(files, key=KEY, column="an", mode=mode) == expected[2]
    union = spu.psi.union(files, key=KEY, output="carol", mode=mode).value
    both_sides = "select name, born from a union all (select name, born from b anti join a using (name, born))"
    query = f"select * from ({both_sides}) where name is not null and born is not null"
    assert sorted((tuple(r.values()) for r in union.to_pylist()), key=str) == by_duckdb(query, a=ONE, b=B)


@pytest.mark.parametrize("parties", [("alice", "bob"), ("alice", "bob", "carol")])
def test_a_frame_of_different_rows(parties: tuple[str, ...]) -> None:
    tables = {
        "alice": {"id": [5, 3, 9, 1], "age": [1.0, 2.0, 3.0, 4.0]},
        "bob": {"id": [1, 7, 3, 5], "visits": [10, 70, 30, 50]},
        "carol": {"id": [3, 2, 5, 1], "ill": [True, False, False, True]},
    }
    frame = spu.data.vertical({p: tables[p] for p in parties}, key="id", match="inner")
    keys = frame.keys("alice").value["id"]
    assert sorted(keys) == [1, 3, 5] and frame.rows == 3
    assert list(frame.at("bob").value[:, 0]) == [{1: 10, 3: 30, 5: 50}[k] for k in keys]
    with pytest.raises(InputError, match="no key is at all of"):
        spu.data.vertical({"alice": {"id": [1], "x": [1.0]}, "bob": {"id": [2], "y": [1.0]}}, key="id", match="inner")


ODD_KEYS: dict[str, tuple[Any, Any, int]] = {  # what alice has, what bob has, how many keys both have
    "large": (pa.array([2**40, 3, None]), pa.array([3, 2**40, None]), 2),
    "views": (pa.array(["a", "bb", None], pa.string_view()), pa.array(["bb", None, "c"]), 1),
    "categories": (pa.array(["é", "b"]).dictionary_encode(), pa.array(["e\u0301", ""]), 1),
    "decimals": (pa.array([Decimal("1.50"), Decimal(0)]), pa.array([Decimal("1.5"), Decimal("-0.0")]), 2),
}


@pytest.mark.parametrize("keys", ODD_KEYS)
def test_odd_keys(keys: str) -> None:
    """No key is ever shared for a sum; rows without a key are no keys of a union."""
    mine, theirs, both = ODD_KEYS[keys]
    a = pa.table({"k": mine, "x": list(range(1, len(mine) + 1))})
    b = pa.table({"k": theirs, "y": [10] * len(theirs)})
    files = {"alice": a, "bob": b}
    found = spu.psi.intersect(files, "k", to="alice", mode="helper").value["x"].to_pylist()
    assert len(found) == both
    assert spu.psi.sum(files, "k", column="y", mode="helper") == 10 * both
    assert spu.psi.sum(files, "k", column="x", mode="oblivious") == sum(found)
    if keys != "large":
        known = len(mine) - mine.null_count + len(theirs) - theirs.null_count - both
        assert int(spu.reveal(spu.psi.union(files, "k", mode="helper").valid).sum()) == known


def test_two_parties_by_themselves(tmp_path: Path) -> None:
    spu.init(parties=["alice", "bob"], address="local")
    files = {"alice": ONE, "bob": B}
    (expected,) = by_duckdb("select count(*) from a join b using (name, born)", a=ONE, b=B)
    both = spu.psi.intersect(files, key=KEY)
    assert [x.value.num_rows for x in both.values()] == [*expected, *expected]
    assert spu.psi.count(files, key=KEY) == expected[0]
    assert spu.psi.difference(files, key=KEY, to="bob").value.num_rows == B.num_rows - expected[0]
    kept = {p: tmp_path / p for p in files}
    first = spu.psi.intersect(files, key=KEY, to="alice", kept=kept).value
    sent = (tmp_path / "alice" / "spuvm-psi-known.npz").stat()
    few = spu.psi.intersect({**files, "alice": ONE.slice(0, 5)}, key=KEY, to="alice", kept=kept).value
    assert few.equals(first.slice(0, few.num_rows)) and (tmp_path / "alice" / "spuvm-psi-known.npz").stat() == sent
    with pytest.raises(ConfigError, match="two parties alone cannot share"):
        spu.psi.join(files, key=KEY)
    with pytest.raises(ConfigError, match="cannot share or add up"):
        spu.psi.sum(files, key=KEY, column="bx")


def test_messages_expand_as_in_rfc_9380() -> None:
    suite = b"QUUX-V01-CS02-with-expander-SHA512-256"  # appendix K.3
    assert expanded(b"", suite, 32).hex() == "6b9a7312411d92f921c6f68ca0b6380730a1a4d982c507211a90964c394179ba"
    assert expanded(b"abc", suite, 32).hex() == "0da749f12fbe5483eb066a5f595055679b976e93abe9be6f0f6318bce7aca8dc"


def test_what_is_no_point_is_refused() -> None:
    for bad in (bytes(32), bytes([1]) + bytes(31)):
        with pytest.raises(PeerMismatchError, match="no point of ristretto255"):
            times(random_scalar(), np.frombuffer(bad, np.uint8).reshape(1, 32))


# Linkage ------------------------------------------------------------------------------------------------------


def test_linkage_in_passes(tmp_path: Path) -> None:
    lines = ["ssn,name,born", "007,Ann Lee,1980-01-01", ",Bob  Ray ,1990-02-02", "9,Eve,1970-03-03", "8,X,1971-01-01"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    bob = pa.table(
        {
            "number": ["9", "007", None, "55", "56"],
            "name": ["Eve", "someone else", "bob ray", "x", "x"],
            "born": pa.array(["1970-03-03", "1980-01-01", "1990-02-02", "1971-01-01", "1971-01-01"]).cast(pa.date32()),
        }
    )
    linked = spu.psi.link(
        {"alice": tmp_path / "a.csv", "bob": bob},
        [{"alice": "ssn", "bob": "number"}, ["name", "born"]],
        types={"ssn": "text"},
        normalize={"name": ["trim", "lower", "spaces"]},
        report_from=2,
    )
    mine, theirs = (linked.rows[p].value for p in ("alice", "bob"))
    pairs = set(zip(mine["name"].to_pylist(), theirs["name"].to_pylist(), mine["pass"].to_pylist()))
    assert pairs == {("Ann Lee", "someone else", 1), ("Eve", "Eve", 1), ("Bob  Ray ", "bob ray", 2)}
    assert linked.rates == (2, None) and str(linked) == "pass 1: 2 rows\npass 2: few rows"


def test_an_owner_sets_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"alice": ONE, "bob": B}
    with pytest.raises(InputError, match="alice matches with tables of 26 rows or more, bob brings 25"):
        spu.psi.count(files, key=KEY, mode="helper", guard={"alice": spu.psi.Guard(least_rows=26)})
    guard = {"bob": spu.psi.Guard(most_runs=2, ledger=tmp_path / "ledger")}
    for _ in range(2):
        spu.psi.count(files, key=KEY, mode="helper", guard=guard)
    with pytest.raises(InputError, match="bob has matched 2 times with alice within 30 days"):
        spu.psi.count(files, key=KEY, mode="helper", guard=guard)
    with (tmp_path / "ledger").open() as other:  # of a process that does not let go
        fcntl.flock(other, fcntl.LOCK_EX)
        monkeypatch.setenv("SPUVM_LOCK_SECONDS", "0")
        with pytest.raises(InputError, match="ledger cannot be used: it has been held by another process for 0 s"):
            spu.psi.count(files, key=KEY, mode="helper", guard=guard)
        monkeypatch.setenv("SPUVM_LOCK_SECONDS", "soon")
        with pytest.raises(ConfigError, match="SPUVM_LOCK_SECONDS must be a number of seconds, 0 or more, got 'soon'"):
            spu.psi.count(files, key=KEY, mode="helper", guard=guard)
    monkeypatch.delenv("SPUVM_LOCK_SECONDS")
    whole = (tmp_path / "ledger").read_bytes()
    for at in (3, 15, len(whole) // 2 + 20, len(whole) - 1):
        (tmp_path / "ledger").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(InputError, match=r"ledger cannot be used: line [12] is damaged; take it away"):
            guard["bob"].admit("bob", {"alice": 30, "bob": 25})
    with pytest.raises(ConfigError, match="needs a `ledger`"):
        spu.psi.Guard(most_runs=2)


# Keys ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "others", "kind"),
    [
        ([1, -2, None], pa.array([1, -2, None], pa.int8()), None),
        (pa.array([2**63 + 1], pa.uint64()), pa.array([2**63 + 1], pa.uint64()), None),
        (["Zo\u00eb", "x"], ["Zoe\u0308", "x"], None),
        (["a"], pa.array(["a"]).dictionary_encode(), None),
        (
            pa.array(["2020-02-29"]).cast(pa.date32()),
            pa.array(["2020-02-29"]).cast(pa.date32()).cast(pa.date64()),
            None,
        ),
        (pa.array([1577836800], pa.timestamp("s")), pa.array([1577836800000000], pa.timestamp("us")), None),
        (
            pa.array([Decimal("1.50"), Decimal("-0.0")]),
            pa.array([Decimal("1.5"), Decimal("0")], pa.decimal128(9, 3)),
            None,
        ),
        (["7", "8"], [7, 8], "int"),
        ([1.5, 2.0], pa.array([Decimal("1.50"), Decimal("2")]), "decimal"),
    ],
)
def test_equal_values_have_equal_tags(values: Any, others: Any, kind: str | None) -> None:
    found = []
    for x in (values, others):
        table = load({"k": x}, "alice", Wanted(("k",), types={"k": kind} if kind else None))
        found.append((table.kinds, tags(table.keys, bytes(range(16)))[table.keys.present]))
    assert found[0][0] == found[1][0]
    assert np.array_equal(found[0][1], found[1][1])


def test_different_values_have_different_tags() -> None:
    texts = [
        "",
        " ",
        "a",
        "a ",
        "A",
        "ab",
        "a" * 8,
        "a" * 9,
        "a" * 24,
        "a" * 25,
        "a" * 24 + "b",
        "\0",
        "a\0",
        "1",
        "01",
    ]
    table = load({"k": texts, "l": ["x"] * len(texts)}, "alice", Wanted(("k", "l")))
    assert len(np.unique(tags(table.keys, bytes(16)), axis=0)) == len(texts)
    pairs = load({"k": ["a", "ab"], "l": ["bc", "c"]}, "alice", Wanted(("k", "l")))
    assert len(np.unique(tags(pairs.keys, bytes(16)), axis=0)) == 2


@pytest.mark.parametrize(
    ("files", "options", "error", "message"),
    [
        ({"alice": {"k": [1, 1]}, "bob": {"k": [1, 2]}}, {}, DataError, "2 |1 rows whose key"),
        ({"alice": {"k": [1]}, "bob": {"k": ["1"]}}, {}, InputError, "holds int at alice, and `k` text at bob"),
        ({"alice": {"k": [1.5]}, "bob": {"k": [1.5]}}, {}, InputError, "floats make no keys"),
        ({"alice": {"k": [1]}, "bob": {"m": [1]}}, {}, InputError, "no key column `k`"),
        ({"alice": {"k": []}, "bob": {"k": [1]}}, {}, DataError, "has no rows"),
        ({"alice": {"k": ["x"]}, "bob": {"k": [1]}}, {"types": {"k": "int"}}, DataError, "a value that is no int"),
        ({"alice": {"k": [1]}}, {}, InputError, "two parties or more"),
        ({"alice": {"k": [1]}, "dave": {"k": [1]}}, {}, ConfigError, "names dave"),
        ({"alice": {"k": [1]}, "bob": {"k": [1]}}, {"mode": "magic"}, InputError, "`mode` must be one of"),
        ({"alice": {"k": [1]}, "bob": {"k": [1]}}, {"helper": "bob"}, ConfigError, "`helper` must be a party"),
        ({"alice": {"k": [1]}, "bob": {"k": [1]}}, {"to": "erin"}, ConfigError, "one of alice, bob, carol, got 'erin'"),
        ({"alice": {"k": [1]}, "bob": {"k": [1]}}, {"drop": "x"}, InputError, "`drop` names `x`, which no party has"),
        ({"alice": {"k": pa.array([b"\xff"])}, "bob": {"k": ["a"]}}, {}, InputError, "holds binary"),
    ],
)
def test_bad_input_is_one_clear_error(files: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        spu.psi.intersect(files, key="k", **options)


def test_joined_rows_may_be_none_or_of_an_index() -> None:
    first = pd.DataFrame({"k": ["a", "b"], "t": ["x", None]}).set_index("k")
    none = spu.psi.join({"alice": first, "bob": {"k": ["c"], "n": [1]}}, key="k", output="all", mode="helper")
    assert none.num_rows == 0 and none.schema.names == ["k", "t", "n"]  # whoever's rows it has
    with pytest.raises(InputError, match="holds no numbers"):
        spu.psi.sum({"alice": first, "bob": {"k": ["c"]}}, key="k", column="t", mode="helper")


@pytest.mark.parametrize(("protocol", "ring"), [("semi2k", "FM64"), ("aby3", "FM32"), ("ref2k", "FM64")])
def test_other_protocols_and_owners_that_do_not_compute(protocol: str, ring: str) -> None:
    spu.init(parties=["alice", "bob", "carol", "dave"], address="local")
    nodes = [{"party": p} for p in ("alice", "bob", "carol")[: 2 if protocol == "semi2k" else 3]]
    device = spu.SPU({"nodes": nodes, "runtime_config": {"protocol": protocol, "field": ring}})
    files = {"dave": {"k": ["a", "b", "c"], "x": [1.5, 2.5, 4.0]}, "alice": {"k": ["c", "d", "a"], "n": [2, 7, 4]}}
    table = spu.psi.join(files, key="k", how="left", mode="helper", helper="bob", device=device)
    assert spu.reveal(device(lambda x, n: (x * n).sum())(table["x"], table["n"])) == 1.5 * 4 + 4 * 2


@pytest.mark.parametrize("mode", ["helper", "oblivious"])
def test_a_ring_of_128_bits(mode: str) -> None:
    """Numbers that no ring of 64 bits holds, negative ones, cells that are missing, and rows that somebody sees."""
    nodes = [{"party": p} for p in ("alice", "bob", "carol")]
    device = spu.SPU({"nodes": nodes, "runtime_config": {"protocol": "aby3", "field": "FM128"}})
    first = pa.table({"k": [5, 1, 7, None, 1], "x": [0.5, -(2.0**60), None, 7.0, 3.0]})
    second = pa.table({"k": [9, 1, 2], "y": [1.5, 2.0**70, 9.0], "n": [1, None, -3], "b": [True, True, False]})
    files = {"alice": first, "bob": second}
    table = spu.psi.join(files, key="k", how="left", mode=mode, device=device, drop="k")
    names = ["x", "y", "n", "b"]
    expected = by_duckdb(f"select {', '.join(names)} from a left join b using (k)", a=first, b=second)
    assert rows_of(table, names) == expected
    shown = spu.psi.join(files, key="k", how="left", output="bob", mode=mode, device=device).value
    assert shown.drop_columns("k").num_rows == 5 and by_duckdb("select x, y, n, b from t", t=shown) == expected
    assert spu.psi.count({"alice": first.slice(0, 4), "bob": second}, key="k", mode=mode, device=device) == 1


def test_three_owners() -> None:
    spu.init(parties=["alice", "bob", "carol", "dave"], address="local")
    device = spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"]))
    files = {
        "alice": {"k": ["a", "b", "c", "b"], "x": [1, 2, 3, 4]},
        "bob": {"k": ["c", "b", "z"], "y": [7, 8, 9]},
        "carol": {"k": ["b", "c"], "z": [10, 20]},
    }
    for mode in ("helper", "oblivious"):
        table = spu.psi.join(files, key="k", how="inner", mode=mode, device=device, duplicates="refuse")
        values = spu.reveal(device(lambda x, y, z, ok: (x * y + z) * ok)(*(table[n] for n in "xyz"), table.valid))
        assert sorted(values.tolist()) == [0, 26, 41, 42] and table.rows == 4


def test_a_smaller_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, query = {"alice": A, "bob": B}, f"select {', '.join(BOTH)} from a join b using (name, born)"
    expected = by_duckdb(query, a=A, b=B)
    for mode in ("helper", "oblivious"):
        table = spu.psi.join(files, key=KEY, mode=mode, bound=len(expected))
        assert table.rows == len(expected) and rows_of(table, BOTH) == expected
        with pytest.raises(InputError, match="is too small for the joined rows"):
            spu.psi.join(files, key=KEY, mode=mode, bound=len(expected) - 1)
    large = {"alice": {"k": range(900)}, "bob": {"k": range(880, 3000), "y": range(2120)}}
    monkeypatch.setenv("SPUVM_STATE_DIR", str(tmp_path / "state"))
    budget = spu.dp.Budget(epsilon=1.5, delta=1e-6, path=tmp_path / "ledger")
    noisy = spu.psi.join(large, key="k", mode="helper", epsilon=1.0, budget=budget)
    assert "epsilon 1 of 1.5 spent" in repr(budget)
    with pytest.raises(InputError, match="epsilon"):
        spu.psi.join(large, key="k", mode="helper", epsilon=1.0, budget=budget)
    assert 20 <= noisy.rows < 120 and spu.reveal(noisy.valid).sum() == 20
    with pytest.raises(InputError, match="needs a helper"):
        spu.psi.join(large, key="k", mode="oblivious", epsilon=1.0)


def test_noise_only_adds_and_has_the_stated_spread() -> None:
    drawn = np.array([one_sided(0.5) for _ in range(4000)])
    shift = np.ceil(40 * np.log(2) / 0.5)
    variance = 2 * np.exp(-0.5) / (1 - np.exp(-0.5)) ** 2
    assert drawn.min() >= 0
    assert abs(drawn.mean() - shift) < 5 * (variance / 4000) ** 0.5
    assert abs(drawn.var() / variance - 1) < 0.25
