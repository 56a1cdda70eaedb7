"""What a program reveals, as its text says it: one line for each reveal that it states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spuvm.compiler.ir.module import Op, Region


def revealed(region: Region, parties: Sequence[str]) -> Iterator[str]:
    """ "float[3] to everyone  f.py:12", in the order of the program; what is public already is no reveal."""
    for op in _reveals(region):
        value, to = op.inputs[0], op.attrs["to"]
        if value.type.is_public:
            continue
        who = "everyone" if to == "public" else parties[to]
        dims = ",".join(map(str, value.shape))
        yield f"{value.type.element}[{dims}] to {who}  {op.location}".rstrip()


def _reveals(region: Region) -> Iterator[Op]:
    for op in region.ops:
        if op.name == "reveal":
            yield op
        for inner in op.regions:
            yield from _reveals(inner)
