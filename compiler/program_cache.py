"""Compiled programs on disk, by fingerprint: another process only traces, and loads.

Beside the compiled stages of `executables`, an entry holds a program's IR or a party's schedule. It is
used if all stages of it are there.
"""

from __future__ import annotations

import pickle
from typing import Any

from spuvm.compiler.cache import disk
from spuvm.compiler.ir.module import Module
from spuvm.compiler.project.executables import StageMissing
from spuvm.runtime.machine.program import PartyProgram

LARGEST = 1 << 26  # bytes; a program with larger constants is compiled each time


def read_module(name: str) -> tuple[Module, str] | None:
    """The IR of a program, and its hash."""
    found = _read(f"{name}.module")
    return found if isinstance(found, tuple) else None


def write_module(name: str, module: Module, hash_: str) -> None:
    _write(f"{name}.module", (module, hash_))


def read_party(name: str, rank: int | None) -> PartyProgram | None:
    """A party's program, with all its stages loaded."""
    found = _read(f"{name}.{rank}")
    if not isinstance(found, PartyProgram):
        return None
    try:
        found.prepare()
    except StageMissing:
        return None
    return found


def write_party(name: str, rank: int | None, program: PartyProgram) -> None:
    _write(f"{name}.{rank}", program)


def _read(entry: str) -> Any:
    content = disk.read(entry)
    if content is None:
        return None
    try:  # the folder is this user's alone, see `diskcache`
        return pickle.loads(content)
    except Exception:  # whatever is wrong with an entry, compiling anew puts it right
        return None


def _write(entry: str, value: Any) -> None:
    if disk.folder() is None:
        return
    try:
        content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError):  # stages that are no `StageLoader`: not to be stored
        return
    if len(content) <= LARGEST:
        disk.write(entry, content)
