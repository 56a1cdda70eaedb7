"""Tables that several parties hold together: a public schema, and values that stay at their owners.

    frame = spu.data.vertical({"alice": "alice.parquet", "bob": table}, key="id")   # columns of the same rows
    frame = spu.data.horizontal({"alice": "alice.csv", "bob": "bob.csv"})           # rows of the same columns

    frame.schema, .columns, .columns_of("bob"), .parties, .rows, .kind              # public
    frame[["age", "bmi"]], frame.drop("ill"), frame.take(rows)                      # frames
    train, test = frame.split(test_size=0.25, seed=0)
    frame["ill"]                                                                    # a Series
    frame.at("bob"), frame["ill"].at("bob")                                         # PYUObjects at bob
    device(lambda t: t["age"].mean())(frame), frame["age"].to(device)               # SPUObjects: a frame's columns

`frame.at(party)` is that party's float64[rows, columns] in the order of `columns_of(party)`: missing cells
are NaN, categories their codes. `schema.columns` say name, owner, type and whether cells may be missing.
A learner keeps `schema.columns` and `categories(party)`, and brings later data into the same form with
`frame.conform(columns, categories)`.
"""

from spuvm.data.build import horizontal as horizontal
from spuvm.data.build import vertical as vertical
from spuvm.data.frame import Frame as Frame
from spuvm.data.frame import Series as Series
from spuvm.data.schema import Column as Column
from spuvm.data.schema import Schema as Schema
