"""Joins of tables of several owners: in, files and key columns; out, the rows that match, to those who may see them.

table = spu.psi.join({"alice": "a.parquet", "bob": "b.csv"}, key=["name", "born"], how="left", output="shared")
table.columns, table.valid, table.present, table.matched      # secrets [rows]; nobody learns which rows match
"""

from typing import TYPE_CHECKING

from spuvm.runtime.later import later

if TYPE_CHECKING:
    from spuvm.psi.api import count as count
    from spuvm.psi.api import difference as difference
    from spuvm.psi.api import intersect as intersect
    from spuvm.psi.api import join as join
    from spuvm.psi.api import sum as sum
    from spuvm.psi.api import union as union
    from spuvm.psi.frames import inner as inner
    from spuvm.psi.guard import Guard as Guard
    from spuvm.psi.linkage import Linked as Linked
    from spuvm.psi.linkage import link as link
    from spuvm.psi.shared import SharedTable as SharedTable

NAMES = {
    "count": "spuvm.psi.api:count",
    "difference": "spuvm.psi.api:difference",
    "intersect": "spuvm.psi.api:intersect",
    "join": "spuvm.psi.api:join",
    "sum": "spuvm.psi.api:sum",
    "union": "spuvm.psi.api:union",
    "inner": "spuvm.psi.frames:inner",
    "Guard": "spuvm.psi.guard:Guard",
    "Linked": "spuvm.psi.linkage:Linked",
    "link": "spuvm.psi.linkage:link",
    "SharedTable": "spuvm.psi.shared:SharedTable",
}

__getattr__, __dir__ = later(__name__, NAMES)
