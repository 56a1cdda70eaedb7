"""Cluster definitions for tests and simulations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def cluster_def(parties: Sequence[str], runtime_config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `SPU` takes: the parties by rank, and its settings.

    Args:
        parties: names.
        runtime_config: `protocol` ("ABY3", "SEMI2K", "REP4", "REF2K"; without one, what suits so many parties),
            `preprocessing` ("dealer" or "ot", of SEMI2K), `field`
            ("FM64"), `fxp_fraction_bits`, `truncation` ("exact").
    """
    return {
        "nodes": [{"party": p, "address": "local"} for p in parties],
        "runtime_config": dict(runtime_config or {"field": "FM64"}),
    }
