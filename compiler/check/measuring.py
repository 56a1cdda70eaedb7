"""A function in float64 on a sample, and what its numbers were: the ranges that scales are fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spuvm.compiler.check.findings import Tolerance
from spuvm.compiler.check.shadow import Env, Pair, Recorder, Shadow
from spuvm.compiler.front.trace import Traced
from spuvm.compiler.ir.in_the_clear import Ring
from spuvm.compiler.ir.module import Region, Value, Visibility
from spuvm.compiler.lower.context import Lowered
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes.ranges import Ranges, recorded
from spuvm.runtime.config import Config

KEPT = 4096  # numbers of an array that are looked at, and its largest


def measured(
    traced: Traced,
    values: Sequence[Any],
    owners: Sequence[Visibility],
    config: Config,
    missing: Sequence[int] = (),
) -> Ranges:
    """The ranges of a traced function's numbers on its flat arguments."""
    recorder = Recorder()
    module = lower(traced, owners, config, recorder, missing=missing)
    watching = _Watching(recorder.regions, Tolerance(0.0, 1.0, config.fxp_fraction_bits, config.ring_bits), 0)
    ring, inputs = Ring(config.ring_bits), []
    with np.errstate(all="ignore"):
        for x, param in zip(values, module.body.params):
            real = np.asarray(x)
            if param.type.kind == "fxp":
                real = real.astype(np.float64)
                watching.see(param, real)
            whole = np.clip(np.nan_to_num(real * 2.0**param.type.frac), -(2.0**62), 2.0**62 - 1024)
            raw = whole.astype(np.int64) if param.type.kind == "fxp" else real
            inputs.append(Pair(ring.make(raw), real))
        watching.run(module.body, inputs)
    return recorded(module, watching.seen)


class _Watching(Shadow):
    """Keeps what the results of equations should be."""

    def __init__(self, regions: Mapping[Region, list[Lowered]], tolerance: Tolerance, seed: int) -> None:
        super().__init__(regions, tolerance, seed)
        self.seen: dict[Value, list[Any]] = {}

    def see(self, value: Value, real: Any) -> None:
        sizes = np.abs(np.asarray(real, np.float64)).reshape(-1)
        if sizes.size:
            few = sizes[:: -(-sizes.size // KEPT)]
            self.seen.setdefault(value, []).extend((few, sizes.max()))

    def _observe(self, record: Lowered, env: Env) -> None:
        super()._observe(record, env)
        for out in record.outs:
            if isinstance(out, Value) and out.type.kind == "fxp" and env[out].real is not None:
                self.see(out, env[out].real)
