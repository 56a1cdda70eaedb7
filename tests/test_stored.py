"""Randomness made ahead: used once, in step with the other party, kept in folders that notice what was put back."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import spuvm as spu
from spuvm import cli
from spuvm.calls import Jitted
from spuvm.runtime.config import Config
from spuvm.runtime.engine.correlated import Family, Kind
from spuvm.runtime.errors import ConfigError, InputError, PeerMismatchError, SpuError
from spuvm.runtime.link.memory_link import MemoryLink, memory_links
from spuvm.runtime.machine.session import Session
from spuvm.runtime.oblivious import correlations, store
from spuvm.runtime.oblivious.plan import ahead
from spuvm.runtime.oblivious.store import CHUNK_BYTES, chunk_units, family_name
from spuvm.vm import VM

pytest.importorskip("rbcl")

NAMES = ("alice", "bob")
CONFIG = Config("semi2k_ot", parties=NAMES)
MUL = Family(Kind.MUL, 64)
DOT = Family(Kind.DOT, 64, (1, 2, 3, 2))
FAMILIES = [MUL, Family(Kind.AND, 8, (1,)), Family(Kind.TRUNC, 64, (18,)), DOT]


def both(function: Callable[[Session], Any], *folders: Path | None) -> list[Any]:
    """What a function of a session with these folders gives at both parties, or the errors there."""
    links = memory_links(NAMES, timeout=300)

    def run(link: MemoryLink) -> Any:
        session = None
        try:
            session = Session(CONFIG, link.rank, link, stored=folders[link.rank] if folders else None)
            return function(session)
        except (SpuError, Killed) as error:
            link.abort(error)
            return error
        finally:
            if session is not None:
                session.close_store()

    threads = [ThreadPoolExecutor(1, f"party_{rank}") for rank in (0, 1)]
    try:
        return [f.result() for f in [t.submit(run, link) for t, link in zip(threads, links)]]
    finally:
        for t in threads:
            t.shutdown()


def sent_by(session: Session) -> int:
    assert session.link is not None
    return sum(session.link.counters.bytes_sent.values())


def made(units: int, *families: Family) -> Callable[[Session], Any]:
    wanted = dict.fromkeys(families or FAMILIES, units)
    return lambda session: session.make_ahead(wanted, dict.fromkeys(wanted, 64))


def taken(session: Session, family: Family, units: int) -> list[Any]:
    """Words of each component of a party, as a piece of a program draws them; and the bytes that were sent."""
    assert session.party is not None
    streams, draws = session._streams, family.draws(units)
    streams.link, before = session.link, sent_by(session)
    start = streams.advance(draws)
    out = []
    for c in range(family.components):
        name = family.holders(session.party, c)
        raw = np.empty(units * family.unit_bytes(c), np.uint8)
        streams.stream(name).fill(raw, start[name])
        words = raw.view(family.dtype).astype(np.uint64)
        out.append(words.reshape(units, -1)[:, : family.units[c]].reshape(-1) if family is DOT else words)
    return [out, sent_by(session) - before]


def right(family: Family, parts: list[Any]) -> None:
    n = {Kind.TRUNC: 1}.get(family.kind, 2)
    units = len(parts[0][0]) // family.units[0]
    for unit in range(units if family is DOT else 1):
        cut = [[w[unit * s : (unit + 1) * s] if family is DOT else w for w, s in zip(p, family.units)] for p in parts]
        for i, value in enumerate(correlations.combined(family, [p[:n] for p in cut])):
            a, b = (p[n + i] for p in cut)
            mask = np.uint64(1 if family.kind is Kind.AND else 2**64 - 1)
            np.testing.assert_array_equal((a ^ b if family.kind is Kind.AND else a + b) & mask, value & mask)


def draws_of_two(folders: tuple[Path, Path], units: int) -> list[tuple[Any, Any]]:
    """Of each family both parties' words, and the bytes that they sent: a session."""
    first, second = both(lambda session: [taken(session, f, units) for f in FAMILIES], *folders)
    return [((a, b), (m, n)) for (a, m), (b, n) in zip(first, second)]


