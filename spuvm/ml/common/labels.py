"""Labels and weights of any form: checked where they are known, shared in units in which fixed point has room.

    fit(frame, "ill"), fit(frame, label="ill", sample_weight="weight")      columns of a frame
    fit(x, y), fit(x, y, sample_weight=w)                                   arrays, objects of a PYU or an SPU

Classes are 0 to k - 1, or bools; of a frame's column a category whose categories are public, or one of two texts of
which the user says which is 1. Their number is public, as the number of columns is: labels' one holder says it; where
several hold labels, or nobody, `n_classes` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.data import Column, Frame, Series
from spuvm.devices import PYU, PYUObject, fetch
from spuvm.ml.common import units
from spuvm.ml.common.table import Table, dense, here, is_written
from spuvm.ml.machine import Machine
from spuvm.ml.objectives import LARGEST_LABEL, LARGEST_UNIT
from spuvm.objects import SPUObject
from spuvm.runtime.errors import DataError, InputError

MOST_CLASSES = 1000
LEAST_WEIGHT, MOST_WEIGHT = 2.0**-6, 64.0  # on average


@dataclass(frozen=True, eq=False)
class Labels:
    """Secret labels.

    Attributes:
        values: float [rows]: codes of classes, or numbers in units.
        classes: how many classes there are; 0 of a regression.
        unit: of numbers, secret: y is (value + mean) 2^power.
    """

    values: Any
    classes: int = 0
    unit: Mapping[str, Any] | None = None


def _whole(y: np.ndarray) -> str | None:
    if not ((y == np.rint(y)) & (y >= 0)).all():
        return "labels of classes are whole numbers from 0, or bools: convert them."
    return None


def _any_number(y: np.ndarray) -> str | None:
    return None


def _positive(y: np.ndarray) -> str | None:
    return None if (y > 0).all() else "labels must be above 0 for this distribution."


def _not_negative(y: np.ndarray) -> str | None:
    if (y < 0).any():
        return "labels must be 0 or more for this distribution."
    return None if (y > 0).any() else "all labels are 0: there is nothing to learn."


KINDS: dict[str, Callable[[np.ndarray], str | None]] = {
    "classes": _whole,
    "numbers": _any_number,
    "positive": _positive,
    "not negative": _not_negative,
}


# What is given ------------------------------------------------------------------------------------------------


def labels_of(
    machine: Machine,
    data: Any,
    y: Any,
    kind: str,
    rows: int,
    n_classes: int | None = None,
    ordered: bool = True,
    predicted: bool = False,
    gaps: bool = False,
) -> Labels:
    """The labels of training, or of a score.

    Args:
        data: the frame, if y is the name of a column.
        kind: of `KINDS`.
        n_classes: if it is known.
        ordered: whether it matters which of two classes is 1; else codes may follow the alphabet.
        predicted: whether numbers like these are to be shown, for which there must be room.
        gaps: whether a code below the largest need not occur.

    Raises:
        InputError: for labels that are absent, text, missing, of one class or not of the kind; what only their
            holder can see, the holder refuses.
    """
    pieces, where, known = _pieces(machine, data, y, "label", kind, ordered)
    _same_rows(pieces, rows, "labels")
    if kind == "classes":
        classes = known or n_classes or (_said_classes(pieces, where, gaps) if len(pieces) == 1 else 2)
        checked = [_at(p, partial(coded, classes=classes, where=where, alone=len(pieces) == 1)) for p in pieces]
        return Labels(_shared(machine, checked, None), classes)
    alone = len(pieces) == 1 and isinstance(pieces[0], PYUObject)
    if alone:
        made = machine.share(_at(pieces[0], partial(in_units, kind=kind, where=where, predicted=predicted)))
        return Labels(made["values"], 0, {"mean": made["mean"], "power": made["power"]})
    checked = [_at(p, partial(rough, kind=kind, where=where, predicted=predicted)) for p in pieces]
    shared = [machine.share(p) if isinstance(p, PYUObject) else p for p in checked]
    made = machine.run(_join_centred if kind == "numbers" else _join, shared, what="labels")
    return Labels(made["values"], 0, {"mean": made["mean"], "power": made["power"]})


def numbers_within(
    machine: Machine, data: Any, y: Any, rows: int, ends: tuple[float, float], unit: tuple[float, int]
) -> Labels:
    """The labels of a regression in units that are public, mean and power of two, clipped to a stated range."""
    pieces, where, _ = _pieces(machine, data, y, "label", "numbers")
    _same_rows(pieces, rows, "labels")
    mean, power = unit
    at_holder = partial(_within, ends=ends, unit=unit, where=where)
    inside = [
        _at(p, at_holder) if isinstance(p, PYUObject) else machine.run(_in_range(ends, unit), p, what="labels")
        for p in pieces
    ]
    return Labels(_shared(machine, inside, None), 0, {"mean": mean, "power": power})


def weights_of(machine: Machine, data: Any, weight: Any, rows: int, normalised: bool) -> Any:
    """Secret weights float [rows]; of mean 1 if `normalised`. None if there are none.

    Raises:
        InputError: for weights that are negative, missing, all 0, or far from 1 on average.
    """
    if weight is None:
        return None
    pieces, where, _ = _pieces(machine, data, weight, "sample_weight", "numbers")
    _same_rows(pieces, rows, "weights")
    if normalised and len(pieces) == 1:
        pieces = [_at(pieces[0], normal)]
    shared = _shared(machine, [_at(p, partial(checked_weights, where=where)) for p in pieces], None)
    known = len(pieces) == 1 and isinstance(pieces[0], PYUObject)
    return machine.run(_normal, shared, what="weights") if normalised and not known else shared


def offset_of(machine: Machine, data: Any, offset: Any, rows: int) -> Any:
    """A secret column float [rows] that is added to the linear predictor; None if there is none."""
    if offset is None:
        return None
    pieces, where, _ = _pieces(machine, data, offset, "offset", "numbers")
    _same_rows(pieces, rows, "offsets")
    return _shared(machine, [_at(p, partial(checked_offset, where=where)) for p in pieces], None)


def features_of(data: Any, *names: Any) -> Any:
    """The frame without the columns that are named, or given as `frame["name"]`: labels, weights."""
    if not isinstance(data, Frame | Table):
        return data
    given = [n.name for n in names if isinstance(n, Series) and n.name in (c.name for c in columns_of(data))]
    gone = [*(n for n in names if isinstance(n, str)), *given]
    return data.drop(*dict.fromkeys(gone)) if gone else data


def told(data: Any, y: Any, positive: str | None) -> tuple[Any, Any]:
    """Data and labels with the label's two texts as bools, true for the one that is `positive`.

    Raises:
        InputError: for labels that are no text of a frame; their holder refuses a text that is none of the two.
    """
    if positive is None:
        return data, y
    if isinstance(y, Series):
        return data, y.frame.binary(y.name, positive=positive)[y.name]
    if isinstance(data, Frame) and isinstance(y, str):
        return data.binary(y, positive=positive), y
    raise InputError("`positive` is of labels that are text: name the frame's column, `label`.")


def is_text(data: Any, y: Any) -> bool:
    """Whether labels are a column of text."""
    if isinstance(y, Series):
        return y.column.type == "category"
    return isinstance(data, Frame) and isinstance(y, str) and data.schema[y].type == "category"


def columns_of(data: Frame | Table) -> tuple[Column, ...]:
    """What all parties know of the columns."""
    return data.schema.columns if isinstance(data, Frame) else data.columns


def _pieces(
    machine: Machine, data: Any, y: Any, what: str, kind: str, ordered: bool = False
) -> tuple[list[Any], str, int]:
    """The column in the pieces of its holders, what to call it, and the number of its public categories."""
    if isinstance(y, Series):
        data, y = y.frame, y.name
    if isinstance(y, str):
        return _column(data, y, what, kind, ordered)
    if y is None:
        raise InputError(f"`{what}` is missing: name a column of the frame, or give an array.")
    if isinstance(y, SPUObject | jax.core.Tracer):
        if y.ndim != 1:
            raise InputError(f"`{what}` must have one axis, got shape {tuple(y.shape)}.")
        return [y], "y", 0
    if isinstance(y, PYUObject):
        return [PYU(y.device.party)(as_column)(y)], f"`{what}` of {y.device.party}", 0
    column = as_column(y)
    return [PYU(here(machine, what))(lambda: column)()], f"`{what}`", 0


def _column(data: Any, name: str, what: str, kind: str, ordered: bool) -> tuple[list[Any], str, int]:
    if isinstance(data, Table):
        return _of_table(data, name, what)
    if not isinstance(data, Frame):
        raise InputError(f"`{what}` is {name!r}, but the data is no frame: give the {what}s as an array.")
    series = data[name]
    column: Column = series.column
    if column.type == "category":
        if kind != "classes":
            raise InputError(f"{column.where} is text: `{what}` must be numbers.")
        if column.categories is None:
            raise InputError(
                f"{column.where} is text whose categories only its owner knows: as `{what}` they must be public, "
                f"categories={{'{name}': 'public'}}, or numbers from 0. Of two, say which is 1: `positive=` of "
                f"`fit`, or `frame.binary({name!r}, positive=...)`."
            )
        if len(column.categories) == 2 and ordered:
            raise InputError(
                f"{column.where} is text, and which of {' and '.join(map(repr, column.categories))} is 1 must be said: "
                f"`positive=` of `fit`, or `frame.binary({name!r}, positive=...)`."
            )
    known = 0 if column.categories is None else len(column.categories)
    return [series.at(p) for p in series.parties], column.where, known


def _of_table(data: Table, name: str, what: str) -> tuple[list[Any], str, int]:
    for block in data.blocks:
        if name in block.names:
            at = block.names.index(name)
            if block.owner is None:
                raise InputError(f"`{what}` `{name}` is a secret column of the table: take it from the frame.")
            return [block.local(partial(_column_at, at=at))], block.columns[at].where, 0
    raise InputError(f"there is no column `{name}` for `{what}`: transformers drop what they are not given.")


def _column_at(x: np.ndarray, at: int) -> np.ndarray:
    return x[:, at]


def _numbers(array: np.ndarray) -> np.ndarray:
    """Python's numbers, as a pandas column has them beside text, as floats; all else as it is."""
    if is_written(array):
        return array
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        return array


