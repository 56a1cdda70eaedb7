"""What a stream is to who runs it: sources, steps and options, and no methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spuvm.streaming.block import Steps
from spuvm.streaming.folder import Folders
from spuvm.streaming.secrets import Secrets
from spuvm.streaming.sources import Source
from spuvm.streaming.workers import Home
from spuvm.vm import VM


@dataclass(frozen=True)
class Options:
    """How a stream runs. `home` is how to be this party in another process."""

    rows_per_block: int
    workers: int
    engine: str
    home: Home | None
    progress: bool | None
    folders: Folders | None = None  # of passes that have none of their own


@dataclass(frozen=True)
class Plan:
    """Columns of several parties, and what is done with them. `parts` are of parties that hold different rows."""

    vm: VM
    parts: tuple[Mapping[str, Source], ...]
    options: Options
    steps: Steps = ()
    secrets: Secrets | None = None  # in place of parts
