"""Worker processes that each keep to one thread: side by side they are faster than one with all of them."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.pool import Pool

import seeded

TASKS = 40  # of a process, before a new one takes its place: JAX keeps all that it has traced


def _alone() -> None:
    os.environ["NPROC"] = "1"  # read by XLA when it starts
    seeded.install()


def pool(jobs: int) -> Pool:
    return multiprocessing.get_context("spawn").Pool(jobs, _alone, maxtasksperchild=TASKS)
