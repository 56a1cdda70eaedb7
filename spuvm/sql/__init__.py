"""SQL over several parties' tables: in, queries and what each owner allows; out, rows at the party that asked.

    db = spu.sql.connect({"alice": {"orders": "orders.parquet"}, "bob": {"payments": frame}}, policy="policy.toml")
    db.sql("select region, sum(p.amount) from orders o join payments p on o.id = p.order_id group by region",
    to="carol") db.explain("...")        # the plan, its cost, what anybody learns, and whether the owners allow it:
    nothing runs

The files, in the order that a query passes: `sources` and `catalog` (what there is), `parsing`, `binding` (names and
types), `plan` (the relational IR) and `planning` (joins, subqueries), `policy`, `machine` (the plan as a JAX
function, of `columns`, `lookups`, `groups`, `windows`), `database` and `results`.
"""

from spuvm.sql.database import Database as Database
from spuvm.sql.database import connect as connect
from spuvm.sql.shares import load_rows as load_rows
