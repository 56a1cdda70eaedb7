"""Files of parties with one value wrong in turn: accepted, or one clear error that names the file and the line."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from spuvm.flow import files as flows
from spuvm.flow import grants
from spuvm.policy.rules import load_rules
from spuvm.runtime.errors import ConfigError, SpuError
from spuvm.runtime.link import certificates
from spuvm.runtime.link.certificates import make_authority
from spuvm.runtime.link.cluster import load_cluster
from spuvm.runtime.located import line_of, located
from spuvm.service import identity, serve, settings
from spuvm.sql.policy import owner_policy, section

PARTIES = ("alice", "bob", "carol")
RULE = 'from = ["a"]\nprograms = ["any"]\nreceivers = ["a"]\n'
BAD: tuple[Any, ...] = (
    True,
    -1,
    float("nan"),
    1 << 70,
    "",
    "\x1b[2J",
    "a\0b",
    "../x",
    "x" * 5000,
    [],
    [1],
    {},
    {"a": 1},
    date(2020, 1, 1),
)
SERVICE = {
    **{"party": "alice", "listen": "127.0.0.1:9443", "page": "127.0.0.1:8443", "state": "state"},
    **{"policy": "policy.toml", "ca": "ca.crt", "certificate": "alice.crt", "key": "alice.key", "compress": True},
    **{"sql_policy": "sql.toml", "crl": "ca.crl", "relay": "relay:9700", "data": {"patients": "t.csv"}},
    **{"services": {"alice": "a:1", "bob": "b:2", "carol": "outward"}, "rates": {"carol": "50Mbit"}},
    "limits": {**dict.fromkeys(settings.LIMITS, 2), "job_memory_mb": 300},
    "retention": {"results_days": 30, "models_days": 365},
}
CLUSTER = {
    **{"ca": "ca.crt", "crl": "ca.crl", "timeout_seconds": 60, "grace_seconds": 20, "protocol": "aby3"},
    **{"protocols": ["aby3"], "ring": 64, "fxp_fraction_bits": 18, "truncation": "exact", "optimize": "auto"},
    **{"compute": list(PARTIES), "relay": "h:9700", "session": "t", "compress": True, "shared_rates": "rates"},
    "counts": "counts.jsonl",
    "parties": {p: {"address": f"{p}:1", "certificate": f"{p}.crt", "key": f"{p}.key"} for p in PARTIES},
}
POLICY = {
    "allow": [
        {
            **{"from": ["alice"], "programs": ["any"], "data": {"patients": ["age"]}, "receivers": ["alice"]},
            **{"min_rows": 20, "per_day": 10, "until": date(2027, 12, 31), "approval": "ask", "approvers": 1},
        }
    ]
}
GRANTS = {"grant": [{"flow": "any", "tables": {"loans": ["id"]}, "uses": ["read"], "until": date(2027, 12, 31)}]}
FLOW = {
    "name": "small",
    "parties": ["alice", "bob", "carol"],
    "nodes": {
        "a": {"component": "read", "party": "alice", "table": "t"},
        "b": {"component": "read", "party": "bob", "table": "t", "retries": 1},
        "c": {"component": "match", "tables": ["a", "b"], "key": "id"},
    },
    "outputs": {"rows": "c"},
}
SQL = {
    "alice": {
        **{"k": 2, "statistics": True, "templates": ["select 1"], "tripwire": "t"},
        "loans": {"unit": "id", "columns": {"x": "after_aggregate"}, "ranges": {"x": [0, 1]}},
    }
}


def cluster(path: Path) -> None:
    with located(path):
        load_cluster(path).credentials("alice")


def sql(path: Path) -> None:
    owner_policy("alice", section(path, "alice", ["alice"]))


FILES: dict[str, tuple[Any, Callable[[Path], Any]]] = {
    "service.toml": (SERVICE, settings.load),
    "cluster.toml": (CLUSTER, cluster),
    "rules.toml": (POLICY, load_rules),
    "grants.toml": (GRANTS, grants.load),
    "flow.toml": (FLOW, flows.load),
    "sqlpolicy.toml": (SQL, sql),
}


def value(x: Any) -> str:
    if isinstance(x, list):
        return f"[{', '.join(map(value, x))}]"
    if isinstance(x, dict):
        return f"{{ {', '.join(f'{json.dumps(k)} = {value(v)}' for k, v in x.items())} }}"
    return x.isoformat() if isinstance(x, date) else "nan" if x != x else json.dumps(x)


def places(body: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for k, v in body.items() if isinstance(body, dict) else enumerate(body):
        yield (*at, k)
        if isinstance(v, dict | list):
            yield from places(v, (*at, k))


def with_change(body: Any, at: tuple[Any, ...], new: Any) -> Any:
    """With another value there; with none, if `new` is None."""
    out = inner = copy.deepcopy(body)
    for k in at[:-1]:
        inner = inner[k]
    if new is None:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return out


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("home")
    make_authority(path / "authority")
    shutil.copy(path / "authority" / "ca.crt", path / "ca.crt")
    for party in PARTIES:
        key = identity.new_key(path, party)
        identity.write(path / f"{party}.crt", identity.sign(path / "authority", identity.request(key, party)))
    shutil.copy(identity.revoke(path / "authority", path / "carol.crt"), path / "ca.crl")
    for name in ("policy.toml", "sql.toml"):
        (path / name).write_text("")
    return path


@pytest.mark.parametrize("name", FILES)
def test_one_wrong_value_is_one_clear_error(home: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a certificate again and again is what takes time, so it is remembered here."""
    known: dict[Any, Any] = {}
    anchors = certificates.anchors
    monkeypatch.setattr(
        certificates, "anchors", lambda path: known[path] if path in known else known.setdefault(path, anchors(path))
    )
    body, read = FILES[name]
    path, refused = home / name, 0
    for at in [(), *places(body)]:
        for new in (None, *BAD) if at else (body,):
            changed = with_change(body, at, new) if at else body
            path.write_text("".join(f"{k} = {value(v)}\n" for k, v in changed.items()))
            try:
                read(path)
            except SpuError as error:
                said = str(error)
                assert at, said
                assert said.isprintable() and len(said) < 700, (at, new)
                assert name in said or f"{home}" in said, (at, new, said)
                refused += 1
    assert refused > 0.4 * len(BAD) * len(list(places(body)))


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("service.toml", 'party = "alice"\n# mine\nlisten = 3\n', 3),
        (
            "rules.toml",
            "[[allow]]\n" + 'from = ["a"]\nprograms = ["any"]\nreceivers = ["a"]\n\n[[allow]]\nfrom = 1\n',
            7,
        ),
        ("grants.toml", '[[grant]]\nflow = "any"\nuses = ["sgb"]\nuntil = "2027-12-31"\n', 4),
        ("grants.toml", '[[grant]]\nflow = "any"\nuses = ["sbg"]\nuntil = 2027-12-31\n', 3),
        ("flow.toml", 'name = "f"\n[nodes.a]\ncomponent = "red"\n', 2),
        ("flow.toml", 'name = "f"\n[nodes.a]\ncomponent = "read"\nparty = "p"\ntable = "t"\nextra = 1\n', 6),
        ("sqlpolicy.toml", "[alice]\nk = 2\n[alice.loans.columns]\nx = 3\n", 4),
        ("cluster.toml", 'ca = "ca.crt"\n[parties.alice]\naddress = "a:1"\n[parties.bob]\naddress = "b"\n', 5),
    ],
)
def test_the_line_is_said(home: Path, name: str, text: str, line: int) -> None:
    path = home / name
    path.write_text(text)
    with pytest.raises(SpuError, match=rf"{name}.*line {line}\)"):
        FILES[name][1](path)


