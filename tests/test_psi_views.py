"""What parties see of a join: shapes that follow from sizes, and nothing but random numbers in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import spuvm as spu
from spuvm.psi.places import Held, Move, Places

ROWS = 400
Seen = list[tuple[str, str, tuple[int, ...], str, bytes]]


@pytest.fixture(autouse=True)
def devices() -> Iterator[None]:
    spu.init(parties=["alice", "bob", "carol"], address="local")
    yield
    spu.shutdown()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """All messages of the joins that follow: source, target, shape, dtype, bytes."""
    found: Seen = []
    move = Places.move

    def noting(self: Places, *moves: Move) -> list[Held]:
        out = move(self, *moves)
        for m, got in zip(moves, out):
            value = np.asarray(got.value)
            assert value.shape == tuple(m.shape) and value.dtype == m.dtype
            found.append((m.source, m.target, value.shape, value.dtype.name, value.tobytes()))
        return out

    monkeypatch.setattr(Places, "move", noting)
    return found


def table(keys: Any, name: str) -> pa.Table:
    return pa.table({"k": pa.array([f"key {i}" for i in keys]), name: np.arange(ROWS)})


def joined(first: Any, second: Any, mode: str, how: str = "inner") -> None:
    spu.psi.join({"alice": table(first, "x"), "bob": table(second, "y")}, key="k", how=how, mode=mode)


INPUTS = {
    "all match": (range(ROWS), range(ROWS)),
    "none match": (range(ROWS), range(ROWS, 2 * ROWS)),
    "other keys": (range(5000, 5000 + ROWS), range(5100, 5100 + ROWS)),
    "repeated": ([i // 5 for i in range(ROWS)], range(ROWS)),
    "one key": ([7] * ROWS, range(ROWS)),
}


@pytest.mark.parametrize("mode", ["helper", "oblivious"])
@pytest.mark.parametrize("how", ["left", "full"])
def test_sizes_decide_on_all_messages(mode: str, how: str, seen: Seen) -> None:
    shapes = []
    for name in ("all match", "none match", "other keys"):
        seen.clear()
        joined(*INPUTS[name], mode, how)
        shapes.append([m[:4] for m in seen])
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("first", ["repeated", "one key"])
def test_in_oblivious_mode_repeated_keys_change_nothing(first: str, seen: Seen) -> None:
    joined(*INPUTS["repeated"], "oblivious", "left")
    shapes = [m[:4] for m in seen]
    seen.clear()
    joined(*INPUTS[first], "oblivious", "left")
    assert [m[:4] for m in seen] == shapes


@pytest.mark.parametrize("mode", ["helper", "oblivious"])
@pytest.mark.parametrize("name", list(INPUTS))
def test_messages_are_random_numbers(mode: str, name: str, seen: Seen) -> None:
    """Every byte value is as frequent as any other, whatever the tables hold; twice the same is never sent."""
    joined(*INPUTS[name], mode, "left")
    helpers = [m for m in seen if mode == "helper" and m[1] == "carol" and m[3] == "uint64" and m[2][-1] == 2]
    for source, target, shape, dtype, body in seen:
        repeats = (source, target, shape, dtype, body) in helpers and len(set(INPUTS[name][0])) < ROWS
        if dtype != "uint32" and not repeats:  # positions are below
            counts = np.bincount(np.frombuffer(body, np.uint8), minlength=256)
            expected = len(body) / 256
            if expected >= 5:
                chi = float(((counts - expected) ** 2 / expected).sum())
                assert chi < 255 + 7 * (2 * 255) ** 0.5, (source, target, shape, dtype)
    bodies = [(m[0], m[4]) for m in seen if len(m[4]) > 16]  # of equal keys both owners send the same tags
    assert len(set(bodies)) == len(bodies)


@pytest.mark.parametrize("mode", ["helper", "oblivious"])
def test_positions_are_distinct_and_anywhere(mode: str, seen: Seen) -> None:
    for name in INPUTS:
        joined(*INPUTS[name], mode, "left")
    positions = [np.frombuffer(m[4], np.uint32) for m in seen if m[3] == "uint32"]
    assert positions
    for p in positions:
        assert len(np.unique(p)) == len(p)
    if mode == "helper":  # of 2 ROWS places; a helper that told which rows match would show in their mean
        means = [p.mean() / (2 * ROWS) for p in positions]
        assert all(abs(m - 0.5) < 6 * 0.29 / ROWS**0.5 for m in means)


def test_the_helper_sees_the_pattern_and_no_more(seen: Seen) -> None:
    """Tables of other keys, in another order, look alike: as many tags as rows, equal ones where keys are equal."""
    rng = np.random.default_rng(3)
    patterns = []
    for start in (0, 10**6):
        seen.clear()
        first = rng.permutation([start + i // 2 for i in range(ROWS)])
        second = rng.permutation(range(start + 50, start + 50 + ROWS))
        joined(first, second, "helper", "left")
        sent = {
            m[0]: np.frombuffer(m[4], np.uint64).reshape(-1, 2) for m in seen if m[1] == "carol" and m[2] == (ROWS, 2)
        }
        names = {p: [tuple(t) for t in tags.tolist()] for p, tags in sent.items()}
        assert all(t == sorted(t) for t in names.values())
        counts = sorted((names["alice"].count(t), names["bob"].count(t)) for t in set(names["alice"] + names["bob"]))
        patterns.append(counts)
    assert patterns[0] == patterns[1] == sorted([(2, 0)] * 50 + [(2, 1)] * 150 + [(0, 1)] * 250)


def test_tags_of_two_joins_have_nothing_in_common(seen: Seen) -> None:
    tags: list[set[bytes]] = []
    for _ in range(2):
        seen.clear()
        joined(*INPUTS["all match"], "helper")
        bodies = b"".join(m[4] for m in seen if m[1] == "carol" and m[2] == (ROWS, 2))
        tags.append({bodies[i : i + 16] for i in range(0, len(bodies), 16)})
    assert len(tags[0]) == ROWS and not tags[0] & tags[1]
