"""The device that stages run on by XLA, where one is asked for: any that JAX has here. Without one, the vector engine.

It is a party's own affair: the same bits on all devices, so parties may differ. `SPUVM_DEVICE` names one for the
process, `on` for what runs within a block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax

from spuvm.runtime.errors import ConfigError

VARIABLE = "SPUVM_DEVICE"
_WANTED: ContextVar[str | None] = ContextVar("device", default=None)


@contextmanager
def on(name: str | None) -> Iterator[None]:
    """Within the block stages are loaded for this device; None leaves it as it is."""
    if name is None:
        yield
        return
    token = _WANTED.set(name)
    try:
        yield
    finally:
        _WANTED.reset(token)


def wanted() -> str | None:
    """The name of the device that stages are to run on; None: that of the vector engine."""
    return _WANTED.get() or os.environ.get(VARIABLE) or None


def found(name: str) -> Any:
    """JAX's device of a name like `gpu` or `cpu:1`.

    Raises ConfigError if JAX has no such device here.
    """
    platform, colon, index = name.partition(":")
    try:
        devices = jax.devices(platform) if platform else []
    except RuntimeError:
        devices = []
    known = not colon or (index.isascii() and index.isdigit() and int(index) < len(devices))
    if devices and known:
        return devices[int(index or 0)]
    raise ConfigError(
        f"`device` {name!r} is not here: JAX has {', '.join(_names())}. Install a jax for it (docs.jax.dev), name one "
        "that is here, or leave `device` out."
    )


def processor() -> Any:
    """The processor of this machine: the caller's choice among its devices, else the first."""
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    return chosen if getattr(chosen, "platform", None) == "cpu" else jax.devices("cpu")[0]


def _names() -> list[str]:
    """Of all devices; where there is no other platform, of the processor's alone."""
    here = [*jax.devices(), *(d for d in jax.devices("cpu") if d not in jax.devices())]
    numbers: dict[str, int] = {}
    names = []
    for d in here:
        names.append(f"{d.platform}:{numbers.setdefault(d.platform, 0)}")
        numbers[d.platform] += 1
    return names