def test_a_line_is_said_only_where_it_is_clear() -> None:
    text = "[a]\nx = 1\n[b]\nx = 2\n"
    assert line_of(text, "`x` is wrong") is None
    assert line_of(text, "`x` of [b] is wrong") == 4
    assert line_of(text, "[b] lacks `y`") == 3
    assert line_of(text, "nothing is named") is None


def test_what_a_service_will_refuse_is_said_at_its_start(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = home / "service.toml"
    path.write_text("".join(f"{k} = {value(v)}\n" for k, v in SERVICE.items()))
    rule = 'programs = ["any"]\nreceivers = ["alise"]\ndata = { patient = ["x"] }\n'
    (home / "policy.toml").write_text(f'[[allow]]\nfrom = ["alice"]\n{rule}')
    loaded = settings.load(path)
    with caplog.at_level(logging.WARNING, "spuvm.service"):
        serve._warn(loaded)
        (home / "policy.toml").write_text("[[allow]]\nfrom = 1\n")
        serve._warn(loaded)
    (home / "policy.toml").write_text("")
    for words in ("no file", "'alise', which there is not", "'patient', which there is not", "(line 2)"):
        assert words in caplog.text


def test_hosts() -> None:
    from spuvm.runtime.link.parties import parse_address

    for good in ("alice.example.com:1", "[::1]:2", "10.0.0.1:3", "a_b-c:4"):
        assert str(parse_address(good, "address", "f")) == good
    for bad in ("[::1:9", "a b:1", "a:b:1", "a/b:1", ":1", "[x]y:1", "a\n:1"):
        with pytest.raises(ConfigError):
            parse_address(bad, "address", "f")
