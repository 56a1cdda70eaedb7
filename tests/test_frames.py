"""Frames from a peer that has proved who it is, and may still send anything."""

from __future__ import annotations

import json
import traceback
import tracemalloc
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import jax
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spuvm import moving
from spuvm.psi.forms import FILE, is_table
from spuvm.psi.places import Held, Places
from spuvm.psi.raw import described
from spuvm.runtime.errors import InputError, LinkError, PeerMismatchError
from spuvm.runtime.link.agreement import claims, disagreement, encoded
from spuvm.runtime.link.link import Kind
from spuvm.runtime.link.memory_link import memory_links
from spuvm.runtime.link.tls.channel import Channel
from spuvm.runtime.link.tls.receiver import Receiver
from spuvm.runtime.link.tls.stalled import Waits
from spuvm.runtime.link.tls.stream import HEADER, MAGIC, PROTOCOL_VERSION, get_frame

PARTIES = ("alice", "bob", "carol")


class Said:
    """A connection on which certain bytes have come."""

    failed: OSError | None = None
    sock = SimpleNamespace(fileno=lambda: 0)  # which nobody polls

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.returned = b""

    def at_once(self, length: int, buffer: memoryview) -> bytes:
        piece, self.data = self.data[:length], self.data[length:]
        return piece

    def read_into(self, view: memoryview) -> int:
        self.data, self.returned = self.returned + self.data, b""
        n = min(len(view), len(self.data))
        view[:n] = self.data[:n]
        self.data = self.data[n:]
        return n

    def hear(self, length: int) -> bytes:
        if length > len(self.data):
            raise OSError("it closed the connection")
        piece, self.data = self.data[:length], self.data[length:]
        return piece


def frame(kind: int, body: bytes, sequence: int, total: int | None = None, version: int = PROTOCOL_VERSION) -> bytes:
    return HEADER.pack(MAGIC, version, kind, sequence, len(body), len(body) if total is None else total) + body


def received(data: bytes, sizes: tuple[int, ...], ahead: int, at_once: bool = False) -> Receiver:
    """What has come, read in one go where a whole message is next, if that is wanted, and else as it comes."""
    link = memory_links(PARTIES)[0]
    receiver = Receiver(1, cast(Channel, Said(data)), link, Waits(0, PARTIES), ahead)
    for n in sizes:
        view = memoryview(bytearray(n))
        if not (at_once and receiver.idle and receiver.at_once(view, memoryview(bytearray(64)))):
            receiver.expect([view])
    for _ in range(3):
        receiver.advance()
    return receiver


@given(
    st.lists(st.tuples(st.integers(0, 12), st.binary(max_size=60), st.integers(0, 1)), max_size=6),
    st.binary(max_size=30),
    st.lists(st.integers(1, 80), max_size=3),
    st.sampled_from([0, 1 << 16]),
    st.booleans(),
)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_comes_is_taken_or_refused_by_name(
    frames: list[tuple[int, bytes, int]], rest: bytes, sizes: list[int], ahead: int, at_once: bool
) -> None:
    """Any kinds, bodies, sequence numbers and tails: the link's errors, and nothing else."""
    data = b"".join(frame(kind, body, i + 1 + off) for i, (kind, body, off) in enumerate(frames)) + rest
    with suppress(LinkError):
        received(data, tuple(sizes), ahead, at_once)


@pytest.mark.parametrize("at_once", [False, True])
def test_messages_of_the_size_that_is_due_arrive(at_once: bool) -> None:
    data = frame(Kind.DATA, b"abcd", 1, total=6) + frame(Kind.ALIVE, b"", 2) + frame(Kind.DATA, b"ef", 3, total=6)
    assert received(data, (6,), 0, at_once).arrived
    assert received(frame(Kind.DATA, b"abcd", 1) + frame(Kind.DATA, b"ef", 2), (4, 2), 0, at_once).arrived


@pytest.mark.parametrize(("length", "total"), [(1 << 31, 1 << 31), (4, 1 << 62), (0, 6), (7, 6)])
@pytest.mark.parametrize("at_once", [False, True])
def test_sizes_that_are_claimed_cost_nothing(length: int, total: int, at_once: bool) -> None:
    tracemalloc.start()
    head = HEADER.pack(MAGIC, PROTOCOL_VERSION, Kind.DATA, 1, length, total)
    with pytest.raises(PeerMismatchError):
        received(head + bytes(10), (6,), 1 << 20, at_once)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@given(st.binary(max_size=80))
