"""How far a job that is a flow has come at this party: its nodes, as the record of its run says."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from spuvm.service import jobs
from spuvm.service.settings import Settings
from spuvm.service.store import Row
from spuvm.service.tasks import record_of

SHOWN = ("state", "seconds", "rounds", "error")


def flow_of(row: Row) -> str | None:
    """The name of the flow that a job is; None if it is something else."""
    if jobs.read(row.job.program).kind != "flow":
        return None
    return str(tomllib.loads(row.job.program)["flow"].get("name", ""))


def nodes_of(settings: Settings, row: Row) -> list[dict[str, Any]]:
    """The nodes of a flow in the order of its text, with what was said of each last; nothing of other jobs."""
    if flow_of(row) is None:
        return []
    body = tomllib.loads(row.job.program)["flow"]["nodes"]
    nodes = {n: {"name": n, "component": e.get("component", ""), "state": "waiting"} for n, e in body.items()}
    path = record_of(settings.state / "models", settings.party, row.id)
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            said = json.loads(line)
            node = nodes.get(said["node"])
        except (ValueError, KeyError, TypeError):  # of the run as a whole, or a line that a kill cut short
            continue
        if node is not None:
            node.update({k: said[k] for k in SHOWN if k in said} | {"sent": sum(said.get("sent", {}).values())})
    return list(nodes.values())
