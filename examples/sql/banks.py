"""Two banks and a registry: five questions, and what each party may know. `python examples/sql/banks.py`.

alice and bob are banks; carol keeps the registry of companies and asks. Each owner's rules are in `policy.toml`.
Simulated in this process; in a network each party runs the same script after
`spu.init(party=..., config="cluster.toml")`.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import spuvm as spu
from spuvm.runtime.errors import PolicyError

HERE = Path(__file__).parent
FIRMS = [f"firm {n:02}" for n in range(12)]
ALICE = {
    "firm": FIRMS[:9] + FIRMS[:5],
    "loan": [Decimal(10_000 + 1_250 * n) for n in range(14)],
    "days_late": [0, 3, 0, 45, 0, 0, 91, 2, 0, 0, 120, 0, 60, 0],
}
BOB = {"company": FIRMS[3:] * 2, "balance": [Decimal(500 * n + 100) for n in range(18)]}
CAROL = {"name": FIRMS, "sector": ["steel", "retail", "steel", "food"] * 3, "founded": list(range(1990, 2002))}

BY_SECTOR = "group by sector order by sector"
QUESTIONS = [
    f"select sector, count(*) loans, sum(loan) lent from loans join registry on firm = name {BY_SECTOR}",
    f"select sector, avg(balance) average from accounts join registry on company = name {BY_SECTOR}",
    f"select sector, sum(loan) late from loans join registry on firm = name where days_late > 0 {BY_SECTOR}",
    "select count(*) loans, avg(loan) average from loans where firm in (select company from accounts)",
    "select founded > 1995 young, avg(days_late) late from loans join registry on firm = name group by 1 order by 1",
]
FORBIDDEN = "select firm, loan from loans where days_late > 90"


def connect() -> spu.sql.Database:
    """The three parties' tables under their rules."""
    spu.init(parties=["alice", "bob", "carol"], address="local")
    return spu.sql.connect(
        {
            "alice": {"loans": ALICE},
            "bob": {"accounts": BOB},
            "carol": {"registry": {"source": CAROL, "key": "name"}},
        },
        policy=HERE / "policy.toml",
    )


def main() -> None:
    db = connect()
    for number, question in enumerate(QUESTIONS, 1):
        explained = db.explain(question, to="carol", cost=False)
        print(f"\n{number}. {question}")
        if not explained.allowed:
            print("   refused:", *explained.refusals, sep="\n   ")
            continue
        result = db.sql(question, to="carol")
        print(result)
        print("  ", *result.reveals)
    try:
        db.sql(FORBIDDEN, to="carol")
    except PolicyError as error:
        print(f"\n{FORBIDDEN}\n   {error}")
    (HERE / "plan.svg").write_text(db.explain(QUESTIONS[0], to="carol", cost=False).picture())


if __name__ == "__main__":
    main()
