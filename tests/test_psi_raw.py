"""What a party says of columns that are joined as they are: of a form that can be used, or refused by name."""

from __future__ import annotations

import base64

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spuvm.psi.forms import is_table
from spuvm.psi.raw import RawColumn, common, decoded, described, encoded, is_raw
from spuvm.runtime.errors import PeerMismatchError


def raw_type(*types: pa.DataType) -> str:
    """As a party tells the type of a column; of several, what nobody tells."""
    schema = pa.schema([pa.field(str(i), t) for i, t in enumerate(types)])
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


@pytest.mark.parametrize(
    ("types", "words"),
    [
        ((), 1),
        ((pa.int64(), pa.int64()), 1),
        ((pa.int64(),), 2),
        ((pa.list_(pa.int64()),), 1),
        ((pa.dictionary(pa.int32(), pa.large_string()),), 1),
        ((pa.string(),), 2),
        ((pa.decimal128(20, 2),), 1),
        ((pa.timestamp("us", "Nowhere/At all"),), 1),
        ((pa.bool_(),), 0),
    ],
)
def test_types_that_no_joined_column_has(types: tuple[pa.DataType, ...], words: int) -> None:
    assert not is_raw(raw_type(*types), words)


@pytest.mark.parametrize(
    "type_", [pa.int8(), pa.float64(), pa.timestamp("us", "UTC"), pa.decimal128(20, 2), pa.bool_()]
)
def test_types_that_joined_columns_have(type_: pa.DataType) -> None:
    raw = described("x", pa.array([None], type_), "here")
    assert is_raw(raw.type_text, raw.words)
    assert raw.type == type_


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_the_type_of_a_column_is_taken_or_refused(data: st.DataObject) -> None:
    """Whatever a peer says of a column's type: what is taken can be used, and nothing has an error of its own."""
    good = base64.b64decode(raw_type(data.draw(st.sampled_from([pa.large_string(), pa.decimal128(9, 2), pa.int16()]))))
    at = data.draw(st.integers(0, len(good) - 1))
    changed = good[:at] + bytes([good[at] ^ 1 << data.draw(st.integers(0, 7))]) + good[at + 1 :]
    said = data.draw(st.sampled_from([changed, good[:at], data.draw(st.binary(max_size=40))]))
    text = data.draw(st.sampled_from([base64.b64encode(said).decode(), "no base64", "\u00e9"]))
    words = data.draw(st.integers(0, 3))
    if is_raw(text, words):
        raw = RawColumn("x", text, words)
        assert decoded(np.zeros((words, 2), np.uint64), np.array([True, False]), raw).null_count == 1


def test_keys_are_as_many_as_were_asked_for_and_of_their_kinds() -> None:
    whole, text = [raw_type(pa.int64()), 1], [raw_type(pa.large_string()), 2]
    table = {"rows": 3, "kinds": ["int"], "unique": True, "columns": [], "keys": [["k", "raw", whole]], "dropped": []}
    assert is_table(table, keys=1, raw=True)
    for keys, raw, change in (
        (2, True, {}),
        (1, False, {}),
        (1, True, {"keys": []}),
        (1, True, {"keys": [["k", "raw", text]]}),
        (1, True, {"kinds": ["text"]}),
        (1, True, {"columns": [["x", "int32", None]]}),
        (1, False, {"kinds": ["colour"], "keys": [["k", "int64", None]]}),
    ):
        assert not is_table({**table, **change}, keys=keys, raw=raw), change


def test_texts_that_are_longer_than_their_column_are_refused() -> None:
    """By an owner that gives other words than its table has."""
    raw = described("x", pa.array(["abc", "d"]), "here")
    words, there = encoded(pa.array(["abc", None]), raw)
    assert decoded(words, there, raw).to_pylist() == ["abc", None]
    for length, letters in ((9, 0x61), (1 << 63, 0x61), (1, 0xFF)):
        bad = np.array([[length, 0], [letters, 0]], np.uint64)
        with pytest.raises(PeerMismatchError, match="column `x` of the joined rows"):
            decoded(bad, there, raw)


@pytest.mark.parametrize(
    "columns",
    [
        [pa.array([5, 2**64 - 1], pa.uint64()), pa.array([5, -(2**63)], pa.int64())],
        [pa.array([5, 2**64 - 1], pa.uint64()), pa.array([7, None], pa.uint16())],
        [pa.array([10**37, None], pa.decimal128(38, 0)), pa.array(["0.0000000001"]).cast(pa.decimal128(38, 10))],
        [pa.array([1, -1], pa.int8()), pa.array([2**40], pa.int64())],
        [pa.array([1], pa.timestamp("ms", "UTC")), pa.array([1], pa.timestamp("us", "Europe/Berlin"))],
    ],
)
def test_keys_of_two_types_have_one_that_holds_both(columns: list[pa.Array]) -> None:
    """In any order the same but for a time zone, which is the first owner's; cells are what they were."""
    forms = [described("id", c, "a table") for c in columns]
    form = common(forms)
    assert is_raw(form.type_text, form.words)
    for column in columns:
        back = decoded(*encoded(column, form), form)
        assert back.to_pylist() == column.to_pylist()
