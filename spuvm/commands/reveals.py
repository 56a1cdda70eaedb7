"""What a program reveals to whom, and where it says so: the last lines of what its reviewers are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spuvm.compiler.compile import Program
from spuvm.compiler.ir.module import Op, Region
from spuvm.runtime.legible import legible


def reveals(program: Program) -> list[str]:
    """A line for each reveal of the program, in its order."""
    members = program.config.members
    guards = {op.inputs[0] for op in program.module.body.walk() if op.name == "guarded"}
    lines = [_line(op, inside, members, op.output in guards) for op, inside in _walk(program.module.body, "")]
    return lines or ["reveals nothing: all results stay shared"]


def _walk(region: Region, inside: str) -> Iterator[tuple[Op, str]]:
    for op in region.ops:
        if op.name == "reveal":
            yield op, inside
        for inner in op.regions:
            yield from _walk(inner, f"{inside}, in a `{op.name}`")


def _line(op: Op, inside: str, members: Sequence[str], guards: bool) -> str:
    to = op.attrs["to"]
    receiver = "everyone" if to == "public" else f"{members[to]} alone"
    place = legible(str(op.location)) if op.location.file else "an unknown line"
    dims = ",".join(map(str, op.outputs[0].type.shape))
    if guards:
        return f"reveals whether a number left what the ring holds, to {receiver}: {place}{inside}"
    return f"reveals {op.inputs[0].type.element}[{dims}] to {receiver}: {place}{inside}"
