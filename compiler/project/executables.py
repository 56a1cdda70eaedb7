"""Compiled stages: in memory by key, on disk by key, else compiled now.

On disk an entry `KEY` names the entry that holds what was compiled, by the text of its module: stages of
different parties, and of different programs, are often the same. Several threads may ask: whoever wants
what another is just compiling waits for it.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import serialize_executable

from spuvm.compiler.cache import disk
from spuvm.compiler.project.kernels import StagePlan
from spuvm.runtime.ring import native

Executable = Callable[..., Sequence[Any]]

# Circuits run 1.5 times faster on registers of 512 bits; processors without them take what they have.
OPTIONS: dict[str, Any] = {"xla_cpu_prefer_vector_width": 512}

NAME = re.compile(rb"[0-9a-f]{32}\.stage")

_LOADED: dict[str, Executable] = {}
_BUSY: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  # by key, and by the module's text
compiled_count = 0  # how many stages this process compiled, for tests of the cache


class StageMissing(Exception):
    """A stage that is known by its key alone is not on disk."""


@dataclass(frozen=True)
class StageLoader:
    """Gives the compiled stage, compiling it the first time that anyone asks.

    `stage` is None in a program that was read from disk: such a stage cannot be compiled.
    """

    key: str
    inputs: int
    outputs: int
    stage: StagePlan | None

    def __call__(self) -> Executable:
        found = _LOADED.get(self.key)
        if found is None:
            with _BUSY[self.key]:
                found = _LOADED.get(self.key) or self._from_disk() or self._compiled()
                _LOADED[self.key] = found
        return found

    def __reduce__(self) -> Any:
        return StageLoader, (self.key, self.inputs, self.outputs, None)

    def _from_disk(self) -> Executable | None:
        name = disk.read(self.key)
        return self._loaded(name.decode()) if name is not None and NAME.fullmatch(name) else None

    def _loaded(self, name: str) -> Executable | None:
        content = disk.read(name)
        if content is None:
            return None
        native.register()
        inputs = jax.tree.structure(((0,) * self.inputs, {}))
        outputs = jax.tree.structure([0] * self.outputs)
        try:
            loaded: Executable = serialize_executable.deserialize_and_load(content, inputs, outputs)
        except Exception:  # whatever is wrong with an entry, compiling anew puts it right
            return None
        return loaded

    def _compiled(self) -> Executable:
        global compiled_count
        if self.stage is None:
            raise StageMissing(self.key)
        function = self.stage.function

        def stage(*args: Any) -> Sequence[Any]:  # one name for all: it is part of the module's text
            return function(*args)

        with jax.enable_x64(True):
            lowered = jax.jit(stage).lower(*self.stage.avals)
            name = hashlib.sha256(lowered.as_text().encode()).hexdigest()[:32] + ".stage"
            with _BUSY[name]:
                found = self._loaded(name)
                if found is None:
                    compiled_count += 1
                    found = lowered.compile(compiler_options=OPTIONS)
                    try:
                        content, _, _ = serialize_executable.serialize(found)
                    except (ValueError, NotImplementedError):  # this kind of executable cannot be stored
                        return found
                    disk.write(name, content)
        disk.write(self.key, name.encode())
        return found


def stage_loader(key: str, stage: StagePlan) -> Callable[[], Executable]:
    return StageLoader(key, len(stage.avals), len(stage.outputs), stage)
