"""Results that are safe before the parties agree that they are done: in their files, or aside, with the place said.

A disk that is full after the last round must not cost what all parties have computed: what cannot be written where
it should go is kept as an .npz file elsewhere, readable by its owner alone, and `spuvm results` writes it later.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import numpy as np

from spuvm.commands.options import Output, OutputType
from spuvm.commands.results import column_of, index_of, write_outputs
from spuvm.commands.terminal import say
from spuvm.compiler.compile import Program
from spuvm.data.tables import write
from spuvm.data.targets import check_target, temporary
from spuvm.runtime.errors import InputError

META = "spuvm"
SHARED_MEMORY = "/dev/shm"
NOT_KEPT = (OSError, EOFError, ValueError, TypeError, LookupError, RuntimeError, zipfile.BadZipFile, zlib.error)


def keep_outputs(
    program: Program, values: Mapping[int, Any], wanted: Mapping[int, Output], force: bool
) -> tuple[list[str], InputError | None]:
    """Write results; what was written, in words, and the error that says where they are if that failed.

    Raises InputError if they could not be kept anywhere.
    """
    try:
        return write_outputs(program, values, wanted, force), None
    except (InputError, OSError) as error:
        path = _aside(program, {i: values[i] for i in wanted}, [o.path.parent for o in wanted.values()], error)
        names = " ".join(f"--output {program.module.outputs[i]}={o.path}" for i, o in wanted.items())
        what = f"`spuvm results {path} {names}` writes them without computing again"
        return [], InputError(f"{error} The results are kept in {path}: {what}.")


def _aside(program: Program, values: Mapping[int, Any], near: Sequence[Path], why: Exception) -> Path:
    names = {program.module.outputs[i]: column_of(program, i, Output(None, Path(), ())) for i in values}
    meta = json.dumps({"names": list(names), "columns": list(names.values())})
    arrays: dict[str, Any] = {META: np.array(meta)}
    arrays |= {f"x{n}": np.asarray(x) for n, x in enumerate(values.values())}
    for folder in (*near, Path.cwd(), *temporary(), Path.home(), Path(SHARED_MEMORY)):
        path: Path | None = None
        try:
            handle, name = tempfile.mkstemp(prefix="spuvm-results-", suffix=".npz", dir=folder)  # mode 0600
            path = Path(name)
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            return path.absolute()
        except OSError:
            with suppress(OSError):
                if path is not None:
                    path.unlink()
    raise InputError(f"{why} Nor could the results be kept anywhere else: make room, and run again.")


@click.command()
@click.argument("kept", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE.npz")
@click.option("--output", "outputs", type=OutputType(), multiple=True, required=True, help="A file for a result.")
@click.option("--force", is_flag=True, help="Replace output files.")
def results(kept: Path, outputs: tuple[Output, ...], force: bool) -> None:
    """Write results that a run kept aside because their files could not be written.

    \b
      spuvm results /tmp/spuvm-results-x1y2.npz --output risk=risk.csv

    The file stays: remove it once all is written.
    """  # fmt: skip
    meta, values = _read(kept)
    for output in outputs:
        index = index_of(meta["names"], output)
        check_target(output.path, force)
        name = output.name or meta["columns"][index]
        write(output.path, values[index], f"out{name}" if name.isdigit() else name, output.columns, force)
        say(f"wrote {output.path}")


def _read(kept: Path) -> tuple[dict[str, list[str]], list[Any]]:
    """What `_aside` kept: the names of results and of their columns, and the values."""
    try:
        with kept.open("rb") as opened, zipfile.ZipFile(opened) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} is damaged")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                meta = json.loads(str(file[META]))
                return meta, [file[f"x{n}"] for n in range(len(meta["names"]))]
    except NOT_KEPT as error:
        raise InputError(f"{kept} holds no results that spuvm kept, or is damaged: {error}.") from None
