"""Tables in a real Postgres server, which the test starts in a folder of its own where one is installed."""

from __future__ import annotations

import datetime as dt
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import spuvm as spu
from spuvm.runtime.errors import InputError
from spuvm.sql import connect
from spuvm.sql.in_the_clear import evaluate

psycopg = pytest.importorskip("psycopg")

MADE = """
create table orders (
  id integer primary key, region text, price numeric(9,2), day date, at timestamp, weight double precision, paid boolean
);
insert into orders values
  (1, 'north', 10.50, '2024-01-02', '2024-01-02 10:00:00', 0.5, true),
  (2, 'south', null, '2024-02-03', '2024-02-03 11:30:00', 1.5, false),
  (3, null, -3.25, null, null, null, null);
create table nothing (id integer primary key, name varchar(20), day date);
"""


def _tool(name: str) -> str:
    found = shutil.which(name) or next((str(p) for p in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    if found is None:
        pytest.skip(f"there is no Postgres here: {name}")
    return found


def _as_postgres(*command: str) -> None:
    """The server refuses to run as root."""
    if os.getuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("there is no user that Postgres could run as")
    wrapped = ["runuser", "-u", "postgres", "--", *command] if os.getuid() == 0 else list(command)
    subprocess.run(wrapped, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=240)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server on a socket in its own folder; the URL of its database."""
    initdb, control = _tool("initdb"), _tool("pg_ctl")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path is short
    folder.chmod(0o777)  # for the server's user
    data = folder / "data"
    try:
        _as_postgres(initdb, "-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync")
        asked = f"-k {folder} -c listen_addresses='' -c fsync=off"
        _as_postgres(control, "-D", str(data), "-w", "-t", "200", "-o", asked, "-l", str(folder / "log"), "start")
        url = f"postgresql://postgres@/postgres?host={folder}"
        try:
            with psycopg.connect(url, connect_timeout=10) as db:
                db.execute(MADE)
            yield url
        finally:
            _as_postgres(control, "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _devices() -> Iterator[None]:
    spu.init(parties=("alice", "bob", "carol"), address="local")
    yield
    spu.shutdown()


def test_tables_of_a_postgres_server(server: str) -> None:
    """Types, NULLs and keys are the server's; of an empty table too."""
    regions = {"name": ["north", "south"], "head": ["Ada", "Bob"]}
    db = connect(
        {"alice": {"orders": server, "o2": f"{server}&table=orders", "nothing": server}, "bob": {"r": regions}}
    )
    assert db.catalog["orders"].keys == db.catalog["o2"].keys and frozenset({"id"}) in db.catalog["orders"].keys
    kinds = {c.name: c.type.kind for c in db.catalog["orders"].columns}
    assert kinds == dict(zip(kinds, ("int", "text", "decimal", "date", "timestamp", "float", "bool")))
    assert [c.type.kind for c in db.catalog["nothing"].columns] == ["int", "text", "date"]
    sql = (
        "select head, sum(price), max(at), max(day) from orders join r on region = name where paid is not null "
        "group by head"
    )
    got: Any = sorted(evaluate(db, sql, "carol"))
    assert got == [
        ("Ada", Decimal("10.50"), dt.datetime(2024, 1, 2, 10), dt.date(2024, 1, 2)),
        ("Bob", None, dt.datetime(2024, 2, 3, 11, 30), dt.date(2024, 2, 3)),
    ]


def test_a_table_or_server_that_is_not_there(server: str) -> None:
    with pytest.raises(InputError, match="table `missing` of alice cannot be read: relation"):
        connect({"alice": {"missing": server}})
    with pytest.raises(InputError, match="table `orders` of alice cannot be read: connection") as error:
        connect({"alice": {"orders": server.replace("postgres@", "postgres:hidden@") + "/gone"}})
    assert "hidden" not in str(error.value)
