"""What people look for at a frame, because tables of one owner have it, and what to write instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from spuvm.runtime.errors import InputError

NUMBERS = "`spu.ml.describe(frame)` shows counts, means, deviations and quartiles; else `device(fn)(frame)`"
OWNERS = "its owner does that in its own table, before `vertical` or `horizontal`"
SQL = "`spu.sql` asks such questions of several owners' tables"
HIDDEN = "cells stay with those who have them; `frame.at(party)` is one party's, at that party"

ADVICE = {
    **dict.fromkeys(("describe", "mean", "std", "var", "sum", "min", "max", "count", "median", "quantile"), NUMBERS),
    **dict.fromkeys(("corr", "cov"), "`spu.ml.corr(frame)`"),
    **dict.fromkeys(("rename", "astype", "assign", "apply", "map", "replace", "eval"), OWNERS),
    **dict.fromkeys(("query", "where", "dropna", "sort_values", "drop_duplicates"), OWNERS),
    **dict.fromkeys(("fillna", "interpolate"), "`spu.ml.SimpleImputer`"),
    **dict.fromkeys(("isna", "isnull", "notna"), '`device(lambda t: jnp.isnan(t["age"]))(frame)`'),
    **dict.fromkeys(("groupby", "value_counts", "pivot_table", "nunique"), SQL),
    **dict.fromkeys(("merge", "join"), '`spu.psi.join`, or `match="inner"` of `vertical`'),
    **dict.fromkeys(("head", "tail", "values", "to_pandas", "to_numpy", "iterrows", "partitions"), HIDDEN),
    **dict.fromkeys(("iloc", "loc", "sample"), "`frame.take(positions)`, `frame.split(test_size=...)`"),
    "dtypes": "`frame.schema` has every column's owner and type",
}


class Advised:
    """Answers names that it does not have with what stands for them."""

    if not TYPE_CHECKING:  # no type is to think that it has every name

        def __getattr__(self, name: str) -> Any:
            schema = self.__dict__.get("schema")
            if schema is not None and name in schema.names:
                raise AttributeError(f"{self!r} has its columns by name: `frame[{name!r}]`.")
            if name in ADVICE:
                raise AttributeError(f"{self!r} has no `{name}`: {ADVICE[name]}.")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class Unvalued(Advised):
    """A column: Python has no values to compute with."""

    __hash__ = object.__hash__

    def _refuse(self, *_: Any) -> NoReturn:
        raise InputError(
            f"{self!r} has no values here: compute with columns on a device, "
            '`device(lambda t: t["a"] > t["b"])(frame)`. Rows are chosen by their owners, or by position: `frame.take`.'
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __pow__ = __rpow__ = __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __matmul__ = __rmatmul__ = _refuse
    __eq__ = __ne__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __and__ = __or__ = __neg__ = __invert__ = __abs__ = _refuse
    __getitem__ = __iter__ = __array__ = __bool__ = _refuse
