"""The rows of all blocks as one Parquet file, which appears when it is complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spuvm.compiler.compile import Program
from spuvm.data.formats.table_file import pyarrow_module
from spuvm.data.tables import column_names
from spuvm.data.targets import check_target, replacing
from spuvm.runtime.errors import InputError
from spuvm.streaming import finished
from spuvm.streaming.block import MASK
from spuvm.streaming.job import Runner
from spuvm.streaming.sealed import read_sealed, sealed, write_whole

NOTE = "output.json"  # in the run's folder: which file this run has written, before it gets its name


@dataclass
class Output:
    """The file that this party writes."""

    path: Path
    force: bool
    _there: bool = field(default=False, init=False)

    def check(self, folder: Path) -> None:
        """Refuse a path that cannot be written in the end; a file that this very run wrote is as it should be."""
        noted = self._noted(folder)
        if noted is not None and self.path.is_file() and finished.digest(self.path) == noted:
            self._there = True
            return
        check_target(self.path, self.force, (".parquet",))

    def write(self, runner: Runner, made: Mapping[str, Any]) -> None:
        """One row group for each block, in the order of rows, and what made it. Raises InputError if that fails."""
        if self._there:
            return
        arrow, parquet = pyarrow_module("parquet")
        records = runner.folder.finished()
        schema = arrow.schema(self._fields(runner, arrow))
        with replacing(self.path, self.force) as temporary:
            try:
                with parquet.ParquetWriter(temporary, schema, write_page_checksum=True) as file:
                    for block in range(runner.job.blocks):
                        for columns in self._pieces(runner, block, runner.folder.load(block, records[block])):
                            table = arrow.table(columns, schema=schema)
                            if table.num_rows:
                                file.write_table(table, row_group_size=table.num_rows)
            except (arrow.ArrowException, OSError) as error:
                raise InputError(
                    f"{self.path} cannot be written: {error}. All blocks are finished and kept in "
                    f"{runner.folder.path}: make room and start the same command again."
                ) from None
            finished.mark(temporary, made)
            write_whole(runner.folder.path / NOTE, sealed({"sha256": finished.digest(temporary)}))

    def _noted(self, folder: Path) -> str | None:
        with suppress(InputError):
            digest: str = read_sealed(folder / NOTE)["sha256"]
            return digest
        return None

    def _fields(self, runner: Runner, arrow: Any) -> list[Any]:
        program = runner.job.programs[runner.job.shapes()[0]]
        module = program.module
        out = []
        for name, i in _results(program)[0].items():
            if name != MASK:
                type_ = arrow.from_numpy_dtype(np.dtype(module.output_dtypes[i]))
                out += [(n, type_) for n in column_names(module.body.results[i].type.shape, name, (), self.path)]
        return out

    def _pieces(self, runner: Runner, block: int, stored: dict[str, np.ndarray]) -> Sequence[dict[str, np.ndarray]]:
        """The tables of a block, one for each part; of a filtered stream the rows that were kept."""
        out = []
        for piece in _results(runner.job.programs[runner.job.counts(block)]):
            keep = stored[str(piece[MASK])] if MASK in piece else None
            columns: dict[str, np.ndarray] = {}
            for name, i in piece.items():
                if name == MASK:
                    continue
                value = stored[str(i)] if keep is None else stored[str(i)][keep]
                names = column_names(value.shape, name, (), self.path)
                matrix = value.reshape(len(value), len(names))
                columns |= {n: np.ascontiguousarray(matrix[:, j]) for j, n in enumerate(names)}
            out.append(columns)
        return out


def _results(program: Program) -> list[dict[str, int]]:
    """For each part its columns, and which of the program's results each is."""
    assert program.traced is not None
    pieces: list[dict[str, int]] = jax.tree.unflatten(program.traced.out_tree, range(len(program.module.outputs)))
    return pieces
