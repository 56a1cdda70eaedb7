"""Results to files and to stdout, and what a run cost as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.table import Table as RichTable

from spuvm.commands.options import Output
from spuvm.commands.terminal import console
from spuvm.compiler.compile import Program
from spuvm.compiler.cost import Cost
from spuvm.compiler.ir.module import Type
from spuvm.compiler.lower.missing import SUFFIX, validities
from spuvm.data.files import FORMATS
from spuvm.data.tables import column_names, write
from spuvm.data.targets import check_target
from spuvm.runtime.errors import InputError, VisibilityError

INEXACT = (
    "Of loops and branches that depend on run-time values, the prediction counts one trip, of a sort the comparisons "
    "of an example."
)


# Which output goes where ---------------------------------------------------------------------------------


def match_outputs(program: Program, outputs: Sequence[Output], force: bool) -> dict[int, Output]:
    """The program's results that are to be written, by position.

    A result is named as in the program ("out[1]", "out.risk") or for short ("1", "risk"); a program's only
    result may have any name, which is then its column's.

    Raises InputError for what could not be written at the end.
    """
    module = program.module
    found: dict[int, Output] = {}
    for output in outputs:
        index = index_of(module.outputs, output)
        type_ = module.body.results[index].type
        shown = module.outputs[index]
        if index in found or any(o.path == output.path for o in found.values()):
            raise InputError(f"`--output`: `{shown}` or {output.path} is named twice.")
        if type_.is_secret:
            raise VisibilityError(secret_result(shown))
        check_target(output.path, force, tuple(FORMATS))
        if output.path.suffix.lower() != ".npy":
            column_names(type_.shape, shown, output.columns, output.path)
        found[index] = output
    return found


def index_of(names: Sequence[str], output: Output) -> int:
    """Which of the results an output means; InputError if none."""
    wanted = output.name
    if wanted is not None:
        for i, name in enumerate(names):
            if wanted in (name, name.removeprefix("out."), name.removeprefix("out")) or name == f"out[{wanted}]":
                return i
    names = [name for name in names if not name.endswith(SUFFIX)]
    if len(names) == 1:
        return 0
    given = f"has no result `{wanted}`" if wanted else f"has {len(names)} results: name one for {output.path}"
    raise InputError(f"`--output`: the program {given}. Its results are: {', '.join(names)}.")


def secret_result(name: str) -> str:
    return (
        f"result `{name}` is secret, so nobody can write it: reveal it in the program, `spu.reveal(x)` to all "
        'or `spu.reveal(x, to="carol")` to one, or compile with `--reveal`.'
    )


def write_outputs(program: Program, values: Mapping[int, Any], outputs: Mapping[int, Output], force: bool) -> list[str]:
    """Write results, by position; what was written, in words."""
    lines = []
    for index, output in outputs.items():
        value = np.asarray(values[index])
        write(output.path, value, column_of(program, index, output), output.columns, force)
        rows = f"{value.shape[0]:,} rows" if value.ndim else "one number"
        lines.append(f"wrote {output.path} ({rows})")
    return lines


def column_of(program: Program, index: int, output: Output) -> str:
    """The name of a result's column: as it was asked for, but no bare number."""
    name = output.name or program.module.outputs[index].removeprefix("out.")
    return f"out{name}" if name.isdigit() else name


def show(program: Program, values: Mapping[int, Any], written: Iterable[int] = ()) -> None:
    """Print the results that are known here and were not written, to stdout; long ones shortened."""
    skip = {*written, *validities(program.module.outputs).values()}  # these are shown as NaN
    out = console()
    for i, (name, value, dtype) in enumerate(
        zip(program.module.outputs, program.module.body.results, program.module.output_dtypes)
    ):
        if i in skip:
            continue
        head = f"{name} {dtype}[{','.join(map(str, value.shape))}] {who(value.type, program.config.members)}"
        if i in values:
            text = np.array2string(np.asarray(values[i]), threshold=30, separator=", ", prefix="  ")
            out.print(f"{head}: {text}" if value.type.size <= 1 else f"{head}:\n  {text}")
        else:
            out.print(head + (": stays shared" if value.type.is_secret else ": not known here"))


def who(type_: Type, parties: Sequence[str]) -> str:
    """The visibility in the parties' names."""
    return f"private({parties[type_.visibility]})" if isinstance(type_.visibility, int) else type_.visibility


# Costs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """What a party's link counted in a run."""

    party: str
    rounds: int
    bytes_sent: int
    bytes_received: int
    seconds: float


def run_table(cost: Cost, ran: Sequence[Ran]) -> RichTable:
    """Counted beside predicted, per party."""
    table = _table("party", "rounds", "predicted", "bytes sent", "predicted", "bytes received", "seconds")
    for r in ran:
        i = cost.parties.index(r.party)
        table.add_row(
            r.party, f"{r.rounds:,}", f"{cost.party_rounds[i]:,}", f"{r.bytes_sent:,}", f"{cost.bytes_sent[i]:,}",
            f"{r.bytes_received:,}", f"{r.seconds:.3f}",
        )  # fmt: skip
    return table


def profile_table(party: str, rows: Sequence[Mapping[str, Any]]) -> RichTable:
    """Where one party's time went."""
    table = _table("operation", "line", "times", "seconds", "rounds alone", "bytes sent")
    table.title = party
    for r in rows:
        counted = f"{r['rounds']:,}", f"{r['bytes']:,}"
        table.add_row(r["operation"], r["line"], f"{r['times']:,}", f"{r['seconds']:.4f}", *counted)
    return table


def predicted_table(cost: Cost) -> RichTable:
    """Per party, without a run."""
    table = _table("party", "rounds", "bytes sent")
    for name, rounds, sent in zip(cost.parties, cost.party_rounds, cost.bytes_sent):
        table.add_row(name, f"{rounds:,}", f"{sent:,}")
    return table


def differences(cost: Cost, ran: Sequence[Ran]) -> str | None:
    """In words, if the counters are not what an exact prediction said."""
    wrong = [
        r.party
        for r in ran
        if (r.rounds, r.bytes_sent) != (cost.party_rounds[i := cost.parties.index(r.party)], cost.bytes_sent[i])
    ]
    if not wrong:
        return None
    if not cost.exact:
        return INEXACT
    return f"The counters of {', '.join(wrong)} differ from the prediction: this is a mistake inside spuvm."


def cost_tables(cost: Cost) -> list[RichTable]:
    """By party, by operation, by source line."""
    tables = [predicted_table(cost)]
    for first, rows, key in (("operation", cost.by_op(), "op"), ("line", cost.by_line(), "location")):
        table = _table(first, "calls", "rounds alone", *(f"bytes by {p}" for p in cost.parties), "share")
        total = max(1, int(cost.bytes_sent.sum()))
        for row in sorted(rows, key=lambda r: -int(r.bytes.sum())):
            sent = int(row.bytes.sum())
            if sent or row.rounds:
                table.add_row(
                    getattr(row, key), f"{row.calls:,}", f"{row.rounds:,}", *(f"{b:,}" for b in row.bytes),
                    f"{sent / total:.1%}",
                )  # fmt: skip
        tables.append(table)
    return tables


def _table(first: str, *rest: str) -> RichTable:
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in rest:
        table.add_column(name, justify="right")
    return table
