"""Of several ways to compute the same, that which is quickest over the links that a configuration is optimised for.

A way is weighed by what it costs, exactly: its piece of IR is expanded by itself, and its rounds and bytes counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spuvm.compiler.ir.module import Module, Region, Value
from spuvm.compiler.lower.context import Context

Way = Callable[..., Value | Sequence[Value]]


@dataclass(frozen=True)
class Trade:
    """A link: seconds that a message is on its way, bits a second."""

    delay: float
    width: float

    def seconds(self, rounds: int, sent: int) -> float:
        return rounds * self.delay + 8 * sent / self.width


# What `optimize` stands for: a wide link between continents, and a narrow one within a town.
TRADES = {"latency": Trade(40e-3, 1e9), "bandwidth": Trade(0.25e-3, 20e6)}


def cheapest(ctx: Context, ways: Sequence[Way], *operands: Value) -> Value | Sequence[Value]:
    """What the best way builds of the operands; way(ctx, *operands). `auto` takes the first, the usual one."""
    trade = TRADES.get(ctx.config.optimize)
    if trade is None or ctx.price is None or len(ways) < 2 or not any(v.type.is_secret for v in operands):
        return ways[0](ctx, *operands)
    seconds = [trade.seconds(*ctx.price(_alone(ctx, way, operands))) for way in ways]
    return ways[seconds.index(min(seconds))](ctx, *operands)


def _alone(ctx: Context, way: Way, operands: Sequence[Value]) -> Module:
    """A program of one way."""
    region = Region([Value(v.type) for v in operands])
    with ctx.b.inside(region):
        made = way(ctx, *region.params)
    region.results = [made] if isinstance(made, Value) else list(made)
    names = tuple(f"x{i}" for i in range(len(operands)))
    outputs = tuple(f"y{i}" for i in range(len(region.results)))
    dtypes = tuple("float32" for _ in operands), tuple("float32" for _ in outputs)
    return Module("way", region, names, outputs, *dtypes, ctx.config.settings)
