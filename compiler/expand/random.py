"""Values that no party knows: each component is drawn by those who hold it, under a key of theirs. No messages."""

from __future__ import annotations

from functools import cache
from typing import Any

from spuvm.compiler.expand.expander import Components, Expander
from spuvm.compiler.expand.wrap import BITWISE
from spuvm.compiler.ir.module import Op
from spuvm.runtime.engine.primitives import random
from spuvm.runtime.protocols.algebra import Algebra
from spuvm.runtime.ring import bits as bt


@cache
def _drawn(algebra: Algebra, kind: str) -> Any:
    def draw(*, holders: tuple[tuple[int, ...], ...], shape: tuple[int, ...], dtype: Any) -> Components:
        def component(i: int) -> Any:
            x: Any = random(holders[i], shape, dtype)
            return x & bt.constant(x, 1) if dtype == "uint8" else x

        return algebra.uniform(kind, component)

    return draw


def expand_random(ex: Expander, op: Op) -> None:
    """A sharing of uniform ring elements or bools."""
    t = op.output.type
    readers = ex.users.get(op.output, [])
    bitwise = t.kind == "bool" or (readers and all(r is not None and r.name in BITWISE for r in readers))
    kind, dtype = "b" if bitwise else "a", "uint8" if t.kind == "bool" else "uint64"
    holders = tuple(tuple(sorted(h)) for h in ex.protocol.components(kind))
    params = tuple(sorted({"holders": holders, "shape": t.shape, "dtype": dtype}.items()))
    shared = ex.emit(
        "random",
        _drawn(ex.protocol.algebra, kind),
        [],
        kind,
        shape=t.shape,
        dtype=dtype,
        elementwise=False,
        communicates=True,
        params=params,
    )
    ex.set(op.output, shared)