def as_column(y: Any) -> np.ndarray:
    """Labels float64 [rows]; InputError for text, and more than one column."""
    array = np.asarray(dense(y, "y"))
    if array.dtype.kind == "O":
        array = _numbers(array)
    if array.dtype.kind not in "biuf":
        raise InputError(f"labels must be numbers, got {array.dtype}: code classes as 0, 1, ...")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InputError(f"labels must have one axis, got shape {array.shape}.")
    return array.astype(np.float64)


def _at(piece: Any, function: Callable[[np.ndarray], Any]) -> Any:
    return PYU(piece.device.party)(function)(piece) if isinstance(piece, PYUObject) else piece


def _same_rows(pieces: list[Any], rows: int, what: str) -> None:
    """Counts that this process sees."""
    counts = [np.shape(p.value)[0] if isinstance(p, PYUObject) else p.shape[0] for p in pieces if _visible(p)]
    if len(counts) == len(pieces) and sum(counts) != rows:
        raise InputError(f"there are {sum(counts)} {what} for {rows} rows: bring one for each row.")


def _visible(piece: Any) -> bool:
    return not isinstance(piece, PYUObject) or piece.value is not None


def _said_classes(pieces: list[Any], where: str, gaps: bool) -> int:
    """How many classes the one holder has: said openly, like the number of columns."""
    (piece,) = pieces
    if not isinstance(piece, PYUObject):
        return 2
    return int(fetch(PYU(piece.device.party)(partial(count_classes, where=where, gaps=gaps))(piece)))


