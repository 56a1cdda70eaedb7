"""Parties on one host share its processors.

XLA gives every process as many threads as there are processors. Three parties of one host would then have three
times as many, which wait for each other: products over TLS take 15 to 20% longer. `NPROC` is the number that XLA reads
when it is first used; one that the user has set stays.
"""

from __future__ import annotations

import os


def available() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores(parties: int) -> None:
    """Leave each of so many parties of this host its part of the processors, at least one."""
    if parties > 1:
        os.environ.setdefault("NPROC", str(max(1, available() // parties)))


def allowed() -> int:
    """Threads that this process may keep busy: `NPROC` where it is set, else one for each processor."""
    wanted = os.environ.get("NPROC", "")
    return max(1, min(int(wanted), available())) if wanted.isdigit() else available()
