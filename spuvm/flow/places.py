"""Where a run keeps things at each party: its catalogue of tables, its results, its checkpoints, its secret for labels.

A flow names entries of catalogues and files among results, never paths: what lies where is each party's own matter.
Only in a simulation, where one person has everything, a table that is in no catalogue may be a path.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spuvm import context as contexts
from spuvm.data.schema import nearest
from spuvm.runtime.errors import ConfigError, InputError

BLOCK = 1 << 20
Tables = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Places:
    """Of one run. In a networked run only the entries of the party that this process is are used.

    Attributes:
        state: the folder of checkpoints and records; each party has one below it.
        tables: by party, its tables by name: paths, or tables in memory.
        results: by party, where files that a flow writes go; below `state` if not given.
    """

    state: Path
    tables: Tables = field(default_factory=dict)
    results: Mapping[str, Path] = field(default_factory=dict)

    @property
    def here(self) -> tuple[str, ...]:
        """The parties that this process is: one, or in a simulation all."""
        context = contexts.here()
        return context.parties if context.party is None else (context.party,)

    def folder(self, party: str) -> Path:
        """A party's part of the state."""
        return self.state / party

    def table(self, party: str, name: str) -> Any:
        """What a party has under a name of its catalogue. InputError, at the party, if it has nothing."""
        own = self.tables.get(party, {})
        if name in own:
            return own[name]
        if contexts.here().party is None and Path(name).suffix and Path(name).exists():
            return name
        raise InputError(
            f"{party} has no table `{name}`{nearest(name, list(own))}: its catalogue has {', '.join(own) or 'none'}. "
            "Give it as `tables`, or `--table`."
        )

    def result(self, party: str, name: str) -> Path:
        """The path of a result, at its party; the name must be one, without folders."""
        if not name or Path(name).name != name or name.startswith("."):
            raise ConfigError(f"`file` must be the name of a file without folders, got {name!r:.60}.")
        folder = Path(self.results.get(party, self.folder(party) / "results"))
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def label(self, party: str, digest: bytes) -> str:
        """A name for some of the party's data that says only whether it is the same as at another time.

        HMAC-SHA256 under a key that never leaves the party: nobody can compare it with data that he guesses.
        """
        return hmac.new(self._key(party), digest, hashlib.sha256).hexdigest()[:32]

    def _key(self, party: str) -> bytes:
        path = self.folder(party) / "labels.key"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        key = path.read_bytes()
        if len(key) != 32:
            raise InputError(f"{path} is damaged: delete it; all tables of {party} are then taken as new.")
        return key


def digest(source: Any) -> bytes:
    """SHA-256 of a table: of the bytes of a file, else of its columns."""
    found = hashlib.sha256()
    if isinstance(source, str | Path):
        try:
            with open(source, "rb") as file:
                while block := file.read(BLOCK):
                    found.update(block)
        except OSError as error:
            raise InputError(f"{source} cannot be read: {error.strerror}.") from None
        return found.digest()
    arrow = arrow_table(source)
    import pyarrow as pa

    with pa.ipc.new_stream(pa.PythonFile(_Into(found), mode="w"), arrow.schema) as writer:
        writer.write_table(arrow.combine_chunks())
    return found.digest()


class _Into:
    """A file that digests what is written to it."""

    closed = False

    def __init__(self, found: Any) -> None:
        self.found, self.at = found, 0

    def write(self, data: Any) -> int:
        """As a file's."""
        view = memoryview(data).cast("B")
        self.found.update(view)
        self.at += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """As a file's."""
        return self.at

    def flush(self) -> None:
        """As a file's."""

    def close(self) -> None:
        """As a file's."""


def arrow_table(source: Any) -> Any:
    """Any table in memory as an arrow table."""
    from spuvm.data.part import _of_arrays, pyarrow

    arrow, _ = pyarrow()
    if isinstance(source, arrow.Table):
        return source
    if isinstance(source, Mapping):
        return _of_arrays(source, "the table")
    if hasattr(source, "to_numpy") and hasattr(source, "columns"):
        return arrow.Table.from_pandas(source, preserve_index=False)
    return arrow.table(source)
