"""Kaplan-Meier curves of two hospitals' treatments, and a log-rank test of their difference.

Each hospital treats its patients in its own way. The times and whether the event was seen (or the patient
was lost to follow-up before) stay secret; the curve of each treatment and the test's statistic come out.

Kaplan and Meier 1958; Mantel 1966. The patients are drawn from two Weibull distributions.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import Measure, Program, main

MONTHS = 36  # times are whole months, 1 to 36: public, unlike everything else
PATIENTS = {"alice": 180, "bob": 150}


def at_risk_and_events(times: jax.Array, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For each month: patients still under observation, and events. A hospital counts by itself."""
    months = jnp.arange(1, MONTHS + 1)
    at_risk = jnp.sum(times[:, None] >= months, axis=0)
    events = jnp.sum((times[:, None] == months) & (seen[:, None] > 0), axis=0)
    return at_risk.astype(jnp.float32), events.astype(jnp.float32)


def compare(
    a_times: jax.Array, a_seen: jax.Array, b_times: jax.Array, b_seen: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Two survival curves f32[MONTHS], and the log-rank statistic (chi squared, one degree of freedom)."""
    n1, d1 = at_risk_and_events(a_times, a_seen)
    n2, d2 = at_risk_and_events(b_times, b_seen)
    n, d = n1 + n2, d1 + d2
    share = n1 / jnp.maximum(n, 1)
    variance = share * (1 - share) * d * (n - d) / jnp.maximum(n - 1, 1)
    statistic = jnp.sum(d1 - d * share) ** 2 / jnp.sum(variance)
    curves = [jnp.cumprod(1 - e / jnp.maximum(r, 1)) for r, e in ((n1, d1), (n2, d2))]
    return curves[0], curves[1], statistic


def arguments() -> Mapping[str, Any]:
    draw = np.random.default_rng(7)
    out: dict[str, Any] = {}
    for hospital, scale in (("alice", 22.0), ("bob", 15.0)):
        event = np.ceil(scale * draw.weibull(1.4, PATIENTS[hospital]))
        lost = np.ceil(draw.uniform(6, 48, PATIENTS[hospital]))
        end = np.minimum(lost, MONTHS)
        out[f"{hospital}_times"] = np.minimum(event, end).astype(np.int32)
        out[f"{hospital}_seen"] = (event <= end).astype(np.int32)
    return out


def measures(secure: Any, clear: Any) -> list[Measure]:
    out = [Measure("log-rank statistic", float(secure[2]), float(clear[2]), 1e-2)]
    for hospital, curve, true in zip(PATIENTS, secure, clear):
        out.append(Measure(f"{hospital}: alive after a year", float(curve[11]), float(true[11]), 2e-4))
        out.append(Measure(f"{hospital}: largest error", float(np.max(np.abs(curve - true))), 0, 2e-4))
    return out


PROGRAM = Program(
    compare,
    {"alice_times": "alice", "alice_seen": "alice", "bob_times": "bob", "bob_seen": "bob"},
    arguments,
    measures,
)

if __name__ == "__main__":
    sys.exit(main(PROGRAM, __file__, __doc__))
