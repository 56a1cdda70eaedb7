"""What a party's record says of a run beside who allowed it: versions, commitments to its files, what was exchanged."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from typing import Any

from spuvm.policy import commitments
from spuvm.runtime.link import counts
from spuvm.service.jobs import Job
from spuvm.service.runner import COUNTS
from spuvm.service.settings import Settings

PACKAGES = ("spuvm", "jax", "numpy")
SALTS = "salts.json"  # in a job's folder: with them and the files, commitments can be checked


@cache
def versions() -> Mapping[str, str]:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def inputs(settings: Settings, job: Job, stop: Callable[[], bool]) -> dict[str, str]:
    """A commitment to each file of this party's that a job takes, by argument. Raises OSError, DataError.

    `stop` is asked again and again whether anybody still wants to know.
    """
    mine = {name: settings.data[str(s.data)] for name, s in job.inputs.items() if s.party == settings.party}
    return commitments.commit(mine, settings.state / "jobs" / job.id / SALTS, stop) if mine else {}


def policy(settings: Settings) -> str | None:
    """The hash of the policy file as it is now."""
    try:
        return hashlib.sha256(settings.policy.read_bytes()).hexdigest()
    except OSError:
        return None


def counted(settings: Settings, job: str) -> dict[str, Any] | None:
    """Rounds, and bytes by peer, of all runs of a job; of a program, also what was predicted of one."""
    folder = settings.state / "jobs" / job
    found = counts.summed(folder / COUNTS)
    try:
        predicted = json.loads((folder / "report.json").read_text())["predicted"]
    except (OSError, ValueError, KeyError, TypeError):
        return found
    return None if found is None else {**found, "predicted": predicted}
