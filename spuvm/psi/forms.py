"""The forms of what parties say openly in a join: what a peer says is of the form that is due, or refused."""

from __future__ import annotations

from typing import Any

from spuvm.psi.keys import KINDS
from spuvm.psi.raw import is_kind, is_raw

LARGEST = 1 << 48
DTYPES = ("bool", "category", "int32", "int64", "float32", "float64", "raw", None)  # None: no sharing holds its type

# A form: int (0 to 2^48), str or bool; [form] for any number of them; {name: form}; Any.
TABLE: dict[str, Any] = {
    "rows": int, "kinds": [str], "unique": bool, "columns": [Any], "keys": [Any], "dropped": [str],
}  # fmt: skip
FILE: dict[str, Any] = {"rows": int, "kinds": [str], "run": str, "finished": [int]}
BROUGHT: dict[str, Any] = {"key": [str], "kinds": [str], "rows": int, "output": bool}


def fits(form: Any, value: Any) -> bool:
    """Whether a value that JSON gave is of the form."""
    if isinstance(form, dict):
        return isinstance(value, dict) and value.keys() == form.keys() and all(fits(form[k], value[k]) for k in form)
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(form[0], v) for v in value)
    if form is int:
        return type(value) is int and 0 <= value < LARGEST
    return form is Any or type(value) is form


def is_table(value: Any, keys: int | None = None, raw: bool = False) -> bool:
    """Of `TABLE`, with columns that have a name and a dtype.

    Args:
        keys: how many key columns there must be, of kinds that make one; None: any number of any.
        raw: whether all columns must be taken as they are, or none.
    """
    if not fits(TABLE, value) or not all(_is_column(c) for c in [*value["columns"], *value["keys"]]):
        return False
    if keys is None:
        return True
    kinds = value["kinds"]
    return (
        len(kinds) == len(value["keys"]) == keys
        and all(kind in KINDS for kind in kinds)
        and all((dtype == "raw") == raw for _, dtype, _ in [*value["columns"], *value["keys"]])
        and (not raw or all(is_kind(kind, more[0]) for kind, (_, _, more) in zip(kinds, value["keys"])))
    )


def _is_column(value: Any) -> bool:
    """A name, a dtype, and more of columns that are taken as they are: a type, and how many words."""
    if not isinstance(value, list) or len(value) != 3:
        return False
    name, dtype, more = value
    if not isinstance(name, str) or not isinstance(dtype, str | None) or dtype not in DTYPES:
        return False
    if dtype != "raw":
        return more is None
    return isinstance(more, list) and len(more) == 2 and fits(str, more[0]) and fits(int, more[1]) and is_raw(*more)