def test_what_is_stored_is_taken_once_and_the_rest_is_made(tmp_path: Path) -> None:
    """128 units ahead in chunks of 64; draws of 64 and then of 128 take 64 and 64, and make 64. Bytes as predicted."""
    folders = (tmp_path, tmp_path)

    def first(session: Session) -> int:
        made(128)(session)
        return sent_by(session)

    assert both(first, *folders) == list(ahead(dict.fromkeys(FAMILIES, 64), dict.fromkeys(FAMILIES, 128))[1])
    early, late = draws_of_two(folders, 64), draws_of_two(folders, 128)
    for family, (words, sent), (others, rest) in zip(FAMILIES, early, late):
        right(family, list(words))
        right(family, list(others))
        assert sent == (0, 0) and sum(rest) > 0
        if family is MUL:
            assert len(np.unique(np.concatenate([words[0][0], others[0][0]]))) == 64 + 128
    assert sorted(p.name.partition("-")[0] for p in (tmp_path / "alice").iterdir()) == [
        "ledger",
        "lock",
        "made",
        "mark",
    ]


def test_what_one_party_alone_took_is_lost_to_both(tmp_path: Path) -> None:
    """alice is ended after she took a chunk, and bob before: the next session begins behind it."""
    both(made(192, MUL), tmp_path, tmp_path)

    def cut(session: Session) -> None:
        if session.party == 0:
            store = session._streams._made.store  # type: ignore[union-attr]
            store.take({MUL: 64})  # type: ignore[union-attr]

    both(cut, tmp_path, tmp_path)
    words = both(lambda s: taken(s, MUL, 64), tmp_path, tmp_path)
    right(MUL, [w for w, _ in words])
    assert [n for _, n in words] == [0, 0]
    assert len(list((tmp_path / "bob").glob("mul-64.*"))) == 1


class Killed(BaseException):
    """What no handler of errors sees."""


@pytest.mark.parametrize("party", [0, 1])
def test_a_party_that_is_killed_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, party: int) -> None:
    """At each flush to the disk in turn, until a session has none left: no word is used twice, and all are right."""
    both(made(64 * 24, MUL), tmp_path, tmp_path)
    flush, seen, at = os.fsync, [0], [-1]

    def killing(descriptor: int) -> None:
        if threading.current_thread().name == f"party_{party}_0":
            seen[0] += 1
            if seen[0] == at[0] + 1:
                raise Killed
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", killing)
    used: list[Any] = []
    for step in range(20):
        seen[0], at[0] = 0, step
        found = both(lambda s: taken(s, MUL, 64), tmp_path, tmp_path)
        reached, at[0] = seen[0], -1
        whole = both(lambda s: taken(s, MUL, 64), tmp_path, tmp_path)
        right(MUL, [words for words, _ in whole])
        assert [n for _, n in whole] == [0, 0]
        used += [one[0][0] for one in (*found, *whole) if isinstance(one, list)]
        if reached <= step:
            break
    assert isinstance(found[party], list) and step > 4
    assert len(np.unique(np.concatenate(used))) == 64 * len(used)


def used_and_put_back(folder: Path, party: str, over: bool = False) -> None:
    """A party's folder is that of before two sessions."""
    both(made(256, MUL), folder, folder)
    shutil.copytree(folder / party, folder / "backup")
    for _ in range(2):
        both(lambda s: taken(s, MUL, 64), folder, folder)
    if not over:
        shutil.rmtree(folder / party)
    for path in (folder / "backup").iterdir():
        copy = folder / party / path.name
        copy.parent.mkdir(exist_ok=True)
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            shutil.copy2(path, copy)


@pytest.mark.parametrize("party", NAMES)
@pytest.mark.parametrize("over", [False, True])
def test_a_backup_that_was_put_back_is_noticed(tmp_path: Path, party: str, over: bool) -> None:
    """In place of the folder, or over what differs, as rsync does."""
    used_and_put_back(tmp_path, party, over)
    found = both(lambda s: taken(s, MUL, 64), tmp_path, tmp_path)
    mine = found[NAMES.index(party)]
    assert isinstance(mine, InputError)
    assert "was copied, or put back from a backup" in str(mine)
    assert isinstance(found[1 - NAMES.index(party)], SpuError)


