"""`spuvm audit` on records that their own party wrote to mislead: signed, chained, and not what a service writes."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spuvm.cli import run as spuvm
from spuvm.policy.record import START, Record
from spuvm.runtime.errors import ConfigError, DataError, InputError
from spuvm.runtime.link.certificates import make_cluster
from spuvm.service import identity

JOB, PROGRAM = "3f2a" * 6, "ab" * 32
COUNTED = {"rounds": 3, "sent": {"bob": 24}, "received": {"bob": 24}}
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("asked", {"job": JOB, "program": PROGRAM, "by": "ann", "requester": "alice"}),
    ("decided", {"job": JOB, "state": "approved", "rule": 1, "reasons": ["why"], "policy": "cd" * 32}),
    ("approved", {"job": JOB, "program": PROGRAM, "user": "ann"}),
    (
        "started",
        {
            "job": JOB,
            "program": PROGRAM,
            "attempt": 0,
            "parties": ["alice", "bob"],
            "reveals": [["total", "alice", 1], ["rows", "all", None]],
            "versions": {"spuvm": "0.2"},
        },
    ),
    ("inputs", {"job": JOB, "attempt": 0, "commitments": {"x": "ef" * 32}}),
    ("interrupted", {"job": JOB, "attempt": 0, "reason": "bob was lost"}),
    ("ended", {"job": JOB, "state": "done", "reason": "", "counted": COUNTED}),
    ("ended", {"job": "older", "state": "done", "reason": "", "counted": {"ran": {"rounds": 1, "bytes_sent": 2}}}),
    ("turned away", {"who": "mallory", "why": "a token"}),
    ("alert", {"what": "the record of bob has gone back"}),
]
ODD: tuple[Any, ...] = (
    None, True, -1, 1 << 70, 1e300, "", "\x1b[2J\n", "\ud800", [], [[]], [1, 2, 3], {}, {"": {}}, {"rounds": "3"},
    {"ran": {}}, {"bob": "x"}, [["a", "b", "c"]],
)  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cluster(tmp_path_factory.mktemp("keys"), ("alice", "bob")).parent


class Liar(Record):
    """Signs whatever it is given."""

    def __init__(self, path: Path, key: Path) -> None:
        path.unlink(missing_ok=True)
        super().__init__(path, "alice", identity.load_key(key))

    def write(self, events: list[tuple[Any, Any]]) -> str:
        self.path.unlink(missing_ok=True)
        self.number, self.head = 0, START
        for event, body in events:
            self.append(event, **body)
        return str(self.path)


def commands(record: str, folder: Path) -> Iterator[list[str]]:
    told = f"alice={record},{folder / 'alice.crt'}"
    salts = folder / "salts.json"
    salts.write_text(json.dumps({"x": "00" * 32}))
    yield ["audit", "verify", told]
    yield ["audit", "report", told, "-o", str(folder / "report.html")]
    yield ["audit", "export", told, "--as", "syslog"]
    yield ["audit", "inputs", told, JOB[:6], f"x={salts}", "--salts", str(salts)]


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """The paths to all that is within a body."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (key,)
        yield from ((key, *rest) for rest in places(inner))


def with_odd(body: dict[str, Any], path: tuple[Any, ...], odd: Any) -> dict[str, Any]:
    made = copy.deepcopy(body)
    inner: Any = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return made


def test_every_field_of_every_entry_odd(keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(keys / "alice.crt", tmp_path)
    liar = Liar(tmp_path / "record.jsonl", keys / "alice.key")
    statuses = set()
    tries = [(i, path, odd) for i, (_, body) in enumerate(EVENTS) for path in places(body) for odd in ODD]
    for n, (i, path, odd) in enumerate(tries[::3]):  # a prime number of odd values: each place gets several
        event, body = EVENTS[i]
        record = liar.write([*EVENTS[:i], (event, with_odd(body, path, odd)), *EVENTS[i + 1 :]])
        todo = list(commands(record, tmp_path))
        (tmp_path / "report.html").unlink(missing_ok=True)
        for command in [todo[0], todo[1 + n % 3]]:
            status = spuvm(command)
            out, err = capsys.readouterr()
            assert status in (0, DataError.exit_status, InputError.exit_status), (event, path, odd, err)
            assert "mistake inside" not in err and "\x1b" not in out + err, (event, path, odd, err)
            statuses.add(status)
    assert {0, DataError.exit_status} <= statuses


def test_entries_that_are_none(keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(keys / "alice.crt", tmp_path)
    liar = Liar(tmp_path / "record.jsonl", keys / "alice.key")
    for name, body in EVENTS[:7]:
        for field in {"job", "reveals", "parties", "commitments", "state", "reason"} & body.keys():
            record = liar.write([(name, {k: v for k, v in body.items() if k != field})])
            assert spuvm(next(commands(record, tmp_path))) == DataError.exit_status
            assert f"line 1: '{name}' lacks `{field}`" in capsys.readouterr().err
    for event in ("", "x\n<13>1 y", "e\u00fc", 5, None, ["asked"]):
        assert spuvm(next(commands(liar.write([(event, {})]), tmp_path))) == DataError.exit_status
        assert "line 1: its event is" in capsys.readouterr().err
    path = tmp_path / "record.jsonl"
    deep, odd = b"[" * 100_000 + b"\n", b'{"hash": 1, "signature": "zz"}\n'
    for line in (b"[]\n", b"5\n", b"{}\n", deep, b"\xff\n", odd, b"\n"):
        path.write_bytes(line)
        assert spuvm(next(commands(str(path), tmp_path))) == DataError.exit_status
        assert f"{path}, line 1: " in capsys.readouterr().err
    assert spuvm(next(commands(liar.write([("later", {"what": [1]})]), tmp_path))) == 0  # of a version to come


def test_whose_record_it_is(keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    liar = Liar(tmp_path / "record.jsonl", keys / "alice.key")
    told = f"{liar.write(EVENTS[:1])},{keys / 'alice.crt'}"
    assert spuvm(["audit", "verify", f"bob={told}"]) == DataError.exit_status
    assert "it is of the record of 'alice', not of bob" in capsys.readouterr().err
    assert spuvm(["audit", "verify", f"alice={told}", f"alice={told}"]) == InputError.exit_status
    assert spuvm(["audit", "verify", f"alice={liar.path},{keys / 'bob.crt'}"]) == DataError.exit_status
    assert "not signed by this party" in capsys.readouterr().err
    assert spuvm(["audit", "verify", f"alice={liar.path},{keys / 'alice.key'}"]) == ConfigError.exit_status
