"""The shell of `spuvm sql`: what is typed is answered, and an error ends no session. DB-API as pandas uses it."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest
from click.testing import CliRunner

import spuvm as spu
from spuvm.commands.sql import sql
from spuvm.sql import dbapi

ORDERS = pandas.DataFrame({"id": [1, 2, 3], "price": [5, 6, 7]})


def test_what_is_typed_is_answered(tmp_path: Path) -> None:
    ORDERS.to_parquet(tmp_path / "orders.parquet")
    typed = (
        "\\h\n\\d\nselect nope from orders;\n\\to nobody\n\\to bob\nselect count(*)\nfrom orders;\n\\q\nselect id;\n",
        "\n\nselect 'left open'",
    )
    ran = [
        CliRunner().invoke(sql, ["--table", f"orders={tmp_path}/orders.parquet@alice"], input=lines) for lines in typed
    ]
    assert [r.exit_code for r in ran] == [0, 0], ran[0].output
    for said in (
        "end a query with `;`",
        "orders (3 rows at alice): id bigint, price bigint",
        "there is no column `nope`",
        "\\to nobody: it must be one of alice, bob, carol.",
        "COUNT(*)\n--------\n       3\n(1 row)",
    ):
        assert said in ran[0].output
    assert "(1 row)" not in ran[1].output


def test_cells_of_peers_move_no_terminal(tmp_path: Path) -> None:
    pandas.DataFrame({"name": ["\x1b[2Jann\u202e", "bob\nbill"]}).to_parquet(tmp_path / "names.parquet")
    line = ['select name, 1 as "\x1b[8m" from names order by name', "--table", f"names={tmp_path}/names.parquet@bob"]
    ran = CliRunner().invoke(sql, [*line, "--to", "alice"])
    assert ran.output.splitlines()[2:] == ["?[2Jann?     1", "bob?bill     1", "(2 rows)"]
    assert not set("\x1b\u202e") & set(ran.output)


@pytest.mark.filterwarnings("ignore:pandas only supports SQLAlchemy")
def test_pandas_reads_from_a_connection() -> None:
    spu.init(parties=("alice", "bob", "carol"), address="local")
    try:
        with dbapi.connect({"alice": {"orders": ORDERS}}, to="carol") as connection:
            found = pandas.read_sql(
                "select id, price * 2 twice from orders where price > ? order by id", connection, params=(5,)
            )
    finally:
        spu.shutdown()
    assert found.to_dict("list") == {"id": [2, 3], "twice": [12, 14]}
