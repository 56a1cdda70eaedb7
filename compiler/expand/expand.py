"""MPC IR -> choreography: every operation becomes calls of the protocol's kernels, by its rule."""

from __future__ import annotations

from collections.abc import Callable

from spuvm.compiler.expand.choreography import Call, Choreography, Port
from spuvm.compiler.expand.expander import Expander
from spuvm.compiler.expand.rules import EXPAND
from spuvm.compiler.ir.module import Module
from spuvm.runtime.protocols.protocol import Protocol


def expand(module: Module, protocol: Protocol, seconds: Callable[[Call], float] | None = None) -> Choreography:
    """The whole program as a choreography under `protocol`; of kernels that give the same those of fewest `seconds`."""
    exact = module.config.get("truncation") == "exact"
    expander = Expander(EXPAND, protocol, module.config.get("ring_bits", 64), exact=exact, seconds=seconds)
    inputs, outputs = [], []
    for value in module.body.params:
        shared = expander.fresh(value.type)
        expander.set(value, shared)
        expander.block.params.extend(shared.slots)
        inputs.append(Port(shared.kind, shared.owner, shared.slots))
    expander.run(module.body)
    for value in module.body.results:
        shared = expander.edge(value)
        expander.block.results.extend(shared.slots)
        outputs.append(Port(shared.kind, shared.owner, shared.slots))
    expander.check()
    return Choreography(expander.block, inputs, outputs)