def _shared(machine: Machine, pieces: list[Any], what: str | None) -> Any:
    shared = [machine.share(p) if isinstance(p, PYUObject) else p for p in pieces]
    return machine.run(joined, shared, what="labels")


# At the holder -------------------------------------------------------------------------------------------------


def _present(y: np.ndarray, where: str) -> np.ndarray:
    if np.isnan(y).any():
        raise DataError(f"{where}: {int(np.isnan(y).sum())} of {y.size} labels are missing: leave these rows out.")
    if not np.isfinite(y).all():
        raise DataError(f"{where}: labels are infinite: replace them.")
    return y


def _refuse(y: np.ndarray, kind: str, where: str) -> None:
    wrong = KINDS[kind](_present(y, where))
    if wrong:
        raise DataError(f"{where}: {wrong}")


def count_classes(y: np.ndarray, where: str, gaps: bool = False) -> np.ndarray:
    """The number of classes: the largest code and one; DataError if some code below does not occur, but for `gaps`."""
    _refuse(y, "classes", where)
    count = int(y.max()) + 1
    if count > MOST_CLASSES:
        raise DataError(f"{where}: labels of classes are codes from 0 to {MOST_CLASSES - 1}: is this a regression?")
    seen = np.unique(y).astype(int)
    if not gaps and 1 < len(seen) < count:
        absent = min(set(range(count)) - set(seen.tolist()))
        raise DataError(
            f"{where}: labels are from {seen[0]} to {seen[-1]}, and {absent} does not occur: code the {len(seen)} "
            "classes as 0, 1, ... where they are read, `np.unique(y, return_inverse=True)[1]`; or, if others may yet "
            f"occur, say that there are {count}: `n_classes={count}`."
        )
    return np.array(max(count, 2))


def coded(y: np.ndarray, classes: int, where: str, alone: bool) -> np.ndarray:
    """Codes float32 [rows] that are below `classes`; `alone`: no other party has more of them."""
    _refuse(y, "classes", where)
    if y.max() >= classes:
        raise DataError(f"{where}: labels are beyond the {classes} classes: give `n_classes`, or code them from 0.")
    if alone and len(np.unique(y)) < 2:
        raise DataError(f"{where}: all labels are of one class: there is nothing to learn.")
    return y.astype(np.float32)


