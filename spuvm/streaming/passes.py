"""A pass over all rows: some steps of a stream, and what becomes of their columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax

from spuvm.compiler.compile import Program
from spuvm.streaming.block import Counts
from spuvm.streaming.computation import Computation
from spuvm.streaming.folder import Folder
from spuvm.streaming.job import Job, Runner
from spuvm.streaming.plan import Plan
from spuvm.vm import VM


@dataclass
class Pass:
    """Some steps of a stream and what becomes of their columns, ready to run the blocks."""

    plan: Plan
    computation: Computation
    job: Job
    folder: Folder
    runner: Runner
    told: list[dict[str, Any]] = field(default_factory=list)  # of the passes before, what all parties know

    @property
    def vm(self) -> VM:
        return self.plan.vm

    def tree(self, counts: Counts) -> Callable[[Sequence[Any]], Any]:
        """What puts the results of a block of such counts into their structure."""
        return partial(unflattened, self.job.programs[counts])


def unflattened(program: Program, leaves: Sequence[Any]) -> Any:
    """A program's results in the structure that its function gave."""
    assert program.traced is not None
    return jax.tree.unflatten(program.traced.out_tree, leaves)
