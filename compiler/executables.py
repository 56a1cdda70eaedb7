"""Compiled stages: in memory by key, on disk by key, version and processor, else compiled now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from spuvm.compiler.kernels import StagePlan

_LOADED: dict[str, Callable[..., Sequence[Any]]] = {}


def stage_loader(key: str, stage: StagePlan) -> Callable[[], Callable[..., Sequence[Any]]]:
    """A function that gives the compiled stage, compiling it the first time that anyone asks."""

    def load() -> Callable[..., Sequence[Any]]:
        if key not in _LOADED:
            with jax.enable_x64(True):
                _LOADED[key] = jax.jit(stage.function).lower(*stage.avals).compile()
        return _LOADED[key]

    return load
