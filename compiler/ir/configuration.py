"""The configuration that a module says it was lowered for."""

from __future__ import annotations

from typing import Any

from spuvm.compiler.ir.module import Module
from spuvm.runtime.config import Config
from spuvm.runtime.errors import ConfigError


def config_of(module: Module) -> Config:
    """The configuration that a module was lowered for."""
    try:
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in module.config.items()}
        return Config(**settings)
    except TypeError as e:
        raise ConfigError(f"the program's configuration is not understood: {e}") from None
