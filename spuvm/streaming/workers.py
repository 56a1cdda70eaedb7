"""Several workers for each party."""

from __future__ import annotations

ENGINES = ("local", "ray")
