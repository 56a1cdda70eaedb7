"""Shares on disk: stored by one set of processes, loaded by another, and refused when they are not whole."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spuvm as spu
from spuvm import halfway
from spuvm.runtime.errors import InputError
from spuvm.runtime.link.certificates import make_cluster
from spuvm.shares import MAGIC

pytestmark = pytest.mark.usefixtures("preloaded")

PARTIES = ("alice", "bob", "carol")
LIMIT = 300.0
W = np.array([[1.5, -2.25], [0.1, 1e5]], np.float32)


def start(protocol: str = "ABY3", parties: Any = PARTIES, **settings: Any) -> spu.SPU:
    spu.init(parties=[*PARTIES, "dave"], address="local")
    return spu.SPU(spu.utils.testing.cluster_def(parties, {"protocol": protocol, **settings}))


@pytest.fixture(autouse=True)
def _stop() -> Iterator[None]:
    yield
    spu.shutdown()


def folders(tmp_path: Path) -> dict[str, Path]:
    return {p: tmp_path / p for p in (*PARTIES, "dave", "dealer")}


def model(dev: spu.SPU) -> dict[str, Any]:
    """One value of each kind."""
    alice, dave = spu.PYU("alice"), spu.PYU("dave")
    return {
        "weights": alice(lambda: W)().to(dev),
        "flags": [dave(lambda: np.array([True, False]))().to(dev)],
        "bins": (dev(spu.masked)(alice(lambda: np.eye(3, dtype=bool))()), dev(lambda x: x * 2)(alice(lambda: 7)())),
        "public": dev(lambda x: x + 1)(jnp.arange(3)),
        "trees": 20,
        "name": "risk",
        "none": None,
    }


def components(tree: Any) -> list[Any]:
    leaves = [tree["weights"], tree["flags"][0], *tree["bins"], tree["public"]]
    return [np.asarray(c) for x in leaves for c in x.components]


@pytest.fixture(params=["ABY3", "SEMI2K", "REF2K"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_another_session_has_the_same_shares(tmp_path: Path, protocol: str) -> None:
    parties = PARTIES[:2] if protocol == "SEMI2K" else PARTIES
    dev = start(protocol, parties)
    saved = model(dev)
    spu.save_shares(saved, folders(tmp_path), "model")
    dev = start(protocol, parties)
    loaded = spu.load_shares(folders(tmp_path), dev, "model")
    for mine, theirs in zip(components(loaded), components(saved), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    assert repr(loaded) == repr(saved)
    shown = spu.reveal(loaded)
    np.testing.assert_array_equal(shown["weights"], np.rint(W * 2**18) / 2**18)
    assert (shown["trees"], shown["name"], shown["none"]) == (20, "risk", None)
    used = dev(lambda a, w: a.astype(jnp.float32)[:2, :2] @ w * 2)(loaded["bins"][0], loaded["weights"])
    np.testing.assert_allclose(spu.reveal(used), 2 * W, atol=1e-4)


def test_a_part_has_its_party_s_components_alone(tmp_path: Path) -> None:
    dev = start()
    saved = model(dev)
    spu.save_shares(saved, folders(tmp_path))
    parts = {p: (tmp_path / p / "shares.share").read_bytes() for p in PARTIES}
    secret = [np.asarray(c).tobytes() for c in saved["weights"].components]
    for rank, p in enumerate(PARTIES):
        assert [c in parts[p] for c in secret] == [i in (rank, (rank + 1) % 3) for i in range(3)]
    value, before, after = (np.asarray(c).tobytes() for c in saved["bins"][0].components)
    assert [value in parts[p] for p in PARTIES] == [True, False, False]
    assert [before in parts[p] for p in PARTIES] == [False, False, True]
    assert [after in parts[p] for p in PARTIES] == [False, True, False]
    for p in PARTIES:
        assert (tmp_path / p / "shares.share").stat().st_mode & 0o777 == 0o600
        assert list((tmp_path / p).iterdir()) == [tmp_path / p / "shares.share"]
    assert not (tmp_path / "dave").exists()


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def altered(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """A header changed by somebody who can compute the digest too."""
    import hashlib

    magic, _, header, body = path.read_bytes().split(b"\n", 3)
    fields = json.loads(header)
    change(fields)
    rest = json.dumps(fields).encode() + b"\n" + body
    path.write_bytes(magic + b"\n" + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)


SPOILED: dict[str, tuple[Callable[[dict[str, Path]], Any], str]] = {
    "a flipped byte at the end": (lambda f: flip(f["bob"], -1), "bob/.*damaged: its content does not have the SHA-256"),
    "a flipped byte in the header": (lambda f: flip(f["carol"], len(MAGIC) + 90), "carol/.*damaged"),
    "a flipped byte of the digest": (lambda f: flip(f["alice"], len(MAGIC) + 3), "alice/.*damaged"),
    "cut off": (lambda f: f["bob"].write_bytes(f["bob"].read_bytes()[:-9]), "bob/.*damaged"),
    "empty": (lambda f: f["bob"].write_bytes(b""), "bob/.*is no part"),
    "something else": (lambda f: f["bob"].write_bytes(b"PK\x03\x04" * 99), "is no part that `save_shares` wrote"),
    "another format": (
        lambda f: f["bob"].write_bytes(f["bob"].read_bytes().replace(MAGIC, b"spuvm shares 2\n")),
        "another format than 1",
    ),
    "missing": (lambda f: f["bob"].unlink(), "cannot read bob's part .*: No such file"),
    "another party's": (lambda f: f["bob"].write_bytes(f["alice"].read_bytes()), "is the part of alice, not of bob"),
    "of another version": (lambda f: altered(f["bob"], lambda h: h.update(spuvm="9")), "says otherwise what they hold"),
    "another id": (lambda f: altered(f["bob"], lambda h: h.update(id="00")), "belongs to other shares"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_part_is_refused(tmp_path: Path, name: str) -> None:
    dev = start()
    spu.save_shares(model(dev), folders(tmp_path))
    spoil, message = SPOILED[name]
    spoil({p: tmp_path / p / "shares.share" for p in PARTIES})
    with pytest.raises(InputError, match=message):
        spu.load_shares(folders(tmp_path), dev)


def test_components_that_two_parts_hold_must_be_the_same(tmp_path: Path) -> None:
    dev = start()
    saved = model(dev)
    spu.save_shares(saved, folders(tmp_path))
    path = tmp_path / "bob" / "shares.share"
    flip(path, path.read_bytes().index(np.asarray(saved["weights"].components[1]).tobytes()))
    altered(path, lambda h: None)
    with pytest.raises(InputError, match=r"parts of .*bob.* do not agree in what both hold"):
        spu.load_shares(folders(tmp_path), dev)


def test_parts_of_two_models_and_other_machines_are_refused(tmp_path: Path) -> None:
    dev = start()
    for name in ("one", "two"):
        spu.save_shares({"w": model(dev)["weights"]}, folders(tmp_path), name)
    mixed = folders(tmp_path)
    (tmp_path / "bob" / "one.share").write_bytes((tmp_path / "bob" / "two.share").read_bytes())
    with pytest.raises(InputError, match=r"bob/one.share belongs to other shares than the first party's part"):
        spu.load_shares(mixed, dev, "one")
    for other, message in (
        (start("REF2K"), "saved with protocol = aby3, this machine has ref2k"),
        (start(fxp_fraction_bits=20), "saved with fxp_fraction_bits = 18, this machine has 20"),
        (start(parties=PARTIES[::-1]), "saved with parties = alice, bob, carol, this machine has carol, bob, alice"),
    ):
        with pytest.raises(InputError, match=message):
            spu.load_shares(mixed, other, "two")


HALF = """
import os, sys
import numpy as np
import spuvm as spu
from spuvm import shares

