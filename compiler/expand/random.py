"""Values that no party knows: each component is drawn by those who hold it, under a key of theirs. No messages."""

from __future__ import annotations

from typing import Any

from spuvm.compiler.expand.expand import Components, Expander
from spuvm.compiler.expand.wrap import BITWISE
from spuvm.compiler.ir.module import Op
from spuvm.runtime.engine.primitives import random
from spuvm.runtime.ring import bits as bt


def _drawn(*, holders: tuple[tuple[int, ...], ...], shape: tuple[int, ...], dtype: Any) -> Components:
    return tuple(_component(who, shape, dtype) for who in holders)


def _component(holders: tuple[int, ...], shape: tuple[int, ...], dtype: Any) -> Any:
    x: Any = random(holders, shape, dtype)
    return x & bt.constant(x, 1) if dtype == "uint8" else x


def expand_random(ex: Expander, op: Op) -> None:
    """A sharing of uniform ring elements or bools: a sum of independent components, of which each party lacks one."""
    t = op.output.type
    readers = ex.users.get(op.output, [])
    bitwise = t.kind == "bool" or (readers and all(r is not None and r.name in BITWISE for r in readers))
    kind, dtype = "b" if bitwise else "a", "uint8" if t.kind == "bool" else "uint64"
    holders = tuple(tuple(sorted(h)) for h in ex.protocol.components(kind))
    params = tuple(sorted({"holders": holders, "shape": t.shape, "dtype": dtype}.items()))
    shared = ex.emit(
        "random", _drawn, [], kind, shape=t.shape, dtype=dtype, elementwise=False, communicates=True, params=params
    )
    ex.set(op.output, shared)