def test_greetings(data: bytes) -> None:
    for said in (data, MAGIC + data, frame(Kind.HELLO, data, 0)):
        with suppress(OSError):
            get_frame(cast(Channel, Said(said)))


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_proposals(one: bytes, other: bytes) -> None:
    mine = encoded({"program": one, "objects": other})
    assert list(claims(mine)) == ["program", "objects"]
    for theirs in (one, mine + other, mine[: len(one)]):
        if theirs != mine:
            text = disagreement({0: mine, 1: theirs, 2: mine}, PARTIES, "")
            assert "bob" in text
            assert text.isprintable()


LEAVES = st.one_of(st.integers(-5, 5), st.booleans(), st.floats(allow_nan=False), st.none())
TREES: Any = st.recursive(
    LEAVES, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=3), t, max_size=3)
)


@given(TREES)
@settings(max_examples=60, deadline=None)
def test_objects_come_as_they_went(tree: Any) -> None:
    again = moving.unpacked(moving.packed(tree), "bob")
    structures: list[Any] = [jax.tree.structure(x) for x in (again, moving.plain(tree))]
    assert structures[0] == structures[1]
    assert jax.tree.leaves(again) == jax.tree.leaves(moving.plain(tree))


def test_arrays_come_as_they_went() -> None:
    tree = {"b": np.arange(6, dtype=np.int16).reshape(2, 3), "a": (np.float32(2.5), np.zeros((0, 4)), np.bool_(True))}
    again = moving.unpacked(moving.packed(tree), "bob")
    for got, want in zip(jax.tree.leaves(again), jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(got, want)
        assert np.asarray(got).dtype == np.asarray(want).dtype


@pytest.mark.parametrize("x", ["text", b"bytes", {1: 2}, 2**70, np.array(["a"]), np.array([object()]), object()])
def test_what_cannot_go_is_refused(x: Any) -> None:
    with pytest.raises(InputError):
        moving.packed(x)


@given(st.binary(max_size=60), st.integers(0, 60), st.binary(max_size=8))
@settings(max_examples=100, deadline=None)
def test_objects_that_are_malformed(junk: bytes, at: int, piece: bytes) -> None:
    body = moving.packed({"x": np.arange(3), "y": 2.5})
    for said in (junk, body[:at] + piece + body[at + len(piece) :], body + junk, body[:at]):
        with suppress(PeerMismatchError):
            moving.unpacked(said, "bob")
    forms: tuple[Any, ...] = (
        {"array": [[1 << 60], "float32"]},
        {"array": [[-1], "int8"]},
        {"array": [[2], "object"]},
        {"x": 1},
        [],
        3,
    )
    for form in forms:
        described = json.dumps(form).encode()
        with pytest.raises(PeerMismatchError):
            moving.unpacked(len(described).to_bytes(8, "little") + described, "bob")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, b"true", b"-1", b"1e400", b'{"rows": 1}', b"99999999999999999"]
)
def test_what_is_said_in_a_join_is_of_its_form(body: bytes) -> None:
    """A peer that says something else is named, at once."""
    places: Any = Places.__new__(Places)
    places.parties, places.me, places.number = ("alice", "bob"), "alice", 1
    places.link = SimpleNamespace(broadcast=lambda rank, mine: body, abort=lambda error: None)
    for form in (int, [str], FILE, is_table):
        with pytest.raises(PeerMismatchError, match="bob says something in a join"):
            places.tell("bob", Held(frozenset({"bob"}), None), form)


def test_the_forms_of_tables() -> None:
    table = {
        "rows": 3,
        "kinds": ["int"],
        "unique": True,
        "columns": [["x", "float32", None]],
        "keys": [],
        "dropped": [],
    }
    assert is_table(table)
    text = described("x", pa.array(["a"]), "here").type_text
    assert is_table({**table, "columns": [["x", None, None], ["y", "raw", [text, 3]]]})
    assert not is_table({**table, "columns": [["x", "object", None]]})
    for change in (
        {"rows": -1}, {"rows": True}, {"kinds": [3]}, {"columns": [["x", "f"]]}, {"columns": 3},
        {"keys": [[1, "f", None]]},
        {"columns": [["x", "raw", ["t", "many"]]]}, {"dropped": None}, {"more": 1}, {"columns": [["x", "raw", None]]},
        {"columns": [["x", "raw", ["string", 3]]]}, {"columns": [["x", "raw", [text, 1 << 40]]]},
        {"columns": [["x", "float32", [text, 3]]]},
    ):  # fmt: skip
        assert not is_table({**table, **change}), change


def test_no_text_of_a_peer_moves_a_terminal() -> None:
    """Whoever prints it: Python's traceback of a script, too."""
    error = InputError("bob has a column `\x1b[2Jx\u202ey`:\nleave it out")
    assert str(error) == "bob has a column `?[2Jx?y`:\nleave it out"
    assert "\x1b" not in "".join(traceback.format_exception(error))