folders, moved, move = {p: f"{sys.argv[1]}/{p}" for p in ("alice", "bob", "carol")}, [], shares._move
spu.init(parties=list(folders), address="local")
dev = spu.SPU(spu.utils.testing.cluster_def(list(folders)))

def end(*paths):
    if moved:
        os._exit(9)
    moved.append(move(*paths))

shares._move = end
spu.save_shares({"w": dev(lambda x: x)(np.float32([7, 8]))}, folders)
"""


def test_a_save_that_was_killed_between_the_parties_moves_is_completed_or_refused(tmp_path: Path) -> None:
    """Nobody combines parts of two saves, and neither is lost."""
    dev = start()
    spu.save_shares({"w": dev(lambda x: x)(np.array([1, 2], np.float32))}, folders(tmp_path))
    assert subprocess.run([sys.executable, "-c", HALF, tmp_path], check=False).returncode == 9
    shutil.copytree(tmp_path / "bob", tmp_path / "lost" / "bob")
    for file in (tmp_path / "lost" / "bob").glob(".shares.share.*"):
        file.unlink()
    lost = folders(tmp_path) | {"bob": tmp_path / "lost" / "bob"}
    with pytest.raises(InputError, match=r"bob/shares.share belongs to other shares .*, or save once more"):
        spu.load_shares(lost, dev)
    assert spu.reveal(spu.load_shares(folders(tmp_path), dev))["w"].tolist() == [7, 8]
    assert {f.name for p in PARTIES for f in (tmp_path / p).iterdir()} == {"shares.share"}


def test_what_a_killed_save_left_goes_with_the_next(tmp_path: Path) -> None:
    dev = start()
    at_work = (".shares.share.atwork", ".shares.share.pipe")
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / ".shares.share.x1y2").write_bytes(MAGIC + b"cut off")
    os.mkfifo(tmp_path / "bob" / at_work[1])  # nobody's: it is not opened, which would wait
    with (tmp_path / "bob" / at_work[0]).open("wb") as work:
        fcntl.flock(work, fcntl.LOCK_EX)
        spu.save_shares({"w": model(dev)["weights"]}, folders(tmp_path))
        spu.load_shares(folders(tmp_path), dev)
        assert {f.name for f in (tmp_path / "bob").iterdir()} == {"shares.share", *at_work}


@pytest.mark.parametrize("said", [b"", b"[", b"1", b"[1, []]", b'["x", [1]]', b'["x", "y"]', b'["x", ["y"], 1]'])
def test_a_peer_that_says_nothing_of_its_parts_completes_nothing(said: bytes) -> None:
    assert halfway.to_complete([b'["new", []]', b'["old", ["new"]]']) == "new"
    assert halfway.to_complete([b'["new", []]', b'[null, ["new"]]', b"[null, []]"]) == "new"
    assert halfway.to_complete([b'["new", []]', b'["old", ["other"]]']) is None
    assert halfway.to_complete([b'["old", ["new"]]', b'["old", ["new"]]']) is None  # nobody has moved: it was not done
    assert halfway.to_complete([b'["new", []]', said]) is None


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    dev = start()
    w = model(dev)["weights"]
    for tree, message in (
        ({"a": 1}, "has no SPUObject"),
        ({1: w}, "the key 1: only texts"),
        ([w, np.ones(3)], "`ndarray`: only SPUObjects"),
        ([w, model(start("REF2K"))["weights"]], "objects of several machines"),
    ):
        with pytest.raises(InputError, match=message):
            spu.save_shares(tree, folders(tmp_path))
    with pytest.raises(InputError, match="`folders` lacks carol, who holds a part: it names alice, bob"):
        spu.save_shares(w, {p: tmp_path / p for p in ("alice", "bob")})
    (tmp_path / "carol").write_text("a file")
    with pytest.raises(InputError, match=r"cannot write .*carol"):
        spu.save_shares(w, folders(tmp_path))
    assert not any((tmp_path / "alice").iterdir())  # all parts appear, or none


# Over TLS ------------------------------------------------------------------------------------------------------


SCRIPT = """
import sys
import spuvm as spu
me = sys.argv[1]
spu.init(party=me, config=sys.argv[2])
dev = spu.SPU(spu.utils.testing.cluster_def(["alice", "bob", "carol"]))
model = spu.load_shares({me: sys.argv[3] + "/" + me}, dev)
print(model)
spu.save_shares({"again": model}, {me: sys.argv[3] + "/" + me}, "again")
again = spu.load_shares({me: sys.argv[3] + "/" + me}, dev, "again")
print([c is not None for c in model["weights"].components], dev.vm.session.link.counters.rounds)
print(spu.reveal(again)["again"]["weights"].tolist())
spu.shutdown()
"""


def processes(tmp_path: Path, shares: Path) -> dict[str, tuple[int, str, str]]:
    names = (*PARTIES, "dave")
    config = make_cluster(tmp_path, names, timeout_seconds=240)
    command = [sys.executable, "-c", SCRIPT]
    running = {p: subprocess.Popen([*command, p, config, shares], stdout=-1, stderr=-1, text=True) for p in names}
    try:
        said = {p: process.communicate(timeout=LIMIT) for p, process in running.items()}
        return {p: (running[p].returncode, out, err) for p, (out, err) in said.items()}
    finally:
        for process in running.values():
            process.kill()


def test_parties_load_what_a_simulation_saved(tmp_path: Path) -> None:
    """And a damaged part stops all of them, each with the reason."""
    dev = start()
    saved = model(dev)
    spu.save_shares(saved, folders(tmp_path))
    for rank, (p, (status, out, err)) in enumerate(processes(tmp_path / "keys", tmp_path).items()):
        assert status == 0, err
        shown, held, values = out.splitlines()
        assert shown == repr(saved)
        assert json.loads(values) == (np.rint(W * 2**18) / 2**18).astype(np.float32).tolist()
        assert held == f"{[rank < 3 and i in (rank, (rank + 1) % 3) for i in range(3)]} 0"
        assert p != "dave" or not (tmp_path / "dave").exists()
    flip(tmp_path / "bob" / "shares.share", -5)
    for p, (status, out, err) in processes(tmp_path / "more keys", tmp_path).items():
        assert status != 0
        assert out == ""
        assert ("damaged: its content does not have the SHA-256" in err) == (p == "bob")
        assert ("InputError" if p == "bob" else "PeerAbortedError: bob stopped") in err


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzzed")
    spu.save_shares(model(start()), folders(folder))
    spu.shutdown()
    return folder


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_an_error_of_its_own(saved_once: Path, data: st.DataObject) -> None:
    path = saved_once / "bob" / "shares.share"
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    path.write_bytes(
        data.draw(st.sampled_from([good[:at], good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :]]))
    )
    try:
        with pytest.raises(InputError, match=r"damaged|no part|another format"):
            spu.load_shares(folders(saved_once), start())
    finally:
        path.write_bytes(good)


@settings(max_examples=60, deadline=None)
@given(header=st.one_of(st.binary(), st.recursive(st.none() | st.integers() | st.text(), st.lists)))
def test_a_header_that_nobody_wrote(tmp_path_factory: pytest.TempPathFactory, header: Any) -> None:
    """With a checksum that fits: by somebody who means it."""
    folder = tmp_path_factory.mktemp("h")
    rest = (header if isinstance(header, bytes) else json.dumps(header).encode()) + b"\n"
    for p in PARTIES:
        (folder / p).mkdir()
        digest = hashlib.sha256(rest).hexdigest().encode()
        (folder / p / "shares.share").write_bytes(b"spuvm shares 1\n" + digest + b"\n" + rest)
    with pytest.raises(InputError, match="malformed"):
        spu.load_shares(folders(folder), start())
