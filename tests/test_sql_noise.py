"""SQL with noise: near the truth of clipped cells, charged to the ledger first, refused where nothing bounds a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import three_owners

from spuvm.dp import Budget, Spent
from spuvm.runtime.errors import ConfigError, InputError, PolicyError
from spuvm.sql import Database, connect

N = 40
WARDS = [1] * 22 + [2] * 17 + [3]
BILLS = {"patient": list(range(N)), "amount": [*range(10, 10 + N - 1), 10**6], "note": [0.5] * N}
PATIENTS = {"id": list(range(N)), "ward": WARDS}
RULES = dict.fromkeys(BILLS, "plaintext")
parties, state = three_owners.parties, three_owners.state  # fixtures


def database(folder: Path, budget: float = 200.0, **settings: Any) -> tuple[Database, Budget]:
    """Bob's bills with noise; alice's patients, which everybody may see."""
    contributions = settings.get("contributions", 1)
    ledger = Budget(budget, 1e-3, contributions=contributions, path=folder / "bob")
    bob = {"epsilon": 60.0, "delta": 1e-6, **settings, "bills": {"columns": RULES, "ranges": {"amount": [0, 100]}}}
    policy: dict[str, Any] = {"alice": {"patients": {"columns": {"id": "plaintext", "ward": "plaintext"}}}, "bob": bob}
    tables: dict[str, Any] = {"alice": {"patients": {"source": PATIENTS, "key": "id"}}, "bob": {"bills": BILLS}}
    return connect(tables, policy, budget={"bob": ledger}), ledger


CLIPPED = np.clip(BILLS["amount"], 0, 100)
GROUPED = (
    "select ward, count(*) n, sum(amount) s, avg(amount) a from bills join patients on patient = id "
    "group by ward having count(*) > 1"
)


def test_groups_with_noise_are_charged_first(tmp_path: Path) -> None:
    db, ledger = database(tmp_path)
    explained = db.explain(GROUPED, "carol", cost=False)
    assert explained.allowed and "bob's ledger is charged epsilon 60" in str(explained)
    assert "with noise, epsilon 60, delta 1e-06" in db.plan(GROUPED, "carol").text
    assert ledger.uses == []
    rows = sorted(db.sql(GROUPED, "carol").rows())
    assert [r[0] for r in rows] == [1, 2]  # the third has one row
    for ward, n, total, average in rows:
        here = CLIPPED[np.array(WARDS) == ward]
        assert n == pytest.approx(len(here), abs=2)
        assert total == pytest.approx(here.sum(), abs=60)
        assert float(average) == pytest.approx(here.mean(), abs=6)
    (use,) = ledger.uses
    assert use.label.startswith("sql for carol: SELECT") and 55 < ledger.spent <= 60
    db.sql("select count(*) from bills where amount > 20", "carol")
    db.sql("select sum(amount) from bills", "carol")
    with pytest.raises(InputError, match="would spend"):
        db.sql("select count(*) from bills", "carol")
    assert len(ledger.uses) == 3
    assert db.sql("select max(amount) m from bills", "bob").rows() == [(100,)]  # an owner sees its own
    assert len(ledger.uses) == 3


def test_noise_is_what_it_claims(tmp_path: Path) -> None:
    """Of a sum over [0, 100]: scale 100 / epsilon, which 20 runs show within a factor."""
    db, ledger = database(tmp_path, budget=1e4, epsilon=2.0)
    found = np.array([db.sql("select sum(amount) from bills", "carol").rows()[0][0] for _ in range(20)], float)
    assert 12 < np.abs(found - CLIPPED.sum()).mean() < 130
    assert len(ledger.uses) == 20 and ledger.uses[0].spent == (Spent("laplace", 0.5),)


@pytest.mark.parametrize(
    ("sql", "match"),
    [
        ("select amount from bills", "with noise only"),
        ("select max(amount) from bills", "max has no bounded sensitivity"),
        ("select count(distinct amount) from bills", "count distinct"),
        ("select sum(note) from bills", "`ranges`"),
        ("select sum(amount * 2) from bills", "`ranges`"),
        ("select ward from patients where exists (select 1 from bills where patient = id)", "with noise only"),
        ("select count(*) from patients where exists (select 1 from bills where patient = id)", "repeat rows"),
        ("select count(*) from bills a join bills b on a.amount = b.amount", "repeat rows"),
        ("select count(*) from (select * from bills order by amount limit 3) t", "repeat rows"),
    ],
)
def test_queries_without_a_bound_are_refused(sql: str, match: str, tmp_path: Path) -> None:
    db, ledger = database(tmp_path)
    explained = db.explain(sql, "carol", cost=False, join_rows=99)
    assert [r.owner for r in explained.refusals] == ["bob"] * len(explained.refusals) and not explained.allowed
    with pytest.raises(PolicyError, match=match):
        db.sql(sql, "carol", join_rows=99)
    assert ledger.uses == []


def test_what_cannot_be_set(tmp_path: Path) -> None:
    db, _ = database(tmp_path, delta=0.0)
    with pytest.raises(PolicyError, match="needs `delta`"):
        db.sql(GROUPED, "carol")
    with pytest.raises(InputError, match="excludes `k`"):
        database(tmp_path, k=5)
    policy = {"bob": {"epsilon": 1.0, "bills": {"columns": RULES}}}
    with pytest.raises(ConfigError, match="give its ledger"):
        connect({"bob": {"bills": BILLS}}, policy)
    twice = Budget(1.0, contributions=2, path=tmp_path / "twice")
    with pytest.raises(ConfigError, match="state the same"):
        connect({"bob": {"bills": BILLS}}, policy, budget={"bob": twice})
    with pytest.raises(ConfigError, match="no `epsilon`"):
        connect({"bob": {"bills": BILLS}}, {"bob": {"bills": {"columns": RULES}}}, budget={"bob": twice})
    wrong = {"bob": {"epsilon": 1.0, "bills": {"ranges": {"amount": [5, 5]}}}}
    with pytest.raises(InputError, match="low below high"):
        connect({"bob": {"bills": BILLS}}, wrong, budget={"bob": twice})
