"""Frames: what all parties learn, what only owners have, and that bad tables are refused with one clear error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

import spuvm as spu
from spuvm.data.same_keys import COEFFICIENT, PRIME, differing, point
from spuvm.network import make_run_folder, run_parties
from spuvm.runtime.errors import OWN_ERROR, ConfigError, InputError, VisibilityError

PARTIES = ("alice", "bob", "carol")
ALICE = {"id": [3, 1, 2], "age": [1.5, None, 3.0], "city": ["Ulm", None, "Bonn"]}
BOB = {"id": [3, 1, 2], "visits": [1, 2, 3], "smokes": [True, False, None]}
CAROL = {"id": [3, 1, 2], "ill": [True, False, True]}


@pytest.fixture(autouse=True)
def devices() -> Iterator[None]:
    spu.init(parties=PARTIES, address="local")
    yield
    spu.shutdown()


def three(alice: Any = ALICE, bob: Any = BOB, carol: Any = CAROL, **options: Any) -> spu.data.Frame:
    return spu.data.vertical({"alice": alice, "bob": bob, "carol": carol}, **{"key": "id", **options})


def at(x: Any, party: str) -> Any:
    """What a party sees (a simulation is all parties)."""
    found = x.at(party)
    assert repr(found) == f"<PYUObject at {party}>"
    return found.value


# Vertical ------------------------------------------------------------------------------------------------


def test_a_vertical_frame() -> None:
    frame = three()
    assert repr(frame) == "<vertical frame: 3 rows, 5 columns at alice (2), bob (2), carol (1)>"
    assert (frame.kind, frame.shape, len(frame), frame.parties) == ("vertical", (3, 5), 3, PARTIES)
    assert frame.columns == ("age", "city", "visits", "smokes", "ill")
    assert [(c.party, c.type, c.missing, c.categories) for c in frame.schema.columns] == [
        ("alice", "float", True, None),
        ("alice", "category", True, None),
        ("bob", "int", True, None),
        ("bob", "bool", True, None),
        ("carol", "bool", True, None),
    ]
    np.testing.assert_array_equal(at(frame, "alice"), [[1.5, 1], [np.nan, np.nan], [3, 0]])
    np.testing.assert_array_equal(at(frame, "bob"), [[1, 1], [2, 0], [3, np.nan]])
    assert frame.categories("alice").value == {"city": ("Bonn", "Ulm")}
    assert frame.keys("carol").value["id"].tolist() == [3, 1, 2]


def test_columns_are_chosen_and_left_out() -> None:
    frame = three(columns=["ill", "visits", "age"])
    assert frame.columns == ("ill", "visits", "age")
    assert frame.columns_of("bob") == ("visits",)
    np.testing.assert_array_equal(at(frame[["age", "ill"]], "alice"), [[1.5], [np.nan], [3]])
    rest = frame.drop("ill")
    assert rest.columns == ("visits", "age")
    assert rest.parties == PARTIES  # carol still has her keys
    assert at(rest, "carol").shape == (3, 0)
    assert three(drop="age").columns == ("city", "visits", "smokes", "ill")
    assert "age" not in three().drop(["age", "city"], "ill")
    with pytest.raises(InputError, match=r"no column `agee` \(did you mean `age`\?\): there are ill, visits, age"):
        frame[["agee"]]
    with pytest.raises(InputError, match="no column `city`"):
        frame.drop("city")
    with pytest.raises(InputError, match="named twice"):
        frame[["age", "age"]]


def test_a_series() -> None:
    label = three()["ill"]
    assert repr(label) == "<column `ill` of 3 rows at carol>"
    assert (label.name, label.parties, label.rows, label.column.type) == ("ill", ("carol",), 3, "bool")
    np.testing.assert_array_equal(at(label, "carol"), [1, 0, 1])
    with pytest.raises(InputError, match="`bob` has no cells of `ill`"):
        label.at("bob")


def test_values_stay_at_their_owner() -> None:
    frame = three()
    with pytest.raises(VisibilityError, match="not at bob"):
        spu.PYU("bob")(lambda x: x)(frame.at("alice"))
    assert "Ulm" not in repr(frame) + str(frame.schema)
    with pytest.raises(InputError, match="`dave` has no part"):
        frame.at("dave")


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.npy", "pandas", "index", "arrow", "chunks", "pyu"])
def test_any_kind_of_table(name: str, tmp_path: Path) -> None:
    table = pa.table({"id": ["b", "a"], "x": [0.5, 2.0], "n": [1, 2]})
    path = tmp_path / name
    source: Any = path
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".csv":
        pc.write_csv(table, path)
    elif path.suffix == ".npy":
        np.save(path, np.array([(1, 0.5, 1), (2, 2.0, 2)], [("id", "i8"), ("x", "f8"), ("n", "i8")]))
    else:
        frame = table.to_pandas()
        chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
        as_object = spu.PYU("alice")(lambda: frame)()
        kinds = {"pandas": frame, "index": frame.set_index("id"), "arrow": table, "chunks": chunked, "pyu": as_object}
        source = kinds[name]
    key = [1, 2] if name == "t.npy" else ["b", "a"]
    found = spu.data.vertical({"alice": source, "bob": {"id": key}}, key="id")
    assert [c.type for c in found.schema.columns] == ["float", "int"]
    np.testing.assert_array_equal(at(found, "alice"), [[0.5, 1], [2, 2]])


def test_keys_of_several_columns_and_types() -> None:
    days = np.array(["2020-01-01", "2020-01-02"], "datetime64[D]")
    alice = {"who": [7, 7], "day": days, "x": [1, 2]}
    bob = pd.DataFrame({"day": days, "who": pd.Categorical(["7", "7"]), "y": [1, 2]})
    bob["day"] = bob["day"].astype("date32[pyarrow]")
    frame = spu.data.vertical({"alice": alice, "bob": bob}, key=["who", "day"])
    assert frame.columns == ("x", "y")


def test_times_of_any_unit_are_equal_keys() -> None:
    times = {unit: np.array(["2020-01-01T10", "2020-01-02T11"], f"datetime64[{unit}]") for unit in ("s", "us", "ns")}
    tables = {p: {"at": t, p: [1, 2]} for p, t in zip(PARTIES, times.values())}
    assert spu.data.vertical(tables, key="at").rows == 2
    tables["bob"]["at"] = times["us"] + np.timedelta64(1, "us")
    with pytest.raises(InputError, match="of bob are not those of alice"):
        spu.data.vertical(tables, key="at")


def test_views_of_text_are_text() -> None:
    table = pa.table({"id": pa.array(["a", "b"], pa.string_view()), "x": pa.array(["u", None], pa.string_view())})
    frame = spu.data.vertical({"alice": table, "bob": {"id": ["a", "b"]}}, key="id")
    np.testing.assert_array_equal(at(frame["x"], "alice"), [0, np.nan])


@pytest.mark.parametrize(
    ("alice", "bob"),
    [
        ({"a": ["x", "yz"]}, {"a": ["xy", "z"]}),
        ({"a": ["1", "2"]}, {"a": ["01", "2"]}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": ["x", "y"], "b": ["1", "2"]}, {"a": ["x", "y"], "b": ["2", "1"]}),
        ({"a": ["x", "y"], "b": ["z", ""]}, {"a": ["x", "yz"], "b": ["", "z"]}),
    ],
)
def test_other_rows_or_another_order(alice: Any, bob: Any) -> None:
    tables = {"alice": {**alice, "p": [1, 2]}, "bob": {**bob, "q": [1, 2]}}
    with pytest.raises(InputError, match=r"the keys \(a.*\) of bob are not those of alice, or in another order"):
        spu.data.vertical(tables, key=list(alice))
    assert spu.data.vertical({**tables, "bob": {**alice, "q": [1, 2]}}, key=list(alice)).rows == 2


def test_slices_have_the_digest_of_what_they_show() -> None:
    table = pa.table({"id": ["a", "bb", "ccc", "d"], "x": [1, 2, 3, 4]})
    frame = spu.data.vertical({"alice": table.slice(1, 2), "bob": {"id": ["bb", "ccc"]}}, key="id")
    np.testing.assert_array_equal(at(frame, "alice"), [[2], [3]])


def test_whoever_differs_is_named_and_no_key_is_shown() -> None:
    keys = ["secret7", "secret8"]
    with pytest.raises(InputError, match="of bob and carol are not those of alice") as caught:
        three(*({"id": k, name: [1, 2]} for name, k in zip("abc", (keys, keys[::-1], ["secret7", "x"]))))
    assert "secret" not in str(caught.value)


# Equality of digests ---------------------------------------------------------------------------------------


def test_points_are_on_the_curve() -> None:
    for i in range(50):
        u = int.from_bytes(point(bytes([i])), "little")
        assert pow(u**3 + COEFFICIENT * u**2 + u, (PRIME - 1) // 2, PRIME) == 1
    assert len({point(bytes([i])) for i in range(50)}) == 50


def test_digests_are_compared_blinded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parties say is fresh each time, tells nothing of the digest, and one bit each comes out."""
    said: list[bytes] = []

    def fetch(x: Any) -> Any:
        said.append(np.asarray(x.value).tobytes())
        return x.value

    monkeypatch.setattr("spuvm.data.same_keys.fetch", fetch)
    digests = {p: spu.PYU(p)(lambda d=d: d)() for p, d in zip(PARTIES, (b"a", b"a", b"b"))}
    assert differing(digests) == ("carol",)
    first, said[:] = list(said), []
    assert differing(digests) == ("carol",)
    assert len(said) == 7  # a point each, two answers, two bits
    assert not set(first[:5]) & set(said[:5])
    assert {len(x) for x in said[:5]} == {32}
    assert point(b"a") not in said