def in_units(y: np.ndarray, kind: str, where: str, predicted: bool) -> dict[str, Any]:
    """All labels of a regression in their units: values float32 [rows], mean float32, power int32."""
    _refuse(y, kind, where)
    if kind == "numbers":
        if len(y) > 1 and np.ptp(y) == 0:
            raise DataError(f"{where}: all labels are the same: there is nothing to learn.")
        if predicted:
            _refuse_large(float(y.std()), y, where)
        unit = {k: v[0] for k, v in units.learned(y[:, None], 0.0, centred=True).items()}
    else:
        power = np.ceil(np.log2(max(float(y.mean()), 2.0**units.LOW)))
        unit = {"mean": np.float64(0.0), "power": np.int32(power)}
    values = units.applied(y[:, None], unit["mean"], unit["power"])[:, 0]
    return {"values": values, "mean": np.float32(unit["mean"]), "power": np.int32(unit["power"])}


def _refuse_large(spread: float, y: np.ndarray, where: str) -> None:
    """Numbers whose predictions would have no room."""
    if spread > LARGEST_UNIT or np.abs(y).max() > LARGEST_LABEL:
        raise DataError(
            f"{where}: labels vary by more than {LARGEST_UNIT:g} or are beyond {LARGEST_LABEL:g}: divide them."
        )


def _within(y: np.ndarray, ends: tuple[float, float], unit: tuple[float, int], where: str) -> np.ndarray:
    mean, power = unit
    return np.asarray(np.clip(_present(y, where), *ends) * 2.0**-power - mean, np.float32)


@cache
def _in_range(ends: tuple[float, float], unit: tuple[float, int]) -> Callable[[jax.Array], jax.Array]:
    mean, power = unit
    return lambda y: jnp.clip(y, *ends) * 2.0**-power - mean


def rough(y: np.ndarray, kind: str, where: str, predicted: bool) -> dict[str, np.ndarray]:
    """Some of the labels, at or below 1 times a power of two that stays secret."""
    _refuse(y, kind, where)
    if kind == "numbers" and predicted:
        _refuse_large(float(np.abs(y).max()), y, where)
    power = units.exponents(y[:, None])[0]
    return {"values": (y * 2.0 ** -float(power)).astype(np.float32), "power": power}


def checked_weights(w: np.ndarray, where: str) -> np.ndarray:
    """Weights that can be used: float32 [rows]."""
    _present(w, where)
    if (w < 0).any() or not w.sum() > 0:
        raise DataError(f"{where}: weights must be 0 or more, and not all 0.")
    if not LEAST_WEIGHT <= w.mean() <= MOST_WEIGHT:
        raise DataError(f"{where}: weights must be near 1 on average: divide them by their mean.")
    return w.astype(np.float32)


def normal(w: np.ndarray) -> np.ndarray:
    """Weights of mean 1."""
    mean = float(np.mean(w))
    return np.asarray(w / mean, np.float64) if mean > 0 else w


def checked_offset(x: np.ndarray, where: str) -> np.ndarray:
    """Offsets of a linear predictor: float32 [rows]."""
    _present(x, where)
    if np.abs(x).max() > 64:
        raise DataError(f"{where}: offsets are beyond 64: give logarithms (of the exposure).")
    return x.astype(np.float32)


# On the machine -------------------------------------------------------------------------------------------------


def joined(pieces: list[jax.Array]) -> jax.Array:
    """Pieces [rows_i] as one column of floats."""
    return jnp.concatenate([jnp.asarray(p, jnp.float32) for p in pieces])


def _together(pieces: list[Any]) -> tuple[jax.Array, Any]:
    """Pieces of several powers as numbers of the largest one; plain numbers have none."""
    if not isinstance(pieces[0], Mapping):
        return joined(pieces), 0
    power = jnp.max(jnp.stack([p["power"] for p in pieces]))
    return jnp.concatenate([units.times_power(p["values"], p["power"] - power) for p in pieces]), power


def _join_centred(pieces: list[Any]) -> dict[str, jax.Array]:
    y, power = _together(pieces)
    unit = units.secretly_learned(y[:, None], jnp.int32(0), 0.0, centred=True)
    z = units.secretly_applied(y[:, None], unit["mean"], unit["power"])[:, 0]
    mean = units.times_power(unit["mean"], -unit["power"])[0]
    return {"values": z, "mean": mean, "power": unit["power"][0] + power}


def _join(pieces: list[Any]) -> dict[str, jax.Array]:
    y, power = _together(pieces)
    own = units.magnitude(jnp.mean(y))
    return {"values": units.times_power(y, -own), "mean": jnp.zeros((), y.dtype), "power": own + power}


def _normal(w: jax.Array) -> jax.Array:
    return w / jnp.mean(w)
