"""Times on a public grid: exact times of events identify people, so everything is computed on coarsened ones.

A time belongs to the first point of the grid at or after it; rows beyond the last point are observed until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from spuvm.data import Frame
from spuvm.devices import PYU, PYUObject
from spuvm.ml.common.labels import _pieces
from spuvm.ml.machine import Machine
from spuvm.runtime.errors import DataError, InputError


def grid_of(timeline: Any) -> np.ndarray:
    """The grid, rising: of a number of steps T the points 1 to T."""
    points = np.arange(1.0, timeline + 1) if isinstance(timeline, int) else np.asarray(timeline, np.float64)
    if points.ndim != 1 or not len(points) or (np.diff(points) <= 0).any() or not np.isfinite(points).all():
        raise InputError("`timeline` must be rising times, or a number of steps.")
    return points


def observed(machine: Machine, data: Any, duration: Any, event: Any, grid: np.ndarray) -> tuple[Any, Any, int]:
    """Whether each row is at risk at each time, and has its event there: secret float [rows, T] each; and the rows.

    Times and events are at one party, or each party has both of its rows.
    """
    times, where, _ = _pieces(machine, data, duration, "duration", "numbers")
    events, _, _ = _pieces(machine, data, event, "event", "classes")
    if not all(isinstance(p, PYUObject) for p in (*times, *events)):
        raise InputError("`duration` and `event` must be known to their holders: columns of a frame, or PYU objects.")
    if [t.device for t in times] != [e.device for e in events]:
        raise InputError("`duration` and `event` must be at the same parties: move one.")
    made = [PYU(t.device.party)(partial(on_grid, grid=grid, where=where))(t, e) for t, e in zip(times, events)]
    shared = [machine.share(m) for m in made]
    at_risk, died = machine.run(_joined, shared, what="times")
    return at_risk, died, int(at_risk.shape[0])


def on_grid(times: Any, events: Any, grid: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """At the holder: at risk, and the event there, float32 [rows, T].

    Raises:
        DataError: for times that are missing or negative, events that are not 0 and 1, and no event at all.
    """
    t, e = np.asarray(times, np.float64), np.asarray(events, np.float64)
    if np.isnan(t).any() or (t < 0).any():
        raise DataError(f"{where}: durations must be 0 or more, and none missing.")
    if t.shape != e.shape or not np.isin(e, (0.0, 1.0)).all():
        raise DataError(f"{where}: events must be 0 (left) or 1 (happened), one for each duration.")
    at = np.searchsorted(grid, t)  # the first point at or after
    steps = np.arange(len(grid))
    risk = (at[:, None] >= steps).astype(np.float32)
    died = ((at[:, None] == steps) & (e[:, None] == 1)).astype(np.float32)
    return risk, died


def _joined(parts: Sequence[Any]) -> Any:
    return tuple(jnp.concatenate([p[i] for p in parts]) for i in range(2))


def features(data: Any, *names: Any) -> Any:
    """The data without the columns named."""
    gone = [n for n in names if isinstance(n, str)]
    return data.drop(*gone) if gone and isinstance(data, Frame) else data