# Bad tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bob", "message"),
    [
        ({"id": [3, 1], "x": [1, 2]}, r"different numbers of rows \(alice 3, bob 2, carol 3\)"),
        ({"id": [3, 1, 2], "age": [1, 2, 3]}, "alice and bob both have a column `age`"),
        ({"ID": [3, 1, 2], "x": [1, 2, 3]}, r"table of bob has no key column `id` \(did you mean `ID`\?\)"),
        ({"id": [3, 3, 2], "x": [1, 2, 3]}, r"rows with the same key \(id\)"),
        ({"id": [3, None, 2], "x": [1, 2, 3]}, "key column `id` of the table of bob has 1 cells missing"),
        ({"id": [3.0, 1.0, 2.5], "x": [1, 2, 3]}, "holds double: keys are integers, text or dates"),
        ({"id": [], "x": []}, "table of bob has no rows"),
        ({"id": [3, 1, 2], "x": [1.0, np.inf, 2.0]}, r"column `x` .* infinite number: .* \(the first in row 2\)"),
        ({"id": [3, 1, 2], "x": [1, 2, (1 << 53) + 1]}, r"integer beyond 2\^53.*row 3"),
        ({"id": [3, 1, 2], "x": [1, 2, -(1 << 63)]}, r"integer beyond 2\^53.*row 3"),
        ({"id": [3, 1, 2], "x": np.array(["2020-01-01"] * 3, "datetime64[D]")}, r"date32.*drop=\['x'\]"),
        ({"id": [3, 1, 2], "x": [[1], [2], [3]]}, "holds list"),
        ({"id": [3, 1, 2], "x": [1, "a", 2]}, "column `x` of the table of bob mixes types"),
        ({"id": [3, 1, 2], "x": [1, 2]}, "columns of different lengths"),
        (pa.table([[1], [2]], ["id", "id"]), "two columns `id`"),
        (pd.DataFrame([[1, 2, 3]], columns=["id", "a", "a"]), "two columns `a`"),
        (pd.DataFrame({"id": [1], 5: [2]}), "whose name is a `int`"),
        ("nowhere.parquet", "nowhere.parquet: there is no such file"),
        ("nowhere.xls", "must end in one of"),
        (None, "table of bob is None"),
        (7, "table of bob is a `int`"),
    ],
)
def test_bad_tables(bob: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        three(bob=bob)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": ()}, "`key` is empty"),
        ({"columns": ["age", "ages"]}, r"`columns` names `ages`, which no party has \(did you mean `age`\?\)"),
        ({"columns": []}, "nothing is left"),
        ({"drop": ["ages"]}, "`drop` names `ages`"),
        ({"drop": [7]}, "`drop` must be names"),
        ({"missing": ["age", "city", "smokes", "ages"]}, "`missing` names `ages`"),
        ({"missing": False}, r"column `age` of the table of alice has 1 of 3 cells missing.*row 2"),
        ({"missing": ["age", "city"]}, "column `smokes` .* has 1 of 3 cells missing"),
        ({"categories": {"town": ["Ulm"]}}, "`categories` names `town`"),
        ({"categories": {"city": "private"}}, "must be a list, or 'public'"),
        ({"categories": {"city": ["Ulm", "Ulm"]}}, "has one twice"),
        ({"categories": {"city": ["Ulm"]}}, r"a category that `categories` does not name \(the first in row 3\)"),
        ({"categories": {"age": "public"}}, "holds double, which makes no categories"),
    ],
)
def test_bad_requests(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        three(**options)


def test_bad_mappings() -> None:
    empty: list[Any] = [{}, ["alice"], None]
    for sources in empty:
        with pytest.raises(InputError, match="`sources` must map parties"):
            spu.data.vertical(sources, key="id")
    with pytest.raises(ConfigError, match="alice, bob, carol"):
        spu.data.vertical({"dave": ALICE}, key="id")


# Missing cells and categories ---------------------------------------------------------------------------


def test_missing_cells_where_they_may_be() -> None:
    frame = three(missing=["age", "city", "smokes"])
    assert [c.name for c in frame.schema.columns if not c.missing] == ["visits", "ill"]


def test_empty_text_and_not_a_number_are_missing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,city,x,none\n3,,1,\n1,Ulm,NaN,\n2,Bonn,,\n")
    frame = three(alice=tmp_path / "t.csv")
    np.testing.assert_array_equal(at(frame, "alice"), [[np.nan, 1, np.nan], [1, np.nan, np.nan], [0, np.nan, np.nan]])
    frame = three(alice={"id": [3, 1, 2], "city": ["", "Ulm", None]})
    np.testing.assert_array_equal(at(frame, "alice"), [[np.nan], [0], [np.nan]])
    assert frame.categories("alice").value == {"city": ("Ulm",)}


def test_public_categories() -> None:
    frame = three(categories={"city": "public", "visits": [3, 2, 1, 0]})
    assert frame.schema["city"].categories == ("Bonn", "Ulm")
    assert frame.schema["visits"].categories == ("3", "2", "1", "0")
    np.testing.assert_array_equal(at(frame[["visits"]], "bob"), [[2], [1], [0]])


def test_an_ordered_dictionary_keeps_its_order() -> None:
    sizes = ["small", "middle", "large"]
    cells = ["large", "small", None]
    for ordered, codes in ((True, [2, 0, np.nan]), (False, [0, 1, np.nan])):
        column = pd.Categorical(cells, categories=sizes, ordered=ordered)
        frame = three(alice=pd.DataFrame({"id": [3, 1, 2], "size": column}))
        np.testing.assert_array_equal(at(frame["size"], "alice"), codes)


def test_later_data_take_the_form_of_earlier() -> None:
    before = three()
    known = {"alice": before.categories("alice")}
    later = {"id": [9, 8], "new": [1, 2], "city": ["Ulm", "Ulm"], "age": [4, 5]}
    frame = spu.data.vertical({"bob": {"id": [9, 8], "visits": [0, 1], "smokes": [None, True]}, "alice": later}, "id")
    wanted = before.drop("ill").schema.columns
    found = frame.conform(wanted, known)
    assert found.schema.columns == wanted
    np.testing.assert_array_equal(at(found, "alice"), [[4, 1], [5, 1]])  # Ulm is 1 again
    assert found.categories("alice").value == {"city": ("Bonn", "Ulm")}
    with pytest.raises(InputError, match="`categories` of alice are missing"):
        frame.conform(wanted)
    with pytest.raises(InputError, match="the model needs column `ill` of carol"):
        frame.conform(before.schema.columns, known)


@pytest.mark.parametrize(
    ("alice", "message"),
    [
        ({"city": ["Ulm", "Rom", None], "age": [1, 2, 3]}, r"a category that the model does not know \(.*row 2\)"),
        ({"city": [1, 2, 3], "age": [1, 2, 3]}, "has column `city` of alice as category, here it is int"),
        ({"city": ["Ulm"] * 3, "age": [True, False, True]}, "has column `age` of alice as float, here it is bool"),
        ({"city": ["Ulm"] * 3, "Age": [1, 2, 3]}, r"needs column `age` of alice \(did you mean `Age`\?\)"),
        ({"city": ["Ulm"] * 3, "age": [1, 2, None]}, "column `age` .* has 1 of 3 cells missing"),
    ],
)
def test_later_data_that_do_not_fit(alice: Any, message: str) -> None:
    before = three(alice={**ALICE, "age": [1.5, 2.5, 3.5]}, missing=["city", "smokes"])
    frame = three(alice={"id": [3, 1, 2], **alice})
    with pytest.raises(InputError, match=message) as caught:
        frame.conform(before.schema.columns, {"alice": before.categories("alice")})
    assert "Rom" not in str(caught.value)


def test_a_column_at_another_party_does_not_fit() -> None:
    before = three()
    frame = three(alice={"id": [3, 1, 2], "visits": [1, 2, 3]}, bob={"id": [3, 1, 2], "age": [1, 2, 3]})
    with pytest.raises(InputError, match="has column `age` of alice, here it is at bob"):
        frame.conform(before[["age"]].schema.columns)


def test_a_schema_goes_through_json() -> None:
    columns = three(categories={"city": "public"}).schema.columns
    text = json.dumps([c.to_json() for c in columns])
    assert tuple(spu.data.Column.from_json(c) for c in json.loads(text)) == columns


def test_a_schema_prints_as_a_table() -> None:
    assert str(three(columns=["city", "ill"], missing=["city"]).schema).splitlines() == [
        "column  party  type      missing   categories",
        "city    alice  category  possible  private",
        "ill     carol  bool      none",
        "3 rows",
    ]


# Rows --------------------------------------------------------------------------------------------------------


def test_the_same_rows_at_all_parties() -> None:
    n = 100
    tables = {p: {"id": np.arange(n), f"x_{p}": np.arange(n) * 10} for p in PARTIES}
    frame = spu.data.vertical(tables, key="id")
    train, test = frame.split(test_size=0.25, seed=7)
    assert (train.rows, test.rows) == (75, 25)
    rows = {p: at(test, p)[:, 0].tolist() for p in PARTIES}
    assert rows["alice"] == rows["bob"] == rows["carol"] == sorted(rows["alice"])
    assert test.keys("bob").value["id"].tolist() == [int(x) // 10 for x in rows["bob"]]
    assert sorted(rows["alice"] + at(train, "alice")[:, 0].tolist()) == list(range(0, 10 * n, 10))
    assert at(frame.split(25, 7)[1], "alice")[:, 0].tolist() == rows["alice"]
    assert at(frame.split(25, 8)[1], "alice")[:, 0].tolist() != rows["alice"]
    assert at(frame.take([5, 3]), "bob")[:, 0].tolist() == [50, 30]
    assert at(frame.take(np.arange(n) < 2), "bob")[:, 0].tolist() == [0, 10]


def test_a_split_is_the_same_for_ever() -> None:
    """Parties with different versions of NumPy must draw the same rows."""
    frame = spu.data.vertical({"alice": {"id": np.arange(10), "x": np.arange(10)}}, key="id")
    assert at(frame.split(4, seed=1)[1], "alice")[:, 0].tolist() == [2, 4, 6, 9]


@pytest.mark.parametrize("size", [0, 3, 1.0, 0.0, -1, 1.5])
def test_splits_that_leave_nothing(size: Any) -> None:
    with pytest.raises(InputError, match="both need some"):
        three().split(size)


@pytest.mark.parametrize("rows", [[], [3], [-1], [0, 0], [0.5], [True], [[0]], [False] * 3])
def test_rows_that_there_are_not(rows: Any) -> None:
    with pytest.raises(InputError, match="`rows`"):
        three().take(rows)


# Horizontal ---------------------------------------------------------------------------------------------------


NORTH = {"id": [1, 2], "age": [1, 2], "city": ["Kiel", None], "ill": [True, False]}
SOUTH = {"ill": [False], "id": [1], "age": [2.5], "city": ["Ulm"]}


def both(alice: Any = NORTH, carol: Any = SOUTH, **options: Any) -> spu.data.Frame:
    options = {"key": "id", "categories": {"city": "public"}, **options}
    return spu.data.horizontal({"alice": alice, "carol": carol}, **options)


def test_a_horizontal_frame() -> None:
    frame = both()
    assert repr(frame) == "<horizontal frame: 3 rows, 3 columns at alice (2 rows), carol (1 rows)>"
    assert frame.columns == frame.columns_of("carol") == ("age", "city", "ill")
    assert [(c.party, c.type) for c in frame.schema.columns] == [(None, "float"), (None, "category"), (None, "bool")]
    assert frame.schema["city"].categories == ("Kiel", "Ulm")
    np.testing.assert_array_equal(at(frame, "alice"), [[1, 0, 1], [2, np.nan, 0]])
    np.testing.assert_array_equal(at(frame, "carol"), [[2.5, 1, 0]])
    assert frame["ill"].parties == ("alice", "carol")
    np.testing.assert_array_equal(at(frame["ill"], "carol"), [0])
    rest = frame.take([2, 0])
    assert rest.schema.rows_at == {"alice": 1, "carol": 1}
    np.testing.assert_array_equal(at(rest, "carol"), [[2.5, 1, 0]])
    assert at(frame.take([1]), "carol").shape == (0, 3)
    assert [part.rows for part in frame.split(1)] == [2, 1]


def test_stated_categories_are_coded_alike() -> None:
    frame = both(categories={"city": ["Ulm", "Kiel", "Bonn"]})
    np.testing.assert_array_equal(at(frame[["city"]], "alice"), [[1], [np.nan]])
    np.testing.assert_array_equal(at(frame[["city"]], "carol"), [[0]])


@pytest.mark.parametrize(
    ("carol", "options", "message"),
    [
        ({**SOUTH, "age": [True]}, {}, r"column `age` has different types \(alice int, carol bool\)"),
        ({k: v for k, v in SOUTH.items() if k != "age"}, {}, "carol has no column `age`"),
        ({**SOUTH, "more": [1]}, {}, "carol has a column `more`, alice has not"),
        (SOUTH, {"categories": None}, "column `city` is text: all parties must code it alike"),
        (SOUTH, {"categories": {"city": ["Kiel"]}}, "a category that `categories` does not name"),
        (SOUTH, {"drop": ["id2"]}, "`drop` names `id2`"),
        ({**SOUTH, "age": [None]}, {"missing": ["city"]}, "column `age` .* has 1 of 1 cells missing"),
    ],
)
def test_bad_horizontal_frames(carol: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        both(carol=carol, **options)


# Networked ----------------------------------------------------------------------------------------------------


SCRIPT = """
import sys
import spuvm as spu

me, config, mine = sys.argv[1:]

def frame(path=mine, **options):
    spu.init(party=me, config=config)
    sources = {p: path if p == me else None for p in ("alice", "bob", "carol")}
    return spu.data.vertical(sources, **{"key": "id", "categories": {"city": "public"}, **options})

def fails(**options):
    try:
        frame(**options)
        print("no error")
    except spu.errors.SpuError as error:
        print(type(error).__name__, error)

f = frame()
print(f)
print(f.schema)
print(f.schema["city"].categories)
test = f.split(1, seed=0)[1]
print({p: test.at(p).value is not None for p in f.parties})
print(spu.reveal(test.at("bob")).shape)
try:
    f.take([0 if me == "bob" else 1])
except spu.errors.SpuError as error:
    print(type(error).__name__, error)
fails(path="turned.parquet" if me == "bob" else mine)
fails(path="gone.parquet" if me == "carol" else mine)
fails(columns=["age"] if me == "alice" else None)
"""


@pytest.mark.usefixtures("preloaded")
def test_three_processes(tmp_path: Path) -> None:
    """Each with its own file; what all print is the same, and every party learns why it failed."""
    for party, table in zip(PARTIES, (ALICE, BOB, CAROL)):
        pq.write_table(pa.table(table), tmp_path / f"{party}.parquet")
    pq.write_table(pa.table(BOB).take([1, 0, 2]), tmp_path / "turned.parquet")
    config = make_run_folder(tmp_path / "keys", spu.Config(parties=PARTIES))
    commands = {p: [sys.executable, "-c", SCRIPT, p, str(config), f"{p}.parquet"] for p in PARTIES}
    done = run_parties(commands, timeout=300, cwd=tmp_path)
    lines = {p: outcome.stdout.splitlines() for p, outcome in done.items()}
    frame = three(categories={"city": "public"})
    for party in PARTIES:
        shown = lines[party]
        assert shown[:7] == [repr(frame), *str(frame.schema).splitlines()][:7], done[party].stderr
        assert shown[8:11] == ["('Bonn', 'Ulm')", str({p: p == party for p in PARTIES}), "(1, 2)"]
        assert "bob differs from alice and carol in `rows of a frame`" in shown[11]
        assert "the keys (id) of bob are not those of alice" in shown[12]
        assert (OWN_ERROR, "gone.parquet: there is no such file")[party == "carol"] in shown[13]
        assert "alice differs from bob and carol in `vertical frame`" in shown[14]
    assert [lines[p][13].split()[0] for p in PARTIES] == ["PeerAbortedError", "PeerAbortedError", "InputError"]


def test_importing_loads_no_tables() -> None:
    script = "import sys, spuvm; spuvm.data.vertical; print({'pyarrow', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