def test_the_other_party_notices_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system makes copies that look like their originals (snapshots do)."""
    monkeypatch.setattr(store, "_place", lambda file: [0, 0])
    used_and_put_back(tmp_path, "bob")
    for error in both(lambda s: taken(s, MUL, 64), tmp_path, tmp_path):
        assert isinstance(error, PeerMismatchError)
        assert "the stored randomness of bob was used up further" in str(error)
    assert not isinstance(both(lambda s: taken(s, MUL, 64), *(tmp_path / new for new in "ab")), SpuError)


def broken(folder: Path, how: str) -> tuple[Path, Path]:
    """Folders of which something is wrong."""
    both(made(64, MUL), folder, folder)
    chunk = folder / "bob" / "mul-64.0"
    match how:
        case "damaged":
            raw = bytearray(chunk.read_bytes())
            raw[100] ^= 1
            chunk.write_bytes(bytes(raw))
        case "cut":
            chunk.write_bytes(chunk.read_bytes()[:-8])
        case "missing":
            both(made(64, MUL), folder, folder)
            chunk.unlink()
        case "gone":
            shutil.rmtree(folder / "bob")
        case "not made together":
            both(made(64, MUL), folder / "other", folder / "other")
            return folder, folder / "other"
        case "without ledger":
            (folder / "bob" / "ledger").unlink()
        case "garbled":
            (folder / "bob" / "made").write_bytes(b"\xff")
        case "without end":
            (folder / "bob" / "ledger").write_bytes(b"[" * 100_000)
        case "of three":
            (folder / "bob" / "made").write_text('{"format": 1, "parties": ["alice", "bob", "carol"], "id": ""}')
        case "without mark":
            (folder / "bob" / "ledger").write_text('{"next": {}, "before": {}, "mark": 1}')
        case "others":
            (folder / "bob").rename(folder / "carol")
            (folder / "alice").rename(folder / "bob")
        case "no folder":
            shutil.rmtree(folder / "bob")
            (folder / "bob").touch()
    return folder, folder


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("damaged", "mul-64.0 is damaged"),
        ("cut", "mul-64.0 is damaged"),
        ("missing", "mul-64.0 is missing"),
        ("gone", "alice has stored randomness, bob none that belongs to it"),
        ("not made together", "was not made together"),
        ("without ledger", "ledger is missing or damaged"),
        ("garbled", "made is missing or damaged"),
        ("without end", "ledger is missing or damaged"),
        ("of three", "made is missing or damaged"),
        ("without mark", "ledger is missing or damaged"),
        ("others", "holds randomness of alice with bob, and this is bob with alice"),
        ("no folder", "randomness cannot be stored in"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, how: str, says: str) -> None:
    found = both(lambda s: taken(s, MUL, 64), *broken(tmp_path, how))
    assert isinstance(found[1], SpuError)
    assert says in str(found[1])
    early = how in ("damaged", "cut", "missing")  # seen when it is read: alice hears of it at the next exchange
    assert early or isinstance(found[0], SpuError)


def test_one_party_without_a_folder_and_one_session_at_a_time(tmp_path: Path) -> None:
    for error in both(lambda s: taken(s, MUL, 64), tmp_path, None):
        assert isinstance(error, PeerMismatchError)
        assert "stored randomness" in str(error)

    def another(session: Session) -> Any:
        return both(made(64, MUL), tmp_path, tmp_path) if session.party == 0 else None

    found, _ = both(another, tmp_path, tmp_path)
    assert any("is in use by another session" in str(error) for error in found)


@pytest.mark.parametrize("at", ["folder", "none"])
def test_programs_take_what_was_made_ahead(tmp_path: Path, at: str) -> None:
    """Two runs prepared: both send what is online; a third makes what it needs."""
    x, y = np.array([1.5, -2.25, 0.5], np.float32), np.array([0.75, 4.0, 1.0], np.float32)

    def run(session: Session) -> list[Any]:
        vm = VM(session)
        program = Jitted(lambda x, y: spu.reveal((x * y, x < y, jnp.outer(x, y))), vm).compile(
            *map(spu.private, (x, y), NAMES)
        )
        program.party(session.party).prepare()
        given = [value if rank == session.party else None for rank, value in enumerate((x, y))]
        prepared, sent = vm.prepare(program, 2), [sent_by(session)]
        assert sent[0] == prepared.bytes_sent[session.party]  # type: ignore[index]
        for _ in range(3):
            values = [np.asarray(o.known_value()) for o in vm.run(program, given)]
            sent.append(sent_by(session))
        (_, online), (_, offline) = program.cost.online, program.cost.offline
        assert np.diff(sent).tolist() == [online[session.party]] * 2 + [online[session.party] + offline[session.party]]
        assert session.within.sent[session.party] == offline[session.party]  # type: ignore[index]
        after = program.cost.after(*session.within)
        assert np.array_equal(after.bytes_sent, program.cost.bytes_sent)
        assert np.array_equal(after.party_rounds, program.cost.party_rounds)
        return values

    folders = (tmp_path, tmp_path) if at == "folder" else ()
    for values in both(run, *folders):
        for got, want in zip(values, (x * y, x < y, np.outer(x, y)), strict=True):
            assert np.abs(np.float64(got) - np.float64(want)).max() < 1e-4


def test_a_folder_that_one_party_alone_has_begun(tmp_path: Path) -> None:
    """The other was killed at its first flush, or began another: nothing was made yet."""
    both(lambda session: None, tmp_path, tmp_path)
    shutil.rmtree(tmp_path / "bob")
    both(made(64, MUL), tmp_path, tmp_path)
    right(MUL, [words for words, _ in both(lambda s: taken(s, MUL, 64), tmp_path, tmp_path)])


DRAWN, SAYS = "0" * 32, "what cannot be: it runs another version"
LEDGERS: dict[str, Any] = {"id": "", "drawn": DRAWN, "next": {}, "before": {}, "end": {}}
ODD: list[dict[str, Any]] = [
    {"drawn": "\ud800" * 32},
    {"drawn": DRAWN + "0"},
    {"id": "1"},
    {"id": None},
    {"next": []},
    {"next": {"mul-64": -1}},
    {"end": {"mul-64": 1 << 60}},
    {"before": {"mul-64": True}},
]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        *(json.dumps(LEDGERS | odd).encode() for odd in ODD),
        bytes(store.LONGEST + 1),
    ],
    ids=lambda said: said[:30],
)
def test_what_a_peer_cannot_say_of_its_folder(tmp_path: Path, said: bytes) -> None:
    answers = iter([len(said).to_bytes(8, "little"), said])
    with pytest.raises(PeerMismatchError, match=SAYS):
        store.opened(tmp_path, NAMES, True, lambda body, size: next(answers))
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def test_chunks_are_bounded() -> None:
    for family in FAMILIES:
        size = sum(map(family.unit_bytes, range(family.components)))
        assert chunk_units(family, 1 << 40) * size <= CHUNK_BYTES
        assert chunk_units(family, 3) in (3, 64)
    assert family_name(DOT) == "dot-64-1-2-3-2"


def test_who_can_make_ahead(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`stored` keeps what two parties make"):
        Session(Config("aby3"), stored=tmp_path)
    spu.init(parties=NAMES, address="local")
    try:
        device = spu.SPU(spu.utils.testing.cluster_def(NAMES), stored=tmp_path)
        program = device(lambda x: x * x).compile(np.float32(2))
        assert device.prepare(program, 3).runs == 3  # nothing, in a simulation
        assert not any(tmp_path.iterdir())
        with pytest.raises(ConfigError, match="`runs` must be a number of runs"):
            device.prepare(program, 0)
        with pytest.raises(ConfigError, match="it is said once, at the first"):
            spu.SPU(spu.utils.testing.cluster_def(NAMES), stored=tmp_path / "other")
        dealt = spu.SPU(spu.utils.testing.cluster_def(NAMES), preprocessing="dealer")
        with pytest.raises(ConfigError, match="nothing is made ahead under protocol 'semi2k'"):
            dealt.prepare(program)
    finally:
        spu.shutdown()


def test_processes_of_one_command_make_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dot.py").write_text("def dot(x, y):\n    return (x * y).sum()\n")
    (tmp_path / "a.csv").write_text("a\n1\n2\n")
    line = [
        *("run", f"{tmp_path}/dot.py:dot", "--input", f"x={tmp_path}/a.csv:a@alice", "--input"),
        *(f"y={tmp_path}/a.csv:a@bob", "--parties", "alice,bob", "--protocol", "semi2k_ot", "--reveal", "all"),
    ]
    started: list[dict[str, list[str]]] = []
    monkeypatch.setattr("spuvm.commands.run.run_together", lambda commands, show: started.append(commands))
    assert cli.run([*line, "--network", "--stored", str(tmp_path / "s"), "--prepare", "3"]) == 0
    (commands,) = started
    for party in NAMES:
        assert " ".join(commands[party]).endswith(f"--as {party} --timeout 60.0 --stored {tmp_path}/s --prepare 3")
    for more, says in (
        (["--stored", "s"], "give `--network`, too"),
        (["--network", "--prepare", "3"], "takes `--stored FOLDER`, and no outputs"),
        (["--network", "--stored", "s", "--protocol", "semi2k"], "protocol 'semi2k' makes none"),
    ):
        assert cli.run([*line, *more]) == 2 and says in capsys.readouterr().err
    assert len(started) == 1
